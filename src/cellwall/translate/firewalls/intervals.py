"""Sets of integers as sorted intervals, and addresses on one line of them: IPv4 first, then IPv6."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network

from cellwall.traffic import LAST_POINT, Address, Network, PortSet, Span

Intervals = tuple[tuple[int, int], ...]
"""A set of integers: inclusive intervals, sorted, apart by at least one. Equal sets are equal values."""

_V6 = 1 << 32
NONE: Intervals = ()
IPV4: Intervals = ((0, _V6 - 1),)
IPV6: Intervals = ((_V6, _V6 + (1 << 128) - 1),)
ADDRESSES: Intervals = ((0, _V6 + (1 << 128) - 1),)
PORTS: Intervals = ((0, LAST_POINT),)
LOOPBACK: Intervals = ((127 << 24, (128 << 24) - 1), (_V6 + 1, _V6 + 1))
SHARED: Intervals = (
    (224 << 24, (240 << 24) - 1),
    (_V6 - 1, _V6 - 1),
    (_V6 + (0xFF << 120), _V6 + (1 << 128) - 1),
)
"""Multicast, and the broadcast to everyone: nobody's own (RFC 5771, RFC 919, RFC 4291 §2.7)."""


def join(parts: Iterable[tuple[int, int]]) -> Intervals:
    """Give the union of intervals in any order."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(parts):
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def meet(one: Intervals, other: Intervals) -> Intervals:
    """Give what is in both."""
    if one is other or one == other:
        return one
    found: list[tuple[int, int]] = []
    at = there = 0
    while at < len(one) and there < len(other):
        first, last = max(one[at][0], other[there][0]), min(one[at][1], other[there][1])
        if first <= last:
            found.append((first, last))
        if one[at][1] < other[there][1]:
            at += 1
        else:
            there += 1
    return tuple(found)


def less(one: Intervals, other: Intervals) -> Intervals:
    """Give what is in `one` and not in `other`."""
    kept: list[tuple[int, int]] = []
    at = 0
    for first, last in one:
        while at < len(other) and other[at][1] < first:
            at += 1
        here = at
        while here < len(other) and other[here][0] <= last:
            if other[here][0] > first:
                kept.append((first, other[here][0] - 1))
            first = other[here][1] + 1
            here += 1
        if first <= last:
            kept.append((first, last))
    return tuple(kept)


def touch(one: Intervals, other: Intervals) -> bool:
    """Say whether anything is in both."""
    at = there = 0
    while at < len(one) and there < len(other):
        if one[at][0] <= other[there][1] and other[there][0] <= one[at][1]:
            return True
        if one[at][1] < other[there][1]:
            at += 1
        else:
            there += 1
    return False


def place_of(address: Address) -> int:
    """Give the place of an address on the line."""
    return int(address) + (_V6 if address.version == 6 else 0)


def of_networks(networks: Iterable[Network]) -> Intervals:
    """Give the addresses of networks."""
    return join((place_of(one.network_address), place_of(one.broadcast_address)) for one in networks)


def of_addresses(addresses: Iterable[Address]) -> Intervals:
    """Give a set of single addresses."""
    return join((place_of(one), place_of(one)) for one in addresses)


def of_range(first: Address, last: Address) -> Intervals:
    """Give the addresses from `first` to `last`, of one family."""
    return ((place_of(first), place_of(last)),)


def networks_of(addresses: Intervals) -> tuple[Network, ...]:
    """Give the fewest prefixes that hold exactly `addresses`.

    Prefixes of IPv4-mapped IPv6 addresses are left out: no packet carries one (RFC 4291 §2.5.5.2), and a policy reads
    them as IPv4."""
    made: list[Network] = []
    for first, last in meet(addresses, IPV4):
        made.extend(IPv4Network((at, 32 - bits)) for at, bits in _blocks(first, last, 32))
    for first, last in meet(addresses, IPV6):
        blocks = _blocks(first - _V6, last - _V6, 128)
        made.extend(IPv6Network((at, 128 - bits)) for at, bits in blocks if bits > 32 or at >> 32 != 0xFFFF)
    return tuple(made)


def _blocks(first: int, last: int, width: int) -> Iterator[tuple[int, int]]:
    while first <= last:
        aligned = (first & -first).bit_length() - 1 if first else width
        bits = min(aligned, (last - first + 1).bit_length() - 1)
        yield first, bits
        first += 1 << bits


def of_ports(ports: PortSet) -> Intervals:
    """Give a set of ports as intervals of the line of `cellwall.traffic`."""
    return tuple((span.first, span.last) for span in ports.spans)


def ports_of(points: Intervals) -> PortSet:
    """Give intervals of the line as a set of ports."""
    return PortSet(tuple(Span(first, last) for first, last in points))
