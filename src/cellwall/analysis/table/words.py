"""Words for sets of ends: the smallest selector that matches exactly these, in the vocabulary of the policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import assert_never

from cellwall.labels import Labels, Operator, Requirement, Selector
from cellwall.policy import AddressBook, Endpoint, Who

MOST_SELECTORS = 8
MOST_TOGETHER = 3
MOST_NAMES = 4


def bits_of(places: Iterable[int]) -> int:
    """Give the number whose bits at `places` are set."""
    held = bytearray()
    for at in places:
        if at >> 3 >= len(held):
            held.extend(bytes((at >> 3) + 1 - len(held)))
        held[at >> 3] |= 1 << (at & 7)
    return int.from_bytes(held, "little")


class Ends:
    """Ends of flows in a row; who is meant by a selector or a network is answered in bits, by label value."""

    def __init__(self, ends: Sequence[Endpoint]) -> None:
        self.ends = ends
        self.all = (1 << len(ends)) - 1
        self.workloads = bits_of(at for at, end in enumerate(ends) if end.workload is not None)
        having: dict[str, dict[str, list[int]]] = {}
        for at, end in enumerate(ends):
            if end.workload is not None:
                for key, value in end.labels.pairs:
                    having.setdefault(key, {}).setdefault(value, []).append(at)
        self.values = {key: {value: bits_of(ats) for value, ats in held.items()} for key, held in having.items()}
        self.having = {key: bits_of(at for ats in held.values() for at in ats) for key, held in having.items()}
        self._meeting: dict[Selector | AddressBook, int] = {}

    def met(self, who: Who) -> int:
        """Give the ends that `who` names, whatever their process."""
        if who.selector is not None:
            return self.matching(who.selector)
        return self.all if who.network is None else self.within(who.network)

    def met_by_any(self, whos: Iterable[Who]) -> int:
        """Give the ends that one of `whos` names, whatever their process."""
        found = 0
        for who in whos:
            found |= self.met(who)
        return found

    def matching(self, selector: Selector) -> int:
        """Give the workloads that `selector` matches."""
        found = self._meeting.get(selector)
        if found is None:
            found = self.workloads
            for requirement in selector.requirements:
                found &= self.passing(requirement)
            self._meeting[selector] = found
        return found

    def passing(self, requirement: Requirement) -> int:
        """Give the workloads that pass one test of one key."""
        held = self.having.get(requirement.key, 0)
        match requirement.operator:
            case Operator.EXISTS:
                return held
            case Operator.ABSENT:
                return self.workloads & ~held
            case Operator.IN | Operator.NOT_IN:
                values = self.values.get(requirement.key, {})
                found = 0
                for value in requirement.values:
                    found |= values.get(value, 0)
                return found if requirement.operator is Operator.IN else self.workloads & ~found
            case _:
                assert_never(requirement.operator)

    def within(self, book: AddressBook) -> int:
        """Give the ends whose address `book` holds."""
        found = self._meeting.get(book)
        if found is None:
            found = self._meeting[book] = bits_of(at for at, end in enumerate(self.ends) if end.address in book)
        return found


@dataclass(frozen=True, slots=True)
class Phrase:
    """A set of ends in words: it is all that one of `whos` names, and those called `names` besides.

    `titles` are what all of them are called, whatever the words."""

    whos: tuple[Who, ...]
    names: tuple[str, ...]
    titles: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many workloads and places outside it is."""
        return len(self.titles)

    def __str__(self) -> str:
        shown = list(self.names[:MOST_NAMES])
        if len(self.names) > MOST_NAMES:
            shown.append(f"{len(self.names) - MOST_NAMES} more")
        whos = ("every workload" if who.selector == Selector() else str(who) for who in self.whos)
        return " or ".join([*whos, *shown]) or "nobody"


class Words:
    """Finds words for sets of ends, which are bits over the ends of `ends`; `titles` are what these are called.

    `whos` are the policies' own ends of rules: their selectors and networks come first, their label keys next."""

    def __init__(self, ends: Ends, titles: Sequence[str], whos: Iterable[Who]) -> None:
        self.ends, self._titles = ends, titles
        plain = {Who(who.selector, who.network) for who in whos if who.selector or who.network}
        self._own = sorted(plain, key=lambda who: (who.network is not None, _length(who), str(who)))
        used = {key for who in plain if who.selector is not None for key in who.selector.keys}
        self._keys = (tuple(sorted(used & ends.values.keys())), tuple(sorted(ends.values.keys() - used)))
        self._known: dict[tuple[int, int], Phrase] = {}

    def known(self, title: str) -> bool:
        """Say whether an end is called so."""
        return title in self._titles

    def of(self, wanted: int, free: int = 0, whos: Iterable[Who] = ()) -> Phrase:
        """Give words that mean all of `wanted`, and no more than these and `free`: `whos`, where they mean that."""
        plain = tuple(dict.fromkeys(Who(who.selector, who.network) for who in whos))
        if plain and self.ends.met_by_any(plain) == wanted:
            return Phrase(plain, (), self.titles(wanted))
        at = wanted, free & ~wanted
        found = self._known.get(at)
        if found is None:
            found = self._known[at] = self._find(wanted, wanted | free)
        return found

    def _find(self, wanted: int, most: int) -> Phrase:
        titles = self.titles(wanted)
        if self.ends.all & ~most == 0:
            return Phrase((Who(),), (), titles)
        for bits, who in self._vocabulary:
            if wanted & ~bits == 0 and bits & ~most == 0:
                return Phrase((who,), (), titles)
        whos: list[Who] = []
        left = wanted
        # Places outside have no labels: a network names them, and with them the workloads that are in it.
        for bits, who in self._networks:
            if bits & left & ~self.ends.workloads and bits & ~most == 0:
                whos.append(who)
                left &= ~bits
        chosen, left = self._selectors(left & self.ends.workloads, most, left)
        return Phrase((*(Who(selector=one) for one in chosen), *whos), self.titles(left), titles)

    @cached_property
    def _vocabulary(self) -> list[tuple[int, Who]]:
        found: dict[int, Who] = {}
        for who in self._own:
            found.setdefault(self.ends.met(who), who)
        return list(found.items())

    @cached_property
    def _networks(self) -> list[tuple[int, Who]]:
        return [(bits, who) for bits, who in self._vocabulary if who.network is not None]

    def titles(self, bits: int) -> tuple[str, ...]:
        """Give what the ends of `bits` are called, each once, in order."""
        return tuple(sorted({self._titles[at] for at in places_of(bits)}))

    # --- selectors ---

    def _selectors(self, wanted: int, most: int, left: int) -> tuple[list[Selector], int]:
        """Give selectors for the workloads of `wanted`, and what of `left` they do not name."""
        if not wanted:
            return [], left
        for keys in (self._keys[0], self._keys[0] + self._keys[1]):
            one = self._one_selector(wanted, most, keys)
            if one is not None:
                return [one], left & ~self.ends.matching(one)
        chosen: list[Selector] = []
        while wanted and len(chosen) < MOST_SELECTORS:
            found = self._widest(wanted, most)
            if found is None:
                break
            chosen.append(found)
            wanted &= ~self.ends.matching(found)
            left &= ~self.ends.matching(found)
        return chosen, left

    def _one_selector(self, wanted: int, most: int, keys: Sequence[str]) -> Selector | None:
        """Give the smallest selector that names `wanted` and no more than `most`; None where there is none."""
        tests = [(cost, one, self.ends.passing(one)) for key in keys for cost, one in self._tests(key, wanted)]
        out = self.ends.workloads & ~most
        together = self.ends.all
        for _, _, bits in tests:
            together &= bits
        if together & out:
            return None
        tests.sort()
        best: tuple[float, tuple[Requirement, ...]] | None = None
        for size in range(1, MOST_TOGETHER + 1):
            for some in combinations(tests, size):
                cost = sum(one[0] for one in some)
                if best is not None and cost >= best[0]:
                    continue
                rest = out
                for _, _, bits in some:
                    rest &= bits
                if not rest:
                    best = cost, tuple(one for _, one, _ in some)
        if best is not None:
            return Selector(tuple(sorted(best[1])))
        kept = list(tests)
        for test in reversed(tests):
            fewer = [one for one in kept if one is not test]
            rest = out
            for _, _, bits in fewer:
                rest &= bits
            if not rest:
                kept = fewer
        return Selector(tuple(sorted(one for _, one, _ in kept)))

    def _tests(self, key: str, wanted: int) -> Iterator[tuple[float, Requirement]]:
        """Give the tightest tests of one key that all of `wanted` pass, with what each costs a reader."""
        having, values = self.ends.having[key], self.ends.values[key]
        if not wanted & having:
            yield 2.5, Requirement(key, Operator.ABSENT)
            return
        inside = tuple(sorted(value for value, bits in values.items() if bits & wanted))
        outside = tuple(sorted(value for value, bits in values.items() if not bits & wanted))
        if not wanted & ~having:
            yield 1.0 + 0.4 * (len(inside) - 1), Requirement(key, Operator.IN, inside)
            yield 1.5, Requirement(key, Operator.EXISTS)
        if outside:
            yield 2.0 + 0.5 * (len(outside) - 1), Requirement(key, Operator.NOT_IN, outside)

    def _widest(self, wanted: int, most: int) -> Selector | None:
        """Give a selector for some of `wanted`, as wide as can be; None where one of them has no words of its own."""
        end = self.ends.ends[(wanted & -wanted).bit_length() - 1]
        keys = [*self._keys[0], *self._keys[1]]
        tests = {key: _exactly(key, end.labels) for key in keys}
        if self._all_of(tests.values()) & ~most:
            return None
        for key in reversed(keys):
            fewer = [test for other, test in tests.items() if other != key]
            if fewer and not self._all_of(fewer) & ~most:
                del tests[key]
        for key, test in tuple(tests.items()):
            if test.operator is Operator.IN:
                rest = self._all_of(other for other in tests.values() if other is not test)
                values = self.ends.values[key]
                wider = (value for value, bits in values.items() if rest & bits and not rest & bits & ~most)
                tests[key] = Requirement(key, Operator.IN, tuple(sorted(wider)))
        return Selector(tuple(sorted(tests.values())))

    def _all_of(self, tests: Iterable[Requirement]) -> int:
        found = self.ends.workloads
        for test in tests:
            found &= self.ends.passing(test)
        return found


def _exactly(key: str, labels: Labels) -> Requirement:
    if key in labels:
        return Requirement(key, Operator.IN, (labels[key],))
    return Requirement(key, Operator.ABSENT)


def _length(who: Who) -> int:
    return sum(1 + len(one.values) for one in who.selector.requirements) if who.selector is not None else 0


def places_of(bits: int) -> Iterator[int]:
    """Give the places of the bits that are set, the lowest first; quick also where there are many."""
    for at, byte in enumerate(bits.to_bytes((bits.bit_length() + 7) // 8, "little")):
        if byte:
            for place in _SET[byte]:
                yield at << 3 | place


_SET = tuple(tuple(place for place in range(8) if byte >> place & 1) for byte in range(256))
