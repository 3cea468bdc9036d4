"""The agent's folder: one agent at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cellwall.agent.enrolment import AgentError
from cellwall.agent.options import AgentOptions


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the folder for as long as the block runs. Raises `AgentError` when another agent does."""
    try:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AgentError(f"`{folder}`: {(error.strerror or str(error)).lower()}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AgentError(f"another agent runs on `{folder}`") from None
        yield
    finally:
        os.close(handle)


def is_running(options: AgentOptions) -> bool:
    """Say whether an agent holds the folder. Raises `AgentError` when that cannot be told."""
    try:
        handle = os.open(options.state / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise AgentError(f"`{options.state}`: {(error.strerror or str(error)).lower()}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def remember_observing(folder: Path, observing: bool) -> None:
    """Keep on disk whether this host only observes, so that what loads the policy at boot knows it too."""
    mark = folder / "observe-only"
    if observing:
        mark.touch(mode=0o600)
    else:
        mark.unlink(missing_ok=True)


def observes(folder: Path) -> bool:
    """Say whether the agent that last ran on this folder was told to observe only."""
    return (folder / "observe-only").exists()
