"""Ports and protocols are points on a line, and sets of them are exact."""

from __future__ import annotations

import pytest

from cellwall.traffic import (
    EVERYTHING,
    ICMP,
    LAST_POINT,
    NOTHING,
    TCP,
    UDP,
    PortSet,
    ServiceError,
    Span,
    icmp_blocks,
    parse_ports,
    point,
    port_name,
)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("tcp/443", point(6, 443), point(6, 443)),
        ("tcp/8000-8100", point(6, 8000), point(6, 8100)),
        ("tcp", point(6, 0), point(6, 65535)),
        ("6/443", point(6, 443), point(6, 443)),
        ("sctp/80", point(132, 80), point(132, 80)),
        ("icmp/8", point(1, 8 << 8), point(1, 8 << 8 | 255)),
        ("icmp/8-15", point(1, 8 << 8), point(1, 15 << 8 | 255)),
        ("icmp/3/4", point(1, 3 << 8 | 4), point(1, 3 << 8 | 4)),
        ("icmp/3/0-4", point(1, 3 << 8), point(1, 3 << 8 | 4)),
        ("icmpv6/128", point(58, 128 << 8), point(58, 128 << 8 | 255)),
        ("gre", point(47, 0), point(47, 65535)),
        ("47", point(47, 0), point(47, 65535)),
        ("any", 0, LAST_POINT),
    ],
)
def test_a_text_of_ports_is_one_span(text: str, first: int, last: int) -> None:
    assert parse_ports(text) == PortSet((Span(first, last),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "`` names no ports; wanted `tcp/443`, `udp/5000-5010`, `icmp/8`, `gre` or `any`"),
        ("TCP/80", "`TCP/80` names no ports; wanted `tcp/443`, `udp/5000-5010`, `icmp/8`, `gre` or `any`"),
        ("٦/80", "`٦/80` names no ports; wanted `tcp/443`, `udp/5000-5010`, `icmp/8`, `gre` or `any`"),
        ("tcp/https", "`tcp/https`: `https` is not a number or a range such as `8000-8100`"),
        ("tcp/", "`tcp/`: `` is not a number or a range such as `8000-8100`"),
        ("tcp/80-", "`tcp/80-`: `80-` is not a number or a range such as `8000-8100`"),
        ("tcp/-80", "`tcp/-80`: `-80` is not a number or a range such as `8000-8100`"),
        ("tcp/٨٠", "`tcp/٨٠`: `٨٠` is not a number or a range such as `8000-8100`"),
        ("tcp/80 ", "`tcp/80 `: `80 ` is not a number or a range such as `8000-8100`"),
        ("tcp/70000", "`tcp/70000`: `70000` is over 65535"),
        ("tcp/90-80", "`tcp/90-80`: the range runs backwards; did you mean `80-90`?"),
        ("icmp/256", "`icmp/256`: `256` is over 255"),
        ("icmp/8-9/0", "`icmp/8-9/0` has a range of types and a code; write one type for a code"),
        ("gre/1", "`gre/1`: protocol `gre` has no ports; write `gre` alone"),
    ],
)
def test_a_text_that_names_no_ports_says_what_was_wanted(text: str, message: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_ports(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["htp", "256", "999"])
def test_an_unknown_protocol_lists_the_known_ones(text: str) -> None:
    with pytest.raises(ServiceError, match=rf"^`{text}` is not a protocol; known are `icmp`, .* or a number 0 to 255$"):
        parse_ports(text)


def test_a_number_of_thousands_of_digits_is_refused_and_not_computed() -> None:
    with pytest.raises(ServiceError):
        parse_ports("tcp/" + "9" * 10_000)


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (2, 1), (0, LAST_POINT + 1)])
def test_a_span_lies_on_the_line_and_runs_forwards(first: int, last: int) -> None:
    with pytest.raises(ServiceError):
        Span(first, last)


@pytest.mark.parametrize("spans", [(Span(5, 9), Span(1, 2)), (Span(1, 2), Span(3, 4)), (Span(1, 5), Span(4, 9))])
def test_a_set_of_ports_is_built_canonical_or_not_at_all(spans: tuple[Span, ...]) -> None:
    with pytest.raises(ServiceError):
        PortSet(spans)
    assert PortSet.of(spans).spans[0].first == 1


def test_a_span_is_cut_at_the_borders_of_protocols() -> None:
    span = Span(point(TCP, 65000), point(8, 10))
    assert list(span.by_protocol()) == [(6, 65000, 65535), (7, 0, 65535), (8, 0, 10)]


def test_spans_that_touch_are_one() -> None:
    assert PortSet.of([Span(5, 9), Span(1, 4), Span(20, 30), Span(2, 3)]) == PortSet((Span(1, 9), Span(20, 30)))


def test_a_set_knows_its_points_its_size_and_whether_it_is_empty() -> None:
    ports = parse_ports("tcp/80-90") | parse_ports("udp/53")
    assert point(TCP, 80) in ports
    assert point(TCP, 90) in ports
    assert point(TCP, 91) not in ports
    assert point(UDP, 53) in ports
    assert point(ICMP, 0) not in ports
    assert ports.size() == 12
    assert ports
    assert not NOTHING
    assert 0 not in NOTHING


def test_a_difference_may_cut_one_span_often_and_several_spans_once() -> None:
    ports = PortSet((Span(10, 20), Span(30, 40), Span(50, 60)))
    assert ports - PortSet((Span(12, 13), Span(15, 35), Span(60, 70))) == PortSet(
        (Span(10, 11), Span(14, 14), Span(36, 40), Span(50, 59))
    )
    assert EVERYTHING - ports | ports == EVERYTHING
    assert ports & EVERYTHING == ports


@pytest.mark.parametrize(
    ("at", "name"),
    [
        (point(6, 5432), "tcp/5432"),
        (point(1, 8 << 8), "icmp/8/0"),
        (point(58, 128 << 8 | 1), "icmpv6/128/1"),
        (point(47, 0), "gre"),
        (point(200, 0), "200"),
    ],
)
def test_a_point_is_written_as_a_policy_would(at: int, name: str) -> None:
    assert port_name(at) == name


@pytest.mark.parametrize(
    "text",
    ["tcp/80", "tcp/80-90", "tcp", "icmp/8", "icmp/8-15", "icmp/3/4", "icmp/3/0-4", "gre", "200", "any", "nothing"],
)
def test_a_set_is_written_as_it_is_read(text: str) -> None:
    ports = NOTHING if text == "nothing" else parse_ports(text)
    assert str(ports) == text


def test_a_set_across_icmp_types_is_written_block_by_block() -> None:
    assert str(PortSet((Span(point(1, 8 << 8 | 5), point(1, 11 << 8 | 3)),))) == "icmp/8/5-255, icmp/9-10, icmp/11/0-3"


@pytest.mark.parametrize(
    ("low", "high", "blocks"),
    [
        (0x0805, 0x0807, [((8, 8), (5, 7))]),
        (0x0800, 0x09FF, [((8, 9), (0, 255))]),
        (0x0801, 0x0903, [((8, 8), (1, 255)), ((9, 9), (0, 3))]),
        (0x0800, 0x0903, [((8, 8), (0, 255)), ((9, 9), (0, 3))]),
    ],
)
def test_icmp_ports_are_cut_into_blocks_of_types_and_codes(
    low: int, high: int, blocks: list[tuple[tuple[int, int], tuple[int, int]]]
) -> None:
    assert list(icmp_blocks(low, high)) == blocks
