"""`cellwall flows` and `cellwall denials`: what was seen."""

from __future__ import annotations

from datetime import UTC, datetime
from time import time
from typing import Annotated, Any

import typer

from cellwall.cli.help import SEE, examples
from cellwall.cli.output import Format, Output, show, table, working
from cellwall.cli.where import Socket, controller

_DAY_S = 86_400
Since = Annotated[str | None, typer.Option(help="how far back, such as `10m` or `7d`", metavar="TIME")]


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        "flows",
        rich_help_panel=SEE,
        epilog=examples(
            "cellwall flows",
            "cellwall flows --to role=db --port tcp/5432 --since 10m",
            "cellwall flows --from web-1 --outcome denied -o json",
        ),
    )(flows)
    app.command(
        "denials", rich_help_panel=SEE, epilog=examples("cellwall denials", "cellwall denials --since 10m -o json")
    )(denials)


def flows(
    source: Annotated[str | None, typer.Option("--from", help="a workload, selector or network", metavar="WHO")] = None,
    to: Annotated[str | None, typer.Option("--to", help="a workload, selector or network", metavar="WHO")] = None,
    port: Annotated[str | None, typer.Option(help="such as `tcp/5432`", metavar="PORT")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="`allowed`, `denied`, or `would` be denied if enforced", metavar="WORD")
    ] = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(help="at most so many", min=1, metavar="N")] = 200,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """List who talked to whom, in how many connections, and what was decided by which rule.

    Times are UTC: of the last day the hour, else the day."""
    with working("asking for flows"):
        answer = controller(socket).get(
            "flows", from_=source, to=to, port=port, outcome=outcome, since=since, limit=limit
        )
    show(answer, output, lambda: _flows(answer["items"]))


def _flows(items: list[dict[str, Any]]) -> Any:
    now = time()
    return table(
        ["source", "destination", "service", "count#", "outcome", "last seen", "rules"],
        [
            [
                one["source_workload"] or one["source"],
                one["destination_workload"] or one["destination"],
                one["service"],
                one["connections"],
                word(one),
                lately(one["last_seen"], now),
                one["rules"] or "default",
            ]
            for one in items
        ],
        "no such flow was seen",
    )


def denials(since: Since = None, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """List samples of packets that were denied, the latest first; `cellwall why` explains each.

    Times are UTC: of the last day the hour, else the day."""
    items = list(controller(socket).items("denials", since=since))
    show({"items": items}, output, lambda: _denials(items))


def _denials(items: list[dict[str, Any]]) -> Any:
    now = time()
    return table(
        ["at", "source", "destination", "service", "by", "side", "rule"],
        [
            [
                lately(one["at"], now),
                one["source_workload"] or one["source"],
                one["destination_workload"] or one["destination"],
                one["service"],
                one["reporter"],
                one["side"],
                one["rule"] or "default",
            ]
            for one in items
        ],
        "nothing was denied",
    )


def word(told: dict[str, Any]) -> str:
    """Say in one word, as tables and sentences do, what became of a flow, or would if all were enforced."""
    return "would be denied" if (told["outcome"], told["would"]) == ("allowed", "denied") else str(told["outcome"])


def lately(at: float | str, now: float) -> str:
    """Write a time in little room, in UTC: of the day before `now` the hour, else the day."""
    then = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at, UTC)
    return then.strftime("%H:%M:%S" if now - then.timestamp() < _DAY_S else "%Y-%m-%d")


def moment(at: float | str | None) -> str:
    """Write a time as people read it, in UTC; `at` is seconds since the epoch, or RFC 3339 already."""
    if at is None or isinstance(at, str):
        return at or ""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
