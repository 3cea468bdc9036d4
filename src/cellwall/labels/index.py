"""The index that answers "which selectors match these labels?" and "which labels does this selector match?".

Selectors that look at the same keys are a *family*. What a family says of labels depends on their values of its keys
alone, their *projection*; so it is worked out once for each projection, and kept. Labels meet few families, and
selectors that ask for values are found by these values: nothing scans selectors × labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from operator import itemgetter

from cellwall.labels.selectors import Operator, Selector

MOST_ASKED = 64
"""A selector that asks for more combinations of values than these is looked at for each projection."""

Projection = tuple[str | None, ...]


@dataclass(frozen=True, eq=False)
class Match:
    """The selectors of one family that match the same labels; one object for as long as the set is the same."""

    selectors: frozenset[Selector]


@dataclass(eq=False)
class _Family:
    """The selectors that look at `keys`, and the projections of labels that are there."""

    keys: tuple[str, ...]
    asking: dict[Projection, dict[Selector, None]] = field(default_factory=dict[Projection, dict[Selector, None]])
    others: dict[Selector, None] = field(default_factory=dict[Selector, None])
    count: int = 0
    held: dict[Projection, dict[Projection, None]] = field(default_factory=dict[Projection, dict[Projection, None]])
    matched: dict[Projection, Match] = field(default_factory=dict[Projection, Match])
    matches: dict[frozenset[Selector], Match] = field(default_factory=dict[frozenset[Selector], Match])
    having: dict[Selector, dict[Match, None]] = field(default_factory=dict[Selector, dict[Match, None]])
    projection: Callable[[Projection], Projection] = tuple
    """Gives the values of the family's keys."""

    def match(self, at: Projection) -> Match:
        """Give the selectors that match a projection."""
        found = self.matched.get(at)
        if found is None:
            found = self._match(at)
            if at in self.held:
                self.matched[at] = found
        return found

    def _match(self, at: Projection) -> Match:
        asking = self.asking.get(at, ())
        if self.others:
            labels = {key: value for key, value in zip(self.keys, at, strict=True) if value is not None}
            selectors = frozenset((*asking, *(one for one in self.others if one.matches(labels))))
        else:
            selectors = frozenset(asking)
        found = self.matches.get(selectors)
        if found is None:
            found = self.matches[selectors] = Match(selectors)
            for selector in selectors:
                self.having.setdefault(selector, {})[found] = None
        return found

    def touched(self, selector: Selector) -> list[Projection]:
        """Give the projections that are there and that `selector` matches."""
        if (asked := _asked(selector, self.keys)) is not None:
            return [at for at in asked if at in self.held]
        found: list[Projection] = []
        for at in self.held:
            labels = {key: value for key, value in zip(self.keys, at, strict=True) if value is not None}
            if selector.matches(labels):
                found.append(at)
        return found

    def change(self, selector: Selector, *, there: bool) -> list[Projection]:
        """Take a selector in, or let it go; gives the projections that now match otherwise."""
        asked = _asked(selector, self.keys)
        for bucket in [self.others] if asked is None else [self.asking.setdefault(at, {}) for at in asked]:
            if there:
                bucket[selector] = None
            else:
                bucket.pop(selector, None)
        self.count += 1 if there else -1
        touched = self.touched(selector)
        for at in touched:
            self.matched.pop(at, None)
        for match in self.having.pop(selector, ()):
            self._forget(match)
        return touched

    def _forget(self, match: Match) -> None:
        self.matches.pop(match.selectors, None)
        for other in match.selectors:
            self.having.get(other, {}).pop(match, None)


def _asked(selector: Selector, keys: tuple[str, ...]) -> tuple[Projection, ...] | None:
    """Give the projections that `selector` matches, where it does nothing but ask for few values of each key."""
    values: dict[str, frozenset[str]] = {}
    for one in selector.requirements:
        if one.operator is not Operator.IN:
            return None
        values[one.key] = values[one.key].intersection(one.values) if one.key in values else frozenset(one.values)
    if prod(len(some) for some in values.values()) > MOST_ASKED:
        return None
    return tuple(product(*(sorted(values[key]) for key in keys)))


def _getter(places: list[int]) -> Callable[[Projection], Projection]:
    if len(places) == 1:
        (place,) = places
        return lambda values: (values[place],)
    return itemgetter(*places) if places else lambda _: ()


class LabelIndex:
    """Selectors and labels, both coming and going, and which match which.

    Labels are known here by their values of `keys`, in that order, None where a key is absent."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = tuple(keys)
        self._places = {key: place for place, key in enumerate(self.keys)}
        self._families: dict[tuple[str, ...], _Family] = {}
        self._family_of: dict[Selector, _Family] = {}
        self._held: dict[Projection, None] = {}

    def values(self, labels: Mapping[str, str]) -> Projection:
        """Give what is known here of `labels`."""
        get = labels.get
        return tuple([get(key) for key in self.keys])

    def add(self, values: Projection) -> tuple[Match, ...]:
        """Take labels in; gives what matches them, one object of each family where some selector does."""
        self._held[values] = None
        found: list[Match] = []
        for family in self._families.values():
            at = family.projection(values)
            held = family.held.get(at)
            if held is None:
                family.held[at] = {values: None}
            else:
                held[values] = None
            match = family.matched.get(at) or family.match(at)
            if match.selectors:
                found.append(match)
        return tuple(found)

    def drop(self, values: Projection) -> None:
        """Let labels go."""
        del self._held[values]
        for family in self._families.values():
            at = family.projection(values)
            held = family.held[at]
            del held[values]
            if not held:
                del family.held[at]
                family.matched.pop(at, None)

    def matching(self, values: Projection) -> tuple[Match, ...]:
        """Give what matches labels."""
        found = [family.match(family.projection(values)) for family in self._families.values()]
        return tuple([match for match in found if match.selectors])

    def watch(self, selector: Selector) -> Iterator[Projection]:
        """Take a selector in, all of whose keys are among `keys`; gives the labels that it matches."""
        keys = tuple(sorted(selector.keys))
        family = self._families.get(keys)
        if family is None:
            family = self._families[keys] = _Family(keys, projection=_getter([self._places[key] for key in keys]))
            for values in self._held:
                family.held.setdefault(family.projection(values), {})[values] = None
        self._family_of[selector] = family
        touched = family.change(selector, there=True)
        return (values for at in touched for values in family.held[at])

    def ignore(self, selector: Selector) -> Iterator[Projection]:
        """Let a selector go; gives the labels that it matched."""
        family = self._family_of.pop(selector)
        touched = family.change(selector, there=False)
        labels = [values for at in touched for values in family.held[at]]
        if not family.count:
            del self._families[family.keys]
        return iter(labels)

    def having(self, selector: Selector) -> Iterable[Match]:
        """Give the matches that `selector` is part of: labels that have one of them are those that it matches."""
        family = self._family_of.get(selector)
        return family.having.get(selector, ()) if family else ()
