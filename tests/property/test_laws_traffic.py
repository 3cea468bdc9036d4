"""Sets of ports obey the laws of sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cellwall.traffic import EVERYTHING, LAST_POINT, NOTHING, PortSet, Span, icmp_blocks

LINE = 40


def spans() -> st.SearchStrategy[list[Span]]:
    """Some spans on a short line, overlapping and touching often."""
    ends = st.tuples(st.integers(0, LINE), st.integers(0, LINE)).map(sorted)
    return st.lists(ends.map(lambda pair: Span(pair[0], pair[1])), max_size=6)


SETS = spans().map(PortSet.of)


def points(ports: PortSet) -> set[int]:
    """The dumb twin."""
    return {at for span in ports.spans for at in range(span.first, span.last + 1)}


@given(spans())
def test_a_set_of_spans_is_the_union_of_their_points(given_spans: list[Span]) -> None:
    ports = PortSet.of(given_spans)
    assert points(ports) == {at for span in given_spans for at in range(span.first, span.last + 1)}
    assert all(left.last + 1 < right.first for left, right in zip(ports.spans, ports.spans[1:], strict=False))
    assert PortSet.of(reversed(ports.spans)) == ports


@given(SETS, SETS)
def test_union_intersection_and_difference_are_those_of_points(one: PortSet, other: PortSet) -> None:
    assert points(one | other) == points(one) | points(other)
    assert points(one & other) == points(one) & points(other)
    assert points(one - other) == points(one) - points(other)
    assert (one == other) is (points(one) == points(other))


@given(SETS)
def test_membership_and_size_are_those_of_points(ports: PortSet) -> None:
    assert [at for at in range(LINE + 2) if at in ports] == sorted(points(ports))
    assert ports.size() == len(points(ports))
    assert bool(ports) is bool(points(ports))


@given(SETS)
def test_a_set_and_its_complement_are_everything(ports: PortSet) -> None:
    rest = EVERYTHING - ports
    assert ports | rest == EVERYTHING
    assert ports & rest == NOTHING
    assert EVERYTHING - rest == ports
    assert rest.size() + ports.size() == LAST_POINT + 1


@given(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)).map(sorted))
def test_icmp_blocks_cover_a_range_exactly_once(ends: list[int]) -> None:
    low, high = ends
    covered = [
        kind << 8 | code
        for (first, last), (least, most) in icmp_blocks(low, high)
        for kind in range(first, last + 1)
        for code in range(least, most + 1)
    ]
    assert covered == list(range(low, high + 1))


@given(st.tuples(st.integers(0, LAST_POINT), st.integers(0, LAST_POINT)).map(sorted))
def test_a_span_is_its_parts_by_protocol(ends: list[int]) -> None:
    span = Span(ends[0], ends[1])
    parts = [Span(protocol << 16 | low, protocol << 16 | high) for protocol, low, high in span.by_protocol()]
    assert PortSet.of(parts) == PortSet((span,))
    assert len(parts) == (span.last >> 16) - (span.first >> 16) + 1
