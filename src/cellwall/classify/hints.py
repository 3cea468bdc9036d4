"""Hints for a label, each with a weight and a reason, and how they add up to one proposal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cellwall.classify.facts import Proposal


@dataclass(frozen=True, slots=True, order=True)
class Hint:
    """One reason to give a label some value. `weight` is over 0 and under 1; hints of one `kind` do not add up."""

    value: str
    weight: float
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The value that hints point to, how strongly, and why."""

    value: str
    confidence: float
    reasons: tuple[str, ...]


def weigh(hints: Iterable[Hint]) -> Verdict | None:
    """Add up hints: those for one value strengthen each other, the runner-up takes half of its own strength away.

    Independent doubts multiply: weights 0.6 and 0.5 give 0.8. None when there is no hint; ties go to the first value
    in alphabetical order."""
    by_value: defaultdict[str, dict[str, Hint]] = defaultdict(dict)
    for hint in sorted(hints):
        by_value[hint.value][hint.kind] = hint  # The heaviest of a kind comes last.
    strengths: list[tuple[float, str]] = []
    for value, kinds in by_value.items():
        doubt = 1.0
        for hint in kinds.values():
            doubt *= 1.0 - hint.weight
        strengths.append((-(1.0 - doubt), value))
    if not strengths:
        return None
    (best, value), *others = sorted(strengths)
    confidence = -best * (1.0 + 0.5 * (others[0][0] if others else 0.0))
    ordered = sorted(by_value[value].values(), key=lambda hint: (-hint.weight, hint.kind))
    return Verdict(value, round(confidence, 3), tuple(hint.reason for hint in ordered))


class Spelling:
    """How a fleet spells the values of its labels: a canonical `prod` may be `production` there.

    `vocabulary` maps declared keys to their values (none: any); None is no vocabulary, where everything goes."""

    def __init__(
        self,
        vocabulary: Mapping[str, Sequence[str]] | None,
        used: Mapping[str, Iterable[str]],
        synonyms: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._vocabulary = vocabulary
        self._spelt: dict[tuple[str, str], str] = {}
        for key, words in synonyms.items():
            known = [*sorted(set(used.get(key, ())), reverse=True), *reversed((vocabulary or {}).get(key, ()))]
            for value in known:
                if value.lower() in words:
                    self._spelt[key, words[value.lower()]] = value

    def wants(self, key: str) -> bool:
        """Say whether labels of `key` can be given at all."""
        return self._vocabulary is None or key in self._vocabulary

    def spell(self, key: str, value: str) -> str | None:
        """Give `value` as the fleet writes it, or None where its vocabulary has no such value."""
        spelt = self._spelt.get((key, value), value)
        declared = (self._vocabulary or {}).get(key, ())
        return None if not self.wants(key) or (declared and spelt not in declared) else spelt


def proposal(
    workload: str, key: str, verdict: Verdict, spelling: Spelling, *, by_hand: bool = False
) -> Proposal | None:
    """Make a proposal of `verdict`, or None where the vocabulary has no place for it."""
    value = spelling.spell(key, verdict.value)
    if value is None:
        return None
    return Proposal(workload, key, value, verdict.confidence, verdict.reasons, by_hand)
