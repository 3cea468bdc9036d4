"""Routes that answer questions: why, what if, and what should the policy be."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from cellwall.analysis import Level, suggest
from cellwall.analysis import why as explain
from cellwall.controller.api.desk import Body, TheDesk, end, moment, ports
from cellwall.controller.api.findings import (
    change_shape,
    explanation_shape,
    replay_shape,
    suggestion_shape,
    verdict_shape,
)
from cellwall.controller.api.shapes import flow_shape, held_shape
from cellwall.controller.errors import ControllerError
from cellwall.controller.ground import Ground
from cellwall.controller.store.flows import FlowStoreError, Query
from cellwall.flows import Side
from cellwall.policy import Endpoint, Flow, Identity, decide, endpoint
from cellwall.traffic import PortSet, Span, parse_network, point
from cellwall.wire import Holds, ShowCounters, ShowTable

router = APIRouter()


class Replayed(Body):
    """What to replay: documents, or a revision."""

    documents: dict[str, str] | None = Field(None, max_length=10_000)
    revision: int | None = None
    since: str | None = None


class Suggested(Body):
    """How tight the proposed rules are to be, and since when flows count."""

    level: Level = Level.TIER
    since: str | None = None


@router.get("/why")
async def why(
    desk: TheDesk,
    source: str,
    destination: str,
    port: str,
    revision: int | None = None,
    user: str | None = None,
    unit: str | None = None,
) -> dict[str, Any]:
    """Say what becomes of a flow and why: what the policy means, what the points hold, and what was last seen.

    `source` and `destination` are workloads or addresses; `user` and `unit` those of the source's process.
    """
    control = desk.control
    ground = control.ground()
    if revision is not None and revision != ground.revision:
        ground = control.ground(dict(control.find_revision(revision).documents), revision)
    wanted = ports(port, ground.policy)
    if not wanted:
        raise ControllerError(f"`{port}` names no port")
    # A bare number is TCP and UDP: TCP comes first on the line of ports.
    at = wanted.spans[0].first
    flow = _flow(ground, source, destination, at, Identity(user, unit))
    now = desk.clock()
    decision = decide(ground.policy, ground.fleet, flow, now)
    ends = [(side, own) for side, own in ((Side.EGRESS, flow.source), (Side.INGRESS, flow.destination)) if own.agent]
    facts = control.store.facts()
    return {
        "source": _end(flow.source),
        "destination": _end(flow.destination),
        "revision": ground.revision,
        **explanation_shape(explain(ground.policy, ground.fleet, flow, now)),
        "egress": verdict_shape(decision.egress, ground.policy),
        "ingress": verdict_shape(decision.ingress, ground.policy),
        "held": {side: await _held(desk, side, flow) for side, _ in ends},
        "foreign": {
            side: list(facts[own.workload][0].foreign) for side, own in ends if own.workload and own.workload in facts
        },
        "seen": await _seen(desk, flow),
    }


@router.post("/replay")
async def replay(desk: TheDesk, body: Replayed) -> dict[str, Any]:
    """Say which recorded connections other documents, or another revision, would cut and open."""
    control = desk.control
    if (body.documents is None) == (body.revision is None):
        raise ControllerError("wanted either `documents` or `revision`")
    documents = body.documents if body.revision is None else dict(control.find_revision(body.revision).documents)
    assert documents is not None
    after, now = control.ground(documents), desk.clock()
    changed = await desk.impact(after, moment(body.since, now, 0.0))
    return {**replay_shape(changed.seen, after.fleet, now), "changes": [change_shape(one) for one in changed.changes]}


@router.post("/policy/suggest")
async def suggest_policy(desk: TheDesk, body: Suggested) -> dict[str, Any]:
    """Propose rules for what was seen and the policy in force does not allow: to be read beside its documents."""
    control, now = desk.control, desk.clock()
    records = await asyncio.to_thread(desk.flows.edges, moment(body.since, now, 0.0))
    found = await asyncio.to_thread(
        suggest, control.ground().fleet, records, now, body.level, dict(control.revision.documents)
    )
    return suggestion_shape(found, control.ground().fleet)


@router.get("/points/{name}/table")
async def table(desk: TheDesk, name: str) -> dict[str, Any]:
    """Ask an agent what its kernel's table holds, in the words of its own tool."""
    desk.control.find(name)
    return held_shape(await desk.channel.ask(name, ShowTable()))


@router.get("/points/{name}/counters")
async def counters(desk: TheDesk, name: str) -> dict[str, Any]:
    """Ask an agent how often each rule decided since its ruleset was applied."""
    desk.control.find(name)
    return held_shape(await desk.channel.ask(name, ShowCounters()))


def _flow(ground: Ground, source: str, destination: str, at: int, identity: Identity) -> Flow:
    fleet = ground.fleet
    own = fleet.by_name.get(source)
    if own is None or not own.addresses:
        first = end(source, fleet)
        second = end(destination, fleet, first.version)
    else:
        # Both ends must be of one family: the first that both have.
        versions = [address.version for address in own.addresses]
        theirs = fleet.by_name.get(destination)
        known = {one.version for one in (theirs.addresses if theirs else (end(destination, fleet),))}
        version = next((one for one in versions if one in known), None)
        if version is None:
            raise ControllerError(f"`{source}` and `{destination}` share no IP version")
        first, second = end(source, fleet, version), end(destination, fleet, version)
    return Flow(endpoint(fleet, first, identity), endpoint(fleet, second), at >> 16, at & 0xFFFF)


def _end(one: Endpoint) -> dict[str, Any]:
    return {"address": str(one.address), "workload": one.workload, "labels": dict(one.labels), "agent": one.agent}


async def _held(desk: TheDesk, side: Side, flow: Flow) -> dict[str, Any]:
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


async def _seen(desk: TheDesk, flow: Flow) -> dict[str, Any] | None:
    at = point(flow.protocol, flow.port)
    query = Query(
        source=(parse_network(str(flow.source.address)),),
        destination=(parse_network(str(flow.destination.address)),),
        ports=PortSet((Span(at, at),)),
        limit=1,
    )
    try:
        found = await asyncio.to_thread(desk.flows.flows, query)
    except FlowStoreError:
        return None
    return flow_shape(found[0], desk.control.ground().fleet) if found else None
