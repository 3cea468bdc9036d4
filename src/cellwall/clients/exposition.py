"""Metrics in the text that Prometheus reads, version 0.0.4; written by hand, so that an agent needs nothing for it.

Every instrument has a bounded number of series: what would be one too many is counted under `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from math import isfinite, isnan

MOST_SERIES = 200
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""The bounds of a histogram of seconds, where nothing else is said."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
Labels = tuple[tuple[str, str], ...]


class Kind(StrEnum):
    """What a metric is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: the labels, the value, and what follows the family's name (`_bucket`, `_sum`, `_count`)."""

    value: float
    labels: Labels = ()
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with all its series."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...]


def gauge(name: str, help_: str, value: float | Mapping[str, float] | None, label: str = "") -> Family:
    """Make a gauge of one value, or of one value for each value of `label`; None is no sample."""
    return Family(name, Kind.GAUGE, help_, _samples(value, label))


def counter(name: str, help_: str, value: float | Mapping[str, float], label: str = "") -> Family:
    """Make a counter of what was counted elsewhere; as `gauge`."""
    return Family(name, Kind.COUNTER, help_, _samples(value, label))


def _samples(value: float | Mapping[str, float] | None, label: str) -> tuple[Sample, ...]:
    if isinstance(value, Mapping):
        return tuple(Sample(one, ((label, key),)) for key, one in list(value.items())[:MOST_SERIES])
    return () if value is None else (Sample(value),)


class Counter:
    """Counts events, each with the same `labels`."""

    def __init__(self, name: str, help_: str, *labels: str) -> None:
        self._name, self._help, self._labels = name, help_, labels
        self._counts: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *values: str, by: float = 1.0) -> None:
        """Count `by` more for the values of the labels, in their order."""
        if values not in self._counts and len(self._counts) >= MOST_SERIES:
            values = (OTHER,) * len(self._labels)
        self._counts[values] = self._counts.get(values, 0.0) + by

    def family(self) -> Family:
        """Give what was counted."""
        samples = (Sample(count, tuple(zip(self._labels, key, strict=True))) for key, count in self._counts.items())
        return Family(self._name, Kind.COUNTER, self._help, tuple(samples))


class Histogram:
    """Counts how large things were, in classes up to each of `bounds`."""

    def __init__(self, name: str, help_: str, bounds: Sequence[float] = SECONDS) -> None:
        self._name, self._help, self._bounds = name, help_, tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one thing."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self) -> Family:
        """Give what was counted."""
        names = (*(f"{bound:g}" for bound in self._bounds), "+Inf")
        sums = tuple(accumulate(self._counts))
        buckets = (Sample(count, (("le", name),), "_bucket") for name, count in zip(names, sums, strict=True))
        ends = (Sample(self._sum, (), "_sum"), Sample(sums[-1], (), "_count"))
        return Family(self._name, Kind.HISTOGRAM, self._help, (*buckets, *ends))


def exposition(families: Iterable[Family]) -> str:
    """Write metrics as Prometheus reads them."""
    lines: list[str] = []
    for one in families:
        lines += [f"# HELP {one.name} {_escaped(one.help)}", f"# TYPE {one.name} {one.kind}"]
        lines += [
            f"{one.name}{sample.suffix}{_braced(sample.labels)} {_number(sample.value)}" for sample in one.samples
        ]
    return "\n".join((*lines, ""))


def _braced(labels: Labels) -> str:
    inside = ",".join(f'{name}="{_quoted(value)}"' for name, value in labels)
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")


def _number(value: float) -> str:
    if not isfinite(value):
        return "NaN" if isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
