"""`agent suspend` and `agent resume`: a dry run by default, and nothing that nobody would end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cellwall.agent import read_suspension
from cellwall.agent.folder import locked
from cellwall.cli import main
from cellwall.cli.exits import Exit


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    text = '{"name": "web", "controller": "https://10.0.0.5:7443", "bundle_key": "' + "A" * 43 + '="}'
    (tmp_path / "state" / "enrolment.json").write_text(text)
    return tmp_path / "state"


def suspend(state: Path, *more: str) -> int:
    return main(["agent", "suspend", "--state", str(state), "--for", "30m", "--reason", "ticket 1", *more])


def test_a_host_is_suspended_only_where_an_agent_runs_that_ends_it(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suspend(state, "--yes") == Exit.UNABLE
    assert "nobody would end it" in capsys.readouterr().err
    with locked(state):
        assert suspend(state) == Exit.OK and read_suspension(state, time.time()) is None
        assert "repeat with --yes" in capsys.readouterr().out
        assert suspend(state, "--yes") == Exit.OK
        found = read_suspension(state, time.time())
        assert found and found.for_s == 1800.0 and found.reason == "ticket 1"


def test_a_suspended_host_is_resumed_when_it_is_confirmed(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resume = ["agent", "resume", "--state", str(state)]
    assert main(resume) == Exit.OK and "not suspended" in capsys.readouterr().out
    with locked(state):
        suspend(state, "--yes")
        assert main(resume) == Exit.OK and read_suspension(state, time.time()) is not None
        assert main([*resume, "--yes"]) == Exit.OK and read_suspension(state, time.time()) is None


def test_a_wrong_time_or_a_host_that_is_not_enrolled_is_an_error_in_one_line(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["agent", "suspend", "--state", str(state), "--for", "soon", "--reason", "x"]
    assert main(wrong) == Exit.USAGE
    assert "`soon` is no time; wanted `90s`, `30m` or `2h`" in capsys.readouterr().err
    assert suspend(tmp_path / "none") != Exit.OK
    assert "holds no enrolment" in capsys.readouterr().err
