"""Orders survive the wire; and without them every byte is what protocol 1 knows."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace as changed

from cellwall.compile import AddressSpan, OrderCard, Ruleset, Way
from cellwall.policy import Mode, OrderKind
from cellwall.wire import (
    Forged,
    MemberChange,
    WireError,
    content_hash,
    decode_orders,
    decode_ruleset,
    digest,
    encode_orders,
    encode_ruleset,
    sign,
    signed_part,
    verify,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
CARD = OrderCard(
    (1 << 28) - 7,
    "contain-1",
    OrderKind.CONTAIN,
    (Way((AddressSpan(4, 1, 9), AddressSpan(6, 5, 5)), ()), Way((), (AddressSpan(6, 7, 8),))),
    ((393661, 393661),),
    ((b"\x0a\0\0\1", b"\x0a\0\0\2"), (bytes(16), bytes(16))),
    1234.5,
)
PLAIN = Ruleset("web", 3, Mode.OBSERVE)
ORDERED = replace(PLAIN, orders=(CARD, replace(CARD, id="seal-1", kind=OrderKind.SEAL, expires=None)))


def test_orders_come_back_as_they_went() -> None:
    assert decode_orders(encode_orders(ORDERED.orders)) == ORDERED.orders
    assert decode_ruleset(encode_ruleset(ORDERED)) == ORDERED
    assert decode_orders(b"") == ()
    assert encode_orders(()) == b""


def test_without_orders_a_ruleset_is_written_as_protocol_1_writes_it() -> None:
    assert len(msgspec.msgpack.decode(encode_ruleset(PLAIN))) == 9
    assert len(msgspec.msgpack.decode(encode_ruleset(ORDERED))) == 10
    assert decode_ruleset(encode_ruleset(PLAIN)) == PLAIN


def test_orders_are_in_the_digest_and_not_in_the_content() -> None:
    assert content_hash(ORDERED) == content_hash(PLAIN)
    assert len({digest(one, {}) for one in (PLAIN, ORDERED, replace(PLAIN, orders=(CARD,)))}) == 3


def test_a_change_without_orders_is_signed_as_protocol_1_signs_it() -> None:
    change = MemberChange(workload="web", base=1, generation=2, revision=1, digest="d")
    kind, *fields = msgspec.msgpack.decode(signed_part(change))
    assert (kind, len(fields)) == ("cellwall member change 1", 8)
    kind, *fields = msgspec.msgpack.decode(signed_part(changed(change, orders=b"")))
    assert (kind, len(fields)) == ("cellwall member change 2", 9)


@pytest.mark.parametrize("orders", [None, b"", b"other"])
def test_the_orders_of_a_change_cannot_be_changed(orders: bytes | None) -> None:
    change = sign(MemberChange(workload="web", base=1, generation=2, revision=1, orders=b"these"), KEY)
    assert verify(change, PUBLIC, "web") is change
    with pytest.raises(Forged):
        verify(changed(change, orders=orders), PUBLIC, "web")


GOOD = [1, "o", "contain", [], [[0, 9]], [], None]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 0),
        (1, ""),
        (1, "a b"),
        (2, "deny"),
        (3, [[[[b"1234", b"0000"]], []]]),
        (3, [[[[b"1234", bytes(16)]], []]]),
        (3, [[[[b"2222", b"2222"], [b"1111", b"1111"]], []]]),
        (4, [[9, 0]]),
        (4, [[0, 1 << 24]]),
        (5, [[b"1234", bytes(16)]]),
        (6, "soon"),
    ],
)
def test_what_is_no_order_is_refused(place: int, value: object) -> None:
    assert decode_orders(msgspec.msgpack.encode([GOOD]))
    with pytest.raises(WireError):
        decode_orders(msgspec.msgpack.encode([[*GOOD[:place], value, *GOOD[place + 1 :]]]))
