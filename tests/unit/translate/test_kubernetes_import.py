"""A cluster becomes documents that a person can read, and a fleet; what cannot be said leaves no document."""

from __future__ import annotations

import textwrap
from typing import Any, cast

import pytest
import yaml

from cellwall.labels import parse_selector
from cellwall.policy import parse_policy
from cellwall.translate.kubernetes import labels as kubernetes_labels
from cellwall.translate.kubernetes.documents import Imported, import_kubernetes, inventory
from cellwall.translate.kubernetes.labels import TooManyError, complement

HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\n"


def imported(*texts: str) -> Imported:
    return import_kubernetes([("net.yaml", "\n---\n".join(map(textwrap.dedent, texts)))])


def pod(name: str, labels: str = "{}", ports: str = "[]", namespace: str = "shop", address: str = "10.0.0.1") -> str:
    return (
        f"kind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}\n"
        f"spec: {{containers: [{{ports: {ports}}}]}}\nstatus: {{podIP: {address}}}"
    )


def rules(found: Imported, document: str = "shop.yaml") -> dict[str, dict[str, Any]]:
    assert not found.refusals, found.refusals
    parse_policy(found.documents.items())
    written = cast("list[dict[str, Any]]", yaml.safe_load(found.documents[document])["rules"])
    return {one["id"]: {key: one[key] for key in ("allow", "from", "to", "side")} for one in written}


def refusal(found: Imported) -> str:
    assert not found.documents
    (error,) = found.refusals
    return str(error)


def test_a_document_reads_like_its_policies() -> None:
    found = imported(
        f"""{HEAD}spec:
  podSelector: {{matchLabels: {{app: web}}}}
  ingress:
  - from: [{{podSelector: {{matchLabels: {{app: api}}}}}}, {{ipBlock: {{cidr: 10.0.0.0/8, except: [10.128.0.0/9]}}}}]
    ports: [{{port: 80}}, {{protocol: UDP, port: 5000, endPort: 5010}}]
"""
    )
    assert found.documents == {
        "shop.yaml": textwrap.dedent(
            """\
            # Kubernetes namespace `shop`, from its NetworkPolicies:
            #   web (net.yaml:1:1): shuts `app=web` for ingress but for its rules
            networks:
              shop.10.0.0.0-8-but-10.128.0.0-9:
              - 10.0.0.0/9
            rules:
            - id: shop.web.ingress-1
              allow:
              - tcp/80
              - udp/5000-5010
              from:
              - namespace=shop,app=api
              - network:shop.10.0.0.0-8-but-10.128.0.0-9
              to: namespace=shop,app=web
              side: ingress
              reason: NetworkPolicy shop/web (net.yaml:7)
            - id: shop.open-ingress
              allow: any
              from: any
              to: namespace=shop,app!=web
              side: ingress
              reason: no NetworkPolicy isolates them for ingress
            - id: shop.open-egress
              allow: any
              from: namespace=shop
              to: any
              side: egress
              reason: no NetworkPolicy isolates them for egress
            modes:
            - where: namespace=shop
              mode: enforce
            """
        )
    }
    parse_policy(found.documents.items())


def test_a_namespace_that_is_shut_altogether_has_a_mode_and_no_rule() -> None:
    found = imported(f"{HEAD}spec: {{podSelector: {{}}, policyTypes: [Ingress, Egress]}}")
    assert yaml.safe_load(found.documents["shop.yaml"]) == {"modes": [{"where": "namespace=shop", "mode": "enforce"}]}
    assert "shuts every pod for ingress and egress" in found.documents["shop.yaml"]


def test_a_namespace_without_policies_is_open_both_ways() -> None:
    found = imported("kind: Namespace\nmetadata: {name: ops}")
    assert rules(found, "ops.yaml") == {
        "ops.open-ingress": {"allow": "any", "from": "any", "to": "namespace=ops", "side": "ingress"},
        "ops.open-egress": {"allow": "any", "from": "namespace=ops", "to": "any", "side": "egress"},
    }
    assert "there are none" in found.documents["ops.yaml"]


@pytest.mark.parametrize(
    ("peer", "who"),
    [
        ("podSelector: {}", "namespace=shop"),
        ("namespaceSelector: {}", "namespace"),
        ("namespaceSelector: {}, podSelector: {matchLabels: {app: a}}", "namespace,app=a"),
        ("namespaceSelector: {matchLabels: {team: red}}", "namespace/team=red"),
        ("namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}", "namespace=ops"),
        (
            "namespaceSelector: {matchExpressions: [{key: x.io/team, operator: DoesNotExist}]}",
            "namespace,!namespace.x.io/team",
        ),
        ("podSelector: {matchLabels: {namespace: odd}}", "namespace=shop,pod/namespace=odd"),
        ("podSelector: {matchLabels: {port/x: odd, pod.a/b: c}}", "namespace=shop,pod.pod.a/b=c,pod.port/x=odd"),
        ("podSelector: {matchLabels: {empty: ''}}", "namespace=shop,empty="),
    ],
)
def test_a_peer_is_a_selector_over_pod_and_namespace(peer: str, who: str) -> None:
    found = imported(f"{HEAD}spec: {{egress: [{{to: [{{{peer}}}]}}]}}")
    assert rules(found)["shop.web.egress-1"] == {"allow": "any", "from": "namespace=shop", "to": who, "side": "egress"}


def test_what_no_policy_isolates_is_left_out_of_all_their_selectors() -> None:
    other = HEAD.replace("web", "db")
    found = imported(
        f"{HEAD}spec: {{podSelector: {{matchLabels: {{app: web, tier: x}}}}}}",
        f"{other}spec: {{podSelector: {{matchLabels: {{app: db}}}}}}",
    )
    assert rules(found)["shop.open-ingress"]["to"] == [
        "namespace=shop,app=web,tier!=x",
        "namespace=shop,app notin (db,web)",
    ]


@pytest.mark.parametrize(
    ("selectors", "left"),
    [
        ([], [""]),
        (["app=a", ""], []),
        (["app"], ["!app"]),
        (["!app"], ["app"]),
        (["app!=a"], ["app=a"]),
        (["!app", "app=a"], ["app,app!=a"]),
        (["app notin (a,b)"], ["app in (a,b)"]),
        (["app", "!app"], []),
        (["app=a,!x", "app,app!=a,x", "!app,x"], ["app=a,x", "app!=a,!x"]),
        (["app,app!=a,!x"], ["app,app!=a,x", "app=a", "!app"]),
    ],
)
def test_what_selectors_leave_out_is_said_by_key_and_value(selectors: list[str], left: list[str]) -> None:
    assert set(complement(map(parse_selector, selectors))) == set(map(parse_selector, left))


def test_more_selectors_than_anyone_would_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_labels, "MOST_ALTERNATIVES", 1)
    selectors = [parse_selector("app=web,tier=x"), parse_selector("app=db,tier=y")]
    with pytest.raises(TooManyError, match=r"^it would take more than 1 selectors$"):
        complement(selectors)
    policies = [
        f"{HEAD.replace('web', name)}spec: {{podSelector: {{matchLabels: {{app: {name}, tier: {tier}}}}}}}"
        for name, tier in (("web", "x"), ("db", "y"))
    ]
    assert refusal(imported(*policies)) == (
        "net.yaml:6:1: the pods of `shop` that no NetworkPolicy isolates for ingress cannot be said: "
        "it would take more than 1 selectors"
    )


# --- named ports ---

HTTP80, HTTP81 = "[{name: http, containerPort: 80}]", "[{name: http, containerPort: 81}]"
INGRESS = (
    f"{HEAD}spec: {{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: [{{port: http}}, {{port: 9}}]}}]}}"
)
EGRESS = f"{HEAD}spec: {{egress: [{{to: [{{podSelector: {{matchLabels: {{app: web}}}}}}], ports: [{{port: http}}]}}]}}"


def test_a_named_port_that_is_the_same_everywhere_is_its_number() -> None:
    found = imported(INGRESS, pod("a", "{app: web}", HTTP80), pod("b", "{app: web}", HTTP80), pod("c", "{app: db}"))
    assert rules(found)["shop.web.ingress-1"]["allow"] == ["tcp/9", "tcp/80"]
    assert [str(note) for note in found.notes if "named" in note.text] == [
        "net.yaml:4:58: the named port `http` is tcp/80 at the 2 pods that were read"
    ]
    found = imported(EGRESS, pod("a", "{app: web}", HTTP80))
    assert rules(found)["shop.web.egress-1"] == {
        "allow": "tcp/80",
        "from": "namespace=shop",
        "to": "namespace=shop,app=web",
        "side": "egress",
    }


def test_a_named_port_that_differs_is_a_rule_for_each_number_and_a_label_of_the_pods() -> None:
    pods = [pod("a", "{app: web}", HTTP80), pod("b", "{app: web}", HTTP81), pod("c", "{app: web}")]
    found = imported(INGRESS, *pods)
    made = rules(found)
    assert made["shop.web.ingress-1"]["allow"] == "tcp/9"
    for port in ("80", "81"):
        assert made[f"shop.web.ingress-1.http-tcp-{port}"] == {
            "allow": f"tcp/{port}",
            "from": "any",
            "to": f"namespace=shop,app=web,port/tcp.http={port}",
            "side": "ingress",
        }
    assert [one.labels.get("port/tcp.http") for one in found.workloads] == ["80", "81", None]
    made = rules(imported(EGRESS, *pods))
    assert made["shop.web.egress-1.http-tcp-81"]["to"] == "namespace=shop,app=web,port/tcp.http=81"
    assert "shop.web.egress-1" not in made


def test_a_named_port_toward_anyone_means_the_pods_that_have_it() -> None:
    policy = f"{HEAD}spec: {{egress: [{{ports: [{{port: http}}]}}]}}"
    made = rules(imported(policy, pod("a", "{}", HTTP80), pod("b", "{}", HTTP80, namespace="ops")))
    assert made["shop.web.egress-1.http-tcp-80"]["to"] == "namespace"
    made = rules(imported(policy, pod("a", "{}", HTTP80), pod("b", namespace="ops")))
    assert made["shop.web.egress-1.http-tcp-80"]["to"] == "namespace,port/tcp.http=80"


def test_a_named_port_in_other_namespaces_is_that_of_their_pods() -> None:
    peer = "{namespaceSelector: {matchLabels: {team: red}}}"
    found = imported(
        f"{HEAD}spec: {{egress: [{{to: [{peer}], ports: [{{port: http}}, {{protocol: SCTP}}]}}]}}",
        "kind: Namespace\nmetadata: {name: ops, labels: {team: red}}",
        pod("a", "{}", HTTP80),
        pod("b", "{}", HTTP81, namespace="ops"),
    )
    assert rules(found)["shop.web.egress-1"]["allow"] == ["sctp", "tcp/81"]


def test_a_named_port_that_no_pod_has_allows_nothing() -> None:
    found = imported(INGRESS.replace(", {port: 9}", ""), pod("a", "{app: web}"))
    assert set(rules(found)) == {"shop.open-ingress", "shop.open-egress"}
    assert "is nothing, no pod has it at the pod that was" in str(found.notes[0])


def test_a_named_port_that_cannot_be_known_is_refused() -> None:
    place = "net.yaml:4:58: NetworkPolicy `shop/web`:"
    assert refusal(imported(INGRESS)) == (
        f"{place} the named port `http` is that of pods that no manifest shows; add the pods' manifests"
    )
    twice = "[{name: http, containerPort: 80}, {name: http, containerPort: 81}]"
    assert refusal(imported(INGRESS, pod("a", "{app: web}", twice))) == f"{place} `shop/a` has two ports named `http`"
    block = f"{HEAD}spec: {{egress: [{{to: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}], ports: [{{port: http}}]}}]}}"
    assert "the named port `http` toward an `ipBlock`: addresses have no port names" in refusal(imported(block))


# --- ids, networks, the fleet ---


def test_long_names_are_cut_with_a_digest() -> None:
    long = HEAD.replace("web", "w" * 80)
    made = rules(imported(f"{long}spec: {{ingress: [{{}}, {{}}]}}"))
    ids = [one for one in made if "open" not in one]
    assert len(set(ids)) == 2 and all(len(one) <= 63 and one.startswith("shop.wwww") for one in ids)


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ("{cidr: 10.0.0.0/8}", "shop.10.0.0.0-8"),
        ("{cidr: '2001:db8::/32'}", "shop.2001-db8---32"),
        ("{cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}", "shop.10.0.0.0-8-but-2-"),
    ],
)
def test_a_block_is_a_network_of_its_document(block: str, name: str) -> None:
    found = imported(f"{HEAD}spec: {{ingress: [{{from: [{{ipBlock: {block}}}, {{ipBlock: {block}}}]}}]}}")
    (policy,) = [parse_policy(found.documents.items())]
    assert [book.name.startswith(name) for book in policy.networks] == [True]
    assert rules(found)["shop.web.ingress-1"]["from"] == f"network:{policy.networks[0].name}"


def test_a_block_of_which_all_is_excepted_is_nobody() -> None:
    empty = "{ipBlock: {cidr: 10.0.0.0/30, except: [10.0.0.0/31, 10.0.0.2/31]}}"
    found = imported(f"{HEAD}spec: {{ingress: [{{from: [{empty}]}}, {{from: [{empty}, {{podSelector: {{}}}}]}}]}}")
    made = rules(found)
    assert "shop.web.ingress-1" not in made
    assert made["shop.web.ingress-2"]["from"] == "namespace=shop"


def test_pods_are_workloads_with_the_labels_of_their_namespace() -> None:
    found = imported(
        "kind: Namespace\nmetadata: {name: shop, labels: {team: red, kubernetes.io/metadata.name: shop}}",
        pod("web-1", "{app: web, namespace: odd}"),
        "kind: Deployment\nmetadata: {name: db, namespace: shop}\nspec: {template: {spec: {}}}",
    )
    assert inventory(found.workloads) == {
        "items": [
            {"name": "shop.db", "labels": {"namespace/team": "red", "namespace": "shop"}, "addresses": [],
             "agent": True, "epoch": 0.0},
            {"name": "shop.web-1", "labels": {"app": "web", "pod/namespace": "odd", "namespace/team": "red",
             "namespace": "shop"}, "addresses": ["10.0.0.1"], "agent": True, "epoch": 0.0},
        ]
    }  # fmt: skip
    assert "1 of 2 pods have no address here: no pod of theirs runs" in [str(note) for note in found.notes]


def test_one_refused_manifest_leaves_no_document() -> None:
    found = imported(f"{HEAD}spec: {{}}", "kind: CiliumNetworkPolicy\napiVersion: cilium.io/v2")
    assert found.documents == {} and len(found.refusals) == 1
