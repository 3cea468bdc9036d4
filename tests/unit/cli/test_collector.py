"""How often Python looks for cycles is set for the programs that hold policies and fleets, and not for the agent."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from cellwall.cli import collect_seldom, main

PYTHONS = (700, 10, 10)


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*PYTHONS)
    yield
    gc.set_threshold(*before)


def test_collecting_seldom_is_collecting_at_all() -> None:
    collect_seldom()
    assert gc.isenabled()
    assert all(mine > theirs for mine, theirs in zip(gc.get_threshold(), PYTHONS, strict=True))


def test_what_a_person_asks_for_collects_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "--help"]) == 0
    assert gc.get_threshold() != PYTHONS
    assert capsys.readouterr().out


def test_the_agent_keeps_its_memory_small_and_collects_as_python_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "run", "--help"]) == 0
    assert gc.get_threshold() == PYTHONS
    assert capsys.readouterr().out
