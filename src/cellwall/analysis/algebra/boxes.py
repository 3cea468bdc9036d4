"""Boxes of looks: the algebra of what rules match, exactly. One rule is a few boxes, whatever the fleet.

A box takes some atoms in each dimension of a `Universe`, and all combinations of them. What `same` asks for is inside
one dimension, the pair of a key's values at both ends, so that boxes stay products, and their difference is again a
list of boxes. The twins are `policy.matches`, and a solver in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import log2
from typing import NamedTuple

from cellwall.analysis.algebra.atoms import (
    ALL,
    APART,
    DIAGONAL,
    FAR_WORKLOAD,
    FROM,
    IPV4_SCENES,
    IPV6_SCENES,
    SCENE,
    SCENES_OF,
    TO,
    USER,
    Pair,
    Universe,
    far_apart,
)
from cellwall.flows import Side
from cellwall.policy import Action, Rule, Who


class Box(NamedTuple):
    """All looks with these atoms: `plain` is a mask for each of the first dimensions; `pairs` has the keys (by number)
    whose values are not free."""

    plain: tuple[int, ...]
    pairs: dict[int, Pair]


class Look(NamedTuple):
    """One look: an atom in each plain dimension, and both ends' values of each key."""

    plain: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]


def boxes_of(universe: Universe, rule: Rule) -> tuple[Box, ...]:
    """Give what `rule` matches as boxes; none where nothing can match it. Staging and refusal are not looked at."""
    found: dict[object, tuple[int, list[int], dict[int, Pair]]] = {}
    ports, times = universe.ports(rule.ports), universe.times(rule)
    if not ports or not times:
        return ()
    versions = ((4, IPV4_SCENES), (6, IPV6_SCENES))
    for source, destination in product(rule.source, rule.destination):
        pairs = _pairs(universe, rule, source, destination)
        if pairs is None:
            continue
        for version, family in versions:
            ends = (
                universe.addresses(source.network, version, destination=False),
                universe.addresses(destination.network, version, destination=True),
            )
            if not all(ends):
                continue
            for side in rule.sides:
                near, far = (source, destination) if side is Side.EGRESS else (destination, source)
                if far.identity and rule.action is not Action.ALLOW:
                    continue
                scenes = SCENES_OF[side] & family
                if far.selector is not None or rule.same:
                    scenes &= FAR_WORKLOAD
                asked = (near.identity.user, near.identity.unit, near.identity.exe)
                who = [universe.identity(USER + at, value) for at, value in enumerate(asked)]
                plain = [0, ports, *ends, times, *who]
                key = (*ends, *who, tuple(pairs.items()))
                already = found.get(key)
                found[key] = (scenes | (already[0] if already else 0), plain, pairs)
    made = (Box((scenes, *plain[1:]), pairs) for scenes, plain, pairs in found.values())
    return tuple(box for box in made if possible(universe, box))


def _pairs(universe: Universe, rule: Rule, source: Who, destination: Who) -> dict[int, Pair] | None:
    ends: list[dict[int, int]] = []
    for who in (source, destination):
        chosen = universe.selected(who.selector) if who.selector is not None else {}
        if chosen is None:
            return None
        ends.append(chosen)
    shared = {universe.number[key] for key in rule.same}
    found: dict[int, Pair] = {}
    for at in sorted({*ends[0], *ends[1], *shared}):
        key = universe.keys[at]
        mine, theirs = ends[0].get(at, key.full), ends[1].get(at, key.full)
        if at in shared:
            mine = theirs = mine & theirs & ~key.absent
        pair = DIAGONAL if at in shared else ALL, mine, theirs
        if not mine or not theirs:
            return None
        if pair != universe.full_pairs[at]:
            found[at] = pair
    return found


def possible(universe: Universe, box: Box) -> bool:
    """Say whether `box` holds a look that there can be: an end has no flow with its own address."""
    plain = box.plain
    if not plain[SCENE]:
        return False
    source = plain[FROM]
    return (
        source != plain[TO]
        or source & (source - 1) != 0
        or any(not source & universe.singles(scene) for scene in _bits(plain[SCENE]))
    )


def meet(universe: Universe, one: Box, other: Box) -> Box | None:
    """Give what both hold; None where that is nothing."""
    plain = tuple(mine & theirs for mine, theirs in zip(one.plain, other.plain, strict=True))
    if not all(plain):
        return None
    pairs = dict(one.pairs)
    for at, theirs in other.pairs.items():
        mine = pairs.get(at)
        both = theirs if mine is None else _both(mine, theirs)
        if both is None:
            return None
        pairs[at] = both
    found = Box(plain, pairs)
    return found if possible(universe, found) else None


def holds_all(universe: Universe, one: Box, other: Box) -> bool:
    """Say whether `one` holds all that `other` holds."""
    if any(theirs & ~mine for mine, theirs in zip(one.plain, other.plain, strict=True)):
        return False
    return all(not _without(other.pairs.get(at) or universe.full_pairs[at], pair) for at, pair in one.pairs.items())


def minus(universe: Universe, one: Box, other: Box) -> Iterator[Box]:
    """Give what `one` holds and `other` does not, as disjoint boxes."""
    if meet(universe, one, other) is None:
        yield one
        return
    rest = list(one.plain)
    for at, theirs in enumerate(other.plain):
        if cut := rest[at] & ~theirs:
            piece = Box((*rest[:at], cut, *rest[at + 1 :]), one.pairs)
            if possible(universe, piece):
                yield piece
            rest[at] &= theirs
    plain, pairs = tuple(rest), dict(one.pairs)
    for at, theirs in other.pairs.items():
        mine = pairs.get(at) or universe.full_pairs[at]
        for cut in _without(mine, theirs):
            piece = Box(plain, {**pairs, at: cut})
            if possible(universe, piece):
                yield piece
        both = _both(mine, theirs)
        assert both is not None
        pairs[at] = both


def _both(one: Pair, other: Pair) -> Pair | None:
    kind, mine, theirs = one[0], one[1] & other[1], one[2] & other[2]
    if other[0] != ALL:
        if kind not in (ALL, other[0]):
            return None
        kind = other[0]
    return _pair(kind, mine, theirs)


def _pair(kind: int, mine: int, theirs: int) -> Pair | None:
    """Give the pair in its one spelling; None where it holds nothing."""
    if kind == DIAGONAL:
        mine = theirs = mine & theirs
    if not mine or not theirs:
        return None
    if kind == APART:
        if not mine & theirs:
            return ALL, mine, theirs
        if mine == theirs and not mine & (mine - 1):
            return None
    return kind, mine, theirs


def _without(one: Pair, other: Pair) -> list[Pair]:
    kind, mine, theirs = one
    other_kind, their_mine, their_theirs = other
    made: list[Pair | None] = []
    if other_kind == DIAGONAL:
        if kind == APART:
            return [one]
        made.append(_pair(DIAGONAL, mine & ~their_mine, theirs & ~their_mine))
        if kind == ALL:
            made.append(_pair(APART, mine, theirs))
    elif kind == DIAGONAL:
        if other_kind == APART:
            return [one]
        left = mine & ~(their_mine & their_theirs)
        made.append(_pair(DIAGONAL, left, left))
    else:
        made.append(_pair(kind, mine & ~their_mine, theirs))
        made.append(_pair(kind, mine & their_mine, theirs & ~their_theirs))
        if kind == ALL and other_kind == APART:
            both = mine & their_mine & theirs & their_theirs
            made.append(_pair(DIAGONAL, both, both))
    return [pair for pair in made if pair is not None]


def some_look(universe: Universe, box: Box) -> Look:
    """Give a look of `box`: one that few rules speak of, with different ends where it can."""
    plain = [mask.bit_length() - 1 for mask in box.plain]
    plain[FROM], plain[TO] = far_apart(box.plain[FROM], box.plain[TO])
    if plain[FROM] == plain[TO]:
        at = 1 << plain[FROM]
        plain[SCENE] = max(one for one in _bits(box.plain[SCENE]) if not universe.singles(one) & at)
    pairs = list(universe.free_pairs)
    for number, (kind, mine, theirs) in box.pairs.items():
        last = mine.bit_length() - 1
        pairs[number] = (last, last) if kind == DIAGONAL else far_apart(mine, theirs)
    return Look(tuple(plain), tuple(pairs))


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def breadth(box: Box, universe: Universe) -> float:
    """Say how much of the universe `box` is, as a logarithm: 0 is all of it."""
    total = 0.0
    for mask, full in zip(box.plain, universe.full, strict=True):
        total += log2(mask.bit_count() / full.bit_count())
    for at, (kind, mine, theirs) in box.pairs.items():
        values = universe.keys[at].full.bit_count()
        count = mine.bit_count() * (1 if kind == DIAGONAL else theirs.bit_count())
        total += log2(count / values**2)
    return total
