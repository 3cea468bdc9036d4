"""Cut the fleet into classes: the sets of addresses that no rule in force tells apart."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import chain, pairwise
from typing import TypeVar

from cellwall.compile.ruleset import EVERYONE, ClassCard, NetworkSpan
from cellwall.inventory import Fleet
from cellwall.labels import Labels, Operator, Selector
from cellwall.policy import AddressBook, Policy, Rule, Who
from cellwall.traffic import Address

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Class:
    """What rules can tell of an address: the selectors that its workload matches, the values of the keys that rules
    want shared, and the networks that hold it."""

    selectors: frozenset[Selector] = frozenset()
    shared: tuple[tuple[str, str], ...] = ()
    networks: frozenset[str] = frozenset()

    def matches(self, who: Who) -> bool:
        """Say whether `who`, apart from any identity, is met."""
        if who.selector is not None:
            return who.selector in self.selectors
        return who.network is None or who.network.name in self.networks

    @property
    def signature(self) -> str:
        """The class in one line, the same for the same policy and fleet."""
        selectors = " & ".join(sorted(str(selector) for selector in self.selectors))
        shared = ",".join(f"{key}={value}" for key, value in self.shared)
        return f"{selectors} | {shared} | {','.join(sorted(self.networks))}"


NOTHING_SPECIAL = Class()


@dataclass(frozen=True)
class Atlas:
    """Who is where: the class of every address, each class with a number that its content alone determines."""

    numbers: dict[Class, int]
    classes: dict[int, Class]
    titles: dict[int, str]
    addresses: dict[Address, int]
    members: dict[int, tuple[bytes, ...]]
    networks: tuple[NetworkSpan, ...]

    def matching(self, who: Who) -> frozenset[int]:
        """Give the classes that meet `who` (not `EVERYONE`)."""
        if who.selector is not None:
            return self._by_selector.get(who.selector, frozenset())
        return frozenset(self.classes) if who.network is None else self._by_network.get(who.network.name, frozenset())

    @cached_property
    def _by_selector(self) -> dict[Selector, frozenset[int]]:
        return _inverted((selector, number) for number, one in self.classes.items() for selector in one.selectors)

    def sharing(self, values: Collection[tuple[str, str]]) -> frozenset[int]:
        """Give the classes that have all these `values` of keys that rules want shared."""
        found = [self._by_value.get(value, frozenset[int]()) for value in values]
        return found[0].intersection(*found[1:])

    @cached_property
    def _by_value(self) -> dict[tuple[str, str], frozenset[int]]:
        return _inverted((value, number) for number, one in self.classes.items() for value in one.shared)

    @cached_property
    def _by_network(self) -> dict[str, frozenset[int]]:
        return _inverted((name, number) for number, one in self.classes.items() for name in one.networks)

    def card(self, number: int) -> ClassCard:
        """Give a class in words."""
        return ClassCard(number, self.titles[number])


def _inverted(pairs: Iterable[tuple[K, int]]) -> dict[K, frozenset[int]]:
    found: defaultdict[K, set[int]] = defaultdict(set)
    for key, number in pairs:
        found[key].add(number)
    return {key: frozenset(numbers) for key, numbers in found.items()}


class _SelectorIndex:
    """Finds, among many selectors, those that labels match, by a value that a selector asks for."""

    def __init__(self, selectors: Iterable[Selector]) -> None:
        self._asking: defaultdict[tuple[str, str], list[Selector]] = defaultdict(list)
        self._others: list[Selector] = []
        for selector in selectors:
            asked = next((one for one in selector.requirements if one.operator is Operator.IN), None)
            if asked is None:
                self._others.append(selector)
            else:
                for value in asked.values:
                    self._asking[asked.key, value].append(selector)

    def matching(self, labels: Labels) -> frozenset[Selector]:
        likely = (selector for pair in labels.pairs for selector in self._asking.get(pair, ()))
        return frozenset(selector for selector in chain(self._others, likely) if selector.matches(labels))


def stable_number(text: str, bits: int, taken: Container[int]) -> int:
    """Give a number of 1 to 2**bits - 1 made from `text`, stepping past those that are `taken`."""
    most = (1 << bits) - 1
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % most + 1
    while number in taken:
        number = number % most + 1
    return number


def build_atlas(policy: Policy, rules: tuple[Rule, ...], fleet: Fleet) -> Atlas:
    """Cut `fleet` into the classes that `rules` (those in force, of `policy`) tell apart."""
    whos = {who for rule in rules for who in (*rule.source, *rule.destination)}
    selectors = sorted({who.selector for who in whos if who.selector is not None})
    books = sorted({who.network for who in whos if who.network is not None}, key=lambda book: book.name)
    shared = tuple(sorted({key for rule in rules for key in rule.same}))
    keys = {key for selector in selectors for key in selector.keys} | set(shared)
    cuts, index = _cut_networks(books), _SelectorIndex(selectors)

    told: dict[Labels, tuple[Labels, frozenset[Selector], tuple[tuple[str, str], ...]]] = {}
    by_class: defaultdict[Class, list[tuple[Address, Labels]]] = defaultdict(list)
    for address, workload in fleet.by_address.items():
        if workload.labels not in told:
            labels = workload.labels.only(keys)
            values = tuple((key, labels[key]) for key in shared if key in labels)
            told[workload.labels] = labels, index.matching(labels), values
        labels, matched, values = told[workload.labels]
        by_class[Class(matched, values, _networks_at(cuts, address))].append((address, labels))
    spans = [(span, Class(networks=names)) for span, names in cuts if names]
    for _, one in spans:
        by_class.setdefault(one, [])

    numbers: dict[Class, int] = {NOTHING_SPECIAL: EVERYONE}
    used: dict[int, Class] = {EVERYONE: NOTHING_SPECIAL}
    for one in sorted(by_class, key=lambda each: each.signature):
        if one != NOTHING_SPECIAL:
            number = stable_number(one.signature, 32, used)
            numbers[one], used[number] = number, one
    del used[EVERYONE]
    addresses = {address: numbers[one] for one, held in by_class.items() for address, _ in held}
    return Atlas(
        numbers=numbers,
        classes=used,
        titles={numbers[one]: _title(one, {labels for _, labels in held}) for one, held in by_class.items()},
        addresses=addresses,
        members={
            numbers[one]: tuple(sorted(address.packed for address, _ in held))
            for one, held in by_class.items()
            if one != NOTHING_SPECIAL
        },
        networks=tuple(
            sorted(NetworkSpan(version, first, last, numbers[one]) for (version, first, last), one in spans)
        ),
    )


def _title(one: Class, held: set[Labels]) -> str:
    pairs = [set(labels.pairs) for labels in held]
    common = pairs[0].intersection(*pairs[1:]) if pairs else set[tuple[str, str]]()
    title = ",".join(f"{key}={value}" for key, value in sorted(common))
    networks = " ".join(f"network:{name}" for name in sorted(one.networks))
    return f"{title} {networks}".strip() or " & ".join(sorted(str(selector) for selector in one.selectors))


Span = tuple[int, int, int]


def _cut_networks(books: Iterable[AddressBook]) -> list[tuple[Span, frozenset[str]]]:
    """Cut the prefixes of `books` into disjoint spans, sorted, each with the names of all books that hold it."""
    starts: defaultdict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
    for book in books:
        for prefix in book.prefixes:
            first, last = int(prefix.network_address), int(prefix.broadcast_address)
            starts[prefix.version, first].append((1, book.name))
            starts[prefix.version, last + 1].append((-1, book.name))
    spans: list[tuple[Span, frozenset[str]]] = []
    open_books: Tally[str] = Tally()
    edges = sorted(starts)
    for edge, following in pairwise([*edges, (0, 0)]):
        for step, name in starts[edge]:
            open_books[name] += step
            if not open_books[name]:
                del open_books[name]
        names = frozenset(open_books)
        if names:
            version, first = edge
            spans.append(((version, first, following[1] - 1), names))
    return spans


def _networks_at(cuts: list[tuple[Span, frozenset[str]]], address: Address) -> frozenset[str]:
    at = bisect_right(cuts, (address.version, int(address)), key=lambda cut: (cut[0][0], cut[0][1])) - 1
    if at < 0:
        return frozenset()
    (version, _, last), names = cuts[at]
    return names if version == address.version and int(address) <= last else frozenset()
