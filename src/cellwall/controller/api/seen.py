"""Routes of what was seen: flows, the map, the course of time, and samples of denials."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter
from fastapi import Query as Asked

from cellwall.analysis import recolour
from cellwall.controller.access import Person, Right, may_see
from cellwall.controller.api.desk import (
    MOST_ITEMS,
    TheDesk,
    Who,
    from_cursor,
    listed,
    moment,
    networks,
    ports,
    to_cursor,
)
from cellwall.controller.api.shapes import denial_shape, edge_shape, flow_shape, map_shape
from cellwall.controller.errors import ControllerError
from cellwall.controller.store.flows import Query
from cellwall.flows import FleetMap, Flow, FlowKey, FlowRecord, Outcome, draw_map
from cellwall.inventory import Fleet
from cellwall.policy import Policy
from cellwall.traffic import Network, parse_address, point

router = APIRouter()
Limit = Annotated[int, Asked(ge=1, le=MOST_ITEMS)]
T = TypeVar("T", Flow, FlowRecord)
SHOWN = ("allowed", "denied", "would")


@router.get("/flows")
async def flows(
    desk: TheDesk,
    who: Who,
    source: Annotated[str | None, Asked(alias="from")] = None,
    to: str | None = None,
    port: str | None = None,
    outcome: Literal["allowed", "denied", "would"] | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: Limit = 1000,
    cursor: str | None = None,
    group: Literal["tuple", "edge"] = "tuple",
) -> dict[str, Any]:
    """List flows, the last seen first: each tuple with the reports of both ends, or added up between workloads.

    `from` and `to` are a workload, an address, a prefix, `network:NAME` or a selector. `outcome=would` are those let
    through that full enforcement would deny.
    """
    now, ground = desk.clock(), desk.control.ground()
    sources = networks(source, ground.policy, ground.fleet)
    destinations = networks(to, ground.policy, ground.fleet)
    wanted = ports(port, ground.policy)
    if sources is None or destinations is None:
        return listed([])
    start, end = moment(since, now, 0.0), moment(until, now, float("inf"))
    if group == "edge":
        records = await asyncio.to_thread(desk.flows.edges, start, end)
        kept = [
            one
            for one in _seen_by(who, ground.fleet, records)
            if _within(one.key, sources, destinations) and point(one.key.protocol, one.key.port) in wanted
        ]
        drawn = await asyncio.to_thread(_draw, kept, ground.fleet, (), ground.policy)
        edges = [shape for one in drawn.edges if outcome in (None, (shape := edge_shape(one))["verdict"])]
        edges.sort(key=lambda one: (-one["last_seen"], one["source"], one["destination"], one["service"]))
        return listed(edges[:limit])
    query = Query(
        since=start,
        until=end,
        source=sources,
        destination=destinations,
        ports=wanted,
        outcome=None if outcome is None else Outcome.DENIED if outcome == "denied" else Outcome.ALLOWED,
        would=Outcome.DENIED if outcome == "would" else None,
        limit=limit,
        after=_place(cursor) if cursor else None,
    )
    found = await asyncio.to_thread(desk.flows.flows, query)
    following = None
    if len(found) == limit:
        key = found[-1].key
        following = to_cursor(found[-1].last_seen, str(key.source), str(key.destination), key.protocol, key.port)
    return listed([flow_shape(one, ground.fleet) for one in _seen_by(who, ground.fleet, found)], following)


@router.get("/map")
async def draw(
    desk: TheDesk,
    who: Who,
    group: str = "app,role",
    since: str | None = None,
    casts: bool = False,
    judged: Literal["now", "then"] = "now",
) -> dict[str, Any]:
    """Draw who talks to whom: workloads that share the labels `group` are one node.

    Flows have the verdicts that the policy in force gives them, or, `judged=then`, what became of them when they were
    last seen.
    """
    ground, now = desk.control.ground(), desk.clock()
    records = _seen_by(who, ground.fleet, await asyncio.to_thread(desk.flows.tuples, moment(since, now, 0.0)))
    if judged == "now":
        records = await asyncio.to_thread(recolour, ground.policy, ground.fleet, records, now)
    keys = tuple(word for word in group.split(",") if word)
    fleet = _drawn_for(who, ground.fleet, records)
    drawn = await asyncio.to_thread(_draw, records, fleet, keys, ground.policy, casts=casts)
    return {"group": list(keys), **map_shape(drawn)}


@router.get("/series")
async def series(desk: TheDesk, since: str = "1h", step_s: Annotated[float, Asked(ge=1)] = 60.0) -> dict[str, Any]:
    """Count connections per step of time."""
    now = desk.clock()
    start = moment(since, now, now - 3600)
    if (now - start) / step_s > MOST_ITEMS:
        raise ControllerError(f"over {MOST_ITEMS} steps; wanted a longer step or a later start")
    ticks = await asyncio.to_thread(desk.flows.series, start, now, step_s)
    return listed(
        [
            {"start": one.start, "allowed": one.allowed, "denied": one.denied, "would_deny": one.would_deny}
            for one in ticks
        ]
    )


@router.get("/denials")
async def denials(desk: TheDesk, who: Who, since: str | None = None, limit: Limit = 1000) -> dict[str, Any]:
    """List samples of denied packets, the newest first; flows have the counts."""
    fleet = desk.control.ground().fleet
    found = desk.control.store.denials(moment(since, desk.clock(), 0.0), limit)
    return listed([denial_shape(one, fleet) for one in found if may_see(who, fleet.by_name.get(one.reporter))])


def _seen_by(who: Person, fleet: Fleet, flows: Sequence[T]) -> tuple[T, ...]:
    """Give the flows of which one end at least is theirs to see who ask."""
    if who.may(Right.READ):
        return tuple(flows)
    owners = fleet.by_address
    return tuple(one for one in flows if may_see(who, owners.get(one.key.source), owners.get(one.key.destination)))


def _drawn_for(who: Person, fleet: Fleet, records: Sequence[FlowRecord]) -> Fleet:
    """Give the fleet of a map: what is theirs to see who ask, and the other ends of its flows."""
    if who.may(Right.READ):
        return fleet
    owners = fleet.by_address
    both = {end for one in records for end in (one.key.source, one.key.destination)}
    ends = {owner.name for end in both if (owner := owners.get(end)) is not None}
    return Fleet(tuple(one for one in fleet.workloads if one.name in ends or may_see(who, one)), fleet.controllers)


def _draw(
    records: tuple[FlowRecord, ...] | list[FlowRecord],
    fleet: Fleet,
    group: tuple[str, ...],
    policy: Policy,
    *,
    casts: bool = False,
) -> FleetMap:
    return draw_map(records, fleet, group, {book.name: book.prefixes for book in policy.networks}, casts=casts)


def _within(key: FlowKey, sources: tuple[Network, ...], destinations: tuple[Network, ...]) -> bool:
    return (not sources or any(key.source in one for one in sources)) and (
        not destinations or any(key.destination in one for one in destinations)
    )


def _place(cursor: str) -> tuple[float, FlowKey]:
    seen, source, destination, protocol, port = from_cursor(cursor, 5)
    try:
        return float(seen), FlowKey(parse_address(source), parse_address(destination), int(protocol), int(port))
    except (TypeError, ValueError):
        raise ControllerError(f"`{cursor}` is no cursor; give back what `next` said") from None
