"""Who is where: the fleet cut into classes, the sets of addresses that no rule tells apart; kept by difference.

    labels of a workload ──LabelIndex──▶ the selectors that match ─┐
    keys that rules want shared ──▶ the values of these ───────────┼──▶ class ──▶ number, from its content alone
    address ──networks──▶ the networks that hold it ───────────────┘

INVARIANT: what is here depends on the selectors, shared keys, networks and workloads that are in, never on the order in
which they came. The numbers too: of two classes whose content would give the same number, the one with the smaller
signature has it, and the other the next one that is free (ordered hashing: Amble and Knuth, 1974).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, pairwise

from pyroaring import BitMap

from cellwall.compile.carried import Part
from cellwall.compile.ruleset import EVERYONE, ClassCard, NetworkSpan
from cellwall.inventory import Workload
from cellwall.labels import LabelIndex, Labels, Match, Operator, Selector
from cellwall.policy import AddressBook, Who

Pair = tuple[str, str]
Values = tuple[str | None, ...]
MOST_NUMBER = (1 << 32) - 1
NO_NETWORKS: frozenset[str] = frozenset()


@dataclass(eq=False, slots=True)
class Class:
    """A set of addresses that no rule tells apart, and what makes it one.

    `slot` is a place that is free to use again when the class is gone; `number`, 1 to 2**32 - 1, is what points know
    it by, and 0 (`EVERYONE`) where rules can tell nothing at all of its addresses. `members` are the addresses of
    workloads, packed, with the workload; `spans` counts the stretches of networks that no workload need be in. A class
    that nobody is in is `gone`, and never comes back: its like is another one."""

    matches: tuple[Match, ...]
    shared: tuple[Pair, ...]
    networks: frozenset[str]
    signature: int = 0
    slot: int = 0
    number: int = EVERYONE
    probe: int = 0
    spans: int = 0
    gone: bool = False
    members: dict[bytes, Workload] = field(default_factory=dict[bytes, Workload])
    frozen: Part | None = None
    named: tuple[str, ...] | None = None
    carded: ClassCard | None = None

    @property
    def selectors(self) -> Iterator[Selector]:
        """The selectors that its workloads match."""
        return chain.from_iterable(match.selectors for match in self.matches)

    def meets(self, who: Who) -> bool:
        """Say whether `who`, apart from any identity, is met."""
        if who.selector is not None:
            return any(who.selector in match.selectors for match in self.matches)
        return who.network is None or who.network.name in self.networks

    @property
    def title(self) -> str:
        """The class in words, from its content alone: the labels that it is known to have, and its networks."""
        pairs = {
            (one.key, one.values[0])
            for selector in self.selectors
            for one in selector.requirements
            if one.operator is Operator.IN and len(one.values) == 1
        }
        labels = ",".join(f"{key}={value}" for key, value in sorted(pairs.union(self.shared)))
        networks = " ".join(f"network:{name}" for name in sorted(self.networks))
        return f"{labels} {networks}".strip() or " & ".join(sorted(map(str, self.selectors)))

    @property
    def card(self) -> ClassCard:
        """The class in words, for a point."""
        if self.carded is None or self.carded.number != self.number:
            self.carded = ClassCard(self.number, self.title)
        return self.carded

    @property
    def agents(self) -> tuple[str, ...]:
        """The names of its members that have a point of their own, once for each of their addresses here."""
        if self.named is None:
            self.named = tuple([one.name for one in self.members.values() if one.agent])
        return self.named

    @property
    def part(self) -> Part:
        """Its members with its number; the same object until they change."""
        if self.frozen is None:
            self.frozen = Part(dict.fromkeys(sorted(self.members), self.number))
        return self.frozen


@dataclass(eq=False, slots=True)
class _Kin:
    """Workloads whose labels no selector can tell apart, and the classes of their addresses by network."""

    values: Values
    matches: tuple[Match, ...]
    shared: tuple[Pair, ...]
    addresses: dict[bytes, Workload] = field(default_factory=dict[bytes, Workload])
    classes: dict[frozenset[str], Class] = field(default_factory=dict[frozenset[str], Class])
    labels: dict[Labels, int] = field(default_factory=dict[Labels, int])


@dataclass
class Moves:
    """What changed: addresses with the number that they had and have; classes that came, went or are called anew."""

    addresses: dict[bytes, tuple[int, int]] = field(default_factory=dict[bytes, tuple[int, int]])
    came: dict[int, Class] = field(default_factory=dict[int, Class])
    went: list[Class] = field(default_factory=list[Class])
    renumbered: dict[int, Class] = field(default_factory=dict[int, Class])
    cuts: bool = False

    def moved(self, packed: bytes, before: int, after: int) -> None:
        """Note that an address has another number."""
        first = self.addresses[packed][0] if packed in self.addresses else before
        if first == after:
            self.addresses.pop(packed, None)
        else:
            self.addresses[packed] = first, after


class Cut:
    """The classes of a fleet. `keys` are the label keys that selectors and shared keys may name.

    Raises KeyError where a selector names another key: then cut anew."""

    def __init__(self, keys: Iterable[str], shared: Iterable[str], books: Collection[AddressBook]) -> None:
        self._index = LabelIndex(sorted({*keys, *shared}))
        self.shared_keys = tuple(sorted(set(shared)))
        self._shared_places = tuple((self._index.keys.index(key), key) for key in self.shared_keys)
        self._kin: dict[Values, _Kin] = {}
        self._kin_of: dict[Labels, _Kin] = {}
        self._classes: dict[object, Class] = {}
        self.slots: list[Class | None] = []
        self._free: list[int] = []
        self.present = BitMap()
        self._by_match: dict[Match, BitMap] = {}
        self._by_pair: dict[Pair, BitMap] = {}
        self._by_network: dict[str, BitMap] = {}
        self._numbers: dict[int, Class] = {}
        self._displaced: dict[int, Class] = {}
        self.places: dict[bytes, Class] = {}
        self.moves = Moves()
        self.noting = False
        """Whether it is noted which addresses move; who cuts a whole fleet need not know."""
        self.turn = 0
        """Another number whenever the members of some class, or its number, are others."""
        self._spans: list[tuple[NetworkSpan, Class]] = []
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        self._ends: dict[int, list[tuple[int, frozenset[str]]]] = {4: [], 6: []}
        self.books: tuple[AddressBook, ...] = ()
        if books:
            self.lay(books)

    # --- asked ---

    @property
    def keys(self) -> tuple[str, ...]:
        """The label keys that selectors may name."""
        return self._index.keys

    @property
    def classes(self) -> Iterator[Class]:
        """All classes but the one of which rules can tell nothing."""
        return (one for one in self.slots if one is not None)

    @property
    def spans(self) -> tuple[NetworkSpan, ...]:
        """The stretches of networks, with the number of the class of those addresses that no workload owns."""
        return tuple(NetworkSpan(s.version, s.first, s.last, one.number) for s, one in self._spans)

    def at(self, slot: int) -> Class:
        """Give the class of a slot."""
        found = self.slots[slot]
        assert found is not None
        return found

    def numbered(self, number: int) -> Class | None:
        """Give the class that has a number."""
        return self._numbers.get(number)

    def matching(self, who: Who) -> BitMap:
        """Give the slots of the classes that meet `who`, apart from any identity."""
        if who.selector is not None:
            found = [self._by_match[match] for match in self._index.having(who.selector) if match in self._by_match]
            return found[0] if len(found) == 1 else BitMap.union(*found) if found else BitMap()
        return self.present if who.network is None else self._by_network.get(who.network.name, BitMap())

    def sharing(self, values: Iterable[Pair]) -> BitMap:
        """Give the slots of the classes that have all these values of shared keys."""
        found = [self._by_pair.get(pair, BitMap()) for pair in values]
        return BitMap.intersection(*found) if len(found) > 1 else found[0]

    def networks_of(self, version: int, at: int) -> frozenset[str]:
        """Give the names of the networks that hold an address, given as an integer."""
        starts = self._starts[version]
        if not starts or (place := bisect_right(starts, at) - 1) < 0:
            return NO_NETWORKS
        last, names = self._ends[version][place]
        return names if at <= last else NO_NETWORKS

    def edges_of(self, version: int) -> Iterator[int]:
        """Give the addresses, as integers, at which a network begins or has just ended."""
        for first, (last, _) in zip(self._starts[version], self._ends[version], strict=True):
            yield first
            if last + 1 < 1 << (32 if version == 4 else 128):
                yield last + 1

    # --- changed: workloads ---

    def put(self, packed: bytes, workload: Workload) -> None:
        """Say who has an address, whose labels may have changed."""
        kin = self._kin_of.get(workload.labels) or self._find_kin(workload.labels)
        before = self.places.get(packed)
        if before is not None:
            held = before.members[packed]
            old = self._kin_of[held.labels]
            if old is kin:
                before.members[packed] = kin.addresses[packed] = workload
                before.named = None
                self._count(kin, held.labels, -1)
                self._count(kin, workload.labels, 1)
                return
            self._leave(packed, before, old)
        self._count(kin, workload.labels, 1)
        kin.addresses[packed] = workload
        self._join(packed, workload, kin, before)

    def drop(self, packed: bytes) -> None:
        """Say that nobody has an address any more."""
        before = self.places.pop(packed)
        self._leave(packed, before, self._kin_of[before.members[packed].labels])
        self.moves.moved(packed, before.number, EVERYONE)

    def _leave(self, packed: bytes, one: Class, kin: _Kin) -> None:
        self._count(kin, one.members[packed].labels, -1)
        del one.members[packed], kin.addresses[packed]
        one.frozen = one.named = None
        self.turn += 1
        if not one.members:
            kin.classes.pop(one.networks, None)
            self._leave_class(one)
        if not kin.addresses:
            del self._kin[kin.values]
            self._index.drop(kin.values)

    def _join(self, packed: bytes, workload: Workload, kin: _Kin, before: Class | None) -> None:
        networks = NO_NETWORKS
        if self._spans:
            networks = self.networks_of(4 if len(packed) == 4 else 6, int.from_bytes(packed, "big"))
        one = kin.classes.get(networks)
        # Workloads of other values may have been in it too, and have left last.
        if one is None or one.gone:
            one = kin.classes[networks] = self._class(kin.matches, kin.shared, networks)
        one.members[packed] = workload
        one.frozen = one.named = None
        self.turn += 1
        self.places[packed] = one
        if self.noting:
            self.moves.moved(packed, EVERYONE if before is None else before.number, one.number)

    def _find_kin(self, labels: Labels) -> _Kin:
        values = self._index.values(labels)
        kin = self._kin.get(values)
        if kin is None:
            kin = self._kin[values] = _Kin(values, self._index.add(values), self._shared_of(values))
        self._kin_of[labels] = kin
        return kin

    def _count(self, kin: _Kin, labels: Labels, step: int) -> None:
        count = kin.labels.get(labels, 0) + step
        if count:
            kin.labels[labels] = count
            if count == step:
                self._kin_of[labels] = kin
        else:
            del kin.labels[labels], self._kin_of[labels]

    def _shared_of(self, values: Values) -> tuple[Pair, ...]:
        return tuple([(key, value) for place, key in self._shared_places if (value := values[place]) is not None])

    # --- changed: selectors and networks ---

    def watch(self, selectors: Iterable[Selector]) -> None:
        """Let classes be told apart by more selectors."""
        self._settle({values: None for selector in selectors for values in self._index.watch(selector)})

    def ignore(self, selectors: Iterable[Selector]) -> None:
        """Let classes no longer be told apart by some selectors."""
        self._settle({values: None for selector in selectors for values in self._index.ignore(selector)})

    def _settle(self, touched: Iterable[Values]) -> None:
        """Give the workloads of labels that now match otherwise their classes."""
        for values in touched:
            kin = self._kin[values]
            matches = self._index.matching(values)
            if matches != kin.matches:
                kin.matches = matches
                self._resettle(kin)

    def _resettle(self, kin: _Kin) -> None:
        homes, kin.classes = kin.classes, {}
        for packed, workload in kin.addresses.items():
            before = self.places[packed]
            del before.members[packed]
            before.frozen = before.named = None
            self._join(packed, workload, kin, before)
        for one in homes.values():
            if not one.members:
                self._leave_class(one)

    def lay(self, books: Collection[AddressBook]) -> None:
        """Let classes be told apart by these networks, and no others."""
        left = self._spans
        self._starts, self._ends = {4: [], 6: []}, {4: [], 6: []}
        self._spans = []
        self.moves.cuts = True
        for (version, first, last), names in cut_networks(books):
            self._starts[version].append(first)
            self._ends[version].append((last, names))
            one = self._class((), (), names)
            one.spans += 1
            self._spans.append((NetworkSpan(version, first, last, 0), one))
        self.books = tuple(sorted(books, key=lambda book: book.name))
        for kin in self._kin.values():
            self._resettle(kin)
        for _, one in left:
            one.spans -= 1
            self._leave_class(one)

    # --- classes ---

    def _class(self, matches: tuple[Match, ...], shared: tuple[Pair, ...], networks: frozenset[str]) -> Class:
        key = frozenset(matches), shared, networks
        one = self._classes.get(key)
        if one is None:
            one = self._classes[key] = Class(matches, shared, networks)
            if matches or shared or networks:
                self._enter_class(one)
        return one

    def _enter_class(self, one: Class) -> None:
        one.slot = self._free.pop() if self._free else len(self.slots)
        if one.slot == len(self.slots):
            self.slots.append(one)
        else:
            self.slots[one.slot] = one
        for table, names in self._listed(one):
            for name in names:
                table.setdefault(name, BitMap()).add(one.slot)
        self.present.add(one.slot)
        one.signature = _signature(one)
        one.number = self._take(one)
        self.moves.came[one.slot] = one

    def _leave_class(self, one: Class) -> None:
        if one.members or one.spans or one.gone:
            return
        one.gone = True
        del self._classes[frozenset(one.matches), one.shared, one.networks]
        if one.number == EVERYONE:
            return
        for table, names in self._listed(one):
            for name in names:
                table[name].discard(one.slot)
                if not table[name]:
                    del table[name]
        self.present.discard(one.slot)
        self.slots[one.slot] = None
        self._free.append(one.slot)
        if self.moves.came.pop(one.slot, None) is not one:
            self.moves.went.append(one)
        del self._numbers[one.number]
        self._displaced.pop(one.signature, None)
        # INVARIANT: who had to step aside for `one` moves up.
        for other in self._displaced.values():
            del self._numbers[other.number]
        for other in list(self._displaced.values()):
            self._renumber(other, self._take(other))

    def _listed(self, one: Class) -> tuple[tuple[dict[object, BitMap], Iterable[object]], ...]:
        return (
            (self._by_match, one.matches),
            (self._by_pair, one.shared),
            (self._by_network, one.networks),
        )  # type: ignore[return-value]

    def _take(self, one: Class) -> int:
        """Find a number for a class, which the caller sets; others may have to step aside."""
        one.probe = 0
        mine = EVERYONE
        taker, number = one, _step(one)
        while (holder := self._numbers.get(number)) is not None:
            if taker.signature < holder.signature:
                mine = self._seat(taker, number, one, mine)
                taker = holder
            taker.probe += 1
            number = _step(taker)
        return self._seat(taker, number, one, mine)

    def _seat(self, taker: Class, number: int, newcomer: Class, mine: int) -> int:
        self._numbers[number] = taker
        self._note(taker)
        if taker is newcomer:
            return number
        self._renumber(taker, number)
        return mine

    def _note(self, one: Class) -> None:
        if one.probe:
            self._displaced[one.signature] = one
        else:
            self._displaced.pop(one.signature, None)

    def _renumber(self, one: Class, number: int) -> None:
        if one.number == number:
            return
        for packed in one.members:
            self.moves.moved(packed, one.number, number)
        one.number, one.frozen = number, None
        self.turn += 1
        self.moves.renumbered[one.slot] = one

    def take_moves(self) -> Moves:
        """Give what changed since this was last asked."""
        moves, self.moves = self.moves, Moves()
        return moves


def _step(one: Class) -> int:
    return (one.signature + one.probe) % MOST_NUMBER + 1


@lru_cache(maxsize=1 << 17)
def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")


def _signature(one: Class) -> int:
    """Give a number of 128 bits for the content of a class: the sum of those of its parts, in whatever order."""
    total = sum(_hash(f"{key}={value}") for key, value in one.shared) + sum(_hash(f"@{name}") for name in one.networks)
    return (total + sum(map(_match_signature, one.matches))) & ((1 << 128) - 1)


@lru_cache(maxsize=1 << 17)
def _match_signature(match: Match) -> int:
    return sum(_hash(f"[{selector}]") for selector in match.selectors)


Stretch = tuple[int, int, int]


def cut_networks(books: Iterable[AddressBook]) -> list[tuple[Stretch, frozenset[str]]]:
    """Cut the prefixes of `books` into disjoint stretches, sorted, each with the names of all books that hold it."""
    starts: defaultdict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
    for book in books:
        for prefix in book.prefixes:
            first, last = int(prefix.network_address), int(prefix.broadcast_address)
            starts[prefix.version, first].append((1, book.name))
            starts[prefix.version, last + 1].append((-1, book.name))
    found: list[tuple[Stretch, frozenset[str]]] = []
    open_books: Tally[str] = Tally()
    edges = sorted(starts)
    for edge, following in pairwise([*edges, (0, 0)]):
        for step, name in starts[edge]:
            open_books[name] += step
            if not open_books[name]:
                del open_books[name]
        if open_books:
            version, first = edge
            found.append(((version, first, following[1] - 1), frozenset(open_books)))
    return found
