"""`cellwall contain`, `quarantine`, `open`, `orders` and `lift`: what people say in an emergency, in force at once."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.fleet import Yes
from cellwall.cli.flows import moment
from cellwall.cli.help import EMERGENCY, examples
from cellwall.cli.output import Format, Output, hint, show, table, verdict, working
from cellwall.cli.where import Socket, controller

MOST_LINES = 20
_LASTS = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Ports = Annotated[
    str, typer.Argument(help="such as `tcp/445`, `445`, or a service; several with commas", metavar="PORTS")
]
For = Annotated[
    str | None, typer.Option("--for", help="how long, such as `30m` or `8h`; it ends by itself", metavar="TIME")
]
Reason = Annotated[str, typer.Option(help="why, for those who come after", metavar="TEXT")]
From = Annotated[
    list[str] | None,
    typer.Option(
        "--from", help="from these: a workload, a selector, an address or a network; may be repeated", metavar="WHO"
    ),
]
To = Annotated[list[str] | None, typer.Option("--to", help="to these; may be repeated", metavar="WHO")]
Since = Annotated[str | None, typer.Option(help="show what it cuts of the flows of so long", metavar="TIME")]
Wait = Annotated[
    float, typer.Option(help="seconds to wait until it is in force everywhere", min=0, max=60, metavar="S")
]


class Degree(StrEnum):
    """How far a quarantine goes."""

    LIMIT = "limit"
    ISOLATE = "isolate"
    SEAL = "seal"


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for name, command, lines in (
        (
            "contain",
            contain,
            (
                "cellwall contain tcp/445",
                "cellwall contain tcp/445,tcp/139 --except-recent 7d --reason 'worm' --yes",
                "cellwall contain any --from app=shop --to app=blog --for 2h --yes",
            ),
        ),
        (
            "quarantine",
            quarantine,
            ("cellwall quarantine db-7", "cellwall quarantine db-7 --degree seal --reason 'CASE-12' --yes"),
        ),
        ("open", open_for, ("cellwall open tcp/22 db-7 --from 10.0.0.5 --for 30m --reason 'CASE-12' --yes",)),
        ("orders", orders, ("cellwall orders", "cellwall orders --all -o json")),
        ("lift", lift, ("cellwall lift quarantine-1a2b3c --yes",)),
    ):
        app.command(name, rich_help_panel=EMERGENCY, epilog=examples(*lines))(command)


def contain(
    ports: Ports,
    source: From = None,
    to: To = None,
    except_recent: Annotated[
        str | None,
        typer.Option(help="but not between addresses that had allowed connections in this time", metavar="TIME"),
    ] = None,
    lasts: For = None,
    reason: Reason = "",
    since: Since = None,
    wait: Wait = 10.0,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Shut ports everywhere, whatever the policy and its modes say; lifelines hold. Without --yes only show the cut."""
    body = {
        "kind": "contain",
        "ports": ports,
        "source": source or [],
        "destination": to or [],
        "exempt_since": except_recent,
    }
    _give(body, lasts, reason, since, wait, yes, socket, output)


def quarantine(
    who: Annotated[list[str], typer.Argument(help="workloads, selectors or addresses", metavar="WHO...")],
    degree: Annotated[
        Degree,
        typer.Option(
            help="`limit`: it may begin nothing; `isolate`: nothing in or out but lifelines; `seal`: nothing but its "
            "agent's channel",
            metavar="DEGREE",
        ),
    ] = Degree.ISOLATE,
    lasts: For = None,
    reason: Reason = "",
    since: Since = None,
    wait: Wait = 10.0,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Cut workloads off, on their own hosts and at every other point; without --yes only show what that cuts."""
    _give({"kind": degree.value, "source": who}, lasts, reason, since, wait, yes, socket, output)


def open_for(
    ports: Ports,
    to: Annotated[list[str], typer.Argument(help="workloads, selectors or addresses", metavar="TO...")],
    source: From = None,
    lasts: Annotated[
        str, typer.Option("--for", help="how long, such as `30m`; it ends by itself", metavar="TIME")
    ] = "",
    reason: Reason = "",
    since: Since = None,
    wait: Wait = 10.0,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Open ports for a time, at both ends, whatever the policy says; without --yes only show what that opens."""
    if not source or not lasts:
        raise Stop(Exit.USAGE, "an opening needs --from and --for: say for whom, and for how long")
    body = {"kind": "open", "ports": ports, "source": source, "destination": to}
    _give(body, lasts, reason, since, wait, yes, socket, output)


def _give(
    body: dict[str, Any],
    lasts: str | None,
    reason: str,
    since: str | None,
    wait: float,
    yes: bool,
    socket: Any,
    output: Format,
) -> None:
    asked = {**body, "for_s": _seconds(lasts), "reason": reason, "since": since, "wait_s": wait, "dry_run": not yes}
    with working("waiting until it is in force everywhere" if yes else "looking at what was seen"):
        answer = controller(socket).post("orders", body=asked)
    show(answer, output, lambda: _draw(answer))
    if not yes:
        hint("nothing was changed; repeat with --yes to do it")
    else:
        hint(f"`cellwall lift {answer['order']['id']} --yes` takes it back")
        _judge(answer["in_force"], "in force", wait)


def _seconds(lasts: str | None) -> float | None:
    if lasts is None:
        return None
    found = _LASTS.fullmatch(lasts)
    if found is None or not float(found[1]):
        raise Stop(Exit.USAGE, f"`{lasts}` is no time; wanted such as `30m` or `8h`")
    return float(found[1]) * _SECONDS[found[2]]


def orders(
    every: Annotated[bool, typer.Option("--all", help="those that are over, too")] = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """List the orders that stand, until when, and how far each is in force."""
    answer = controller(socket).get("orders", every=every)
    show(answer, output, lambda: _listed(answer["items"]))


def lift(
    order: Annotated[str, typer.Argument(help="as `cellwall orders` names it", metavar="ORDER")],
    reason: Reason = "",
    wait: Annotated[float, typer.Option(help="seconds to wait until it is gone", min=0, max=60, metavar="S")] = 10.0,
    yes: Yes = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """End an order before its time; without --yes only show it."""
    with working("waiting until it is gone everywhere"):
        answer = controller(socket).delete("orders", order, reason=reason, wait_s=wait, dry_run=not yes)
    show(answer, output, lambda: _draw(answer))
    if not yes:
        hint("nothing was changed; repeat with --yes to do it")
    else:
        _judge(answer["gone"], "gone", wait)


def _judge(reached: dict[str, Any], word: str, wait: float) -> None:
    if not reached["everywhere"]:
        raise Stop(Exit.NO, f"it is not {word} at {reached['waiting']} of {reached['points']} points after {wait:g} s")


def _draw(answer: dict[str, Any]) -> RenderableType:
    order = answer["order"]
    lines: list[RenderableType] = [Text(f"{order['id']}: {order['what']}", style="bold")]
    until = f"until {moment(order['expires'])}, when it ends by itself" if order["expires"] else "until it is lifted"
    lines.append(Text(f"  stands {until}" + (f"; {order['reason']}" if order["reason"] else "")))
    if order["exempt"]:
        lines.append(Text(f"  leaves {order['exempt']} pairs of addresses to the policy"))
    for key, word in (("in_force", "in force"), ("gone", "gone")):
        if answer.get(key):
            lines += _reached(answer[key], word)
    if "cuts" in answer:
        lines.append(Text(f"  at {answer['points']} points; of {answer['looked_at']} flows that were seen lately:"))
        lines += _turned("cuts", answer["cuts"], answer["cut"])
        lines += _turned("opens", answer["opens"], answer["opened"])
    return Group(*lines)


def _reached(reached: dict[str, Any], word: str) -> list[RenderableType]:
    took = f" after {reached['took_s']:.2f} s" if reached["took_s"] is not None else ""
    told = f"  {word} at {reached['having']} of {reached['points']} points{took}"
    lines: list[RenderableType] = [Text(told, style="green" if reached["everywhere"] else "yellow")]
    lines += [Text(f"    not at {one['workload']}: {one['reason']}") for one in reached["unable"][:MOST_LINES]]
    lines += [Text(f"    not yet at {name}") for name in reached["waiting_for"][:MOST_LINES]]
    return lines


def _turned(verb: str, count: int, flows: list[dict[str, Any]]) -> list[RenderableType]:
    rows = [
        [verdict("denied" if verb == "cuts" else "allowed"), _end(one, "source"), _end(one, "destination"),
         one["service"], one["connections"], moment(one["last_seen"])]
        for one in flows[:MOST_LINES]
    ]  # fmt: skip
    lines: list[RenderableType] = [Text(f"  {verb} {count}")]
    if rows:
        lines.append(table(["", "from", "to", "service", "connections#", "last"], rows))
    if count > len(rows):
        lines.append(Text(f"  and {count - len(rows)} more"))
    return lines


def _end(flow: dict[str, Any], which: str) -> str:
    return str(flow[f"{which}_workload"] or flow[which])


def _listed(items: list[dict[str, Any]]) -> RenderableType:
    rows = [
        [
            one["id"],
            one["state"],
            one["what"],
            moment(one["over"] or one["expires"]) or "it is lifted",
            f"{one['in_force']['having']} of {one['in_force']['points']}" if one["in_force"] else None,
            one["author"],
            one["reason"],
        ]
        for one in items
    ]
    return table(["order", "", "what", "until", "in force at", "by", "why"], rows, "no order stands")
