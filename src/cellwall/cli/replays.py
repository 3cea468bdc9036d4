"""`cellwall replay`: what other documents, or an earlier revision, would do to the connections that were seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellwall.cli.documents import read_documents
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.flows import Since
from cellwall.cli.help import POLICY, examples
from cellwall.cli.output import Format, Output, show, working
from cellwall.cli.plan_view import draw_replay
from cellwall.cli.where import Socket, controller


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    lines = ("cellwall replay policy/", "cellwall replay --revision 3 --since 7d", "cellwall replay policy/ -o json")
    app.command("replay", rich_help_panel=POLICY, epilog=examples(*lines))(replay)


def replay(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="documents, or folders of them", metavar="[PATH]...")
    ] = None,
    revision: Annotated[int | None, typer.Option(help="an earlier revision instead", metavar="N")] = None,
    since: Since = None,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Say which connections that were seen a policy would cut, and which open; exit code 1 when it would cut any."""
    if bool(paths) == (revision is not None):
        raise Stop(Exit.USAGE, "wanted either documents or --revision")
    documents = read_documents(paths) if paths else None
    with working("replaying what was seen"):
        answer = controller(socket).post("replay", body={"documents": documents, "revision": revision, "since": since})
    show(answer, output, lambda: draw_replay(answer))
    if answer["cut_count"]:
        raise Stop(Exit.NO)
