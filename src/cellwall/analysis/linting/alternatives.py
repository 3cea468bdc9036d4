"""The alternatives of one end of a rule in few words: what others hold is left out, and values are joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from cellwall.labels import Operator, Requirement, Selector, implies
from cellwall.policy import NOBODY, Who

MOST_COMPARED = 64


def joined_ends(whos: Iterable[Who]) -> tuple[Who, ...]:
    """Give alternatives that together name what `whos` name; sorted, so that equal ones are equal values."""
    found = set(whos)
    keys = sorted({one.key for who in found if who.selector is not None for one in who.selector.requirements})
    before = -1
    while len(found) != before:
        before = len(found)
        for key in keys if len(found) > 1 else ():
            found = _joined(found, key)
    if Who() in found:
        return (Who(),)
    if 1 < len(found) <= MOST_COMPARED:
        ordered = sorted(found, key=str)
        for who in ordered:
            if any(_within(who, other) for other in found if other != who):
                found = found - {who}
    return tuple(sorted(found, key=str))


def _joined(whos: set[Who], key: str) -> set[Who]:
    """Join the selectors that differ in the values of `key` alone."""
    rest: set[Who] = set()
    alike: defaultdict[tuple[Who, tuple[Requirement, ...]], set[str]] = defaultdict(set)
    for who in whos:
        asked = [one for one in who.selector.requirements if one.key == key] if who.selector is not None else []
        if who.selector is None or len(asked) != 1 or asked[0].operator is not Operator.IN:
            rest.add(who)
            continue
        others = tuple(one for one in who.selector.requirements if one.key != key)
        alike[replace(who, selector=None), others] |= set(asked[0].values)
    for (who, others), values in alike.items():
        asked_for = Requirement(key, Operator.IN, tuple(sorted(values)))
        rest.add(replace(who, selector=Selector(tuple(sorted((*others, asked_for))))))
    return rest


def _within(one: Who, other: Who) -> bool:
    """Say whether `other` names all that `one` names."""
    if other.identity not in (one.identity, NOBODY) or other.network not in (one.network, None):
        return False
    if other.selector is None:
        return True
    return one.selector is not None and implies(one.selector, other.selector)
