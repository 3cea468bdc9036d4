"""Which points would refuse a change, as their hosts have not the memory to write it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from cellwall.compile import compile_fleet
from cellwall.controller.api.findings import plan_shape
from cellwall.controller.core import LARGEST_CHANGE, Standing, Wanted, want
from cellwall.controller.ground import make_fleet, read_policy
from cellwall.controller.plan import Kind, PointPlan, make_plan, refusal, shortage
from cellwall.enforce import Weight, weigh
from cellwall.inventory import Workload
from cellwall.labels import Labels
from cellwall.wire import Holding

MIB = 1 << 20
WEB = Workload("web-1", Labels({"role": "web"}), (ip_address("10.0.0.1"),))
DB = Workload("db-1", Labels({"role": "db"}), (ip_address("10.0.0.2"),))
SHOP = "rules: [{id: r, allow: tcp/1, from: role=web, to: role=db}]\n"
OTHER = SHOP.replace("tcp/1", "tcp/9")


def wanted(text: str, more: int = 0) -> dict[str, Wanted]:
    """What two points are to hold, with so many more members."""
    policy = read_policy({"p.yaml": text})
    crowd = tuple(
        Workload(f"z{n:05}", Labels({"role": "web"}), (ip_address(0x0B000000 + n),), agent=False) for n in range(more)
    )
    return want(compile_fleet(policy, make_fleet((DB, WEB, *crowd), policy, ()), 1, 0.0).points)


def planned(before: dict[str, Wanted], after: dict[str, Wanted], rooms: dict[str, int]) -> dict[str, PointPlan]:
    return {one.workload: one for one in make_plan(before, after, rooms).points}


def test_a_plan_lists_the_points_whose_hosts_have_not_the_memory() -> None:
    plan = make_plan(wanted(SHOP), wanted(OTHER), {"db-1": 4 * MIB, "web-1": 4096 * MIB})
    assert [one.workload for one in plan.cramped] == ["db-1"]
    (shown,) = plan_shape(plan)["cramped"]
    weight = weigh(wanted(OTHER)["db-1"].ruleset, 1)
    assert (shown["elements"], shown["peak_bytes"], shown["room_bytes"]) == (weight.elements, weight.peak, 4 * MIB)


def test_what_does_not_change_is_not_weighed_and_is_never_refused() -> None:
    plan = make_plan(wanted(SHOP), wanted(SHOP), {"db-1": 1, "web-1": 1})
    assert not plan.cramped
    assert all(one.weight is None for one in plan.points)
    assert all(one["weight"] is None for one in plan_shape(plan)["points"])


def test_a_host_that_said_nothing_of_its_memory_is_not_suspected() -> None:
    points = planned(wanted(SHOP), wanted(OTHER), {"db-1": 0})
    assert points["db-1"].shortage == points["web-1"].shortage == ""
    assert points["db-1"].weight is not None


def test_members_that_travel_alone_are_not_refused_and_so_many_that_all_is_sent_may_be() -> None:
    rooms = {"db-1": 4 * MIB}
    few = planned(wanted(SHOP, 100), wanted(SHOP, 110), rooms)["db-1"]
    assert (few.kind, few.whole, few.shortage) == (Kind.ELEMENTS, False, "")
    many = planned(wanted(SHOP, 100), wanted(SHOP, 100 + LARGEST_CHANGE + 1), rooms)["db-1"]
    assert (many.kind, many.whole) == (Kind.ELEMENTS, True)
    assert many.shortage


def test_a_shortage_gives_the_figures_and_says_whose_move_it_is() -> None:
    weight = Weight(500, 1 * MIB, 20 * MIB - 1)
    assert shortage(weight, 16 * MIB) == (
        "to write its table of about 500 elements takes 20 MiB of memory, and its host can give 16 MiB: free some "
        "there, or raise its agent's `--most-memory`"
    )
    assert shortage(weight, 20 * MIB) == shortage(weight, 0) == ""


def test_who_would_refuse_is_named_and_who_holds_it_already_is_not() -> None:
    points, rooms = wanted(SHOP), {"db-1": 1, "web-1": 1}
    assert refusal(points, {}, {}) == ""
    told = refusal(points, {}, rooms)
    assert told.startswith("`db-1` would refuse it: to write") and told.endswith("; and 1 more would")
    there = Standing("db-1", holding=Holding(generation=1, revision=1, digest=points["db-1"].digest))
    assert refusal(points, {"db-1": there}, rooms).startswith("`web-1` would refuse it")
    assert refusal(points, {"db-1": replace(there, holding=Holding())}, rooms) == told
