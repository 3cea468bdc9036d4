"""The compiled form gives the verdict that `decide` gives, and the cuts it is made of are exact."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.compile import compile_fleet, judge, without_expired
from cellwall.flows import Outcome, Side
from cellwall.policy import Action, Mode, decide_at
from tests.property.worlds import World, flows, worlds

NOW = 1_800_000_000.0


@settings(max_examples=settings().max_examples * 3)
@given(st.data(), worlds())
def test_the_compiled_form_agrees_with_decide(data: st.DataObject, world: World) -> None:
    compiled = compile_fleet(world.policy, world.fleet, 1, NOW)
    for _ in range(12):
        flow = data.draw(flows(world.fleet))
        for side in Side:
            own, peer = (flow.source, flow.destination) if side is Side.EGRESS else (flow.destination, flow.source)
            if own.workload is None or own.workload not in compiled.points or own.workload == peer.workload:
                continue
            point = compiled.points[own.workload]
            expected = decide_at(side, world.policy, world.fleet, flow, NOW)
            judged = judge(
                point.ruleset, point.members, side, own.address, peer.address, flow.protocol, flow.port, own.identity
            )
            assert (judged.outcome, judged.would, judged.tier) == (expected.outcome, expected.would, expected.tier)
            assert judged.rules == expected.because


LATER = datetime.fromisoformat("2041-01-01T00:00:00+00:00").timestamp()


@settings(max_examples=settings().max_examples * 2)
@given(st.data(), worlds())
def test_an_allow_that_expires_away_from_the_controller_opens_nothing_and_ends(
    data: st.DataObject, world: World
) -> None:
    compiled = compile_fleet(world.policy, world.fleet, 1, NOW)
    lasting = all(rule.expires is None or rule.action is Action.ALLOW for rule in world.policy.rules)
    for _ in range(12):
        flow = data.draw(flows(world.fleet))
        own, peer = flow.destination, flow.source
        if own.workload is None or own.workload not in compiled.points or own.workload == peer.workload:
            continue
        point = compiled.points[own.workload]
        asked = (point.members, Side.INGRESS, own.address, peer.address, flow.protocol, flow.port)
        before, after = judge(point.ruleset, *asked), judge(without_expired(point.ruleset, LATER), *asked)
        assert not (before.outcome is Outcome.DENIED and after.outcome is Outcome.ALLOWED)
        later = decide_at(Side.INGRESS, world.policy, world.fleet, flow, LATER)
        if lasting and later.mode is Mode.ENFORCE:
            assert after.outcome is later.outcome
