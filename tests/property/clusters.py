"""Random Kubernetes clusters, small enough to collide often, and NetworkPolicy's meaning in its own words.

`passes` is the dumb twin of import and export: it reads manifests as the API reference describes them, pod by pod, and
knows nothing of documents, labels of workloads or points."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

NAMESPACES: dict[str, Json] = {
    "shop": {"team": "red", "kubernetes.io/metadata.name": "shop"},
    "blog": {"team": "blue", "stage.example.com/env": "prod"},
    "ops": {},
}
POD_LABELS = {"app": ["a", "b"], "tier": ["x", "y"], "namespace": ["shop", "odd"], "pod.example.com/team": ["red", ""]}
NAMESPACE_LABELS = {
    "team": ["red", "blue"],
    "stage.example.com/env": ["prod"],
    "kubernetes.io/metadata.name": ["shop", "blog"],
}
NAMED = [("http", "TCP", 80), ("http", "TCP", 8080), ("dns", "UDP", 53), ("http", "UDP", 80)]
BLOCKS: list[Json] = [
    {"cidr": "10.0.0.0/8"},
    {"cidr": "10.0.0.0/24", "except": ["10.0.0.2/31"]},
    {"cidr": "10.0.0.7/29", "except": ["10.0.0.1/32", "10.0.0.4/31"]},
    {"cidr": "10.0.0.0/30", "except": ["10.0.0.0/31", "10.0.0.2/31"]},
    {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/30", "10.0.0.4/32", "192.0.2.0/24"]},
]
PORTS: list[Json] = [
    {"port": 80},
    {"protocol": "TCP", "port": 80, "endPort": 8080},
    {"protocol": "UDP"},
    {"protocol": "SCTP", "port": 80},
    {"protocol": "TCP", "port": "http"},
    {"protocol": "UDP", "port": "dns"},
    {"port": "http"},
]
PROBED = [("TCP", 80), ("TCP", 443), ("TCP", 8080), ("UDP", 53), ("UDP", 80), ("SCTP", 80)]


@dataclass(frozen=True)
class Cluster:
    """Manifests: namespaces, pods and policies."""

    namespaces: dict[str, Json]
    pods: list[Json]
    policies: list[Json]

    def manifests(self, policies: list[Json] | None = None) -> list[tuple[str, str]]:
        """Write them as files; with `policies` in place of its own."""
        spaces = [_named("Namespace", name, labels=labels) for name, labels in self.namespaces.items()]
        found = self.policies if policies is None else policies
        return [
            ("cluster.yaml", "\n---\n".join(map(json.dumps, [*spaces, *self.pods]))),
            ("policies.yaml", json.dumps({"kind": "List", "items": found})),
        ]

    @property
    def named(self) -> bool:
        """Whether some rule names a port."""
        return '"port": "' in json.dumps(self.policies)


def _named(kind: str, name: str, version: str = "v1", **metadata: object) -> Json:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **metadata}}


def _selectors(known: dict[str, list[str]]) -> st.SearchStrategy[Json]:
    def expression(key: str) -> st.SearchStrategy[Json]:
        values = st.lists(st.sampled_from(known[key]), min_size=1, max_size=2, unique=True)
        listed = st.tuples(st.sampled_from(["In", "NotIn"]), values)
        return st.one_of(
            listed.map(lambda told: {"key": key, "operator": told[0], "values": told[1]}),
            st.sampled_from(["Exists", "DoesNotExist"]).map(lambda word: {"key": key, "operator": word}),
        )

    keys = st.sampled_from(sorted(known))
    labels = st.dictionaries(keys, st.just(0), max_size=2).flatmap(
        lambda chosen: st.fixed_dictionaries({key: st.sampled_from(known[key]) for key in chosen})
    )
    expressions = st.lists(keys.flatmap(expression), max_size=2)
    return st.one_of(
        st.builds(Json),
        labels.map(lambda told: {"matchLabels": told}),
        expressions.map(lambda told: {"matchExpressions": told}),
        st.tuples(labels, expressions).map(lambda told: {"matchLabels": told[0], "matchExpressions": told[1]}),
    )


def _peers() -> st.SearchStrategy[Json]:
    pods, spaces = _selectors(POD_LABELS), _selectors(NAMESPACE_LABELS)
    return st.one_of(
        pods.map(lambda told: {"podSelector": told}),
        spaces.map(lambda told: {"namespaceSelector": told}),
        st.tuples(pods, spaces).map(lambda told: {"podSelector": told[0], "namespaceSelector": told[1]}),
        st.sampled_from(BLOCKS).map(lambda told: {"ipBlock": told}),
    )


@st.composite
def _rules(draw: st.DrawFn, peers_word: str) -> Json:
    peers = draw(st.lists(_peers(), max_size=2))
    ports = draw(st.lists(st.sampled_from(PORTS), max_size=2))
    if peers_word == "to" and any("ipBlock" in peer for peer in peers):
        ports = [port for port in ports if not isinstance(port.get("port"), str)] or [{"port": 443}]
    return {**({peers_word: peers} if peers else {}), **({"ports": ports} if ports else {})}


@st.composite
def _policies(draw: st.DrawFn, name: str) -> Json:
    spec: Json = {"podSelector": draw(_selectors(POD_LABELS))}
    for word, peers_word in (("ingress", "from"), ("egress", "to")):
        if draw(st.booleans()):
            spec[word] = draw(st.lists(_rules(peers_word), max_size=2))
    if draw(st.booleans()):
        spec["policyTypes"] = draw(
            st.lists(st.sampled_from(["Ingress", "Egress"]), min_size=1, max_size=2, unique=True)
        )
    namespace = draw(st.sampled_from(sorted(NAMESPACES)))
    made = _named("NetworkPolicy", name, "networking.k8s.io/v1", namespace=namespace)
    return {**made, "spec": spec}


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Two to six pods in three namespaces, and up to four policies."""
    pods: list[Json] = []
    for index in range(1, 1 + draw(st.integers(2, 6))):
        labels = {key: draw(st.sampled_from(values)) for key, values in POD_LABELS.items() if draw(st.booleans())}
        made = _named("Pod", f"p{index}", namespace=draw(st.sampled_from(sorted(NAMESPACES))), labels=labels)
        ports = draw(st.lists(st.sampled_from(NAMED), max_size=2, unique_by=lambda port: port[:2]))
        listed = [{"name": name, "protocol": protocol, "containerPort": port} for name, protocol, port in ports]
        spec, status = {"containers": [{"name": "c", "ports": listed}]}, {"podIP": f"10.0.0.{index}"}
        pods.append({**made, "spec": spec, "status": status})
    policies = [draw(_policies(f"policy-{index}")) for index in range(draw(st.integers(0, 4)))]
    return Cluster(NAMESPACES, pods, policies)


# --- the twin ---


def passes(
    cluster: Cluster, policies: list[Json], side: str, source: Json, target: Json, protocol: str, port: int
) -> bool:
    """Say what `side` ("ingress" or "egress") says to a connection between two pods."""
    own, peer = (target, source) if side == "ingress" else (source, target)
    isolated = False
    for policy in policies:
        spec = policy["spec"]
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        if side.capitalize() not in types or policy["metadata"]["namespace"] != own["metadata"]["namespace"]:
            continue
        if not _selects(spec.get("podSelector") or {}, own["metadata"].get("labels") or {}):
            continue
        isolated = True
        for rule in spec.get(side) or ():
            peers = rule.get("from" if side == "ingress" else "to") or ()
            if peers and not any(_holds(cluster, one, policy, peer) for one in peers):
                continue
            ports = rule.get("ports") or ()
            if not ports or any(_names(one, target, protocol, port) for one in ports):
                return True
    return not isolated


def _selects(selector: Json, labels: Json) -> bool:
    wanted: Json = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for one in selector.get("matchExpressions") or ():
        value: Any = labels.get(one["key"])
        values: list[str] = one.get("values") or []
        if not {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[one["operator"]]:
            return False
    return True


def _holds(cluster: Cluster, peer: Json, policy: Json, pod: Json) -> bool:
    if block := peer.get("ipBlock"):
        address = ip_address(pod["status"]["podIP"])
        holes = [ip_network(hole, strict=False) for hole in block.get("except") or ()]
        return address in ip_network(block["cidr"], strict=False) and not any(address in hole for hole in holes)
    namespace = pod["metadata"]["namespace"]
    spaces = peer.get("namespaceSelector")
    if spaces is None:
        if namespace != policy["metadata"]["namespace"]:
            return False
    elif not _selects(spaces, {**cluster.namespaces[namespace], "kubernetes.io/metadata.name": namespace}):
        return False
    return _selects(peer.get("podSelector") or {}, pod["metadata"].get("labels") or {})


def _names(asked: Json, pod: Json, protocol: str, port: int) -> bool:
    if (asked.get("protocol") or "TCP") != protocol:
        return False
    wanted = asked.get("port")
    if isinstance(wanted, str):
        return any(
            (one["name"], one["protocol"], one["containerPort"]) == (wanted, protocol, port)
            for container in pod["spec"]["containers"]
            for one in container["ports"]
        )
    return wanted is None or wanted <= port <= asked.get("endPort", wanted)
