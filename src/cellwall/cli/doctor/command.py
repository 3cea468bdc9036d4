"""`cellwall doctor`: can this host enforce, and what should be known before it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwall.cli.doctor.all import as_json, code_of, every_check, summary
from cellwall.cli.doctor.checks import Check
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.help import SEE, examples
from cellwall.cli.host import STATE
from cellwall.cli.output import Format, Output, cell, show, table, working

if TYPE_CHECKING:
    from rich.console import RenderableType


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        "doctor",
        rich_help_panel=SEE,
        epilog=examples(
            "cellwall doctor",
            "cellwall doctor --controller https://10.0.0.5:7443 --token-file token",
            "cellwall doctor -o json",
            "ssh web-1 cellwall doctor",
        ),
    )(doctor)


def doctor(
    state: Annotated[Path, typer.Option(help="the agent's folder", metavar="DIR")] = STATE,
    controller: Annotated[str, typer.Option(help="check the way to this controller too", metavar="URL")] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="the token that it will be enrolled with; it is not used up", metavar="FILE")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Check this host, before it is enrolled or after; exit code 6 when it cannot enforce, 1 when it should not yet."""
    with working("looking"):
        checks = every_check(state, controller, token_file)
    show(as_json(checks), output, lambda: drawn(checks))
    if code := code_of(checks):
        raise Stop(Exit(code))


def drawn(checks: list[Check]) -> RenderableType:
    """Draw the findings: one line each, what to do about it below, and the sum."""
    from rich.console import Group
    from rich.text import Text

    rows: list[list[Any]] = []
    for check in checks:
        rows.append([cell(check.state.value), check.name, check.says])
        if check.advice:
            rows.append([Text(), Text(), Text(f"→ {check.advice}", style="dim")])
    return Group(table(["state", "check", "finding"], rows), f"\n{summary(checks)}")
