"""`cellwall support-bundle`: what helps others to find a fault, in one file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cellwall.cli.bundle import collect
from cellwall.cli.documents import Replace
from cellwall.cli.exits import Stop
from cellwall.cli.files import keep
from cellwall.cli.help import SEE, examples
from cellwall.cli.host import STATE
from cellwall.cli.output import Format, Output, show, table, working
from cellwall.cli.where import Socket, controller


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        "support-bundle",
        rich_help_panel=SEE,
        epilog=examples(
            "cellwall support-bundle",
            "cellwall support-bundle --no-names --out /tmp/for-support.tar.gz",
            "cellwall agent support-bundle",
        ),
    )(support_bundle)


def support_bundle(
    out: Annotated[Path | None, typer.Option(help="the file to write; cellwall-TIME.tar.gz by default")] = None,
    no_names: Annotated[bool, typer.Option("--no-names", help="replace names and addresses, each by the same")] = False,
    state: Annotated[Path, typer.Option(help="the agent's folder", metavar="DIR")] = STATE,
    yes: Replace = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Collect what helps others to find a fault, of the controller and of this host: no secrets, no policy, no flows.

    Works too when the controller is down; what could not be had is named."""
    to = out or Path(time.strftime("cellwall-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))
    keep([to], replace=yes)
    with working("collecting"):
        try:
            api, why = controller(socket), ""
        except Stop as error:
            api, why = None, str(error)
        made = collect(api, why, state, names=not no_names)
        made.write(to)
    told: dict[str, Any] = {
        "file": str(to),
        "bytes": to.stat().st_size,
        "files": {name: len(text.encode("utf-8", "backslashreplace")) for name, text in sorted(made.files.items())},
        "missing": made.missing,
    }
    show(told, output, lambda: _drawn(told))


def _drawn(told: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    rows: list[list[Any]] = [[name, size, ""] for name, size in told["files"].items()]
    rows += [[name, None, f"could not be had: {why}"] for name, why in told["missing"].items()]
    end = f"\n{told['file']}, {told['bytes']} bytes; look through it before you give it away"
    return Group(table(["what is inside", "bytes#", ""], rows), Text(end))
