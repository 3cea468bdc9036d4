"""Documents become NetworkPolicies where a NetworkPolicy can say what they say; all else is refused with its place."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cellwall.inventory import Fleet, Workload
from cellwall.labels import parse_labels
from cellwall.policy import parse_policy
from cellwall.traffic import parse_address
from cellwall.translate.kubernetes.export import Exported, export_kubernetes

ENFORCED = "modes: [{where: namespace=shop, mode: enforce}]\n"
NETWORKS = "networks: {office: [10.20.0.0/16, '2001:db8::/48'], pods: 10.0.0.0/24}\n"


def fleet(**workloads: str) -> Fleet:
    return Fleet(
        tuple(
            Workload(name, parse_labels(labels), (parse_address(f"10.0.0.{number}"),))
            for number, (name, labels) in enumerate(workloads.items(), 1)
        )
    )


def exported(text: str, known: Fleet | None = None) -> Exported:
    return export_kubernetes(parse_policy([("p.yaml", text)]), known or Fleet())


def manifests(made: Exported, file: str = "shop.yaml") -> dict[str, dict[str, Any]]:
    assert not made.refusals, made.refusals
    found: dict[str, dict[str, Any]] = {}
    for one in yaml.safe_load_all(made.manifests[file]):
        assert (one["apiVersion"], one["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
        assert one["metadata"]["namespace"] == file.removesuffix(".yaml")
        found[one["metadata"]["name"]] = one["spec"]
    return found


def test_what_is_enforced_is_shut_and_each_rule_opens_each_end_that_it_speaks_of() -> None:
    text = "rules: [{id: to-db, allow: [tcp/5432, udp/1-9, sctp], from: app=api, to: 'app in (db,kv),!old'}]"
    made = exported(ENFORCED + text)
    assert made.notes == ()
    ports = [
        {"protocol": "TCP", "port": 5432},
        {"protocol": "UDP", "port": 1, "endPort": 9},
        {"protocol": "SCTP"},
    ]
    api = {"matchLabels": {"app": "api"}}
    stores = {
        "matchExpressions": [
            {"key": "app", "operator": "In", "values": ["db", "kv"]},
            {"key": "old", "operator": "DoesNotExist"},
        ]
    }
    assert manifests(made) == {
        "default-deny": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        "to-db-egress": {
            "podSelector": api,
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"namespaceSelector": {}, "podSelector": stores}], "ports": ports}],
        },
        "to-db-ingress": {
            "podSelector": stores,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": api}], "ports": ports}],
        },
    }
    assert "cellwall/rule: to-db" in made.manifests["shop.yaml"]


@pytest.mark.parametrize(
    ("who", "peers"),
    [
        ("any", None),
        ("[app=a, any]", None),
        ("network:office", [{"ipBlock": {"cidr": "10.20.0.0/16"}}, {"ipBlock": {"cidr": "2001:db8::/48"}}]),
        ("namespace=shop", [{"podSelector": dict[str, object]()}]),
        ("'namespace=shop,app=a'", [{"podSelector": {"matchLabels": {"app": "a"}}}]),
        ("namespace", [{"namespaceSelector": {
            "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]}}]),
        ("namespace/team=red", [{"namespaceSelector": {"matchLabels": {"team": "red"}}}]),
        ("pod/namespace=odd", [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"namespace": "odd"}}}]),
        ("'app=a,app=b'", [{"namespaceSelector": {}, "podSelector": {
            "matchLabels": {"app": "a"}, "matchExpressions": [{"key": "app", "operator": "In", "values": ["b"]}]}}]),
    ],
)  # fmt: skip
def test_the_far_end_is_a_list_of_peers(who: str, peers: object) -> None:
    made = exported(f"{ENFORCED}{NETWORKS}rules: [{{id: r, allow: any, from: {who}, to: app=db, side: ingress}}]")
    wanted = {"from": peers} if peers is not None else {}
    assert manifests(made)["r"]["ingress"] == [wanted]


def test_a_mode_that_takes_some_out_again_leaves_them_unselected() -> None:
    text = "modes: [{where: namespace=shop, mode: enforce}, {where: 'namespace=shop,app=new', mode: observe}]"
    made = manifests(exported(f"{text}\nrules: [{{id: r, allow: any, from: any, to: app, side: ingress}}]"))
    left = {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["new"]}]}
    assert made["default-deny"]["podSelector"] == left
    assert made["r"]["podSelector"]["matchExpressions"][0]["operator"] == "Exists"
    none = exported("modes: [{where: any, mode: guard}]\nrules: [{id: r, allow: any, from: any, to: app=a}]")
    assert none.manifests == {} and not none.refusals
    assert "no mode is `enforce`" in str(none.notes[0])


def test_a_rule_opens_nothing_where_nothing_is_shut() -> None:
    modes = "modes: [{where: 'namespace=shop,app=a', mode: enforce}]\n"
    made = exported(f"{modes}rules: [{{id: r, allow: any, from: any, to: app=b, side: ingress}}]")
    assert list(manifests(made)) == ["default-deny"]


def test_namespaces_come_from_the_fleet_where_selectors_do_not_name_them() -> None:
    pods = fleet(a="namespace=shop,namespace/team=red", b="namespace=ops", c="app=legacy")
    everywhere = "modes: [{where: any, mode: enforce}]\n"
    made = exported(
        f"{everywhere}rules: [{{id: r, allow: any, from: any, to: namespace/team=red, side: ingress}}]", pods
    )
    assert sorted(made.manifests) == ["ops.yaml", "shop.yaml"]
    assert set(manifests(made)) == {"default-deny", "r"} and set(manifests(made, "ops.yaml")) == {"default-deny"}
    assert [str(note) for note in made.notes] == ["1 workloads are no pods, such as `c`: nothing is written for them"]
    assert "names no namespace, and no pod tells" in str(exported(everywhere).refusals[0])
    asked = "modes: [{where: 'namespace=shop,namespace/team=red', mode: enforce}]"
    assert "no pod tells whether namespace `shop` has the label `team`" in str(exported(asked).refusals[0])
    assert exported(asked, pods).manifests
    assert not exported("modes: [{where: '!namespace', mode: enforce}]", pods).manifests


def test_lifelines_are_rules_like_others_and_staged_rules_are_left_out() -> None:
    made = exported(
        f"{ENFORCED}{NETWORKS}"
        "lifelines: [{id: ssh, allow: tcp/22, from: network:office, to: any}]\n"
        "rules: [{id: later, allow: any, from: any, to: any, staged: true}]",
        fleet(a="namespace=shop"),
    )  # office holds no pod, so nothing is to be opened at its end
    assert set(manifests(made)) == {"default-deny", "ssh-ingress"}
    assert [str(note) for note in made.notes] == ["p.yaml:4:9: rule `later` is staged, so it is left out"]


def test_names_are_such_as_kubernetes_takes_and_each_is_there_once() -> None:
    ends = "allow: any, from: any, to: any"
    rules = f"rules: [{{id: My_Rule, {ends}, side: ingress}}, {{id: default-deny, {ends}, side: egress}}]"
    names = list(manifests(exported(ENFORCED + rules)))
    assert names[0] == "default-deny" and names[2] == "default-deny-2"
    assert names[1].startswith("my-rule-") and len(names[1]) == len("my-rule-") + 8


REFUSED = [
    ("{id: r, deny: any, from: any, to: any}", "a NetworkPolicy cannot say `deny`"),
    ("{id: r, wall: any, from: any, to: any}", "a NetworkPolicy cannot say `wall`"),
    ("{id: r, allow: any, from: any, to: any, same: app}", "a NetworkPolicy cannot ask that both ends share a label"),
    ("{id: r, allow: any, from: {workloads: app=a, as: {user: x}}, to: any}", "cannot ask for the local identity"),
    ("{id: r, allow: any, from: any, to: any, expires: 2030-01-01T00:00:00Z}", "cannot start or expire"),
    ("{id: r, allow: any, from: any, to: any, starts: 2030-01-01T00:00:00Z}", "cannot start or expire"),
    ("{id: r, allow: read, from: any, to: any}", "no point can look into http yet"),
    ("{id: r, allow: icmp/8, from: any, to: any}", "a NetworkPolicy cannot say `icmp`"),
    ("{id: r, allow: tcp/0-9, from: any, to: any}", "a NetworkPolicy cannot say `tcp/0`"),
    ("{id: r, allow: any, from: any, to: port/tcp.http=80, side: ingress}", "cannot ask for the number of a"),
    ("{id: r, allow: any, from: network:office, to: any}", "`network:office` may hold pods, which"),
    ("{id: r, allow: any, from: role=plc, to: any, side: ingress}", "`role=plc` also means `plc-7`, which is no pod"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "message"), REFUSED)
def test_what_a_network_policy_cannot_say_is_refused_with_its_place(rule: str, message: str) -> None:
    services = "services: {read: {ports: tcp/80, http: {methods: GET}}}\n"
    workloads = "workloads: {plc-7: {addresses: 10.9.0.1, labels: {role: plc}}}\n"
    made = exported(f"{ENFORCED}{NETWORKS}{services}{workloads}rules:\n  - {rule}")
    assert made.manifests == {}
    (error,) = made.refusals
    assert str(error).startswith("p.yaml:6:5: rule `r`: ") and message in str(error)


def test_a_network_that_holds_pods_cannot_be_the_end_that_a_policy_is_for() -> None:
    rule = "rules: [{id: r, allow: any, from: any, to: network:pods}]"
    (error,) = exported(f"{ENFORCED}{NETWORKS}{rule}", fleet(a="namespace=shop")).refusals
    assert "`network:pods` holds `a`, and pods cannot be selected by address" in str(error)
    one_sided = rule.replace("network:pods", "network:pods, side: egress")
    assert not exported(f"{ENFORCED}{NETWORKS}{one_sided}").refusals
