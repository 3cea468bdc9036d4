"""Which points have a revision when so many waves of its rollout are open, and how far each wave is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from math import ceil

from cellwall.labels import Labels
from cellwall.policy import Wave


def opened(waves: Sequence[Wave], last: int, points: Mapping[str, Labels]) -> frozenset[str]:
    """Give the points of `points` (name and labels of the workload) that are in the waves up to number `last`.

    Which ones a share takes depends on their names alone: the same ones, rollout after rollout, and those of a smaller
    share are among those of a larger."""
    if last >= len(waves) - 1:
        return frozenset(points)
    found: set[str] = set()
    for wave in waves[: last + 1]:
        if wave.where is not None:
            found |= {name for name, labels in points.items() if wave.where.matches(labels)}
    share = max((wave.share for wave in waves[: last + 1]), default=0.0)
    if share and points:
        ranked = sorted(points, key=lambda name: sha256(name.encode()).digest())
        found |= set(ranked[: max(1, ceil(share * len(ranked)))])
    return frozenset(found)


def sizes(waves: Sequence[Wave], points: Mapping[str, Labels]) -> tuple[int, ...]:
    """Say how many points each wave adds."""
    counts = [0, *(len(opened(waves, last, points)) for last in range(len(waves)))]
    return tuple(after - before for before, after in pairwise(counts))


def places(waves: Sequence[Wave], points: Mapping[str, Labels]) -> dict[str, int]:
    """Give the number of the wave that lets each point in."""
    found: dict[str, int] = {}
    for number in range(len(waves)):
        for name in opened(waves, number, points):
            found.setdefault(name, number)
    return found


def adds_nobody(waves: Sequence[Wave], number: int, points: Mapping[str, Labels]) -> bool:
    """Say whether a wave lets no point in that was not in before."""
    before = opened(waves, number - 1, points) if number else frozenset[str]()
    return opened(waves, number, points) <= before


def describe(
    waves: Sequence[Wave], last: int, points: Mapping[str, Labels], having: Collection[str]
) -> list[dict[str, object]]:
    """Describe each wave, of which those to number `last` are open: its name, whether it is open, its points, and how
    many of these are among the ones `having` the revision."""
    before: frozenset[str] = frozenset()
    found: list[dict[str, object]] = []
    for number, wave in enumerate(waves):
        there = opened(waves, number, points)
        added, is_open = there - before, number <= last
        have_it = sum(name in having for name in added) if is_open else 0
        found.append({"wave": wave.name, "open": is_open, "points": len(added), "have_it": have_it})
        before = there
    return found
