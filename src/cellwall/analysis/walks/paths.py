"""Who reaches whom, at once and in hops: an attacker who takes each workload that it reaches goes on from there.

Workloads are taken whole: entered by any of their addresses and as any local process, left in the same way. Places
outside the fleet begin and end paths; nobody goes through them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from cellwall.analysis.table.asked import Asked
from cellwall.analysis.table.ways import Hop, Ways
from cellwall.analysis.table.words import bits_of, places_of
from cellwall.traffic import EVERYTHING, PortSet

Path = tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Landing:
    """Ends that are reached at the same hop for the first time, and alike; `ports` are all on which they are.

    `by` is one of these connections, to some of them, the last of a shortest path. In a spread backwards, the ends are
    those that reach, and `by` is the first connection of a shortest path."""

    hop: int
    ends: tuple[str, ...]
    ports: PortSet
    by: Hop


@dataclass(frozen=True)
class Spread:
    """What is reached from `start`, hop by hop; or, backwards, from where `start` is reached.

    `reached` are the workloads beyond those of `start`, of which there are `begun`; `workloads` counts those of the
    fleet that have an address."""

    start: tuple[str, ...]
    begun: int
    landings: tuple[Landing, ...]
    reached: tuple[str, ...]
    workloads: int
    backwards: bool = False
    find: Callable[[str], Path] = field(default=lambda _: (), repr=False, compare=False)

    @property
    def blast_radius(self) -> float:
        """The share of all workloads that is taken in the end, those of the start included: 0 to 1."""
        return (self.begun + len(self.reached)) / self.workloads if self.workloads else 0.0

    def path(self, end: str) -> Path:
        """Give a shortest path to `end`, or from it in a spread backwards; empty where there is none."""
        return self.find(end)


@dataclass(frozen=True, slots=True)
class _Step:
    """One hop of a walk: from a member of a kind to a member of another."""

    source: int
    caller: str
    destination: int
    server: str


@dataclass(frozen=True, slots=True)
class _Landed:
    """A landing in the making, of one kind of ends."""

    hop: int
    ends: tuple[str, ...]
    ports: PortSet
    step: _Step


class Walk:
    """Walks over the ways of one table, on `ports` at every hop."""

    def __init__(self, ways: Ways, ports: PortSet = EVERYTHING) -> None:
        self.ways, self.ports = ways, ports
        self._hops: dict[tuple[_Step, PortSet], Hop] = {}
        # Paths by nobody in particular read better than those of some process, where both are there.
        self._plain = bits_of(at for at, kind in enumerate(ways.kinds) if not kind.identity)

    def forward(self, start: Asked, hops: int | None = None) -> Spread:
        """Say what is reached from `start` in `hops` at most, or in any number."""
        ways = self.ways
        kinds, begun = self.begin(ways.held(start), hops)
        fresh, fresh_hosts, taken, places = kinds, begun, begun, ways.places & ~kinds
        landings: list[_Landed] = []
        steps: dict[str, _Step] = {}
        for hop in count(1):
            new = 0
            for at, own in enumerate(ways.members):
                landing = own & ~(taken | new)
                if not landing and not places >> at & 1:
                    continue
                row = ways.any_into(at, self.ports) & fresh
                if not row:
                    continue
                new |= landing
                places &= ~(1 << at)
                step = self._step(row, fresh_hosts, at, landing)
                assert step is not None, "who is not taken yet is not the one who goes there"
                ends = ways.names(landing) if own else ways.titles[at]
                landings.append(_Landed(hop, ends, ways.from_any(row, at, self.ports), step))
                steps |= {end: replace(step, server=end) for end in ends if end not in steps}
            taken |= new
            fresh, fresh_hosts = ways.whole(new), new
            if not new or hop == hops:
                break

        def path(end: str) -> Path:
            found: list[Hop] = []
            while end in steps:
                found.append(self.hop(steps[end]))
                end = steps[end].caller
            return tuple(reversed(found))

        reached, titles = ways.names(taken & ~begun), self.titles(kinds, begun)
        return Spread(titles, begun.bit_count(), self._joined(landings), reached, len(ways.hosts), find=path)

    def backward(self, goal: Asked, hops: int | None = None, start: Asked | None = None) -> Spread:
        """Say from which ends (of `start`, where it is given) `goal` is reached in `hops` at most."""
        ways = self.ways
        goals = ways.held(goal)
        begun = ways.hosts_of(goals)
        everywhere = ways.ends.all, ways.hosts_of(ways.ends.all)
        wanted, wanted_hosts = everywhere if start is None else self.begin(ways.held(start), hops)
        fresh, fresh_hosts, left = goals, begun, everywhere[1]
        kinds = wanted if hops == 1 else ways.ends.all
        found = 0
        landings: list[_Landed] = []
        steps: dict[str, tuple[int, _Step]] = {}
        for hop in count(1):
            new = 0
            for at in places_of(fresh):
                servers = ways.members[at] & fresh_hosts
                for source in places_of(ways.any_into(at, self.ports) & kinds):
                    own = ways.members[source]
                    # Who is the only one there does not reach itself.
                    callers = own & left & ~(servers if servers.bit_count() == 1 else 0)
                    if own and not callers:
                        kinds &= ~(1 << source) if not own & left else -1
                        continue
                    left &= ~callers
                    new |= callers
                    if not own & left:
                        kinds &= ~(1 << source)
                    step = self._step(1 << source, callers, at, servers)
                    assert step is not None, "there is a caller that is not the only server"
                    steps |= {
                        end: (hop, self._apart(replace(step, caller=end), servers))
                        for end in (ways.names(callers) if own else ways.titles[source])
                    }
                    shown = callers & wanted_hosts
                    if shown or (not own and wanted >> source & 1):
                        ends = ways.names(shown) if own else ways.titles[source]
                        ports = ways.between(source, at, self.ports)
                        landings.append(_Landed(hop, ends, ports, steps[ends[0]][1]))
            found |= new
            left &= ~begun
            fresh, fresh_hosts = ways.whole(new), new
            if not new or hop == hops:
                break
        detours = self._round(goals, begun & wanted_hosts & ~found, hops) if hops != 1 else {}

        def path(end: str) -> Path:
            if end in detours:
                return detours[end]
            found: list[Hop] = []
            for _ in range(steps[end][0] if end in steps else 0):
                found.append(self.hop(steps[end][1]))
                end = steps[end][1].server
            return tuple(found)

        apart = [Landing(len(some), (end,), some[0].ports, some[0]) for end, some in detours.items()]
        shown = sorted((*self._joined(landings, backwards=True), *apart), key=lambda one: (one.hop, one.ends))
        reached, titles = ways.names(found & wanted_hosts & ~begun), self.titles(goals, begun)
        return Spread(titles, begun.bit_count(), tuple(shown), reached, len(ways.hosts), True, path)

    def _apart(self, step: _Step, servers: int) -> _Step:
        """Give a step with another server of the same kind, where it goes to the one from whom it comes."""
        if step.caller != step.server:
            return step
        others = [
            name for name in self.ways.names(self.ways.members[step.destination] & servers) if name != step.caller
        ]
        return replace(step, server=others[0])

    def _round(self, goals: int, hosts: int, hops: int | None) -> dict[str, Path]:
        """Give, for each of `hosts` that reaches another end of `goals` by a detour, a shortest such path."""
        ways = self.ways
        alike: dict[int, list[int]] = {}
        for host in places_of(hosts):
            alike.setdefault(ways.kinds_of[host], []).append(host)
        found: dict[str, Path] = {}
        for group in alike.values():
            # Workloads that have all their kinds in common can change places.
            one = ways.hosts[group[0]]
            others = ways.hosts_of(goals) & ~(1 << group[0])
            path = self.shortest(ways.kinds_of[group[0]], 1 << group[0], goals, others, self.ports, hops)
            for host in group if path else ():
                swap = {one: ways.hosts[host], ways.hosts[host]: one}
                ends = [(swap.get(by.source, by.source), swap.get(by.destination, by.destination)) for by in path]
                hops_there = zip(path, ends, strict=True)
                there = tuple(replace(by, source=one, destination=other) for by, (one, other) in hops_there)
                found[ways.hosts[host]] = there
        return found

    def shortest(
        self, start: int, start_hosts: int, goal: int, goal_hosts: int, last: PortSet, hops: int | None = None
    ) -> Path:
        """Give a shortest path from an end of the kinds `start` to one of the kinds `goal`, the last hop on `last`.

        Of their members, only those that are in `start_hosts` and `goal_hosts` count. Empty where there is none in
        `hops` at most."""
        ways = self.ways
        # Who is at the start with some addresses only is taken whole when another gets there.
        partly = bits_of(host for host in places_of(start_hosts) if ways.kinds_of[host] & ~start)
        fresh, fresh_hosts, taken = start, start_hosts, start_hosts & ~partly
        before: list[dict[str, _Step]] = []
        for hop in count(1):
            for at in places_of(goal):
                row = ways.any_into(at, last) & fresh
                step = self._step(row, fresh_hosts, at, ways.members[at] & goal_hosts) if row else None
                if step is not None:
                    return self._path(step, before, last)
            if hop == hops:
                return ()
            new = 0
            landed: dict[str, _Step] = {}
            for at, own in enumerate(ways.members):
                landing = own & ~(taken | new)
                row = ways.any_into(at, self.ports) & fresh if landing else 0
                if row:
                    landing &= ~self._only_caller(row, fresh_hosts)
                step = self._step(row, fresh_hosts, at, landing) if row else None
                if step is not None:
                    new |= landing
                    landed |= {name: replace(step, server=name) for name in ways.names(landing)}
                    if step.caller in landed and landed[step.caller].caller == step.caller:
                        host = 1 << ways.hosts.index(step.caller)
                        other = self._step(row, fresh_hosts & ~host, at, host)
                        assert other is not None, "whoever comes alone is not landed on by itself"
                        landed[step.caller] = other
            if not new:
                return ()
            before.append(landed)
            taken |= new
            fresh, fresh_hosts = ways.whole(new), new
        raise AssertionError("counting never ends")

    def _only_caller(self, row: int, callers: int) -> int:
        """Give the workload that is the only one of `callers` in `row`; none where there are others, or places."""
        if row & self.ways.places:
            return 0
        found = self.ways.hosts_of(row) & callers
        return found if found.bit_count() == 1 else 0

    def begin(self, kinds: int, hops: int | None) -> tuple[int, int]:
        """Give the kinds from which a walk begins, and the workloads: who is on one goes on from any of its addresses.

        Others may have an address of these kinds too; they are not taken yet."""
        hosts = self.ways.hosts_of(kinds)
        return kinds if hops == 1 else kinds | self.ways.whole(hosts), hosts

    def titles(self, kinds: int, hosts: int) -> tuple[str, ...]:
        """Give the names of the ends of `kinds`, of workloads only those in `hosts`, in order."""
        outside = {title for at in places_of(kinds & self.ways.places) for title in self.ways.titles[at]}
        return tuple(sorted(outside.union(self.ways.names(hosts))))

    def hop(self, step: _Step, ports: PortSet | None = None) -> Hop:
        """Say why a step can be made."""
        at = step, self.ports if ports is None else ports
        found = self._hops.get(at)
        if found is None:
            made = self.ways.hop(step.source, step.caller, step.destination, step.server, at[1])
            found = self._hops[at] = made
        return found

    def _step(self, row: int, callers: int, destination: int, servers: int) -> _Step | None:
        """Choose a step into a kind: of `row`, somebody of `callers`, to somebody else of `servers`."""
        ways = self.ways
        theirs = ways.members[destination] & servers
        if ways.members[destination] and not theirs:
            return None
        for source in (*places_of(row & self._plain), *places_of(row & ~self._plain)):
            mine = ways.members[source] & callers
            if not ways.members[source]:
                caller, server = ways.titles[source][0], _first(ways, theirs, destination)
                return _Step(source, caller, destination, server)
            if not theirs and mine:
                return _Step(source, _first(ways, mine, source), destination, ways.titles[destination][0])
            alone = mine if mine.bit_count() == 1 else 0
            others = theirs & ~alone
            if mine and others:
                server = others & -others
                return _Step(
                    source, _first(ways, mine & ~server, source), destination, _first(ways, server, destination)
                )
        return None

    def _joined(self, landed: list[_Landed], *, backwards: bool = False) -> tuple[Landing, ...]:
        """Put together those of one hop on the same ports, by the same rules and processes."""
        kinds = self.ways.kinds
        alike: dict[object, list[_Landed]] = {}
        for one in landed:
            end = one.step.server if backwards else one.step.caller
            processes = kinds[one.step.source].identity, kinds[one.step.destination].identity
            alike.setdefault((one.hop, one.ports, end, processes), []).append(one)
        found: dict[object, list[Landing]] = {}
        for some in alike.values():
            one, by = some[0], self.hop(some[0].step)
            ends = tuple(sorted({end for one in some for end in one.ends}))
            key = one.hop, one.ports, by.egress, by.ingress, by.identity, by.server
            found.setdefault(key, []).append(Landing(one.hop, ends, one.ports, by))
        joined = [
            replace(some[0], ends=tuple(sorted({end for one in some for end in one.ends}))) for some in found.values()
        ]
        return tuple(sorted(joined, key=lambda one: (one.hop, one.ends)))

    def _path(self, last: _Step, before: list[dict[str, _Step]], ports: PortSet) -> Path:
        found, name = [self.hop(last, ports)], last.caller
        for landed in reversed(before):
            found.append(self.hop(landed[name]))
            name = landed[name].caller
        return tuple(reversed(found))


def _first(ways: Ways, hosts: int, kind: int) -> str:
    return ways.hosts[(hosts & -hosts).bit_length() - 1] if hosts else ways.titles[kind][0]
