"""Who talks to whom: flow records, seen from afar, as a map of groups and the services between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, ip_network

from cellwall.flows.record import FlowKey, FlowRecord, Outcome, Side
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.traffic import Address, Network, point, port_name

SUBNET = {4: 24, 6: 64}
"""Prefix lengths by which unknown addresses are drawn as one, per IP version."""


class Transmission(StrEnum):
    """Whom a packet is for: one, those of a group, or all of a link."""

    UNICAST = "unicast"
    MULTICAST = "multicast"
    BROADCAST = "broadcast"


def transmission(destination: Address) -> Transmission:
    """Say whom packets to `destination` are for; a subnet's own broadcast address cannot be told from a host's."""
    if destination.is_multicast:
        return Transmission.MULTICAST
    if destination == IPv4Address("255.255.255.255"):
        return Transmission.BROADCAST
    return Transmission.UNICAST


@dataclass(frozen=True, slots=True)
class Tally:
    """Connections of one flow, both ends merged: let through, denied by either end, and let through although full
    enforcement would deny them."""

    allowed: int = 0
    denied: int = 0
    would_deny: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.allowed + other.allowed, self.denied + other.denied, self.would_deny + other.would_deny)


def tally(records: Iterable[FlowRecord]) -> Tally:
    """Count the connections that `records`, all of one key, speak of.

    What egress let through arrives at ingress, so the larger of both ends' counts is that of all, and what either
    end denied adds up."""
    total, denied, would = (dict.fromkeys(Side, 0) for _ in range(3))
    for one in records:
        total[one.side] += one.connections
        if one.outcome is Outcome.DENIED:
            denied[one.side] += one.connections
        elif one.would is Outcome.DENIED:
            would[one.side] += one.connections
    refused = sum(denied.values())
    passed = max(total[Side.EGRESS], denied[Side.EGRESS] + total[Side.INGRESS]) - refused
    return Tally(passed, refused, min(max(would.values()), passed))


class NodeKind(StrEnum):
    """What stands at a node: workloads that share labels, one workload, a named network, or unknown addresses."""

    GROUP = "group"
    WORKLOAD = "workload"
    NETWORK = "network"
    OUTSIDE = "outside"
    CAST = "cast"


@dataclass(frozen=True, slots=True)
class Node:
    """One place of a map. `id` is unique in it; `workloads` are names, `addresses` those seen outside the fleet."""

    id: str
    kind: NodeKind
    labels: Labels = Labels()  # noqa: RUF009 - immutable
    workloads: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """All flows from one node to another over one service, `tcp/5432` say.

    `flows` counts distinct keys. `missing` are the sides where an agent should have reported and did not: dead, new,
    or something between dropped the packets. `processes` names the programs of source and destination, as far as
    known. Times are seconds since the epoch, UTC."""

    source: str
    destination: str
    service: str
    transmission: Transmission
    tally: Tally
    flows: int
    first_seen: float
    last_seen: float
    missing: tuple[Side, ...] = ()
    processes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


@dataclass(frozen=True, slots=True)
class FleetMap:
    """Nodes in order of id, edges in order of source, destination and service."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()


def draw_map(
    records: Iterable[FlowRecord],
    fleet: Fleet,
    group: Sequence[str] = ("app", "role"),
    networks: Mapping[str, Sequence[Network]] | None = None,
    *,
    casts: bool = False,
) -> FleetMap:
    """Draw who talked to whom.

    Workloads that share the values of the label keys `group` are one node; one that has none of these keys, and
    every one when `group` is empty, is a node of its own. Other addresses belong to the longest prefix among
    `networks` (by name), else to their /24 or /64 where several of it were seen, else stand alone. Multicast and
    broadcast are drawn only with `casts`. All workloads are there, also those that nobody talks to.
    """
    given = [one for one in records if casts or transmission(one.key.destination) is Transmission.UNICAST]
    places = _Places(fleet, tuple(group), networks or {}, given)
    by_key: defaultdict[FlowKey, list[FlowRecord]] = defaultdict(list)
    for one in given:
        by_key[one.key].append(one)
    edges: defaultdict[tuple[str, str, int], list[FlowKey]] = defaultdict(list)
    for key in by_key:
        source, destination = fleet.by_address.get(key.source), fleet.by_address.get(key.destination)
        if source is None or source is not destination:
            at = places.of(key.source), places.of(key.destination), point(key.protocol, key.port)
            edges[at].append(key)
    return FleetMap(
        places.nodes(),
        tuple(_edge(at, keys, by_key, fleet) for at, keys in sorted(edges.items(), key=lambda item: item[0])),
    )


def _edge(
    at: tuple[str, str, int], keys: list[FlowKey], by_key: Mapping[FlowKey, list[FlowRecord]], fleet: Fleet
) -> Edge:
    records = [one for key in keys for one in by_key[key]]
    programs = {side: sorted({one.process.name for one in records if one.side is side} - {""}) for side in Side}
    total = Tally()
    missing: set[Side] = set()
    for key in keys:
        total += tally(by_key[key])
        missing |= _missing(key, by_key[key], fleet)
    return Edge(
        at[0],
        at[1],
        port_name(at[2]),
        transmission(keys[0].destination),
        total,
        len(keys),
        min(one.first_seen for one in records),
        max(one.last_seen for one in records),
        tuple(side for side in Side if side in missing),
        (tuple(programs[Side.EGRESS]), tuple(programs[Side.INGRESS])),
    )


def _missing(key: FlowKey, records: list[FlowRecord], fleet: Fleet) -> set[Side]:
    source, destination = fleet.by_address.get(key.source), fleet.by_address.get(key.destination)
    wanted = {side for side, end in ((Side.EGRESS, source), (Side.INGRESS, destination)) if end and end.agent}
    if all(one.outcome is Outcome.DENIED for one in records if one.side is Side.EGRESS) and any(
        one.side is Side.EGRESS for one in records
    ):
        wanted.discard(Side.INGRESS)  # Nothing left the source, so nothing could arrive.
    return wanted - {one.side for one in records}


class _Places:
    """Which node each address belongs to."""

    def __init__(
        self, fleet: Fleet, group: tuple[str, ...], networks: Mapping[str, Sequence[Network]], seen: list[FlowRecord]
    ) -> None:
        self._group = group
        self._fleet = fleet
        self._networks = sorted(
            ((network, name) for name, prefixes in networks.items() for network in prefixes),
            key=lambda pair: (-pair[0].prefixlen, pair[1]),
        )
        self._groups: defaultdict[str, list[Workload]] = defaultdict(list)
        self._at: dict[Address, str] = {}
        for workload in fleet.workloads:
            self._groups[self._of_workload(workload)].append(workload)
        self._outside: defaultdict[str, set[Address]] = defaultdict(set)
        unknown = {end for one in seen for end in (one.key.source, one.key.destination)} - fleet.by_address.keys()
        near: defaultdict[Network, int] = defaultdict(int)
        for address in unknown:
            near[_subnet(address)] += 1
        for address in unknown:
            name = self._of_outside(address, several=near[_subnet(address)] > 1)
            self._at[address] = name
            self._outside[name].add(address)

    def of(self, address: Address) -> str:
        """Give the id of the node of `address`."""
        workload = self._fleet.by_address.get(address)
        return self._of_workload(workload) if workload is not None else self._at[address]

    def nodes(self) -> tuple[Node, ...]:
        """Give all nodes in order of id."""
        nodes = [
            Node(
                name,
                NodeKind.GROUP if shared else NodeKind.WORKLOAD,
                shared or members[0].labels,
                tuple(one.name for one in members),
            )
            for name, members in self._groups.items()
            for shared in [members[0].labels.only(self._group)]
        ]
        for name, addresses in self._outside.items():
            kind = NodeKind.NETWORK if name.startswith("network:") else NodeKind.OUTSIDE
            kind = NodeKind.CAST if name in set(Transmission) else kind
            ordered = sorted(addresses, key=lambda one: (one.version, int(one)))
            nodes.append(Node(name, kind, addresses=tuple(ordered)))
        return tuple(sorted(nodes, key=lambda node: node.id))

    def _of_workload(self, workload: Workload) -> str:
        shared = workload.labels.only(self._group)
        if not shared:
            return f"workload:{workload.name}"
        return ",".join(f"{key}={shared[key]}" for key in self._group if key in shared)

    def _of_outside(self, address: Address, *, several: bool) -> str:
        cast = transmission(address)
        if cast is not Transmission.UNICAST:
            return str(cast)
        for network, name in self._networks:
            if address in network:
                return f"network:{name}"
        return str(_subnet(address)) if several else str(address)


def _subnet(address: Address) -> Network:
    return ip_network((address, SUBNET[address.version]), strict=False)
