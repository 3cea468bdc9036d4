"""Routes of the inventory: status, workloads, tokens, labels and the proposals of labels."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from cellwall.analysis import TestResult, run_tests
from cellwall.classify import Facts as KnownFacts
from cellwall.classify import Listening as KnownListening
from cellwall.classify import Proposal, propose
from cellwall.controller.access import Person, Right, check_relabelling, may_see, may_touch
from cellwall.controller.api.controllers import all_controllers, held_shape
from cellwall.controller.api.desk import MOST_ITEMS, Author, Body, Desk, TheDesk, Who, listed, moment, page
from cellwall.controller.api.findings import plan_shape, test_shape
from cellwall.controller.api.shapes import facts_shape, label_shape, receipt_shape, row_shape
from cellwall.controller.control import read_addresses
from cellwall.controller.core import Row
from cellwall.controller.errors import Conflict, NotFound
from cellwall.controller.ground import relabel
from cellwall.controller.store.state import LabelSource, TokenRow, WorkloadRow, broken_link
from cellwall.controller.testing import failure
from cellwall.controller.trust.tokens import token_id
from cellwall.inventory import Workload, check_name
from cellwall.labels import Labels

router = APIRouter()
Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS)]


class NewWorkload(Body):
    """A workload without an agent."""

    name: str
    addresses: list[str]
    labels: dict[str, str] = Field(default_factory=dict)
    dry_run: bool = False


class NewToken(Body):
    """A token to enrol with."""

    labels: dict[str, str] = Field(default_factory=dict)
    uses: int = 1
    ttl_s: float = 3600.0
    workload: str | None = None
    dry_run: bool = False


class NewLabels(Body):
    """Labels to set, or to remove where the value is null."""

    labels: dict[str, str | None] = Field(min_length=1)
    dry_run: bool = False


class Accepted(Body):
    """Which proposals to accept."""

    ids: list[str] = Field(default_factory=list)
    all: bool = False
    min_confidence: float = Field(0.0, ge=0, le=1)
    dry_run: bool = False


@router.get("/status")
async def status(desk: TheDesk, who: Who) -> dict[str, Any]:
    """Say how the controller and its fleet are."""
    control, now = desk.control, desk.clock()
    rows = control.rollout(now)
    ground = control.ground()
    known = control.store.progress().get(control.revision.number)
    audit = tuple(reversed(control.store.audit(1000)))
    first = audit[0] if audit else None
    return {
        "controller": control.options.name,
        "now": now,
        "authority": control.authority.fingerprint,
        "advertise": list(control.options.advertise),
        "revision": control.revision.number,
        "revision_state": known.state if known else "good",
        "revision_reason": known.reason if known else "",
        "workloads": len(ground.fleet.workloads),
        "agents": {
            "known": sum(one.agent for one in ground.fleet.workloads),
            "connected": len(desk.channel.connected) + len(control.peers.elsewhere),
        },
        "controllers": all_controllers(desk),
        "held": held_shape(desk),
        "points": dict(Counter(row.state for row in rows.values())),
        "modes": dict(Counter(one.ruleset.mode for one in control.wanted.values())),
        "conflicts": [
            {"address": str(address), "workloads": list(names)}
            for address, names in ground.fleet.conflicts
            if may_see(who, *(ground.fleet.by_name[name] for name in names))
        ],
        "next_change": control.next_change(now),
        "tests": _tests(desk, who),
        # The last thousand entries; what is before them is checked by whoever exports the log.
        "audit_broken_at": broken_link(audit[1:], first),
    }


def _tests(desk: Desk, who: Person) -> dict[str, Any]:
    tests = desk.control.tests
    results = tests.report.results if tests.report else ()
    return {
        "at": tests.report.at if tests.report else None,
        "current": not tests.due(desk.control.ground(), desk.clock()),
        "passed": sum(one.passed for one in results),
        "vacuous": [one.test.id for one in results if one.vacuous],
        "failed": [
            {"id": one.test.id, "since": tests.outcomes[one.test.id].since, "failure": _failure(one, who)}
            for one in results
            if not one.passed
        ],
    }


def _failure(one: TestResult, who: Person) -> str:
    # It names workloads of anywhere.
    return failure(one) if who.may(Right.READ) else "the counterexample is for who sees the whole fleet"


@router.get("/workloads")
async def workloads(desk: TheDesk, who: Who, limit: Limit = 1000, cursor: str | None = None) -> dict[str, Any]:
    """List workloads, in order of name: those that are theirs to see who ask."""
    fleet, rows = desk.control.ground().fleet, desk.control.rollout(desk.clock())
    seen = fleet.workloads if who.may(Right.READ) else [one for one in fleet.workloads if may_see(who, one)]
    found, following = page(seen, lambda one: one.name, limit, cursor)
    held = {one.name: one for one in desk.control.store.workloads()}
    return listed([_workload(one, held.get(one.name), desk, rows) for one in found], following)


@router.post("/workloads", status_code=201)
async def declare(desk: TheDesk, who: Who, author: Author, body: NewWorkload) -> dict[str, Any]:
    """Declare a workload without an agent."""
    addresses, labels = read_addresses(body.addresses), Labels(body.labels)
    may_touch(who, Right.ENROL, [Workload(body.name, labels)])
    if body.dry_run:
        check_name(body.name)
        if desk.control.store.workload(body.name) is not None:
            raise Conflict(f"workload `{body.name}` is there already")
    else:
        desk.control.declare(body.name, addresses, labels, author, desk.clock())
        desk.changed()
    return {"name": body.name, "addresses": [str(one) for one in addresses], "labels": dict(labels)}


@router.get("/workloads/{name}")
async def workload(desk: TheDesk, who: Who, name: str) -> dict[str, Any]:
    """Show one workload: its labels and their sources, its facts, how its point stands, and its last receipts."""
    store = desk.control.store
    found = desk.control.ground().fleet.by_name.get(name)
    if found is None:
        raise NotFound(f"there is no workload `{name}`")
    may_touch(who, Right.READ, [found])
    desk.control.flush()
    facts = store.facts_of(name)
    return {
        **_workload(found, store.workload(name), desk, desk.control.rollout(desk.clock())),
        "label_sources": [label_shape(one) for one in store.labels(name)],
        "facts": facts_shape(*facts) if facts else None,
        "receipts": [receipt_shape(*one) for one in store.receipts(name, 20)],
    }


@router.delete("/workloads/{name}")
async def remove(desk: TheDesk, who: Who, author: Author, name: str, dry_run: bool = False) -> dict[str, Any]:
    """Forget a workload and revoke its agent's certificates; what its host enforces stays in force there."""
    desk.control.find(name)
    may_touch(who, Right.ENROL, [desk.control.ground().fleet.by_name[name]])
    if not dry_run:
        desk.control.remove(name, author, desk.clock())
        desk.channel.hang_up(name)
        desk.changed()
    return {"name": name}


@router.post("/tokens", status_code=201)
async def make_token(desk: TheDesk, who: Who, author: Author, body: NewToken) -> dict[str, Any]:
    """Make an enrolment token; it is shown here and nowhere ever again."""
    labels = Labels(body.labels)
    known = desk.control.ground().fleet.by_name.get(body.workload or "")
    may_touch(who, Right.ENROL, [*([known] if known else []), Workload(body.workload or "new", labels)])
    if body.dry_run:
        return {"token": None, "id": None, "labels": dict(labels), "uses": body.uses, "ttl_s": body.ttl_s}
    token = desk.control.enrolment.mint(labels, body.uses, body.ttl_s, body.workload, author, desk.clock())
    made = {"labels": dict(labels), "uses": body.uses, "ttl_s": body.ttl_s}
    return {"token": str(token), "id": token_id(token.secret), **made}


@router.get("/tokens")
async def tokens(desk: TheDesk, who: Who) -> dict[str, Any]:
    """List tokens, without their secrets; `usable` are those that still let somebody in."""
    now = desk.clock()
    return listed([_token(one, now) for one in desk.control.store.tokens() if who.may(Right.ENROL, one.labels)])


@router.delete("/tokens/{id}")
async def revoke_token(desk: TheDesk, who: Who, author: Author, id: str, dry_run: bool = False) -> dict[str, Any]:
    """Let an enrolment token end at once; whoever enrolled with it stays in the fleet."""
    now = desk.clock()
    found = next((one for one in desk.control.store.tokens() if one.id == id), None)
    if found is None:
        raise NotFound(f"there is no token `{id}`")
    may_touch(who, Right.ENROL, [Workload(found.workload or "new", found.labels)])
    if not dry_run:
        desk.control.enrolment.revoke_token(id, author, now)
    return _token(found, now)


def _token(row: TokenRow, now: float) -> dict[str, Any]:
    return {
        "id": row.id,
        "labels": dict(row.labels),
        "workload": row.workload,
        "uses": row.uses,
        "used": row.used,
        "usable": row.used < row.uses and now < row.expires,
        "expires": row.expires,
        "created": row.created,
        "author": row.author,
    }


@router.get("/labels")
async def labels(desk: TheDesk, who: Who) -> dict[str, Any]:
    """List all labels with their sources; of several for one key, the first listed holds."""
    fleet = desk.control.ground().fleet.by_name
    return listed([label_shape(one) for one in desk.control.store.labels() if may_see(who, fleet.get(one.workload))])


@router.put("/labels/{name}")
async def set_labels(desk: TheDesk, who: Who, author: Author, name: str, body: NewLabels) -> dict[str, Any]:
    """Set or remove labels of a workload, and say what that changes at which points."""
    control = desk.control
    control.find(name)
    before = control.ground().fleet.by_name[name].labels
    after = before.updated(body.labels)
    relabelled = relabel(control.ground(), {name: body.labels})
    made = await desk.plan(relabelled)
    check_relabelling(who, control.ground(), relabelled, [name], made)
    plan = plan_shape(made)
    tests = await asyncio.to_thread(run_tests, relabelled.policy, relabelled.fleet, desk.clock())
    if not body.dry_run:
        control.label({name: body.labels}, LabelSource.DECLARED, author, desk.clock())
        desk.changed()
    return {
        "workload": name,
        "before": dict(before),
        "after": dict(after),
        "plan": plan,
        "tests": [test_shape(one) for one in tests],
    }


@router.get("/label-proposals")
async def proposals(desk: TheDesk, who: Who, since: str | None = None) -> dict[str, Any]:
    """Propose labels from names, facts and behaviour."""
    found, fleet = await _propose(desk, moment(since, desk.clock(), 0.0)), desk.control.ground().fleet.by_name
    return listed([_proposal(one) for one in found if may_see(who, fleet.get(one.workload))])


@router.post("/label-proposals/accept")
async def accept(desk: TheDesk, who: Who, author: Author, body: Accepted) -> dict[str, Any]:
    """Accept proposals by id, or all that are sure enough and need no hand; what is accepted stays."""
    found = {one.id: one for one in await _propose(desk, 0.0)}
    if unknown := [one for one in body.ids if one not in found]:
        raise NotFound(f"there is no proposal `{unknown[0]}`")
    chosen = [found[one] for one in body.ids]
    if body.all:
        chosen += [one for one in found.values() if not one.by_hand and one.id not in body.ids]
    chosen = [one for one in chosen if one.confidence >= body.min_confidence]
    changes: dict[str, dict[str, str | None]] = {}
    for one in chosen:
        changes.setdefault(one.workload, {})[one.key] = one.value
    if changes and not who.may(Right.LABEL):
        before = desk.control.ground()
        after = relabel(before, changes)
        check_relabelling(who, before, after, list(changes), await desk.plan(after))
    if changes and not body.dry_run:
        known = {name: pairs for name, pairs in changes.items() if desk.control.store.workload(name) is not None}
        desk.control.label(known, LabelSource.ACCEPTED, author, desk.clock())
        desk.changed()
    return {"accepted": [_proposal(one) for one in chosen]}


def _workload(one: Workload, held: WorkloadRow | None, desk: Desk, rows: Mapping[str, Row]) -> dict[str, Any]:
    row, wanted = rows.get(one.name), desk.control.wanted.get(one.name)
    return {
        "name": one.name,
        "agent": one.agent,
        "addresses": [str(address) for address in one.addresses],
        "labels": dict(one.labels),
        "connected": one.name in desk.channel.connected or one.name in desk.control.peers.elsewhere,
        "mode": wanted.ruleset.mode if wanted else None,
        "state": row.state if row else None,
        "point": row_shape(row) if row else None,
        "epoch": one.epoch,
        "seen": desk.control.standings[one.name].seen if one.name in desk.control.standings else None,
        "version": held.version if held else "",
        "declared_in_policy": held is None,
    }


async def _propose(desk: Desk, since: float) -> tuple[Proposal, ...]:
    ground = desk.control.ground()
    facts = {
        name: KnownFacts(
            tuple(KnownListening(one.protocol, one.port, one.process, one.user, one.unit) for one in said.listening),
            said.hostname,
            said.os,
        )
        for name, (said, _) in desk.control.store.facts().items()
        if name in ground.fleet.by_name
    }
    vocabulary = {one.key: one.values for one in ground.policy.labels} or None
    records = await asyncio.to_thread(desk.flows.edges, since)
    return await asyncio.to_thread(propose, ground.fleet, facts, records, vocabulary)


def _proposal(one: Proposal) -> dict[str, Any]:
    return {
        "id": one.id,
        "workload": one.workload,
        "key": one.key,
        "value": one.value,
        "confidence": one.confidence,
        "reasons": list(one.reasons),
        "by_hand": one.by_hand,
    }
