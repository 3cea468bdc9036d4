"""`cellwall rollout` and `cellwall revert`: how a revision comes into force, and the way back."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.fleet import Yes
from cellwall.cli.help import POLICY, examples
from cellwall.cli.output import Format, Output, hint, show, table, working
from cellwall.cli.where import Socket, controller
from cellwall.clients import Api

_LOOK_EVERY_S = 0.3
_HAS_IT = ("enforced", "relaxed")


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    rollout = typer.Typer(help="How the revision in force stands at every point.", no_args_is_help=True)
    rollout.command("status", epilog=examples("cellwall rollout status", "cellwall rollout status --wait 60"))(status)
    app.add_typer(rollout, name="rollout", rich_help_panel=POLICY)
    app.command(
        "revert",
        rich_help_panel=POLICY,
        epilog=examples("cellwall revert", "cellwall revert 3 --note 'too tight' --yes"),
    )(revert)


def status(
    wait: Annotated[float, typer.Option(help="seconds to wait until it is settled", metavar="S")] = 0.0,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Say how every point stands to the revision in force; exit code 1 when some do not have it, 4 when it failed."""
    api = controller(socket)
    with working("waiting"):
        state = settle(api, None, wait, everywhere=True)
    show(state, output, lambda: draw_rollout(state))
    if state["state"] == "failed":
        raise Stop(Exit.REFUSED)
    if state["state"] != "good" or any(one["state"] not in _HAS_IT for one in state["items"]):
        raise Stop(Exit.NO)


def settle(api: Api, revision: int | None, wait_s: float, *, everywhere: bool = False) -> dict[str, Any]:
    """Wait until a revision (the one in force, where None) is good or failed, and give how it is.

    A revision stays good while a point that came back still has to get it: `everywhere` waits for those too."""
    deadline = time.monotonic() + wait_s
    while True:
        state = api.get("policy", "rollout")
        wanted = state["revision"] if revision is None else revision
        if state["revision"] != wanted:
            # Another is in force: what became of ours stands in the list of revisions.
            one = api.get("policy", "revisions", str(wanted))
            return {**state, "state": one["state"], "reason": one["reason"]}
        pending = everywhere and any(one["state"] == "pending" for one in state["items"])
        settled = state["state"] == "failed" or (state["state"] == "good" and not pending)
        if settled or time.monotonic() >= deadline:
            return state
        time.sleep(_LOOK_EVERY_S)


def draw_rollout(state: dict[str, Any]) -> RenderableType:
    """Draw how the points stand."""
    rows = [
        [one["workload"], one["state"], one["revision_held"], one["connected"], one["reason"] or _misfits(one)]
        for one in state["items"]
    ]
    head = f"revision {state['revision']} is {state['state']}" + (f": {state['reason']}" if state["reason"] else "")
    return Group(Text(head), table(["point", "state", "holds#", "connected", "why"], rows, "no points"))


def _misfits(one: dict[str, Any]) -> str:
    return "; ".join(f"`{misfit['rule']}`: {misfit['reason']}" for misfit in one["misfits"])


def revert(
    to: Annotated[int | None, typer.Argument(help="the revision; else the last good one", metavar="[N]")] = None,
    note: Annotated[str, typer.Option(help="why, for those who come after", metavar="TEXT")] = "",
    wait: Annotated[float, typer.Option(help="seconds to wait until all points have it", metavar="S")] = 60.0,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Put an earlier revision in force again; without --yes only show what that changes."""
    from cellwall.cli.plan_view import draw_plan

    api = controller(socket)
    answer = api.post("policy", "revert", body={"to": to, "note": note, "dry_run": not yes})
    if not yes:
        show(answer, output, lambda: Group(Text(f"back to revision {answer['to']}:"), draw_plan(answer["plan"])))
        hint("nothing was changed; repeat with --yes to do it")
        return
    with working(f"waiting for revision {answer['revision']} at all points"):
        state = settle(api, answer["revision"], wait)
    show(state, output, lambda: draw_rollout(state))
    if state["state"] != "good":
        raise Stop(Exit.REFUSED if state["state"] == "failed" else Exit.NO)
