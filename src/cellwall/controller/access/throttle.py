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


MOST_KEYS = 10_000


class Buckets:
    """A bucket for each key, of which no more are kept than whoever invents keys may cost."""

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._each: dict[str, Bucket] = {}

    def admits(self, key: str, now: float) -> bool:
        """Say whether one more of a key is let through at `now`."""
        if key not in self._each and len(self._each) >= MOST_KEYS:
            # Those that came longest ago go first.
            for old in tuple(self._each)[: MOST_KEYS // 2]:
                del self._each[old]
        return self._each.setdefault(key, Bucket(self._burst, self._per_s)).admits(now)


@dataclass
class Bucket:
    """Lets `burst` through at once and `per_s` a second in the long run, and counts what it held back."""

    burst: float
    per_s: float
    held_back: int = 0
    _level: float = 0.0
    _at: float = 0.0

    def admits(self, now: float, count: float = 1) -> bool:
        """Say whether so many more are let through at `now`: all of them, or none."""
        self._level = max(self._level - max(now - self._at, 0.0) * self.per_s, 0.0)
        self._at = now
        if self._level + count > self.burst:
            self.held_back += 1
            return False
        self._level += count
        return True

    def room_s(self, now: float, count: float = 1) -> float:
        """Say in how many seconds so many more will be let through."""
        level = max(self._level - max(now - self._at, 0.0) * self.per_s, 0.0)
        return max(level + count - self.burst, 0.0) / self.per_s

    def take_held_back(self) -> int:
        """Give how many were held back since this was asked last."""
        held, self.held_back = self.held_back, 0
        return held
