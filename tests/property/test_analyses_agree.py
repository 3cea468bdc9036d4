"""The analyses say of every flow what `decide` says."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.analysis import Assume, Level, Reach, distinct, impact, plain_replay, replay, run_tests, suggest
from cellwall.flows import UNKNOWN, FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.inventory import Fleet
from cellwall.policy import BUILT_IN, NOBODY, Claim, Flow, decide, endpoint, parse_policy
from cellwall.traffic import point
from tests.property.worlds import (
    IDENTITIES,
    NETWORKS,
    POINTS,
    VALUES,
    World,
    documents,
    fleets,
    flows,
    selectors,
    worlds,
)

NOW = 1_800_000_000.0


@settings(max_examples=settings().max_examples * 2)
@given(st.data(), worlds())
def test_the_ports_that_pass_are_those_that_decide_lets_through(data: st.DataObject, world: World) -> None:
    reach = Reach(world.policy, world.fleet, NOW)
    for _ in range(12):
        flow = data.draw(flows(world.fleet))
        decision = decide(world.policy, world.fleet, flow, NOW)
        own = flow.source.workload is not None and flow.source.workload == flow.destination.workload
        source, destination = reach.kind_of(flow.source), reach.kind_of(flow.destination)
        at = point(flow.protocol, flow.port)
        assert reach.decide(source, destination, flow.protocol, flow.port, own=own) == decision
        for assume, expected in ((Assume.MODES, decision.outcome), (Assume.ENFORCE, decision.would)):
            passes = at in reach.passing(source, destination, assume, own=own)
            assert passes == (expected is Outcome.ALLOWED)


@st.composite
def records(draw: st.DrawFn, fleet: Fleet) -> FlowRecord:
    flow = draw(flows(fleet))
    side = draw(st.sampled_from(list(Side)))
    identity = draw(st.sampled_from(IDENTITIES))
    process = Process("p", identity.user or "", identity.unit or "") if identity else UNKNOWN
    outcome = draw(st.sampled_from(list(Outcome)))
    key = FlowKey(flow.source.address, flow.destination.address, flow.protocol, flow.port)
    last = draw(st.integers(0, 3))
    return FlowRecord(key, "r", side, outcome, outcome, (), 1, draw(st.integers(1, 4)), 0, last, process=process)


@given(st.data(), worlds())
def test_a_replay_agrees_with_deciding_every_flow(data: st.DataObject, world: World) -> None:
    seen = data.draw(st.lists(records(world.fleet), max_size=12))
    for assume in Assume:
        told = replay(world.policy, world.fleet, seen, NOW, assume)
        plain = plain_replay(world.policy, world.fleet, seen, NOW, assume)
        assert told.checked == len(plain)
        changed = {(one.key, one.process): one for one in (*told.cut, *told.opened)}
        assert len(changed) == len(told.cut) + len(told.opened)
        for at, one in changed.items():
            assert plain[at] is one.becomes is not one.was
            ends = [end for end in (one.egress, one.ingress) if end is not None]
            fates = [end.would if assume is Assume.ENFORCE else end.outcome for end in ends]
            assert (Outcome.DENIED in fates) == (one.becomes is Outcome.DENIED)
        assert all(one.becomes is Outcome.DENIED for one in told.cut)
        assert all(one.becomes is Outcome.ALLOWED for one in told.opened)


@given(st.data(), worlds(), documents(), st.booleans())
def test_the_impact_of_a_change_is_what_decide_says_before_and_after(
    data: st.DataObject, world: World, text: str, relabel: bool
) -> None:
    new = parse_policy([("new.yaml", text)])
    fleet = world.fleet
    if relabel:
        moved = data.draw(st.lists(st.sampled_from(VALUES["role"]), min_size=5, max_size=5))
        changed = zip(world.fleet.workloads, moved, strict=False)
        fleet = replace(fleet, workloads=tuple(replace(one, labels=one.labels.but(role=role)) for one, role in changed))
    seen = data.draw(st.lists(records(world.fleet), max_size=8))
    names = [workload.name for workload in world.fleet.workloads]
    for assume in Assume:
        told = impact(world.policy, new, world.fleet, seen, NOW, assume, fleet)
        before = plain_replay(world.policy, world.fleet, seen, NOW, assume)
        after = plain_replay(new, fleet, seen, NOW, assume)
        changes = {(one.key, one.process) for one in (*told.seen.cut, *told.seen.opened)}
        assert changes == {at for at in before if before[at] is not after[at]}
        for _ in range(6):
            one, other = (world.fleet.by_name[data.draw(st.sampled_from(names))] for _ in range(2))
            if one is other:
                continue
            at = data.draw(st.sampled_from(POINTS))
            opened = closed = False
            for source, target in zip(one.addresses, other.addresses, strict=True):
                was, becomes = (
                    decision.would if assume is Assume.ENFORCE else decision.outcome
                    for decision in (
                        decide(policy, where, Flow(endpoint(where, source), endpoint(where, target), *at), NOW)
                        for policy, where in ((world.policy, world.fleet), (new, fleet))
                    )
                )
                opened |= (was, becomes) == (Outcome.DENIED, Outcome.ALLOWED)
                closed |= (was, becomes) == (Outcome.ALLOWED, Outcome.DENIED)
            mine = [
                change
                for change in told.changes
                if one.name in change.sources and other.name in change.destinations and change.identity == NOBODY
            ]
            assert opened == any(point(*at) in change.opened for change in mine)
            assert closed == any(point(*at) in change.closed for change in mine)


@given(worlds())
def test_a_policy_in_its_own_place_changes_nothing(world: World) -> None:
    assert impact(world.policy, world.policy, world.fleet, (), NOW).nothing


ENDS = [*(f"network:{name}" for name in NETWORKS), "any"]


@given(st.data(), worlds(rules=4, size=4))
def test_a_claim_that_holds_holds_for_every_flow_and_one_that_fails_shows_a_flow(
    data: st.DataObject, world: World
) -> None:
    ends = st.one_of(selectors(), selectors(), st.sampled_from(ENDS))
    claim = data.draw(st.sampled_from(list(Claim)))
    source, target = data.draw(ends), data.draw(ends)
    port = data.draw(st.sampled_from(["tcp/80", "tcp/80-90", "udp/53", "tcp", "any"]))
    if claim is Claim.ONLY:
        test = f"tests: [{{id: t, only: {source!r}, may-reach: {target!r}, service: {port!r}}}]"
    else:
        test = f"tests: [{{id: t, from: {source!r}, {claim}: {port!r}, to: {target!r}}}]"
    policy = parse_policy([("policy.yaml", world.text), ("tests.yaml", test)])
    (result,) = run_tests(policy, world.fleet, NOW)
    assert result.passed == (not result.counterexamples)
    assert not (result.vacuous and result.counterexamples)
    for shown in result.counterexamples:
        verdicts = [one for one in (shown.egress, shown.ingress) if one is not None]
        denied = any(one.would is Outcome.DENIED for one in verdicts)
        assert denied == (claim is Claim.CAN)
    if not result.passed:
        return
    asked = result.test
    for _ in range(8):
        flow = data.draw(flows(world.fleet))
        at = point(flow.protocol, flow.port)
        if at not in asked.ports or flow.source.workload == flow.destination.workload:
            continue
        if claim is not Claim.CAN and any(at in rule.ports for rule in BUILT_IN):
            continue  # a lifeline carries no service
        inside, reached = (
            any(
                (who.selector is None or (end.workload is not None and who.selector.matches(end.labels)))
                and (who.network is None or end.address in who.network)
                for who in whos
            )
            for whos, end in ((asked.source, flow.source), (asked.destination, flow.destination))
        )
        would = decide(policy, world.fleet, flow, NOW).would
        if claim is Claim.CAN and inside and reached and not flow.source.identity:
            assert would is Outcome.ALLOWED
        if claim is Claim.CANNOT and inside and reached:
            assert would is Outcome.DENIED
        if claim is Claim.ONLY and not inside and reached:
            assert would is Outcome.DENIED


@given(st.data(), fleets(size=6), st.sampled_from(list(Level)), st.booleans())
def test_a_suggestion_lets_all_through_that_was_seen(
    data: st.DataObject, fleet: Fleet, level: Level, beside: bool
) -> None:
    text = data.draw(documents(rules=3)) if beside else f"labels: {{{', '.join(f'{key}: {{}}' for key in VALUES)}}}"
    given_documents = {"policy.yaml": text}
    seen = data.draw(st.lists(records(fleet), max_size=25))
    told = suggest(fleet, seen, NOW, level, given_documents)
    again = suggest(fleet, data.draw(st.permutations(seen)), NOW, level, given_documents)
    assert again.documents == told.documents
    policy = parse_policy([*given_documents.items(), *told.documents.items()])
    fates = plain_replay(policy, fleet, seen, NOW, Assume.ENFORCE)
    left_out = {(one.key, one.process) for one, _ in told.coverage.left_out}
    assert {at for at, fate in fates.items() if fate is Outcome.DENIED} <= left_out
    assert told.coverage.flows == len(fates)
    assert told.coverage.covered == sum(fate is Outcome.ALLOWED for fate in fates.values())
    justified = {(one.key, one.process) for rule in told.rules for one in rule.flows}
    assert len(justified) + told.coverage.already + len(told.coverage.left_out) == len(list(distinct(seen)))
    assert all(0 <= rule.beyond < max(rule.allows, 1) or rule.allows == 0 for rule in told.rules)
    assert told.over_permission >= 1
