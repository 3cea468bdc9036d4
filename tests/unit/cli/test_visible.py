"""What others wrote steers nobody's terminal."""

from __future__ import annotations

import json

import pytest
import yaml

from cellwall.cli.exits import complain
from cellwall.cli.output import Format, console, hint, say, show, table
from cellwall.cli.visible import visible, visible_json

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\x08\x7f"
STEERING = [chr(one) for one in (0x1B, 0x07, 0x9B, 0x202E, 0x08, 0x7F)]


def steers(text: str) -> list[str]:
    return [one for one in STEERING if one in text]


def test_what_steers_is_shown_and_the_rest_stays() -> None:
    assert visible("web-1 → db: grüße 日本\n\tline") == "web-1 → db: grüße 日本\n\tline"
    assert visible("\x1b[31m") == "\\x1b[31m"
    assert visible("\u202eabc") == "\\u202eabc"
    assert steers(visible(EVIL)) == []


def test_nothing_that_is_printed_for_people_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL, table(["process", "note"], [[EVIL, [EVIL]], [{"a": EVIL}, "[red]no markup[/red]"]]))
    hint(EVIL)
    console().print(EVIL, markup=False)
    complain(f"workload `{EVIL}` is unknown")
    told = capsys.readouterr()
    assert steers(told.out) == [] and steers(told.err) == []
    assert "owned" in told.out and "owned" in told.err and "[red]no markup[/red]" in told.out


@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
def test_nothing_that_is_printed_for_programs_steers_a_terminal(
    form: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {"process": EVIL, "name": "grüße"}
    show(answer, form, lambda: "")
    told = capsys.readouterr().out
    assert steers(told) == []
    assert (json.loads if form is Format.JSON else yaml.safe_load)(told) == answer


def test_json_means_the_same() -> None:
    text = json.dumps({"a": EVIL, "b": "日本\n"}, ensure_ascii=False)
    assert json.loads(visible_json(text)) == json.loads(text)
