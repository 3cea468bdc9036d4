"""What points are to hold, by difference, is what compiling from nothing gives; who is not touched keeps its own."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from cellwall.compile import compile_fleet
from cellwall.controller.core import Wanted, want
from cellwall.controller.ground import Ground
from cellwall.controller.wants import Wants
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import Order, OrderKind, Party, parse_policy

NOW = 1_800_000_000.0
TEXT = """
rules:
  - {id: web, allow: tcp/80, from: role=web, to: role=db}
  - {id: old, allow: tcp/81, from: role=web, to: role=db, expires: 2040-01-01T00:00:00Z}
"""


def workload(number: int, **labels: str) -> Workload:
    return Workload(f"w{number}", Labels(labels), (ip_address(f"10.0.0.{number}"),))


FLEET = Fleet((workload(1, role="web"), workload(2, role="db"), workload(3, role="mail")))
GROUND = Ground(1, parse_policy([("p.yaml", TEXT)]), FLEET)


def from_nothing(ground: Ground, now: float) -> dict[str, Wanted]:
    return want(compile_fleet(ground.policy, ground.fleet, ground.revision, now, ground.orders).points)


def test_every_step_is_what_compiling_from_nothing_gives() -> None:
    wants = Wants()
    more = replace(GROUND, fleet=Fleet((*FLEET.workloads, workload(4, role="db"))))
    less = replace(GROUND, fleet=Fleet(FLEET.workloads[:2]), revision=2)
    for ground, now in ((GROUND, NOW), (more, NOW), (less, NOW), (less, 2_300_000_000.0), (GROUND, NOW)):
        assert wants.of(ground, now) == from_nothing(ground, now)


def test_an_order_compiles_nothing_anew_and_is_what_compiling_from_nothing_gives() -> None:
    wants = Wants()
    plain = wants.of(GROUND, NOW)
    orders = (
        Order("c", OrderKind.CONTAIN, expires=NOW + 9),
        Order("o", OrderKind.OPEN, Party(("w1",)), Party(("w2",)), expires=NOW + 5),
    )
    given = replace(GROUND, orders=orders)
    after = wants.of(given, NOW)
    assert after == from_nothing(given, NOW)
    assert [len(after[name].ruleset.orders) for name in ("w1", "w2", "w3")] == [2, 2, 1]
    assert all(after[name].content == plain[name].content for name in plain)
    assert all(after[name].members is plain[name].members for name in plain)
    # Who has no part in what ends keeps the very same.
    later = wants.of(given, NOW + 6)
    assert later["w3"] is after["w3"] and later["w1"] != after["w1"]
    assert later == from_nothing(given, NOW + 6)
    assert wants.of(given, NOW + 9) == plain
    moved = replace(given, fleet=Fleet((*FLEET.workloads, workload(4, role="db"))))
    assert wants.of(moved, NOW) == from_nothing(moved, NOW)


def test_who_is_not_touched_keeps_what_it_had_under_the_new_number() -> None:
    wants = Wants()
    first = wants.of(GROUND, NOW)
    again = wants.of(GROUND, NOW)
    assert all(again[name] is first[name] for name in first)
    later = wants.of(replace(GROUND, revision=9), NOW)
    assert {one.revision for one in later.values()} == {9} == {one.ruleset.revision for one in later.values()}
    assert all(later[name].members is first[name].members for name in first)
    assert all(later[name].digest == first[name].digest for name in first)


def test_what_failed_halfway_begins_from_nothing() -> None:
    wants = Wants()
    wants.of(GROUND, NOW)
    with pytest.raises(AttributeError):
        wants.of(replace(GROUND, policy=None), NOW)  # type: ignore[arg-type]
    assert wants.of(GROUND, NOW) == from_nothing(GROUND, NOW)
