from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cellwall.controller.waves import opened, sizes
from cellwall.labels import Labels
from cellwall.policy import parse_waves

POINTS = {f"host-{number}": Labels({"env": "staging" if number % 10 == 0 else "prod"}) for number in range(200)}
NOBODY: dict[str, Labels] = {}


def test_a_canary_is_one_in_a_hundred_and_at_least_one() -> None:
    waves = parse_waves(["canary", "tenth"])
    assert sizes(waves, POINTS) == (2, 18, 180)
    few = {name: POINTS[name] for name in list(POINTS)[:3]}
    assert sizes(waves, few) == (1, 0, 2)
    assert sizes(waves, NOBODY) == (0, 0, 0)


def test_a_wave_by_label_opens_those_that_match_and_the_ones_before_stay_open() -> None:
    waves = parse_waves(["canary", "env=staging"])
    canaries, both = opened(waves, 0, POINTS), opened(waves, 1, POINTS)
    assert canaries <= both
    assert both - canaries <= {name for name, labels in POINTS.items() if labels["env"] == "staging"} <= both
    assert opened(waves, 2, POINTS) == POINTS.keys()


def test_the_last_wave_is_everyone_whoever_comes() -> None:
    assert opened(parse_waves([]), 0, POINTS) == POINTS.keys()
    assert opened(parse_waves([]), 7, POINTS) == POINTS.keys()


@given(st.sets(st.sampled_from(sorted(POINTS)), min_size=1), st.lists(st.integers(1, 99), min_size=1, max_size=4))
def test_waves_only_add_points_and_depend_on_nothing_but_names(names: set[str], shares: list[int]) -> None:
    waves = parse_waves([f"{share}%" for share in shares])
    points = {name: POINTS[name] for name in names}
    before: frozenset[str] = frozenset()
    for number in range(len(waves)):
        there = opened(waves, number, points)
        assert before <= there <= points.keys()
        assert there == opened(waves, number, dict(reversed(points.items())))
        before = there
    assert before == points.keys()
    assert sum(sizes(waves, points)) == len(points)
