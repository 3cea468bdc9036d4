"""A host that for a while only observes, because somebody on it said so: kept on disk, with its end.

What stands on disk is what holds: a restarted agent and what loads the policy at boot read it. Its end is in the kernel
too, which enforces again by itself.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from cellwall.agent.enrolment import AgentError, write_file

LONGEST_S = 86_400.0
"""A host that is not to enforce for longer gets mode `observe` in the policy, where everybody sees it."""
_FILE = "suspended.json"


class Suspension(msgspec.Struct, frozen=True):
    """Nothing is dropped for `for_s` seconds, until `until` (since the epoch, UTC), for `reason`."""

    until: float
    for_s: float
    reason: str

    def left_s(self, now: float) -> float:
        """Say for how long from `now`; never longer than was asked for, as the clock may have been set back."""
        return max(0.0, min(self.until - now, self.for_s))

    def __str__(self) -> str:
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.until))
        return f"suspended until {ends}: {self.reason}"


def suspend(folder: Path, for_s: float, reason: str, now: float) -> Suspension:
    """Have the agent of `folder` only observe for `for_s` seconds. Raises `AgentError`."""
    if not 0 < for_s <= LONGEST_S:
        raise AgentError("a host can be suspended for a second to a day; for longer, give it mode `observe` by policy")
    if not reason.strip():
        raise AgentError("say why: a suspension is reported with its reason")
    made = Suspension(now + for_s, for_s, reason.strip()[:512])
    try:
        write_file(folder / _FILE, msgspec.json.encode(made) + b"\n")
    except OSError as error:
        raise AgentError(f"`{folder}`: {(error.strerror or str(error)).lower()}") from None
    return made


def resume(folder: Path) -> bool:
    """End the suspension of `folder`; say whether there was one. Raises `AgentError`."""
    try:
        (folder / _FILE).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise AgentError(f"`{folder}`: {(error.strerror or str(error)).lower()}") from None
    return True


def read_suspension(folder: Path, now: float) -> Suspension | None:
    """Read it; None where there is none, where it is over, and where it cannot be read: in doubt, enforce."""
    try:
        found = msgspec.json.decode((folder / _FILE).read_bytes(), type=Suspension)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.left_s(now) > 0 else None
