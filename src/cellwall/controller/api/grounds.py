"""Routes that give out what every answer stands on, policy and fleet, for whoever works out more of it himself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import Field

from cellwall.controller.api.desk import Body, Desk, Number, TheDesk, Who, moment, page
from cellwall.controller.ground import Ground
from cellwall.inventory import Workload

router = APIRouter(prefix="/ground")
MOST_WORKLOADS = 100_000
Limit = Annotated[int, Query(ge=1, le=MOST_WORKLOADS)]


class Drafted(Body):
    """Documents to put over the fleet: what they declare is in it."""

    documents: dict[str, str] = Field(max_length=10_000)


@router.get("")
async def ground(
    desk: TheDesk,
    revision: Number | None = None,
    at: str | None = None,
    limit: Limit = MOST_WORKLOADS,
    cursor: str | None = None,
) -> Response:
    """Give the policy in force and the fleet that it is for: all that a verdict depends on.

    Or those of a `revision`, and of a moment: with `at`, labels and addresses are those of then. The fleet comes in
    order of name, in pages of `limit`; each page has the documents.
    """
    control, now = desk.control, desk.clock()
    if at is not None:
        then = moment(at, now, now)
        found, documents = control.ground_at(then, revision), None
        now = then
    elif revision is None or revision == control.revision.number:
        found, documents = control.ground(), control.revision.documents
    else:
        documents = control.rollouts.find(revision).documents
        found = control.ground(dict(documents), revision)
    if documents is None:
        documents = control.rollouts.find(found.revision).documents
    return await _answer(desk, found, documents, now, limit, cursor)


@router.post("")
async def drafted(
    desk: TheDesk, who: Who, body: Drafted, limit: Limit = MOST_WORKLOADS, cursor: str | None = None
) -> Response:
    """Give the fleet as it would be with other documents in force: what they declare in place of what those do."""
    await desk.read(who, body.documents)
    found = desk.control.ground(body.documents)
    return await _answer(desk, found, body.documents, desk.clock(), limit, cursor)


async def _answer(
    desk: Desk, found: Ground, documents: Mapping[str, str], now: float, limit: int, cursor: str | None
) -> Response:
    items, following = page(found.fleet.workloads, lambda one: one.name, limit, cursor)
    head = {
        "revision": found.revision,
        "now": now,
        "documents": dict(documents),
        "controllers": [{"address": str(one.address), "port": one.port} for one in found.fleet.controllers],
        "next": following,
    }
    # A large fleet takes long to write down: not in the thread that all else waits for.
    content = await asyncio.to_thread(lambda: msgspec.json.encode({**head, "items": [_workload(one) for one in items]}))
    return Response(content, media_type="application/json")


def _workload(one: Workload) -> dict[str, Any]:
    return {
        "name": one.name,
        "agent": one.agent,
        "addresses": [str(address) for address in one.addresses],
        "labels": dict(one.labels),
        "epoch": one.epoch,
    }
