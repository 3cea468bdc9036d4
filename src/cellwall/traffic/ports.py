"""Protocols and ports as one line of points, and sets of such points.

Every kind of traffic that a policy can name is a point on a line of 2**24 integers: the IP protocol number in the
upper 8 bits and a 16-bit *port* in the lower ones. For TCP, UDP, SCTP, DCCP and UDP-Lite the port is the destination
port; for ICMP and ICMPv6 it is type times 256 plus code; other protocols have only port 0 on the wire, and policies
name them whole. So every set of services is a set of integer intervals, and its algebra is that of intervals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

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


@dataclass(frozen=True)
class PortSet:
    """A set of points: sorted, disjoint spans that do not touch. Equal sets are equal values."""

    spans: tuple[Span, ...] = ()

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

    @cached_property
    def _firsts(self) -> tuple[int, ...]:
        return tuple(span.first for span in self.spans)

    def __contains__(self, at: int) -> bool:
        return any(span.first <= at <= span.last for span in self.spans)

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __or__(self, other: PortSet) -> PortSet:
        return PortSet.of(self.spans + other.spans)

    def __and__(self, other: PortSet) -> PortSet:
        return PortSet.of(
            Span(max(a.first, b.first), min(a.last, b.last))
            for a in self.spans
            for b in other.spans
            if a.first <= b.last and b.first <= a.last
        )

    def __sub__(self, other: PortSet) -> PortSet:
        kept: list[Span] = []
        for span in self.spans:
            first = span.first
            for cut in other.spans:
                if cut.last < first or cut.first > span.last:
                    continue
                if cut.first > first:
                    kept.append(Span(first, cut.first - 1))
                first = cut.last + 1
            if first <= span.last:
                kept.append(Span(first, span.last))
        return PortSet.of(kept)

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
        elif protocol in ICMPS and low & 0xFF == 0 and high & 0xFF == 0xFF:
            low, high = low >> 8, high >> 8
            parts.append(f"{name}/{low}" if low == high else f"{name}/{low}-{high}")
        elif protocol in ICMPS and low == high:
            parts.append(f"{name}/{low >> 8}/{low & 0xFF}")
        else:
            parts.append(f"{name}/{low}" if low == high else f"{name}/{low}-{high}")
    return ", ".join(parts)


_PROTOCOL = re.compile(r"[a-z][a-z0-9]*|\d{1,3}")


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
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and first.isascii() and (not dash or (last.isdecimal() and last.isascii()))):
        raise ServiceError(f"`{whole}`: `{text}` is not a number or a range such as `8000-8100`")
    low, high = int(first), int(last) if dash else int(first)
    if high > most:
        raise ServiceError(f"`{whole}`: `{high}` is over {most}")
    if low > high:
        raise ServiceError(f"`{whole}`: the range runs backwards; did you mean `{high}-{low}`?")
    return low, high
