"""Manifests are read strictly where a slip would change what passes; what is refused has its place and its policy."""

from __future__ import annotations

import textwrap

import pytest

from cellwall.labels import Labels, parse_selector
from cellwall.traffic import TCP, UDP
from cellwall.translate.kubernetes.cluster import Cluster, NamedPort, read_cluster
from cellwall.translate.kubernetes.policy import Block, Peer, Ports

HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\n"


def read(text: str) -> Cluster:
    return read_cluster([("net.yaml", textwrap.dedent(text))])


def policy(spec: str) -> Cluster:
    return read(f"{HEAD}spec: {spec}\n")


def notes(cluster: Cluster) -> list[str]:
    return [str(note) for note in cluster.notes]


# --- what a policy says ---


def test_a_policy_is_read_with_its_peers_and_ports() -> None:
    cluster = policy(
        """
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from:
    - podSelector: {matchExpressions: [{key: app, operator: In, values: [b, a]}, {key: old, operator: DoesNotExist}]}
    - namespaceSelector: {matchLabels: {team: red}}
      podSelector:
    ports: [{port: 80}, {port: http, protocol: TCP}, {protocol: UDP, port: 1, endPort: 9}, {protocol: SCTP}]
"""
    )
    assert not cluster.refusals
    (web,) = cluster.policies
    assert str(web) == "shop/web" and web.pods == parse_selector("app=web") and web.egress is None
    assert web.ingress is not None
    (allowance,) = web.ingress
    assert allowance.peers == (
        Peer(parse_selector("app in (a,b),!old")),
        Peer(namespaces=parse_selector("team=red")),
    )
    assert allowance.ports == (Ports(TCP, 80, 80), Ports(TCP, name="http"), Ports(UDP, 1, 9), Ports(132))
    assert str(allowance.place) == "net.yaml:7:5"


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("{}", (), None),
        ("{podSelector: , ingress: , egress: []}", (), None),
        ("{policyTypes: [], egress: [{}]}", (), 1),
        ("{policyTypes: [Egress]}", None, ()),
        ("{policyTypes: [Ingress, Egress], ingress: [{}]}", 1, ()),
        ("{policyTypes: [Ingress], ingress: [{from: []}, {}], egress: [{}]}", 2, None),
    ],
)
def test_policy_types_are_what_is_written_or_follow_from_the_rules(spec: str, ingress: object, egress: object) -> None:
    (web,) = policy(spec).policies
    told = [rules and len(rules) for rules in (web.ingress, web.egress)]
    assert told == [ingress, egress]


def test_rules_that_do_nothing_and_policies_for_every_pod_are_noted() -> None:
    assert notes(policy("{podSelector: {matchLabels: }, policyTypes: [Ingress], ingress: [{}], egress: [{}]}")) == [
        "net.yaml:4:86: NetworkPolicy `shop/web`: a rule for a direction that `policyTypes` leaves out does nothing",
        "net.yaml:1:1: NetworkPolicy `shop/web` selects every pod of `shop`",
    ]
    assert notes(policy("{podSelector: {}}")) == []  # a plain default deny


@pytest.mark.parametrize(
    ("block", "prefixes"),
    [
        ("{cidr: 10.1.2.3/8}", ["10.0.0.0/8"]),
        ("{cidr: 10.0.0.0/30, except: [10.0.0.1/32, 10.0.0.0/31]}", ["10.0.0.2/31"]),
        ("{cidr: 10.0.0.0/30, except: [10.0.0.0/31, 10.0.0.2/31]}", []),
        ("{cidr: '2001:db8::/32', except: ['2001:db8::/33']}", ["2001:db8:8000::/33"]),
    ],
)
def test_a_block_is_its_prefix_without_what_it_excepts(block: str, prefixes: list[str]) -> None:
    (web,) = policy(f"{{ingress: [{{from: [{{ipBlock: {block}}}]}}]}}").policies
    assert web.ingress is not None
    found = web.ingress[0].peers[0].block
    assert isinstance(found, Block)
    assert [str(prefix) for prefix in found.prefixes] == prefixes


# --- what is refused ---

# The mark ▸ stands where the error must point.
REFUSED = [
    ("{▸podSelecter: {}}", "unknown key `podSelecter`; did you mean `podSelector`?"),
    ("{podSelector: {▸app: web}}", "unknown key `app`; known are `matchLabels`, `matchExpressions`"),
    ("{podSelector: {matchLabels: {a: ▸b c}}}", "`b c` is not a label value"),
    ("{podSelector: {matchExpressions: [▸{key: a}]}}", "`operator` is missing"),
    ("{podSelector: {matchExpressions: [{key: a, operator: ▸Inn}]}}", "`Inn` is not one of"),
    ("{podSelector: {matchExpressions: [▸{key: a, operator: In}]}}", "`In` and `NotIn` want `values`"),
    ("{podSelector: {matchExpressions: [▸{key: a, operator: Exists, values: [b]}]}}", "`In` and `NotIn` want"),
    (f"{{podSelector: {{matchLabels: {{▸{'a.' * 124}abcd/b: c}}}}}}", f"`namespace.{'a.' * 124}abcd/b` is not a label"),
    ("{policyTypes: [▸ingress]}", "`ingress` is not one of `Ingress`, `Egress`; did you mean `Ingress`?"),
    ("{ingress: [{▸to: []}]}", "unknown key `to`"),
    ("{ingress: ▸{}}", "wanted a list, found a mapping"),
    ("{ingress: [{from: [▸{}]}]}", "a peer is empty"),
    ("{ingress: [{from: [▸{podSelector: }]}]}", "a peer is empty"),
    ("{ingress: [{from: [▸{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}", "`ipBlock` cannot stand beside"),
    ("{ingress: [{from: [{ipBlock: ▸{}}]}]}", "`cidr` is missing"),
    ("{ingress: [{from: [{ipBlock: {cidr: ▸10.0.0.0}}]}]}", "`10.0.0.0` is not a CIDR; wanted a prefix such as"),
    ("{ingress: [{from: [{ipBlock: {cidr: ▸10.0.0.0/33}}]}]}", "`10.0.0.0/33` is not a CIDR"),
    ("{ingress: [{from: [{ipBlock: {cidr: ▸10.0.0/8}}]}]}", "`10.0.0` is not an IPv4 or IPv6 address"),
    ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [▸11.0.0.0/9]}}]}]}", "`11.0.0.0/9` is not a part of"),
    ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [▸10.0.0.0/8]}}]}]}", "`10.0.0.0/8` is not a part of"),
    ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [▸'::/9']}}]}]}", "`::/9` is not a part of"),
    ("{ingress: [{ports: [{protocol: ▸ICMP}]}]}", "`ICMP` is not one of `TCP`, `UDP`, `SCTP`"),
    ("{ingress: [{ports: [{port: ▸0}]}]}", "`0` is not a port number, 1 to 65535"),
    ("{ingress: [{ports: [{port: ▸65536}]}]}", "`65536` is not a port number, 1 to 65535"),
    ("{ingress: [{ports: [{port: ▸'80'}]}]}", "`80` is not a port: a number, or a name"),
    ("{ingress: [{ports: [{port: ▸0x50}]}]}", "`0x50` is not a port: a number, or a name"),
    ("{ingress: [{ports: [{port: ▸Http}]}]}", "`Http` is not a port: a number, or a name"),
    ("{ingress: [{ports: [{endPort: ▸90}]}]}", "`endPort` without `port`"),
    ("{ingress: [{ports: [{port: http, endPort: ▸90}]}]}", "`endPort` beside a port that is given by name"),
    ("{ingress: [{ports: [{port: 90, endPort: ▸80}]}]}", "the range of ports runs backwards: 90 to 80"),
    ("{egress: [{ports: [{port: ▸[80]}]}]}", "wanted a text, found a list"),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED)
def test_a_slip_in_a_policy_is_refused_with_its_place_and_its_policy(spec: str, message: str) -> None:
    column = len("spec: ") + spec.index("▸") + 1
    cluster = policy(spec.replace("▸", ""))
    assert not cluster.policies
    (error,) = cluster.refusals
    assert str(error).startswith(f"net.yaml:4:{column}: NetworkPolicy `shop/web`: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: NetworkPolicy\nmetadata: {name: a}", "1:1: `NetworkPolicy` `a` of `` is not read; wanted"),
        (
            "kind: CiliumNetworkPolicy\napiVersion: cilium.io/v2\nmetadata: {name: l7}",
            "1:1: `CiliumNetworkPolicy` `l7` of `cilium.io/v2` is not read; wanted `NetworkPolicy` of",
        ),
        ("kind: AdminNetworkPolicy\napiVersion: policy.networking.k8s.io/v1alpha1", "1:1: `AdminNetworkPolicy` `` of"),
        (f"{HEAD}specs: {{}}", "4:1: unknown key `specs`; did you mean `spec`?"),
        (HEAD, "1:1: NetworkPolicy `shop/web`: `spec` is missing"),
        (HEAD.replace("namespace", "namspace"), "3:23: unknown key `namspace`; did you mean `namespace`?"),
        (HEAD.replace("name: web, ", ""), "1:1: `name` is missing"),
        (HEAD.replace("web", "Web"), "3:18: `Web` cannot name a NetworkPolicy"),
        (f"{HEAD}spec: {{}}\n---\n{HEAD}spec: {{policyTypes: [Egress]}}", "6:1: NetworkPolicy `shop/web` is there"),
        ("kind: Namespace\nmetadata: {name: a}\n---\nkind: Namespace\nmetadata: {name: a, labels: {b: c}}",
         "4:1: namespace `a` is there twice with other labels, first at net.yaml:1:1"),
        ("kind: Pod\nmetadata: {name: a}", "1:1: `spec` is missing"),
        ("kind: Pod\nmetadata: {name: a}\nspec: {}\n---\nkind: Pod\nmetadata: {name: a, labels: {b: c}}\nspec: {}",
         "5:1: `default/a` is there twice and not the same, first at net.yaml:1:1"),
        (f"kind: Pod\nmetadata: {{namespace: n, name: {'a' * 252}}}\nspec: {{}}", "2:32: `n.aaaa"),
        ("kind: Pod\nmetadata: {name: a}\nspec: {containers: [{ports: [{name: x, containerPort: 0}]}]}", "3:55: `0`"),
        ("kind: Pod\nmetadata: {name: a}\nspec: {}\nstatus: {podIP: x}", "4:17: `x` is not an IPv4 or IPv6 address"),
        ("kind: Pod\nmetadata: {name: a, labels: {x y: z}}\nspec: {}", "2:30: `x y` is not a label key"),
        ("{{ if .Values.x }}", "1:"),
        ("a: &x b", "1:4: anchors and aliases are not read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_place(text: str, message: str) -> None:
    (error,) = read(text).refusals
    assert str(error).startswith(f"net.yaml:{message}")


def test_one_refusal_does_not_hide_the_others() -> None:
    cluster = read(f"{HEAD}\n---\nkind: Pod\n---\n{HEAD.replace('web', 'db')}spec: {{}}")
    assert [error.place.line for error in cluster.refusals] == [1, 6]
    assert [str(one) for one in cluster.policies] == ["shop/db"]


# --- namespaces, pods, and the rest ---


def test_pods_are_read_with_their_labels_addresses_and_named_ports() -> None:
    cluster = read(
        """
        kind: Pod
        metadata: {name: web-1, namespace: shop, labels: {app: web}}
        spec:
          containers:
          - ports: [{name: http, containerPort: 80}, {containerPort: 9}, {name: dns, containerPort: 53, protocol: UDP}]
          - {}
          initContainers:
          - {restartPolicy: Always, ports: [{name: proxy, containerPort: 1}]}
          - {ports: [{name: once, containerPort: 2}]}
        status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
        """
    )
    (pod,) = cluster.pods
    assert (pod.namespace, pod.name, pod.labels, pod.template) == ("shop", "web-1", Labels({"app": "web"}), False)
    assert [str(address) for address in pod.addresses] == ["10.0.0.1", "fd00::1"]
    assert pod.ports == {NamedPort("http", TCP, 80), NamedPort("dns", UDP, 53), NamedPort("proxy", TCP, 1)}
    assert cluster.namespaces == (("shop", Labels()),)


@pytest.mark.parametrize(
    "spec",
    ["template: {T}", "selector: {}\n  template: {T}", "jobTemplate: {spec: {template: {T}}}"],
)
def test_templates_of_pods_are_read_like_pods(spec: str) -> None:
    kind = "CronJob" if "jobTemplate" in spec else "Deployment"
    template = "{metadata: {labels: {app: web}}, spec: {containers: []}}"
    (pod,) = read(f"kind: {kind}\nmetadata: {{name: web}}\nspec:\n  {spec.replace('{T}', template)}").pods
    assert (pod.template, pod.namespace, pod.labels) == (True, "default", Labels({"app": "web"}))


def test_what_makes_pods_without_a_template_makes_none() -> None:
    cluster = read("kind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}")
    assert (cluster.pods, cluster.refusals) == ((), ())


def test_a_template_gives_way_to_its_pods_and_to_its_owner() -> None:
    template = "spec: {template: {metadata: {labels: {app: web}}, spec: {}}}"
    deployment = f"kind: Deployment\nmetadata: {{name: web}}\n{template}"
    owned = f"kind: ReplicaSet\nmetadata: {{name: web-1, ownerReferences: [{{kind: Deployment}}]}}\n{template}"
    pod = "kind: Pod\nmetadata: {name: web-1-x, labels: {app: web, hash: x}}\nspec: {}"
    other = "kind: Pod\nmetadata: {name: web-1-x, namespace: other, labels: {app: web}}\nspec: {}"
    assert [one.name for one in read(f"{deployment}\n---\n{owned}").pods] == ["web"]
    assert [one.name for one in read(f"{deployment}\n---\n{owned}\n---\n{other}").pods] == ["web", "web-1-x"]
    assert [one.name for one in read(f"{deployment}\n---\n{pod}").pods] == ["web-1-x"]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_left_out(phase: str) -> None:
    assert not read(f"kind: Pod\nmetadata: {{name: a}}\nspec: {{}}\nstatus: {{phase: {phase}}}").pods


def test_a_pod_on_its_nodes_network_is_left_out_and_noted() -> None:
    cluster = read("kind: Pod\nmetadata: {name: a, namespace: n}\nspec: {hostNetwork: true}")
    assert not cluster.pods
    assert notes(cluster) == ["net.yaml:1:1: `n/a` uses its node's network: no policy reaches it"]


def test_a_namespace_is_read_with_its_labels_but_for_the_one_that_is_its_name() -> None:
    text = "kind: Namespace\nmetadata: {name: a, labels: {kubernetes.io/metadata.name: a, team: red}}"
    assert read(text).namespaces == (("a", Labels({"team": "red"})),)
    assert read("kind: Namespace\nmetadata: {name: a}").namespaces == (("a", Labels()),)


def test_an_isolation_that_is_written_as_an_annotation_is_noted() -> None:
    text = "kind: Namespace\nmetadata: {name: a, annotations: {net.beta.kubernetes.io/network-policy: '{}'}}"
    assert notes(read(text)) == [
        "net.yaml:2:35: `net.beta.kubernetes.io/network-policy` isolates nothing since Kubernetes 1.7"
    ]
    assert notes(read("kind: Namespace\nmetadata: {name: a, annotations: {other: x}}")) == []


def test_lists_are_read_item_by_item_whatever_their_kind() -> None:
    items = "items:\n- metadata: {name: a, namespace: n}\n  spec: {}\n"
    whole = read(f"kind: NetworkPolicyList\napiVersion: networking.k8s.io/v1\n{items}")
    assert [str(one) for one in whole.policies] == ["n/a"]
    item = "- {kind: NetworkPolicy, apiVersion: networking.k8s.io/v1, metadata: {name: a, namespace: n}, spec: {}}"
    assert [str(one) for one in read(f"kind: List\napiVersion: v1\nitems:\n{item}").policies] == ["n/a"]


def test_the_same_manifest_twice_is_one() -> None:
    text = f"{HEAD}spec: {{}}\n---\nkind: Pod\nmetadata: {{name: a, namespace: n}}\nspec: {{}}"
    cluster = read_cluster([("b.yaml", text), ("a.yaml", text)])
    assert (len(cluster.policies), len(cluster.pods), cluster.refusals) == (1, 1, ())


def test_all_that_is_not_looked_at_is_noted() -> None:
    text = "kind: Service\nmetadata: {}\n---\nkind: Service\n---\nkind: ConfigMap\n---\nreplicas: 3\n---\n- a\n---\n"
    assert notes(read(text)) == ["not looked at: ConfigMap (1), Service (2), documents without a kind (2)"]


def test_manifests_without_a_namespace_are_of_the_default_one_and_that_is_noted() -> None:
    cluster = read(
        f"{HEAD.replace(', namespace: shop', '')}spec: {{}}\n---\nkind: Pod\nmetadata: {{name: a}}\nspec: {{}}"
    )
    assert [str(one) for one in cluster.policies] == ["default/web"]
    assert notes(cluster) == ["net.yaml:1:1: 2 manifests name no namespace; they are read as of `default`"]
