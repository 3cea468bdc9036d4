"""What lint says never decides, never decides; what it says decides, does: by `decide`, and by a solver."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.analysis.linting.covered import TIERS, Covered, live
from cellwall.analysis.linting.edits import apply_edits
from cellwall.analysis.linting.minimise import minimise
from cellwall.analysis.linting.sameness import told_apart
from cellwall.inventory import Fleet
from cellwall.policy import Outcome, Policy, decide, decide_at, parse_policy
from tests.property.crowds import dense, mergeable
from tests.property.oracle import Oracle
from tests.property.worlds import World, documents, fleets, flows, worlds

NOW = 1_800_000_000.0


def never_deciding(covered: Covered) -> set[str]:
    return {one.subject for one in covered.never}


def without(policy: Policy, ids: set[str]) -> Policy:
    return replace(
        policy,
        rules=tuple(rule for rule in policy.rules if rule.id not in ids),
        lifelines=tuple(rule for rule in policy.lifelines if rule.id not in ids),
    )


@given(st.data(), worlds(rules=8))
def test_rules_that_never_decide_can_be_taken_away_all_at_once(data: st.DataObject, world: World) -> None:
    gone = never_deciding(Covered(world.policy, NOW))
    kept = without(world.policy, gone)
    for _ in range(12):
        flow = data.draw(flows(world.fleet))
        for now in (NOW, 2_300_000_000.0):
            was, becomes = decide(world.policy, world.fleet, flow, now), decide(kept, world.fleet, flow, now)
            for one, other in ((was.egress, becomes.egress), (was.ingress, becomes.ingress)):
                assert (one and (one.outcome, one.would)) == (other and (other.outcome, other.would))


@given(st.one_of(dense(), documents(rules=8)))
def test_the_example_of_a_rule_is_a_flow_that_only_it_decides_so(text: str) -> None:
    policy = parse_policy([("policy.yaml", text)])
    covered = Covered(policy, NOW)
    gone = never_deciding(covered)
    for rule in (*policy.rules, *policy.lifelines):
        told = covered.example(rule.id)
        assert (told is None) == (rule.id in gone or not live(rule, NOW))
        if told is None:
            continue
        kept = without(policy, gone - {rule.id})
        with_it = decide_at(told.side, kept, told.fleet, told.flow, told.moment)
        without_it = decide_at(told.side, without(kept, {rule.id}), told.fleet, told.flow, told.moment)
        assert with_it.because == (rule.id,)
        assert with_it.tier != without_it.tier
        if rule.action.value == "allow":
            assert (with_it.would, without_it.would) == (Outcome.ALLOWED, Outcome.DENIED)


@given(st.one_of(dense(), dense(), documents(rules=7, modes=False)), st.booleans())
def test_a_solver_agrees_on_which_rules_never_decide(text: str, open_vocabulary: bool) -> None:
    policy = parse_policy([("policy.yaml", text)])
    if open_vocabulary:
        policy = replace(policy, labels=())
    covered = Covered(policy, NOW)
    gone = never_deciding(covered)
    rules = [rule for rule in (*policy.lifelines, *policy.rules) if live(rule, NOW)]
    oracle = Oracle(rules, policy.labels, NOW)
    for rule in rules:
        tiers = TIERS[: TIERS.index(rule.action) + 1]
        others = [one for one in rules if one.id not in gone and one is not rule and one.action in tiers]
        assert oracle.only(rule, others) == (rule.id not in gone), rule


@given(st.data(), st.one_of(mergeable(), dense(), documents(rules=10)), fleets())
def test_a_minimised_policy_means_the_same(data: st.DataObject, text: str, fleet: Fleet) -> None:
    documents = {"policy.yaml": text}
    policy = parse_policy(documents.items())
    told = minimise(policy, NOW)
    changed = apply_edits(documents, told.edits)
    fewer = parse_policy(changed.items())
    assert (len(policy.rules), len(fewer.rules)) == (told.before, told.after)
    assert [one.words for one in told_apart(policy, fewer, NOW)] == []
    assert {rule.id for rule in policy.rules if not live(rule, NOW)} <= {rule.id for rule in fewer.rules}
    for _ in range(8):
        flow = data.draw(flows(fleet))
        for now in (NOW, 2_300_000_000.0):
            was, becomes = decide(policy, fleet, flow, now), decide(fewer, fleet, flow, now)
            assert (was.outcome, was.would) == (becomes.outcome, becomes.would)
    again = minimise(fewer, NOW)
    assert again.after == told.after


@given(st.data(), documents(rules=5), documents(rules=5), fleets())
def test_policies_that_cannot_be_told_apart_decide_alike_and_others_have_a_flow_that_shows_it(
    data: st.DataObject, text: str, other_text: str, fleet: Fleet
) -> None:
    one, other = (parse_policy([("policy.yaml", made)]) for made in (text, other_text))
    shown = list(told_apart(one, other, NOW))
    for example in shown:
        verdicts = [
            decide_at(example.side, policy, example.fleet, example.flow, example.moment) for policy in (one, other)
        ]
        assert verdicts[0].tier != verdicts[1].tier
    if shown:
        return
    for _ in range(10):
        flow = data.draw(flows(fleet))
        assert decide(one, fleet, flow, NOW).would == decide(other, fleet, flow, NOW).would


@settings(max_examples=settings().max_examples // 4)
@given(st.one_of(mergeable(), dense()), st.one_of(st.none(), dense(), documents(rules=5, modes=False)))
def test_a_solver_agrees_on_which_policies_mean_the_same(text: str, other_text: str | None) -> None:
    one = parse_policy([("policy.yaml", text)])
    if other_text is None:
        other = parse_policy(apply_edits({"policy.yaml": text}, minimise(one, NOW).edits).items())
    else:
        other = parse_policy([("policy.yaml", other_text)])
    said = (*one.lifelines, *one.rules, *other.lifelines, *other.rules)
    oracle = Oracle(said, one.labels, NOW)
    rules = [[rule for rule in (*each.lifelines, *each.rules) if live(rule, NOW)] for each in (one, other)]
    assert oracle.apart(*rules) == bool(list(told_apart(one, other, NOW)))
    assert other_text is not None or not oracle.apart(*rules)
