"""Which points may stay behind a revision, so that a few bad hosts do not hold it up for all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor

from cellwall.controller.errors import ControllerError
from cellwall.labels import Labels, Selector, parse_selector
from cellwall.policy import Approval

LATE_S = 20.0
"""Who has not come along so long after its wave was opened, and after the time to confirm in, is late."""
MOST_TOLERATED = 100_000


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many points of each wave may stay behind: so many, or such a share (0 to 1) of the wave, rounded down.

    Points that are guarded (see `guarded`) never may, but for those whose labels `also` matches."""

    count: int = 0
    share: float = 0.0
    also: Selector | None = None

    def of(self, points: int) -> int:
        """Say how many of so many points may stay behind."""
        # A share such as 7 % of 100 is 7, whatever binary fractions make of it.
        return max(self.count, floor(points * self.share + 1e-9))


NONE = Tolerance()


def parse_tolerance(text: str, also: str = "") -> Tolerance:
    """Read a tolerance: a number of points such as `3`, or a share of each wave such as `5%`. Raises `ControllerError`,
    and `LabelError` where `also` is no selector."""
    found = re.fullmatch(r"(\d{1,6})(%?)", text, re.ASCII)
    number = int(found[1]) if found is not None else -1
    if found is None or number > (100 if found[2] else MOST_TOLERATED):
        raise ControllerError(
            f"`{text}` is no tolerance; wanted a number of points such as `3`, or a share such as `5%`"
        )
    where = parse_selector(also) if also else None
    if where is not None and not where.requirements:
        raise ControllerError("`any` would spare every canary; wanted a selector such as `env=lab`")
    if where is not None and not number:
        raise ControllerError(f"`{also}` has no meaning where none are tolerated; say how many")
    return Tolerance(0, number / 100, where) if found[2] else Tolerance(number, 0.0, where)


@dataclass(frozen=True, slots=True)
class Behind:
    """A point that was let stay behind: it `refused` the revision or took it back (`reverted`), and why.

    `epoch` is when its workload enrolled: another one under that name is not behind."""

    workload: str
    state: str
    reason: str
    epoch: float = 0.0


def guarded(
    points: Mapping[str, Labels],
    places: Mapping[str, int],
    waves: int,
    approvals: Sequence[Approval],
    tolerance: Tolerance,
) -> frozenset[str]:
    """Give the points that may not stay behind: canaries, and those whose change somebody has to agree to.

    But for those that the tolerance names by label. `places` are `waves.places`; canaries are the first of several
    `waves` that any point is in."""
    also, first = tolerance.also, min(places.values(), default=0)
    return frozenset(
        name
        for name, labels in points.items()
        if (places.get(name) == first < waves - 1) or any(one.where.matches(labels) for one in approvals)
        if also is None or not also.matches(labels)
    )


def spared(
    tolerance: Tolerance,
    places: Mapping[str, int],
    before: Collection[str],
    fallen: Collection[str],
    late: Collection[str] = (),
) -> tuple[frozenset[str], frozenset[str]]:
    """Give which of the points that have `fallen` behind are let be, and which of the `late` ones are not waited for.

    `places` is the number of each point's wave; `before` those that were let be already, which count. Of a wave all
    are spared, or none: where more fell than may, it is judged as if nothing were tolerated. Late ones take what is
    left, so that who is slow never makes fail what would not."""
    sizes = Counter(places.values())
    fell, came_late = _by_wave(places, set(fallen) - set(before)), _by_wave(places, set(late) - {*before, *fallen})
    count = Counter(places[name] for name in before if name in places)
    let_be, passed = set[str](), set[str]()
    for wave, size in sizes.items():
        most, down, slow = tolerance.of(size), fell.get(wave, set()), came_late.get(wave, set())
        if count[wave] + len(down) > most:
            continue
        let_be |= down
        if count[wave] + len(down) + len(slow) <= most:
            passed |= slow
    return frozenset(let_be), frozenset(passed)


def loudest(flows: Iterable[tuple[str, str]], most: int) -> dict[str, str]:
    """Give the points, as few as can be, without whose word no more than `most` flows are left, each with its first.

    `flows` are what was denied and by whom."""
    said: dict[str, list[str]] = {}
    for flow, by in flows:
        said.setdefault(by, []).append(flow)
    over = sum(map(len, said.values())) - most
    found: dict[str, str] = {}
    for name in sorted(said, key=lambda name: (-len(said[name]), name)):
        if over > 0:
            found[name], over = said[name][0], over - len(said[name])
    return found


def _by_wave(places: Mapping[str, int], names: Collection[str]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for name in names:
        if name in places:
            found.setdefault(places[name], set()).add(name)
    return found
