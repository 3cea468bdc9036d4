"""Routes of the policy: check, plan, apply, rollout, revert, and the revisions there were."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from difflib import unified_diff
from typing import Annotated, Any, cast

from fastapi import APIRouter
from pydantic import Field

from cellwall.analysis import lint, run_tests
from cellwall.controller.access import (
    Person,
    Right,
    check_change,
    may_read_texts,
    may_see,
    may_touch,
    person_behind,
    persons_behind,
    seen_ground,
)
from cellwall.controller.api.desk import Author, Body, Number, TheDesk, Who, jsonable, listed, moment
from cellwall.controller.api.findings import change_shape, finding_shape, plan_shape, replay_shape, test_shape
from cellwall.controller.api.shapes import revision_shape, row_shape
from cellwall.controller.core import Row
from cellwall.controller.errors import Conflict, Denied
from cellwall.controller.ground import read_policy
from cellwall.controller.store.state import Revision, RevisionState
from cellwall.controller.testing import failure
from cellwall.controller.tolerance import parse_tolerance
from cellwall.controller.waves import opened
from cellwall.inventory import Workload
from cellwall.policy import Policy, Rollout, Wave, parse_waves

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
    planned_on: Number | None = None
    since: str | None = None
    waves: list[str] | None = Field(None, min_length=1, max_length=20)
    settle_s: float | None = Field(None, ge=0, le=86_400)
    tolerate: str = Field("", max_length=100)
    tolerate_also: str = Field("", max_length=1000)
    dry_run: bool = False


class Said(Body):
    """Why, for those who come after."""

    note: str = Field("", max_length=10_000)


class Reverted(Body):
    """Which revision to go back to; null is the last good one."""

    to: Number | None = None
    note: str = Field("", max_length=10_000)
    dry_run: bool = False


@router.get("")
async def in_force(desk: TheDesk, who: Who) -> dict[str, Any]:
    """Show the policy in force."""
    control = desk.control
    may_read_texts(who)
    return revision_shape(control.revision, control.store.progress(), whole=True)


@router.post("/check")
async def check(desk: TheDesk, who: Who, body: Checked) -> dict[str, Any]:
    """Read documents, and say what is wrong with them or how much there is.

    They are looked at with the part of the fleet that is theirs to see who ask."""
    await desk.read(who, body.documents)
    ground, now = seen_ground(who, desk.control.ground(body.documents)), desk.clock()
    policy = ground.policy
    async with desk.turn(who):
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
async def plan(desk: TheDesk, who: Who, body: Drafted) -> dict[str, Any]:
    """Say what documents would change: at every point, and for recorded flows."""
    return await _plan(desk, body.documents, body.since, who, Right.READ)


@router.post("/apply")
async def apply(desk: TheDesk, who: Who, author: Author, body: Applied) -> dict[str, Any]:
    """Put documents in force as a new revision, unless it is a dry run.

    What a point cannot express is refused, and so is what fails a test of its own, unless that is accepted. Points
    that do not confirm within `confirm_s` seconds take it back, and then all do; but for as many points of each wave
    as `tolerate` says (`3`, `5%`), canaries and points that approvals name only where `tolerate_also` matches them.
    """
    control = desk.control
    base = control.revision.number
    tolerance = _tolerance(body)
    await desk.read(who, body.documents)
    policy = read_policy(body.documents)
    planned: dict[str, Any] = {**await _plan(desk, body.documents, body.since, who), "tolerate": tolerance}
    if planned["refused"] and not body.accept_refused:
        first = planned["refused"][0]
        raise Conflict(
            f"{len(planned['refused'])} rules cannot be expressed where they belong, first `{first['rule']}` "
            f"at `{first['workload']}`: {first['reason']}; accept that, or change them"
        )
    if not body.accept_refused:
        _check_room(planned, "or accept that with `--accept-refused`")
    failed = [one["failure"] for one in planned["tests"] if not one["passed"]]
    if failed and not body.accept_failed:
        raise Conflict(f"{failed[0]}; {len(failed)} in all; change the policy, or accept that with `accept_failed`")
    how = _course(policy.rollout, body)
    needed = _needed(desk, policy, planned)
    shown = {"plan": planned, "waves": _waves(desk, how.waves, planned), "approvals": needed}
    if body.dry_run:
        return {"revision": None, "state": None, **shown}
    if body.planned_on is not None and body.planned_on != control.revision.number:
        raise Conflict(f"revision `{control.revision.number}` is in force, not `{body.planned_on}`; plan again")
    if control.revision.number != base:
        raise Conflict(f"revision `{control.revision.number}` came into force meanwhile; plan again")
    kept = {
        **planned,
        "points": [one for one in planned["points"] if one["change"] != "none"],
        "waves": [wave.name for wave in how.waves],
        "settle_s": how.settle_s,
        "approvals": needed,
        # Who answers for it: a token may be gone when somebody is to agree.
        "owner": who.owner,
    }
    now = desk.clock()
    with control.store.transaction():
        revision = control.rollouts.propose(
            body.documents,
            author,
            body.note,
            now,
            confirm_s=body.confirm_s,
            plan=jsonable(kept),
            accepted=[
                *failed,
                *(f"`{one['workload']}` cannot express `{one['rule']}`: {one['reason']}" for one in planned["refused"]),
                *(f"`{one['workload']}` would refuse it: {one['reason']}" for one in planned["cramped"]),
            ],
        )
    if not needed:
        _release(desk, revision, policy, author, how, base)
    return {"revision": revision.number, "state": control.rollouts.state(revision.number), **shown}


@router.get("/proposals")
async def proposals(desk: TheDesk) -> dict[str, Any]:
    """List the revisions that wait for consent, the newest first."""
    control = desk.control
    progress = control.store.progress()
    waiting = [one for one in control.store.revisions() if control.rollouts.state(one.number) is RevisionState.PROPOSED]
    return listed([{**revision_shape(one, progress), **_asked(desk, one.number)} for one in waiting])


@router.post("/revisions/{number}/approve")
async def approve(desk: TheDesk, who: Who, author: Author, number: Number, body: Said) -> dict[str, Any]:
    """Agree to a proposed revision. With the last consent that it needs it begins to come into force.

    Its tests are checked again first, with the fleet as it is by then."""
    control = desk.control
    revision = control.rollouts.find(number)
    policy = read_policy(revision.documents)
    base = cast("int", revision.plan.get("base", 0))
    _check_another(desk, who, revision)
    _may_judge(desk, who, revision)
    _may_let_go(desk, who, policy)
    if control.rollouts.state(number) is RevisionState.PROPOSED and control.revision.number != base:
        raise Conflict(
            f"revision `{number}` was planned on revision `{base}`, and `{control.revision.number}` is in force; "
            "it has to be proposed again"
        )
    ground, now = control.ground(dict(revision.documents)), desk.clock()
    results = await asyncio.to_thread(run_tests, ground.policy, ground.fleet, now)
    accepted = {one["id"] for one in cast("list[Any]", revision.plan.get("tests", [])) if not one["passed"]}
    failed = [failure(one) for one in results if not one.passed and one.test.id not in accepted]
    if failed:
        raise Conflict(f"{failed[0]}; that was not so when it was proposed; it has to be proposed again")
    # What was asked for when it was proposed, and what the fleet as it is by now asks for.
    made = plan_shape(await desk.plan(ground))
    may_touch(who, Right.APPROVE, _changing(desk, made))
    known = {one["workload"] for one in cast("list[Any]", revision.plan.get("cramped", []))}
    _check_room(made, "that was not so when it was proposed", known)
    needed = max((one["reviewers"] for one in _needed(desk, policy, made)), default=0)
    control.rollouts.consent(number, author, body.note, now, agrees=True)
    asked = _asked(desk, number)
    asked["reviewers_needed"] = max(needed, asked["reviewers_needed"])
    if len(_agreed(desk, revision)) >= asked["reviewers_needed"]:
        plan = revision.plan
        how = replace(
            policy.rollout,
            waves=parse_waves(cast("list[str]", plan.get("waves", ["all"]))),
            settle_s=cast("float", plan.get("settle_s", 0.0)),
        )
        _release(desk, revision, policy, author, how, base)
    return {"revision": number, "state": control.rollouts.state(number), **asked}


@router.post("/revisions/{number}/reject")
async def reject(desk: TheDesk, who: Who, author: Author, number: Number, body: Said) -> dict[str, Any]:
    """Say no to a proposed revision, or withdraw one's own: it never comes into force."""
    if author != (revision := desk.control.rollouts.find(number)).author:
        _may_judge(desk, who, revision)
    desk.control.rollouts.consent(number, author, body.note, desk.clock(), agrees=False)
    return {"revision": number, "state": desk.control.rollouts.state(number), **_asked(desk, number)}


@router.get("/tests")
async def standing_tests(desk: TheDesk, who: Who) -> dict[str, Any]:
    """Say how the tests of the policy in force stand, and since when; they are checked again after every change.

    `current` is false while a change is not checked yet."""
    may_read_texts(who)
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
async def rollout(desk: TheDesk, who: Who) -> dict[str, Any]:
    """Say how every point stands to the revision in force; done is when all hold it."""
    control, now = desk.control, desk.clock()
    rollouts, fleet = control.rollouts, control.ground().fleet.by_name
    known, course = control.store.progress().get(control.revision.number), rollouts.course
    compiling = control.stale or control.compiled != control.revision.number
    return {
        "revision": control.revision.number,
        "state": known.state if known else "good",
        "reason": known.reason if known else "",
        "author": control.revision.author,
        "reverts_to": control.revision.reverts_to,
        "note": control.revision.note,
        "compiling": compiling,
        "base": course.base if course and rollouts.partly else None,
        "wave": course.wave if course else 0,
        "waves": control.waves(now),
        "settle_s": course.settle_s if course else 0.0,
        "well_since": course.well or None if course else None,
        "tolerate": control.revision.plan.get("tolerate"),
        "behind": [
            {"workload": one.workload, "state": one.state, "reason": one.reason}
            for one in (course.behind if course else ())
            if may_see(who, fleet.get(one.workload))
        ],
        "unexpected_denials": list(rollouts.health.unexpected) if who.may(Right.READ) else [],
        "failing_checks": list(rollouts.health.failing),
        **listed([_row(desk, row) for row in control.rollout(now).values() if may_see(who, fleet.get(row.workload))]),
    }


def _row(desk: TheDesk, row: Row) -> dict[str, Any]:
    seen = desk.control.hold.ahead.get(row.workload)
    shape = row_shape(row)
    if seen is None:
        return shape
    why = f"nothing is sent to it, as it says that it holds more than is known here (revision {seen})"
    return {**shape, "reason": why}


@router.post("/rollout/halt")
async def halt(desk: TheDesk, who: Who, author: Author, body: Said) -> dict[str, Any]:
    """Open no further wave of the revision that is on its way, until it is resumed or reverted."""
    desk.control.rollouts.halt(author, body.note or f"`{author}` halted it", desk.clock())
    return await rollout(desk, who)


@router.post("/rollout/resume")
async def resume(desk: TheDesk, who: Who, author: Author, body: Said) -> dict[str, Any]:
    """Go on with a halted rollout; what was seen of it so far is accepted."""
    desk.control.rollouts.resume(author, body.note, desk.clock())
    desk.changed()
    return await rollout(desk, who)


@router.post("/revert")
async def revert(desk: TheDesk, author: Author, body: Reverted) -> dict[str, Any]:
    """Put an earlier revision's documents in force again, at once, as a new revision."""
    control = desk.control
    target = control.rollouts.last_good() if body.to is None else body.to
    documents = dict(control.rollouts.find(target).documents)
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
async def revision(desk: TheDesk, who: Who, number: Number) -> dict[str, Any]:
    """Show one revision with its documents and its plan."""
    may_read_texts(who)
    return revision_shape(desk.control.rollouts.find(number), desk.control.store.progress(), whole=True)


@router.get("/diff")
async def diff(desk: TheDesk, who: Who, a: Number, b: Number | None = None) -> dict[str, Any]:
    """Compare the documents of two revisions; without `b`, with those in force."""
    may_read_texts(who)
    control = desk.control
    old, new = control.rollouts.find(a), control.revision if b is None else control.rollouts.find(b)
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


async def _plan(
    desk: TheDesk,
    documents: dict[str, str],
    since: str | None,
    who: Person | None = None,
    right: Right = Right.AUTHOR,
) -> dict[str, Any]:
    """Plan; where `who` is given, only what they have `right` for: else `Denied`."""
    if who is not None:
        await desk.read(who, documents)
    after, now = desk.control.ground(documents), desk.clock()
    made = await desk.plan(after)
    if who is not None:
        check_change(who, desk.control.ground(), after, made, right)
    changed = await desk.impact(after, moment(since, now, 0.0))
    tests = await asyncio.to_thread(run_tests, after.policy, after.fleet, now)
    return {
        "base": desk.control.revision.number,
        **plan_shape(made),
        "changes": [change_shape(one) for one in changed.changes],
        "tests": [test_shape(one) for one in tests],
        "replay": replay_shape(changed.seen, after.fleet, now),
    }


def _course(rollout: Rollout, body: Applied) -> Rollout:
    """Give how to roll out: as the documents say, but for what is asked for this once."""
    waves = rollout.waves if body.waves is None else parse_waves(body.waves)
    return replace(rollout, waves=waves, settle_s=rollout.settle_s if body.settle_s is None else body.settle_s)


def _tolerance(body: Applied) -> dict[str, str] | None:
    """Give how many points may stay behind, as a plan keeps it. Raises `ControllerError` and `LabelError`."""
    if not body.tolerate and not body.tolerate_also:
        return None
    parse_tolerance(body.tolerate or "0", body.tolerate_also)
    return {"points": body.tolerate, "also": body.tolerate_also}


def _needed(desk: TheDesk, policy: Policy, planned: dict[str, Any]) -> list[dict[str, Any]]:
    fleet = desk.control.ground().fleet.by_name
    touched = [one["workload"] for one in planned["points"] if one["change"] != "none"]
    changed = {fleet[name].labels for name in touched if name in fleet}
    demands = desk.control.rollouts.demands(policy, tuple(changed))
    return [{"where": str(one.where), "reviewers": one.reviewers, "place": str(one.place)} for one in demands]


def _agreed(desk: TheDesk, revision: Revision) -> frozenset[str]:
    """Give the persons who agreed to a revision, each once, by whichever of their programs."""
    consents = desk.control.rollouts.consents(revision.number)
    return persons_behind((one.person for one in consents if one.agrees), _makers(desk))


def _makers(desk: TheDesk) -> dict[str, str]:
    return {one.name: one.author for one in desk.people.store.tokens()}


def _check_another(desk: TheDesk, who: Person, revision: Revision) -> None:
    """Raise `Denied` where a revision is by the person who agrees, or they agreed to it already as another."""
    number, makers = revision.number, _makers(desk)
    owner = cast("str", revision.plan.get("owner", "")) or person_behind(revision.author, makers)
    if who.owner == owner and who.name != revision.author:
        raise Denied(
            f"revision `{number}` is by `{revision.author}`, and `{who.name}` is by the same person; "
            "somebody else has to agree to it"
        )
    others = [one.person for one in desk.control.rollouts.consents(number) if one.agrees and one.person != who.name]
    if who.owner in persons_behind(others, makers):
        raise Denied(f"`{who.owner}` agreed to revision `{number}` already; somebody else has to")


def _may_let_go(desk: TheDesk, who: Person, policy: Policy) -> None:
    """Raise `Denied` where approvals are to go that are not `who`'s to give."""
    for one in desk.control.policy.approvals:
        if one not in policy.approvals and not who.may_within(Right.APPROVE, one.where):
            raise Denied(
                f"the approval for `{one.where}` is to go, and `{who.name}` may {Right.APPROVE} only at "
                f"{who.scope_text(Right.APPROVE)}"
            )


def _check_room(planned: dict[str, Any], end: str, known: Collection[str] = ()) -> None:
    """Raise `Conflict` where points but the `known` ones would refuse it, as their hosts have not the memory."""
    short = [one for one in planned["cramped"] if one["workload"] not in known]
    if short:
        first, points = short[0], len(planned["points"])
        raise Conflict(
            f"{len(short)} of {points} points would refuse it, first `{first['workload']}`: {first['reason']}; {end}"
        )


def _changing(desk: TheDesk, planned: dict[str, Any]) -> list[Workload]:
    fleet = desk.control.ground().fleet.by_name
    names = [one["workload"] for one in planned["points"] if one["change"] != "none"]
    return [fleet[name] for name in names if name in fleet]


def _may_judge(desk: TheDesk, who: Person, revision: Revision) -> None:
    """Raise `Denied` where a revision changes points that are not `who`'s to approve of."""
    fleet = desk.control.ground().fleet.by_name
    changed = [one["workload"] for one in cast("list[Any]", revision.plan.get("points", []))]
    if not who.may_somewhere(Right.APPROVE):
        raise Denied(f"`{who.name}` may not {Right.APPROVE}")
    may_touch(who, Right.APPROVE, [fleet[name] for name in changed if name in fleet])


def _asked(desk: TheDesk, number: int) -> dict[str, Any]:
    """Say who agreed to a revision, and how many have to."""
    revision = desk.control.rollouts.find(number)
    needed = cast("list[Any]", revision.plan.get("approvals", []))
    return {
        "approvals": needed,
        "reviewers_needed": max((one["reviewers"] for one in needed), default=0),
        "consents": [
            {"person": one.person, "agrees": one.agrees, "note": one.note, "at": one.at}
            for one in desk.control.rollouts.consents(number)
        ],
    }


def _waves(desk: TheDesk, waves: tuple[Wave, ...], planned: dict[str, Any]) -> list[dict[str, Any]]:
    """Say which points each wave adds, and how many of them change."""
    fleet = desk.control.ground().fleet.by_name
    changing = {one["workload"] for one in planned["points"] if one["change"] != "none"}
    points = {one["workload"]: fleet[one["workload"]].labels for one in planned["points"] if one["workload"] in fleet}
    before: frozenset[str] = frozenset()
    found: list[dict[str, Any]] = []
    for number, wave in enumerate(waves):
        there = opened(waves, number, points)
        added = there - before
        found.append({"wave": wave.name, "points": len(added), "changing": len(added & changing)})
        before = there
    return found


def _release(desk: TheDesk, revision: Revision, policy: Policy, author: str, how: Rollout, base: int) -> None:
    desk.control.release(revision, policy, desk.clock(), author, how=how, planned_on=base)
    desk.changed()
