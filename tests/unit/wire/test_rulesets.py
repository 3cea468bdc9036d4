"""Rulesets and members survive the wire, and their digest stands for their content."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.compile import (
    Canary,
    ClassCard,
    Entry,
    Face,
    LifelineCard,
    NetworkSpan,
    RuleCard,
    Ruleset,
)
from cellwall.flows import Side
from cellwall.policy import Action, Identity, Mode
from cellwall.traffic import LAST_POINT
from cellwall.wire import (
    WireError,
    apply_change,
    change_between,
    content_hash,
    decode_members,
    decode_ruleset,
    digest,
    digest_of,
    encode_members,
    encode_ruleset,
    sum_members,
)

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
packed = addresses.map(lambda address: address.packed)
members = st.dictionaries(packed, st.integers(1, 2**32 - 1), max_size=20)
texts = st.text(max_size=12)
maybe = st.none() | texts
actions = st.sampled_from(Action)
rule_numbers = st.integers(1, 2**28 - 1)


T = TypeVar("T")


def tuples(each: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(each, max_size=3).map(tuple)


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int]:
    first = draw(st.integers(0, LAST_POINT))
    return first, draw(st.integers(first, LAST_POINT))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    first, last = draw(spans())
    return Entry(draw(st.integers(0, 2**32 - 1)), first, last, draw(actions), draw(tuples(rule_numbers)))


@st.composite
def networks(draw: st.DrawFn) -> NetworkSpan:
    version = draw(st.sampled_from((4, 6)))
    most = 2 ** (32 if version == 4 else 128) - 1
    first = draw(st.integers(0, most))
    return NetworkSpan(version, first, draw(st.integers(first, most)), draw(st.integers(0, 2**32 - 1)))


rulesets = st.builds(
    Ruleset,
    st.just("web-1"),
    st.integers(0, 2**40),
    st.sampled_from(Mode),
    tuples(
        st.builds(RuleCard, rule_numbers, texts, actions, st.booleans(), st.none() | st.floats(0, 1e10), texts, texts)
    ),
    tuples(st.builds(ClassCard, st.integers(0, 2**32 - 1), texts)),
    tuples(
        st.builds(
            Face, tuples(addresses), st.builds(Identity, maybe, maybe, maybe), tuples(entries()), tuples(entries())
        )
    ),
    tuples(networks()),
    tuples(st.builds(LifelineCard, texts, tuples(spans()), tuples(st.sampled_from(Side)), tuples(addresses))),
    tuples(st.builds(Canary, texts, tuples(addresses), st.integers(0, 65535))),
)


@given(rulesets)
def test_a_ruleset_comes_back_as_it_was(ruleset: Ruleset) -> None:
    assert decode_ruleset(encode_ruleset(ruleset)) == ruleset


@given(members)
def test_members_come_back_as_they_were(before: dict[bytes, int]) -> None:
    assert decode_members(encode_members(before)) == before


@given(members)
def test_equal_members_give_equal_bytes_whatever_their_order(before: dict[bytes, int]) -> None:
    assert encode_members(dict(reversed(before.items()))) == encode_members(before)


@given(rulesets, members)
def test_the_digest_leaves_out_revision_and_places(ruleset: Ruleset, held: dict[bytes, int]) -> None:
    moved = replace(ruleset, revision=7, rules=tuple(replace(rule, place="x:1:1") for rule in ruleset.rules))
    assert digest(moved, held) == digest(ruleset, held)


@given(rulesets, rulesets)
def test_the_digest_tells_contents_apart(one: Ruleset, other: Ruleset) -> None:
    def content(of: Ruleset) -> Ruleset:
        return replace(of, revision=0, rules=tuple(replace(rule, place="") for rule in of.rules))

    assert (content_hash(one) == content_hash(other)) == (content(one) == content(other))


@given(members, members)
def test_a_change_leads_from_one_state_to_the_other(before: dict[bytes, int], after: dict[bytes, int]) -> None:
    added, removed = change_between(before, after)
    assert apply_change(before, added, removed) == after


@given(members, members)
def test_the_sum_after_a_change_costs_only_the_change(before: dict[bytes, int], after: dict[bytes, int]) -> None:
    added, removed = change_between(before, after)
    gone = {key: before[key] for key in (*removed, *added) if key in before}
    by_difference = (sum_members(before) + sum_members(added) - sum_members(gone)) % 2**256
    assert digest_of(b"", by_difference) == digest_of(b"", sum_members(after))


def test_a_change_made_for_other_members_is_refused() -> None:
    with pytest.raises(WireError, match=r"`10\.0\.0\.1` is to leave and is no member"):
        apply_change({}, {}, (IPv4Address("10.0.0.1").packed,))
    with pytest.raises(WireError, match="an address of 5 bytes"):
        apply_change({}, {}, (b"12345",))


@given(st.binary(max_size=200))
def test_garbage_is_no_ruleset_and_no_members(data: bytes) -> None:
    for decode in (decode_ruleset, decode_members):
        try:
            decode(data)
        except WireError:
            continue


@given(rulesets, st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_ruleset_is_a_ruleset_or_refused(ruleset: Ruleset, at: int, byte: int) -> None:
    data = bytearray(encode_ruleset(ruleset))
    data[at % len(data)] = byte
    try:
        decode_ruleset(bytes(data))
    except WireError:
        return


def test_members_that_cannot_be_true_are_refused() -> None:
    four = IPv4Address("10.0.0.1").packed
    one = (1).to_bytes(4, "big")

    def wire(*columns: bytes) -> bytes:
        return b"\x94" + b"".join(b"\xc4" + bytes([len(column)]) + column for column in columns)

    assert decode_members(wire(four, one, b"", b"")) == {four: 1}
    for bad in ((four + four, one + one, b"", b""), (four, b"", b"", b""), (four[:3], one, b"", b"")):
        with pytest.raises(WireError, match="not members"):
            decode_members(wire(*bad))
    with pytest.raises(WireError, match="class 0"):
        decode_members(wire(four, bytes(4), b"", b""))


def test_a_ruleset_that_cannot_be_true_is_refused() -> None:
    backwards = Ruleset("a", 1, Mode.OBSERVE, faces=(Face((), ingress=(Entry(1, 9, 8, Action.ALLOW, ()),)),))
    with pytest.raises(WireError, match="runs backwards"):
        decode_ruleset(encode_ruleset(backwards))
    mixed = Ruleset("a", 1, Mode.OBSERVE, networks=(NetworkSpan(6, 9, 8, 1),))
    with pytest.raises(WireError, match="do not belong together"):
        decode_ruleset(encode_ruleset(mixed))


def test_both_families_travel() -> None:
    here = {IPv4Address("10.0.0.1").packed: 1, IPv6Address("2001:db8::1").packed: 2}
    assert decode_members(encode_members(here)) == here
