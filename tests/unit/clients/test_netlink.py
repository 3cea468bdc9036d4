"""How netlink messages are laid out and read, without a kernel."""

from __future__ import annotations

import errno
import struct
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.clients import (
    NESTED,
    Changed,
    KernelError,
    Message,
    attribute,
    attributes,
    be16,
    be32,
    be64,
    every_attribute,
    messages,
    nested,
    text,
    to_number,
    to_text,
)
from cellwall.clients.netlink import failure, refused_offset


def test_attributes_are_padded_to_four_bytes_and_their_length_is_not() -> None:
    assert attribute(7, b"abcde") == struct.pack("=HH", 9, 7) + b"abcde\0\0\0"
    assert attribute(7, b"") == struct.pack("=HH", 4, 7)


def test_numbers_are_in_network_byte_order() -> None:
    laid_out = be16(1, 0x0102) + be32(2, -1) + be64(3, 5) + text(4, "eth0")
    assert attributes(laid_out) == {1: b"\1\2", 2: b"\xff" * 4, 3: bytes(7) + b"\5", 4: b"eth0\0"}
    assert to_number(b"\1\2") == 0x0102
    assert to_text(b"eth0\0\0\0") == "eth0"


def test_a_nested_attribute_is_marked_and_read_without_the_mark() -> None:
    inner = be32(1, 9)
    outer = nested(5, inner, inner)
    assert struct.unpack_from("=HH", outer) == (20, 5 | NESTED)
    assert attributes(outer) == {5: inner + inner}
    assert list(every_attribute(inner + inner)) == [(1, b"\0\0\0\x09")] * 2


def test_bytes_that_are_no_utf_8_in_a_name_stay_visible() -> None:
    assert to_text(b"a\xffb\0") == r"a\xffb"


def test_an_attribute_too_long_for_its_length_field_is_refused() -> None:
    with pytest.raises(KernelError, match="at most 65531"):
        attribute(1, bytes(65532))


@pytest.mark.parametrize("cut", [b"\x03\0\1\0", b"\x09\0\1\0abcd", b"\xff\xff\1\0"])
def test_an_attribute_that_is_cut_short_is_an_error(cut: bytes) -> None:
    with pytest.raises(KernelError, match="cut short"):
        attributes(cut)
    with pytest.raises(KernelError, match="cut short"):
        list(every_attribute(cut))


def header(size: int, kind: int = 2, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", size, kind, flags, 3, 4)


def test_messages_of_a_datagram_come_one_by_one() -> None:
    datagram = header(18, kind=9) + b"ab\0\0" + header(16, kind=8)
    assert list(messages(datagram)) == [Message(9, 0, 3, 4, b"ab"), Message(8, 0, 3, 4, b"")]


@pytest.mark.parametrize("size", [0, 15, 21])
def test_a_message_of_impossible_length_is_an_error(size: int) -> None:
    with pytest.raises(KernelError, match="cut short"):
        list(messages(header(size) + bytes(4)))


def answer(code: int, *told: bytes, flags: int = 0x300) -> Message:
    return Message(2, flags, 3, 4, code.to_bytes(4, sys.byteorder, signed=True) + header(20) + b"".join(told))


def test_an_acknowledgement_is_no_failure() -> None:
    assert failure(answer(0), "cannot") is None


def test_a_refusal_carries_the_words_of_the_kernel() -> None:
    error = failure(answer(-errno.EEXIST, text(1, "Chain is in use.")), "cannot do it")
    assert str(error) == "cannot do it: file exists (chain is in use)"
    assert error is not None and error.code == errno.EEXIST
    # Not capped: the whole refused message comes before the words.
    whole = Message(2, 0x200, 3, 4, struct.pack("=i", -errno.EPERM) + header(24) + bytes(8) + text(1, "No."))
    assert str(failure(whole, "cannot")) == "cannot: operation not permitted (no)"


def test_a_refusal_says_where_when_the_kernel_does() -> None:
    assert refused_offset(answer(-errno.ENOENT, attribute(2, struct.pack("=I", 60)))) == 60
    assert refused_offset(answer(-errno.ENOENT)) is None
    assert refused_offset(answer(-errno.ENOENT, flags=0)) is None


def test_a_change_meanwhile_is_told_apart_from_a_refusal() -> None:
    assert isinstance(failure(answer(-85), "cannot"), Changed)
    assert not isinstance(failure(answer(-errno.EINVAL), "cannot"), Changed)


@given(st.binary(max_size=200))
def test_whatever_the_bytes_nothing_but_kernel_errors_is_raised(data: bytes) -> None:
    with suppress(KernelError):
        attributes(data)
    with suppress(KernelError):
        for message in messages(data):
            failure(message, "x")
    for flags in (0x200, 0x300):
        with suppress(KernelError):
            failure(Message(2, flags, 0, 0, data), "x")
        with suppress(KernelError):
            refused_offset(Message(2, flags, 0, 0, data))
