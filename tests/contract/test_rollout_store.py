"""How a revision comes into force is kept alike in SQLite and in PostgreSQL, to the last field."""

from __future__ import annotations

from dataclasses import replace

from cellwall.controller.rollout import Rollouts
from cellwall.controller.store.rollouts import Course, RolloutStore
from cellwall.controller.store.sql import SqlState
from cellwall.controller.tolerance import Behind, Tolerance
from cellwall.labels import parse_selector
from cellwall.policy import OnFailure, Policy, Rollout, parse_waves

COURSE = Course(
    2,
    1,
    parse_waves(["canary", "env in (lab,test)", "25%"]),
    1.5,
    3,
    OnFailure.HALT,
    1,
    10.0,
    20.25,
    30.5,
    (Behind("b-2", "refused", 'refused it: `x` ✂ "y"'), Behind("b-3", "reverted", "", 1763856000.123456)),
)


def log(_event: str, /, **_details: object) -> None:
    """Say nothing."""


def test_a_course_comes_back_with_those_that_stay_behind(state: SqlState) -> None:
    store = RolloutStore(state.database)
    store.put_course(COURSE)
    assert store.newest() == COURSE
    store.put_course(replace(COURSE, behind=()))
    assert store.course(2) == replace(COURSE, behind=())


def test_who_takes_up_a_rollout_knows_what_is_tolerated_and_who_stays_behind(state: SqlState) -> None:
    store = RolloutStore(state.database)
    mine, others = (Rollouts(state, store, log) for _ in range(2))
    plan = {"tolerate": {"points": "5%", "also": "env=lab"}}
    revision = mine.propose({}, "ann", "", 1.0, confirm_s=30.0, plan=plan)
    mine.release(revision, Policy(), 2.0, "ann", how=Rollout(parse_waves(["canary"])))
    behind = (Behind("b-2", "refused", "refused it"),)
    course = store.newest()
    assert course is not None
    store.put_course(replace(course, behind=behind))
    assert others.refresh() and others.course is not None
    assert (others.course.behind, others.partly) == (behind, True)
    assert others.tolerance == mine.tolerance == Tolerance(0, 0.05, parse_selector("env=lab"))
