"""Whether rules together match all that one rule matches: exactly, with the rules that prove it or a look that shows
the opposite.

To see whether a box is covered, take one look of it and ask the index which boxes hold that look. None: it is the
counterexample. Else take the box that holds most away, and go on with each of the pieces. The index has, for each atom
of each dimension, the boxes that hold it, as bits; a question is one `and` over the dimensions, and no pairs of rules
are ever gone through.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cellwall.analysis.algebra.atoms import DIAGONAL, PLAIN, PORT, Universe
from cellwall.analysis.algebra.boxes import Box, Look, boxes_of, holds_all, meet, minus, some_look
from cellwall.policy import Action, Rule

FEW = 64
MOST_STEPS = 20_000
MOST_TRIED = 24


@dataclass(frozen=True, slots=True)
class Proof:
    """All is covered, by these rules (their places in the cover)."""

    rules: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """This look is not covered."""

    look: Look


@dataclass(frozen=True, slots=True)
class Undecided:
    """The boxes are too many and too entangled to be gone through: nothing is claimed."""


class Cover:
    """The boxes of `rules` in `universe`, indexed. Sets of boxes are ints, a bit each."""

    def __init__(self, universe: Universe, rules: Iterable[Rule], most_steps: int = MOST_STEPS) -> None:
        self.universe = universe
        self.rules = tuple(rules)
        self._most_steps = most_steps
        self.boxes: list[Box] = []
        self.owner: list[int] = []
        self.of: list[int] = []
        tiers: dict[Action, int] = dict.fromkeys(Action, 0)
        for at, rule in enumerate(self.rules):
            made = boxes_of(universe, rule)
            bits = ((1 << len(made)) - 1) << len(self.boxes)
            self.of.append(bits)
            tiers[rule.action] |= bits
            self.boxes += made
            self.owner += [at] * len(made)
        self.tiers = tiers
        self.alive = (1 << len(self.boxes)) - 1
        self._dimensions = list(self._index())
        diagonal: defaultdict[int, list[int]] = defaultdict(list)
        for number, box in enumerate(self.boxes):
            for at, pair in box.pairs.items():
                if pair[0] == DIAGONAL:
                    diagonal[at].append(number)
        self._diagonal = {at: ~bits_of(numbers) for at, numbers in diagonal.items()}

    def _index(self) -> Iterator[tuple[int, Dimension]]:
        everything = self.alive
        # The dimensions that tell most apart come first: then little is left for the others.
        for at in (PORT, *(one for one in range(PLAIN) if one != PORT)):
            masks = [box.plain[at] for box in self.boxes]
            if any(mask != self.universe.full[at] for mask in masks):
                yield at, Dimension(self.universe.full[at], masks, everything)
        for number, key in enumerate(self.universe.keys):
            free = self.universe.full_pairs[number]
            pairs = [box.pairs.get(number, free) for box in self.boxes]
            for end in (1, 2):
                masks = [pair[end] for pair in pairs]
                if any(mask != key.full for mask in masks):
                    yield PLAIN + 2 * number + end - 1, Dimension(key.full, masks, everything)

    def boxes_of(self, rules: Iterable[int]) -> int:
        """Give the boxes of the rules at some places."""
        found = 0
        for at in rules:
            found |= self.of[at]
        return found

    def owners(self, boxes: int) -> dict[int, None]:
        """Give the rules that have some of `boxes`, by place."""
        return dict.fromkeys(self.owner[number] for number in places(boxes))

    def remove(self, rule: int) -> None:
        """Leave the rule at a place out from now on."""
        self.alive &= ~self.of[rule]

    def holding(self, look: Look, among: int) -> int:
        """Give the boxes that hold a look."""
        found = among & self.alive
        for at, dimension in self._dimensions:
            atom = look.plain[at] if at < PLAIN else look.pairs[(at - PLAIN) >> 1][(at - PLAIN) & 1]
            found &= dimension.holding(atom)
            if not found:
                return 0
        for at, others in self._diagonal.items():
            if look.pairs[at][0] != look.pairs[at][1]:
                found &= others
        return found

    def touching(self, box: Box, among: int) -> Iterator[tuple[int, Box]]:
        """Give the boxes that share something with `box`, by number, and what they share."""
        found = among & self.alive
        for at, dimension in self._dimensions:
            if at < PLAIN:
                found &= dimension.touching(box.plain[at])
            elif (pair := box.pairs.get((at - PLAIN) >> 1)) is not None:
                found &= dimension.touching(pair[1 + ((at - PLAIN) & 1)])
            if not found:
                return
        for number in places(found):
            if (both := meet(self.universe, box, self.boxes[number])) is not None:
                yield number, both

    def covered(self, boxes: Iterable[Box], among: int) -> Proof | Gap | Undecided:
        """Say whether the boxes `among` hold all that `boxes` hold."""
        stack = list(boxes)
        used: dict[int, None] = {}
        steps = 0
        while stack:
            steps += 1
            if steps > self._most_steps:
                return Undecided()
            box = stack.pop()
            look = some_look(self.universe, box)
            found = self.holding(look, among)
            if not found:
                return Gap(look)
            chosen = self._best(box, found)
            used[self.owner[chosen]] = None
            stack += minus(self.universe, box, self.boxes[chosen])
        return Proof(tuple(used))

    def _best(self, box: Box, found: int) -> int:
        best, least = -1, 1 << 30
        for count, number in enumerate(places(found)):
            other = self.boxes[number]
            if holds_all(self.universe, other, box):
                return number
            cuts = sum(bool(mine & ~theirs) for mine, theirs in zip(box.plain, other.plain, strict=True))
            cuts += len(other.pairs)
            if cuts < least:
                best, least = number, cuts
            if count >= MOST_TRIED:
                break
        return best

    def least(self, boxes: tuple[Box, ...], proof: Proof, among: int) -> Proof:
        """Give a proof from which no rule can be left out; a long one is given as it is."""
        kept = list(proof.rules)
        for rule in proof.rules if len(kept) <= MOST_TRIED else ():
            others = [one for one in kept if one != rule]
            if others and isinstance(self.covered(boxes, self.boxes_of(others) & among), Proof):
                kept = others
        return Proof(tuple(kept))


class Dimension:
    """For each atom of one dimension (`full` has them all), the boxes that hold it, by their `masks`, in order."""

    def __init__(self, full: int, masks: Sequence[int], everything: int) -> None:
        by_mask: defaultdict[int, list[int]] = defaultdict(list)
        for number, mask in enumerate(masks):
            by_mask[mask].append(number)
        self._full, self._everything = full, everything
        have: defaultdict[int, list[int]] = defaultdict(list)
        lack: defaultdict[int, list[int]] = defaultdict(list)
        every: list[int] = []
        self._wide: list[tuple[int, int]] = []
        atoms = full.bit_count()
        for mask, numbers in by_mask.items():
            count = mask.bit_count()
            if count <= FEW and count * 2 <= atoms:
                for atom in places(mask):
                    have[atom] += numbers
            elif atoms - count <= FEW:
                every += numbers
                for atom in places(full & ~mask):
                    lack[atom] += numbers
            else:
                self._wide.append((mask, bits_of(numbers)))
        self._every, self._have, self._lack = bits_of(every), have, lack
        self._atoms: dict[int, int] = {}
        self._masks: dict[int, int] = {}

    def holding(self, atom: int) -> int:
        """Give the boxes that hold an atom."""
        found = self._atoms.get(atom)
        if found is None:
            found = (self._every & ~bits_of(self._lack.get(atom, ()))) | bits_of(self._have.get(atom, ()))
            for mask, boxes in self._wide:
                if mask >> atom & 1:
                    found |= boxes
            self._atoms[atom] = found
        return found

    def touching(self, mask: int) -> int:
        """Give the boxes that hold one of the atoms of `mask`."""
        if mask == self._full:
            return self._everything
        found = self._masks.get(mask)
        if found is None:
            found = 0
            for atom in places(mask):
                found |= self.holding(atom)
            self._masks[mask] = found
        return found


def bits_of(numbers: Iterable[int]) -> int:
    """Give the int with the bits of `numbers` set."""
    listed = tuple(numbers)
    if len(listed) < 8:
        return sum(1 << number for number in set(listed))
    made = bytearray(max(listed) // 8 + 1)
    for number in listed:
        made[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(made, "little")


def places(bits: int) -> Iterator[int]:
    """Give the places of the bits that are set, the lowest first."""
    at = 0
    while bits:
        low = (bits & -bits).bit_length()
        bits >>= low
        at += low
        yield at - 1
