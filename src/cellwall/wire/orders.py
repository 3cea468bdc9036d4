"""Orders of an emergency as bytes: what a point is to enforce beside its ruleset, small enough to travel alone.

No orders are no bytes; and what has none reads, signs and digests as it did before there were any (protocol 1).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.msgpack import Decoder

from cellwall.compile import AddressSpan, OrderCard, Way
from cellwall.policy import OrderKind
from cellwall.traffic import LAST_POINT
from cellwall.wire.codec import MOST_FROM_CONTROLLER, decode
from cellwall.wire.errors import WireError
from cellwall.wire.messages import Packed

Point = Annotated[int, Meta(ge=0, le=LAST_POINT)]
Spans = tuple[tuple[Packed, Packed], ...]
_WIDTH = {4: 4, 6: 16}


class _Order(Struct, frozen=True, array_like=True, gc=False):
    """An order as an array of its fields; a later version may add fields at the end, with a default."""

    number: Annotated[int, Meta(ge=1, lt=1 << 28)]
    id: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    kind: OrderKind
    ways: tuple[tuple[Spans, Spans], ...]
    spans: tuple[tuple[Point, Point], ...]
    exempt: tuple[tuple[Packed, Packed], ...]
    expires: float | None


_orders: Decoder[tuple[_Order, ...]] = Decoder(tuple[_Order, ...])


def encode_orders(orders: tuple[OrderCard, ...]) -> bytes:
    """Write orders; equal orders give equal bytes, none give none."""
    if not orders:
        return b""
    rows = [
        _Order(
            one.number,
            one.id,
            one.kind,
            tuple((_packed(way.sources), _packed(way.destinations)) for way in one.ways),
            one.spans,
            one.exempt,
            one.expires,
        )
        for one in orders
    ]
    return msgspec.msgpack.encode(rows)


def decode_orders(data: bytes) -> tuple[OrderCard, ...]:
    """Read orders; raises `WireError`."""
    if not data:
        return ()
    rows = decode(_orders, data, MOST_FROM_CONTROLLER)
    for row in rows:
        if any(len(one) != len(other) for one, other in row.exempt):
            raise WireError(f"order `{row.id}` exempts a pair of two kinds of address")
        if any(first > last for first, last in row.spans):
            raise WireError(f"order `{row.id}` has ports that run backwards")
    return tuple(
        OrderCard(
            row.number,
            row.id,
            row.kind,
            tuple(Way(_spans(sources), _spans(destinations)) for sources, destinations in row.ways),
            row.spans,
            row.exempt,
            row.expires,
        )
        for row in rows
    )


def _packed(spans: tuple[AddressSpan, ...]) -> Spans:
    return tuple(
        (one.first.to_bytes(_WIDTH[one.version], "big"), one.last.to_bytes(_WIDTH[one.version], "big")) for one in spans
    )


def _spans(rows: Spans) -> tuple[AddressSpan, ...]:
    found: list[AddressSpan] = []
    for first, last in rows:
        if len(first) != len(last) or len(first) not in (4, 16) or first > last:
            raise WireError("addresses of an order whose ends do not belong together")
        found.append(AddressSpan(ip_address(first).version, int.from_bytes(first, "big"), int.from_bytes(last, "big")))
    if found != sorted(found):
        raise WireError("addresses of an order that are out of order")
    return tuple(found)
