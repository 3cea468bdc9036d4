"""The text of a change depends on its content alone, and after any change the table does what was wanted."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.compile import Point, compile_fleet
from cellwall.enforce.nft.fake import FakeKernel
from cellwall.enforce.nft.interim import Layer
from cellwall.enforce.nft.program import MapShape, Program
from cellwall.enforce.nft.render import render
from cellwall.enforce.nft.script import transaction
from cellwall.enforce.nft.steps import FIXED, plan_steps
from cellwall.flows import Side
from tests.property.test_nft_fake_agrees import LOCAL, NOW, packet_of
from tests.property.worlds import World, flows, worlds


def rendered(world: World, name: str, backwards: bool = False) -> Program:
    """What a workload's point is to hold; `backwards` gathers members in another order."""
    point: Point = compile_fleet(world.policy, world.fleet, 1, NOW).points[name]
    members = dict(reversed(list(point.members.items()))) if backwards else point.members
    return render(point.ruleset, members, LOCAL)


def named(data: st.DataObject, world: World) -> str | None:
    """Some workload with a point."""
    names = [workload.name for workload in world.fleet.workloads if workload.agent]
    return data.draw(st.sampled_from(names)) if names else None


@given(st.data(), worlds())
def test_the_text_of_a_change_is_the_same_for_the_same_content(data: st.DataObject, world: World) -> None:
    name = named(data, world)
    if name is None:
        return
    once, again = rendered(world, name), rendered(world, name, backwards=True)
    assert once == again
    assert transaction(None, once) == transaction(None, again)
    held = plan_steps(None, once).program
    assert transaction(held, again) == ""


@settings(max_examples=settings().max_examples // 2)
@given(st.data(), worlds(), worlds())
def test_after_a_change_the_table_does_what_was_wanted_and_the_way_back_ends_where_it_began(
    data: st.DataObject, first: World, second: World
) -> None:
    first = replace(first, fleet=second.fleet)
    name = named(data, second)
    if name is None:
        return
    was, wanted = rendered(first, name), rendered(second, name)
    before = plan_steps(None, was).program
    steps = plan_steps(before, wanted)

    # Nothing that packets can reach is rewritten, and nothing that stays leads to what is swept.
    assert not set(steps.new_chains) & set(before.chains)
    assert not {shape.name for shape in steps.new_maps} & set(before.shapes)
    assert set(steps.rewritten) <= set(FIXED)
    assert not set(steps.old_chains) & set(steps.program.chains)
    assert not set(steps.old_maps) & set(steps.program.shapes)

    kernel, plain = FakeKernel(steps.program), FakeKernel(wanted)
    for flow in data.draw(st.lists(flows(second.fleet), min_size=4, max_size=4)):
        for side in Side:
            hook = "input" if side is Side.INGRESS else "output"
            assert kernel.run(hook, packet_of(flow)) == plain.run(hook, packet_of(flow))

    back = plan_steps(steps.program, was).program
    assert set(back.names) == set(before.names)
    assert transaction(back, was) == ""


@settings(max_examples=settings().max_examples // 2)
@given(st.data(), worlds(), worlds())
def test_what_is_for_a_while_decides_until_its_end_and_both_ways_out_of_it_build_nothing(
    data: st.DataObject, first: World, second: World
) -> None:
    first = replace(first, fleet=second.fleet)
    name = named(data, second)
    if name is None:
        return
    lasting, trial = rendered(first, name), rendered(second, name)
    layer = Layer("trial", trial, NOW + 60)
    before = plan_steps(None, lasting).program
    # From what lasts, as a change is; or from nothing, as after a restart.
    for held in (before, None):
        steps = plan_steps(held, lasting, (layer,))
        for place, chain in (before.chains if held else {}).items():
            assert place in FIXED or steps.program.chains[place] == chain
        now, later = FakeKernel(steps.program, NOW), FakeKernel(steps.program, NOW + 60)
        above, below = FakeKernel(trial), FakeKernel(lasting)
        for flow in data.draw(st.lists(flows(second.fleet), min_size=4, max_size=4)):
            for hook in ("input", "output"):
                assert now.run(hook, packet_of(flow)) == above.run(hook, packet_of(flow))
                assert later.run(hook, packet_of(flow)) == below.run(hook, packet_of(flow))
        assert transaction(steps.program, lasting, (layer,)) == ""
        for wanted in (lasting, trial):
            out = plan_steps(steps.program, wanted)
            assert (out.new_maps, out.new_chains, out.come, out.gone) == ([], [], {}, {})
            assert not any("trial" in place for place in (*out.program.chains, *out.program.shapes))


@given(worlds(), worlds())
def test_a_name_of_a_map_always_means_the_same_kind_of_map(first: World, second: World) -> None:
    # Else a table that an older agent left could hold a map of that name that takes no such element.
    shapes: dict[str, MapShape] = {}
    for world in (first, second):
        for point in compile_fleet(world.policy, world.fleet, 1, NOW).points.values():
            for name, shape in render(point.ruleset, point.members, LOCAL).shapes.items():
                assert shapes.setdefault(name, shape) == shape
