"""`cellwall agent remove` asks who sits at a terminal, and nobody else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

REMOVE = [sys.executable, "-m", "cellwall", "agent", "remove", "--state"]


def at_a_terminal(state: Path, typed: bytes) -> tuple[int, str]:
    """Type at the command; give its exit code and what the terminal showed."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed)
        done = subprocess.run(
            [*REMOVE, str(state)], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return done.returncode, done.stdout.decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_who_answers_something_else_is_asked_again(tmp_path: Path) -> None:
    code, shown = at_a_terminal(tmp_path, b"perhaps\nOpen\n")
    assert shown.count("keep, open or close?") == 2
    assert "everything passes" in shown
    # It went on, to find that there is nothing to remove.
    assert "holds no enrolment" in shown and code == 6


@pytest.mark.parametrize("typed", [b"\x04", b"perhaps\n\x04"])
def test_who_does_not_answer_changes_nothing(tmp_path: Path, typed: bytes) -> None:
    code, shown = at_a_terminal(tmp_path, typed)
    assert code == 1 and "nothing was done" in shown


def test_a_program_must_say_what_to_leave(tmp_path: Path) -> None:
    done = subprocess.run(
        [*REMOVE, str(tmp_path)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "cellwall: say what to leave on this host: --leave keep, --leave open, --leave close\n"
