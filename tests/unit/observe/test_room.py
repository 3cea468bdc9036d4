"""How full the kernel is, in figures and in words."""

from __future__ import annotations

import pytest

from cellwall.observe import Room


@pytest.mark.parametrize(
    ("tracked", "words"),
    [(0, ""), (79, ""), (80, "over 80 %"), (94, "over 80 %"), (95, "over 95 %"), (200, "over 95 %")],
)
def test_conntrack_that_fills_is_said_in_two_steps(tracked: int, words: str) -> None:
    told = " ".join(Room(tracked, 100).troubles)
    assert words in told and bool(told) == bool(words)


def test_conntrack_that_is_not_in_use_is_no_trouble() -> None:
    assert Room().percent == 0 and Room().troubles == ()
