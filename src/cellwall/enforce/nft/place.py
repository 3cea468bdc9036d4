"""Where each entry of a ruleset stands in the maps of a face: the narrowest kind of key is looked up first."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from dataclasses import dataclass

from cellwall.compile import EVERYONE, Entry
from cellwall.enforce.nft.program import Range
from cellwall.policy import Action
from cellwall.traffic import ICMP, ICMPS, icmp_blocks


@dataclass(frozen=True, slots=True)
class Cell:
    """One element to be placed: its tier, the key after the class, and the entry (None: the default)."""

    tier: str
    key: tuple[Range, ...]
    entry: Entry | None


def place(own: list[Entry], common: list[Entry]) -> list[Cell]:
    """Spread one class's entries over the tiers, narrow before wide, so that the first hit is the right one.

    `own` are the class's entries, `common` those of everyone, which follow where the class has no element. A wide
    element hides what follows; where it would be wrong, narrower ones stand before it.
    """
    if not own:
        return []
    whole = _overlay(own, common)
    touched = {protocol for entry in own for protocol in range(entry.first >> 16, (entry.last >> 16) + 1)}
    cells: list[Cell] = []
    hidden: Entry | None = None
    everything = False
    if len(touched) > 128:
        # Whole protocols with one verdict: where that is most of them, one element for all.
        alike = [spans[0][2] for protocol in range(256) if len(spans := _within(whole, protocol)) == 1]
        verdict, times = Tally(map(_verdict, alike)).most_common(1)[0]
        everything = verdict is not None and times > 128
        hidden = next(entry for entry in alike if _verdict(entry) == verdict)
    if everything:
        cells.append(Cell("all", (), hidden))
        touched = set(range(256))
    for protocol in sorted(touched):
        spans = _within(whole, protocol)
        follows: list[Piece] = [(0, 0xFFFF, hidden)] if everything else _within(common, protocol)
        if _same(spans, follows):
            continue
        if len(spans) == 1:
            cells.append(Cell("proto", ((protocol, protocol),), spans[0][2]))
            continue
        longest = max(spans, key=lambda span: span[1] - span[0])
        if longest[2] is not None and longest[1] - longest[0] >= 0x4000 and not _covered(follows, longest):
            cells.append(Cell("proto", ((protocol, protocol),), longest[2]))
            follows = [(0, 0xFFFF, longest[2])]
        for low, high, entry in _unlike(spans, follows):
            cells.extend(_ports(protocol, low, high, entry))
    return cells


Piece = tuple[int, int, Entry | None]


def _overlay(own: list[Entry], common: list[Entry]) -> list[Entry]:
    """Give `own` and, around it, what of `common` it leaves, in order."""
    pieces = list(own)
    for entry in common:
        first = entry.first
        for cut in own:
            if cut.last < first or cut.first > entry.last:
                continue
            if cut.first > first:
                pieces.append(Entry(EVERYONE, first, cut.first - 1, entry.action, entry.rules))
            first = cut.last + 1
        if first <= entry.last:
            pieces.append(Entry(EVERYONE, first, entry.last, entry.action, entry.rules))
    return sorted(pieces, key=lambda entry: entry.first)


def _within(entries: list[Entry], protocol: int) -> list[Piece]:
    """Cut the ports 0 to 65535 of one protocol into pieces, each with what decides it; neighbours differ."""
    base = protocol << 16
    pieces: list[Piece] = []
    at = 0
    for entry in entries:
        low, high = max(entry.first - base, 0), min(entry.last - base, 0xFFFF)
        if low > high:
            continue
        if low > at:
            pieces.append((at, low - 1, None))
        pieces.append((low, high, entry))
        at = high + 1
    if at <= 0xFFFF:
        pieces.append((at, 0xFFFF, None))
    joined: list[Piece] = []
    for piece in pieces:
        if joined and _verdict(joined[-1][2]) == _verdict(piece[2]):
            joined[-1] = (joined[-1][0], piece[1], joined[-1][2])
        else:
            joined.append(piece)
    return joined


def _verdict(entry: Entry | None) -> tuple[Action, tuple[int, ...]] | None:
    return None if entry is None else (entry.action, entry.rules)


def _same(one: list[Piece], other: list[Piece]) -> bool:
    return [(low, high, _verdict(entry)) for low, high, entry in one] == [
        (low, high, _verdict(entry)) for low, high, entry in other
    ]


def _covered(follows: list[Piece], piece: Piece) -> bool:
    return any(
        low <= piece[0] and piece[1] <= high and _verdict(entry) == _verdict(piece[2]) for low, high, entry in follows
    )


def _unlike(spans: list[Piece], follows: list[Piece]) -> Iterable[Piece]:
    """Give the parts of `spans` whose verdict is not the one that follows."""
    for low, high, entry in spans:
        for first, last, other in follows:
            start, end = max(low, first), min(high, last)
            if start <= end and _verdict(entry) != _verdict(other):
                yield start, end, entry


def _ports(protocol: int, low: int, high: int, entry: Entry | None) -> Iterable[Cell]:
    if protocol in ICMPS:
        tier = "icmp4" if protocol == ICMP else "icmp6"
        for types, codes in icmp_blocks(low, high):
            yield Cell(tier, (types, codes), entry)
    elif low == high:
        yield Cell("port", ((protocol, protocol), (low, low)), entry)
    else:
        yield Cell("range", ((protocol, protocol), (low, high)), entry)
