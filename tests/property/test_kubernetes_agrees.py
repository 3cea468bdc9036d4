"""NetworkPolicies mean the same as the documents made of them, and the other way; `clusters.passes` is the twin."""

from __future__ import annotations

import json
from ipaddress import ip_address
from itertools import product
from typing import Any

import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cellwall.flows import Outcome, Side
from cellwall.inventory import Fleet
from cellwall.labels import Labels, parse_selector
from cellwall.policy import Action, Decision, Flow, Policy, decide, endpoint, parse_policy
from cellwall.traffic import SCTP, TCP, UDP
from cellwall.translate.kubernetes.documents import import_kubernetes
from cellwall.translate.kubernetes.export import export_kubernetes
from cellwall.translate.kubernetes.labels import complement, meaning, namespace_key, pod_key
from tests.property.clusters import PROBED, Cluster, clusters, passes
from tests.property.worlds import World, worlds

NUMBERS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}


def imported(cluster: Cluster, policies: list[Any] | None = None) -> tuple[Policy, Fleet]:
    found = import_kubernetes(cluster.manifests(policies))
    if found.refusals:
        # A named port that no pod shows is all that these clusters can hold that is refused.
        assert cluster.named and all("named port" in str(one) for one in found.refusals), found.refusals
        assume(False)
    assert "refused" not in found.documents
    return parse_policy(found.documents.items()), Fleet(found.workloads)


def decided(policy: Policy, fleet: Fleet, source: Any, target: Any, protocol: str, port: int) -> Decision:
    one, other = (endpoint(fleet, ip_address(pod["status"]["podIP"])) for pod in (source, target))
    return decide(policy, fleet, Flow(one, other, NUMBERS[protocol], port), 0.0)


def check(cluster: Cluster, policies: list[Any], policy: Policy, fleet: Fleet) -> None:
    for source, target in product(cluster.pods, cluster.pods):
        for protocol, port in PROBED if source is not target else ():
            decision = decided(policy, fleet, source, target, protocol, port)
            for side, verdict in ((Side.EGRESS, decision.egress), (Side.INGRESS, decision.ingress)):
                assert verdict is not None and verdict.outcome is verdict.would
                wanted = passes(cluster, policies, side, source, target, protocol, port)
                told = f"{side} {source['metadata']} → {target['metadata']} {protocol}/{port}"
                assert (verdict.outcome is Outcome.ALLOWED) is wanted, f"{told}: {verdict}"


@given(clusters())
def test_imported_documents_mean_what_the_network_policies_mean(cluster: Cluster) -> None:
    check(cluster, cluster.policies, *imported(cluster))


@settings(max_examples=settings().max_examples // 2)
@given(clusters(), st.booleans())
def test_what_was_imported_is_exported_with_the_same_meaning(cluster: Cluster, with_fleet: bool) -> None:
    policy, fleet = imported(cluster)
    exported = export_kubernetes(policy, fleet if with_fleet else Fleet())
    if exported.refusals:
        assert all("named port" in str(one) for one in exported.refusals)
        return
    manifests = [one for text in exported.manifests.values() for one in yaml.safe_load_all(text)]
    check(cluster, manifests, policy, fleet)
    check(cluster, manifests, *imported(cluster, manifests))


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Documents as somebody might write them for pods."""
    words = ["app=a", "tier!=x", "app in (a,b),tier", "namespace=shop", "namespace=ops,!app", "namespace/team=red"]
    words += ["namespace.stage.example.com/env=prod,tier=y", "namespace notin (shop)", "pod/namespace=odd", "any"]
    who = st.one_of(st.sampled_from(words), st.lists(st.sampled_from(words), min_size=1, max_size=2))
    rules: list[object] = []
    for index in range(draw(st.integers(0, 4))):
        rule: dict[str, object] = {"id": f"R_{index}", "from": draw(who), "to": draw(who)}
        ports = st.sampled_from(["tcp/80", "tcp/80-443", "udp", "sctp", "any"])
        rule["allow"] = draw(st.lists(ports, min_size=1, max_size=2))
        if draw(st.booleans()):
            rule["side"] = side = draw(st.sampled_from(["egress", "ingress"]))
            if draw(st.booleans()):
                rule["to" if side == "egress" else "from"] = "network:some"
        rules.append(rule)
    modes: list[object] = [{"where": "any", "mode": draw(st.sampled_from(["observe", "guard", "enforce"]))}]
    modes += [
        {"where": where, "mode": draw(st.sampled_from(["observe", "enforce"]))}
        for where in draw(st.lists(st.sampled_from(["namespace=shop", "app=a,namespace", "app=a,namespace=blog,tier"])))
    ]
    networks = {"some": ["10.0.0.0/30", "10.0.0.5"]}
    return json.dumps(
        {"networks": networks, "rules": rules, "modes": {str(one): one for one in modes}.values()}, default=list
    )


@settings(max_examples=settings().max_examples // 2)
@given(clusters(), documents())
def test_exported_network_policies_mean_what_the_documents_mean(cluster: Cluster, text: str) -> None:
    fleet = imported(Cluster(cluster.namespaces, cluster.pods, []))[1]
    modes: dict[str, Any] = {one["where"]: one for one in json.loads(text)["modes"]}
    policy = parse_policy([("policy.yaml", json.dumps({**json.loads(text), "modes": list(modes.values())}))])
    exported = export_kubernetes(policy, fleet)
    if exported.refusals:
        # A namespace without pods has no labels that anyone would know.
        assert all("no pod tells" in str(one) for one in exported.refusals)
        return
    manifests = [one for written in exported.manifests.values() for one in yaml.safe_load_all(written)]
    for source, target in product(cluster.pods, cluster.pods):
        for protocol, port in PROBED if source is not target else ():
            decision = decided(policy, fleet, source, target, protocol, port)
            for side, verdict in ((Side.EGRESS, decision.egress), (Side.INGRESS, decision.ingress)):
                wanted = passes(cluster, manifests, side, source, target, protocol, port)
                assert verdict is not None and (verdict.outcome is Outcome.ALLOWED) is wanted


ODD: list[Any] = [None, "", [], {}, [None], {"": None}, "a b", 0, "x" * 300, True, [{}], {"matchLabels": {"a/b/c": 1}}]


def spoilt(data: st.DataObject, node: Any) -> None:
    """Put something odd somewhere into `node`, or take something out."""
    keys: list[Any] = [*node] if hasattr(node, "keys") else [*range(len(node))]
    key = data.draw(st.sampled_from(keys))
    if isinstance(node[key], (dict, list)) and node[key] and data.draw(st.integers(0, 4)):
        spoilt(data, node[key])
    elif data.draw(st.integers(0, 2)):
        node[key] = data.draw(st.sampled_from(ODD))
    else:
        del node[key]


@given(st.data(), clusters())
def test_spoilt_manifests_are_refused_or_read_and_never_crash(data: st.DataObject, cluster: Cluster) -> None:
    manifests: Any = json.loads(json.dumps([*cluster.pods, *cluster.policies]))
    spoilt(data, manifests)
    found = import_kubernetes([("all.yaml", "\n---\n".join(map(json.dumps, manifests)))])
    assert bool(found.documents) is not bool(found.refusals) or not manifests
    parse_policy(found.documents.items())
    Fleet(found.workloads)


@given(worlds())
def test_any_policy_is_exported_or_refused_rule_by_rule(world: World) -> None:
    exported = export_kubernetes(world.policy, world.fleet)
    assert not (exported.manifests and exported.refusals)
    if any(rule.action in {Action.DENY, Action.WALL} and not rule.staged for rule in world.policy.rules):
        assert exported.refusals


KEYS = {"app": ["a", "b", None], "tier": ["x", "", None], "zone": ["n", None]}
ASKED = [
    "app=a",
    "app!=a",
    "app in (a,b)",
    "app",
    "!app",
    "tier=",
    "tier notin (x)",
    "tier",
    "zone=n",
    "!zone",
    "zone!=s",
]


@given(st.lists(st.lists(st.sampled_from(ASKED), min_size=1, max_size=3).map(",".join), max_size=5))
def test_a_complement_matches_exactly_what_no_selector_matches_and_once(texts: list[str]) -> None:
    selectors = [parse_selector(text) for text in texts]
    left = complement(selectors)
    for values in product(*(["other", *values] for values in KEYS.values())):
        labels = Labels({key: value for key, value in zip(KEYS, values, strict=True) if value is not None})
        caught = any(selector.matches(labels) for selector in selectors)
        assert sum(selector.matches(labels) for selector in left) == (not caught)


@given(st.from_regex(r"((pod|port|namespace|a)(\.[a-z]{1,3})?/)?(namespace|port|pod|a|tcp\.http)", fullmatch=True))
def test_a_label_key_of_a_workload_leads_back_to_the_one_it_came_from(key: str) -> None:
    assert meaning(pod_key(key)) == ("pod", key)
    assert meaning(namespace_key(key)) == ("namespace", key)
