"""How the standing tests are told: since when, whether that is after the last change, and what breaks them."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from cellwall.cli.standing import draw_standing, told_of_tests

HOLDS: dict[str, Any] = {
    "id": "works",
    "passed": True,
    "vacuous": False,
    "checked": 4,
    "place": "p.yaml:9:5",
    "failure": "",
    "since": 1.0,
}
FAILS: dict[str, Any] = {
    **HOLDS,
    "id": "apart",
    "passed": False,
    "place": "p.yaml:8:5",
    "failure": "test `apart` fails, at p.yaml:8:5: web-1 → db-1 tcp/22 passes, and 3 more",
}


def drawn(current: bool, *items: dict[str, Any]) -> str:
    out = Console(file=StringIO(), width=200)
    out.print(draw_standing({"revision": 3, "at": 2.0, "current": current, "items": items}))
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


def test_a_failing_test_shows_what_breaks_it() -> None:
    text = drawn(True, FAILS, HOLDS)
    assert "revision 3, checked at 1970-01-01 00:00:02" in text
    assert "web-1 → db-1 tcp/22 passes, and 3 more" in text
    assert "not checked yet" not in text


def test_what_is_not_checked_yet_or_proves_nothing_says_so() -> None:
    text = drawn(False, {**HOLDS, "vacuous": True, "checked": 0})
    assert "what changed since then is not checked yet" in text
    assert "it proves nothing" in text
    assert "has no tests" in drawn(True)


def test_the_status_names_the_first_that_fails() -> None:
    assert told_of_tests({"passed": 0, "failed": []}) == "there are none"
    assert told_of_tests({"passed": 2, "failed": []}) == "2 hold"
    told = told_of_tests({"passed": 1, "failed": [{"failure": FAILS["failure"], "since": 1.0}]})
    assert told.startswith("1 of 2 fail; test `apart` fails, at p.yaml:8:5: web-1")
