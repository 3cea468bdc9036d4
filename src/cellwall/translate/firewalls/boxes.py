"""New connections as boxes: addresses of the far end × ports × addresses of our end, perhaps of one local user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from cellwall.translate.firewalls.intervals import ADDRESSES, IPV4, IPV6, PORTS, Intervals, join, less, meet, touch

BOTH = (IPV4, IPV6)


@dataclass(frozen=True, slots=True)
class Box:
    """A product of sets. `user` narrows it to the connections that a process of this local user opens."""

    remote: Intervals = ADDRESSES
    ports: Intervals = PORTS
    local: Intervals = ADDRESSES
    user: str | None = None

    def __bool__(self) -> bool:
        if not (self.remote and self.ports and self.local):
            return False
        # Both ends of a packet are of one family.
        return any(touch(self.remote, family) and touch(self.local, family) for family in BOTH)

    def meet(self, other: Box) -> Box | None:
        """Give what is in both; None where nothing is."""
        if self.user is not None and other.user is not None and self.user != other.user:
            return None
        ports = meet(self.ports, other.ports)
        remote = meet(self.remote, other.remote) if ports else ()
        local = meet(self.local, other.local) if remote else ()
        both = Box(remote, ports, local, other.user if self.user is None else self.user)
        return both if both else None

    def touches(self, other: Box) -> bool:
        """Say whether anything is in both."""
        if self.user is not None and other.user is not None and self.user != other.user:
            return False
        if not (touch(self.ports, other.ports) and touch(self.remote, other.remote)):
            return False
        if self.local == other.local and _of_one_family(self.remote):
            return True
        return any(
            touch(meet(self.remote, family), meet(other.remote, family))
            and touch(meet(self.local, family), meet(other.local, family))
            for family in BOTH
        )

    def less(self, other: Box) -> Iterator[Box]:
        """Give what is in this and not in `other`, in boxes that do not overlap; `other` speaks of every user or of
        the same one."""
        if not self.touches(other):
            yield self
            return
        remote, ports = meet(self.remote, other.remote), meet(self.ports, other.ports)
        parts = (
            Box(less(self.remote, other.remote), self.ports, self.local, self.user),
            Box(remote, less(self.ports, other.ports), self.local, self.user),
            Box(remote, ports, less(self.local, other.local), self.user),
        )
        yield from (part for part in parts if part)


def meet_all(some: Sequence[Box], others: Sequence[Box]) -> tuple[Box, ...]:
    """Give what is in some box of each."""
    found = (one.meet(other) for one in some for other in others)
    return tuple(box for box in found if box is not None)


def less_all(some: Sequence[Box], others: Iterable[Box]) -> tuple[Box, ...]:
    """Give what is in a box of `some` and in none of `others`. A box of one user takes nothing from those of all."""
    left = list(some)
    # Taken out one by one, many boxes cut up the large ones again and again.
    for other in gather(others):
        if not left:
            break
        left = [part for one in left for part in (one.less(other) if other.user in (None, one.user) else (one,))]
    return tuple(left)


def gather(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """Give boxes with the same content, joined where they differ in one dimension alone."""
    by_rest: dict[tuple[object, ...], list[Box]] = {}
    for box in boxes:
        by_rest.setdefault((box.ports, box.local, box.user), []).append(box)
    wide = [
        some[0] if len(some) == 1 else _joined(some, join(part for one in some for part in one.remote))
        for some in by_rest.values()
    ]
    by_rest = {}
    for box in wide:
        by_rest.setdefault((box.remote, box.local, box.user), []).append(box)
    return tuple(
        some[0]
        if len(some) == 1
        else Box(some[0].remote, join(part for one in some for part in one.ports), some[0].local, some[0].user)
        for some in by_rest.values()
    )


def _joined(some: Sequence[Box], remote: Intervals) -> Box:
    return Box(remote, some[0].ports, some[0].local, some[0].user)


class _Tree:
    """Intervals with a value each; `over` finds those that touch an interval without looking at all of them."""

    def __init__(self, parts: list[tuple[int, int, int]]) -> None:
        self._parts = sorted(parts, key=itemgetter(0))
        self._size = len(self._parts)
        # The greatest end of each run of 2**level parts; what a run cannot reach is skipped as a whole.
        self._ends: list[list[int]] = [[last for _, last, _ in self._parts]]
        while len(self._ends[-1]) > 1:
            below = self._ends[-1]
            self._ends.append([max(below[at : at + 2]) for at in range(0, len(below), 2)])

    def over(self, first: int, last: int) -> Iterator[int]:
        if not self._size:
            return
        stack = [(len(self._ends) - 1, 0)]
        while stack:
            level, at = stack.pop()
            if self._ends[level][at] < first or self._parts[at << level][0] > last:
                continue
            if level == 0:
                yield self._parts[at][2]
                continue
            stack.append((level - 1, at * 2))
            if at * 2 + 1 < len(self._ends[level - 1]):
                stack.append((level - 1, at * 2 + 1))


class Overlaps:
    """An index over boxes with a number each: which of them overlap a given box?"""

    def __init__(self, boxes: Iterable[tuple[int, Box]]) -> None:
        self._boxes = list(boxes)
        far: list[tuple[int, int, int]] = []
        far_ports: list[tuple[int, int, int]] = []
        wide: list[tuple[int, int, int]] = []
        # A box that takes a whole family is told from others by its ports; so are all others by such a one.
        for at, (_, box) in enumerate(self._boxes):
            if _is_wide(box):
                wide.extend((*part, at) for part in box.ports)
            else:
                far.extend((*part, at) for part in box.remote)
                far_ports.extend((*part, at) for part in box.ports)
        self._far, self._far_ports, self._wide = _Tree(far), _Tree(far_ports), _Tree(wide)

    def of(self, box: Box) -> list[tuple[int, Box]]:
        """Give the numbered boxes that overlap `box`, in the order in which they were put in."""
        found = {at for part in box.ports for at in self._wide.over(*part)}
        tree, parts = (self._far_ports, box.ports) if _is_wide(box) else (self._far, box.remote)
        found.update(at for part in parts for at in tree.over(*part))
        return [self._boxes[at] for at in sorted(found) if self._boxes[at][1].touches(box)]


def _of_one_family(addresses: Intervals) -> bool:
    return addresses[-1][1] <= IPV4[0][1] or addresses[0][0] > IPV4[0][1]


def _is_wide(box: Box) -> bool:
    return meet(box.remote, IPV4) == IPV4 or meet(box.remote, IPV6) == IPV6
