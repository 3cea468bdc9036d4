from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from cellwall.cli.maps.graph import Edge, Group, Map, Panel, Verdict, gather, make_map
from cellwall.cli.maps.layout import Layout, lay_out, rows_of
from cellwall.cli.maps.routes import route


@st.composite
def maps(draw: st.DrawFn) -> Map:
    count = draw(st.integers(1, 12))
    groups = [Group(f"g{n}", Panel(f"app{draw(st.integers(0, 3))}", "prod"), f"role{n}", 1) for n in range(count)]
    ends = st.integers(0, count - 1)
    edges = [
        Edge(f"g{one}", f"g{other}", f"tcp/{port}", 1, verdict)
        for one, other, port, verdict in draw(
            st.lists(st.tuples(ends, ends, st.integers(1, 3), st.sampled_from(Verdict)), max_size=25)
        )
    ]
    return make_map(groups, edges)


def laid(drawn: Map) -> Layout:
    return lay_out(drawn, gather(drawn))


@given(maps())
def test_no_two_boxes_overlap_and_each_is_inside_its_own_frame_only(drawn: Map) -> None:
    layout = laid(drawn)
    assert not any(one.touches(other) for one, other in combinations(layout.boxes.values(), 2))
    assert not any(one.touches(other) for one, other in combinations(layout.frames.values(), 2))
    for group, box in layout.boxes.items():
        frame = layout.frames[layout.panel_of[group]]
        assert frame.x < box.x and box.right < frame.right and frame.y < box.y and box.bottom < frame.bottom


@given(maps())
def test_equal_maps_are_laid_out_alike(drawn: Map) -> None:
    again = make_map(reversed(drawn.groups), reversed(drawn.edges))
    assert laid(drawn) == laid(again)
    assert route(laid(drawn), gather(drawn)) == route(laid(again), gather(again))


@given(maps())
def test_every_line_begins_and_ends_at_its_own_ends(drawn: Map) -> None:
    layout = laid(drawn)
    for one in route(layout, gather(drawn)):
        for end, (x, y) in ((one.strand.source, one.start), (one.strand.destination, one.curves[-1].end)):
            rect = layout.rect(end)
            assert rect.x - 0.01 <= x <= rect.right + 0.01 and rect.y - 0.01 <= y <= rect.bottom + 0.01


def test_callers_stand_above_whom_they_call() -> None:
    assert rows_of(["api", "db", "web"], {("web", "api"): 1, ("api", "db"): 1, ("web", "db"): 1}) == [
        ["web"],
        ["api"],
        ["db"],
    ]


def test_a_cycle_is_broken_where_it_costs_least() -> None:
    assert rows_of(["a", "b"], {("a", "b"): 5, ("b", "a"): 1}) == [["a"], ["b"]]


def test_a_caller_stands_right_above_the_first_it_calls() -> None:
    rows = rows_of(["a", "b", "c", "late"], {("a", "b"): 1, ("b", "c"): 1, ("late", "c"): 1})
    assert rows == [["a"], ["b", "late"], ["c"]] or rows == [["a"], ["late", "b"], ["c"]]


def test_attempts_that_are_denied_do_not_move_a_group() -> None:
    groups = [Group(name, Panel("shop"), name, 1) for name in ("db", "web")]
    allowed = Edge("web", "db", "tcp/5432", 1, Verdict.ALLOWED)
    denied = Edge("db", "web", "tcp/22", 900, Verdict.DENIED)
    assert laid(make_map(groups, [allowed])).boxes == laid(make_map(groups, [allowed, denied])).boxes
