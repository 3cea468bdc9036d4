"""A change never rewrites what packets can reach: it builds beside, switches, and sweeps."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.compile.worlds import DB, DEV, WEB, compiled

from cellwall.enforce.nft.interim import OF_ORDERS, Layer, without_orders
from cellwall.enforce.nft.program import Field, Goto, Jump, Lookup, Program
from cellwall.enforce.nft.render import render
from cellwall.enforce.nft.steps import FIXED, Names, plan_steps

ONE = "rules: [{id: a, allow: tcp/1, from: role=web, to: role=db}, {id: b, allow: tcp/2, from: role=plc, to: role=db}]"
TWO = "rules: [{id: a, allow: tcp/1, from: role=web, to: role=db}, {id: b, allow: tcp/3, from: role=plc, to: role=db}]"


def wanted(text: str, mode: str = "enforce") -> Program:
    point = compiled(text, mode).points["db"]
    return render(point.ruleset, point.members)


def held(text: str, mode: str = "enforce") -> Program:
    return plan_steps(None, wanted(text, mode)).program


def test_without_a_table_everything_is_new_under_its_own_name() -> None:
    steps = plan_steps(None, wanted(ONE))
    assert {shape.name for shape in steps.new_maps} == set(steps.program.shapes)
    assert set(steps.new_chains) | set(FIXED) == set(steps.program.chains)
    assert all(name == place for name, place in steps.program.names.items())
    assert (steps.rewritten, steps.old_chains, steps.old_maps, steps.gone) == (list(FIXED), [], {}, {})


def test_the_same_again_is_no_change() -> None:
    steps = plan_steps(held(ONE), wanted(ONE))
    assert not steps.switches
    assert (steps.new_maps, steps.new_chains, steps.come, steps.old_chains, steps.old_maps) == ([], [], {}, [], {})


def test_what_stays_the_same_is_shared_and_what_changes_stands_beside() -> None:
    before = held(ONE)
    steps = plan_steps(before, wanted(TWO))
    assert steps.switches
    assert steps.program.names["allow_a"] == "allow_a"
    assert steps.program.names["peer4"] == "peer4"
    assert steps.program.names["in0_port"] == "in0_port_2"
    assert "in0_port" in steps.old_maps and "in0" in steps.old_chains
    assert "allow_a" not in steps.old_chains


def test_nothing_that_packets_reach_is_rewritten() -> None:
    before = held(ONE)
    steps = plan_steps(before, wanted(TWO))
    assert not set(steps.new_chains) & set(before.chains)
    assert not {shape.name for shape in steps.new_maps} & set(before.shapes)
    assert set(steps.rewritten) <= set(FIXED)
    for name, chain in before.chains.items():
        if name not in FIXED and name not in steps.old_chains:
            assert steps.program.chains[name] == chain


def test_a_name_is_free_again_after_it_was_swept() -> None:
    second = plan_steps(held(ONE), wanted(TWO)).program
    third = plan_steps(second, wanted(ONE))
    assert third.program.names["in0_port"] == "in0_port"
    assert "in0_port_2" in third.old_maps


def test_a_new_revision_alone_rewrites_what_the_table_says_of_itself() -> None:
    point = compiled(ONE).points["db"]
    later = render(replace(point.ruleset, revision=2), point.members)
    steps = plan_steps(held(ONE), later)
    assert (steps.rewritten, steps.new_chains, steps.new_maps) == (["about"], [], [])


def test_a_new_mode_changes_the_chains_that_tell_it() -> None:
    steps = plan_steps(held(ONE), wanted(ONE, "observe"))
    assert steps.program.chains["input"].drops is False
    assert steps.program.names["allow_a"] == "allow_a"
    assert steps.program.names["unmatched"] == "unmatched_2"


def test_members_that_come_and_go_change_in_place_and_one_that_moves_gets_a_map_beside() -> None:
    point = compiled(ONE).points["db"]
    number = point.members[WEB.packed]
    before = held(ONE)
    more = render(point.ruleset, {**point.members, DB.packed: number})
    steps = plan_steps(before, more)
    assert steps.come == {"peer4": [(((int(DB), int(DB)),), number)]}
    assert (steps.gone, steps.switches) == ({"peer4": []}, False)
    fewer = render(point.ruleset, {packed: n for packed, n in point.members.items() if packed != DEV.packed})
    assert plan_steps(before, fewer).gone["peer4"] == [((int(DEV), int(DEV)),)]
    moved = plan_steps(before, render(point.ruleset, {**point.members, DEV.packed: 1}))
    assert moved.program.names["peer4"] == "peer4_2" and moved.switches


def test_without_memory_everything_is_built_beside_what_is_there() -> None:
    before = held(ONE)
    names = Names({name: bool(shape.data) for name, shape in before.shapes.items()}, frozenset({*before.chains, "odd"}))
    steps = plan_steps(names, wanted(ONE))
    assert set(steps.old_chains) == (set(before.chains) | {"odd"}) - set(FIXED)
    assert all(steps.old_maps.values())
    assert {name for name, shape in before.shapes.items() if not shape.data} <= set(steps.program.shapes)
    assert steps.program.names["seen4"] == "seen4"
    assert steps.program.names["peer4"] == "peer4_2"


def test_a_trial_stands_above_what_lasts_and_shares_what_is_the_same() -> None:
    before = held(ONE)
    steps = plan_steps(before, wanted(ONE), (Layer("trial", wanted(TWO), 60.0),))
    program = steps.program
    # Nothing of what lasts goes or is written anew; the base chains alone look first whether something is above them.
    assert (steps.old_chains, steps.old_maps, steps.gone) == ([], {}, {})
    assert steps.rewritten == ["input", "output", "about_trial"]
    for hook, way in (("input", "trial_in"), ("output", "trial_out")):
        lead, *rest = program.chains[hook].lines
        assert lead.statements == (Lookup((Field.FAMILY,), way),) and tuple(rest) == before.chains[hook].lines
        assert set(program.elements[way].values()) == {Goto(f"{hook}_trial")}
        assert program.shapes[way].until == 60.0
    # Members are there once, and what differs twice.
    assert "peer4_2" not in program.shapes and "in0_port_2" in program.shapes
    assert program.names["allow_a"] == program.spare[0]["allow_a"] == "allow_a"
    assert (program.names["in0"], program.spare[0]["in0"]) == ("in0_2", "in0")


def test_members_that_a_trial_changes_stand_beside_those_of_what_lasts() -> None:
    before, other = held(ONE), wanted(ONE)
    other.elements["peer4"] = {**other.elements["peer4"], ((1, 1),): 7}
    steps = plan_steps(before, wanted(ONE), (Layer("trial", other, 60.0),))
    assert steps.program.names["peer4"] == "peer4_2" and steps.program.spare[0]["peer4"] == "peer4"
    assert set(steps.come) == {"peer4_2", "trial_in", "trial_out"}
    # When that lasts, they are members like any others.
    after = plan_steps(steps.program, other)
    assert after.come == {} and "peer4" in after.old_maps and after.program.names["peer4"] == "peer4_2"


def test_a_trial_from_nothing_shares_with_what_lasts_too() -> None:
    steps = plan_steps(None, wanted(ONE), (Layer("trial", wanted(TWO), 60.0),))
    assert [shape.name for shape in steps.new_maps if shape.name.startswith("peer4")] == ["peer4"]
    assert steps.new_chains.count("allow_a") == 1
    again = plan_steps(steps.program, wanted(ONE), (Layer("trial", wanted(TWO), 60.0),))
    assert not again.switches and again.program.names == steps.program.names


def test_what_is_without_orders_leads_to_none() -> None:
    program = without_orders(wanted(ONE))
    jumps = {one for chain in program.chains.values() for line in chain.lines for one in line.statements}
    assert not any(Jump(name) in jumps for name in OF_ORDERS)
    assert not set(OF_ORDERS) & set(program.chains)
    steps = plan_steps(None, wanted(ONE), (Layer("suspended", program, 60.0),))
    assert set(OF_ORDERS) <= set(steps.program.chains)
    assert "allow_a_2" in steps.program.chains, "the same rule without its way to orders"
