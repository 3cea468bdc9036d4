"""`cellwall demo`: the whole story on a small fleet, which fails when any of it is not true."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cellwall.cli.demo.stage import keep_out
from cellwall.cli.documents import Replace
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.help import LAB, examples
from cellwall.cli.labs import scenario_file

OUTPUT = Path("demo-output")


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("demo", rich_help_panel=LAB, epilog=examples("cellwall demo", "cellwall demo --to /tmp/demo"))(demo)


def demo(
    to: Annotated[Path, typer.Option(help="where the map, the policy and the summary go", metavar="DIR")] = OUTPUT,
    scenario: Annotated[str, typer.Option(help="the scenario that is played", metavar="NAME")] = "shop",
    keep: Annotated[bool, typer.Option("--keep", help="leave the lab up at the end, to look around in")] = False,
    yes: Replace = False,
) -> None:
    """Show the whole story on a small fleet, and fail when any promise of it is broken; takes under three minutes."""
    if os.geteuid() != 0:
        raise Stop(Exit.UNABLE, "the demonstration needs root: it makes network namespaces")
    path = scenario_file(scenario)
    if not yes:
        keep_out(to)
    from cellwall.cli.demo.story import perform

    ended = perform(path, to, keep=keep)
    if ended:
        raise Stop(Exit.NO, ended)
