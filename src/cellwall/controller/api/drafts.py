"""What drafts of a policy would have points hold, each worked out by difference from the one before.

What was compiled for a plan is not compiled again when that is applied: then it trades places with what was in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

from cellwall.controller.core import Wanted
from cellwall.controller.ground import Ground
from cellwall.controller.wants import Wants
from cellwall.policy import Policy

KEPT_S = 300.0
"""For so long what the last draft was compiled to is kept: it takes as much memory as what is in force."""


class Drafts:
    """Compiles drafts, one at a time, for whichever threads ask."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._wants = Wants()
        self._asked = 0.0

    def of(self, ground: Ground, now: float) -> Mapping[str, Wanted]:
        """Say what every point would hold on `ground` at `now` (seconds since the epoch, UTC)."""
        with self._lock:
            self._asked = now
            return self._wants.of(ground, now)

    def trade(self, policy: Policy, wants: Wants) -> Wants:
        """Give what has compiled `policy`, and keep `wants` in its place; or `wants` itself, where that has or nobody.

        Only what goes on shares with what agents hold all that stays the same: when labels change, nothing trades."""
        if wants.policy == policy:
            return wants
        if not self._lock.acquire(blocking=False):
            # Another draft is being compiled: nobody waits for that.
            return wants
        try:
            if self._wants.policy != policy:
                return wants
            given, self._wants = self._wants, wants
            return given
        finally:
            self._lock.release()

    def tidy(self, now: float) -> None:
        """Let go of what nobody asked for within `KEPT_S`."""
        if now - self._asked > KEPT_S and self._lock.acquire(blocking=False):
            self._wants = Wants()
            self._lock.release()
