"""`cellwall rollout` and `cellwall revert`: how a revision comes into force, and the way back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.exits import UNAVAILABLE, Exit, Stop
from cellwall.cli.fleet import Yes
from cellwall.cli.flows import moment
from cellwall.cli.help import POLICY, examples
from cellwall.cli.output import Format, Output, hint, live, show, table, working
from cellwall.cli.plan_view import draw_plan, draw_tolerance
from cellwall.cli.where import Socket, controller
from cellwall.clients import Api, ApiRefused, Unreachable

Note = Annotated[str, typer.Option(help="why, for those who come after", metavar="TEXT")]
_LOOK_EVERY_S, _ASK_AGAIN_S = 0.3, 1.0
_HAS_IT = ("enforced", "relaxed")
_BECAME = {"failed": "failed, and was taken back", "superseded": "was overtaken"}
_SETTLED = ("failed", "halted", "rejected", "superseded")
MOST_POINTS = 40


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    rollout = typer.Typer(help="How the revision in force stands at every point.", no_args_is_help=True)
    lines = "cellwall rollout status", "cellwall rollout status --watch", "cellwall rollout status --wait 60"
    rollout.command("status", epilog=examples(*lines))(status)
    rollout.command("halt", epilog=examples("cellwall rollout halt --note 'shop is slow' --yes"))(halt)
    rollout.command("resume", epilog=examples("cellwall rollout resume --note 'was the network' --yes"))(resume)
    app.add_typer(rollout, name="rollout", rich_help_panel=POLICY)
    app.command(
        "revert",
        rich_help_panel=POLICY,
        epilog=examples("cellwall revert", "cellwall revert 3 --note 'too tight' --yes"),
    )(revert)


def status(
    wait: Annotated[float, typer.Option(help="seconds to wait until it is settled", metavar="S")] = 0.0,
    watch: Annotated[bool, typer.Option("--watch", help="keep the picture up to date until it is settled")] = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Say how every point stands to the revision in force, wave by wave.

    Exit code 1 when some points do not have it, 4 when it failed or is halted, or was taken back meanwhile."""
    api = controller(socket)
    first: list[int] = []
    if watch and output is Format.TABLE:
        with live() as draw:

            def seen(now: dict[str, Any]) -> None:
                first.append(now["revision"])
                draw(draw_rollout(now))

            state = settle(api, None, float("inf"), everywhere=True, seen=seen)
    else:
        with working("waiting"):
            state = settle(api, None, wait, everywhere=True, seen=lambda now: first.append(now["revision"]))
        show(state, output, lambda: draw_rollout(state))
    if first[0] != state["revision"]:
        # Whoever watched it wants to know what became of it, and not of its successor alone.
        became = api.get("policy", "revisions", str(first[0]))
        told = f"revision {first[0]} {_BECAME.get(became['state'], 'is ' + became['state'])}"
        told += f": {became['reason']}" if became["reason"] else ""
        if became["state"] == "failed":
            raise Stop(Exit.REFUSED, told)
        hint(told)
    if state["state"] == "halted":
        hint("`cellwall rollout resume --yes` goes on with it, `cellwall revert --yes` goes back")
    if state["state"] in ("failed", "halted"):
        raise Stop(Exit.REFUSED)
    if state.get("behind"):
        hint("who stays behind is offered it again with the next revision: `cellwall policy apply` of the same will do")
    if state["state"] != "good" or any(one["state"] not in _HAS_IT for one in state["items"]):
        raise Stop(Exit.NO)


def settle(
    api: Api,
    revision: int | None,
    wait_s: float,
    *,
    everywhere: bool = False,
    seen: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Wait until a revision (the one in force, where None) is good, failed or halted, and give how it is.

    A revision stays good while a point that came back still has to get it: `everywhere` waits for those too. While the
    controller cannot answer, this goes on asking: a rollout goes on without whoever looks at it."""
    deadline = time.monotonic() + wait_s
    while True:
        state = _asked(api, deadline)
        wanted = state["revision"] if revision is None else revision
        if state["revision"] != wanted:
            # Another is in force: what became of ours stands in the list of revisions.
            one = api.get("policy", "revisions", str(wanted))
            ours = ("revision", "state", "reason", "author", "note", "reverts_to")
            return {**state, **{key: one[key] for key in ours}}
        if seen is not None:
            seen(state)
        pending = everywhere and any(one["state"] == "pending" for one in state["items"])
        settled = state["state"] in _SETTLED or (state["state"] == "good" and not pending)
        if settled or time.monotonic() >= deadline:
            return state
        time.sleep(_LOOK_EVERY_S)


def _asked(api: Api, deadline: float) -> dict[str, Any]:
    while True:
        try:
            return api.get("policy", "rollout")
        except (Unreachable, ApiRefused) as error:
            gone = isinstance(error, Unreachable) or error.status == UNAVAILABLE
            if not gone or time.monotonic() + _ASK_AGAIN_S > deadline:
                raise
        time.sleep(_ASK_AGAIN_S)


def draw_rollout(state: dict[str, Any]) -> RenderableType:
    """Draw how the points stand: those that do not have it first."""
    items = sorted(state["items"], key=lambda one: one["state"] in _HAS_IT)
    rows = [
        [one["workload"], one["state"], one["revision_held"], one["connected"], one["reason"] or _misfits(one)]
        for one in items[:MOST_POINTS]
    ]
    head = f"revision {state['revision']} is {state['state']}" + (f": {state['reason']}" if state["reason"] else "")
    parts: list[RenderableType] = [Text(head)]
    back = f", back to revision {state['reverts_to']}" if state["reverts_to"] is not None else ""
    if state["author"]:
        parts.append(Text(f"by {state['author']}{back}" + (f": {state['note']}" if state["note"] else "")))
    if len(state["waves"]) > 1:
        parts.append(_waves(state["waves"]))
    if told := draw_tolerance(state.get("tolerate")):
        parts.append(Text(told + (f"; {len(state['behind'])} do" if state.get("behind") else "")))
    if state["state"] == "rolling" and state["well_since"] is not None and not state["waves"][-1]["open"]:
        then = moment(state["well_since"] + state["settle_s"])
        parts.append(Text(f"well since {moment(state['well_since'])}; the next wave begins at {then} at the earliest"))
    troubles = [f"denied, and nobody foresaw it: {one}" for one in state["unexpected_denials"][:5]]
    parts += [Text(one, style="red") for one in (*troubles, *(f"the check {one}" for one in state["failing_checks"]))]
    parts.append(table(["point", "state", "holds#", "connected", "why"], rows, "no points"))
    if len(items) > MOST_POINTS:
        parts.append(Text(f"and {len(items) - MOST_POINTS} more, which you see with -o json"))
    return Group(*parts)


def _waves(waves: Sequence[dict[str, Any]]) -> RenderableType:
    rows = [
        [
            one["wave"],
            Text("open", style="green") if one["open"] else Text("waits", style="dim"),
            f"{one['have_it']} of {one['points']}" if one["points"] else "no points",
        ]
        for one in waves
    ]
    return table(["wave", "", "points that have it"], rows)


def draw_waves(answer: dict[str, Any]) -> list[RenderableType]:
    """Draw what a plan says of waves, and of who has to agree."""
    parts: list[RenderableType] = []
    if len(answer["waves"]) > 1:
        rows = [[one["wave"], one["points"], one["changing"]] for one in answer["waves"]]
        parts.append(table(["wave", "points#", "of which change#"], rows))
    for one in answer["approvals"]:
        others = "another person has" if one["reviewers"] == 1 else f"{one['reviewers']} others have"
        parts.append(Text(f"{others} to agree, because of `{one['where'] or 'any'}` ({one['place']})"))
    return parts


def _misfits(one: dict[str, Any]) -> str:
    return "; ".join(f"`{misfit['rule']}`: {misfit['reason']}" for misfit in one["misfits"])


def halt(note: Note = "", yes: Yes = False, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """Open no further wave of what is on its way; without --yes only show how it stands."""
    _say("halt", note, yes, socket, output)


def resume(note: Note = "", yes: Yes = False, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """Go on with a halted rollout, accepting what was seen of it; without --yes only show how it stands."""
    _say("resume", note, yes, socket, output)


def _say(word: str, note: str, yes: bool, socket: Any, output: Format) -> None:
    api = controller(socket)
    answer = api.post("policy", "rollout", word, body={"note": note}) if yes else api.get("policy", "rollout")
    show(answer, output, lambda: draw_rollout(answer))
    if not yes:
        hint("nothing was changed; repeat with --yes to do it")


def revert(
    to: Annotated[int | None, typer.Argument(help="the revision; else the last good one", metavar="[N]")] = None,
    note: Note = "",
    wait: Annotated[float, typer.Option(help="seconds to wait until all points have it", metavar="S")] = 60.0,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Put an earlier revision in force again, everywhere at once; without --yes only show what that changes."""
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
