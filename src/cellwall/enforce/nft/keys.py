"""Keys of maps and sets as the kernel compares them, and back."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from cellwall.enforce.nft.element import concat, mark
from cellwall.enforce.nft.orders import ALLOWED, DENIED, WOULD_DENY
from cellwall.enforce.nft.program import Data, Key, Kind, MapShape
from cellwall.enforce.nft.render import RULE_MASK
from cellwall.enforce.point import Seen
from cellwall.flows import Outcome

_SIZES = {
    Kind.MARK: 4,
    Kind.IPV4: 4,
    Kind.IPV6: 16,
    Kind.PROTOCOL: 1,
    Kind.PORT: 2,
    Kind.ICMP_TYPE: 1,
    Kind.ICMP_CODE: 1,
    Kind.ICMPV6_TYPE: 1,
    Kind.ICMPV6_CODE: 1,
    Kind.USER: 4,
    Kind.CGROUP: 8,
    Kind.FAMILY: 1,
}
_HOST_ORDER = {Kind.USER, Kind.CGROUP}
_ADDRESS = ((Kind.IPV4,), (Kind.IPV6,))


def encode(shape: MapShape, key: Key) -> tuple[bytes, bytes | None]:
    """Give the first and the last key of an element; the last is None in a map without ranges."""
    first = _joined([_field(kind, low, shape.interval) for kind, (low, _) in zip(shape.key, key, strict=True)])
    if not shape.interval:
        return first, None
    return first, _joined([_field(kind, high, True) for kind, (_, high) in zip(shape.key, key, strict=True)])


def as_marks(shape: MapShape, elements: Iterable[tuple[Key, Data]]) -> dict[bytes, int] | None:
    """Give the elements of a map from one address to a mark as the kernel has them; None where it is no such map."""
    if shape.data != "mark" or shape.interval or shape.key not in _ADDRESS:
        return None
    size = _SIZES[shape.key[0]]
    return {key[0][0].to_bytes(size, "big"): mark for key, mark in elements if isinstance(mark, int)}


def _joined(fields: list[bytes]) -> bytes:
    return concat(*fields) if len(fields) > 1 else fields[0]


def _field(kind: Kind, value: int, interval: bool) -> bytes:
    if kind is Kind.MARK:
        return mark(value, ranges=interval)
    return value.to_bytes(_SIZES[kind], sys.byteorder if kind in _HOST_ORDER else "big")


_SEEN4 = struct.Struct(">4s4sBxxxHxx")
_SEEN6 = struct.Struct(">16s16sBxxxHxx")
_ICMP4 = struct.Struct(">4s4sBxxxBxxx")
_ICMP6 = struct.Struct(">16s16sBxxxBxxx")
_OTHER4 = struct.Struct(">4s4sBxxx")
_OTHER6 = struct.Struct(">16s16sBxxx")
_LAYOUTS = {
    "seen4": (_SEEN4, 0),
    "seen6": (_SEEN6, 0),
    "seen_icmp4": (_ICMP4, 1),
    "seen_icmp6": (_ICMP6, 58),
    "seen_other4": (_OTHER4, 0),
    "seen_other6": (_OTHER6, 0),
}
SEEN_SETS = tuple(_LAYOUTS)
OUTCOMES = {
    ALLOWED: (Outcome.ALLOWED, Outcome.ALLOWED),
    DENIED: (Outcome.DENIED, Outcome.DENIED),
    WOULD_DENY: (Outcome.ALLOWED, Outcome.DENIED),
}
"""Outcome and would-be outcome, by the upper bits of the mark with which a tuple is counted."""


def decode_seen(set_name: str, key: bytes, count: int) -> Seen | None:
    """Read a counted tuple of one of `SEEN_SETS`; None for a key that is not ours."""
    layout, icmp = _LAYOUTS[set_name]
    if len(key) != layout.size + 4:
        return None
    source, destination, *rest = layout.unpack_from(key)
    verdict = int.from_bytes(key[layout.size :], sys.byteorder)
    outcomes = OUTCOMES.get(verdict & ~RULE_MASK)
    if outcomes is None:
        return None
    address = IPv4Address if len(source) == 4 else IPv6Address
    if icmp:
        protocol, port = icmp, rest[0] << 8 | rest[1]
    else:
        protocol, port = rest[0], rest[1] if len(rest) > 1 else 0
    return Seen(address(source), address(destination), protocol, port, *outcomes, verdict & RULE_MASK, count)
