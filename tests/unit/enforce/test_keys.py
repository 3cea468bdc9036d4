"""Keys as bytes are as the kernel has them, and what it counted is read back whole."""

from __future__ import annotations

import sys
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.compile import Ruleset
from cellwall.enforce import Seen
from cellwall.enforce.nft.keys import SEEN_SETS, as_marks, decode_seen, encode
from cellwall.enforce.nft.orders import ALLOWED, DENIED, WOULD_DENY
from cellwall.enforce.nft.program import Key, Kind, MapShape
from cellwall.enforce.nft.render import render
from cellwall.flows import Outcome
from cellwall.policy import Mode

PROGRAM = render(Ruleset("a", 1, Mode.ENFORCE), {})
LITTLE = sys.byteorder == "little"


def host(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, sys.byteorder)


def one(*values: int) -> Key:
    return tuple((value, value) for value in values)


@pytest.mark.parametrize(
    ("shape", "key", "first", "last"),
    [
        (MapShape("m", (Kind.IPV4,), "mark"), one(0x0A000001), b"\x0a\0\0\1", None),
        (MapShape("m", (Kind.USER,), "verdict"), one(1000), host(1000), None),
        (MapShape("m", (Kind.CGROUP,), "verdict"), one(1 << 40), host(1 << 40, 8), None),
        (MapShape("m", (Kind.MARK, Kind.PROTOCOL), "verdict"), one(5, 6), host(5) + b"\6\0\0\0", None),
        (
            MapShape("m", (Kind.MARK, Kind.PROTOCOL, Kind.PORT), "verdict"),
            one(5, 6, 443),
            host(5) + b"\6\0\0\0" + b"\x01\xbb\0\0",
            None,
        ),
        (
            MapShape("m", (Kind.IPV4,), "mark", interval=True),
            ((0x0A000000, 0x0A0000FF),),
            b"\x0a\0\0\0",
            b"\x0a\0\0\xff",
        ),
    ],
)
def test_a_key_is_written_field_by_field(shape: MapShape, key: Key, first: bytes, last: bytes | None) -> None:
    assert encode(shape, key) == (first, last)


def test_in_a_concatenation_of_ranges_both_ends_are_whole_keys() -> None:
    shape = MapShape("m", (Kind.MARK, Kind.PROTOCOL, Kind.PORT), "verdict", interval=True)
    first, last = encode(shape, ((5, 5), (6, 6), (80, 90)))
    assert last is not None
    assert first[4:] == b"\6\0\0\0" + b"\0\x50\0\0"
    assert last[4:] == b"\6\0\0\0" + b"\0\x5a\0\0"
    assert first[:4] == last[:4]


VERDICTS = {
    ALLOWED: (Outcome.ALLOWED, Outcome.ALLOWED),
    DENIED: (Outcome.DENIED, Outcome.DENIED),
    WOULD_DENY: (Outcome.ALLOWED, Outcome.DENIED),
}


@given(
    st.sampled_from(SEEN_SETS),
    st.data(),
    st.sampled_from(sorted(VERDICTS)),
    st.integers(0, 2**28 - 1),
)
def test_what_was_counted_is_read_back(name: str, data: st.DataObject, verdict: int, rule: int) -> None:
    version = int(name[-1])
    source, destination = (data.draw(st.ip_addresses(v=version)) for _ in range(2))  # type: ignore[arg-type]
    kind, code = data.draw(st.integers(0, 255)), data.draw(st.integers(0, 255))
    if name.startswith("seen_icmp"):
        fields, protocol, port = [kind, code], 1 if version == 4 else 58, kind << 8 | code
    elif name.startswith("seen_other"):
        fields, protocol, port = [kind], kind, 0
    else:
        port = data.draw(st.integers(0, 65535))
        fields, protocol = [kind, port], kind
    key, _ = encode(PROGRAM.shapes[name], one(int(source), int(destination), *fields, verdict | rule))
    assert decode_seen(name, key, 5) == Seen(source, destination, protocol, port, *VERDICTS[verdict], rule, 5)


def test_a_key_that_is_not_ours_is_passed_over() -> None:
    key, _ = encode(PROGRAM.shapes["seen4"], one(1, 2, 6, 80, 7))
    assert decode_seen("seen4", key, 1) is None
    assert decode_seen("seen4", key[:-1], 1) is None
    assert decode_seen("seen6", key, 1) is None


def test_addresses_are_read_in_their_family() -> None:
    key, _ = encode(PROGRAM.shapes["seen6"], one(1, 2, 6, 80, ALLOWED))
    seen = decode_seen("seen6", key, 1)
    assert seen is not None and seen.source == ip_address("::1")


@pytest.mark.parametrize("name", ["peer4", "peer6"])
def test_addresses_with_marks_are_laid_out_at_once_as_one_by_one(name: str) -> None:
    shape, elements = PROGRAM.shapes[name], {one(7): 1, one(0): 2, one(0xFFFFFFFF): 1}
    assert as_marks(shape, elements.items()) == {encode(shape, key)[0]: mark for key, mark in elements.items()}


def test_what_is_no_map_from_an_address_to_a_mark_is_not_laid_out_so() -> None:
    ports, ranges = (Kind.PORT,), (Kind.IPV4,)
    for shape in (MapShape("m", ranges, "verdict"), MapShape("m", ranges, "mark", True), MapShape("m", ports, "mark")):
        assert as_marks(shape, []) is None
