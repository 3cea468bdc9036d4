"""All checks of a host, what they come to, and the exit code that says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellwall.cli.doctor.agent import agent_checks
from cellwall.cli.doctor.boot import boot_checks
from cellwall.cli.doctor.checks import Check, State, host_checks
from cellwall.cli.doctor.controller import controller_checks
from cellwall.cli.doctor.nft import nft_checks
from cellwall.cli.exits import Exit, Stop


def every_check(state: Path, controller: str = "", token_file: Path | None = None) -> list[Check]:
    """Check the host, and the way to `controller` where one is named; `token_file` holds the token for it."""
    if token_file is not None and not controller:
        raise Stop(Exit.USAGE, "a token is compared with a controller; wanted --controller too")
    token = token_file.read_text("utf-8") if token_file is not None else ""
    found = [*host_checks(state), *nft_checks(), *boot_checks(), *agent_checks(state)]
    return [*found, *controller_checks(controller, token)] if controller else found


def as_json(checks: list[Check]) -> dict[str, Any]:
    """Give the findings as JSON."""
    return {
        "can_enforce": not any(check.blocks for check in checks),
        "items": [
            {"name": c.name, "state": c.state.value, "says": c.says, "advice": c.advice, "blocks": c.blocks}
            for c in checks
        ],
    }


def summary(checks: list[Check]) -> str:
    """Give the last line: can this host enforce, and how the checks came out."""
    counts = {state: sum(check.state is state for check in checks) for state in State}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    can = "cannot" if any(check.blocks for check in checks) else "can"
    return f"this host {can} enforce: {told}"


def code_of(checks: list[Check]) -> Exit:
    """Give the exit code: unable where something blocks, no where something failed."""
    if any(check.blocks for check in checks):
        return Exit.UNABLE
    return Exit.NO if any(check.state is State.FAIL for check in checks) else Exit.OK
