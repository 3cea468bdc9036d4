"""Elements of nftables sets as bytes, and notices of changes, without a kernel."""

from __future__ import annotations

import struct
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.clients import F_CREATE, KernelError, Message, attribute, attributes, be32, every_attribute, nested, text
from cellwall.enforce.nft.element import (
    ACCEPT,
    DELSETELEM,
    NEWSETELEM,
    Act,
    Add,
    Branch,
    Delete,
    Element,
    ElementChange,
    Family,
    Fill,
    Flush,
    add_range,
    concat,
    delete_range,
    goto,
    jump,
    key_at,
    mark,
    paired,
    parse_elements,
    parse_shape,
    requests,
)
from cellwall.enforce.nft.watch import Thing, Touched, Transaction, digest


def read_back(changes: list[ElementChange]) -> list[tuple[Element, bool]]:
    return [pair for _, _, body in requests("t", changes, Family.INET) for pair in parse_elements(body)]


def test_what_is_laid_out_is_read_back() -> None:
    changes: list[ElementChange] = [
        Add("m", b"abcd", 7, comment="who"),
        Add("m", b"abcdef", jump("rule_1"), key_end=b"abcdeg"),
        Add("m", b"x" * 16, goto("rule_2"), timeout_ms=1500),
        Add("m", b"abcd", ACCEPT),
        Add("m", b"abcd", b"a longer value"),
        Add("m", b"abce", end=True),
    ]
    assert read_back(changes) == [
        (Element(b"abcd", data=7, comment="who"), False),
        (Element(b"abcdef", b"abcdeg", jump("rule_1")), False),
        (Element(b"x" * 16, data=goto("rule_2"), timeout_ms=1500), False),
        (Element(b"abcd", data=ACCEPT), False),
        (Element(b"abcd", data=b"a longer value"), False),
        (Element(b"abce"), True),
    ]


def test_neighbours_of_one_kind_and_set_share_a_message_and_order_is_kept() -> None:
    changes = [Flush("m"), Delete("m", b"aaaa"), Delete("m", b"bbbb"), Add("m", b"aaaa", 1), Add("n", b"aaaa", 1)]
    made = list(requests("t", changes, Family.INET))
    assert [(kind, flags) for kind, flags, _ in made] == [
        (DELSETELEM, 0),
        (DELSETELEM, 0),
        (NEWSETELEM, F_CREATE),
        (NEWSETELEM, F_CREATE),
    ]
    assert [[one.key for one, _ in parse_elements(body)] for _, _, body in made] == [
        [],
        [b"aaaa", b"bbbb"],
        [b"aaaa"],
        [b"aaaa"],
    ]
    assert 3 not in attributes(made[0][2], 4)


def test_messages_stay_below_the_length_of_an_attribute() -> None:
    made = list(requests("t", [Add("m", struct.pack(">I", n), n) for n in range(10_000)], Family.INET))
    assert len(made) > 1
    assert all(len(body) < 65536 for _, _, body in made)
    assert sum(len(list(parse_elements(body))) for _, _, body in made) == 10_000


@given(st.integers(1, 16).flatmap(lambda size: st.dictionaries(st.binary(min_size=size, max_size=size),
                                                              st.integers(0, 0xFFFFFFFF))))  # fmt: skip
def test_filling_a_map_is_adding_each_of_its_elements(marks: dict[bytes, int]) -> None:
    filled = list(requests("t", [Delete("m", b"gone"), Fill("m", marks), Flush("n")], Family.INET))
    added = [Delete("m", b"gone"), *(Add("m", key, number) for key, number in marks.items()), Flush("n")]
    assert filled == list(requests("t", added, Family.INET))


def test_a_map_is_filled_by_as_many_messages_as_it_takes() -> None:
    marks = {struct.pack(">I", n): n & 7 for n in range(10_000)}
    made = list(requests("t", [Fill("m", marks)], Family.INET))
    assert all(len(body) < 65536 for _, _, body in made)
    assert {one.key: one.data for _, _, body in made for one, _ in parse_elements(body)} == marks


def test_a_concatenation_pads_each_field() -> None:
    assert concat(b"\0\0\0\7", b"\6", b"\0\x50") == b"\0\0\0\7\6\0\0\0\0\x50\0\0"


def test_a_mark_is_in_host_order_but_in_interval_sets_in_network_order() -> None:
    assert mark(7) == struct.pack("=I", 7)
    assert mark(7, ranges=True) == b"\0\0\0\7"


def test_a_range_is_a_start_and_the_key_after_it_unless_it_ends_with_the_last_key() -> None:
    assert add_range("m", b"\x0a\0\0\0", b"\x0a\0\0\xff", 7) == (
        Add("m", b"\x0a\0\0\0", 7),
        Add("m", b"\x0a\0\1\0", end=True),
    )
    assert add_range("m", b"\xff\0\0\0", b"\xff\xff\xff\xff", 7) == (Add("m", b"\xff\0\0\0", 7),)
    assert delete_range("m", b"\0", b"\1") == (Delete("m", b"\0"), Delete("m", b"\2", end=True))
    assert delete_range("m", b"\0", b"\xff") == (Delete("m", b"\0"),)


@given(st.lists(st.integers(0, 255), unique=True, min_size=1).map(sorted))
def test_ranges_come_out_as_they_went_in(bounds: list[int]) -> None:
    if len(bounds) % 2:
        bounds = [*bounds, 255] if bounds[-1] < 255 else bounds[:-1]
    ranges = list(zip(bounds[::2], bounds[1::2], strict=True))
    changes = [one for first, last in ranges for one in add_range("m", bytes((first,)), bytes((last,)), first)]
    whole = paired(reversed(read_back([*changes])))
    assert [(one.key[0], one.key_end and one.key_end[0], one.data) for one in whole] == [
        (first, last, first) for first, last in ranges
    ]


def test_nfts_mark_of_an_empty_start_is_skipped() -> None:
    # nft marks the end of the nothing before the first interval.
    assert paired([(Element(bytes(4)), True), (Element(b"\1\0\0\0", data=1), False)]) == [
        Element(b"\1\0\0\0", b"\xff" * 4, 1)
    ]


@pytest.mark.parametrize("branch", [(Act.JUMP, ""), (Act.ACCEPT, "x")])
def test_a_verdict_has_a_chain_exactly_when_it_goes_to_one(branch: tuple[Act, str]) -> None:
    with pytest.raises(KernelError, match="wanted a chain"):
        Branch(*branch)


def test_the_key_of_a_refused_element_is_found_at_its_offset() -> None:
    ((_, _, body),) = requests("t", [Add("m", b"aaaa", 1), Add("m", b"bbbb", 2)], Family.INET)
    second = body.index(b"bbbb") - 12
    assert key_at(body, second) == b"bbbb"
    assert key_at(body, len(body) + 8) is None
    assert key_at(body, 0) is None


def test_counters_of_elements_are_read_in_both_places() -> None:
    counter = (text(1, "counter"), nested(2, attribute(1, (300).to_bytes(8)), attribute(2, (3).to_bytes(8))))
    key = nested(1, attribute(1, b"abcd"))
    single, listed = nested(7, *counter), nested(11, nested(1, text(1, "limit")), nested(1, *counter))
    body = bytes(4) + nested(3, nested(1, key, single), nested(1, key, listed), nested(1, key, nested(7, text(1, "x"))))
    assert [(one.packets, one.octets) for one, _ in parse_elements(body)] == [(3, 300), (3, 300), (None, None)]


def test_a_set_says_its_shape() -> None:
    body = bytes(4) + be32(3, 0x84) + be32(5, 12) + nested(9, be32(1, 4096)) + be32(20, 5)
    shape = parse_shape(body)
    assert (shape.key_size, shape.size, shape.interval, shape.concatenated, shape.held) == (12, 4096, True, True, 5)
    with pytest.raises(KernelError):
        parse_shape(bytes(4))


MIXED = [Add("m", b"abcd", jump("c"), b"abce", 5, "words"), Add("m", b"abcd", 7), *add_range("m", b"a", b"b")]
((_, _, BODY),) = requests("t", MIXED, Family.INET)


@given(st.integers(0, len(BODY)), st.integers(0, len(BODY) - 1), st.integers(0, 255))
def test_a_damaged_dump_raises_nothing_but_kernel_errors(cut: int, place: int, byte: int) -> None:
    damaged = bytearray(BODY)
    damaged[place] = byte
    for body in (BODY[:cut], bytes(damaged), bytes(damaged)[:cut]):
        with suppress(KernelError):
            paired(parse_elements(body))
        with suppress(KernelError):
            parse_shape(body)
        with suppress(KernelError):
            digest([Message(10 << 8 | 12, 0, 0, 0, body), Message(10 << 8 | 15, 0, 0, 0, body)], Counter())


def test_notices_become_a_transaction_when_its_generation_comes() -> None:
    element = bytes((1, 0, 0, 0)) + text(1, "wall") + text(2, "peers")
    rule = bytes((1, 0, 0, 0)) + text(1, "wall") + text(2, "input")
    generation = bytes(4) + be32(1, 8) + be32(2, 99) + text(3, "nft")
    pending: Counter[tuple[int, int, str, str]] = Counter()
    first = [Message(10 << 8 | 12, 0, 0, 5, element)] * 2 + [Message(10 << 8 | 8, 0, 0, 5, rule)]
    assert digest(first, pending) == []
    assert digest([Message(10 << 8 | 15, 0, 0, 5, generation)], pending) == [
        Transaction(
            8,
            5,
            99,
            "nft",
            (
                Touched(True, Thing.ELEMENT, 1, "wall", "peers", 2),
                Touched(False, Thing.RULE, 1, "wall", "input", 1),
            ),
        )
    ]
    assert not pending


def test_elements_in_a_message_are_a_list_of_equal_attributes() -> None:
    ((_, _, body),) = requests("t", [Add("m", b"aaaa"), Add("m", b"bbbb")], Family.INET)
    assert [kind for kind, _ in every_attribute(attributes(body, 4)[3])] == [1, 1]
