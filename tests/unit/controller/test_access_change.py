"""A change of policy or labels stays where its author may make it."""

from __future__ import annotations

import pytest

from cellwall.controller.access import Person, Way, check_change, check_relabelling, parse_binding
from cellwall.controller.errors import Denied
from cellwall.controller.ground import Ground, make_fleet, read_policy, relabel
from cellwall.controller.plan import Plan, make_plan
from cellwall.controller.wants import Wants
from cellwall.inventory import Workload
from cellwall.labels import Labels
from cellwall.traffic import parse_address

FLEET = tuple(
    Workload(name, Labels({"app": app, "role": role}), (parse_address(address),), agent=True)
    for name, app, role, address in (
        ("shop-db", "shop", "db", "10.0.0.1"),
        ("shop-web", "shop", "web", "10.0.0.2"),
        ("till-db", "till", "db", "10.0.0.3"),
        ("till-web", "till", "web", "10.0.0.4"),
    )
)
BEFORE = """
services: {sql: tcp/5432}
networks: {office: [192.0.2.0/24], here: [10.0.0.0/24]}
rules:
  - {id: till, allow: sql, from: "app=till,role=web", to: "app=till,role=db"}
modes:
  - {where: app=till, mode: enforce}
"""
ANN = Person("ann", (parse_binding("author@app=shop"), parse_binding("viewer")), Way.PASSWORD)
NOW = 1_000_000.0


def ground(text: str) -> Ground:
    policy = read_policy({"policy.yaml": text})
    return Ground(1, policy, make_fleet(FLEET, policy, ()))


def planned(before: Ground, after: Ground) -> Plan:
    return make_plan(Wants().of(before, NOW), Wants().of(after, NOW))


def changed(*lines: str, before: str = BEFORE, person: Person = ANN) -> None:
    """Add sections and rules to the policy, and check that `person` may."""
    text = before
    for line in lines:
        section, _, entry = line.partition(" ")
        head, found, rest = text.partition(f"{section}\n")
        text = f"{head}{section}\n  {entry}\n{rest}" if found else f"{text}{section} {entry}\n"
    one, other = ground(before), ground(text)
    check_change(person, one, other, planned(one, other))


SHOP = '"app=shop,role=web"', '"app=shop,role=db"'


def test_what_is_within_is_allowed() -> None:
    changed(f"rules: - {{id: shop, allow: sql, from: {SHOP[0]}, to: {SHOP[1]}}}")
    changed("modes: - {where: app=shop, mode: enforce}")
    changed("rules: - {id: office, allow: sql, from: network:office, to: app=shop}")
    changed("workloads: {nas: {addresses: [10.0.0.9], labels: {app: shop}}}")
    changed("tests: [{id: t, from: app=shop, cannot: sql, to: app=shop}]")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("rules: - {id: x, allow: sql, from: app=shop, to: app=till}", "rule `x` reaches beyond"),
        ("rules: - {id: x, allow: sql, from: app=till, to: app=till}", "rule `x` reaches beyond"),
        ("rules: - {id: x, allow: sql, from: any, to: app=shop}", "rule `x` reaches beyond"),
        ("rules: - {id: x, allow: sql, from: app=shop, to: role=db}", "rule `x` reaches beyond"),
        ("rules: - {id: x, allow: sql, from: network:office, to: network:here}", "rule `x` reaches beyond"),
        ("rules: - {id: x, allow: sql, from: [app=shop, app=till], to: app=shop}", "rule `x` reaches beyond"),
        ("rules: - {id: x, allow: sql, from: network:here, to: app=shop}", "workload `till-db` is outside"),
        ('modes: - {where: "", mode: enforce}', "the mode of ``"),
        ("modes: - {where: role=db, mode: enforce}", "the mode of `role=db`"),
        ("lifelines: [{id: ssh, allow: tcp/22, from: network:office, to: app=shop}]", "`lifelines` is the whole"),
        ("labels: {app: {}, role: {}}", "`labels` is the whole"),
        ("approvals: [{where: app=shop}]", "`approvals` is the whole"),
        ("workloads: {nas: {addresses: [10.0.0.9], labels: {app: till}}}", "workload `nas`"),
        ("tests: [{id: t, from: app=till, cannot: sql, to: app=till}]", "test `t`"),
    ],
)
def test_what_reaches_beyond_is_refused(line: str, why: str) -> None:
    with pytest.raises(Denied, match=why):
        changed(line)
    changed(line, person=Person("root", (parse_binding("admin"),), Way.SOCKET))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("tcp/5432", "[tcp/5432, tcp/22]", "rule `till`"),
        ('  - {id: till, allow: sql, from: "app=till,role=web", to: "app=till,role=db"}\n', "  []\n", "rule `till`"),
        ("mode: enforce", "mode: guard", "the mode of `app=till`"),
    ],
)
def test_what_others_wrote_stays(old: str, new: str, why: str) -> None:
    one, other = ground(BEFORE), ground(BEFORE.replace(old, new).replace("rules:\n  []", "rules: []"))
    with pytest.raises(Denied, match=why):
        check_change(ANN, one, other, planned(one, other))


def test_a_label_opens_nothing_elsewhere() -> None:
    ann = Person("ann", (parse_binding("author@app=shop"),), Way.PASSWORD)
    before = ground(BEFORE)

    def relabelled(name: str, **labels: str | None) -> None:
        after = relabel(before, {name: labels})
        check_relabelling(ann, before, after, [name], planned(before, after))

    relabelled("shop-web", role="cache")
    with pytest.raises(Denied, match="workload `shop-web` is outside"):
        relabelled("shop-web", app="till")
    with pytest.raises(Denied, match="workload `till-db` is outside"):
        relabelled("till-web", app="shop")
    with pytest.raises(Denied, match="workload `shop-web` is outside"):
        relabelled("shop-web", app=None)
    opened = ground(BEFORE.replace("rules:\n", "rules:\n  - {id: all, allow: sql, from: role=backup, to: app=till}\n"))
    after = relabel(opened, {"shop-web": {"role": "backup"}})
    with pytest.raises(Denied, match="workload `till-db` is outside"):
        check_relabelling(ann, opened, after, ["shop-web"], planned(opened, after))
