"""How the tests of the policy in force stand: what `cellwall policy test` shows when it is given no documents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.flows import moment
from cellwall.cli.output import Output, show, table, verdict, working
from cellwall.cli.where import controller
from cellwall.clients import Api

WAIT_S, LOOK_EVERY_S = 30.0, 0.2


def show_standing(socket: Path | None, output: Output) -> None:
    """Show how the tests in force stand, after the last change; exit code 1 when one fails. Raises `Stop`."""
    with working("checking all pairs"):
        answer = _settled(controller(socket))
    show(answer, output, lambda: draw_standing(answer))
    if not all(one["passed"] for one in answer["items"]):
        raise Stop(Exit.NO)


def _settled(api: Api) -> dict[str, Any]:
    """Wait until the last change is checked; what is not by then is said to be so."""
    until = time.monotonic() + WAIT_S
    while True:
        answer: dict[str, Any] = api.get("policy", "tests")
        if answer["current"] or time.monotonic() > until:
            return answer
        time.sleep(LOOK_EVERY_S)


def draw_standing(answer: dict[str, Any]) -> RenderableType:
    """Draw how the tests stand, since when, and what breaks those that fail."""
    head = f"revision {answer['revision']}, checked at {moment(answer['at'])}"
    head += "" if answer["current"] else "; what changed since then is not checked yet"
    rows: list[list[Any]] = []
    for one in answer["items"]:
        word = "fail" if not one["passed"] else "warn" if one["vacuous"] else "pass"
        told = "matches nobody, so it proves nothing" if one["vacuous"] else one["failure"].partition(": ")[2]
        rows.append([verdict(word), one["id"], one["place"], one["checked"], moment(one["since"]), told])
    heads = ["test", "id", "place", "pairs#", "since", "counterexample"]
    return Group(Text(head), table(heads, rows, "the policy in force has no tests"))


def told_of_tests(told: dict[str, Any]) -> str:
    """Say in one line how the tests stand, for `cellwall controller status`."""
    failed = told["failed"]
    if not failed:
        return f"{told['passed']} hold" if told["passed"] else "there are none"
    first = f"{failed[0]['failure']} (since {moment(failed[0]['since'])})"
    return f"{len(failed)} of {told['passed'] + len(failed)} fail; {first}"
