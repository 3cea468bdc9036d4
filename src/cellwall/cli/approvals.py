"""`cellwall policy proposals`, `approve` and `reject`: the second person's part."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.fleet import Yes
from cellwall.cli.flows import moment
from cellwall.cli.help import examples
from cellwall.cli.output import Format, Output, hint, show, table
from cellwall.cli.plan_view import draw_plan
from cellwall.cli.where import Socket, controller

Number = Annotated[int, typer.Argument(help="the revision", metavar="N")]
Note = Annotated[str, typer.Option(help="why, for those who come after", metavar="TEXT")]


def add(policy: typer.Typer) -> None:
    """Add the commands of this file."""
    for name, command, lines in (
        ("proposals", proposals, ("cellwall policy proposals", "cellwall policy proposals -o json")),
        ("approve", approve, ("cellwall policy approve 12", "cellwall policy approve 12 --note 'seen' --yes")),
        ("reject", reject, ("cellwall policy reject 12 --note 'opens too much' --yes",)),
    ):
        policy.command(name, epilog=examples(*lines))(command)


def proposals(socket: Socket = None, output: Output = Format.TABLE) -> None:
    """List the revisions that wait for somebody's consent."""
    items = list(controller(socket).items("policy", "proposals"))
    rows = [
        [
            one["revision"],
            one["author"],
            moment(one["created"]),
            f"{sum(said['agrees'] for said in one['consents'])} of {one['reviewers_needed']}",
            "; ".join(wanted["where"] or "any" for wanted in one["approvals"]),
            one["note"],
        ]
        for one in items
    ]
    heads = ["revision", "author", "proposed", "agreed", "because of", "note"]
    show({"items": items}, output, lambda: table(heads, rows, "nothing waits for consent"))


def approve(
    number: Number, note: Note = "", yes: Yes = False, socket: Socket = None, output: Output = Format.TABLE
) -> None:
    """Agree to a proposed revision; without --yes show its plan. With the last consent it begins to come into force.

    Nobody can agree to their own."""
    api = controller(socket)
    if not yes:
        _look(api.get("policy", "revisions", str(number)), output)
        return
    answer = api.post("policy", "revisions", str(number), "approve", body={"note": note})
    show(answer, output, lambda: _said(answer))
    if answer["state"] != "proposed":
        hint("see how it comes into force with `cellwall rollout status --watch`")


def reject(
    number: Number, note: Note = "", yes: Yes = False, socket: Socket = None, output: Output = Format.TABLE
) -> None:
    """Say no to a proposed revision, or withdraw one's own; without --yes show its plan."""
    api = controller(socket)
    if not yes:
        _look(api.get("policy", "revisions", str(number)), output)
        return
    answer = api.post("policy", "revisions", str(number), "reject", body={"note": note})
    show(answer, output, lambda: _said(answer))


def _look(revision: dict[str, Any], output: Format) -> None:
    head = f"revision {revision['revision']} by {revision['author']} is {revision['state']}: {revision['note']}"
    plan = revision["plan"]
    show(revision, output, lambda: Group(Text(head), draw_plan(plan)) if plan else Text(head))
    hint("nothing was changed; repeat with --yes to do it")


def _said(answer: dict[str, Any]) -> RenderableType:
    rows = [
        ["yes" if one["agrees"] else "no", one["person"], moment(one["at"]), Text(one["note"] or "-")]
        for one in answer["consents"]
    ]
    return Group(
        Text(f"revision {answer['revision']} is {answer['state']}"), table(["", "who", "when", "why"], rows, "nobody")
    )
