"""Routes that answer questions: why, what if, and what should the policy be."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from cellwall.analysis import Level, suggest
from cellwall.controller.access import Right, check_change, may_touch
from cellwall.controller.api.desk import Body, Number, TheDesk, Who, moment
from cellwall.controller.api.findings import (
    change_shape,
    replay_shape,
    suggestion_shape,
)
from cellwall.controller.api.shapes import held_shape
from cellwall.controller.errors import ControllerError
from cellwall.wire import ShowCounters, ShowTable

router = APIRouter()


class Replayed(Body):
    """What to replay: documents, or a revision."""

    documents: dict[str, str] | None = Field(None, max_length=10_000)
    revision: Number | None = None
    since: str | None = None


class Suggested(Body):
    """How tight the proposed rules are to be, and since when flows count."""

    level: Level = Level.TIER
    since: str | None = None


@router.post("/replay")
async def replay(desk: TheDesk, who: Who, body: Replayed) -> dict[str, Any]:
    """Say which recorded connections other documents, or another revision, would cut and open."""
    control = desk.control
    if (body.documents is None) == (body.revision is None):
        raise ControllerError("wanted either `documents` or `revision`")
    documents = body.documents if body.revision is None else dict(control.rollouts.find(body.revision).documents)
    assert documents is not None
    await desk.read(who, documents)
    after, now = control.ground(documents), desk.clock()
    if not who.may(Right.READ):
        check_change(who, control.ground(), after, await desk.plan(after), Right.READ)
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
async def table(desk: TheDesk, who: Who, name: str) -> dict[str, Any]:
    """Ask an agent what its kernel's table holds, in the words of its own tool."""
    desk.control.find(name)
    may_touch(who, Right.READ, [desk.control.ground().fleet.by_name[name]])
    return held_shape(await desk.channel.ask(name, ShowTable()))


@router.get("/points/{name}/counters")
async def counters(desk: TheDesk, who: Who, name: str) -> dict[str, Any]:
    """Ask an agent how often each rule decided since its ruleset was applied."""
    desk.control.find(name)
    may_touch(who, Right.READ, [desk.control.ground().fleet.by_name[name]])
    return held_shape(await desk.channel.ask(name, ShowCounters()))
