"""What turned among the tests of the policy in force, and since when each stands as it does."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from cellwall.controller.ground import Ground, make_fleet, read_policy
from cellwall.controller.store.sql import open_state
from cellwall.controller.store.state import TestOutcome
from cellwall.controller.testing import Cause, StandingTests, cause, check, failure, stand, turned
from cellwall.inventory import Workload
from cellwall.labels import Labels

TEXT = """
rules: [{id: r, allow: tcp/22, from: role=admin, to: role=db, expires: '2030-01-01T00:00:00Z'}]
tests:
  - {id: apart, from: role=web, cannot: tcp/22, to: role=db}
  - {id: works, from: role=admin, can: tcp/22, to: role=db}
"""
POLICY = read_policy({"p.yaml": TEXT})
EXPIRES = 1_893_456_000.0


def ground(revision: int = 1, **roles: str) -> Ground:
    fleet = [
        Workload(name, Labels({"role": role}), (ip_address(f"10.0.0.{number}"),))
        for number, (name, role) in enumerate(sorted(roles.items()), 1)
    ]
    return Ground(revision, POLICY, make_fleet(fleet, POLICY, ()))


GOOD = ground(a="web", b="db", c="admin")
BAD = ground(a="web", b="db", c="web", d="web")


def test_a_test_that_fails_says_where_it_is_and_what_breaks_it() -> None:
    assert not [one for one in check(GOOD, 5.0).results if not one.passed]
    both = check(GOOD, EXPIRES + 1).results
    assert [one.passed for one in both] == [True, False]
    assert failure(both[1]) == "test `works` fails, at p.yaml:5:5: c → b tcp/22 is denied"


def test_a_test_over_several_hops_says_by_way_of_whom() -> None:
    text = """
rules: [{id: in, allow: tcp/80, from: role=web, to: role=api}, {id: on, allow: tcp/22, from: role=api, to: role=db}]
tests: [{id: t, from: role=web, cannot: tcp/22, to: role=db, hops: all}]
"""
    policy = read_policy({"p.yaml": text})
    roles = enumerate(("web", "api", "db"), 1)
    fleet = [Workload(role, Labels({"role": role}), (ip_address(f"10.0.0.{n}"),)) for n, role in roles]
    (one,) = check(Ground(1, policy, make_fleet(fleet, policy, ())), 5.0).results
    assert failure(one) == "test `t` fails, at p.yaml:3:9: web → db tcp/22 passes by way of api"


def test_what_stands_as_before_keeps_its_moment() -> None:
    first = {one.test: one for one in stand({}, check(GOOD, 5.0))}
    later = {one.test: one for one in stand(first, check(GOOD, EXPIRES + 1))}
    assert (later["apart"].since, later["works"].since) == (5.0, EXPIRES + 1)
    assert later["works"] == TestOutcome("works", False, EXPIRES + 1, 1, "c → b tcp/22 is denied")


def test_only_what_stands_otherwise_has_turned_and_a_new_one_where_it_fails() -> None:
    good, late = check(GOOD, 5.0), check(GOOD, EXPIRES + 1)
    assert turned({}, good) == ()
    assert [(one.test, one.passed) for one in turned({}, late)] == [("works", False)]
    outcomes = {one.test: one for one in stand({}, late)}
    assert turned(outcomes, late) == ()
    assert [(one.test, one.passed) for one in turned(outcomes, good)] == [("works", True)]


def test_what_made_it_turn_is_named() -> None:
    good = check(GOOD, 5.0)
    assert cause(None, good) is Cause.POLICY
    assert cause(good, check(BAD, 5.0)) is Cause.FLEET
    assert cause(good, check(GOOD, EXPIRES + 1)) is Cause.TIME
    other = Ground(2, read_policy({"other.yaml": TEXT}), GOOD.fleet)
    assert cause(good, check(other, 5.0)) is Cause.POLICY


def test_they_are_due_when_policy_fleet_or_time_have_changed() -> None:
    store = open_state(None)
    tests = StandingTests(store, lambda *_, **__: None)
    assert tests.due(GOOD, 5.0)
    tests.adopt(check(GOOD, 5.0))
    assert not tests.due(GOOD, EXPIRES - 1)
    assert tests.due(GOOD, EXPIRES)
    assert tests.due(BAD, 6.0)
    # The same documents as another revision: it is the tests of that one that are told.
    assert tests.due(replace(GOOD, revision=GOOD.revision + 1), 6.0)
    tests.adopt(check(GOOD, EXPIRES + 1))
    (entry,) = store.audit(5)
    assert (entry.action, entry.subject, entry.details["because"]) == ("test fails", "works", "time")
    assert StandingTests(store, lambda *_, **__: None).outcomes == tests.outcomes
    store.close()
