"""Routes of the orders of an emergency: what they would cut, giving, watching and lifting them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Query as Asked
from pydantic import Field

from cellwall.controller.access import Person, Right, may_everywhere, may_touch
from cellwall.controller.api.desk import Author, Body, Desk, TheDesk, Who, listed, moment, ports
from cellwall.controller.api.shapes import key_shape
from cellwall.controller.errors import Conflict, ControllerError, Denied
from cellwall.controller.ground import Ground
from cellwall.controller.orders import Reach, reach, still_waiting
from cellwall.controller.store.flows import Query
from cellwall.controller.store.orders import OrderRow
from cellwall.flows import Flow as SeenFlow
from cellwall.flows import Outcome
from cellwall.inventory import Fleet, Workload
from cellwall.labels import LabelError, parse_selector
from cellwall.policy import ANYBODY, QUARANTINES, Flow, Order, OrderKind, Party, Policy, decide, endpoint, speaks_of
from cellwall.traffic import EVERYTHING, AddressError, parse_network

router = APIRouter(prefix="/orders")
MOST_EXEMPT, MOST_LOOKED_AT, MOST_SHOWN = 50_000, 50_000, 200
LONGEST_WAIT_S, LONGEST_S = 60.0, 366 * 86_400.0
LOOK_EVERY_S, LOOK_A_POINT_S = 0.01, 0.000005
Ends = list[str]
Wait = Annotated[float, Field(ge=0, le=LONGEST_WAIT_S)]


class Given(Body):
    """An order to give. `source` and `destination` are workloads, selectors, networks, addresses or prefixes, anyone
    where they are empty; a quarantine is of `source`. `exempt_since` exempts, of a containment, the pairs of addresses
    that had allowed connections since that moment. It lasts `for_s` seconds, for ever where that is null."""

    kind: OrderKind
    source: Ends = Field(default_factory=list[str], max_length=1000)
    destination: Ends = Field(default_factory=list[str], max_length=1000)
    ports: str = "any"
    exempt_since: str | None = None
    for_s: float | None = Field(None, gt=0, le=LONGEST_S)
    reason: str = Field("", max_length=1000)
    since: str | None = None
    wait_s: Wait = 0.0
    dry_run: bool = False


@router.get("")
async def orders(
    desk: TheDesk, every: bool = False, limit: Annotated[int, Asked(ge=1, le=1000)] = 100
) -> dict[str, Any]:
    """List the orders that stand, with how far each has come; with `every`, those that are over too."""
    rows = desk.control.orders.recent(limit)
    return listed([_told(desk, row) for row in rows if every or row.over is None])


@router.get("/{id}")
async def order(desk: TheDesk, id: str) -> dict[str, Any]:
    """Show one order, of any time, and how far it has come."""
    return _told(desk, desk.control.orders.find(id))


@router.post("")
async def give(desk: TheDesk, who: Who, author: Author, body: Given) -> dict[str, Any]:
    """Give an order, unless it is a dry run, and wait at most `wait_s` until it is in force at all points.

    A dry run says which of the connections that were seen since `since` (an hour ago) it would cut or open. An order
    needs no confirmation, holds in every mode, and ends in the kernels themselves."""
    now, ground = desk.clock(), desk.control.ground()
    made = await _made(desk, ground, body, author, now)
    _check(who, made, ground.fleet)
    if body.dry_run:
        effect = await _effect(desk, ground, made, moment(body.since, now, now - 3600.0), now)
        points = sum(one.agent and _is_end(made, one) for one in ground.fleet.workloads)
        return {"order": _shape(OrderRow(made, now), now), "points": points, "in_force": None, **effect}
    desk.control.give_order(made, now)
    took_s, found = await _settled(desk, made.id, body.wait_s, lifted=False)
    row = desk.control.orders.find(made.id)
    return {"order": _shape(row, now), "points": found.points, "in_force": _reached(found, took_s)}


@router.delete("/{id}")
async def lift(
    desk: TheDesk,
    who: Who,
    author: Author,
    id: str,
    reason: Annotated[str, Asked(max_length=1000)] = "",
    wait_s: Annotated[float, Asked(ge=0, le=LONGEST_WAIT_S)] = 0.0,
    dry_run: bool = False,
) -> dict[str, Any]:
    """End an order before its time, unless it is a dry run, and wait until it is gone from all points."""
    now, ground = desk.clock(), desk.control.ground()
    row = desk.control.orders.find(id)
    _check(who, row.order, ground.fleet)
    if row.over is not None:
        raise Conflict(f"order `{id}` is over already")
    if dry_run:
        return {"order": _shape(row, now), "gone": None}
    desk.control.lift_order(id, author, reason, now)
    took_s, found = await _settled(desk, id, wait_s, lifted=True)
    return {"order": _shape(desk.control.orders.find(id), now), "gone": _reached(found, took_s)}


# --- what is asked ---


async def _made(desk: Desk, ground: Ground, body: Given, author: str, now: float) -> Order:
    source, destination = (_party(one, ground.policy, ground.fleet) for one in (body.source, body.destination))
    wanted = EVERYTHING if body.kind in QUARANTINES else ports(body.ports, ground.policy)
    made = Order(
        desk.control.orders.new_id(body.kind),
        body.kind,
        source,
        destination,
        wanted,
        begins=now,
        expires=None if body.for_s is None else now + body.for_s,
        author=author,
        reason=body.reason,
    )
    if body.exempt_since is None:
        return made
    since = moment(body.exempt_since, now, now)
    asked = Query(since=since, ports=wanted, outcome=Outcome.ALLOWED, limit=MOST_EXEMPT + 1)
    found = await asyncio.to_thread(desk.flows.flows, asked)
    if len(found) > MOST_EXEMPT:
        raise Conflict(f"over {MOST_EXEMPT} flows were seen on these ports; wanted a shorter time, or fewer ports")
    pairs = ((one.key.source, one.key.destination) for one in found if speaks_of(made, _flow(one, ground.fleet)))
    return Order(
        made.id, made.kind, source, destination, wanted, frozenset(pairs), now, made.expires, author, body.reason
    )


def _party(texts: Sequence[str], policy: Policy, fleet: Fleet) -> Party:
    """Read one end: a workload, an address or prefix, `network:NAME`, or a selector. Raises `ControllerError`."""
    party = ANYBODY
    books = {book.name: book.prefixes for book in policy.networks}
    for text in texts:
        if text == "any":
            if len(texts) > 1:
                raise ControllerError("`any` stands alone; leave out the others")
        elif text.startswith("network:"):
            name = text.removeprefix("network:")
            if not books.get(name):
                raise ControllerError(f"there is no network `{name}` with prefixes in the policy in force")
            party = Party(party.workloads, party.selectors, (*party.networks, *books[name]))
        elif text in fleet.by_name:
            party = Party((*party.workloads, text), party.selectors, party.networks)
        else:
            party = _further(party, text, fleet)
    return party


def _further(party: Party, text: str, fleet: Fleet) -> Party:
    try:
        return Party(party.workloads, party.selectors, (*party.networks, parse_network(text)))
    except AddressError:
        try:
            selector = parse_selector(text)
        except LabelError as error:
            raise ControllerError(f"`{text}` is no workload, address, prefix or selector: {error}") from None
    if not any(selector.matches(one.labels) for one in fleet.workloads):
        # `db-7`, a workload that is not there, reads as the selector of who has the label `db-7`.
        raise ControllerError(f"`{text}` is nobody: no workload of this name, and none with such labels")
    return Party(party.workloads, (*party.selectors, selector), party.networks)


def _check(who: Person, made: Order, fleet: Fleet) -> None:
    """Raise `Denied` where the order is not theirs to give: it concerns the workloads that it names, else everyone."""
    parties = (made.source, made.destination)
    if not any(one.workloads or one.selectors for one in parties):
        may_everywhere(who, Right.ORDER, f"`{made}`")
        return
    for party in parties:
        for selector in party.selectors:
            if not who.may_within(Right.ORDER, selector):
                raise Denied(f"`{selector}` reaches beyond where `{who.name}` may order: {who.scope_text(Right.ORDER)}")
        named = [fleet.by_name[name] for name in party.workloads if name in fleet.by_name]
        inside = [
            one
            for one in (fleet.workloads if party.networks else ())
            if any(address in network for address in one.addresses for network in party.networks)
        ]
        may_touch(who, Right.ORDER, (*named, *inside))


# --- what it does ---


async def _effect(desk: Desk, ground: Ground, made: Order, since: float, now: float) -> dict[str, Any]:
    """Say which of the flows that were seen lately it cuts and opens."""
    found = await asyncio.to_thread(desk.flows.flows, Query(since=since, ports=made.ports, limit=MOST_LOOKED_AT))
    return await asyncio.to_thread(_turned, found, ground, made, now)


def _turned(found: Sequence[SeenFlow], ground: Ground, made: Order, now: float) -> dict[str, Any]:
    turned: dict[Outcome, list[dict[str, Any]]] = {Outcome.DENIED: [], Outcome.ALLOWED: []}
    policy, fleet, stands = ground.policy, ground.fleet, ground.orders
    for one in found:
        flow = _flow(one, fleet)
        if not speaks_of(made, flow):
            continue
        before, after = (decide(policy, fleet, flow, now, given).outcome for given in (stands, (*stands, made)))
        if before is not after:
            last = max(end.last_seen for end in (one.egress, one.ingress) if end is not None)
            shape = {**key_shape(one.key, fleet), "connections": one.connections, "last_seen": last}
            turned[after].append(shape)
    return {
        "looked_at": len(found),
        "cuts": len(turned[Outcome.DENIED]),
        "cut": turned[Outcome.DENIED][:MOST_SHOWN],
        "opens": len(turned[Outcome.ALLOWED]),
        "opened": turned[Outcome.ALLOWED][:MOST_SHOWN],
    }


def _flow(one: SeenFlow, fleet: Fleet) -> Flow:
    key = one.key
    return Flow(endpoint(fleet, key.source), endpoint(fleet, key.destination), key.protocol, key.port)


def _is_end(made: Order, one: Workload) -> bool:
    parties = {party for way in made.ways for party in way}
    return any(
        party.anyone or any(party.has(address, one.name, one.labels) for address in one.addresses) for party in parties
    )


# --- how far it is ---


async def _settled(desk: Desk, name: str, wait_s: float, *, lifted: bool) -> tuple[float, Reach]:
    """Wait until an order is in force, or gone, everywhere that can be reached; how long that took."""
    desk.changed()
    clock, control = asyncio.get_running_loop().time, desk.control
    began = clock()
    waiting: tuple[str, ...] = ()
    while True:
        # Whom it was waited for is looked at again, and all only when none of these is left.
        if waiting and clock() - began < wait_s:
            waiting = still_waiting(waiting, control.wanted, control.standings)
        if not waiting or clock() - began >= wait_s:
            found, took_s = _reach(desk, name, lifted=lifted), clock() - began
            waiting = found.waiting
            if found.everywhere or took_s >= wait_s:
                return took_s, found
        await asyncio.sleep(LOOK_EVERY_S + LOOK_A_POINT_S * len(waiting))


def _reach(desk: Desk, name: str, *, lifted: bool) -> Reach:
    control = desk.control
    compiling = control.orders.compiled is not control.orders.standing
    return reach(name, control.wanted, control.standings, lifted=lifted, compiling=compiling)


def _reached(found: Reach, took_s: float | None = None) -> dict[str, Any]:
    return {
        "everywhere": found.everywhere,
        "points": found.points,
        "having": found.having,
        "waiting": len(found.waiting),
        "waiting_for": list(found.waiting[:MOST_SHOWN]),
        "unable": [{"workload": name, "reason": why} for name, why in found.unable[:MOST_SHOWN]],
        "took_s": took_s,
    }


def _told(desk: Desk, row: OrderRow) -> dict[str, Any]:
    now = desk.clock()
    stands = row.over is None and row.order.in_time(now)
    found = _reached(_reach(desk, row.order.id, lifted=False)) if stands else None
    return {**_shape(row, now), "in_force": found}


def _shape(row: OrderRow, now: float) -> dict[str, Any]:
    made = row.order
    over = row.over is not None or (made.expires is not None and made.expires <= now)
    return {
        "id": made.id,
        "kind": made.kind,
        "what": str(made),
        "source": str(made.source),
        "destination": str(made.destination),
        "ports": str(made.ports),
        "exempt": len(made.exempt),
        "given": row.given,
        "begins": made.begins,
        "expires": made.expires,
        "author": made.author,
        "reason": made.reason,
        "state": "over" if over else "stands" if made.begins <= now else "to come",
        "over": row.over if row.over is not None else made.expires if over else None,
        "ended_by": row.ended_by,
    }
