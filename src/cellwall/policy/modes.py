"""How far each workload's point enforces, and which of several modes wins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cellwall.labels import Labels, Operator, Selector, overlaps
from cellwall.policy.errors import Place

MOST_KNOWN = 10_000
"""For so many different labels it is remembered which mode they have."""


class Mode(StrEnum):
    """How far a workload's point enforces: count only; denies and walls; everything."""

    OBSERVE = "observe"
    GUARD = "guard"
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True)
class ModeRule:
    """Workloads that match `where` run in `mode`; the most specific wins."""

    where: Selector
    mode: Mode
    place: Place = field(default_factory=Place, compare=False)


class ModeIndex:
    """Modes by the label values that they ask for: one for each of thousands of apps costs no more than ten."""

    def __init__(self, modes: Iterable[ModeRule] = ()) -> None:
        self._rest: list[ModeRule] = []
        self._by_key: dict[str, list[ModeRule]] = {}
        self._by_value: dict[tuple[str, str], list[ModeRule]] = {}
        self._known: dict[Labels, Mode] = {}
        for mode in modes:
            self.add(mode)

    def add(self, mode: ModeRule) -> None:
        """Put one more mode in, by the first key that it asks values of."""
        self._known.clear()
        asked = _asked(mode.where)
        if not asked:
            self._rest.append(mode)
            return
        key, values = next(iter(asked.items()))
        self._by_key.setdefault(key, []).append(mode)
        for value in values:
            self._by_value.setdefault((key, value), []).append(mode)

    def mode_of(self, labels: Labels) -> Mode:
        """Give the mode of a workload with `labels`: the most specific wins, `observe` where none matches."""
        known = self._known.get(labels)
        if known is not None:
            return known
        held = (self._by_value.get(pair, ()) for pair in labels.pairs)
        matching = [mode for modes in (self._rest, *held) for mode in modes if mode.where.matches(labels)]
        found = max(matching, key=lambda mode: mode.where.specificity).mode if matching else Mode.OBSERVE
        if len(self._known) < MOST_KNOWN:
            # Workloads of a fleet that have the same labels are many.
            self._known[labels] = found
        return found

    def near(self, where: Selector) -> Iterator[ModeRule]:
        """Give all modes that can match a workload that `where` matches, and others; some of them twice."""
        asked = _asked(where)
        for key, modes in self._by_key.items():
            if key in asked:
                modes = [mode for value in asked[key] for mode in self._by_value.get((key, value), ())]
            yield from modes
        yield from self._rest

    def tie(self, later: ModeRule) -> ModeRule | None:
        """Give a mode that can win for the same workload as `later`, neither being the more specific; None where
        there is none, or where a third one above both decides."""
        for earlier in self.near(later.where):
            if (
                earlier.mode is not later.mode
                and earlier.where.specificity == later.where.specificity
                and overlaps(earlier.where, later.where)
                and not self._decides(earlier.where, later.where)
            ):
                return earlier
        return None

    def _decides(self, one: Selector, other: Selector) -> bool:
        both = {*one.requirements, *other.requirements}
        return any(
            third.where.specificity > other.specificity and both.issuperset(third.where.requirements)
            for third in self.near(Selector(tuple(both)))
        )


def _asked(where: Selector) -> dict[str, tuple[str, ...]]:
    return {one.key: one.values for one in where.requirements if one.operator is Operator.IN}
