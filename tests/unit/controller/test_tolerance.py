from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.controller.errors import ControllerError
from cellwall.controller.tolerance import Tolerance, guarded, loudest, parse_tolerance, spared
from cellwall.controller.waves import places
from cellwall.labels import LabelError, Labels, parse_selector
from cellwall.policy import Approval, parse_waves

NAMES = [f"p{number:02}" for number in range(30)]
SETS = st.sets(st.sampled_from(NAMES))
TOLERANCES = st.one_of(
    st.integers(0, 12).map(lambda count: Tolerance(count)),
    st.integers(0, 100).map(lambda percent: Tolerance(share=percent / 100)),
)
PLACES = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3))


def test_a_tolerance_is_a_number_of_points_or_a_share_of_each_wave() -> None:
    assert parse_tolerance("3") == Tolerance(3)
    assert parse_tolerance("5%", "env=lab") == Tolerance(0, 0.05, parse_selector("env=lab"))
    assert [parse_tolerance("7%").of(size) for size in (14, 15, 99, 100)] == [0, 1, 6, 7]
    assert [parse_tolerance("3").of(size) for size in (0, 1, 1000)] == [3, 3, 3]
    assert parse_tolerance("0").of(1000) == parse_tolerance("0%").of(1000) == 0


@pytest.mark.parametrize(
    ("text", "also", "said"),
    [
        ("-1", "", "`-1` is no tolerance; wanted a number of points such as `3`, or a share such as `5%`"),
        ("101%", "", "`101%` is no tolerance"),
        ("1.5%", "", "`1.5%` is no tolerance"),
        ("٣", "", "is no tolerance"),
        ("100001", "", "`100001` is no tolerance"),
        ("1", " ", "would spare every canary"),
        ("0", "env=lab", "has no meaning where none are tolerated"),
    ],
)
def test_what_is_no_tolerance_is_refused(text: str, also: str, said: str) -> None:
    with pytest.raises(ControllerError, match=said):
        parse_tolerance(text, also)


def test_what_is_no_selector_spares_nobody() -> None:
    with pytest.raises(LabelError):
        parse_tolerance("1", "env in lab")


POINTS = {
    "canary": Labels({"env": "canary"}),
    "shop": Labels({"env": "prod"}),
    "till": Labels({"env": "prod", "pci": "cde"}),
    "lab": Labels({"env": "lab", "pci": "cde"}),
}


def test_canaries_and_guarded_points_never_stay_behind_but_for_those_named_by_label() -> None:
    waves = parse_waves(["env=canary"])
    numbers = places(waves, POINTS)
    assert numbers == {"canary": 0, "shop": 1, "till": 1, "lab": 1}
    approvals = [Approval(parse_selector("pci=cde"))]
    assert guarded(POINTS, numbers, 2, approvals, Tolerance(9)) == {"canary", "till", "lab"}
    named = Tolerance(9, also=parse_selector("env in (lab, canary)"))
    assert guarded(POINTS, numbers, 2, approvals, named) == {"till"}
    assert guarded(POINTS, numbers, 2, [], Tolerance(9)) == {"canary"}


def test_where_there_is_but_one_wave_nobody_is_a_canary() -> None:
    assert guarded(POINTS, places(parse_waves([]), POINTS), 1, [], Tolerance(9)) == frozenset()


def test_the_first_wave_that_has_points_is_the_canaries() -> None:
    waves = parse_waves(["env=nowhere", "env=canary"])
    assert guarded(POINTS, places(waves, POINTS), 3, [], Tolerance(9)) == {"canary"}
    waves = parse_waves(["env=nowhere"])
    assert guarded(POINTS, places(waves, POINTS), 2, [], Tolerance(9)) == frozenset()


def test_denials_are_put_down_to_as_few_points_as_explain_them() -> None:
    flows = [("a", "p1"), ("b", "p2"), ("c", "p2"), ("d", "p2"), ("e", "p3")]
    assert loudest(flows, 5) == {}
    assert loudest(flows, 2) == {"p2": "b"}
    assert loudest(flows, 0) == {"p1": "a", "p2": "b", "p3": "e"}


def test_who_is_late_takes_only_what_those_leave_that_fell() -> None:
    numbers = dict.fromkeys(NAMES[:10], 0)
    assert spared(Tolerance(2), numbers, (), {"p00"}, {"p01"}) == ({"p00"}, {"p01"})
    assert spared(Tolerance(2), numbers, (), {"p00"}, {"p01", "p02"}) == ({"p00"}, frozenset())
    assert spared(Tolerance(2), numbers, {"p03", "p04"}, {"p00"}) == (frozenset(), frozenset())
    # One both fell and is late: it is counted once.
    assert spared(Tolerance(1), numbers, (), {"p00"}, {"p00"}) == ({"p00"}, frozenset())


@given(TOLERANCES, PLACES, SETS, SETS, SETS)
def test_never_more_than_said_stay_behind_in_any_wave(
    tolerance: Tolerance, numbers: dict[str, int], before: set[str], fallen: set[str], late: set[str]
) -> None:
    let_be, passed = spared(tolerance, numbers, before, fallen, late)
    assert let_be <= fallen - before and passed <= late - fallen - before
    sizes = Counter(numbers.values())
    for wave, size in sizes.items():
        fresh = {name for name in let_be | passed if numbers[name] == wave}
        known = {name for name in before if numbers.get(name) == wave}
        assert not fresh or len(fresh | known) <= tolerance.of(size)


@given(st.integers(0, 12), st.integers(0, 12), PLACES, SETS, SETS, SETS)
def test_who_tolerates_more_spares_all_that_who_tolerates_less_spares(
    less: int, more: int, numbers: dict[str, int], before: set[str], fallen: set[str], late: set[str]
) -> None:
    less, more = min(less, more), max(less, more)
    one, other = (spared(Tolerance(count), numbers, before, fallen, late) for count in (less, more))
    assert one[0] <= other[0] and one[1] <= other[1]


@given(TOLERANCES, PLACES, SETS, SETS, SETS)
def test_where_fewer_fall_nobody_is_spared_less(
    tolerance: Tolerance, numbers: dict[str, int], fallen: set[str], fewer: set[str], late: set[str]
) -> None:
    many, few = spared(tolerance, numbers, (), fallen, late), spared(tolerance, numbers, (), fallen & fewer, late)
    assert many[0] & fewer <= few[0]
    assert many[1] <= few[1]
