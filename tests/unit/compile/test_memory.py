"""A compiler keeps what points have in common, and no more of it than it may; what is let go is made again the same."""

from __future__ import annotations

import gc
from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.unit.compile.worlds import NOW, policy

from cellwall.compile import Carried, Compiler
from cellwall.compile.ruleset import Entry
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels

APPS = 30
MOST = 2 * APPS


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("faces", "compiler"):
        monkeypatch.setattr(f"cellwall.compile.{file}.MOST_ENTRIES", MOST)


def compiler() -> Compiler:
    """An app in each class; each speaks to all others, so that a point has an entry for each at both sides."""
    rules = "".join(f"  - {{id: r{app}, allow: tcp/{1000 + app}, from: app=a{app}, to: app}}\n" for app in range(APPS))
    fleet = Fleet(
        tuple(
            Workload(f"w{app}", Labels({"app": f"a{app}"}), (ip_address(f"10.0.0.{app + 1}"),)) for app in range(APPS)
        )
    )
    return Compiler(policy("rules:\n" + rules), fleet, 1, NOW)


def entries() -> int:
    gc.collect()
    return sum(type(one) is Entry for one in gc.get_objects())


def test_points_that_were_let_go_are_not_kept_for_ever() -> None:
    before, made = entries(), compiler()
    one = sum(len(face.ingress) + len(face.egress) for face in made.point("w0").ruleset.faces)
    for app in range(APPS):
        made.point(f"w{app}")
    assert 0 < entries() - before <= MOST + one


def test_what_is_made_again_is_the_same() -> None:
    made = compiler()
    first = {name: made.point(name) for name in made.workloads}
    assert all(made.point(name) == point == compiler().point(name) for name, point in first.items())


def test_members_are_put_together_once_until_some_class_has_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellwall.compile.compiler.MOST_ENTRIES", 1_000_000)
    monkeypatch.setattr("cellwall.compile.faces.MOST_ENTRIES", 1_000_000)
    made = compiler()
    first = made.point("w0").members
    assert isinstance(first, Carried)
    assert made.point("w0").members is first
    new = Workload("new", Labels({"app": "a1"}), (ip_address("10.0.1.1"),))
    made.put(new)
    made.settle()
    assert dict(made.point("w0").members) == dict(first) | {new.addresses[0].packed: first[b"\x0a\0\0\2"]}
    made.drop("new")
    made.settle()
    assert made.point("w0").members == first


def test_who_loses_its_agent_is_not_touched_by_what_follows() -> None:
    made = compiler()
    assert made.touched(made.settle()) == set()
    one = made.workloads["w1"]
    rules = replace(made.policy, rules=made.policy.rules[1:])
    made.set_policy(rules, 2, NOW)
    assert "w1" in made.touched(made.settle())
    made.put(replace(one, agent=False))
    made.settle()
    made.set_policy(policy("rules: []"), 3, NOW)
    touched = made.touched(made.settle())
    assert "w1" not in touched
    assert "w2" in touched


def test_who_comes_after_all_have_gone_and_all_was_cut_anew_is_seen_to_move() -> None:
    made = compiler()
    for name in tuple(made.workloads):
        made.drop(name)
    made.set_policy(policy("rules: [{id: r, allow: tcp/1, from: env=prod, to: env=dev}]"), 2, NOW)
    made.settle()
    new = Workload("new", Labels({"env": "prod"}), (ip_address("10.0.0.1"),))
    made.put(new)
    change = made.settle()
    assert change.moved.keys() == {new.addresses[0].packed}
    assert made.touched(change) == {"new"}
