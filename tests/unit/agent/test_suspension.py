"""A suspension has an end and a reason, whatever is on disk and whatever the clock says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellwall.agent import is_running, read_suspension, resume, suspend
from cellwall.agent.core import Agent, step
from cellwall.agent.enrolment import AgentError
from cellwall.agent.events import Suspended
from cellwall.agent.folder import locked
from cellwall.agent.options import AgentOptions
from cellwall.agent.suspension import LONGEST_S
from cellwall.cli.exits import Stop
from cellwall.cli.suspending import duration

NOW = 1_800_000_000.0


def test_a_suspension_is_there_until_its_end(tmp_path: Path) -> None:
    made = suspend(tmp_path, 60.0, " ticket 1 ", NOW)
    assert str(made) == "suspended until 2027-01-15T08:01:00Z: ticket 1"
    assert read_suspension(tmp_path, NOW + 59) == made and made.left_s(NOW + 59) == 1.0
    assert read_suspension(tmp_path, NOW + 60) is None
    assert made.left_s(NOW - 86_400) == 60.0, "a clock that was set back prolongs nothing"


def test_a_suspension_can_be_ended_once(tmp_path: Path) -> None:
    suspend(tmp_path, 60.0, "ticket 1", NOW)
    assert resume(tmp_path) and not resume(tmp_path)
    assert read_suspension(tmp_path, NOW) is None


@pytest.mark.parametrize(("seconds", "reason"), [(0.0, "x"), (-1.0, "x"), (LONGEST_S + 1, "x"), (60.0, "  ")])
def test_a_suspension_without_end_or_reason_is_refused(tmp_path: Path, seconds: float, reason: str) -> None:
    with pytest.raises(AgentError):
        suspend(tmp_path, seconds, reason, NOW)
    assert read_suspension(tmp_path, NOW) is None


def test_what_cannot_be_read_suspends_nothing(tmp_path: Path) -> None:
    for text in ("", "{", '{"until": 1e12}', '{"until": "x", "for_s": 1, "reason": ""}'):
        (tmp_path / "suspended.json").write_text(text)
        assert read_suspension(tmp_path, NOW) is None


def test_without_a_folder_there_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="no such file"):
        suspend(tmp_path / "none", 60.0, "x", NOW)


def test_an_agent_that_holds_nothing_writes_nothing_when_it_is_suspended() -> None:
    agent, commands = step(Agent("web"), Suspended("because"), NOW)
    assert agent.suspended == "because" and commands == ()


def test_whether_an_agent_runs_is_seen_by_its_lock(tmp_path: Path) -> None:
    options = AgentOptions(tmp_path)
    assert not is_running(options)
    with locked(tmp_path):
        assert is_running(options)
    assert not is_running(options)


def test_times_are_read_as_people_write_them() -> None:
    assert (duration("90s"), duration("30m"), duration("2h")) == (90.0, 1800.0, 7200.0)
    for text in ("", "30", "1d", "-5m", "5 m", "9999999s"):
        with pytest.raises(Stop, match="wanted"):
            duration(text)
