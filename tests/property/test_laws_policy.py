"""The promises that the language makes: order is nothing, allowances only open, denials only close."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cellwall.flows import Outcome
from cellwall.policy import Action, Decision, Flow, Policy, decide, parse_policy
from tests.property.worlds import World, documents, flows, worlds

NOW = 1_800_000_000.0


def told(world: World, policy: Policy, flow: Flow) -> Decision:
    return decide(policy, world.fleet, flow, NOW)


def entries(section: Any) -> list[Any]:
    """What a section holds, one by one."""
    return list(section.items() if isinstance(section, dict) else section)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def shuffled(data: st.DataObject, document: dict[str, Any]) -> dict[str, Any]:
    """The same document in another order, inside and out."""
    out: dict[str, Any] = {}
    for name in data.draw(st.permutations(sorted(document))):
        section: Any = document[name]
        if isinstance(section, dict):
            out[name] = dict(data.draw(st.permutations(entries(section))))
        else:
            out[name] = data.draw(st.permutations(entries(section)))
    return out


@given(st.data(), documents())
def test_the_order_of_sections_and_rules_never_matters(data: st.DataObject, text: str) -> None:
    policy = parse_policy([("policy.yaml", text)])
    assert parse_policy([("policy.yaml", json.dumps(shuffled(data, json.loads(text))))]) == policy


@given(st.data(), documents())
def test_splitting_a_document_over_files_changes_nothing(data: st.DataObject, text: str) -> None:
    policy = parse_policy([("policy.yaml", text)])
    parts: list[dict[str, Any]] = [{}, {}, {}]
    for name, section in json.loads(text).items():
        for entry in entries(section):
            part = parts[data.draw(st.integers(0, 2))]
            if isinstance(section, dict):
                part.setdefault(name, {})[entry[0]] = entry[1]
            else:
                part.setdefault(name, []).append(entry)
    files = [(f"{'cab'[index]}.yaml", json.dumps(part)) for index, part in enumerate(parts)]
    assert parse_policy(data.draw(st.permutations(files))) == policy


@given(st.data(), worlds())
def test_removing_an_allowance_never_opens_anything(data: st.DataObject, world: World) -> None:
    rules = (*world.policy.rules, *world.policy.lifelines)
    allowances = [rule for rule in rules if rule.action in {Action.ALLOW, Action.LIFELINE}]
    if not allowances:
        return
    gone = data.draw(st.sampled_from(allowances))
    less = replace(
        world.policy,
        rules=tuple(rule for rule in world.policy.rules if rule != gone),
        lifelines=tuple(rule for rule in world.policy.lifelines if rule != gone),
    )
    for flow in data.draw(st.lists(flows(world.fleet), min_size=8, max_size=8)):
        before, after = told(world, world.policy, flow), told(world, less, flow)
        assert not (before.outcome is Outcome.DENIED and after.outcome is Outcome.ALLOWED)
        assert not (before.would is Outcome.DENIED and after.would is Outcome.ALLOWED)


@given(st.data(), worlds(), documents(rules=1, modes=False))
def test_adding_a_denial_or_a_wall_never_opens_anything(data: st.DataObject, world: World, text: str) -> None:
    extra = json.loads(text)["rules"]
    if not extra:
        return
    action = data.draw(st.sampled_from(["deny", "wall"]))
    services = [extra[0].pop(name) for name in ("allow", "deny", "wall") if name in extra[0]]
    document = json.loads(world.text)
    document["rules"].append({**extra[0], "id": "extra", action: services[0]})
    more = parse_policy([("policy.yaml", json.dumps(document))])
    for flow in data.draw(st.lists(flows(world.fleet), min_size=8, max_size=8)):
        before, after = told(world, world.policy, flow), told(world, more, flow)
        assert not (before.outcome is Outcome.DENIED and after.outcome is Outcome.ALLOWED)
        assert not (before.would is Outcome.DENIED and after.would is Outcome.ALLOWED)


@given(st.data(), worlds())
def test_a_stricter_mode_never_opens_anything_and_would_is_the_same_in_all(data: st.DataObject, world: World) -> None:
    document = json.loads(world.text)
    by_mode: list[Policy] = []
    for mode in ("observe", "guard", "enforce"):
        document["modes"] = [{"where": "any", "mode": mode}]
        by_mode.append(parse_policy([("policy.yaml", json.dumps(document))]))
    for flow in data.draw(st.lists(flows(world.fleet), min_size=8, max_size=8)):
        observe, guard, enforce = (told(world, policy, flow) for policy in by_mode)
        assert observe.outcome is Outcome.ALLOWED
        assert not (guard.outcome is Outcome.DENIED and enforce.outcome is Outcome.ALLOWED)
        assert observe.would is guard.would is enforce.would is enforce.outcome


@given(st.data(), worlds())
def test_a_staged_rule_changes_no_verdict(data: st.DataObject, world: World) -> None:
    policy = replace(world.policy, rules=tuple(rule for rule in world.policy.rules if not rule.staged))
    for flow in data.draw(st.lists(flows(world.fleet), min_size=8, max_size=8)):
        with_it, without = told(world, world.policy, flow), told(world, policy, flow)
        for one, other in ((with_it.egress, without.egress), (with_it.ingress, without.ingress)):
            assert (one is None) is (other is None)
            if one is not None and other is not None:
                assert replace(one, staged=()) == other
