"""The audit log: what was done, by whom, and whether the log is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cellwall.cli.documents import Replace
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.files import keep, replaced
from cellwall.cli.flows import moment
from cellwall.cli.help import PROGRAMS, examples
from cellwall.cli.output import Format, Output, cell, show, table, working
from cellwall.cli.where import Socket, controller


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    audit = typer.Typer(help="What was done, by whom.", no_args_is_help=True)
    audit.command(
        "list",
        epilog=examples(
            "cellwall audit list --since 1d",
            "cellwall audit list --by alice --action apply -o json",
            "cellwall audit list --action refused",
        ),
    )(list_audit)
    audit.command("verify", epilog=examples("cellwall audit verify", "cellwall audit verify -o json"))(verify)
    audit.command("export", epilog=examples("cellwall audit export audit.jsonl"))(export)
    app.add_typer(audit, name="audit", rich_help_panel=PROGRAMS)


def list_audit(
    since: Annotated[str | None, typer.Option(help="from when on: 15m, 2h, 7d, or RFC 3339", metavar="WHEN")] = None,
    by: Annotated[str | None, typer.Option(help="only what this person, token or workload did", metavar="NAME")] = None,
    action: Annotated[
        str | None, typer.Option(help="only this: apply, label, sign in, refused …", metavar="ACTION")
    ] = None,
    limit: Annotated[int, typer.Option(help="so many, the newest", min=1, metavar="N")] = 100,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """List what was done, the newest first."""
    items: list[dict[str, Any]] = []
    for one in controller(socket).items("audit", since=since, by=by, action=action, limit=min(limit, 1000)):
        items.append(one)
        if len(items) == limit:
            break
    rows = [
        [one["number"], moment(one["at"]), one["author"], one["action"], one["subject"], _told(one)] for one in items
    ]
    headers = ["entry#", "when", "who", "did", "to", "more"]
    show({"items": items}, output, lambda: table(headers, rows, "nothing was done"))


def verify(socket: Socket = None, output: Output = Format.TABLE) -> None:
    """Check the whole log: every entry follows from the one before it, and is the one that was signed."""
    with working("checking the audit log"):
        answer = controller(socket).get("audit", "verify")
    good = f"the audit log is whole: {answer['entries']} entries, {answer['heads']} signed heads"
    bad = f"the audit log is broken at entry {answer['broken_at']}: {answer['reason']}"
    show(answer, output, lambda: good if answer["whole"] else bad)
    if not answer["whole"]:
        raise Stop(Exit.NO)


def export(
    file: Annotated[Path, typer.Argument(help="where to write it, one JSON object a line", metavar="FILE")],
    yes: Replace = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Write the whole log to a file, the oldest entry first, then the signatures of its head: keep it elsewhere."""
    keep([file], replace=yes)
    api, count = controller(socket), 0
    with working("exporting the audit log"), replaced(file) as out:
        for one in reversed(list(api.items("audit", limit=1000))):
            out.write(json.dumps({"entry": one}, ensure_ascii=False).encode() + b"\n")
            count += 1
        heads = api.get("audit", "checkpoints")
        for one in reversed(heads["items"]):
            out.write(json.dumps({"head": one, "key": heads["key"]}).encode() + b"\n")
    told = {"file": str(file), "entries": count, "heads": len(heads["items"])}
    show(told, output, lambda: f"wrote {count} entries and {told['heads']} signed heads to {file}")


def _told(one: dict[str, Any]) -> str:
    details = dict(one["details"])
    asked = details.pop("asked", {})
    words = [f"{key}={_value(key, value)}" for key, value in details.items() if value not in (None, "", [], {})]
    if asked.get("way") not in (None, "socket"):
        words.append(f"by {asked['way']}" + (f" from {asked['from'].removeprefix(_MAPPED)}" if "from" in asked else ""))
    text = " ".join(words)
    return text if len(text) <= 160 else f"{text[:159]}…"


_MAPPED = "::ffff:"
"""How an IPv4 address begins that a socket of both families tells (RFC 4291 §2.5.5.2)."""


def _value(key: str, value: Any) -> str:
    if isinstance(value, (dict, list)):
        return cell(value).plain
    return moment(value) if key == "expires" else json.dumps(value, ensure_ascii=False)
