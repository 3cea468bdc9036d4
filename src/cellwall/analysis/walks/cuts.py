"""Which few rules cut the most: without which of them an attacker takes the fewest workloads, or does not get there.

Every answer is worked out anew without the rules in question. Only rules that carry a hop of the walk alone can cut
anything by themselves; so the greedy choice tries these and no others, and loses nothing by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from cellwall.analysis.table.asked import Asked
from cellwall.analysis.table.grid import NONE, Grid
from cellwall.analysis.table.ways import Ruling, Ways
from cellwall.analysis.table.words import places_of
from cellwall.analysis.walks.paths import Walk
from cellwall.traffic import EVERYTHING, PortSet

MOST_WALKS = 2000
MOST_RULES = 8
MOST_CHOICES = 16
Step = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cut:
    """Without `rule` too, only `left` workloads are taken beyond those of the start; `gone` are no longer."""

    rule: Ruling
    left: int
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Separation:
    """Rules without which nothing gets from one side to the other; `fewest` where no smaller set does it.

    None of them where nothing gets there anyway; `possible` is false where some hop needs no rule."""

    rules: tuple[Ruling, ...]
    fewest: bool
    possible: bool = True


def cut_most(
    ways: Ways, start: Asked, most: int, ports: PortSet = EVERYTHING, hops: int | None = None
) -> tuple[Cut, ...]:
    """Choose up to `most` rules, each the one without which the fewest workloads are taken from `start`."""
    return tuple(_Cutter(ways, start, ports, hops).greedy(most))


def separate(ways: Ways, start: Asked, goal: Asked, ports: PortSet = EVERYTHING, hops: int | None = None) -> Separation:
    """Choose few rules without which nothing gets from `start` to `goal`."""
    return _Cutter(ways, start, ports, hops).separation(ways.held(goal))


@dataclass(frozen=True, slots=True)
class _Landing:
    """Workloads that are taken by one step; `parent` is the landing by which its source was, None at the start."""

    step: Step
    hosts: int
    parent: int | None


class _Cutter:
    def __init__(self, ways: Ways, start: Asked, ports: PortSet, hops: int | None) -> None:
        self._ways, self._grid, self._ports, self._hops = ways, Grid(ways), ports, hops
        self._start, self._begun = Walk(ways).begin(ways.held(start), hops)
        self._sure = True

    # --- the fewest workloads ---

    def greedy(self, most: int) -> Iterator[Cut]:
        removed: frozenset[int] = NONE
        taken, landings = self._walk(removed)
        for _ in range(most):
            best: tuple[int, int, int, list[_Landing]] | None = None
            for rule, below in self._carrying(landings, removed):
                # Who is not below a hop that the rule carries alone is still taken without it.
                if best is not None and below <= best[0]:
                    break
                left, steps = self._walk(removed.union((rule,)))
                gone = (taken & ~left).bit_count()
                if gone and (best is None or gone > best[0]):
                    best = gone, rule, left, steps
            if best is None:
                return
            _, rule, left, landings = best
            yield Cut(self._ruling(rule), (left & ~self._begun).bit_count(), self._ways.names(taken & ~left))
            removed, taken = removed.union((rule,)), left

    def _walk(self, removed: frozenset[int]) -> tuple[int, list[_Landing]]:
        """Walk without some rules: who is taken, and by which landings they first are."""
        ways = self._ways
        fresh, fresh_hosts, taken = self._start, self._begun, self._begun
        found: list[_Landing] = []
        of: dict[int, int] = {}
        for hop in count(1):
            new = 0
            for at, own in enumerate(ways.members):
                landing = own & ~(taken | new)
                row = self._grid.into(at, self._ports, removed) & fresh if landing else 0
                if row:
                    new |= landing
                    source = (row & -row).bit_length() - 1
                    callers = ways.members[source] & fresh_hosts
                    parent = of.get((callers & -callers).bit_length() - 1)
                    found.append(_Landing((source, at), landing, parent))
            start = len(found) - 1
            while start >= 0 and found[start].hosts & new:
                of |= dict.fromkeys(places_of(found[start].hosts), start)
                start -= 1
            taken |= new
            fresh, fresh_hosts = ways.whole(new), new
            if not new or hop == self._hops:
                return taken, found
        raise AssertionError("counting never ends")

    def _carrying(self, landings: list[_Landing], removed: frozenset[int]) -> list[tuple[int, int]]:
        """Give the rules without which alone some landing is not made, with how many are taken by way of these; the
        most first."""
        below = [one.hosts for one in landings]
        for at in range(len(landings) - 1, -1, -1):
            parent = landings[at].parent
            if parent is not None:
                below[parent] |= below[at]
        found: dict[int, int] = {}
        for one, hosts in zip(landings, below, strict=True):
            alone: frozenset[int] | None = None
            for sides in self._grid.supports(*one.step, self._ports, removed):
                single = frozenset(rule for side in sides if side is not None and len(side) == 1 for rule in side)
                alone = single if alone is None else alone & single
            for rule in alone or NONE:
                found[rule] = found.get(rule, 0) | hosts
        counts = [(rule, hosts.bit_count()) for rule, hosts in found.items()]
        return sorted(counts, key=lambda one: (-one[1], self._order(one[0])))

    # --- from one side to the other ---

    def _shortest(self, removed: frozenset[int], goal: int) -> list[Step]:
        """Give the steps of a shortest path to `goal` without some rules; none where there is none.

        Who is at both ends counts for one hop."""
        ways = self._ways
        fresh, fresh_hosts, taken = self._start, self._begun, self._begun
        before: list[dict[int, Step]] = [{}]
        for hop in count(1):
            for at in places_of(goal):
                targets = ways.members[at] if hop == 1 else ways.members[at] & ~self._begun
                for source in places_of(self._grid.into(at, self._ports, removed) & fresh):
                    callers = ways.members[source] & fresh_hosts
                    if (targets or not ways.members[at]) and (callers != targets or targets & (targets - 1)):
                        return self._path((source, at), before)
            new = 0
            landed: dict[int, Step] = {}
            for at, own in enumerate(ways.members):
                landing = own & ~(taken | new)
                row = self._grid.into(at, self._ports, removed) & fresh if landing else 0
                if row:
                    new |= landing
                    landed |= dict.fromkeys(places_of(landing), ((row & -row).bit_length() - 1, at))
            before.append(landed)
            taken |= new
            fresh, fresh_hosts = ways.whole(new), new
            if not new or hop == self._hops:
                return []
        raise AssertionError("counting never ends")

    def _path(self, last: Step, before: list[dict[int, Step]]) -> list[Step]:
        found = [last]
        for landed in reversed(before):
            hosts = [host for host in landed if self._ways.members[found[-1][0]] >> host & 1]
            if hosts:
                found.append(landed[min(hosts)])
        return found

    def separation(self, goal: int) -> Separation:
        fallback = self._some(goal)
        if fallback is None:
            return Separation((), False, possible=False)
        self._sure = True
        walks = count()
        for size in range(min(len(fallback), MOST_RULES)):
            seen: set[frozenset[int]] = set()
            found = self._within(goal, NONE, size, seen, walks)
            if found is not None:
                return self._separated(found, fewest=self._sure)
            if next(walks) > MOST_WALKS:
                return self._separated(fallback, fewest=False)
        return self._separated(fallback, fewest=self._sure and len(fallback) <= MOST_RULES)

    def _separated(self, rules: frozenset[int], *, fewest: bool) -> Separation:
        return Separation(tuple(self._ruling(rule) for rule in sorted(rules, key=self._order)), fewest)

    def _within(
        self, goal: int, removed: frozenset[int], size: int, seen: set[frozenset[int]], walks: count[int]
    ) -> frozenset[int] | None:
        """Give rules, `removed` and no more than `size` others, without which nothing gets to `goal`."""
        if removed in seen or next(walks) > MOST_WALKS:
            return None
        seen.add(removed)
        path = self._shortest(removed, goal)
        if not path:
            return removed
        # One of the hops of this path must go, with all the rules that carry it at one end on each stretch of ports.
        for kill in sorted({kill for step in path for kill in self._kills(step, removed)}, key=len):
            if len(kill) <= size:
                found = self._within(goal, removed | kill, size - len(kill), seen, walks)
                if found is not None:
                    return found
        return None

    def _some(self, goal: int) -> frozenset[int] | None:
        """Give rules without which nothing gets to `goal`, none of which can be spared; None where there are none."""
        removed = NONE
        while True:
            path = self._shortest(removed, goal)
            if not path:
                break
            kills = [kill for step in path for kill in self._kills(step, removed)]
            if not kills:
                return self._all_or_none(goal)
            removed |= min(kills, key=lambda kill: (len(kill), sorted(kill)))
        for rule in sorted(removed):
            if not self._shortest(removed - {rule}, goal):
                removed -= {rule}
        return removed

    def _all_or_none(self, goal: int) -> frozenset[int] | None:
        """As `_some`, when its choice led nowhere: begin with every rule that lets something pass."""
        written = self._ways.policy.by_id
        removed = frozenset(at for at, rule in enumerate(self._ways.rules) if rule.id in written)
        removed = frozenset(at for at in removed if self._ways.rules[at].action in ("allow", "lifeline"))
        if self._shortest(removed, goal):
            return None
        for rule in sorted(removed):
            if not self._shortest(removed - {rule}, goal):
                removed -= {rule}
        return removed

    def _kills(self, step: Step, removed: frozenset[int]) -> Iterator[frozenset[int]]:
        """Give the sets of rules without which a step is not made: the smallest at both ends, stretch by stretch."""
        found = {NONE}
        for sides in self._grid.supports(*step, self._ports, removed):
            choices = {one for one in sides if one is not None}
            found = {kill | choice for kill in found for choice in choices}
            if len(found) > MOST_CHOICES:
                found = set(sorted(found, key=lambda kill: (len(kill), sorted(kill)))[:MOST_CHOICES])
                self._sure = False
        yield from found

    def _order(self, rule: int) -> tuple[str, int, str]:
        place = self._ways.rules[rule].place
        return place.file, place.line, self._ways.rules[rule].id

    def _ruling(self, rule: int) -> Ruling:
        return self._ways.ruling(self._ways.rules[rule].id)
