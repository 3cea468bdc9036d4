"""One Kubernetes NetworkPolicy, read strictly: what it selects, which directions it isolates, what it lets pass."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import collapse_addresses, ip_network

from cellwall.labels import Operator, Requirement, Selector, check_value
from cellwall.policy import Node, Place
from cellwall.traffic import AddressError, Network, parse_address
from cellwall.translate.kubernetes.nodes import PROTOCOLS, is_null, label_key, labels_of, needed, port_number

_PORT_NAME = re.compile(r"(?=[0-9-]*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_OPERATORS = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.EXISTS,
    "DoesNotExist": Operator.ABSENT,
}


@dataclass(frozen=True, slots=True)
class Block:
    """An ipBlock: what it holds, without what it excepts, as prefixes; `text` is as it was written."""

    prefixes: tuple[Network, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Peer:
    """One alternative of a rule: a block, or pods by their labels in some namespaces (None: the policy's own)."""

    pods: Selector = field(default_factory=Selector)
    namespaces: Selector | None = None
    block: Block | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports `first` to `last` of a protocol; or the port of this `name` at each destination."""

    protocol: int
    first: int = 0
    last: int = 65535
    name: str = ""


@dataclass(frozen=True, slots=True)
class Allowance:
    """One rule of a NetworkPolicy: these peers on these ports; anyone, any port, where there are none."""

    peers: tuple[Peer, ...]
    ports: tuple[Ports, ...]
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """What a NetworkPolicy says of the pods that it selects; None: it does not isolate them in that direction.

    `idle` are rules for a direction that `policyTypes` leaves out; they do nothing."""

    namespace: str
    name: str
    pods: Selector
    ingress: tuple[Allowance, ...] | None
    egress: tuple[Allowance, ...] | None
    idle: tuple[Allowance, ...]
    place: Place = field(compare=False)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def read_policy(node: Node, namespace: str, name: str) -> NetworkPolicy:
    """Read the `spec` of a NetworkPolicy. Raises `PolicyError`."""
    fields = needed(node, node.fields(TOP), "spec").fields(("podSelector", "policyTypes", "ingress", "egress"))
    pods = _selector(fields["podSelector"]) if "podSelector" in fields else Selector()
    ingress = [_allowance(item, "from") for item in fields["ingress"].items()] if "ingress" in fields else []
    egress = [_allowance(item, "to") for item in fields["egress"].items()] if "egress" in fields else []
    listed = fields["policyTypes"].items() if "policyTypes" in fields else ()
    types = {one.choice(("Ingress", "Egress")) for one in listed}
    # Kubernetes, NetworkPolicySpec: where nothing is listed, ingress always, and egress where there are such rules.
    types = types or {"Ingress", *(["Egress"] if egress else [])}
    idle = tuple(
        rule for word, rules in (("Ingress", ingress), ("Egress", egress)) if word not in types for rule in rules
    )
    return NetworkPolicy(
        namespace,
        name,
        pods,
        tuple(ingress) if "Ingress" in types else None,
        tuple(egress) if "Egress" in types else None,
        idle,
        node.place,
    )


def _allowance(node: Node, peers: str) -> Allowance:
    fields = node.fields((peers, "ports"))
    return Allowance(
        tuple(_peer(item) for item in fields[peers].items()) if peers in fields else (),
        tuple(_ports(item) for item in fields["ports"].items()) if "ports" in fields else (),
        node.place,
    )


def _peer(node: Node) -> Peer:
    fields = {
        name: value for name, value in node.fields(("podSelector", "namespaceSelector", "ipBlock")).items()
        if not is_null(value)
    }  # fmt: skip
    if not fields:
        raise node.fail("a peer is empty; wanted `podSelector`, `namespaceSelector` or `ipBlock`")
    if "ipBlock" in fields:
        if len(fields) > 1:
            raise node.fail("`ipBlock` cannot stand beside a selector")
        return Peer(block=_block(fields["ipBlock"]))
    return Peer(
        _selector(fields["podSelector"]) if "podSelector" in fields else Selector(),
        _selector(fields["namespaceSelector"]) if "namespaceSelector" in fields else None,
    )


def _block(node: Node) -> Block:
    fields = node.fields(("cidr", "except"))
    whole = _cidr(needed(node, fields, "cidr"))
    left, text = [whole], str(whole)
    for item in fields["except"].items() if "except" in fields else ():
        hole = _cidr(item)
        if hole.version != whole.version or not hole.subnet_of(whole) or hole == whole:  # pyright: ignore[reportArgumentType]
            raise item.fail(f"`{hole}` is not a part of `{whole}`")
        left = [part for one in left for part in _without(one, hole)]
        text += f" but {hole}"
    return Block(tuple(collapse_addresses(left)), text)  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]


def _without(one: Network, hole: Network) -> tuple[Network, ...]:
    if not one.overlaps(hole):
        return (one,)
    return tuple(one.address_exclude(hole)) if hole.prefixlen > one.prefixlen else ()  # pyright: ignore[reportArgumentType]


def _cidr(node: Node) -> Network:
    """Read a CIDR; as Kubernetes does, the bits of the host are cut off."""
    text = node.text()
    try:
        if "/" not in text or not text.rpartition("/")[2].isdigit():
            raise AddressError(f"`{text}` is not a CIDR; wanted a prefix such as `10.20.0.0/16`")
        parse_address(text.rpartition("/")[0])
        return ip_network(text, strict=False)
    except (AddressError, ValueError) as error:
        raise node.fail(str(error) if isinstance(error, AddressError) else f"`{text}` is not a CIDR") from None


def _ports(node: Node) -> Ports:
    fields = {n: value for n, value in node.fields(("protocol", "port", "endPort")).items() if not is_null(value)}
    protocol = PROTOCOLS[fields["protocol"].choice(tuple(PROTOCOLS)) if "protocol" in fields else "TCP"]
    if "port" not in fields:
        if "endPort" in fields:
            raise fields["endPort"].fail("`endPort` without `port`")
        return Ports(protocol)
    port = fields["port"]
    if not port.text().isascii() or not port.text().isdigit() or port.quoted:
        if not _PORT_NAME.fullmatch(port.text()) or (port.text()[0].isdigit() and not port.quoted):
            raise port.fail(f"`{port.text()}` is not a port: a number, or a name of at most 15 of `a-z`, `0-9`, `-`")
        if "endPort" in fields:
            raise fields["endPort"].fail("`endPort` beside a port that is given by name")
        return Ports(protocol, name=port.text())
    first = port_number(port)
    last = port_number(fields["endPort"]) if "endPort" in fields else first
    if last < first:
        raise fields["endPort"].fail(f"the range of ports runs backwards: {first} to {last}")
    return Ports(protocol, first, last)


def _selector(node: Node) -> Selector:
    fields = node.fields(("matchLabels", "matchExpressions"))
    found: list[Requirement] = []
    if "matchLabels" in fields:
        found += [Requirement(key, Operator.IN, (value,)) for key, value in labels_of(fields["matchLabels"]).items()]
    for item in fields["matchExpressions"].items() if "matchExpressions" in fields else ():
        expression = item.fields(("key", "operator", "values"))
        key = needed(item, expression, "key").parse(label_key)
        operator = _OPERATORS[needed(item, expression, "operator").choice(tuple(_OPERATORS))]
        values = [one.parse(check_value) for one in expression["values"].items()] if "values" in expression else []
        if bool(values) is not (operator in {Operator.IN, Operator.NOT_IN}):
            raise item.fail("`In` and `NotIn` want `values`, `Exists` and `DoesNotExist` none")
        found.append(Requirement(key, operator, tuple(sorted(set(values)))))
    return Selector(tuple(sorted(set(found))))
