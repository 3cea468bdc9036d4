"""A draft that is applied is not compiled again: what compiled it takes the place of what was in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from threading import Event, Thread

import pytest

from cellwall.controller.api.drafts import KEPT_S, Drafts
from cellwall.controller.core import Wanted
from cellwall.controller.ground import Ground, read_policy
from cellwall.controller.wants import Wants
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels

NOW = 1_800_000_000.0
TEXT = "rules: [{id: r, allow: tcp/%d, from: role=web, to: role=db}]\n"
FLEET = Fleet(
    (
        Workload("web", Labels({"role": "web"}), (ip_address("10.0.0.1"),)),
        Workload("db", Labels({"role": "db"}), (ip_address("10.0.0.2"),)),
    )
)


def ground(port: int, number: int = 1) -> Ground:
    return Ground(number, read_policy({"p.yaml": TEXT % port}), FLEET)


def test_what_is_applied_as_it_was_planned_is_what_compiling_it_gives() -> None:
    drafts, in_force = Drafts(), Wants()
    in_force.of(ground(1), NOW)
    planned = drafts.of(ground(2), NOW)
    # Read again: equal, and not the same.
    given = drafts.trade(ground(2).policy, in_force)
    assert given is not in_force
    after = given.of(ground(2, number=2), NOW)
    assert after == Wants().of(ground(2, number=2), NOW)
    assert [after[name].digest for name in after] == [planned[name].digest for name in after]
    # What was in force compiles the next draft, and is given back for the same no second time.
    assert drafts.of(ground(3), NOW) == Wants().of(ground(3), NOW)
    assert drafts.trade(ground(2).policy, given) is given


def test_who_goes_on_with_the_same_policy_keeps_what_agents_hold() -> None:
    # A plan for other labels, which are then set: a draft would have other objects for all that stays.
    drafts, in_force = Drafts(), Wants()
    before = in_force.of(ground(1), NOW)
    moved = replace(ground(1), fleet=Fleet((FLEET.workloads[0], replace(FLEET.workloads[1], labels=Labels({})))))
    drafts.of(moved, NOW)
    assert drafts.trade(ground(1).policy, in_force) is in_force
    assert in_force.of(ground(1), NOW)["web"].members is before["web"].members


def test_the_way_back_is_not_compiled_again() -> None:
    drafts, first = Drafts(), Wants()
    first.of(ground(1), NOW)
    drafts.of(ground(2), NOW)
    second = drafts.trade(ground(2).policy, first)
    second.of(ground(2), NOW)
    assert drafts.trade(ground(1).policy, second) is first


def test_another_draft_takes_no_ones_place() -> None:
    drafts, in_force = Drafts(), Wants()
    assert drafts.trade(ground(1).policy, in_force) is in_force
    drafts.of(ground(2), NOW)
    assert drafts.trade(ground(1).policy, in_force) is in_force


def test_nobody_waits_for_a_draft_that_is_being_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    drafts, in_force, begun, end = Drafts(), Wants(), Event(), Event()
    drafts.of(ground(1), NOW)
    of = Wants.of

    def slowly(wants: Wants, given: Ground, now: float) -> Mapping[str, Wanted]:
        begun.set()
        assert end.wait(10)
        return of(wants, given, now)

    monkeypatch.setattr(Wants, "of", slowly)
    thread = Thread(target=drafts.of, args=(ground(1), NOW))
    thread.start()
    try:
        assert begun.wait(10)
        assert drafts.trade(ground(1).policy, in_force) is in_force
    finally:
        end.set()
        thread.join()
    assert drafts.trade(ground(1).policy, in_force) is not in_force


def test_a_draft_is_not_kept_for_ever() -> None:
    drafts, in_force = Drafts(), Wants()
    drafts.of(ground(1), NOW)
    drafts.tidy(NOW + KEPT_S - 1)
    drafts.tidy(NOW + KEPT_S + 1)
    assert drafts.trade(ground(1).policy, in_force) is in_force
