"""A matrix of ends covered by products of sets: the rules that say exactly what is in it, few and no more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cellwall.analysis.table.words import places_of

FEW = 3
"""So many sets of destinations are not looked at from the other side: there is little to be gained."""
Rows = Mapping[int, int]
"""For each destination (a place), the sources (a bit each). Those that are not there have none."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A product that may be wanted: a rule's ends, and the keys that they share. `number` says whose it is."""

    number: int
    sources: int
    destinations: int
    same: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A product: all of `sources` and all of `destinations` that share the values of `same`.

    `hint` is the number of the hint that it is exactly. `more_sources` and `more_destinations` may be taken in too."""

    sources: int
    destinations: int
    same: tuple[str, ...] = ()
    hint: int | None = None
    more_sources: int = 0
    more_destinations: int = 0


class Shared:
    """Which ends share the values of some keys; `labels` are those of each end."""

    def __init__(self, labels: Sequence[Mapping[str, str]]) -> None:
        self._labels = labels
        self._groups: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}

    def with_end(self, at: int, keys: tuple[str, ...]) -> int | None:
        """Give the ends that share the values of `keys` with one; None where there are no keys to share."""
        if not keys:
            return None
        groups = self._groups.get(keys)
        if groups is None:
            found: defaultdict[tuple[str, ...], int] = defaultdict(int)
            for number, labels in enumerate(self._labels):
                if all(key in labels for key in keys):
                    found[tuple(labels[key] for key in keys)] |= 1 << number
            groups = self._groups[keys] = dict(found)
        labels = self._labels[at]
        return groups.get(tuple(labels.get(key, "") for key in keys), 0) if all(key in labels for key in keys) else 0


def cover(
    rows: Rows, free: Rows, shared: Shared, hints: Sequence[Hint], sames: Iterable[tuple[str, ...]]
) -> tuple[Block, ...]:
    """Cover all that is in `rows` by blocks that hold nothing that is in neither `rows` nor `free`.

    Hints come first, as they are if they can be, else as far as they are in `rows`; then one block for all the rest,
    perhaps of ends that share one of `sames`; then blocks of destinations with the same sources, or the reverse."""
    return _Cover(rows, free, shared).blocks(hints, tuple(sames))


class _Cover:
    def __init__(self, rows: Rows, free: Rows, shared: Shared) -> None:
        self._rows = {at: row for at, row in rows.items() if row}
        self._free, self._shared = free, shared
        self._left = dict(self._rows)

    def blocks(self, hints: Sequence[Hint], sames: tuple[tuple[str, ...], ...]) -> tuple[Block, ...]:
        found: list[Block] = []
        for hint in hints:
            if self._left and self._fits(hint.sources, hint.destinations, hint.same):
                block = Block(hint.sources, hint.destinations, hint.same, hint.number)
                if self._take(block):
                    found.append(block)
        for hint in hints:
            inside = {at: self._left.get(at, 0) & row for at, row in self._need(hint) if self._left.get(at, 0) & row}
            block = self._whole(inside, dict.fromkeys([(), hint.same])) if inside else None
            if block is not None and self._take(block):
                found.append(block)
        block = self._whole(self._left, dict.fromkeys([(), *sames])) if self._left else None
        if block is not None and self._take(block):
            found.append(block)
        found += self._products()
        return tuple(found)

    def _allowed(self, at: int) -> int:
        return self._rows.get(at, 0) | self._free.get(at, 0)

    def _need(self, one: Hint | Block) -> Iterator[tuple[int, int]]:
        for at in places_of(one.destinations):
            shared = self._shared.with_end(at, one.same)
            yield at, one.sources if shared is None else one.sources & shared

    def _fits(self, sources: int, destinations: int, same: tuple[str, ...]) -> bool:
        return all(not row & ~self._allowed(at) for at, row in self._need(Block(sources, destinations, same)))

    def _take(self, block: Block) -> bool:
        """Take what `block` holds from what is left; false where it holds nothing of it."""
        taken = False
        for at, row in self._need(block):
            left = self._left.get(at, 0)
            if left & row:
                taken = True
                if left & ~row:
                    self._left[at] = left & ~row
                else:
                    del self._left[at]
        return taken

    def _whole(self, rows: Rows, sames: Iterable[tuple[str, ...]]) -> Block | None:
        """Give one block that holds all of `rows`; None where there is none."""
        sources = destinations = 0
        for at, row in rows.items():
            sources |= row
            destinations |= 1 << at
        for same in sames:
            block = Block(sources, destinations, same)
            if self._fits(sources, destinations, same) and not any(rows[at] & ~row for at, row in self._need(block)):
                return self._widened(block)
        return None

    def _products(self) -> list[Block]:
        """Cover what is left by destinations with the same sources, or by sources with the same destinations."""
        by_row: defaultdict[int, int] = defaultdict(int)
        for at, row in self._left.items():
            by_row[row] |= 1 << at
        columns: defaultdict[int, int] = defaultdict(int)
        for row, destinations in by_row.items() if len(by_row) > FEW else ():
            for source in places_of(row):
                columns[source] |= destinations
        by_column: defaultdict[int, int] = defaultdict(int)
        for source, column in columns.items():
            by_column[column] |= 1 << source
        if columns and len(by_column) < len(by_row):
            return [self._widened(Block(sources, column)) for column, sources in by_column.items()]
        return [self._widened(Block(row, destinations)) for row, destinations in by_row.items()]

    def _widened(self, block: Block) -> Block:
        """Say what else a block may take in: pairs that are in another block, or that do not matter."""
        if block.same:
            return block
        more = -1
        for at in places_of(block.destinations):
            more &= self._allowed(at)
        sources = block.sources | more
        wider = sum(
            1 << at for at in self._rows if not block.destinations >> at & 1 and not sources & ~self._allowed(at)
        )
        return Block(block.sources, block.destinations, (), None, more & ~block.sources, wider)
