"""The rules in force, found by who they name at either end; kept by difference."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import chain

from cellwall.compile.cut import Class, Cut
from cellwall.flows import Side
from cellwall.inventory import Workload
from cellwall.labels import Selector
from cellwall.policy import Action, AddressBook, Policy, Rule, Who

RULE_BITS = 28
FIRST_ORDER = (1 << RULE_BITS) - (1 << 16)
"""From here on numbers are for orders, so that an order never takes the number of a rule."""
Name = Selector | str | None
"""Who is named, apart from an identity: by a selector, by the name of a network, or anyone."""


def name_of(who: Who) -> Name:
    """Give how an end of a rule names workloads."""
    return who.selector if who.selector is not None else who.network.name if who.network is not None else None


def inexpressible(who: Who, side: Side) -> str:
    """Say why the host point cannot check the identity of its own end; empty where it can."""
    if not who.identity:
        return ""
    if side is Side.INGRESS:
        return "the host point cannot tell the local process of a connection that arrives"
    if who.identity.exe is not None:
        return "the host point cannot tell programs by path; use `user` or `unit`"
    return ""


def near(rule: Rule, side: Side) -> Iterator[Who]:
    """Give those at whose own points, at `side`, the rule is in force."""
    ends = rule.source if side is Side.EGRESS else rule.destination
    return (who for who in ends if not inexpressible(who, side))


def far(rule: Rule, side: Side) -> Iterator[Who]:
    """Give the peers that the points at `side` take the rule to speak of.

    The far point checks an identity there: an allow lets it through to be checked, a deny leaves it."""
    ends = rule.destination if side is Side.EGRESS else rule.source
    return (who for who in ends if not who.identity or rule.action is Action.ALLOW)


def stable_number(text: str, bits: int, taken: Container[int]) -> int:
    """Give a number of 1 to 2**bits - 1 made from `text`, stepping past those that are `taken`."""
    most = (1 << bits) - 1
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % most + 1
    while number in taken:
        number = number % most + 1
    return number


@lru_cache(maxsize=1 << 16)
def _number(rule_id: str) -> int:
    number = stable_number(rule_id, RULE_BITS, ())
    return number if number < FIRST_ORDER else number - (1 << 16)


def rule_numbers(ids: Iterable[str]) -> dict[str, int]:
    """Give the id of every rule a number under `FIRST_ORDER`, made from it: the same while no two ids collide."""
    numbers = {rule_id: _number(rule_id) for rule_id in ids}
    if len(set(numbers.values())) < len(numbers):
        taken: set[int] = set()
        for rule_id in sorted(numbers):
            number = _number(rule_id)
            while number in taken:
                number = number % (FIRST_ORDER - 1) + 1
            numbers[rule_id] = number
            taken.add(number)
    return numbers


def in_force(rule: Rule, now: float) -> bool:
    """Say whether points enforce a rule at `now`: in time, not staged, not refused."""
    return not rule.staged and not rule.refused and rule.in_time(now)


def rules_in_force(policy: Policy, now: float) -> tuple[Rule, ...]:
    """Give the lifelines and rules that points enforce at `now`: in time, not staged, not refused."""
    return tuple([rule for rule in chain(policy.lifelines, policy.rules) if in_force(rule, now)])


def asks_identity(rule: Rule) -> bool:
    """Say whether a rule asks for a local identity at some end."""
    return any(who.identity for who in chain(rule.source, rule.destination))


def is_doubtful(rule: Rule, now: float) -> bool:
    """Say whether a rule in time and not staged is one that some host point cannot express, or none can."""
    if rule.staged or not rule.in_time(now):
        return False
    return (
        bool(rule.refused)
        or any(inexpressible(who, Side.EGRESS) for who in rule.source)
        or any(inexpressible(who, Side.INGRESS) for who in rule.destination)
    )


@dataclass
class RuleBook:
    """The rules in force, by id; and for each side, by who is named at the own end and by who at the other."""

    rules: dict[str, Rule] = field(default_factory=dict[str, Rule])
    selectors: Tally[Selector] = field(default_factory=Tally[Selector])
    shared: Tally[str] = field(default_factory=Tally[str])
    keys: Tally[str] = field(default_factory=Tally[str])
    _books: dict[str, Tally[AddressBook]] = field(default_factory=dict[str, Tally[AddressBook]])
    _near: dict[Side, dict[Name, dict[str, None]]] = field(
        default_factory=lambda: {side: dict[Name, dict[str, None]]() for side in Side}
    )
    _far: dict[Side, dict[Name, dict[str, None]]] = field(
        default_factory=lambda: {side: dict[Name, dict[str, None]]() for side in Side}
    )
    _far_sharing: dict[Side, dict[str, None]] = field(
        default_factory=lambda: {side: dict[str, None]() for side in Side}
    )

    @staticmethod
    def of(rules: Iterable[Rule]) -> RuleBook:
        """Give the book of some rules."""
        book = RuleBook()
        for rule in rules:
            book.add(rule)
        return book

    def cut(
        self,
        owners: Mapping[bytes, Workload],
        selectors: Iterable[Selector] = (),
        books: Iterable[AddressBook] = (),
    ) -> Cut:
        """Cut a fleet, given by who has each address, by what the rules tell apart; and by more, if asked to."""
        watched = dict.fromkeys((*self.selectors, *selectors))
        keys = self.label_keys.union(*(selector.keys for selector in watched))
        cut = Cut(keys, self.shared_keys, tuple(dict.fromkeys((*self.books, *books))))
        cut.watch(watched)
        for packed, workload in owners.items():
            cut.put(packed, workload)
        return cut

    def add(self, rule: Rule) -> tuple[Selector, ...]:
        """Take a rule in; gives the selectors that no rule named before."""
        self.rules[rule.id] = rule
        new: list[Selector] = []
        for who in (*rule.source, *rule.destination):
            if who.selector is not None:
                if not self.selectors[who.selector]:
                    new.append(who.selector)
                    self.keys.update(who.selector.keys)
                self.selectors[who.selector] += 1
            if who.network is not None:
                self._books.setdefault(who.network.name, Tally())[who.network] += 1
        self.shared.update(rule.same)
        for table, name in self._named(rule):
            table.setdefault(name, {})[rule.id] = None
        for side in rule.sides if rule.same else ():
            self._far_sharing[side][rule.id] = None
        return tuple(new)

    def drop(self, rule_id: str) -> tuple[Selector, ...]:
        """Let a rule go; gives the selectors that no rule names any more."""
        rule = self.rules.pop(rule_id)
        gone: list[Selector] = []
        for who in (*rule.source, *rule.destination):
            if who.selector is not None:
                self.selectors[who.selector] -= 1
                if not self.selectors[who.selector]:
                    del self.selectors[who.selector]
                    self.keys.subtract(who.selector.keys)
                    gone.append(who.selector)
            if who.network is not None:
                books = self._books[who.network.name]
                books[who.network] -= 1
                if not books[who.network]:
                    del books[who.network]
                if not books:
                    del self._books[who.network.name]
        self.shared.subtract(rule.same)
        for table, name in self._named(rule):
            held = table.get(name, {})
            held.pop(rule.id, None)
            if not held:
                table.pop(name, None)
        for side in rule.sides if rule.same else ():
            del self._far_sharing[side][rule.id]
        return tuple(gone)

    def _named(self, rule: Rule) -> Iterator[tuple[dict[Name, dict[str, None]], Name]]:
        for side in rule.sides:
            for who in near(rule, side):
                yield self._near[side], name_of(who)
            # Of a rule about anyone, it does not matter whom else it names.
            names = {name_of(who) for who in far(rule, side)}
            for name in (None,) if None in names else names:
                yield self._far[side], name

    @property
    def label_keys(self) -> frozenset[str]:
        """The label keys that rules name."""
        return frozenset(+self.keys) | frozenset(+self.shared)

    @property
    def shared_keys(self) -> tuple[str, ...]:
        """The label keys that rules want shared, sorted."""
        return tuple(sorted(+self.shared))

    @property
    def books(self) -> tuple[AddressBook, ...]:
        """The networks that rules name, in order of name."""
        return tuple(next(iter(self._books[name])) for name in sorted(self._books))

    def near(self, one: Class | None, side: Side) -> list[Rule]:
        """Give the rules that `one` is the own end of, whatever the process there, in order of id; None is no class."""
        found = set(self._near[side].get(None, ()))
        if one is not None:
            found.update(_named_by(self._near[side], one))
        return [self.rules[rule_id] for rule_id in sorted(found)]

    def far(self, one: Class, side: Side) -> Iterator[Rule]:
        """Give the rules whose entries speak of `one` as the other end: by its name, or by what ends share."""
        found = set(_named_by(self._far[side], one))
        if one.shared:
            found.update(rule_id for rule_id in self._far_sharing[side] if rule_id in self._far[side].get(None, ()))
        return (self.rules[rule_id] for rule_id in found)


def _named_by(table: Mapping[Name, Mapping[str, None]], one: Class) -> Iterator[str]:
    for name in chain(one.selectors, one.networks):
        if name in table:
            yield from table[name]


def next_change(policy: Policy, now: float) -> float | None:
    """Give the next moment after `now` at which a rule starts or expires; None where there is none."""
    moments = (moment for rule in policy.rules for moment in (rule.starts, rule.expires))
    return min((moment for moment in moments if moment is not None and moment > now), default=None)
