import json

import pytest
import yaml
from rich.console import Group
from rich.text import Text

from cellwall.cli import output
from cellwall.cli.output import Format, Steps, cell, say, show, table, verdict

ANSWER = {"items": [{"name": "web-1", "labels": {"app": "shop"}}], "word": "schön"}


def drawn() -> Text:
    return Text("a table")


def test_json_is_the_whole_answer(capsys: pytest.CaptureFixture[str]) -> None:
    show(ANSWER, Format.JSON, drawn)
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_yaml_is_the_whole_answer(capsys: pytest.CaptureFixture[str]) -> None:
    show(ANSWER, Format.YAML, drawn)
    assert yaml.safe_load(capsys.readouterr().out) == ANSWER


def test_a_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    show(ANSWER, Format.TABLE, drawn)
    assert capsys.readouterr().out == "a table\n"


def test_a_table_has_a_heading_and_a_line_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    say(table(["name", "count#", "labels"], [["web", 1234, {"app": "shop"}], ["db", 7, {}]]))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "NAME  COUNT  LABELS",
        "web   1 234  app=shop",
        "db        7  -",
    ]


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    say(table(["name"], [], "no workloads"))
    assert capsys.readouterr().out == "no workloads\n"


def test_sentences_are_not_broken_and_brackets_are_not_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    token = "cw1." + "a" * 80
    say(token, Group("[red] is a word", Text("and so is this one, however long it becomes")))
    assert capsys.readouterr().out.splitlines() == [
        token,
        "[red] is a word",
        "and so is this one, however long it becomes",
    ]


def test_a_verdict_is_told_by_sign_and_word() -> None:
    assert [verdict(word).plain for word in ("allowed", "would be denied", "denied", "observe")] == [
        "✔ allowed",
        "◌ would be denied",
        "✘ denied",
        "· observe",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), ("", "-"), ([], "-"), (0, "0"), (True, "yes"), (False, "no"), (["a", "b"], "a, b"), (1.5, "1.5")],
)
def test_a_cell_writes_any_value(value: object, text: str) -> None:
    assert cell(value).plain == text


def test_progress_into_a_file_is_a_line_at_the_end_of_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    for stage, done in (("network", 0), ("network", 1), ("units", 0), ("units", 0), ("units", 1), ("units", 1)):
        steps(stage, done, 1)
    assert capsys.readouterr().err.splitlines() == ["network 1/1", "units 1/1"]


def test_a_controller_that_is_missing_is_named_once_on_standard_error_and_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_MISSING", {})
    output.missing("three", "gone since 2026-11-22T20:00:00Z")
    output.missing("three", "gone since 2026-11-22T20:00:00Z")
    output.show({"items": []}, Format.JSON, str)
    out, err = capsys.readouterr()
    assert json.loads(out)["missing_controllers"] == [{"name": "three", "why": "gone since 2026-11-22T20:00:00Z"}]
    assert err == "! without the flows of controller three: gone since 2026-11-22T20:00:00Z\n"
