"""How long whoever fails has to wait, and how many refusals are written down."""

from __future__ import annotations

from dataclasses import dataclass

FREE_BY_NAME, FREE_BY_ADDRESS = 5, 20
"""So many times signing in may fail at once: for one account, and from one address."""
LONGEST_WAIT_S, FORGOTTEN_AFTER_S = 900.0, 3600.0


def wait_s(count: int, since_s: float, free: int) -> float:
    """Say for how many seconds more nobody may try, after `count` failures of which the last was `since_s` ago.

    The wait doubles with each failure beyond `free`, and there is none once they are forgotten."""
    if count < free or since_s >= FORGOTTEN_AFTER_S:
        return 0.0
    return max(min(2.0 ** min(count - free, 30), LONGEST_WAIT_S) - since_s, 0.0)


@dataclass
class Bucket:
    """Lets `burst` through at once and `per_s` a second in the long run, and counts what it held back."""

    burst: float
    per_s: float
    held_back: int = 0
    _level: float = 0.0
    _at: float = 0.0

    def admits(self, now: float) -> bool:
        """Say whether one more is let through at `now`."""
        self._level = max(self._level - max(now - self._at, 0.0) * self.per_s, 0.0)
        self._at = now
        if self._level + 1 > self.burst:
            self.held_back += 1
            return False
        self._level += 1
        return True

    def take_held_back(self) -> int:
        """Give how many were held back since this was asked last."""
        held, self.held_back = self.held_back, 0
        return held
