"""Rounds, ratios and their spread; what a bench hands back; the line that shows how far it is."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import ParamSpec, TextIO

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure: `quick` is for looking whether it works, its figures are not for quoting."""

    quick: bool

    def of(self, full: float, quick: float) -> float:
        """Choose."""
        return quick if self.quick else full

    def count(self, full: int, quick: int) -> int:
        """Choose."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures, the least and the most of them."""

    middle: float
    low: float
    high: float
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Summarise; of no values, nan."""
        if not values:
            return Spread(math.nan, math.nan, math.nan, 0)
        return Spread(median(values), min(values), max(values), len(values))

    def text(self, form: str = ".2f") -> str:
        """Write it as `0.97 (0.95–1.01)`."""
        if math.isnan(self.middle):
            return "–"
        return f"{self.middle:{form}} ({self.low:{form}}–{self.high:{form}})"


def ratios(values: Sequence[float], to: Sequence[float]) -> Spread:
    """Compare two series of the same rounds, round by round."""
    return Spread.of([one / other for one, other in zip(values, to, strict=True) if other])


def differences(values: Sequence[float], to: Sequence[float]) -> Spread:
    """Subtract two series of the same rounds, round by round."""
    return Spread.of([one - other for one, other in zip(values, to, strict=True)])


def quantile(values: Sequence[float], share: float) -> float:
    """Give the value that `share` (0 to 1) of `values` do not exceed; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def timed(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    """Do it once, and say how many seconds it took."""
    began = time.perf_counter()
    work(*args, **kwargs)
    return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Table:
    """A table of figures as they are to be read; `note` says how they were taken."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What was wanted and what came; `met` is None where a quick run or its noise cannot tell."""

    what: str
    wanted: str
    got: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Section:
    """What one bench found. `figures` are the raw ones, for programs; `pictures` are SVG by file name."""

    name: str
    title: str
    tables: tuple[Table, ...]
    targets: tuple[Target, ...] = ()
    figures: dict[str, object] = field(default_factory=dict[str, object])
    pictures: dict[str, str] = field(default_factory=dict[str, str])


class Progress:
    """One line on a terminal, one line a step elsewhere: what is being done, how far it is, how long it takes."""

    def __init__(self, out: TextIO = sys.stderr) -> None:
        self._out = out
        self._live = out.isatty()
        self._began = time.monotonic()
        self._width = 0

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._clear()
        print(f"[{self._elapsed()}] {text}", file=self._out, flush=True)

    def over(self, what: str, count: int) -> Iterator[int]:
        """Give 0 to `count` - 1, and show how far it is."""
        if not self._live:
            self.say(f"{what}, {count} times")
        for number in range(count):
            self.show(f"{what} {number + 1}/{count}")
            yield number
        self._clear()

    def show(self, text: str) -> None:
        """Write a line that the next one replaces; nowhere but on a terminal."""
        if not self._live:
            return
        line = f"[{self._elapsed()}] {text}"[:118]
        print("\r" + line.ljust(self._width), end="", file=self._out, flush=True)
        self._width = len(line)

    def _clear(self) -> None:
        if self._live and self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._out, flush=True)
            self._width = 0

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f"{seconds // 60}:{seconds % 60:02}"
