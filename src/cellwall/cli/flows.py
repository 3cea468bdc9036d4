"""`cellwall flows` and `cellwall denials`: what was seen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cellwall.cli.help import SEE, examples
from cellwall.cli.output import Format, Output, show, table, working
from cellwall.cli.where import Socket, controller

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
    """List who talked to whom, how often, and what was decided by which rule."""
    with working("asking for flows"):
        answer = controller(socket).get(
            "flows", from_=source, to=to, port=port, outcome=outcome, since=since, limit=limit
        )
    show(answer, output, lambda: _flows(answer["items"]))


def _flows(items: list[dict[str, Any]]) -> Any:
    return table(
        ["source", "destination", "service", "connections#", "outcome", "if enforced", "rules", "last seen"],
        [
            [
                one["source_workload"] or one["source"],
                one["destination_workload"] or one["destination"],
                one["service"],
                one["connections"],
                one["outcome"],
                one["would"],
                one["rules"] or "default",
                moment(one["last_seen"]),
            ]
            for one in items
        ],
        "no such flow was seen",
    )


def denials(since: Since = None, socket: Socket = None, output: Output = Format.TABLE) -> None:
    """List samples of packets that were denied, the latest first; `cellwall why` explains each."""
    items = list(controller(socket).items("denials", since=since))
    show({"items": items}, output, lambda: _denials(items))


def _denials(items: list[dict[str, Any]]) -> Any:
    return table(
        ["at", "source", "destination", "service", "by", "side", "rule"],
        [
            [
                moment(one["at"]),
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


def moment(at: float | str | None) -> str:
    """Write a time as people read it, in UTC; `at` is seconds since the epoch, or RFC 3339 already."""
    if at is None or isinstance(at, str):
        return at or ""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
