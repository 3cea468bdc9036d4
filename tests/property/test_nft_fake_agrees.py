"""The nftables program, run in memory, does with every packet what the compiled form and `decide` say."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.compile import Ruleset, compile_fleet
from cellwall.enforce.nft.fake import FakeKernel, Fate, Packet
from cellwall.enforce.nft.orders import ALLOWED, DENIED, WOULD_DENY
from cellwall.enforce.nft.render import RULE_MASK, Local, Unit, render
from cellwall.flows import Outcome, Side
from cellwall.policy import Flow, Tier, decide_at
from tests.property.worlds import UNITS, USERS, World, flows, worlds

NOW = 1_800_000_000.0
LOCAL = Local(
    users={name: 1000 + index for index, name in enumerate(USERS)},
    units={name: Unit(7000 + index, 2, f"system.slice/{name}") for index, name in enumerate(UNITS)},
)


def packet_of(flow: Flow) -> Packet:
    """The first packet of `flow`, as the hooks of its ends see it."""
    identity = flow.source.identity
    unit = LOCAL.units.get(identity.unit or "")
    cgroups = {1: 1, 2: unit.cgroup} if unit else {1: 1}
    user = LOCAL.users.get(identity.user or "", 0)
    return Packet(flow.source.address, flow.destination.address, flow.protocol, flow.port, user=user, cgroups=cgroups)


def counted_verdict(fate: Fate, ruleset: Ruleset) -> tuple[Outcome, Outcome, str] | None:
    """What the counting sets say: outcome, would-be outcome, id of the rule."""
    if not fate.counted:
        return None
    assert len(fate.counted) == 1
    mark = fate.counted[0][1][-1]
    number = mark & RULE_MASK
    rule = ruleset.id_by_number[number] if number else ""
    outcomes = {
        ALLOWED: (Outcome.ALLOWED, Outcome.ALLOWED),
        DENIED: (Outcome.DENIED, Outcome.DENIED),
        WOULD_DENY: (Outcome.ALLOWED, Outcome.DENIED),
    }
    return (*outcomes[mark & ~RULE_MASK], rule)


@settings(max_examples=settings().max_examples * 3)
@given(st.data(), worlds())
def test_the_nft_program_agrees_with_decide(data: st.DataObject, world: World) -> None:
    compiled = compile_fleet(world.policy, world.fleet, 1, NOW)
    kernels = {name: FakeKernel(render(point.ruleset, point.members, LOCAL)) for name, point in compiled.points.items()}
    for _ in range(12):
        flow = data.draw(flows(world.fleet))
        for side, own, peer in (
            (Side.EGRESS, flow.source, flow.destination),
            (Side.INGRESS, flow.destination, flow.source),
        ):
            if own.workload is None or own.workload not in kernels or own.workload == peer.workload:
                continue
            expected = decide_at(side, world.policy, world.fleet, flow, NOW)
            fate = kernels[own.workload].run("input" if side is Side.INGRESS else "output", packet_of(flow))
            assert fate.passed is (expected.outcome is Outcome.ALLOWED)
            assert fate.mark == 0
            counted = counted_verdict(fate, compiled.points[own.workload].ruleset)
            built_in = expected.tier is Tier.LIFELINE and expected.because[0] not in world.policy.by_id
            if built_in:
                assert counted is None
            else:
                assert counted == (expected.outcome, expected.would, expected.because[0] if expected.because else "")
