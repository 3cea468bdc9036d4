"""Compiling by difference equals compiling from nothing, after any changes in any order; the changes say all of it."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cellwall.compile import Compiler, Cut, Point, compile_fleet
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels
from cellwall.policy import Policy, parse_policy
from tests.property.worlds import NETWORKS, VALUES, documents, fleets

NOW = 1_800_000_000.0
MOMENTS = [NOW, 1_500_000_000.0, 2_300_000_000.0]
ADDRESSES = [ip_address(text) for text in ("10.0.0.1", "10.0.0.2", "10.0.0.5", "10.0.0.200", "192.0.2.200", "fd00::1")]
State = tuple[Policy, Fleet, float]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """A policy whose networks, canaries and rules change from one to the next."""
    document: dict[str, Any] = json.loads(draw(documents(rules=5)))
    if draw(st.booleans()):
        document["networks"]["some"] = draw(st.sampled_from([["10.0.0.0/30"], ["10.0.0.2/31", "fd00::/64"]]))
    if draw(st.integers(0, 2)) == 0:
        where = draw(st.sampled_from(["role=db", "network:half", "env=prod"]))
        document["tests"] = [{"id": "t", "from": "role=web", "to": where, "can": "tcp/80", "canary": "true"}]
    return parse_policy([("policy.yaml", json.dumps(document))])


@st.composite
def changed_fleets(draw: st.DrawFn, fleet: Fleet) -> Fleet:
    """A fleet with some workloads gone, come, relabelled, moved, enrolled anew; the others are the same objects."""
    workloads = dict(fleet.by_name)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(["w1", "w2", "w3", "w4", "w9"]))
        labels = {key: draw(st.sampled_from(values)) for key, values in VALUES.items() if draw(st.booleans())}
        labels |= draw(st.sampled_from([{}, {"host": "a"}, {"host": "b"}]))
        fresh = Workload(
            name,
            Labels(labels),
            tuple(draw(st.lists(st.sampled_from(ADDRESSES), max_size=3))),
            agent=draw(st.booleans()),
            epoch=float(draw(st.integers(0, 3))),
        )
        known = workloads.get(name, fresh)
        match draw(st.sampled_from(["drop", "put", "relabel", "move", "rise", "agent"])):
            case "drop":
                workloads.pop(name, None)
            case "relabel":
                workloads[name] = replace(known, labels=fresh.labels)
            case "move":
                workloads[name] = replace(known, addresses=fresh.addresses)
            case "rise":
                workloads[name] = replace(known, epoch=fresh.epoch)
            case "agent":
                workloads[name] = replace(known, agent=fresh.agent)
            case _:
                workloads[name] = fresh
    controllers = fleet.controllers
    if draw(st.integers(0, 9)) == 0:
        controllers = (Listener(ip_address("198.51.100.2"), 7443),)
    return Fleet(tuple(workloads.values()), controllers)


@st.composite
def ways(draw: st.DrawFn) -> list[State]:
    """Some states, each with a few changes to the one before."""
    state: State = (draw(policies()), draw(fleets(size=5)), NOW)
    found = [state]
    for _ in range(draw(st.integers(1, 5))):
        policy, fleet, now = state
        what = draw(st.integers(0, 4))
        if what < 2:
            fleet = draw(changed_fleets(fleet))
        elif what < 4:
            policy = draw(st.one_of(policies(), _edited(policy)))
        if draw(st.integers(0, 2)) == 0:
            now = draw(st.sampled_from(MOMENTS))
        state = policy, fleet, now
        found.append(state)
    return found


@st.composite
def _edited(draw: st.DrawFn, policy: Policy) -> Policy:
    """A policy with one rule gone, or one taken from another; the others are the same objects."""
    rules = {rule.id: rule for rule in policy.rules}
    if rules and draw(st.booleans()):
        del rules[draw(st.sampled_from(sorted(rules)))]
    else:
        other = draw(policies())
        if other.networks == policy.networks:
            rules |= {rule.id: rule for rule in other.rules[:1]}
    return replace(policy, rules=tuple(rules.values()))


def all_points(compiler: Compiler) -> dict[str, Point]:
    return dict(compiler.points())


def without_revision(point: Point) -> Point:
    return replace(point, ruleset=replace(point.ruleset, revision=0))


@given(ways())
def test_compiling_by_difference_equals_compiling_from_nothing(way: list[State]) -> None:
    policy, fleet, now = way[0]
    compiler = Compiler(policy, fleet, 1, now)
    assert all_points(compiler) == compile_fleet(policy, fleet, 1, now).points
    for revision, (policy, fleet, now) in enumerate(way[1:], 2):
        before = all_points(compiler)
        change = compiler.update(policy, fleet, revision, now)
        after = all_points(compiler)
        assert after == compile_fleet(policy, fleet, revision, now).points
        touched = compiler.touched(change)
        for name in after.keys() - touched:
            assert without_revision(after[name]) == without_revision(before[name])


@given(st.data(), ways())
def test_the_way_there_does_not_matter(data: st.DataObject, way: list[State]) -> None:
    """The same states in another order, some left out, some twice, then the last one."""
    *earlier, (policy, fleet, now) = way
    other = data.draw(st.permutations(earlier)) + data.draw(st.lists(st.sampled_from(earlier), max_size=2))
    start = other[0]
    compiler = Compiler(start[0], start[1], 1, start[2])
    for state in other[1:]:
        compiler.set_policy(state[0], 1, state[2])
        if data.draw(st.booleans()):
            compiler.update(state[0], state[1], 1, state[2])
    for workload in data.draw(st.permutations(fleet.workloads)):
        compiler.put(workload)
        if data.draw(st.booleans()):
            compiler.settle()
    compiler.update(policy, fleet, 7, now)
    assert all_points(compiler) == compile_fleet(policy, fleet, 7, now).points
    # And again, which changes nothing.
    assert not compiler.touched(compiler.update(policy, fleet, 7, now))


def test_who_falls_together_with_an_older_class_is_touched() -> None:
    """The rule that told them apart goes; the class that stays is as it was."""
    text = """
        rules:
          - {id: a, allow: any, from: role=db, to: app=blog}
          - {id: b, allow: any, from: role=web, to: app=shop}
    """
    both = (Workload("x", Labels({"role": "db"}), (ADDRESSES[3],)), Workload("y", Labels({}), (ADDRESSES[4],)))
    policy, fleet = parse_policy([("policy.yaml", text)]), Fleet(both)
    compiler = Compiler(policy, fleet, 1, NOW)
    change = compiler.update(replace(policy, rules=policy.rules[1:]), fleet, 1, NOW)
    assert compiler.touched(change) == {"x"}


def test_a_class_that_workloads_of_other_labels_left_last_is_made_anew() -> None:
    """Labels that no rule tells apart share a class; who left it first must not come back to what is gone."""
    text = """
        networks: {near: [10.0.0.0/25], far: [10.0.0.128/25]}
        rules:
          - {id: a, allow: any, from: app!=shop, to: network:near}
          - {id: b, allow: any, from: app!=shop, to: network:far}
    """
    policy, blog, wiki = parse_policy([("policy.yaml", text)]), Labels({"app": "blog"}), Labels({"app": "wiki"})
    stays = Workload("stays", blog, (ip_address("10.0.0.200"),))
    first = Workload("first", blog, (ip_address("10.0.0.1"),))
    last = Workload("last", wiki, (ip_address("10.0.0.2"),))
    compiler = Compiler(policy, Fleet((first, last, stays)), 1, NOW)
    for left in ((last, stays), (stays,), (first, stays)):
        compiler.update(policy, Fleet(left), 1, NOW)
        assert all_points(compiler) == compile_fleet(policy, Fleet(left), 1, NOW).points


@given(ways())
def test_what_moved_is_said(way: list[State]) -> None:
    policy, fleet, now = way[0]
    compiler = Compiler(policy, fleet, 1, now)
    places = _places(compiler)
    for policy, fleet, now in way[1:]:
        change = compiler.update(policy, fleet, 1, now)
        for packed, (before, after) in change.moved.items():
            assert places.pop(packed, 0) == before
            if after:
                places[packed] = after
        assert places == _places(compiler)


def _places(compiler: Compiler) -> dict[bytes, int]:
    return {packed: one.number for packed, one in compiler.cut.places.items() if one.number}


@given(fleets(size=5), st.permutations(sorted(NETWORKS)))
def test_two_classes_whose_numbers_would_be_the_same_have_two(fleet: Fleet, order: list[str]) -> None:
    """Numbers are as small as can be, so that classes meet; what they are does not depend on who came first."""
    text = json.dumps(
        {
            "networks": NETWORKS,
            "rules": [
                {"id": f"r{name}", "allow": "any", "from": f"network:{name}", "to": "role=web"} for name in NETWORKS
            ],
        }
    )
    policy = parse_policy([("policy.yaml", text)])
    by_order = _crowded(policy, fleet, fleet.workloads)
    assert by_order == _crowded(policy, fleet, tuple(reversed(fleet.workloads)))
    assert len(set(by_order.values())) == len({*by_order.values()})


def _crowded(policy: Policy, fleet: Fleet, workloads: tuple[Workload, ...]) -> dict[bytes, int]:
    from unittest.mock import patch

    with patch("cellwall.compile.cut.MOST_NUMBER", 11):
        compiler = Compiler(policy, Fleet((), fleet.controllers), 1, NOW)
        for workload in workloads:
            compiler.put(workload)
            compiler.put(replace(workload, labels=Labels({"role": "web"})))
            compiler.put(workload)
        compiler.settle()
        numbers = [one.number for one in compiler.cut.classes]
        assert len(set(numbers)) == len(numbers)
        assert isinstance(compiler.cut, Cut)
        return _places(compiler)
