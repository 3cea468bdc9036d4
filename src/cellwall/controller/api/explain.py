"""The route that says why: what becomes of a flow, at present, at a moment of the past, or with other labels."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from cellwall.analysis import identity_of
from cellwall.analysis import why as explain
from cellwall.controller.access import Right, may_see
from cellwall.controller.api.desk import Desk, Number, TheDesk, Who, addresses, moment, ports
from cellwall.controller.api.findings import explanation_shape, verdict_shape
from cellwall.controller.api.shapes import flow_shape, held_shape
from cellwall.controller.errors import ControllerError, Denied, NotFound
from cellwall.controller.ground import Ground, relabel
from cellwall.controller.store.flows import FlowStoreError
from cellwall.controller.store.flows import Query as Wanted
from cellwall.flows import Flow as SeenFlow
from cellwall.flows import Side
from cellwall.policy import NOBODY, Decision, Endpoint, Flow, Identity, Tier, decide, endpoint
from cellwall.traffic import PortSet, Span, parse_network, point, port_name
from cellwall.wire import Facts, Holds

router = APIRouter()
Changes = Annotated[list[str] | None, Query(max_length=100)]
ONE_MORE_S = 1e-6
MOST_PAIRS = 64
"""So many pairs of addresses are decided; each is a walk over all rules."""


@dataclass(frozen=True)
class _Asked:
    """Of when and of what an answer is: `at` is None at present, `labels` are what was asked to be otherwise."""

    ground: Ground
    at: float | None
    now: float
    current: bool
    labels: dict[str, dict[str, str | None]]


@router.get("/why")
async def why(
    desk: TheDesk,
    who: Who,
    source: str,
    destination: str,
    port: str,
    revision: Number | None = None,
    at: str | None = None,
    source_label: Changes = None,
    destination_label: Changes = None,
    user: str | None = None,
    unit: str | None = None,
) -> dict[str, Any]:
    """Say what becomes of a flow and why: what the policy means, what the points hold, and what was last seen.

    The answer is that of the first pair of addresses that the ends have; `pairs` has what is decided of each, this one
    first, and `more_pairs` counts those beyond the 64th, which are left out.
    `source` and `destination` are workloads or addresses; `user` and `unit` those of the source's process. `at` is a
    moment: the revision, the labels and the addresses are those of then. `source_label` and `destination_label` are
    `key=value`, or `key-` for one to be gone, several with commas: what if the workload had them. The points are only
    asked what they hold where neither is given and the revision is the one in force.
    """
    asked = _asked(desk, source, destination, revision, at, source_label or (), destination_label or ())
    ground, now = asked.ground, asked.now
    wanted = ports(port, ground.policy)
    if not wanted:
        raise ControllerError(f"`{port}` names no port")
    if not port.isdecimal() and wanted.size() > 1:
        raise ControllerError(
            f"`{port}` is {wanted.size()} ports; ask for one, such as `{port_name(wanted.spans[0].first)}`"
        )
    # A bare number is TCP and UDP: TCP comes first on the line of ports.
    flows = [
        one
        for one in _flows(ground, source, destination, wanted.spans[0].first, Identity(user, unit))
        if may_see(who, *(ground.fleet.by_address.get(end.address) for end in (one.source, one.destination)))
    ]
    if not flows:
        raise Denied(f"neither `{source}` nor `{destination}` is for `{who.name}` to see: {who.scope_text(Right.READ)}")
    flow, told = flows[0], flows[:MOST_PAIRS]
    # Beside the loop: with many rules and addresses it takes a while.
    decisions = await asyncio.to_thread(
        lambda: [decide(ground.policy, ground.fleet, one, now, ground.orders) for one in told]
    )
    decision = decisions[0]
    ends = [(side, own) for side, own in ((Side.EGRESS, flow.source), (Side.INGRESS, flow.destination)) if own.agent]
    seen = await _seen(desk, flow, asked.at)
    answer: dict[str, Any] = {
        "source": _end(flow.source),
        "destination": _end(flow.destination),
        "revision": ground.revision,
        "asked": _asked_shape(desk, asked),
        **explanation_shape(explain(ground.policy, ground.fleet, flow, now)),
        "outcome": decision.outcome,
        "would": decision.would,
        **_verdicts(decision, ground),
        **_ordered(decision),
        "pairs": [_pair(one, its, ground) for one, its in zip(told, decisions, strict=True)],
        "more_pairs": len(flows) - len(told),
        "seen": flow_shape(seen, ground.fleet) if seen else None,
        "then": _then(desk, seen, source, destination, flow) if seen and asked.at is None else None,
    }
    if asked.current:
        answer["held"] = {side: await _held(desk, side, flow) for side, _ in ends}
        answer["foreign"] = {side: list(facts[0].foreign) for side, own in ends if (facts := _facts(desk, own))}
    return answer


def _asked(
    desk: Desk,
    source: str,
    destination: str,
    revision: int | None,
    at: str | None,
    source_label: tuple[str, ...] | list[str],
    destination_label: tuple[str, ...] | list[str],
) -> _Asked:
    control, now = desk.control, desk.clock()
    ground = control.ground()
    current = at is None and revision in (None, ground.revision) and not source_label and not destination_label
    then = None
    if at is not None:
        then = now = moment(at, now, now)
        ground = control.ground_at(then, revision)
        unknown = control.unknown_at(then)
        for name in (source, destination):
            past = control.store.history(name) if name not in ground.fleet.by_name else ()
            if past and name in unknown:
                raise NotFound(f"what `{name}` was then is not known: its history begins at {_date(past[0].at)}")
            if past:
                raise NotFound(f"`{name}` was not there at {_date(then)}")
    elif revision is not None and revision != ground.revision:
        ground = control.ground(dict(control.rollouts.find(revision).documents), revision)
    changes = {"source": _changes(source_label), "destination": _changes(destination_label)}
    by_name: dict[str, dict[str, str | None]] = {}
    for name, pairs in ((source, changes["source"]), (destination, changes["destination"])):
        if not pairs:
            continue
        workload = ground.fleet.by_name.get(name)
        if workload is None:
            raise ControllerError(f"`{name}` is no workload: only those have labels")
        by_name.setdefault(name, {}).update(pairs)
    return _Asked(relabel(ground, by_name) if by_name else ground, then, now, current, changes)


def _changes(texts: tuple[str, ...] | list[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for text in ",".join(texts).split(",") if texts else ():
        key, equals, value = text.partition("=")
        if not equals and not key.endswith("-"):
            raise ControllerError(f"`{text}` is no label; wanted `key=value`, or `key-` for one to be gone")
        found[key if equals else key[:-1]] = value if equals else None
    return found


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _asked_shape(desk: Desk, asked: _Asked) -> dict[str, Any]:
    control = desk.control
    return {
        "at": asked.at,
        "revision": asked.ground.revision,
        "created": control.rollouts.find(asked.ground.revision).created,
        "in_force": asked.ground.revision == control.revision.number,
        "labels": asked.labels,
    }


def _pair(flow: Flow, decision: Decision, ground: Ground) -> dict[str, Any]:
    return {
        "source": str(flow.source.address),
        "destination": str(flow.destination.address),
        "outcome": decision.outcome,
        "would": decision.would,
        **_verdicts(decision, ground),
    }


def _verdicts(decision: Decision, ground: Ground) -> dict[str, Any]:
    return {
        "egress": verdict_shape(decision.egress, ground.policy, ground.orders),
        "ingress": verdict_shape(decision.ingress, ground.policy, ground.orders),
    }


def _ordered(decision: Decision) -> dict[str, Any]:
    """Where orders decide, say how those end: to change the policy would be of no use."""
    verdicts = [one for one in (decision.egress, decision.ingress) if one is not None and one.tier is Tier.ORDER]
    names = dict.fromkeys(name for one in verdicts for name in one.because)
    return {"advice": [f"`cellwall lift {name}` ends the order that decides" for name in names]} if names else {}


def _then(desk: Desk, seen: SeenFlow, source: str, destination: str, flow: Flow) -> dict[str, Any] | None:
    """Say what the policy meant for the flow when it was last seen: its revision, labels and addresses of then."""
    ends = [one for one in (seen.egress, seen.ingress) if one is not None]
    number, at = max(one.revision for one in ends), seen.last_seen
    try:
        ground = desk.control.ground_at(at, number)
    except NotFound:
        return None  # Of another controller, or of a store that was put back.
    unknown = desk.control.unknown_at(at)
    if {source, destination, flow.source.workload, flow.destination.workload} & unknown:
        return None
    fleet = ground.fleet
    past = Flow(
        endpoint(fleet, flow.source.address, identity_of(seen.egress.process) if seen.egress else NOBODY),
        endpoint(fleet, flow.destination.address, identity_of(seen.ingress.process) if seen.ingress else NOBODY),
        flow.protocol,
        flow.port,
    )
    decision = decide(ground.policy, fleet, past, at)
    return {
        "at": at,
        "revision": ground.revision,
        "outcome": decision.outcome,
        "would": decision.would,
        "source": _end(past.source),
        "destination": _end(past.destination),
        **_verdicts(decision, ground),
    }


def _flows(ground: Ground, source: str, destination: str, at: int, identity: Identity) -> list[Flow]:
    """Give the flow between each address of one end and each of the other that is of its IP version."""
    fleet = ground.fleet
    theirs = addresses(destination, fleet)
    found = [
        Flow(endpoint(fleet, one, identity), endpoint(fleet, other), at >> 16, at & 0xFFFF)
        for one in addresses(source, fleet)
        for other in theirs
        if one.version == other.version
    ]
    if not found:
        raise ControllerError(f"`{source}` and `{destination}` share no IP version")
    return found


def _end(one: Endpoint) -> dict[str, Any]:
    return {"address": str(one.address), "workload": one.workload, "labels": dict(one.labels), "agent": one.agent}


def _facts(desk: Desk, own: Endpoint) -> tuple[Facts, float] | None:
    return desk.control.store.facts_of(own.workload) if own.workload else None


async def _held(desk: Desk, side: Side, flow: Flow) -> dict[str, Any]:
    own = flow.source if side is Side.EGRESS else flow.destination
    who = own.identity
    question = Holds(
        source=flow.source.address.packed,
        destination=flow.destination.address.packed,
        protocol=flow.protocol,
        port=flow.port,
        side=side,
        user=who.user or "",
        unit=who.unit or "",
        exe=who.exe or "",
    )
    try:
        return held_shape(await desk.channel.ask(own.workload or "", question))
    except ControllerError as error:
        return {"error": str(error)}


async def _seen(desk: Desk, flow: Flow, at: float | None) -> SeenFlow | None:
    port = point(flow.protocol, flow.port)
    query = Wanted(
        until=float("inf") if at is None else at + ONE_MORE_S,
        source=(parse_network(str(flow.source.address)),),
        destination=(parse_network(str(flow.destination.address)),),
        ports=PortSet((Span(port, port),)),
        limit=1,
    )
    try:
        found = await asyncio.to_thread(desk.flows.flows, query)
    except FlowStoreError:
        return None
    return found[0] if found else None
