"""Policy documents as Kubernetes NetworkPolicies, where a NetworkPolicy can say what they say.

The mirror of `kubernetes_import`: what mode `enforce` covers is shut in both directions by a policy that allows
nothing, and each `allow` becomes a policy at each end that it speaks of. Pods in other modes are selected by none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b

from cellwall.flows import Side
from cellwall.inventory import Fleet
from cellwall.labels import Operator, Requirement, Selector, overlaps
from cellwall.policy import Action, AddressBook, Mode, ModeRule, Place, Policy, PolicyError, Rule, Who
from cellwall.traffic import EVERYTHING, PROTOCOL_NAMES, CellwallError, PortSet, port_name
from cellwall.translate.kubernetes.cluster import GROUP, Note
from cellwall.translate.kubernetes.labels import NAME_LABEL, NAMESPACE, Whose, complement, meaning
from cellwall.translate.kubernetes.nodes import PROTOCOLS

_OPERATORS = {
    Operator.IN: "In",
    Operator.NOT_IN: "NotIn",
    Operator.EXISTS: "Exists",
    Operator.ABSENT: "DoesNotExist",
}
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_ODD = re.compile("[^a-z0-9-]")
_PROTOCOLS = {number: name for name, number in PROTOCOLS.items()}
Manifest = dict[str, object]


@dataclass(frozen=True, slots=True)
class Exported:
    """What documents became: manifests by file name, one file for each namespace, and what a person should know.

    With `refusals` there are no manifests: without one rule, the others would mean something else."""

    manifests: dict[str, str]
    notes: tuple[Note, ...]
    refusals: tuple[PolicyError, ...]


class CannotSayError(CellwallError):
    """A NetworkPolicy cannot say this."""


def export_kubernetes(policy: Policy, fleet: Fleet) -> Exported:
    """Make NetworkPolicies of `policy`. Raises nothing.

    `fleet` tells of the namespaces that there are, with their labels, and of workloads that are no pods; it may be
    empty where every selector names its namespaces."""
    # Here and not above: only who writes manifests needs it.
    import yaml

    writer = _Writer(policy, fleet)
    writer.write()
    if writer.refusals:
        return Exported({}, tuple(writer.notes), tuple(writer.refusals))
    files = {
        f"{namespace}.yaml": str(yaml.safe_dump_all(made, sort_keys=False, allow_unicode=True, explicit_start=True))
        for namespace, made in sorted(writer.made.items())
    }
    return Exported(files, tuple(writer.notes), ())


class _Writer:
    def __init__(self, policy: Policy, fleet: Fleet) -> None:
        self._policy, self._fleet = policy, fleet
        self._namespaces: dict[str, dict[str, str]] = {}
        strangers = [(one.name, one.labels) for one in policy.workloads]
        for workload in fleet.workloads:
            name = workload.labels.get(NAMESPACE)
            if name is None:
                strangers.append((workload.name, workload.labels))
            else:
                told = ((meaning(key), value) for key, value in workload.labels.items())
                self._namespaces[name] = {key: value for (whose, key), value in told if whose is Whose.NAMESPACE}
        self._strangers = strangers
        self._enforced: list[Selector] = []
        self._taken: defaultdict[str, set[str]] = defaultdict(set)
        self.made: defaultdict[str, list[Manifest]] = defaultdict(list)
        self.notes: list[Note] = []
        self.refusals: list[PolicyError] = []

    def write(self) -> None:
        """Write all policies to `made`, and what cannot be said to `refusals`."""
        for mode in self._policy.modes:
            if mode.mode is Mode.ENFORCE:
                self._try(mode.place, f"the mode of `{mode.where or 'any'}`", lambda mode=mode: self._shut(mode))
        if not self._enforced and not self.refusals:
            self.notes.append(Note(Place(), "no mode is `enforce`, so every pod stays open: there is nothing to write"))
        outside = [name for name, labels in self._strangers if any(shut.matches(labels) for shut in self._enforced)]
        if outside:
            text = f"{len(outside)} workloads are no pods, such as `{outside[0]}`: nothing is written for them"
            self.notes.append(Note(Place(), text))
        for rule in (*self._policy.lifelines, *self._policy.rules):
            if rule.staged:
                self.notes.append(Note(rule.place, f"rule `{rule.id}` is staged, so it is left out"))
            else:
                self._try(rule.place, f"rule `{rule.id}`", lambda rule=rule: self._allow(rule))

    def _try(self, place: Place, what: str, write: Callable[[], None]) -> None:
        try:
            write()
        except CellwallError as error:
            self.refusals.append(PolicyError(place, f"{what}: {error}"))

    def _shut(self, mode: ModeRule) -> None:
        """Shut what `mode` enforces: what it selects, but for what a more specific mode takes out again."""
        above = (
            other.where
            for other in self._policy.modes
            if other.mode is not Mode.ENFORCE and other.where.specificity > mode.where.specificity
        )
        for rest in complement(above):
            selector = _both(mode.where, rest)
            if selector is not None:
                self._enforced.append(selector)
                for namespace, pods in self._homes(selector):
                    self._add(namespace, pods, "default-deny", {"policyTypes": ["Ingress", "Egress"]}, "")

    def _allow(self, rule: Rule) -> None:
        _refuse(rule)
        ports = _ports(rule.ports)
        for side in sorted(rule.sides):
            own, far = (rule.source, rule.destination) if side is Side.EGRESS else (rule.destination, rule.source)
            name = rule.id if len(rule.sides) == 1 else f"{rule.id}-{side}"
            for who in own:
                if who.network is not None:
                    self._refuse_pods_in(who.network, side)
                    continue
                for shut in self._enforced:
                    selector = _both(who.selector or Selector(), shut)
                    if selector is None:
                        continue
                    for namespace, pods in self._homes(selector):
                        self._add(namespace, pods, name, self._body(side, far, ports, namespace), rule.id)

    def _body(self, side: Side, far: Iterable[Who], ports: list[Manifest], namespace: str) -> Manifest:
        peers = self._peers(far, namespace)
        towards, kind = ("to", "Egress") if side is Side.EGRESS else ("from", "Ingress")
        allowance: Manifest = {**({towards: peers} if peers is not None else {}), **({"ports": ports} if ports else {})}
        # An empty list of peers would be anyone, so a rule without any allows nothing.
        return {"policyTypes": [kind], str(side): [] if peers == [] else [allowance]}

    def _add(self, namespace: str, pods: Selector, name: str, body: Manifest, rule: str) -> None:
        made = self.made[namespace]
        metadata: Manifest = {"name": _name(name, self._taken[namespace]), "namespace": namespace}
        if rule:
            metadata["annotations"] = {"cellwall/rule": rule}
        spec: Manifest = {"podSelector": _selector(pods), **body}
        made.append({"apiVersion": GROUP, "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})

    # --- whom a selector holds ---

    def _homes(self, selector: Selector) -> Iterable[tuple[str, Selector]]:
        """Give the namespaces where `selector` can match pods, and what is left of it for the pods there."""
        homes, pods = _split(selector)
        if Requirement(NAME_LABEL, Operator.ABSENT) in homes:
            return  # what is no pod
        asked = [set(test.values) for test in homes if test.key == NAME_LABEL and test.operator is Operator.IN]
        if not asked and not self._namespaces:
            raise CannotSayError(f"`{selector}` names no namespace, and no pod tells which there are")
        for name in sorted(set[str].intersection(*asked) if asked else self._namespaces):
            labels = self._namespaces.get(name, {NAME_LABEL: name})
            asking = next((test.key for test in homes if test.key != NAME_LABEL), None)
            if asking is not None and name not in self._namespaces:
                raise CannotSayError(f"no pod tells whether namespace `{name}` has the label `{asking}`")
            if all(test.matches(labels) for test in homes):
                yield name, Selector(pods)

    def _peers(self, far: Iterable[Who], home: str) -> list[Manifest] | None:
        """Give the alternatives of the far end; None where it is anyone."""
        peers: list[Manifest] = []
        for who in far:
            if who.network is not None:
                peers.extend({"ipBlock": {"cidr": str(prefix)}} for prefix in who.network.prefixes)
            elif who.selector is None:
                return None
            else:
                peers.append(self._peer(who.selector, home))
        return peers

    def _peer(self, selector: Selector, home: str) -> Manifest:
        stranger = next((name for name, labels in self._strangers if selector.matches(labels)), None)
        if stranger is not None:
            raise CannotSayError(f"`{selector}` also means `{stranger}`, which is no pod; name its addresses")
        homes, pods = _split(selector)
        if homes == (Requirement(NAME_LABEL, Operator.IN, (home,)),):
            return {"podSelector": _selector(Selector(pods))}
        peer: Manifest = {"namespaceSelector": _selector(Selector(homes))}
        return {**peer, "podSelector": _selector(Selector(pods))} if pods else peer

    def _refuse_pods_in(self, network: AddressBook, side: Side) -> None:
        """Refuse a network as the end that a policy is for, unless it is known to hold no pod."""
        if not self._fleet.workloads:
            raise CannotSayError(
                f"`network:{network.name}` may hold pods, which cannot be selected by address; give the fleet, "
                f"or write `side: {Side.INGRESS if side is Side.EGRESS else Side.EGRESS}`"
            )
        held = next((w.name for w in self._fleet.workloads if any(one in network for one in w.addresses)), None)
        if held is not None:
            raise CannotSayError(f"`network:{network.name}` holds `{held}`, and pods cannot be selected by address")


def _refuse(rule: Rule) -> None:
    """Refuse what no NetworkPolicy can say of a rule."""
    if rule.action not in {Action.ALLOW, Action.LIFELINE}:
        raise CannotSayError(f"a NetworkPolicy cannot say `{rule.action}`")
    if rule.refused:
        raise CannotSayError(rule.refused)
    if rule.same:
        raise CannotSayError("a NetworkPolicy cannot ask that both ends share a label (`same`)")
    if rule.starts is not None or rule.expires is not None:
        raise CannotSayError("a NetworkPolicy cannot start or expire")
    identity = next((who.identity for who in (*rule.source, *rule.destination) if who.identity), None)
    if identity is not None:
        raise CannotSayError(f"a NetworkPolicy cannot ask for the local identity `{identity}`")


def _both(one: Selector, other: Selector) -> Selector | None:
    """Give the selector of what both match; None where nothing can."""
    both = Selector(tuple(sorted({*one.requirements, *other.requirements})))
    return both if overlaps(both, both) else None


def _split(selector: Selector) -> tuple[tuple[Requirement, ...], tuple[Requirement, ...]]:
    """Give what is asked of the namespace and what of the pod, with the keys that they have there."""
    homes: list[Requirement] = []
    pods: list[Requirement] = []
    for test in selector.requirements:
        whose, key = meaning(test.key)
        if whose is Whose.PORT:
            raise CannotSayError(f"a NetworkPolicy cannot ask for the number of a named port (`{test}`)")
        (homes if whose is Whose.NAMESPACE else pods).append(Requirement(key, test.operator, test.values))
    return tuple(homes), tuple(pods)


def _selector(selector: Selector) -> Manifest:
    labels: dict[str, str] = {}
    others: list[Manifest] = []
    for test in selector.requirements:
        if test.operator is Operator.IN and len(test.values) == 1 and test.key not in labels:
            labels[test.key] = test.values[0]
        else:
            values = {"values": list(test.values)} if test.values else {}
            others.append({"key": test.key, "operator": _OPERATORS[test.operator], **values})
    return {**({"matchLabels": labels} if labels else {}), **({"matchExpressions": others} if others else {})}


def _ports(ports: PortSet) -> list[Manifest]:
    """Give the ports of a rule; none where it is all of them."""
    found: list[Manifest] = []
    for protocol, first, last in (part for span in ports.spans for part in span.by_protocol() if ports != EVERYTHING):
        if protocol not in _PROTOCOLS:
            raise CannotSayError(f"a NetworkPolicy cannot say `{PROTOCOL_NAMES.get(protocol, str(protocol))}`")
        one: Manifest = {"protocol": _PROTOCOLS[protocol]}
        if (first, last) != (0, 65535):
            if first == 0:
                raise CannotSayError(f"a NetworkPolicy cannot say `{port_name(protocol << 16)}`")
            one |= {"port": first, **({"endPort": last} if last > first else {})}
        found.append(one)
    return found


def _name(text: str, taken: set[str]) -> str:
    """Give a name that Kubernetes takes and that is not `taken` yet."""
    name = text if _SUBDOMAIN.fullmatch(text) else f"{_ODD.sub('-', text.lower())}-{_digest(text)}"
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found)
    return found


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=4).hexdigest()
