"""The controller's time, as an agent knows it: what has an end ends by that one, whatever the clock of its host says.

    wall clock ──▶ the controller's time ◀── its welcome (between then and now), letters that it signed (not before)
                        │ ahead
    steady clock ───────┴──▶ now()

Orders end at moments that the controller names. An agent that took its own clock's word for them would never enforce
an order that it takes for over, or would keep open what is to be shut. So it believes the wall clock only as far as
what the controller said allows, and from then on counts on a clock that nobody sets.

INVARIANT: a letter that was signed can only move the time forward, so that an old one, played again, revives nothing;
back it is moved by the welcome of a controller whose certificate was verified, and by fresh letters on that channel.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

SLACK_S = 0.5
"""Clocks that differ by so little are one."""
LATE_S = 60.0
"""On a channel that answers pings nothing is on its way for so long."""
TROUBLE_S = 5.0


def boot_seconds() -> float:
    """Give the seconds since the host began, also those that it slept; nobody sets them (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The controller's time is, or was by the steady clock, within these seconds since the epoch, UTC."""

    least: float
    most: float


class Clock:
    """Two clocks: `steady` begins as the wall clock does and never jumps; `now` is what the controller's shows."""

    def __init__(self, wall: Callable[[], float] = time.time, ticks: Callable[[], float] = boot_seconds) -> None:
        """Believe the wall clock, until a controller has spoken."""
        self._wall, self._ticks = wall, ticks
        self._began = wall() - ticks()
        self._least = 0.0  # as the steady clock goes on
        self._welcomed = False
        self.ahead = 0.0
        """By how much `now` is ahead of `steady`; changes in one step, and only where it is worth it."""

    def steady(self) -> float:
        """Give the time of the clock that never jumps."""
        return self._began + self._ticks()

    def now(self) -> float:
        """Give the controller's time, in seconds since the epoch, UTC."""
        return self.steady() + self.ahead

    def look(self) -> bool:
        """Follow the wall clock, which somebody may have set, while no controller has spoken; whether that is news."""
        return not self._welcomed and self._set(max(self._wall() - self.steady(), self._least))

    def not_before(self, moment: float) -> bool:
        """Take a moment that has passed: something was signed then; whether that is news."""
        self._least = max(self._least, moment - self.steady())
        return self.ahead < self._least - SLACK_S and self._set(self._least)

    def fresh(self, moment: float) -> bool:
        """Take that something was signed at `moment`, and came on the channel since; whether that is news."""
        return self._within(self.ahead, _Bounds(moment, moment + LATE_S)) if moment else False

    def welcomed(self, moment: float, took_s: float) -> bool:
        """Take that it was `moment` for the controller, at most `took_s` ago; whether that is news.

        A moment of 0 is not known."""
        if not moment:
            return False
        self._welcomed = True
        self._least = 0.0
        return self._within(self._wall() - self.steady(), _Bounds(moment, moment + took_s))

    @property
    def trouble(self) -> str:
        """Say how wrong the wall clock is, "" where it is right."""
        off = self._wall() - self.now()
        if not self._welcomed or abs(off) < TROUBLE_S:
            return ""
        # Said in steps, or it would be news each time.
        return f"its clock is some {round(abs(off), -1):,.0f} s {'ahead of' if off > 0 else 'behind'} the controller's"

    def _within(self, ahead: float, bounds: _Bounds) -> bool:
        steady = self.steady()
        least, most = bounds.least - SLACK_S - steady, bounds.most + SLACK_S - steady
        return self._set(min(max(ahead, least), most))

    def _set(self, ahead: float) -> bool:
        if abs(ahead - self.ahead) < SLACK_S:
            return False
        self.ahead = ahead
        return True
