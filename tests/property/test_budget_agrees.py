"""The budget of a plan is the one that the agent checks, and counts no fewer elements than the table has."""

from __future__ import annotations

from hypothesis import given

from cellwall.agent.bundle import Bundle, open_bundle
from cellwall.agent.facts import weight_of
from cellwall.compile import compile_fleet
from cellwall.controller.core import want
from cellwall.controller.plan import make_plan
from cellwall.enforce import Scales, weigh
from cellwall.enforce.nft.render import render
from cellwall.wire import Bundle as Message
from cellwall.wire import encode_members, encode_ruleset
from tests.property.test_nft_fake_agrees import LOCAL, NOW
from tests.property.worlds import World, worlds

RULE_MAPS = ("peer", "net", "in", "out")


def held_by_agent(world: World, name: str) -> Bundle:
    point = compile_fleet(world.policy, world.fleet, 1, NOW).points[name]
    message = Message(
        workload=name,
        generation=1,
        revision=1,
        ruleset=encode_ruleset(point.ruleset),
        members=encode_members(point.members),
        issued_at=NOW,
        confirm_s=0.0,
    )
    return open_bundle(message, b"")


@given(worlds())
def test_a_plan_weighs_what_the_agent_weighs(world: World) -> None:
    wanted = want(compile_fleet(world.policy, world.fleet, 1, NOW).points)
    for point in make_plan({}, wanted).points:
        assert point.weight == weight_of(held_by_agent(world, point.workload))


@given(worlds())
def test_the_table_has_no_more_elements_than_were_counted(world: World) -> None:
    scales = Scales()
    for point in compile_fleet(world.policy, world.fleet, 1, NOW).points.values():
        program = render(point.ruleset, point.members, LOCAL)
        held = sum(
            len(elements)
            for name, elements in program.elements.items()
            if name.startswith(RULE_MAPS) and "user" not in name and "units" not in name
        )
        weight = scales.weigh(point.ruleset, len(point.members))
        assert weight == weigh(point.ruleset, len(point.members))
        assert held <= weight.elements
