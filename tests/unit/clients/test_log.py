"""One schema of log lines for every program, and no secret in them."""

import io
import json
from typing import Any

import pytest

from cellwall.clients import REQUEST, EventLog, Form, Level, LogError, form_named, level_named


def said(form: Form = Form.JSON, least: Level = Level.DEBUG, /, **fields: Any) -> str:
    stream = io.StringIO()
    EventLog(stream, form, least)("compiled", **fields)
    return stream.getvalue()


def test_a_line_is_an_object_with_time_level_and_event_first() -> None:
    entry = json.loads(said(points=3, seconds=0.5))
    assert list(entry) == ["at", "level", "event", "points", "seconds"]
    assert (entry["level"], entry["event"]) == ("info", "compiled")
    assert entry["at"].endswith("Z") and len(entry["at"]) == 24


def test_text_is_for_people() -> None:
    assert said(Form.TEXT, why="two words", level="warning").rstrip().endswith('warning compiled  why="two words"')


def test_what_matters_less_is_not_written() -> None:
    assert said(Form.JSON, Level.WARNING) == ""
    assert said(Form.JSON, Level.WARNING, level="error")


def test_a_line_stays_one_line_and_is_not_too_long() -> None:
    for form in Form:
        line = said(form, why="a\nb\r\n" + "x" * 100_000, more=["y" * 100_000])
        assert line.count("\n") == 1 and len(line) < 10_000


def test_no_secret_is_written() -> None:
    secret = "s3cr3t" * 6
    fields = {"why": f"cw1.{'a' * 64}.{secret}", "password": secret, "deep": {"client_secret": [secret]}}
    for form in Form:
        assert secret not in said(form, **fields)


def test_the_request_that_is_answered_is_named() -> None:
    mark = REQUEST.set("r-1")
    try:
        assert json.loads(said())["request"] == "r-1"
    finally:
        REQUEST.reset(mark)
    assert "request" not in json.loads(said())


def test_a_field_does_not_take_the_place_of_the_schema() -> None:
    stream = io.StringIO()
    EventLog(stream)("compiled", at=1, event="forged")
    entry = json.loads(stream.getvalue())
    assert entry["event"] == "compiled" and entry["event_"] == "forged"


def test_a_closed_stream_ends_nothing_and_the_last_lines_are_kept() -> None:
    stream = io.StringIO()
    log = EventLog(stream)
    stream.close()
    for _ in range(3000):
        log("compiled")
    assert len(log.kept) == 2000


def test_an_unknown_level_or_form_is_an_error_that_says_what_was_wanted() -> None:
    with pytest.raises(LogError, match="`loud` is no level; wanted one of `debug`, `info`, `warning`, `error`"):
        level_named("loud")
    with pytest.raises(LogError, match="`xml` is no form"):
        form_named("xml")
