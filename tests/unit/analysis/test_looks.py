"""Boxes and looks in words."""

import pytest
from tests.unit.analysis.world import NOW

from cellwall.analysis.algebra.atoms import Universe
from cellwall.analysis.algebra.boxes import Look, boxes_of, meet
from cellwall.analysis.algebra.looks import example, ports_of, region, requirements
from cellwall.analysis.linting.covered import Covered
from cellwall.labels import Selector
from cellwall.policy import Policy, parse_policy
from cellwall.traffic import EVERYTHING, parse_ports

HEAD = """
labels: {env: {values: [prod, dev, test]}, app: {}}
networks: {all: [10.0.0.0/8], low: [10.0.0.0/9], odd: [10.64.0.0/10, 192.0.2.0/24]}
"""


def read(*rules: str) -> Policy:
    lines = [f"  - {{id: r{number}, {rule}}}" for number, rule in enumerate(rules)]
    return parse_policy([("p.yaml", "\n".join([HEAD, "rules:", *lines]))])


def overlap(one: str, other: str) -> str:
    policy = read(one, other)
    universe = Universe(policy.rules, policy.labels)
    first, second = (boxes_of(universe, rule)[0] for rule in policy.rules)
    both = meet(universe, first, second)
    assert both is not None
    return region(universe, both)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("'app!=a'", "'app!=b'", "`app notin (a,b)`"),
        ("app", "'app!=b'", "`app,app!=b`"),
        ("'env!=prod'", "'env!=dev'", "`env notin (dev,prod)`"),
        ("env", "'env!=dev'", "`env in (prod,test)`"),
        ("'!env'", "'env!=dev'", "`!env`"),
        ("app", "any", "`app`"),
        ("app=a", "network:low", "`app=a` in `network:low`"),
        ("network:low", "network:odd", "some of `network:low`"),
        ("any", "any", "any"),
    ],
)
def test_what_two_rules_share_is_told_as_a_document_would(one: str, other: str, words: str) -> None:
    rules = (f"allow: tcp/1-9, from: {one}, to: any", f"deny: tcp/5, from: {other}, to: any")
    assert overlap(*rules) == f"tcp/5 from {words} to any"


def test_every_selector_is_found_again_in_its_values() -> None:
    policy = read(
        *(
            f"allow: tcp/1, from: '{one}', to: any"
            for one in ("app=a", "app!=a", "app,app!=a", "app", "!app", "env!=prod")
        )
    )
    universe = Universe(policy.rules, policy.labels)
    for rule in policy.rules:
        selector = rule.source[0].selector
        assert selector is not None
        chosen = universe.selected(selector)
        assert chosen is not None
        ((at, mask),) = chosen.items()
        told = requirements(universe.keys[at], mask)
        assert told is not None and Selector(told) == selector
    key = universe.keys[universe.number["app"]]
    assert requirements(key, key.full) == ()
    assert requirements(key, key.absent | 1) is None, "no selector says: none, or `a`"


def test_ports_are_found_again_in_their_atoms() -> None:
    policy = read("allow: [tcp/1-9, udp/53], from: any, to: any", "allow: tcp/4, from: any, to: any")
    universe = Universe(policy.rules)
    for rule in policy.rules:
        assert ports_of(universe, universe.ports(rule.ports)) == rule.ports
    assert ports_of(universe, universe.full[1]) == EVERYTHING
    assert ports_of(universe, 0) == parse_ports("tcp/1") - parse_ports("tcp/1")


def test_a_value_that_is_made_up_is_no_value_of_a_rule() -> None:
    policy = read("allow: tcp/1, from: app, to: app", "deny: tcp/2, from: 'app in (other,another)', to: app=other-x")
    shown = Covered(policy, NOW).example("r0")
    assert shown is not None
    values = {end.labels["app"] for end in (shown.flow.source, shown.flow.destination)}
    assert len(values) == 2 and not values & {"other", "another", "other-x"}


def test_a_look_outside_any_rule_is_a_flow_too() -> None:
    universe = Universe(read("allow: tcp/1, from: app=a, to: app=b").rules)
    look = Look((0, 0, 0, 0, 0, 0, 0, 0), ((0, 1),))
    assert example(universe, look).words == "0 from a workload `app=a` to a workload `app=b`, on egress"
