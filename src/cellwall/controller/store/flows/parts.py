"""Columns that add up over several flow stores, and what they come to: distinct keys, and a series of time.

Of one flow each end may have reported to another store, so that what each of them would say of it cannot be added: the
parts keep both ends apart. Numbers are little-endian; addresses 16 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellwall.analysis import Keys
from cellwall.controller.store.flows.columns import pack16
from cellwall.controller.store.flows.contract import FlowStoreError, Tick
from cellwall.flows import FlowKey
from cellwall.traffic import point

KEY_PARTS = ("V16", "V16", "<u4", "u1", "<u8", "<u8", "u1", "<f8")
"""Source, destination, point, side, process (0 of ingress), connections, whether refused when last seen, and when."""
SERIES_PARTS = ("V16", "V16", "<u4", "u1", "<i8", "<u8", "<u8", "<u8")
"""Source, destination, point, side, step; connections, denied ones, and allowed ones that enforcement would deny."""

Parts = Sequence[bytes]
Column = NDArray[Any]
Words = NDArray[np.uint64]
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


def key_columns(key: FlowKey) -> tuple[bytes, bytes, int]:
    """Give the first three columns of a key."""
    return pack16(key.source), pack16(key.destination), point(key.protocol, key.port)


def packed(types: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> list[bytes]:
    """Write rows as the columns of `types`."""
    names = [f"{at}" for at in range(len(types))]
    table = np.array([*rows], [*zip(names, types, strict=True)])
    return [table[name].tobytes() for name in names]


def keys_of(parts: Sequence[Parts]) -> Keys:
    """Put parts of several stores together. Raises `FlowStoreError` where they are none."""
    sources, destinations, points, sides, who, connections, refused, seen = _columns(parts, KEY_PARTS)
    if not len(points):
        return Keys.of(b"", b"", b"", b"", b"")
    key = (*_halves(sources), *_halves(destinations), points.astype(np.uint64))
    # One row for each end and process: where it was seen last, its connections were refused, or were not.
    order, starts = _groups((*key, sides.astype(np.uint64), who.astype(np.uint64)), (refused, seen))
    ends = np.append(starts[1:], len(order))
    sums = np.add.reduceat(connections[order], starts)
    first = order[starts]
    egress, lost = sides[first] == 0, refused[order[ends - 1]] == 1
    order, starts = _groups(tuple(column[first] for column in key), ())

    def total(where: NDArray[np.bool_]) -> Words:
        return np.add.reduceat(np.where(where, sums, 0).astype(np.uint64)[order], starts)

    processes, sent, dropped, taken = (
        _count(egress, order, starts),
        total(egress),
        total(egress & lost),
        total(~egress),
    )
    # What egress let through arrives at ingress: as in `Engine.keys`.
    counts = np.where(processes > 1, sent, np.maximum(sent, dropped + taken))
    at = first[order[starts]]
    return Keys.of(
        sources[at].tobytes(),
        destinations[at].tobytes(),
        points[at].astype("<u4").tobytes(),
        np.maximum(processes, 1).astype("<u8").tobytes(),
        counts.astype("<u8").tobytes(),
    )


def _count(where: NDArray[np.bool_], order: NDArray[np.intp], starts: NDArray[np.intp]) -> Words:
    """Count in each group the rows `where` something holds."""
    return np.add.reduceat(where.astype(np.uint64)[order], starts)


def series_of(parts: Sequence[Parts], since: float, step_s: float) -> tuple[Tick, ...]:
    """Put parts of several stores together. Raises `FlowStoreError` where they are none."""
    sources, destinations, points, sides, steps, every, refused, would = _columns(parts, SERIES_PARTS)
    if not len(points):
        return ()
    key = (*_halves(sources), *_halves(destinations), points.astype(np.uint64))
    order, starts = _groups((*key, steps.view(np.uint64)), ())
    out = sides == 0

    def total(column: Column, where: NDArray[np.bool_]) -> Words:
        return np.add.reduceat(np.where(where, column, 0).astype(np.uint64)[order], starts)

    refused_out, denied = total(refused, out), total(refused, out) + total(refused, ~out)
    allowed = np.maximum(total(every, out), refused_out + total(every, ~out)) - denied
    doubtful = np.minimum(np.maximum(total(would, out), total(would, ~out)), allowed)
    numbers, place = np.unique(steps[order[starts]], return_inverse=True)
    sums = [np.zeros(len(numbers), np.uint64) for _ in range(3)]
    for column, one in zip(sums, (allowed, denied, doubtful), strict=True):
        np.add.at(column, place, one)
    rows = zip(numbers.tolist(), *(column.tolist() for column in sums), strict=True)
    return tuple(Tick(since + step * step_s, *counts) for step, *counts in rows)


def _columns(parts: Sequence[Parts], types: Sequence[str]) -> list[Column]:
    if any(len(one) != len(types) for one in parts):
        raise FlowStoreError("another number of columns than was asked for")
    found = [np.frombuffer(b"".join(one[at] for one in parts), kind) for at, kind in enumerate(types)]
    if len({len(column) for column in found}) > 1:
        raise FlowStoreError("columns of several lengths")
    return found


def _halves(addresses: Column) -> tuple[Words, Words]:
    words = addresses.view("<u8").reshape(-1, 2)
    return words[:, 0], words[:, 1]


def _groups(columns: tuple[Words, ...], then: tuple[Column, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Put rows that are alike in `columns` beside each other, in order of the last of `then`: the order, and where in
    it each group begins."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = (mixed ^ column) * _ODD
        mixed ^= mixed >> _SHIFT
    order = np.lexsort((*then, mixed)) if then else np.argsort(mixed, kind="stable")
    starts = _starts(order, (mixed,))
    if len(starts) != len(_starts(order, columns)):
        # Two that differ were mixed alike: it happens once in a very long time, and then it takes longer.
        order = np.lexsort((*then, *columns))
        starts = _starts(order, columns)
    return order, starts


def _starts(order: NDArray[np.intp], columns: tuple[Words, ...]) -> NDArray[np.intp]:
    new = np.zeros(len(order), np.bool_)
    new[:1] = True
    for column in columns:
        sorted_ = column[order]
        new[1:] |= sorted_[1:] != sorted_[:-1]
    return np.flatnonzero(new)
