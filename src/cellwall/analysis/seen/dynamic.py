"""Ports that are handed out as needed: recognised among those that were seen, and widened to the range behind them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from cellwall.traffic import PORTED

EPHEMERAL = 32768
"""From here on Linux hands out ports by itself (ip(7), ip_local_port_range: 32768 to 60999)."""
DYNAMIC = 49152
"""From here on nothing is assigned (RFC 6335 §6)."""
FEW_HIGH, FEW = 4, 8
"""So many distinct ports of one server, from `EPHEMERAL` on or from 1024 on, are a range and not a list."""
WIDE = 4096


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """The ports `first` to `last` of a protocol, which a server was seen to use or, if `dynamic`, is taken to use."""

    protocol: int
    first: int
    last: int
    dynamic: bool = False


def find_ranges(seen: Iterable[tuple[Hashable, str, int, int]]) -> dict[tuple[Hashable, str, int, int], PortRange]:
    """Give the range of each item of `seen`: class of servers, process ("" if unknown), protocol, port.

    Few ports stay themselves. Many high ones of one class and process become one range from the lowest to the
    highest, widened by what the gaps between them say of those not yet seen.
    """
    items = set(seen)
    ports: defaultdict[tuple[Hashable, str, int], set[int]] = defaultdict(set)
    for server, process, protocol, port in items:
        if protocol in PORTED and port >= (1024 if process else EPHEMERAL):
            ports[server, process, protocol].add(port)
    ranges: dict[tuple[Hashable, str, int], PortRange] = {}
    for at, found in ports.items():
        high = {port for port in found if port >= EPHEMERAL}
        if len(high) >= FEW_HIGH:
            ranges[at] = widen(at[2], high)
        elif len(found) >= FEW:
            ranges[at] = widen(at[2], found)
    result: dict[tuple[Hashable, str, int, int], PortRange] = {}
    for item in items:
        server, process, protocol, port = item
        found = ranges.get((server, process, protocol))
        inside = found is not None and found.first <= port <= found.last
        result[item] = found if found is not None and inside else PortRange(protocol, port, port)
    return result


def widen(protocol: int, ports: Iterable[int]) -> PortRange:
    """Give the range that at least two ports come from.

    Of ports drawn at random, one end in twenty lies over three mean gaps beyond the outermost: so far an end moves,
    or less, to a round number or to where the length is a power of two; where there are no gaps, by as much again as
    was seen. A range that fills much of what kernels hand out is taken to be that."""
    ordered = sorted(set(ports))
    low, high = ordered[0], ordered[-1]
    if high - low >= WIDE and low >= EPHEMERAL:
        if low >= DYNAMIC:
            return PortRange(protocol, DYNAMIC, 65535, dynamic=True)
        return PortRange(protocol, EPHEMERAL, 60999 if high <= 60999 else 65535, dynamic=True)
    gap = -(-(high - low) // (len(ordered) - 1))
    # Ports without a gap are handed out one after the other: then as many again may be to come.
    margin = 3 * gap if gap > 1 else len(ordered)
    first = _round_down(low, max(low - margin, 1024 if low < EPHEMERAL else EPHEMERAL))
    most = min(high + margin, 65535)
    last = next((first + (1 << bits) - 1 for bits in range(17) if high <= first + (1 << bits) - 1 <= most), most)
    return PortRange(protocol, first, last, dynamic=True)


def _round_down(high: int, low: int) -> int:
    """Give the roundest number from `low` to `high`, or `low`."""
    for step in (10000, 4096, 1000, 1024, 256, 100):
        rounded = high // step * step
        if rounded >= low:
            return rounded
    return low
