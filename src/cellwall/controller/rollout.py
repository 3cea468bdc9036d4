"""How revisions come into force: proposed, agreed to, opened wave by wave, found good or failed, and taken back.

    propose ── consents ──▶ release ── wave ── well for a while ── next wave ── … ── good
       │                       │         └── not well ── failed (the base comes back) or halted (people decide)
       └── rejected            └── the revision before it, where it was still on its way, is superseded

The points in open waves hold the revision, the others its *base*: the last revision that had come everywhere. So do
points that did not take it, where some may stay *behind*: they hold up nobody (`tolerance.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from cellwall.controller.core import Outlook, Row, Shown, Standing, outlook
from cellwall.controller.errors import Conflict, Denied, NotFound
from cellwall.controller.ground import read_policy
from cellwall.controller.restored import highest_seen
from cellwall.controller.store.rollouts import Consent, Course, RolloutStore
from cellwall.controller.store.state import Progress, Revision, RevisionState, StateStore
from cellwall.controller.testing import CONTROLLER
from cellwall.controller.tolerance import LATE_S, NONE, Behind, Tolerance, guarded, loudest, parse_tolerance, spared
from cellwall.controller.waves import adds_nobody, opened, places
from cellwall.labels import Labels
from cellwall.policy import Approval, OnFailure, Policy, Rollout
from cellwall.wire import PointState

EMPTY = Revision(0, CONTROLLER, "nothing is written yet", 0.0, {})
"""The policy before the first one: everything is observed."""
EVERYWHERE = Rollout()
MOVING = frozenset({RevisionState.ROLLING, RevisionState.PARTIAL})
UNDER_WAY = frozenset({Shown.PENDING, Shown.PROVISIONAL, Shown.FAILED, Shown.DRIFTED})
"""How a point is shown that has not come along, and may yet: it tries by itself."""
MOST_NAMED, MOST_REASON = 10, 500
Log = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Health:
    """How the points with a revision fared until `at`: flows denied that nobody foresaw, and checks that fail, in
    words; `reporters` are the points that say so, one for each of the flows."""

    unexpected: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    at: float = 0.0
    reporters: tuple[str, ...] = ()


UNKNOWN = Health()


def tolerance_of(revision: Revision) -> Tolerance:
    """Read how many points may stay behind a revision, from its plan."""
    said = cast("Mapping[str, str]", revision.plan.get("tolerate") or {})
    return parse_tolerance(said["points"], said["also"]) if said else NONE


class Rollouts:
    """The revisions there are, which one is in force, and how far it has come."""

    def __init__(self, store: StateStore, courses: RolloutStore, log: Log) -> None:
        self._store, self._courses, self._log = store, courses, log
        self.revision: Revision = EMPTY
        self.policy = Policy()
        self.base: Revision = EMPTY
        self.base_policy = Policy()
        self.course: Course | None = None
        self.health = UNKNOWN
        self.tolerance = NONE
        self._held: frozenset[str] = frozenset()
        self._points: Mapping[str, Labels] = {}
        self._late: Mapping[str, str] = {}

    def refresh(self) -> bool:
        """Take up what the store says is in force; whether that is something else. Raises `PolicyError`."""
        course = self._courses.newest()
        if course == self.course:
            return False
        number, base = (course.revision, course.base) if course is not None else (0, 0)
        if number != self.revision.number:
            revision = self.find(number)
            self.revision, self.policy, self.health = revision, read_policy(revision.documents), UNKNOWN
            self.tolerance = tolerance_of(revision)
            self._held, self._late = frozenset(), {}
        if base != self.base.number:
            self.base = self.find(base)
            self.base_policy = read_policy(self.base.documents)
        self.course = course
        return True

    # --- what there is ---

    def newest(self) -> int:
        """Give the number of the revision that began to come into force last, as the store has it."""
        course = self._courses.newest()
        return course.revision if course is not None else 0

    def find(self, number: int) -> Revision:
        """Give a revision with its documents. Raises `NotFound`."""
        found = EMPTY if number == 0 else self._store.revision(number)
        if found is None:
            raise NotFound(f"there is no revision `{number}`")
        return found

    def at(self, moment: float) -> Revision:
        """Give the revision that was coming or had come into force at a moment."""
        return self.find(self._courses.released(moment))

    def state(self, number: int) -> RevisionState:
        """Say how far a revision has come."""
        known = self._store.progress().get(number)
        return known.state if known is not None else RevisionState.GOOD

    def consents(self, number: int) -> tuple[Consent, ...]:
        """Give what people said to a revision."""
        return self._courses.consents(number)

    @property
    def partly(self) -> bool:
        """Whether some points hold the base, as their wave is not open yet, or as they stay behind."""
        return self.course is not None and (not self.course.last or bool(self.course.behind))

    @property
    def watched(self) -> bool:
        """Whether a wave has to be found well before the next one begins; the way back never waits for that."""
        if self.course is None or self.revision.reverts_to is not None:
            return False
        return bool(self.course.settle_s or self.policy.rollout.checks)

    @property
    def calm(self) -> bool:
        """Whether nothing but what points say can change how the rollout goes."""
        return self.course is None or not (self.course.well or self._trouble(self.course))

    def has_it(self, points: Mapping[str, Labels]) -> frozenset[str]:
        """Give the points that are to hold the revision in force; the others hold its base."""
        self._points = points
        if self.course is None:
            return frozenset(points)
        behind = {one.workload for one in self.course.behind}
        if self.course.last:
            return frozenset(points.keys() - behind)
        # Who had it once keeps it, whatever joins or leaves the fleet meanwhile.
        self._held = (self._held & points.keys()) | opened(self.course.waves, self.course.wave, points)
        return self._held - behind

    def patient(self, now: float) -> bool:
        """Whether who is under way is waited for still: no point is late that might stay behind."""
        return self.course is None or self.tolerance == NONE or now < self._late_at(self.course)

    def _late_at(self, course: Course) -> float:
        return course.opened + self.revision.confirm_s + LATE_S

    def marked(self, rows: dict[str, Row]) -> dict[str, Row]:
        """Give the rows of all points with those that stay behind shown as such, and why."""
        for one in self.course.behind if self.course is not None else ():
            if (row := rows.get(one.workload)) is not None:
                silent = row.state is Shown.SILENT
                reason = f"{row.reason}; " if silent else ""
                rows[one.workload] = replace(
                    row,
                    state=row.state if silent else Shown(one.state),
                    reason=f"{reason}it stays behind, which is tolerated: {one.reason}",
                    revision_wanted=self.revision.number,
                )
        return rows

    def last_good(self) -> int:
        """Give the last revision before the present one that was in force everywhere; 0 where there is none.

        What was itself taken back by a revert is not gone back to."""
        progress = self._store.progress()
        left = {one.number: one.reverts_to for one in self._store.revisions() if one.reverts_to is not None}
        number = self.revision.number
        if number in left:
            number = min(left[number] or 0, number)
        for candidate in sorted((one for one in progress if one < number), reverse=True):
            if progress[candidate].state is RevisionState.GOOD and candidate not in left:
                return candidate
        return 0

    # --- to propose, to agree, to release ---

    def demands(self, policy: Policy, changed: Sequence[Labels]) -> tuple[Approval, ...]:
        """Give the approvals that `policy` needs where it changes points whose workloads have these labels.

        Both policies are asked; and an approval that goes must itself be agreed to, even if no point changes."""
        going = [one for one in self.policy.approvals if one not in policy.approvals]
        asked = [
            one
            for one in (*self.policy.approvals, *policy.approvals)
            if any(one.where.matches(labels) for labels in changed)
        ]
        return tuple(sorted(set(going + asked), key=lambda one: (one.where, one.reviewers)))

    def propose(
        self,
        documents: Mapping[str, str],
        author: str,
        note: str,
        now: float,
        *,
        confirm_s: float,
        plan: Mapping[str, object],
        reverts_to: int | None = None,
        accepted: Sequence[str] = (),
    ) -> Revision:
        """Make a new revision that is not in force. Raises `StateError` where its number was taken meanwhile."""
        newest = next(iter(self._store.revisions()), EMPTY)
        # Numbers that agents know from before a restore are not given to anything else.
        number = max(newest.number, highest_seen(self._store.database)) + 1
        revision = Revision(number, author, note, now, dict(documents), dict(plan), confirm_s, reverts_to)
        with self._store.transaction():
            self._store.add_revision(revision)
            self._store.put_progress(Progress(revision.number, RevisionState.PROPOSED, "", now))
            details = {"note": note, "reverts_to": reverts_to, **({"accepted": list(accepted)} if accepted else {})}
            self._store.record(now, author, "propose", f"revision {revision.number}", details)
        return revision

    def consent(self, number: int, person: str, note: str, now: float, *, agrees: bool) -> int:
        """Take what a person says to a proposed revision; how many agree. A single no rejects it.

        Raises `Conflict` where it is not proposed any more, and `Denied` for its author, who can only withdraw it."""
        revision = self.find(number)
        if self.state(number) is not RevisionState.PROPOSED:
            raise Conflict(f"revision `{number}` is {self.state(number)}; only what is proposed can be agreed to")
        if agrees and person == revision.author:
            raise Denied(f"revision `{number}` is by `{person}`; somebody else has to agree to it")
        with self._store.transaction():
            self._courses.put_consent(Consent(number, person, agrees, note, now))
            self._store.record(now, person, "approve" if agrees else "reject", f"revision {number}", {"note": note})
            if not agrees:
                why = f"`{person}` {'withdrew' if person == revision.author else 'rejected'} it"
                why += f": {note}" if note else ""
                self._store.put_progress(Progress(number, RevisionState.REJECTED, why, now))
        return sum(one.agrees for one in self._courses.consents(number))

    def release(
        self,
        revision: Revision,
        policy: Policy,
        now: float,
        author: str,
        *,
        how: Rollout,
        planned_on: int | None = None,
    ) -> None:
        """Let a proposed revision come into force, from its first wave on.

        Raises `Conflict` when another came in between."""
        if planned_on is not None and planned_on != self.revision.number:
            raise Conflict(f"revision `{self.revision.number}` is in force, not `{planned_on}`; plan again")
        self._take_up(*self._begin(revision, policy, now, author, how))

    def _begin(
        self, revision: Revision, policy: Policy, now: float, author: str, how: Rollout
    ) -> tuple[Revision, Policy, Course]:
        """Write that a revision comes into force; to be taken up once that is on disk."""
        if self._courses.newest() != self.course:
            raise Conflict("another revision came into force meanwhile; plan again")
        number, before, known = revision.number, self.revision, self._store.progress().get(self.revision.number)
        # Who never got what is on its way still holds what was there before.
        base = self.course.base if self.course is not None and not self.course.last else before.number
        limits = how.settle_s, how.unexpected_denials, how.on_failure
        course = Course(number, base, how.waves, *limits, wave=0, released=now, opened=now)
        with self._store.transaction():
            if known is not None and known.state in (RevisionState.ROLLING, RevisionState.HALTED):
                why = f"revision {number} came before it was in force everywhere"
                self._store.put_progress(Progress(before.number, RevisionState.SUPERSEDED, why, now))
            self._store.put_progress(Progress(number, RevisionState.ROLLING, "", now))
            self._courses.put_course(course)
            waves = [one.name for one in how.waves]
            details: dict[str, object] = {"note": revision.note, "reverts_to": revision.reverts_to, "waves": waves}
            if tolerated := revision.plan.get("tolerate"):
                details["tolerate"] = tolerated
            self._store.record(now, author, "apply", f"revision {number}", details)
        return revision, policy, course

    def _take_up(self, revision: Revision, policy: Policy, course: Course) -> None:
        if course.base == self.revision.number:
            self.base, self.base_policy = self.revision, self.policy
        self.revision, self.policy, self.course = revision, policy, course
        self.health, self.tolerance = UNKNOWN, tolerance_of(revision)
        self._held, self._late = frozenset(), {}
        reverts_to, base = revision.reverts_to, course.base
        self._log("revision", number=revision.number, author=revision.author, reverts_to=reverts_to, base=base)

    def revert(self, to: int | None, author: str, note: str, now: float) -> Revision:
        """Put an earlier revision's documents in force again, everywhere at once, as a new revision that needs neither
        consent nor confirmation: None is the last one before this that was in force everywhere. Raises `NotFound`."""
        target = self.last_good() if to is None else to
        documents = self.find(target).documents
        policy = read_policy(documents)
        note = note or f"back to revision {target}"
        self.refresh()
        with self._store.transaction():
            revision = self.propose(documents, author, note, now, confirm_s=0.0, plan={}, reverts_to=target)
            begun = self._begin(revision, policy, now, author, EVERYWHERE)
        self._take_up(*begun)
        return revision

    # --- on its way ---

    def halt(self, author: str, why: str, now: float) -> None:
        """Open no further wave until a person says so. Raises `Conflict` where nothing is on its way."""
        known = self._store.progress().get(self.revision.number)
        if known is None or known.state not in MOVING:
            raise Conflict(
                f"revision `{self.revision.number}` is {self.state(self.revision.number)}; nothing is on its way"
            )
        with self._store.transaction():
            self._store.put_progress(Progress(self.revision.number, RevisionState.HALTED, why, now))
            self._store.record(now, author, "halt", f"revision {self.revision.number}", {"why": why})
        self._log("rollout halted", number=self.revision.number, why=why)

    def resume(self, author: str, note: str, now: float) -> None:
        """Go on with what was halted; what was seen so far does not count any more. Raises `Conflict`."""
        number, course = self.revision.number, self.course
        if course is None or self.state(number) is not RevisionState.HALTED:
            raise Conflict(f"revision `{number}` is {self.state(number)}; only what is halted can be resumed")
        with self._store.transaction():
            self._store.put_progress(Progress(number, RevisionState.ROLLING, "", now))
            self._keep(replace(course, opened=now, well=0.0))
            self._store.record(now, author, "resume", f"revision {number}", {"note": note})
        self.health = UNKNOWN

    @property
    def accepted(self) -> frozenset[str]:
        """The points of which it was known, and accepted, that they would refuse the revision in force."""
        cramped = cast("Sequence[Mapping[str, str]]", self.revision.plan.get("cramped", ()))
        return frozenset(one["workload"] for one in cramped)

    @property
    def excused(self) -> frozenset[str]:
        """The points that keep no wave from being opened: those `accepted`, and those that stay behind already."""
        return self.accepted | {one.workload for one in (self.course.behind if self.course is not None else ())}

    def judge(
        self,
        rows: Mapping[str, Row],
        standings: Mapping[str, Standing],
        now: float,
        ahead: Callable[[int], str] = lambda _: "",
    ) -> None:
        """Open the next wave, or find the revision good, partial or failed; then the last good one comes back.

        `rows` are those of all points that are to hold the revision in force. `ahead` says of the number of a wave why
        it must not be opened: some of its points would refuse. Points that may stay behind are not looked at."""
        number, course = self.revision.number, self.course
        known = self._store.progress().get(number)
        if course is None or known is None or known.state not in MOVING:
            return
        if not course.last:
            # Who was to refuse it, and did, keeps no other waiting; in the end it is told.
            accepted = self.accepted
            rows = {n: one for n, one in rows.items() if one.state is not Shown.REFUSED or n not in accepted}
        rows = self._without_behind(course, rows, standings, now)
        course = self.course or course
        verdict, why = outlook(rows, standings, number)
        trouble = self._trouble(course)
        if verdict is Outlook.FAILED:
            self._fail(why, now)
        elif trouble:
            if course.on_failure is OnFailure.REVERT:
                self._fail(trouble, now)
            else:
                self.halt(CONTROLLER, trouble, now)
        elif verdict is Outlook.GOES_ON:
            if course.well:
                self._keep(replace(course, well=0.0))
        elif verdict is Outlook.PARTIAL and not course.last:
            self.halt(CONTROLLER, why, now)
        elif not self.watched or (not course.well and adds_nobody(course.waves, course.wave, self._points)):
            # A wave of nobody has nothing to show, however long it is looked at.
            self._go_on(course, known, verdict, why, now, ahead)
        elif not course.well:
            self._keep(replace(course, well=now))
        elif self.health.at >= course.well + course.settle_s:
            self._go_on(course, known, verdict, why, now, ahead)

    def _without_behind(
        self, course: Course, rows: Mapping[str, Row], standings: Mapping[str, Standing], now: float
    ) -> Mapping[str, Row]:
        """Let points that did not take the revision stay behind, as many as may; give the rows of the others.

        Who refused it, took it back, or denies what nobody foresaw, is set back to the base, for good; who only has not
        come along is not waited for once it is late, and may come yet."""
        if self.tolerance == NONE:
            return rows
        number, accepted = course.revision, self.accepted
        down: dict[str, Behind] = {}
        for name, row in rows.items():
            standing = standings[name]
            if standing.state is PointState.REVERTED and standing.spurned.revision == number:
                down[name] = Behind(name, Shown.REVERTED.value, f"took it back: {standing.reason[:MOST_REASON]}")
            elif row.state is Shown.REFUSED and name not in accepted:
                down[name] = Behind(name, Shown.REFUSED.value, f"refused it: {row.reason[:MOST_REASON]}")
        for name, flow in loudest(self._unforeseen(course), course.unexpected_denials).items():
            if name in rows and name not in down:
                down[name] = Behind(
                    name, Shown.REVERTED.value, f"was set back, as it denied what nobody foresaw: {flow}"
                )
        slow = {} if self.patient(now) else {name: row for name, row in rows.items() if row.state in UNDER_WAY}
        if not (down or slow):
            self._late = {}
            return rows
        let_be, passed = self._spared(course, down, slow)
        self._late = {name: slow[name].reason[:MOST_REASON] or slow[name].state.value for name in sorted(passed)}
        if let_be:
            fallen = tuple(replace(down[name], epoch=self._epoch(name) or 0.0) for name in sorted(let_be))
            named = {one.workload: one.reason for one in fallen}
            with self._store.transaction():
                self._keep(replace(course, behind=(*course.behind, *fallen)))
                self._store.record(now, CONTROLLER, "tolerate", f"revision {number}", {"behind": named})
            for name, why in named.items():
                self._log("point stays behind", level="warning", number=number, workload=name, why=why)
        return {name: row for name, row in rows.items() if name not in let_be and name not in passed}

    def _spared(
        self, course: Course, fallen: Collection[str], late: Collection[str] = ()
    ) -> tuple[frozenset[str], frozenset[str]]:
        numbers = places(course.waves, self._points)
        approvals = (*self.policy.approvals, *self.base_policy.approvals)
        never = guarded(self._points, numbers, len(course.waves), approvals, self.tolerance)
        before = [one.workload for one in course.behind]
        return spared(self.tolerance, numbers, before, set(fallen) - never, set(late) - never)

    def unspared(self, short: Mapping[str, str]) -> dict[str, str]:
        """Give those of the points that would refuse the next wave, by name and with why, that may not stay behind."""
        if self.course is None or self.tolerance == NONE or not short:
            return dict(short)
        let_be, _ = self._spared(self.course, short)
        return {name: why for name, why in short.items() if name not in let_be}

    def forgive(self) -> None:
        """Let points that stayed behind have the revision where they are others by now: enrolled anew, or gone."""
        course = self.course
        if course is None or not course.behind:
            return
        kept = tuple(one for one in course.behind if self._epoch(one.workload) == one.epoch)
        if kept != course.behind:
            self._keep(replace(course, behind=kept))

    def _epoch(self, name: str) -> float | None:
        row = self._store.workload(name)
        return row.epoch if row is not None else None

    def _go_on(
        self,
        course: Course,
        known: Progress,
        verdict: Outlook,
        why: str,
        now: float,
        ahead: Callable[[int], str],
    ) -> None:
        number = course.revision
        if not course.last:
            if trouble := ahead(course.wave + 1):
                self.halt(CONTROLLER, trouble, now)
                return
            with self._store.transaction():
                self._keep(replace(course, wave=course.wave + 1, opened=now, well=0.0))
                self._tell_late(number, now)
            self._log("wave opened", number=number, wave=course.waves[course.wave + 1].name)
        elif verdict is Outlook.DONE:
            missing = sorted({*(one.workload for one in course.behind), *self._late})
            named = ", ".join(f"`{name}`" for name in missing[:MOST_NAMED])
            more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
            told = f"without {named}{more}, as is tolerated" if missing else ""
            with self._store.transaction():
                self._store.put_progress(Progress(number, RevisionState.GOOD, told, now))
                self._tell_late(number, now)
            self._log("revision is in force everywhere", number=number)
        elif known.state is RevisionState.ROLLING:
            self._store.put_progress(Progress(number, RevisionState.PARTIAL, why, now))
            self._log("revision is refused in places", number=number, why=why)

    def _tell_late(self, number: int, now: float) -> None:
        if self._late:
            self._store.record(now, CONTROLLER, "tolerate", f"revision {number}", {"late": dict(self._late)})
            self._log("late points are not waited for", level="warning", number=number, points=[*self._late])

    def _trouble(self, course: Course) -> str:
        failing, unexpected = self.health.failing, [flow for flow, _ in self._unforeseen(course)]
        if failing:
            return f"the check {failing[0]}"
        if len(unexpected) > course.unexpected_denials:
            return f"{len(unexpected)} flows are denied that nobody foresaw, first {unexpected[0]}"
        return ""

    def _unforeseen(self, course: Course) -> list[tuple[str, str]]:
        """Give the flows denied that nobody foresaw, and by whom; who stays behind holds the base: that is over."""
        behind = {one.workload for one in course.behind}
        pairs = zip(self.health.unexpected, self.health.reporters, strict=True)
        return [(flow, by) for flow, by in pairs if by not in behind]

    def _fail(self, why: str, now: float) -> None:
        number, reverts = self.revision.number, self.revision.reverts_to is None
        with self._store.transaction():
            self._store.put_progress(Progress(number, RevisionState.FAILED, why, now))
            self._store.record(now, CONTROLLER, "fail", f"revision {number}", {"why": why})
        self._log("revision failed", number=number, why=why)
        if reverts:
            self.revert(None, CONTROLLER, f"revision {number} failed: {why}", now)

    def _keep(self, course: Course) -> None:
        self._courses.put_course(course)
        self.course = course
