"""A table as arrays: what becomes of millions of flows a second, by five look-ups for each and no loop in Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellwall.traffic import LAST_POINT

if TYPE_CHECKING:
    from cellwall.analysis.table.table import Table

CHUNK = 1 << 15
"""Flows at once: so few that what is worked out for them stays in the processor's cache."""
MOST_PAGES = 1024
"""Of 65,536 addresses each; beyond, addresses are looked up by bisection."""
MOST_CELLS = 1 << 26
"""Of profiles × classes of ports, 4 bytes each; a policy that would have more is looked up by bisection."""
FEW = 100_000
"""For so many flows bisection takes less time than to lay out what millions are looked up in."""

Numbers = NDArray[np.uint32]
Kinds = NDArray[np.int32]
Allowed = NDArray[np.bool_]


class Columns:
    """What a `Table` says, for flows given as columns.

    A flow is the number of its source's kind, that of its destination's, and its point on the line of ports. A
    workload's flows to itself, which always pass, are not known as such here: they must be told apart before. `flows`
    is about how many there will be."""

    def __init__(self, table: Table, flows: int = FEW + 1) -> None:
        few = flows <= FEW
        self._table = table
        self._profiles = table.profiles
        width = (table.column_count + 7) // 8
        packed = np.frombuffer(b"".join(row.to_bytes(width, "little") for row in table.rows), np.uint8)
        bits = np.unpackbits(packed.reshape(len(table.rows), width), axis=1, bitorder="little")
        self._width = bits.shape[1]
        self._bits: Allowed = bits.reshape(-1).view(np.bool_)
        self._column = np.array(table.column_of, np.int32)
        self._firsts = np.array(table.firsts, np.uint32)
        self._ports = None if few else self._spread_ports()
        self._lay_profiles()
        self._pages: tuple[NDArray[np.intp], Kinds] | None = None
        self._edges: tuple[Numbers, Kinds] | None = None
        self._map_addresses(few)

    # --- flows ---

    def judge(self, sources: Kinds, destinations: Kinds, points: Numbers) -> Allowed:
        """Say of each flow whether it passes. All three columns are as long as the answer."""
        allowed = np.empty(len(points), np.bool_)
        for first in range(0, len(points), CHUNK):
            part = slice(first, first + CHUNK)
            cells = self._cells(destinations[part], self._classes(points[part]))
            cells += self._column[sources[part]]
            np.take(self._bits, cells, out=allowed[part], mode="clip")
        return allowed

    def _classes(self, points: Numbers) -> NDArray[np.uint32]:
        """Give the classes of points of the line of ports."""
        if self._ports is not None:
            return self._ports[points]
        return (np.searchsorted(self._firsts, points, side="right") - 1).astype(np.uint32)

    def _cells(self, destinations: Kinds, ports: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Give where in the bits the row of each destination and class of ports begins."""
        profile = self._profile[destinations]
        if self._dense is not None:
            profile += ports
            return self._dense[profile]
        keys = profile.astype(np.int64) << 24 | ports
        return self._sparse_rows[np.searchsorted(self._sparse_keys, keys, side="right") - 1]

    # --- flows as addresses ---

    def locate(self, addresses: Numbers) -> Kinds:
        """Give the kinds of IPv4 addresses, in host order; whatever the process there."""
        if self._pages is not None:
            page_of, kinds = self._pages
            return kinds[page_of[addresses >> 16] + (addresses & 0xFFFF)]
        assert self._edges is not None
        firsts, kinds = self._edges
        return kinds[np.searchsorted(firsts, addresses, side="right") - 1]

    # --- made once ---

    def _spread_ports(self) -> NDArray[np.uint32]:
        """Give the class of each point of the line of ports."""
        firsts = np.array([*self._table.firsts, LAST_POINT + 1], np.int64)
        return np.repeat(np.arange(len(firsts) - 1, dtype=np.uint32), np.diff(firsts))

    def _lay_profiles(self) -> None:
        """Lay out the rows of each distinct profile: densely, or as edges to bisect where that would be too large."""
        table, places = self._table, len(self._table.firsts)
        numbers: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        of_group = np.array([numbers.setdefault(one, len(numbers)) for one in self._profiles], np.int32)
        profile = of_group[np.array(table.group_of, np.int32)]
        self._dense: NDArray[np.int64] | None = None
        if len(numbers) * places <= MOST_CELLS:
            dense = np.empty((len(numbers), places), np.int64)
            for (firsts, rows), number in numbers.items():
                for first, row in zip(firsts, rows, strict=True):
                    dense[number, first:] = row * self._width
            self._dense = dense.reshape(-1)
            profile = profile * np.int32(places)
        else:
            pairs = [
                (number << 24 | first, row * self._width)
                for (firsts, rows), number in numbers.items()
                for first, row in zip(firsts, rows, strict=True)
            ]
            self._sparse_keys = np.array([key for key, _ in pairs], np.int64)
            self._sparse_rows = np.array([row for _, row in pairs], np.int64)
        self._profile = profile

    def _map_addresses(self, few: bool) -> None:
        """Lay out which kind each IPv4 address is: pages for the stretches that hold workloads or edges of networks."""
        edges = sorted(self._stretches())
        pages: dict[int, int] = {}
        for first, _ in edges:
            pages.setdefault(first >> 16, len(pages))
        firsts = np.array([first for first, _ in edges], np.uint32)
        kinds = np.array([kind for _, kind in edges], np.int32)
        if few or len(pages) > MOST_PAGES:
            self._edges = firsts, kinds
            return
        # A page in which nothing begins is all of one kind, and looks like no other page than that kind's.
        whole: dict[int, int] = {}
        page_of = np.empty(1 << 16, np.intp)
        known = kinds[np.searchsorted(firsts, np.arange(1 << 16, dtype=np.uint32) << 16, side="right") - 1]
        for page in range(1 << 16):
            if page in pages:
                page_of[page] = pages[page]
            else:
                page_of[page] = len(pages) + whole.setdefault(int(known[page]), len(whole))
        laid = np.empty(((len(pages) + len(whole)), 1 << 16), np.int32)
        for page, at in pages.items():
            points = np.arange(page << 16, (page + 1) << 16, dtype=np.int64).astype(np.uint32)
            laid[at] = kinds[np.searchsorted(firsts, points, side="right") - 1]
        for kind, at in whole.items():
            laid[len(pages) + at] = kind
        self._pages = page_of << 16, laid.reshape(-1)

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Give the first address of each stretch of IPv4 addresses of one kind, and that kind."""
        table, last = self._table, (1 << 32) - 1
        owned = {
            int.from_bytes(packed, "big"): kind for packed, kind in table.kinds_by_address.items() if len(packed) == 4
        }
        firsts = {0, *(one + 1 for one in owned if one < last), *table.cut.edges_of(4)} - owned.keys()
        yield from owned.items()
        for first in firsts:
            yield first, table.kind_outside(4, first)
