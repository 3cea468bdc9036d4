"""Rows are those that `show` gives, however little of them is worked out again."""

from __future__ import annotations

import random
from dataclasses import replace

from cellwall.compile import Point, Ruleset
from cellwall.controller.core import Standing, Wanted, show, want
from cellwall.controller.rows import Rows
from cellwall.policy import Mode
from cellwall.wire import Holding, PointState

NAMES = tuple(f"w-{number:02}" for number in range(20))
SILENT_AFTER_S = 30.0


def wanted(revision: int) -> dict[str, Wanted]:
    return want({name: Point(Ruleset(name, revision, Mode.ENFORCE), {b"\x0a\x00\x00\x01": 1}, ()) for name in NAMES})


def test_rows_are_those_that_are_worked_out_anew_after_any_changes() -> None:
    chance, rows = random.Random(3), Rows()
    standings = {name: Standing(name) for name in NAMES}
    wants = wanted(1)
    for step in range(300):
        now = float(step)
        name = chance.choice(NAMES)
        match chance.randrange(5):
            case 0:
                digest = chance.choice([wants[name].digest if name in wants else "", "other"])
                holding = Holding(generation=step, revision=step % 7, digest=digest)
                standings[name] = replace(standings[name], holding=holding, state=PointState.ENFORCED)
            case 1:
                standings[name] = replace(standings[name], connected=chance.random() < 0.5, seen=now)
            case 2:
                wants = wanted(step)
            case 3:
                wants = {one: which for one, which in wants.items() if one != name or len(wants) < 10}
            case _:
                pass
        shown = {one: show(standings[one], wants[one], now, SILENT_AFTER_S) for one in sorted(wants)}
        found = rows.of(standings, wants, now, SILENT_AFTER_S)
        assert list(found.items()) == list(shown.items())


def test_what_is_as_it_was_is_not_worked_out_again() -> None:
    rows, standings, wants = Rows(), {name: Standing(name) for name in NAMES}, wanted(1)
    first = rows.of(standings, wants, 100.0, SILENT_AFTER_S)
    standings["w-03"] = replace(standings["w-03"], connected=True)
    second = rows.of(standings, wants, 101.0, SILENT_AFTER_S)
    assert [name for name in NAMES if first[name] is not second[name]] == ["w-03"]
