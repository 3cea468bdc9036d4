"""A policy's universe: all that its rules can tell apart, cut into atoms, so that a set of flows is a few bit masks.

A *look* is what one point sees of a flow: the side, both ends, protocol and port, the local process, the moment. Label
keys are independent of each other and of addresses, for the fleet may be any. So a look has a coordinate in each of
these dimensions, and there is nothing else that `policy.matches` asks for:

- the *scene*: side, address family, and whether the far end is a workload. The near one always is: it has the point;
- protocol and port, cut where the spans of rules begin and end;
- the address of each end, cut into the sets that the same networks hold. IPv4 and IPv6 share the numbers of atoms,
  which the scene tells apart; the family with fewer repeats one of its own;
- the moment, cut where rules start and expire, from now on; user, unit and program of the near end: the values that
  rules name, and any other;
- for each label key, the *pair* of its values at both ends: the values that rules name, none, and two others where
  the vocabulary does not close the key. Two, because `same` tells equal others from different ones, and no more.

Atoms that few rules hold have high numbers, so the highest of a mask is a good place to look for a flow that no other
rule speaks of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from cellwall.flows import Side
from cellwall.inventory import Fleet
from cellwall.labels import Operator, Requirement, Selector
from cellwall.policy import BUILT_IN, AddressBook, LabelKey, Rule
from cellwall.traffic import LAST_POINT, Address, PortSet

SCENE, PORT, FROM, TO, TIME, USER, UNIT, EXE = range(8)
PLAIN = 8
"""How many dimensions are not pairs of label values; those follow, two to a key."""
ALL, DIAGONAL, APART = range(3)
Pair = tuple[int, int, int]
"""Pairs of one key's values: a kind and the values at each end. `ALL` of them, the equal ones, or the unequal ones."""
EGRESS_SCENES, INGRESS_SCENES = 0b01010101, 0b10101010
FAR_WORKLOAD, IPV6_SCENES, IPV4_SCENES = 0b00001111, 0b00110011, 0b11001100
SCENES_OF = {Side.EGRESS: EGRESS_SCENES, Side.INGRESS: INGRESS_SCENES}
FIRST_USABLE = {4: 1 << 24, 6: 0x2000 << 112}
LOOPBACK = {4: (127 << 24, (128 << 24) - 1), 6: (1, 1)}


@dataclass(frozen=True, slots=True)
class Key:
    """The values of one label key, an atom each in this order; then none, then two others unless it is `closed`.

    `at` has the atom of each value."""

    name: str
    values: tuple[str, ...]
    closed: bool
    at: dict[str, int]

    @property
    def absent(self) -> int:
        """The bit of having no such label."""
        return 1 << len(self.values)

    @property
    def others(self) -> int:
        """The bits of values that no rule names."""
        return 0 if self.closed else 0b110 << len(self.values)

    @property
    def full(self) -> int:
        """All bits."""
        return (1 << (len(self.values) + (1 if self.closed else 3))) - 1


@dataclass(frozen=True, slots=True)
class Ground:
    """The addresses of one family: for each atom its ranges, for each book the atoms that it holds."""

    ranges: tuple[tuple[tuple[int, int], ...], ...]
    books: dict[AddressBook, int]
    single: int
    reachable: int

    def size(self) -> int:
        """How many atoms there are."""
        return len(self.ranges)


class Universe:
    """All that `rules` can tell apart from `now` on (seconds since the epoch), with label values as `vocabulary`
    closes them; a key of which `fleet` has other values is taken for open."""

    def __init__(
        self, rules: Iterable[Rule], vocabulary: Iterable[LabelKey] = (), fleet: Fleet | None = None, now: float = 0.0
    ) -> None:
        self.rules = (*BUILT_IN, *rules)
        self.now = now
        self.keys = tuple(_keys(self.rules, vocabulary, fleet))
        self.number = {key.name: at for at, key in enumerate(self.keys)}
        edges = {0, *(edge for rule in self.rules for span in rule.ports.spans for edge in (span.first, span.last + 1))}
        self.edges = tuple(sorted(edge for edge in edges if edge <= LAST_POINT))
        self._edge_at = {edge: at for at, edge in enumerate((*self.edges, LAST_POINT + 1))}
        whos = [who for rule in self.rules for who in (*rule.source, *rule.destination)]
        books = tuple(dict.fromkeys(who.network for who in whos if who.network is not None))
        self.grounds = {version: _ground(books, version) for version in (4, 6)}
        turns = {at for rule in self.rules for at in (rule.starts, rule.expires) if at is not None and at > now}
        self.moments = (now, *sorted(turns))
        self.named = tuple(
            tuple(sorted({one for who in whos if (one := getattr(who.identity, word)) is not None}))
            for word in ("user", "unit", "exe")
        )
        atoms = max(ground.size() for ground in self.grounds.values())
        self._atoms = atoms
        self.full = (
            0xFF,
            (1 << len(self.edges)) - 1,
            (1 << atoms) - 1,
            (1 << atoms) - 1,
            (1 << len(self.moments)) - 1,
            *((1 << (len(values) + 1)) - 1 for values in self.named),
        )
        self.full_pairs: tuple[Pair, ...] = tuple((ALL, key.full, key.full) for key in self.keys)
        self.free_pairs = tuple(far_apart(key.full, key.full) for key in self.keys)
        self._ports: dict[PortSet, int] = {}
        self._selectors: dict[Selector, dict[int, int] | None] = {}

    def ports(self, ports: PortSet) -> int:
        """Give the atoms of `ports`, which a rule has."""
        found = self._ports.get(ports)
        if found is None:
            found = 0
            for span in ports.spans:
                first, after = self._edge_at[span.first], self._edge_at[span.last + 1]
                found |= (1 << after) - (1 << first)
            self._ports[ports] = found
        return found

    def span(self, atom: int) -> tuple[int, int]:
        """Give the first and the last point of an atom of ports."""
        return self.edges[atom], (*self.edges, LAST_POINT + 1)[atom + 1] - 1

    def addresses(self, book: AddressBook | None, version: int, *, destination: bool) -> int:
        """Give the atoms of one family that `book` holds; nobody is reached at loopback, which no rule decides."""
        ground = self.grounds[version]
        found = ground.books[book] if book is not None else (1 << ground.size()) - 1
        if destination:
            found &= ground.reachable
        # The atoms that the other family has more are, in this one, its last.
        repeated = (1 << self._atoms) - (1 << ground.size())
        return found | repeated if found >> (ground.size() - 1) else found

    def times(self, rule: Rule) -> int:
        """Give the moments at which `rule` is in force."""
        return sum(1 << at for at, moment in enumerate(self.moments) if rule.in_time(moment))

    def selected(self, selector: Selector) -> dict[int, int] | None:
        """Give the values that `selector` lets each key have (keys by number); None when no labels match it."""
        if selector not in self._selectors:
            found: dict[int, int] | None = {}
            for one in selector.requirements:
                at = self.number[one.key]
                found[at] = found.get(at, self.keys[at].full) & values_of(one, self.keys[at])
            if not all(found.values()):
                found = None
            self._selectors[selector] = found
        return self._selectors[selector]

    def identity(self, dimension: int, value: str | None) -> int:
        """Give the atoms of a user, unit or program that a rule asks for."""
        return self.full[dimension] if value is None else 1 << self.named[dimension - USER].index(value)

    def singles(self, scene: int) -> int:
        """Give the atoms that are one address in a scene (by its number)."""
        return self.grounds[6 if IPV6_SCENES >> scene & 1 else 4].single


def far_apart(one: int, other: int) -> tuple[int, int]:
    """Give the highest atom of each of two masks; different ones where they have them."""
    mine, theirs = one.bit_length() - 1, other.bit_length() - 1
    if mine == theirs:
        if rest := other & ~(1 << theirs):
            return mine, rest.bit_length() - 1
        if rest := one & ~(1 << mine):
            return rest.bit_length() - 1, theirs
    return mine, theirs


def values_of(one: Requirement, key: Key) -> int:
    """Give the values of `key` that pass a requirement of it."""
    named = sum(1 << key.at[value] for value in one.values if value in key.at)
    match one.operator:
        case Operator.IN:
            return named
        case Operator.NOT_IN:
            return key.full & ~named
        case Operator.EXISTS:
            return key.full & ~key.absent
        case Operator.ABSENT:
            return key.absent


def _keys(rules: Iterable[Rule], vocabulary: Iterable[LabelKey], fleet: Fleet | None) -> Iterator[Key]:
    mentions: dict[str, Counter[str]] = {}
    for rule in rules:
        for key in rule.same:
            mentions.setdefault(key, Counter())
        for who in (*rule.source, *rule.destination):
            for one in who.selector.requirements if who.selector is not None else ():
                mentions.setdefault(one.key, Counter()).update(one.values)
    declared = {one.key: one.values for one in vocabulary}
    seen: dict[str, set[str]] = {key: set() for key in mentions}
    for workload in fleet.workloads if fleet is not None else ():
        for key, value in workload.labels.pairs:
            if key in seen:
                seen[key].add(value)
    for name, counted in sorted(mentions.items()):
        known = declared.get(name, ())
        closed = bool(known) and seen[name].union(counted) <= set(known)
        for value in known if closed else ():
            counted.setdefault(value, 0)
        values = sorted(counted, key=lambda value: (-counted[value], value))
        yield Key(name, tuple(values), closed, {value: at for at, value in enumerate(values)})


def _ground(books: tuple[AddressBook, ...], version: int) -> Ground:
    most = (1 << (32 if version == 4 else 128)) - 1
    opened: dict[int, list[int]] = {0: []}
    closed: dict[int, list[int]] = {}
    for at, book in enumerate(books):
        for prefix in book.prefixes:
            if prefix.version == version:
                opened.setdefault(int(prefix.network_address), []).append(at)
                closed.setdefault(int(prefix.broadcast_address) + 1, []).append(at)
    looped, after = LOOPBACK[version][0], LOOPBACK[version][1] + 1
    starts = sorted({*opened, *closed, looped, after} - {most + 1})
    active: Counter[int] = Counter()
    held: dict[frozenset[int], list[tuple[int, int]]] = {}
    open_to_all: set[frozenset[int]] = set()
    for first, last in zip(starts, [*(start - 1 for start in starts[1:]), most], strict=True):
        active.subtract(closed.get(first, ()))
        active.update(opened.get(first, ()))
        active = +active
        members = frozenset(active)
        held.setdefault(members, []).append((first, last))
        if not looped <= first < after:
            open_to_all.add(members)
    sizes = {members: sum(last - first + 1 for first, last in spans) for members, spans in held.items()}
    # The last atom is the one that is repeated, so it is not a single address, and somebody can be reached there.
    ordered = sorted(held, key=lambda one: (one in open_to_all, sizes[one] > 1, -len(one), sorted(one)))
    atoms: dict[AddressBook, int] = dict.fromkeys(books, 0)
    single = reachable = 0
    for at, members in enumerate(ordered):
        for book in members:
            atoms[books[book]] |= 1 << at
        single |= (sizes[members] == 1) << at
        reachable |= (members in open_to_all) << at
    return Ground(tuple(tuple(held[members]) for members in ordered), atoms, single, reachable)


def usable(ground: Ground, atom: int, version: int, *, destination: bool) -> Iterator[Address]:
    """Give up to a few addresses of an atom, those first that a machine can have; a `destination` is no loopback."""
    make = IPv4Address if version == 4 else IPv6Address
    spans = ground.ranges[min(atom, ground.size() - 1)]
    looped = LOOPBACK[version]
    for lowest in (FIRST_USABLE[version], 0):
        for first, last in spans:
            for number in dict.fromkeys((max(first, lowest), max(first, lowest) + 1, last)):
                if lowest <= number <= last and not (destination and looped[0] <= number <= looped[1]):
                    yield make(number)
