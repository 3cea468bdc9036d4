"""The log of a program: events for whoever collects them, one a line, in one schema for agent and controller.

{"at": "2026-11-22T18:00:00.000Z", "level": "info", "event": "compiled", "request": "…", …what belongs to it}

`event` is one of few phrases and is never put together; whatever differs from time to time is a field. No secret is
written: what looks like one is hidden (`cellwall.wire.redact`).
"""

from __future__ import annotations

import json
import re
from collections import deque
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO

from cellwall.traffic import CellwallError
from cellwall.wire import redact, redacted

KEPT_LINES, LONGEST_LINE = 2000, 8192
REQUEST: ContextVar[str] = ContextVar("request", default="")
"""The id of the request that is being answered; empty where none is."""
_PLAIN = re.compile(r"[\w.,:/@+~%-]+")


class Level(StrEnum):
    """How much an event matters: `DEBUG` is the ordinary traffic of a fleet, `WARNING` and `ERROR` want a look."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Form(StrEnum):
    """How a line is written: one JSON object, or for people."""

    JSON = "json"
    TEXT = "text"


class LogError(CellwallError):
    """A log is asked for that is not there."""


class EventLog:
    """Writes events of at least `least` to `stream`, and keeps the last lines for a support bundle."""

    def __init__(self, stream: TextIO, form: Form = Form.JSON, least: Level = Level.INFO) -> None:
        self._stream = stream
        self._form = form
        self._ranks = {level: rank for rank, level in enumerate(Level)}
        self._least = self._ranks[least]
        self.kept: deque[str] = deque(maxlen=KEPT_LINES)

    def __call__(self, event: str, /, *, level: str = Level.INFO, **fields: object) -> None:
        """Write an event. A stream that cannot be written to is no reason to end."""
        if self._ranks[Level(level)] < self._least:
            return
        entry: dict[str, object] = {"at": _moment(), "level": str(level), "event": event}
        if request := REQUEST.get():
            entry["request"] = request
        for name, value in fields.items():
            entry[name if name not in entry else f"{name}_"] = redacted(value, name)
        line = (_as_json if self._form is Form.JSON else _as_text)(entry)
        self.kept.append(line)
        try:
            print(line, file=self._stream, flush=True)
        except (OSError, ValueError):
            # Nobody reads any more, or the disk is full: the program's work matters more than its log.
            return


def level_named(text: str) -> Level:
    """Read a level. Raises `LogError`."""
    try:
        return Level(text)
    except ValueError:
        raise LogError(f"`{text}` is no level; wanted one of `{'`, `'.join(Level)}`") from None


def form_named(text: str) -> Form:
    """Read a form of lines. Raises `LogError`."""
    try:
        return Form(text)
    except ValueError:
        raise LogError(f"`{text}` is no form of a log; wanted `json` or `text`") from None


def _moment() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_json(entry: dict[str, object]) -> str:
    line = json.dumps(entry, default=str, ensure_ascii=False)
    if len(line) <= LONGEST_LINE:
        return line
    # A line too long for a journal is still one JSON object.
    short = {name: value if len(str(value)) <= 500 else f"{str(value)[:500]}…" for name, value in entry.items()}
    return json.dumps(dict(list(short.items())[:16]), default=str, ensure_ascii=False)


def _as_text(entry: dict[str, object]) -> str:
    at, level, event, *rest = entry.items()
    fields = " ".join(f"{name}={_word(value)}" for name, value in rest)
    return redact(f"{at[1]} {level[1]!s:<7} {event[1]}{'  ' if fields else ''}{fields}")[:LONGEST_LINE]


def _word(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
