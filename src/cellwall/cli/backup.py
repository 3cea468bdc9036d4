"""The controller's state: backed up, restored, moved to another database; and the controllers that share one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwall.cli.documents import Replace, read_documents
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.files import keep
from cellwall.cli.flows import moment
from cellwall.cli.help import examples
from cellwall.cli.output import Format, Output, hint, show, table
from cellwall.cli.where import Socket, controller

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cellwall.controller import Manifest

Data = Annotated[Path, typer.Option("--data", help="the controller's folder", metavar="DIR")]
Database = Annotated[
    str,
    typer.Option(
        "--database",
        envvar="CELLWALL_DATABASE",
        help="its PostgreSQL database, where it has one; by default `state.db` in its folder",
        metavar="URL",
    ),
]
Passphrase = Annotated[
    Path | None, typer.Option("--passphrase-file", help="the passphrase that seals the keys, on one line")
]
WithoutKeys = Annotated[bool, typer.Option("--without-keys", help="leave the keys out")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do it; without, only show what would be done")]
_NO = "nothing was changed; repeat with --yes to do it"


def add(control: typer.Typer) -> None:
    """Add the commands of this file to `cellwall controller`."""
    control.command(
        "backup",
        epilog=examples(
            "cellwall controller backup state.cwb --data /var/lib/cellwall/controller --passphrase-file passphrase",
            "cellwall controller backup state.cwb --data ./data --without-keys",
        ),
    )(backup)
    control.command(
        "restore",
        epilog=examples(
            "cellwall controller restore state.cwb --data ./data --passphrase-file passphrase --yes",
            "cellwall controller restore state.cwb --data ./new --database postgresql://cellwall@db/cellwall",
        ),
    )(restore)
    control.command(
        "accept-restore",
        epilog=examples(
            "cellwall controller accept-restore", "cellwall controller accept-restore --policy ./policy --yes"
        ),
    )(accept_restore)
    control.command("list", epilog=examples("cellwall controller list", "cellwall controller list -o json"))(
        list_controllers
    )
    control.command("forget", epilog=examples("cellwall controller forget east-2 --yes"))(forget)


def backup(
    file: Annotated[Path, typer.Argument(help="the file to write", metavar="FILE")],
    data: Data,
    database: Database = "",
    passphrase_file: Passphrase = None,
    without_keys: WithoutKeys = False,
    yes: Replace = False,
    output: Output = Format.TABLE,
) -> None:
    """Write the controller's state to one file, while it runs or not. Flows are not in it.

    A file that is there is replaced with --yes alone, and only once the new one is whole."""
    from cellwall import __version__
    from cellwall.controller import take_backup

    keep([file], replace=yes)
    try:
        secret = _passphrase(passphrase_file)
        told = take_backup(file, data, database, secret, __version__, time.time(), keys=not without_keys)
    except OSError as error:
        raise Stop(Exit.UNABLE, _said(error)) from None
    show(_shape(told), output, lambda: _table(told))


def restore(
    file: Annotated[Path, typer.Argument(help="a backup", metavar="FILE")],
    data: Data,
    database: Database = "",
    passphrase_file: Passphrase = None,
    without_keys: WithoutKeys = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Make the state of a backup that of a controller that has none, in either kind of database."""
    from cellwall.controller import check_restore, restore_backup

    try:
        if yes:
            told = restore_backup(file, data, database, _passphrase(passphrase_file), keys=not without_keys)
        else:
            told = check_restore(file, data, database)
    except OSError as error:
        raise Stop(Exit.UNABLE, _said(error)) from None
    show(_shape(told), output, lambda: _table(told))
    if not yes:
        hint(_NO)


def accept_restore(
    policy: Annotated[
        Path | None, typer.Option(help="put these documents in force, not those of the backup", metavar="PATH")
    ] = None,
    note: Annotated[str, typer.Option(help="why, for the audit log")] = "",
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Send agents policy again, after the controller found that its state is older than what they hold."""
    documents = read_documents([policy]) if policy is not None else None
    body = {"documents": documents, "note": note, "dry_run": not yes}
    answer = controller(socket).post("accept-restore", body=body)

    def told() -> RenderableType:
        if answer["held"]:
            return table(
                ["what", "is"], [["held since", moment(answer["held"]["since"])], ["why", answer["held"]["why"]]]
            )
        return table(["what", "is"], [["revision in force", answer["revision"]]])

    show(answer, output, told)
    if not yes:
        hint(_NO)


def list_controllers(socket: Socket = None, output: Output = Format.TABLE) -> None:
    """List the controllers of one database: which leads, how many agents each has, and which are gone."""
    answer = controller(socket).get("controllers")
    names = ("name", "state", "agents", "urls", "version")
    show(answer, output, lambda: table(list(names), [[one[name] for name in names] for one in answer["items"]]))


def forget(
    name: Annotated[str, typer.Argument(help="a controller that is gone for good", metavar="NAME")],
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Forget a controller: agents are no longer told of it, and their way to it closes; without --yes only show it."""
    api = controller(socket)
    known = {one["name"]: one for one in api.get("controllers")["items"]}
    if name not in known:
        raise Stop(Exit.USAGE, f"there is no controller `{name}`; `cellwall controller list` lists them")
    if yes:
        api.delete("controllers", name)
    show(known[name], output, lambda: table(["what", "is"], sorted(known[name].items())))
    if not yes:
        hint(_NO)


def _passphrase(file: Path | None) -> str | None:
    return file.read_text("utf-8").rstrip("\n") if file is not None else None


def _said(error: OSError) -> str:
    return f"`{error.filename}`: {(error.strerror or str(error)).lower()}" if error.filename else str(error).lower()


def _shape(told: Manifest) -> dict[str, Any]:
    return {
        "taken": told.taken,
        "engine": told.engine,
        "schema": told.schema,
        "version": told.version,
        "revision": told.revision,
        "authority": told.authority,
        "keys": told.has_keys,
        "rows": told.rows,
    }


def _table(told: Manifest) -> RenderableType:
    rows: list[list[Any]] = [
        ["taken", moment(told.taken)],
        ["by version", told.version],
        ["from", told.engine],
        ["newest revision", told.revision],
        ["keys", "sealed in it" if told.has_keys else "left out"],
        ["authority", told.authority],
        ["rows", ", ".join(f"{name} {count}" for name, count in told.rows.items() if count)],
    ]
    return table(["what", "is"], rows)
