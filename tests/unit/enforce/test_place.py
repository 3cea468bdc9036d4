"""Entries are spread over the kinds of keys so that the first hit is the right one, in few elements."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.compile import EVERYONE, Entry
from cellwall.enforce.nft.place import Cell, place
from cellwall.policy import Action
from cellwall.traffic import ICMP, ICMPV6, LAST_POINT, TCP, UDP, point

ALLOW, DENY = Action.ALLOW, Action.DENY
TIERS = ("icmp4", "icmp6", "port", "range", "proto", "all")


def entry(first: int, last: int, action: Action = ALLOW, rule: int = 1, peer: int = 7) -> Entry:
    return Entry(peer, first, last, action, (rule,))


def tcp(first: int, last: int, action: Action = ALLOW, rule: int = 1, peer: int = 7) -> Entry:
    return entry(point(TCP, first), point(TCP, last), action, rule, peer)


def shape(cells: list[Cell]) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
    return [(cell.tier, cell.key) for cell in cells]


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ([], []),
        ([tcp(80, 80)], [("port", ((6, 6), (80, 80)))]),
        ([tcp(80, 90)], [("range", ((6, 6), (80, 90)))]),
        ([tcp(0, 65535)], [("proto", ((6, 6),))]),
        ([entry(point(ICMP, 8 << 8), point(ICMP, 8 << 8 | 255))], [("icmp4", ((8, 8), (0, 255)))]),
        ([entry(point(ICMPV6, 1 << 8), point(ICMPV6, 1 << 8))], [("icmp6", ((1, 1), (0, 0)))]),
        ([entry(point(47, 0), point(47, 65535))], [("proto", ((47, 47),))]),
        ([entry(0, LAST_POINT)], [("all", ())]),
        ([entry(point(TCP, 0), point(UDP, 65535))], [("proto", ((n, n),)) for n in range(6, 18)]),
    ],
)
def test_an_entry_stands_where_the_narrowest_key_tells_it(own: list[Entry], wanted: object) -> None:
    assert shape(place(own, [])) == wanted


def test_most_of_a_protocol_is_one_element_with_exceptions_before_it() -> None:
    cells = place([tcp(0, 444), tcp(445, 445, DENY, 2), tcp(446, 65535)], [])
    assert shape(cells) == [("proto", ((6, 6),)), ("port", ((6, 6), (445, 445)))]
    assert [cell.entry.action for cell in cells if cell.entry] == [ALLOW, DENY]


def test_a_hole_in_a_wide_element_is_the_default_said_outright() -> None:
    cells = place([tcp(0, 444), tcp(446, 65535)], [])
    assert (cells[1].tier, cells[1].key, cells[1].entry) == ("port", ((6, 6), (445, 445)), None)


def test_everything_but_a_few_protocols_is_one_element_with_exceptions_before_it() -> None:
    own = [entry(0, point(TCP, 444)), tcp(445, 445, DENY, 2), entry(point(TCP, 446), LAST_POINT)]
    assert shape(place(own, [])) == [("all", ()), ("port", ((6, 6), (445, 445)))]


def test_what_everyone_gets_too_is_not_said_again() -> None:
    common = [tcp(0, 65535, peer=EVERYONE)]
    assert shape(place([tcp(445, 445, DENY, 2)], common)) == [("port", ((6, 6), (445, 445)))]
    assert place([tcp(80, 90)], common) == []


def look_up(cells: list[Cell], at: int) -> Entry | str | None:
    """What the first hit says of a point: an entry, None for the default, `miss` for what follows."""
    protocol, port = at >> 16, at & 0xFFFF
    keys = {
        "icmp4": (port >> 8, port & 0xFF) if protocol == ICMP else None,
        "icmp6": (port >> 8, port & 0xFF) if protocol == ICMPV6 else None,
        "port": (protocol, port),
        "range": (protocol, port),
        "proto": (protocol,),
        "all": (),
    }
    for tier in TIERS:
        key = keys[tier]
        hits = [
            cell
            for cell in cells
            if cell.tier == tier
            and key is not None
            and all(low <= value <= high for (low, high), value in zip(cell.key, key, strict=True))
        ]
        assert len(hits) <= 1, "two elements of one map hold the same key"
        if hits:
            return hits[0].entry
    return "miss"


EDGES = sorted(
    {
        base + port
        for base in (0, 1 << 16, 6 << 16, 17 << 16, 58 << 16, 200 << 16)
        for port in (0, 80, 81, 2048, 0x8000, 0xFFFF)
    }
    | {LAST_POINT}
)


@st.composite
def entries(draw: st.DrawFn, peer: int) -> list[Entry]:
    """Disjoint entries over a few edges."""
    cuts = sorted(draw(st.sets(st.sampled_from(EDGES), max_size=8)))
    found: list[Entry] = []
    for first, following in pairwise([*cuts, LAST_POINT + 1]):
        kind = draw(st.sampled_from([None, (ALLOW, 1), (DENY, 2), (ALLOW, 3)]))
        if kind is not None and first < following:
            found.append(entry(first, following - 1, kind[0], kind[1], peer))
    return found


def verdict(hit: Entry | str | None) -> object:
    return (hit.action, hit.rules) if isinstance(hit, Entry) else None


@given(entries(7), entries(EVERYONE))
def test_the_first_hit_is_what_the_entries_say(own: list[Entry], common: list[Entry]) -> None:
    mine, everyone = place(own, common), place(common, [])
    for at in {edge + step for edge in EDGES for step in (-1, 0, 1)} - {-1, LAST_POINT + 1}:
        hit = look_up(mine, at)
        if hit == "miss":
            hit = look_up(everyone, at)
        wanted = next((one for one in own if one.first <= at <= one.last), None) or next(
            (one for one in common if one.first <= at <= one.last), None
        )
        assert verdict(hit) == verdict(wanted)
