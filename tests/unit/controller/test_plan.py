"""A plan says how much changes at each point."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from cellwall.controller.core import Wanted
from cellwall.controller.ground import Ground, make_fleet, read_policy
from cellwall.controller.plan import Kind, make_plan
from cellwall.controller.wants import Wants
from cellwall.inventory import Workload
from cellwall.labels import Labels
from cellwall.policy import Mode, Policy

WEB = Workload("web-1", Labels({"role": "web"}), (ip_address("10.0.0.1"),))
DB = Workload("db-1", Labels({"role": "db"}), (ip_address("10.0.0.2"),))
SHOP = "rules: [{id: r, allow: tcp/1, from: role=web, to: role=db}]\n"


def compiled(text: str, *more: Workload) -> Mapping[str, Wanted]:
    policy = read_policy({"p.yaml": text})
    return Wants().of(Ground(1, policy, make_fleet((DB, WEB, *more), policy, ())), 0.0)


def test_the_same_policy_changes_nothing() -> None:
    plan = make_plan(compiled(SHOP), compiled("# a comment\n" + SHOP))
    assert plan.count(Kind.NONE) == 2


def test_another_member_is_elements() -> None:
    more = Workload("web-2", Labels({"role": "web"}), (ip_address("10.0.0.3"),), agent=False)
    plan = make_plan(compiled(SHOP), compiled(SHOP, more))
    by_name = {point.workload: point for point in plan.points}
    assert (by_name["db-1"].kind, by_name["db-1"].joining) == (Kind.ELEMENTS, 1)
    assert by_name["web-1"].kind is Kind.NONE


def test_rules_that_come_go_and_change_are_named() -> None:
    after = "rules: [{id: s, allow: tcp/2, from: role=web, to: role=db}]\nmodes: [{where: '', mode: enforce}]\n"
    (point, _) = make_plan(compiled(SHOP), compiled(after)).points
    assert (point.kind, point.added, point.removed) == (Kind.REFILL, ("s",), ("r",))
    assert (point.before, point.after) == (Mode.OBSERVE, Mode.ENFORCE)
    (point, _) = make_plan(compiled(SHOP), compiled(SHOP.replace("tcp/1", "tcp/9"))).points
    assert point.changed == ("r",)


def test_a_new_point_has_no_mode_before() -> None:
    (point, _) = make_plan({}, compiled(SHOP)).points
    assert (point.kind, point.before, point.added) == (Kind.REFILL, None, ("r",))


def test_what_a_point_cannot_express_is_in_the_plan() -> None:
    text = "rules: [{id: x, allow: tcp/1, from: {workloads: role=web, as: {exe: /bin/x}}, to: role=db}]\n"
    plan = make_plan({}, compiled(text))
    assert [(name, misfit.rule) for name, misfit in plan.misfits] == [("web-1", "x")]


def test_documents_declare_workloads_and_their_labels_win() -> None:
    policy = read_policy(
        {
            "p.yaml": "workloads:\n  plc-1: {addresses: [10.9.0.1], labels: {role: plc}}\n"
            "  web-1: {addresses: [10.9.0.2], labels: {role: front}}\n"
        }
    )
    fleet = make_fleet((DB, WEB), policy, ())
    assert not fleet.by_name["plc-1"].agent
    assert fleet.by_name["web-1"].labels == Labels({"role": "front"})
    # Its agent says which addresses it has.
    assert fleet.by_name["web-1"].addresses == WEB.addresses


def test_an_empty_inventory_is_an_empty_fleet() -> None:
    assert make_fleet((), Policy(), ()).workloads == ()
