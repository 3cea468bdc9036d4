"""Protocols and ports as one line of points, and sets of such points.

Every kind of traffic that a policy can name is a point on a line of 2**24 integers: the IP protocol number in the
upper 8 bits and a 16-bit *port* in the lower ones. For TCP, UDP, SCTP, DCCP and UDP-Lite the port is the destination
port; for ICMP and ICMPv6 it is type times 256 plus code; other protocols have only port 0 on the wire, and policies
name them whole. So every set of services is a set of integer intervals, and its algebra is that of intervals.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from cellwall.traffic.errors import CellwallError

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
PROTOCOLS: dict[str, int] = {
    "icmp": ICMP,
    "igmp": 2,
    "ipip": 4,
    "tcp": TCP,
    "udp": UDP,
    "dccp": DCCP,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": ICMPV6,
    "ospf": 89,
    "vrrp": 112,
    "sctp": SCTP,
    "udplite": UDPLITE,
}
"""Names of IP protocols (IANA, Assigned Internet Protocol Numbers)."""
PROTOCOL_NAMES: dict[int, str] = {number: name for name, number in PROTOCOLS.items()}
PORTED = frozenset({TCP, UDP, DCCP, SCTP, UDPLITE})
"""Protocols whose header begins with a source and a destination port."""
ICMPS = frozenset({ICMP, ICMPV6})
LAST_POINT = (1 << 24) - 1


class ServiceError(CellwallError):
    """A text that does not name ports or protocols."""


def point(protocol: int, port: int) -> int:
    """Give the place on the line of `protocol` (0 to 255) and `port` (0 to 65535)."""
    return protocol << 16 | port


def port_name(at: int) -> str:
    """Write a point as a policy would: `tcp/5432`, `icmp/8/0`, `gre`."""
    protocol, port = at >> 16, at & 0xFFFF
    name = PROTOCOL_NAMES.get(protocol, str(protocol))
    if protocol in ICMPS:
        return f"{name}/{port >> 8}/{port & 0xFF}"
    return f"{name}/{port}" if protocol in PORTED else name


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """An inclusive interval of points, 0 to 2**24 - 1."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= LAST_POINT:
            raise ServiceError(f"`{self.first}-{self.last}` is not an interval of ports")

    def by_protocol(self) -> Iterator[tuple[int, int, int]]:
        """Cut at protocol borders: triples of protocol, first port, last port."""
        for protocol in range(self.first >> 16, (self.last >> 16) + 1):
            low = max(self.first, protocol << 16) & 0xFFFF
            high = min(self.last, protocol << 16 | 0xFFFF) & 0xFFFF
            yield protocol, low, high


@dataclass(frozen=True, slots=True)
class PortSet:
    """A set of points: sorted, disjoint spans that do not touch. Equal sets are equal values."""

    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        if any(later.first <= earlier.last + 1 for earlier, later in pairwise(self.spans)):
            raise ServiceError("spans of ports overlap, touch or are out of order; wanted `PortSet.of`")

    @staticmethod
    def of(spans: Iterable[Span]) -> PortSet:
        """Give the union of `spans` in canonical form."""
        merged: list[tuple[int, int]] = []
        for span in sorted(spans):
            if merged and span.first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], span.last))
            else:
                merged.append((span.first, span.last))
        return PortSet(tuple(Span(first, last) for first, last in merged))

    def __contains__(self, at: int) -> bool:
        index = bisect_right(self.spans, at, key=lambda span: span.first) - 1
        return index >= 0 and at <= self.spans[index].last

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __or__(self, other: PortSet) -> PortSet:
        return PortSet.of(self.spans + other.spans)

    def __and__(self, other: PortSet) -> PortSet:
        return self - (EVERYTHING - other)

    def __sub__(self, other: PortSet) -> PortSet:
        kept: list[Span] = []
        at = 0
        for span in self.spans:
            first = span.first
            while at < len(other.spans) and other.spans[at].first <= span.last:
                cut = other.spans[at]
                if cut.first > first:
                    kept.append(Span(first, cut.first - 1))
                first = max(first, cut.last + 1)
                if cut.last > span.last:
                    break  # it cuts the next span too
                at += 1
            if first <= span.last:
                kept.append(Span(first, span.last))
        return PortSet(tuple(kept))

    def size(self) -> int:
        """Count the points."""
        return sum(span.last - span.first + 1 for span in self.spans)

    def __str__(self) -> str:
        return ", ".join(_write(span) for span in self.spans) or "nothing"


EVERYTHING = PortSet((Span(0, LAST_POINT),))
NOTHING = PortSet()


def _write(span: Span) -> str:
    if (span.first, span.last) == (0, LAST_POINT):
        return "any"
    parts: list[str] = []
    for protocol, low, high in span.by_protocol():
        name = PROTOCOL_NAMES.get(protocol, str(protocol))
        if (low, high) == (0, 0xFFFF):
            parts.append(name)
        elif protocol in ICMPS:
            for types, codes in icmp_blocks(low, high):
                parts.append(f"{name}/{_spell(types)}" + ("" if codes == (0, 0xFF) else f"/{_spell(codes)}"))
        else:
            parts.append(f"{name}/{_spell((low, high))}")
    return ", ".join(parts)


def _spell(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]}-{ends[1]}"


def icmp_blocks(low: int, high: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut the ports `low` to `high` of ICMP into blocks: first and last type, first and last code."""
    first, last = low >> 8, high >> 8
    if first == last:
        yield (first, last), (low & 0xFF, high & 0xFF)
        return
    if low & 0xFF:
        yield (first, first), (low & 0xFF, 0xFF)
        first += 1
    whole = last if high & 0xFF == 0xFF else last - 1
    if first <= whole:
        yield (first, whole), (0, 0xFF)
    if whole < last:
        yield (last, last), (0, high & 0xFF)


_PROTOCOL = re.compile(r"[a-z][a-z0-9]*|[0-9]{1,3}")
_NUMBERS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


@lru_cache(maxsize=4096)
def parse_ports(text: str) -> PortSet:
    """Read `tcp/80`, `tcp/8000-8100`, `icmp/8`, `icmp/3/4`, `icmp/8-15`, `gre`, `47` or `any`.

    Raises `ServiceError` that says what was wanted.
    """
    if text == "any":
        return EVERYTHING
    name, _, rest = text.partition("/")
    if not _PROTOCOL.fullmatch(name):
        raise ServiceError(f"`{text}` names no ports; wanted `tcp/443`, `udp/5000-5010`, `icmp/8`, `gre` or `any`")
    protocol = int(name) if name.isdigit() else PROTOCOLS.get(name, -1)
    if not 0 <= protocol <= 255:
        known = "`, `".join(PROTOCOLS)
        raise ServiceError(f"`{name}` is not a protocol; known are `{known}` or a number 0 to 255")
    base = protocol << 16
    if "/" not in text:
        return PortSet((Span(base, base | 0xFFFF),))
    if protocol in ICMPS:
        kind, slash, code = rest.partition("/")
        low, high = _range(kind, 255, text)
        if not slash:
            return PortSet((Span(base | low << 8, base | high << 8 | 0xFF),))
        if low != high:
            raise ServiceError(f"`{text}` has a range of types and a code; write one type for a code")
        first, last = _range(code, 255, text)
        return PortSet((Span(base | low << 8 | first, base | low << 8 | last),))
    if protocol not in PORTED:
        raise ServiceError(f"`{text}`: protocol `{name}` has no ports; write `{name}` alone")
    low, high = _range(rest, 65535, text)
    return PortSet((Span(base | low, base | high),))


def _range(text: str, most: int, whole: str) -> tuple[int, int]:
    found = _NUMBERS.fullmatch(text)
    if found is None:
        raise ServiceError(f"`{whole}`: `{text}` is not a number or a range such as `8000-8100`")
    low, high = int(found[1]), int(found[2] or found[1])
    if high > most:
        raise ServiceError(f"`{whole}`: `{high}` is over {most}")
    if low > high:
        raise ServiceError(f"`{whole}`: the range runs backwards; did you mean `{high}-{low}`?")
    return low, high
