"""`cellwall doctor`: can this host enforce, and what should be known before it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwall.cli.doctor_agent import agent_checks
from cellwall.cli.doctor_checks import Check, State, host_checks
from cellwall.cli.doctor_nft import nft_checks
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
        epilog=examples("cellwall doctor", "cellwall doctor -o json", "ssh web-1 cellwall doctor"),
    )(doctor)


def doctor(
    state: Annotated[Path, typer.Option(help="the agent's folder", metavar="DIR")] = STATE,
    output: Output = Format.TABLE,
) -> None:
    """Check this host, before it is enrolled or after; exit code 6 when it cannot enforce, 1 when it should not yet."""
    with working("looking"):
        checks = [*host_checks(state), *nft_checks(), *agent_checks(state)]
    show(as_json(checks), output, lambda: drawn(checks))
    if any(check.blocks for check in checks):
        raise Stop(Exit.UNABLE)
    if any(check.state is State.FAIL for check in checks):
        raise Stop(Exit.NO)


def as_json(checks: list[Check]) -> dict[str, Any]:
    """Give the findings as JSON."""
    return {
        "can_enforce": not any(check.blocks for check in checks),
        "items": [
            {"name": c.name, "state": c.state.value, "says": c.says, "advice": c.advice, "blocks": c.blocks}
            for c in checks
        ],
    }


def drawn(checks: list[Check]) -> RenderableType:
    """Draw the findings: one line each, what to do about it below, and the sum."""
    from rich.console import Group
    from rich.text import Text

    rows: list[list[Any]] = []
    for check in checks:
        rows.append([cell(check.state.value), check.name, check.says])
        if check.advice:
            rows.append([Text(), Text(), Text(f"→ {check.advice}", style="dim")])
    counts = {state: sum(check.state is state for check in checks) for state in State}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    end = "this host cannot enforce" if any(check.blocks for check in checks) else "this host can enforce"
    return Group(table(["state", "check", "finding"], rows), f"\n{end}: {told}")
