"""A Kubernetes cluster's NetworkPolicies as policy documents, one for each namespace, and its pods as a fleet.

A pod that a policy selects is shut in that direction but for what policies allow; every other pod is open. So each
namespace is in mode `enforce`; each rule of a policy is an `allow` at the one side that it speaks of; and what no
policy selects gets an `allow` of everything at that side, by selectors that leave out what the policies select.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from cellwall.flows import Side
from cellwall.inventory import Workload
from cellwall.labels import Labels, Operator, Requirement, Selector
from cellwall.policy import Place, PolicyError
from cellwall.traffic import PROTOCOL_NAMES
from cellwall.translate.kubernetes.cluster import Cluster, Note, Pod, read_cluster
from cellwall.translate.kubernetes.labels import (
    NAME_LABEL,
    NAMESPACE,
    TooManyError,
    complement,
    namespace_key,
    pod_key,
    port_key,
    renamed,
    renamed_labels,
)
from cellwall.translate.kubernetes.policy import Allowance, Block, NetworkPolicy, Peer, Ports

MOST_WORD = 63


@dataclass(frozen=True, slots=True)
class Imported:
    """What manifests became: documents by file name, the fleet of their pods, and what a person should know.

    With `refusals` there are no documents: without one policy, what the others mean together is something else."""

    documents: dict[str, str]
    workloads: tuple[Workload, ...]
    notes: tuple[Note, ...]
    refusals: tuple[PolicyError, ...]


def import_kubernetes(files: Iterable[tuple[str, str | bytes]]) -> Imported:
    """Make policy documents of Kubernetes manifests, pairs of file name and YAML or JSON text. Raises nothing."""
    cluster = read_cluster(files)
    writer = _Writer(cluster)
    documents = {f"{name}.yaml": writer.document(name) for name, _ in cluster.namespaces}
    refusals = (*cluster.refusals, *writer.refusals)
    nowhere = sum(not pod.addresses for pod in cluster.pods)
    homeless = [Note(Place(), f"{nowhere} of {len(cluster.pods)} pods have no address here: no pod of theirs runs")]
    return Imported(
        documents={} if refusals else documents,
        workloads=tuple(writer.workload(pod) for pod in cluster.pods),
        notes=(*cluster.notes, *writer.notes, *(homeless if nowhere else [])),
        refusals=refusals,
    )


def inventory(workloads: Iterable[Workload]) -> dict[str, object]:
    """Give workloads as `cellwall workloads -o json` writes them and the commands with `--fleet` read them."""
    return {
        "items": [
            {
                "name": one.name,
                "labels": dict(one.labels),
                "addresses": [str(address) for address in one.addresses],
                "agent": one.agent,
                "epoch": one.epoch,
            }
            for one in workloads
        ]
    }


class _Writer:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._namespaces = dict(cluster.namespaces)
        self._policies: defaultdict[str, list[NetworkPolicy]] = defaultdict(list)
        for policy in cluster.policies:
            self._policies[policy.namespace].append(policy)
        self._at: defaultdict[str, list[Pod]] = defaultdict(list)
        for pod in cluster.pods:
            self._at[pod.namespace].append(pod)
        self._networks: dict[str, list[str]] = {}
        self._ports_told: set[tuple[int, str]] = set()
        self.notes: list[Note] = []
        self.refusals: list[PolicyError] = []

    # --- the fleet ---

    def workload(self, pod: Pod) -> Workload:
        """Give a pod as a workload; call this when all documents are written."""
        labels = {
            **renamed_labels(pod.labels, pod_key),
            **renamed_labels(self._namespaces[pod.namespace], namespace_key),
            NAMESPACE: pod.namespace,
            **{
                port_key(p.protocol, p.name): str(p.port) for p in pod.ports if (p.protocol, p.name) in self._ports_told
            },
        }
        return Workload(f"{pod.namespace}.{pod.name}", Labels(labels), pod.addresses)

    # --- documents ---

    def document(self, namespace: str) -> str:
        """Write the document of one namespace."""
        # Here and not above: agents import rooms that have no YAML parser, and this one stays as light.
        import yaml

        self._networks = {}
        rules = [
            rule
            for policy in self._policies[namespace]
            for side, allowances in ((Side.INGRESS, policy.ingress), (Side.EGRESS, policy.egress))
            for number, allowance in enumerate(allowances or (), 1)
            for rule in self._rules(policy, side, number, allowance)
        ]
        rules += [rule for side in (Side.INGRESS, Side.EGRESS) for rule in self._open(namespace, side)]
        body: dict[str, object] = {
            **({"networks": self._networks} if self._networks else {}),
            **({"rules": rules} if rules else {}),
            "modes": [{"where": f"{NAMESPACE}={namespace}", "mode": "enforce"}],
        }
        head = [f"# Kubernetes namespace `{namespace}`, from its NetworkPolicies:"]
        head += [f"#   {_told(policy)}" for policy in self._policies[namespace]] or ["#   there are none"]
        text: str = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=10_000)
        return "\n".join(head) + "\n" + text

    def _open(self, namespace: str, side: Side) -> list[dict[str, object]]:
        """Give the rule for the pods that no policy isolates at `side`, where there can be any."""
        isolating = [
            policy
            for policy in self._policies[namespace]
            if (policy.ingress if side is Side.INGRESS else policy.egress) is not None
        ]
        try:
            left = complement(policy.pods for policy in isolating)
        except TooManyError as error:
            what = f"the pods of `{namespace}` that no NetworkPolicy isolates for {side} cannot be said: {error}"
            self.refusals.append(PolicyError(isolating[0].place, what))
            return []
        own = [_of_namespace(namespace, selector) for selector in left]
        reason = f"no NetworkPolicy isolates them for {side}"
        return [_rule(f"{namespace}.open-{side}", ["any"], side, own, ["any"], reason)] if own else []

    # --- one rule of a policy ---

    def _rules(
        self, policy: NetworkPolicy, side: Side, number: int, allowance: Allowance
    ) -> Iterable[dict[str, object]]:
        try:
            yield from self._written(policy, side, number, allowance)
        except PolicyError as error:
            self.refusals.append(PolicyError(error.place, f"NetworkPolicy `{policy}`: {error.message}"))

    def _written(
        self, policy: NetworkPolicy, side: Side, number: int, allowance: Allowance
    ) -> Iterable[dict[str, object]]:
        name = f"{policy}.{side}-{number}".replace("/", ".")
        reason = f"NetworkPolicy {policy} ({policy.place.file}:{allowance.place.line})"
        own = Peer(policy.pods)
        living = tuple(peer for peer in allowance.peers if peer.block is None or peer.block.prefixes)
        if allowance.peers and not living:
            return  # blocks of which everything is excepted
        peers = [self._said(policy.namespace, peer) for peer in living] or ["any"]
        callee = (own,) if side is Side.INGRESS else living
        plain = [_spelt(ports) for ports in allowance.ports if not ports.name] or ["any"] * (not allowance.ports)
        here = [self._said(policy.namespace, own)]
        further: list[dict[str, object]] = []
        for ports in dict.fromkeys(allowance.ports):
            if not ports.name:
                continue
            numbers, everywhere = self._resolved(policy.namespace, ports, callee, allowance.place)
            # Toward anyone, a name means the pods that have it: what is no pod has no names.
            if everywhere and callee:
                plain.append(_spelt(Ports(ports.protocol, numbers[0], numbers[0])))
                continue
            if not everywhere:
                self._ports_told.add((ports.protocol, ports.name))
            called = [self._said(policy.namespace, peer) for peer in callee] or [NAMESPACE]
            for port in numbers:
                spelt = _spelt(Ports(ports.protocol, port, port))
                known_by = "" if everywhere else f",{port_key(ports.protocol, ports.name)}={port}"
                those = [f"{one}{known_by}" for one in called]
                ends = (those, peers) if side is Side.INGRESS else (here, those)
                further.append(_rule(f"{name}.{ports.name}-{spelt.replace('/', '-')}", [spelt], side, *ends, reason))
        if plain:
            yield _rule(name, plain, side, here, peers, reason)
        yield from further

    def _said(self, home: str, peer: Peer) -> str:
        """Say in a document what a peer of a policy in namespace `home` is."""
        if peer.block is not None:
            return f"network:{self._network(home, peer.block)}"
        if peer.namespaces is None:
            return _of_namespace(home, peer.pods)
        wanted = renamed(peer.namespaces, namespace_key)
        if not any(one.operator in {Operator.IN, Operator.EXISTS} for one in wanted.requirements):
            # What has no such label may be no pod at all.
            wanted = Selector((Requirement(NAMESPACE, Operator.EXISTS), *wanted.requirements))
        return ",".join(str(one) for one in (wanted, renamed(peer.pods, pod_key)) if one.requirements)

    def _pods(self, home: str, peer: Peer) -> tuple[Pod, ...]:
        """Give the pods that a peer of a policy in namespace `home` holds."""
        homes = (
            name
            for name, labels in self._namespaces.items()
            if (name == home if peer.namespaces is None else peer.namespaces.matches({**labels, NAME_LABEL: name}))
        )
        return tuple(pod for name in homes for pod in self._at[name] if peer.pods.matches(pod.labels))

    def _network(self, home: str, block: Block) -> str:
        """Give the name of the network that a block is, and remember it for the document."""
        prefixes = [str(prefix) for prefix in block.prefixes]
        cidr, *holes = block.text.split(" but ")
        tail = f"-but-{holes[0]}" if len(holes) == 1 else f"-but-{len(holes)}-{_digest(block.text)}" if holes else ""
        name = _word(f"{home}.{cidr}{tail}".replace("/", "-").replace(":", "-"))
        self._networks[name] = prefixes
        return name

    def _resolved(self, home: str, ports: Ports, callee: tuple[Peer, ...], place: Place) -> tuple[list[int], bool]:
        """Give the numbers that a named port has at the pods that are called, and whether all have the same one."""
        if any(peer.block is not None for peer in callee):
            raise PolicyError(place, f"the named port `{ports.name}` toward an `ipBlock`: addresses have no port names")
        pods = [pod for peer in callee for pod in self._pods(home, peer)] if callee else self._cluster.pods
        if not pods:
            raise PolicyError(
                place, f"the named port `{ports.name}` is that of pods that no manifest shows; add the pods' manifests"
            )
        numbers = {pod: _numbered(pod, ports) for pod in pods}
        twice = next((pod for pod, found in numbers.items() if len(found) > 1), None)
        if twice is not None:
            raise PolicyError(place, f"`{twice.namespace}/{twice.name}` has two ports named `{ports.name}`")
        seen = sorted({port for found in numbers.values() for port in found})
        told = ", ".join(_spelt(Ports(ports.protocol, port, port)) for port in seen) or "nothing, no pod has it"
        where = "the pod that was" if len(numbers) == 1 else f"the {len(numbers)} pods that were"
        self.notes.append(Note(place, f"the named port `{ports.name}` is {told} at {where} read"))
        return seen, len(seen) == 1 and all(numbers.values())


def _numbered(pod: Pod, ports: Ports) -> frozenset[int]:
    return frozenset(one.port for one in pod.ports if (one.name, one.protocol) == (ports.name, ports.protocol))


def _rule(name: str, ports: list[str], side: Side, own: list[str], far: list[str], reason: str) -> dict[str, object]:
    source, destination = (own, far) if side is Side.EGRESS else (far, own)
    return {
        "id": _word(name),
        "allow": _one_or_all(ports),
        "from": _one_or_all(source),
        "to": _one_or_all(destination),
        "side": str(side),
        "reason": reason,
    }


def _one_or_all(items: list[str]) -> str | list[str]:
    # A set would do, but not for who reads it.
    items = list(dict.fromkeys(items))
    return items[0] if len(items) == 1 else items


def _of_namespace(namespace: str, pods: Selector) -> str:
    return ",".join([f"{NAMESPACE}={namespace}", *([str(renamed(pods, pod_key))] if pods.requirements else [])])


def _spelt(ports: Ports) -> str:
    protocol = PROTOCOL_NAMES[ports.protocol]
    if (ports.first, ports.last) == (0, 65535):
        return protocol
    return f"{protocol}/{ports.first}" if ports.first == ports.last else f"{protocol}/{ports.first}-{ports.last}"


def _told(policy: NetworkPolicy) -> str:
    ways = [word for word, rules in (("ingress", policy.ingress), ("egress", policy.egress)) if rules is not None]
    pods = f"`{policy.pods}`" if policy.pods.requirements else "every pod"
    return f"{policy.name} ({policy.place}): shuts {pods} for {' and '.join(ways)} but for its rules"


def _word(text: str) -> str:
    """Give `text` as an id: as it is, or cut, with a digest of the whole."""
    return text if len(text) <= MOST_WORD else f"{text[: MOST_WORD - 9].rstrip('.-_')}-{_digest(text)}"


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=4).hexdigest()
