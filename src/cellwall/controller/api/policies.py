"""Routes of the policy: check, plan, apply, rollout, revert, and the revisions there were."""

from __future__ import annotations

import asyncio
from difflib import unified_diff
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from cellwall.analysis import lint, run_tests
from cellwall.controller.api.desk import Author, Body, TheDesk, jsonable, listed, moment
from cellwall.controller.api.findings import change_shape, finding_shape, plan_shape, replay_shape, test_shape
from cellwall.controller.api.shapes import revision_shape, row_shape
from cellwall.controller.errors import Conflict
from cellwall.controller.ground import read_policy

router = APIRouter(prefix="/policy")
Documents = Annotated[dict[str, str], Field(max_length=10_000)]
LONGEST_CONFIRM_S = 3600.0


class Drafted(Body):
    """Documents: file name to text."""

    documents: Documents
    since: str | None = None


class Checked(Body):
    """Documents to check."""

    documents: Documents


class Applied(Body):
    """Documents to put in force."""

    documents: Documents
    note: str = Field("", max_length=10_000)
    confirm_s: float = Field(30.0, ge=0, le=LONGEST_CONFIRM_S)
    accept_refused: bool = False
    accept_failed: bool = False
    planned_on: int | None = None
    since: str | None = None
    dry_run: bool = False


class Reverted(Body):
    """Which revision to go back to; null is the last good one."""

    to: int | None = None
    note: str = Field("", max_length=10_000)
    dry_run: bool = False


@router.get("")
async def in_force(desk: TheDesk) -> dict[str, Any]:
    """Show the policy in force."""
    control = desk.control
    return revision_shape(control.revision, control.store.progress(), whole=True)


@router.post("/check")
async def check(desk: TheDesk, body: Checked) -> dict[str, Any]:
    """Read documents, and say what is wrong with them or how much there is."""
    ground, now = desk.control.ground(body.documents), desk.clock()
    policy = ground.policy
    findings = await asyncio.to_thread(lint, policy, ground.fleet, now)
    results = await asyncio.to_thread(run_tests, policy, ground.fleet, now)
    return {
        "ok": True,
        "rules": len(policy.rules),
        "lifelines": len(policy.lifelines),
        "services": len(policy.services),
        "networks": len(policy.networks),
        "workloads": len(policy.workloads),
        "tests": len(policy.tests),
        "findings": [finding_shape(one) for one in findings],
        "test_results": [test_shape(one) for one in results],
        "modes": {one.name: policy.mode_of(one.labels) for one in ground.fleet.workloads if one.agent},
    }


@router.post("/plan")
async def plan(desk: TheDesk, body: Drafted) -> dict[str, Any]:
    """Say what documents would change: at every point, and for recorded flows."""
    return await _plan(desk, body.documents, body.since)


@router.post("/apply")
async def apply(desk: TheDesk, author: Author, body: Applied) -> dict[str, Any]:
    """Put documents in force as a new revision, unless it is a dry run.

    What a point cannot express is refused, and so is what fails a test of its own, unless that is accepted. Points
    that do not confirm within `confirm_s` seconds take it back, and then all do.
    """
    control = desk.control
    base = control.revision.number
    policy = read_policy(body.documents)
    planned = await _plan(desk, body.documents, body.since)
    if planned["refused"] and not body.accept_refused:
        first = planned["refused"][0]
        raise Conflict(
            f"{len(planned['refused'])} rules cannot be expressed where they belong, first `{first['rule']}` "
            f"at `{first['workload']}`: {first['reason']}; accept that, or change them"
        )
    failed = [one["failure"] for one in planned["tests"] if not one["passed"]]
    if failed and not body.accept_failed:
        raise Conflict(f"{failed[0]}; {len(failed)} in all; change the policy, or accept that with `accept_failed`")
    if body.dry_run:
        return {"revision": None, "plan": planned}
    revision = control.commit(
        body.documents,
        policy,
        author,
        body.note,
        desk.clock(),
        confirm_s=body.confirm_s,
        plan=jsonable({**planned, "points": [one for one in planned["points"] if one["change"] != "none"]}),
        planned_on=base if body.planned_on is None else body.planned_on,
        accepted=[
            *failed,
            *(f"`{one['workload']}` cannot express `{one['rule']}`: {one['reason']}" for one in planned["refused"]),
        ],
    )
    desk.changed()
    return {"revision": revision.number, "plan": planned}


@router.get("/tests")
async def standing_tests(desk: TheDesk) -> dict[str, Any]:
    """Say how the tests of the policy in force stand, and since when; they are checked again after every change.

    `current` is false while a change is not checked yet."""
    tests = desk.control.tests
    report = tests.report
    results = report.results if report else ()
    return {
        "revision": report.ground.revision if report else None,
        "at": report.at if report else None,
        "current": not tests.due(desk.control.ground(), desk.clock()),
        **listed([{**test_shape(one), "since": tests.outcomes[one.test.id].since} for one in results]),
    }


@router.get("/rollout")
async def rollout(desk: TheDesk) -> dict[str, Any]:
    """Say how every point stands to the revision in force; done is when all hold it."""
    control, now = desk.control, desk.clock()
    known = control.store.progress().get(control.revision.number)
    return {
        "revision": control.revision.number,
        "state": known.state if known else "good",
        "reason": known.reason if known else "",
        "reverts_to": control.revision.reverts_to,
        "note": control.revision.note,
        "compiling": control.stale or any(one.revision != control.revision.number for one in control.wanted.values()),
        **listed([row_shape(row) for row in control.rollout(now).values()]),
    }


@router.post("/revert")
async def revert(desk: TheDesk, author: Author, body: Reverted) -> dict[str, Any]:
    """Put an earlier revision's documents in force again, at once, as a new revision."""
    control = desk.control
    target = control.last_good() if body.to is None else body.to
    documents = dict(control.find_revision(target).documents)
    if body.dry_run:
        return {"revision": None, "to": target, "plan": await _plan(desk, documents, None)}
    revision = control.revert(target, author, body.note, desk.clock())
    desk.changed()
    return {"revision": revision.number, "to": target}


@router.get("/revisions")
async def revisions(desk: TheDesk) -> dict[str, Any]:
    """List the revisions, the newest first."""
    progress = desk.control.store.progress()
    return listed([revision_shape(one, progress) for one in desk.control.store.revisions()])


@router.get("/revisions/{number}")
async def revision(desk: TheDesk, number: int) -> dict[str, Any]:
    """Show one revision with its documents and its plan."""
    return revision_shape(desk.control.find_revision(number), desk.control.store.progress(), whole=True)


@router.get("/diff")
async def diff(desk: TheDesk, a: int, b: Annotated[int | None, Query()] = None) -> dict[str, Any]:
    """Compare the documents of two revisions; without `b`, with those in force."""
    control = desk.control
    old, new = control.find_revision(a), control.revision if b is None else control.find_revision(b)
    files: list[dict[str, Any]] = []
    for name in sorted(old.documents.keys() | new.documents.keys()):
        before, after = old.documents.get(name, ""), new.documents.get(name, "")
        if before != after:
            lines = unified_diff(
                before.splitlines(keepends=True),
                after.splitlines(keepends=True),
                f"{old.number}/{name}",
                f"{new.number}/{name}",
            )
            files.append({"file": name, "diff": "".join(lines)})
    return {"a": old.number, "b": new.number, "files": files}


async def _plan(desk: TheDesk, documents: dict[str, str], since: str | None) -> dict[str, Any]:
    after, now = desk.control.ground(documents), desk.clock()
    made = await desk.plan(after)
    changed = await desk.impact(after, moment(since, now, 0.0))
    tests = await asyncio.to_thread(run_tests, after.policy, after.fleet, now)
    return {
        "base": desk.control.revision.number,
        **plan_shape(made),
        "changes": [change_shape(one) for one in changed.changes],
        "tests": [test_shape(one) for one in tests],
        "replay": replay_shape(changed.seen, after.fleet, now),
    }
