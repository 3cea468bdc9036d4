"""Kubernetes manifests as values: NetworkPolicies, and of pods and namespaces what policies ask of them.

Strict where a slip would change what passes (a NetworkPolicy has no unknown key), lenient where it would not (of a
Deployment only the pod template is looked at). What restricts traffic and is not a NetworkPolicy is refused; all else
that is passed over is noted.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from cellwall.inventory import check_name
from cellwall.labels import Labels
from cellwall.policy import Node, Place, PolicyError, read_stream
from cellwall.traffic import Address, CellwallError, parse_address
from cellwall.translate.kubernetes.labels import NAME_LABEL
from cellwall.translate.kubernetes.nodes import PROTOCOLS, labels_of, matched, needed, opened, port_number
from cellwall.translate.kubernetes.policy import TOP, NetworkPolicy, read_policy

GROUP = "networking.k8s.io/v1"
TEMPLATES = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob")
METADATA = (
    "name", "namespace", "labels", "annotations", "generateName", "uid", "resourceVersion", "generation",
    "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers",
    "managedFields", "selfLink",
)  # fmt: skip
DEAD_ANNOTATION = "net.beta.kubernetes.io/network-policy"

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person should know of what was read, and where it stands."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if str(self.place) else self.text


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port of a container that has a name. `protocol` is an IP protocol number."""

    name: str
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, or the template of pods (`template`), with its own labels."""

    namespace: str
    name: str
    labels: Labels
    addresses: tuple[Address, ...] = ()
    ports: frozenset[NamedPort] = frozenset()
    template: bool = False
    place: Place = field(default_factory=Place, compare=False)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What manifests say: namespaces with their labels (their names apart), pods, policies; all in order of name.

    With `refusals`, it is not the whole of what they say."""

    namespaces: tuple[tuple[str, Labels], ...]
    pods: tuple[Pod, ...]
    policies: tuple[NetworkPolicy, ...]
    notes: tuple[Note, ...]
    refusals: tuple[PolicyError, ...]


def read_cluster(files: Iterable[tuple[str, str | bytes]]) -> Cluster:
    """Read manifests, pairs of file name and YAML or JSON text, in any order and split. Raises nothing."""
    reader = _Reader()
    for file, text in sorted(files):
        try:
            for node in read_stream(file, text):
                reader.read(node)
        except PolicyError as error:
            reader.refusals.append(error)
    return reader.cluster()


class _Reader:
    def __init__(self) -> None:
        self.namespaces: dict[str, tuple[Labels, Place]] = {}
        self.pods: dict[tuple[bool, str, str], Pod] = {}
        self.policies: dict[tuple[str, str], NetworkPolicy] = {}
        self.notes: list[Note] = []
        self.refusals: list[PolicyError] = []
        self._ignored: Counter[str] = Counter()
        self._homeless: list[Place] = []

    def cluster(self) -> Cluster:
        labels = {name: labels for name, (labels, _) in self.namespaces.items()}
        for one in (*self.policies.values(), *self.pods.values()):
            labels.setdefault(one.namespace, Labels())
        notes = list(self.notes)
        if self._homeless:
            count = len(self._homeless)
            notes.append(Note(self._homeless[0], f"{count} manifests name no namespace; they are read as of `default`"))
        if self._ignored:
            told = ", ".join(f"{kind} ({count})" for kind, count in sorted(self._ignored.items()))
            notes.append(Note(Place(), f"not looked at: {told}"))
        return Cluster(
            namespaces=tuple(sorted(labels.items())),
            pods=self._living(),
            policies=tuple(self.policies[key] for key in sorted(self.policies)),
            notes=tuple(notes),
            refusals=tuple(self.refusals),
        )

    def _living(self) -> tuple[Pod, ...]:
        """Give the pods, and the templates that no pod is there for."""
        there: defaultdict[str, list[Labels]] = defaultdict(list)
        for pod in self.pods.values():
            if not pod.template:
                there[pod.namespace].append(pod.labels)
        found = (
            pod
            for pod in self.pods.values()
            if not pod.template
            or not pod.labels
            or not any(pod.labels.items() <= labels.items() for labels in there[pod.namespace])
        )
        return tuple(sorted(found, key=lambda pod: (pod.namespace, pod.name)))

    def read(self, node: Node, kind: str = "", version: str = "") -> None:
        """Read one document, or one item of a list whose items are of `kind` and `version`."""
        fields = opened(node) if node.kind == "mapping" else {}
        kind = fields["kind"].text() if "kind" in fields else kind
        version = fields["apiVersion"].text() if "apiVersion" in fields else version
        if kind.endswith("List") and "items" in fields:
            for item in fields["items"].items():
                self.read(item, kind.removesuffix("List"), version)
            return
        try:
            self._manifest(node, fields, kind, version)
        except PolicyError as error:
            self.refusals.append(error)

    def _manifest(self, node: Node, fields: dict[str, Node], kind: str, version: str) -> None:
        if kind == "NetworkPolicy" and version == GROUP:
            self._policy(node)
        elif "NetworkPolicy" in kind:
            name = opened(fields["metadata"]).get("name") if "metadata" in fields else None
            raise node.fail(
                f"`{kind}` `{name.text() if name else ''}` of `{version}` is not read; "
                f"wanted `NetworkPolicy` of `{GROUP}`"
            )
        elif kind == "Namespace":
            self._namespace(node, fields)
        elif kind == "Pod":
            self._pod(node, fields, fields)
        elif kind in TEMPLATES:
            self._template(node, fields, kind)
        elif kind or node.kind != "text" or node.value:
            self._ignored[kind or "documents without a kind"] += 1

    # --- namespaces and pods ---

    def _namespace(self, node: Node, fields: dict[str, Node]) -> None:
        metadata = opened(needed(node, fields, "metadata"))
        name = matched(needed(node, metadata, "name"), _NAMESPACE, "a namespace")
        labels = labels_of(metadata["labels"]) if "labels" in metadata else Labels()
        labels = labels.updated({NAME_LABEL: None})
        if "annotations" in metadata and DEAD_ANNOTATION in metadata["annotations"].entries():
            place = metadata["annotations"].entries()[DEAD_ANNOTATION][0].place
            self.notes.append(Note(place, f"`{DEAD_ANNOTATION}` isolates nothing since Kubernetes 1.7"))
        known = self.namespaces.get(name)
        if known is not None and known[0] != labels:
            raise node.fail(f"namespace `{name}` is there twice with other labels, first at {known[1]}")
        self.namespaces[name] = labels, node.place

    def _template(self, node: Node, fields: dict[str, Node], kind: str) -> None:
        spec = opened(needed(node, fields, "spec"))
        metadata = opened(needed(node, fields, "metadata"))
        if "ownerReferences" in metadata and metadata["ownerReferences"].items():
            return  # its owner has the same template
        if kind == "CronJob":
            spec = opened(needed(node, opened(needed(node, spec, "jobTemplate")), "spec"))
        if "template" in spec:
            self._pod(node, fields, opened(spec["template"]), template=True)

    def _pod(self, node: Node, fields: dict[str, Node], pod: dict[str, Node], *, template: bool = False) -> None:
        """Read a pod; `fields` name it, and `pod` has what it is made of."""
        metadata = opened(needed(node, fields, "metadata"))
        name = matched(needed(node, metadata, "name"), _NAME, "a pod")
        namespace = self._home(node, metadata)
        try:
            check_name(f"{namespace}.{name}")
        except CellwallError as error:
            raise metadata["name"].fail(str(error)) from None
        own = opened(pod["metadata"]) if "metadata" in pod else {}
        labels = labels_of(own["labels"]) if "labels" in own else Labels()
        spec = opened(needed(node, pod, "spec"))
        status = opened(fields["status"]) if "status" in fields and not template else {}
        if "hostNetwork" in spec and spec["hostNetwork"].text() == "true":
            self.notes.append(Note(node.place, f"`{namespace}/{name}` uses its node's network: no policy reaches it"))
            return
        if "phase" in status and status["phase"].text() in {"Succeeded", "Failed"}:
            return
        made = Pod(
            namespace, name, labels, _addresses(status), frozenset(_named_ports(spec)), template=template,
            place=node.place,
        )  # fmt: skip
        known = self.pods.get((template, namespace, name))
        if known is not None and known != made:
            raise node.fail(f"`{namespace}/{name}` is there twice and not the same, first at {known.place}")
        self.pods[template, namespace, name] = made

    def _home(self, node: Node, metadata: dict[str, Node]) -> str:
        if "namespace" not in metadata or not metadata["namespace"].text():
            self._homeless.append(node.place)
            return "default"
        return matched(metadata["namespace"], _NAMESPACE, "a namespace")

    # --- policies ---

    def _policy(self, node: Node) -> None:
        fields = node.fields(TOP)
        metadata = needed(node, fields, "metadata").fields(METADATA)
        name = matched(needed(node, metadata, "name"), _NAME, "a NetworkPolicy")
        namespace = self._home(node, metadata)
        try:
            policy = read_policy(node, namespace, name)
        except PolicyError as error:
            raise PolicyError(error.place, f"NetworkPolicy `{namespace}/{name}`: {error.message}") from None
        known = self.policies.get((namespace, name))
        if known is not None and known != policy:
            raise node.fail(f"NetworkPolicy `{policy}` is there twice and not the same, first at {known.place}")
        self.policies[namespace, name] = policy
        if policy.idle:
            text = f"NetworkPolicy `{policy}`: a rule for a direction that `policyTypes` leaves out does nothing"
            self.notes.append(Note(policy.idle[0].place, text))
        if not policy.pods.requirements and (policy.ingress or policy.egress):
            self.notes.append(Note(node.place, f"NetworkPolicy `{policy}` selects every pod of `{namespace}`"))


def _addresses(status: dict[str, Node]) -> tuple[Address, ...]:
    listed = [needed(one, opened(one), "ip") for one in status["podIPs"].items()] if "podIPs" in status else []
    listed += [status["podIP"]] if "podIP" in status and status["podIP"].text() else []
    return tuple(sorted({one.parse(parse_address) for one in listed}, key=str))


def _named_ports(spec: dict[str, Node]) -> Iterable[NamedPort]:
    containers = list(spec["containers"].items()) if "containers" in spec else []
    for one in spec["initContainers"].items() if "initContainers" in spec else ():
        restart = opened(one).get("restartPolicy")
        if restart is not None and restart.text() == "Always":  # a sidecar
            containers.append(one)
    for container in containers:
        fields = opened(container)
        for item in fields["ports"].items() if "ports" in fields else ():
            port = opened(item)
            if "name" in port and port["name"].text():
                protocol = port["protocol"].choice(tuple(PROTOCOLS)) if "protocol" in port else "TCP"
                number = port_number(needed(item, port, "containerPort"))
                yield NamedPort(port["name"].text(), PROTOCOLS[protocol], number)
