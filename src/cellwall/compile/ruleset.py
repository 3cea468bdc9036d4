"""What one enforcement point is to hold, in no point's own words.

Two channels, separately versioned: a `Ruleset` says what may pass, per class of peers, and changes seldom; `Members`
say which address is in which class, and change often. A class is a set of addresses that no rule tells apart. Class 0
is everyone: its entries hold for every peer, and for the addresses that are in no class.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address

from cellwall.flows import Side
from cellwall.policy import NOBODY, Action, Identity, Mode, OrderKind
from cellwall.traffic import Address

Members = Mapping[bytes, int]
"""Address as 4 or 16 bytes in network order → class number, 1 to 2**32 - 1."""

EVERYONE = 0


@dataclass(frozen=True, slots=True, order=True)
class RuleCard:
    """What a point must know of a rule. `number`, 1 to 2**28 - 1, is made from the id and stays the same for it.

    `expires` is in seconds since the epoch, UTC. `place` is file:line:column in the documents.
    """

    number: int
    id: str
    action: Action
    log: bool = False
    expires: float | None = None
    place: str = ""
    services: str = ""


@dataclass(frozen=True, slots=True, order=True)
class ClassCard:
    """A class in words: the labels that its members share, or the networks that hold them."""

    number: int
    title: str


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """For peers of one class, the points `first` to `last` (see `cellwall.traffic.ports`) get `action`.

    `rules` are the numbers of the rules that decided, sorted by rule id."""

    peer: int
    first: int
    last: int
    action: Action
    rules: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Face:
    """One local side of a point: these local addresses (none: whatever other addresses), perhaps as one identity.

    The entries of one peer class do not overlap. A class's entry decides before one of class 0; where neither has
    one, the default of the mode does. An identity narrows egress only, and such a face has no ingress entries.
    """

    addresses: tuple[Address, ...]
    identity: Identity = NOBODY
    ingress: tuple[Entry, ...] = ()
    egress: tuple[Entry, ...] = ()

    def entries(self, side: Side) -> tuple[Entry, ...]:
        """Give the entries of one side."""
        return self.ingress if side is Side.INGRESS else self.egress


@dataclass(frozen=True, slots=True, order=True)
class NetworkSpan:
    """The addresses `first` to `last` (integers, of IP `version` 4 or 6) that no member owns are in `peer` class."""

    version: int
    first: int
    last: int
    peer: int


@dataclass(frozen=True, slots=True)
class LifelineCard:
    """A built-in lifeline: these points, at these sides; `to` these addresses only, where there are any."""

    id: str
    spans: tuple[tuple[int, int], ...]
    sides: tuple[Side, ...]
    to: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class AddressSpan:
    """The addresses `first` to `last`, inclusive (integers, of IP `version` 4 or 6)."""

    version: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """Flows from any of `sources` to any of `destinations`, spans in order and apart; every address where none are."""

    sources: tuple[AddressSpan, ...] = ()
    destinations: tuple[AddressSpan, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class OrderCard:
    """An order as a point enforces it, both its own end and the peer's resolved to addresses.

    `number` is over those of rules. `ways` are alternatives, `spans` points (see `cellwall.traffic.ports`); `exempt`
    are the pairs of source and destination, packed, that it does not speak of. `expires` is in seconds since the epoch,
    UTC: the kernel itself ends it then."""

    number: int
    id: str
    kind: OrderKind
    ways: tuple[Way, ...]
    spans: tuple[tuple[int, int], ...]
    exempt: tuple[tuple[bytes, bytes], ...] = ()
    expires: float | None = None

    @property
    def shuts(self) -> bool:
        """Whether it denies; else it allows."""
        return self.kind is not OrderKind.OPEN

    @property
    def over_lifelines(self) -> bool:
        """Whether most lifelines do not hold against it."""
        return self.kind is OrderKind.SEAL

    def speaks_of(self, source: Address, destination: Address, at: int) -> bool:
        """Say whether a flow to the point `at` is one of its."""
        return (
            any(first <= at <= last for first, last in self.spans)
            and (source.packed, destination.packed) not in self.exempt
            and any(_holds(one.sources, source) and _holds(one.destinations, destination) for one in self.ways)
        )


def _holds(spans: tuple[AddressSpan, ...], address: Address) -> bool:
    if not spans:
        return True
    at = bisect_right(spans, (address.version, int(address)), key=lambda span: (span.version, span.first)) - 1
    return at >= 0 and spans[at].version == address.version and int(address) <= spans[at].last


@dataclass(frozen=True, slots=True)
class Canary:
    """A connection that must work before a change is confirmed: one of `addresses` on TCP `port` is enough."""

    id: str
    addresses: tuple[Address, ...]
    port: int


@dataclass(frozen=True)
class Ruleset:
    """What the point of one workload is to hold, apart from its `Members`. Equal content is equal value."""

    workload: str
    revision: int
    mode: Mode
    rules: tuple[RuleCard, ...] = ()
    classes: tuple[ClassCard, ...] = ()
    faces: tuple[Face, ...] = ()
    networks: tuple[NetworkSpan, ...] = ()
    lifelines: tuple[LifelineCard, ...] = ()
    canaries: tuple[Canary, ...] = ()
    orders: tuple[OrderCard, ...] = ()

    @cached_property
    def rule_by_number(self) -> dict[int, RuleCard]:
        """Rule cards by number."""
        return {card.number: card for card in self.rules}

    @cached_property
    def id_by_number(self) -> dict[int, str]:
        """The ids of rules and orders, by number."""
        return {card.number: card.id for card in (*self.rules, *self.orders)}


@dataclass(frozen=True, slots=True)
class Misfit:
    """A rule that a point cannot express, and why. It is then not in force at that point."""

    rule: str
    reason: str


def pack(address: Address) -> bytes:
    """Give an address as the key of `Members`."""
    return address.packed


def unpack(packed: bytes) -> Address:
    """Give the address of a key of `Members`."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def class_of(networks: tuple[NetworkSpan, ...], members: Members, address: Address) -> int:
    """Give the class of a peer: as a member, else by network, else `EVERYONE`."""
    number = members.get(address.packed)
    if number is not None:
        return number
    at = bisect_right(networks, (address.version, int(address)), key=lambda span: (span.version, span.first)) - 1
    if at >= 0 and networks[at].version == address.version and int(address) <= networks[at].last:
        return networks[at].peer
    return EVERYONE
