"""Compiling is a function of policy and fleet alone, and what it cuts and numbers is exact and stable."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cellwall.compile import Cut, RuleBook, compile_fleet, rule_numbers, rules_in_force
from cellwall.compile.tiers import PRECEDENCE, Resolved, difference, resolve
from cellwall.enforce import digest_of
from cellwall.flows import Side
from cellwall.inventory import Fleet
from cellwall.policy import Action, Policy, Rule, Who, endpoint, matches, parse_policy
from cellwall.traffic import PortSet
from tests.property.test_laws_traffic import LINE, SETS
from tests.property.worlds import World, documents, fleets, flows, worlds

NOW = 1_800_000_000.0
Told = tuple[Action, tuple[str, ...]]


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    """Some rules on a short line of ports, all of which match the ends."""
    many = draw(st.integers(0, 6))
    return [Rule(f"r{n}", draw(st.sampled_from(list(Action))), draw(SETS), (Who(),), (Who(),)) for n in range(many)]


def told(resolved: tuple[Resolved, ...]) -> dict[int, Told]:
    """What is said of each point; none is said twice."""
    found: dict[int, Told] = {}
    for one in resolved:
        for at in range(one.first, one.last + 1):
            assert at not in found
            found[at] = (one.action, one.rules)
    return found


def plainly(some: list[Rule]) -> dict[int, Told]:
    """The dumb twin: point by point."""
    found: dict[int, Told] = {}
    for at in range(LINE + 1):
        for action in PRECEDENCE:
            ids = tuple(sorted(rule.id for rule in some if rule.action is action and at in rule.ports))
            if ids:
                found[at] = (action, ids)
                break
    return found


@given(rules())
def test_resolving_is_looking_at_each_port(some: list[Rule]) -> None:
    resolved = resolve(some)
    assert told(resolved) == plainly(some)
    for left, right in pairwise(resolved):
        assert left.last < right.first
        assert left.last + 1 < right.first or (left.action, left.rules) != (right.action, right.rules)


@given(st.data(), rules())
def test_the_order_in_which_rules_are_resolved_does_not_matter(data: st.DataObject, some: list[Rule]) -> None:
    assert resolve(data.draw(st.permutations(some))) == resolve(some)


@given(rules(), st.integers(0, 6))
def test_a_difference_is_exactly_what_is_said_otherwise(some: list[Rule], common: int) -> None:
    whole, everyone = resolve(some), resolve(some[:common])
    said, besides = told(whole), told(everyone)
    assert told(difference(whole, everyone)) == {at: said[at] for at in said if besides.get(at) != said[at]}
    assert {**besides, **told(difference(whole, everyone))} == said


# --- a pure function ---


@given(st.data(), worlds())
def test_compiling_does_not_depend_on_any_order(data: st.DataObject, world: World) -> None:
    once = compile_fleet(world.policy, world.fleet, 7, NOW)
    fleet = Fleet(tuple(data.draw(st.permutations(world.fleet.workloads))), world.fleet.controllers)
    again = compile_fleet(parse_policy([("policy.yaml", world.text)]), fleet, 7, NOW)
    assert {name: point.ruleset for name, point in once.points.items()} == {
        name: point.ruleset for name, point in again.points.items()
    }
    assert once.points == again.points
    assert [digest_of(point.ruleset) for point in once.points.values()] == [
        digest_of(point.ruleset) for point in again.points.values()
    ]


@given(st.data(), worlds())
def test_a_point_does_not_depend_on_rules_that_match_nothing_of_it(data: st.DataObject, world: World) -> None:
    document = json.loads(world.text)
    document["networks"]["nowhere"] = "203.0.113.0/24"
    document["rules"].append({"id": "unrelated", "deny": "tcp/9", "from": "role=none-such", "to": "network:nowhere"})
    document["labels"]["role"] = {}
    more = parse_policy([("policy.yaml", json.dumps(document, indent=1))])
    once = compile_fleet(world.policy, world.fleet, 7, NOW).points
    again = compile_fleet(more, world.fleet, 7, NOW).points
    for name, point in once.items():
        assert again[name].members == point.members
        assert again[name].ruleset.faces == point.ruleset.faces


# --- numbers ---


@given(documents(), documents(rules=2, modes=False), fleets())
def test_a_class_keeps_its_number_for_as_long_as_it_is_the_same(text: str, other: str, fleet: Fleet) -> None:
    policy = parse_policy([("policy.yaml", text)])
    extra = [{**rule, "id": f"x{rule['id']}"} for rule in json.loads(other)["rules"]]
    document = json.loads(text)
    document["rules"] += extra
    more = parse_policy([("policy.yaml", json.dumps(document))])
    before, after = _cut(policy, fleet), _cut(more, fleet)
    known = {(frozenset(one.selectors), one.shared, one.networks): one.number for one in after.classes}
    for one in before.classes:
        assert known.get((frozenset(one.selectors), one.shared, one.networks), one.number) == one.number
    numbers, more_numbers = rule_numbers(policy.by_id), rule_numbers(more.by_id)
    assert {rule: more_numbers[rule] for rule in numbers} == numbers


def _cut(policy: Policy, fleet: Fleet) -> Cut:
    owners = {address.packed: workload for address, workload in fleet.by_address.items()}
    return RuleBook.of(rules_in_force(policy, NOW)).cut(owners)


@given(st.data(), worlds())
def test_no_rule_tells_two_addresses_of_a_class_apart(data: st.DataObject, world: World) -> None:
    in_force = rules_in_force(world.policy, NOW)
    cut = _cut(world.policy, world.fleet)
    flow = data.draw(flows(world.fleet))
    alike = [
        address
        for address in world.fleet.by_address
        if cut.places[address.packed] is cut.places.get(flow.source.address.packed)
        and address.version == flow.source.address.version
    ]
    for address in alike:
        twin = replace(flow, source=endpoint(world.fleet, address, flow.source.identity))
        for rule in in_force:
            for side in Side:
                assert matches(rule, twin, side) is matches(rule, flow, side)


@given(SETS)
def test_ports_that_no_rule_names_are_in_no_span(ports: PortSet) -> None:
    rule = Rule("r", Action.ALLOW, ports, (Who(),), (Who(),))
    assert sum(one.last - one.first + 1 for one in resolve([rule])) == ports.size()
