"""What changes when one policy takes the place of another: for the flows that were seen, and for all that could be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from cellwall.analysis.seen.replay import Replay, distinct, judge_seen, replay_seen
from cellwall.analysis.table.reach import Assume, Kind, Reach, all_identities, places_outside
from cellwall.analysis.table.table import Table
from cellwall.flows import FlowKey, FlowRecord, Side
from cellwall.inventory import Fleet
from cellwall.policy import NOBODY, Endpoint, Identity, Policy, Rule
from cellwall.traffic import NOTHING, PortSet

if TYPE_CHECKING:
    from cellwall.analysis.table.keys import Keys

UNCHANGED = (NOTHING, NOTHING)


@dataclass(frozen=True, slots=True)
class Change:
    """Ends between which other ports pass than before. `sources` and `destinations` are workloads and places outside.

    Who is on both sides is meant with the others, not with itself. `identity` is the local process of the sources;
    nobody in particular where it makes no difference."""

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    opened: PortSet
    closed: PortSet
    identity: Identity = NOBODY


@dataclass(frozen=True, slots=True)
class Impact:
    """The difference that a change makes: `seen` for the flows that were observed, `changes` for all that can be."""

    seen: Replay
    changes: tuple[Change, ...]

    @property
    def nothing(self) -> bool:
        """Whether no flow at all fares differently: the two policies mean the same for this fleet."""
        return not self.changes


def impact(
    old: Policy,
    new: Policy,
    fleet: Fleet,
    records: Iterable[FlowRecord],
    now: float,
    assume: Assume = Assume.MODES,
    new_fleet: Fleet | None = None,
) -> Impact:
    """Say what `new` changes against `old`, at `now` (seconds since the epoch).

    In `seen`, a flow *was* what `old` gives, not what was observed. `new_fleet` is the fleet with other labels, where
    those change too; it has the same workloads and addresses.
    """
    before, after = Reach(old, fleet, now), Reach(new, new_fleet or fleet, now)
    flows = [replace(seen, was=judge_seen(before, seen, assume)) for seen in distinct(records)]
    return Impact(replay_seen(after, flows, assume), difference(before, after, assume))


def sifted_impact(
    old: Policy,
    new: Policy,
    fleet: Fleet,
    keys: Keys,
    records: Callable[[Sequence[FlowKey]], Iterable[FlowRecord]],
    now: float,
    assume: Assume = Assume.MODES,
    new_fleet: Fleet | None = None,
) -> Impact:
    """As `impact`, for millions of flows: all `keys` are judged by columns, and only of those that may fare otherwise
    `records` are asked for."""
    from cellwall.analysis.table.keys import sift

    later = new_fleet or fleet
    found = sift(Table(old, fleet, now, assume), Table(new, later, now, assume), keys)
    told = impact(old, new, fleet, records([keys.key(int(at)) for at in found.doubtful]), now, assume, new_fleet)
    seen = replace(told.seen, checked=found.flows, connections=found.connections, unknown=found.unknown)
    return replace(told, seen=seen)


def difference(before: Reach, after: Reach, assume: Assume = Assume.MODES) -> tuple[Change, ...]:
    """Give all pairs of ends between which other ports pass, gathered by what changes, in order of their names.

    Both have the same workloads and addresses. Only pairs are looked at of which a rule that changed speaks, or with
    an end whose mode or labels changed."""
    asked = {one for reach in (before, after) for one in reach.identities(Side.EGRESS)}
    groups = _groups(before, after, all_identities(asked))
    crowds, of_group = _crowds(groups)
    found: dict[tuple[Identity, int, int], tuple[PortSet, PortSet]] = {}
    for source, target in _touched(before, after, groups, assume):
        one, other = groups[source], groups[target]
        was = before.passing(one.before, other.before, assume)
        becomes = after.passing(one.after, other.after, assume)
        if was == becomes and one.identity == NOBODY:
            continue
        for caller, server in product(of_group[source], of_group[target]):
            if caller != server or len(crowds[caller]) > 1:
                opened, closed = found.get((one.identity, caller, server), UNCHANGED)
                found[one.identity, caller, server] = opened | (becomes - was), closed | (was - becomes)
    return _gather(
        {
            (identity, caller, server): change
            for (identity, caller, server), change in found.items()
            # A process is told apart only where it fares differently from nobody in particular.
            if any(change) and (identity == NOBODY or change != found.get((NOBODY, caller, server), UNCHANGED))
        },
        crowds,
    )


@dataclass(frozen=True, eq=False)
class _Group:
    """Ends that neither policy tells apart, as one local process; `titles` are workloads or places outside."""

    before: Kind
    after: Kind
    version: int
    identity: Identity
    titles: list[str]


def _crowds(groups: list[_Group]) -> tuple[list[tuple[str, ...]], list[tuple[int, ...]]]:
    """Put together the titles that are in the same groups, and say which of these crowds are in each group.

    A workload may be in several groups, by address: so groups overlap, and crowds do not."""
    places: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for number, group in enumerate(groups):
        for title in group.titles:
            places[title][number] = None
    alike: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for title, numbers in places.items():
        alike[tuple(numbers)].append(title)
    of_group: list[list[int]] = [[] for _ in groups]
    for crowd, numbers in enumerate(alike):
        for number in numbers:
            of_group[number].append(crowd)
    return [tuple(titles) for titles in alike.values()], [tuple(crowd) for crowd in of_group]


def _touched(before: Reach, after: Reach, groups: list[_Group], assume: Assume) -> Iterator[tuple[int, int]]:
    pairs: dict[tuple[int, int], None] = {}
    for number, one in enumerate(groups):
        modes = assume is Assume.MODES and one.before.mode is not one.after.mode
        if modes or one.before.example.labels != one.after.example.labels:
            pairs |= dict.fromkeys((number, other) for other in range(len(groups)))
            pairs |= dict.fromkeys((other, number) for other in range(len(groups)))
    meanings = [Counter(map(_meaning, reach.rules)) for reach in (before, after)]
    for reach, other, word in ((before, meanings[1], "before"), (after, meanings[0], "after")):
        for at, rule in enumerate(reach.rules):
            if rule.staged or _meaning(rule) in other:
                continue
            kinds: list[Kind] = [getattr(group, word) for group in groups]
            for side in rule.sides:
                sources = [number for number, kind in enumerate(kinds) if kind.source[side] >> at & 1]
                targets: defaultdict[tuple[str | None, ...], list[int]] = defaultdict(list)
                for number, kind in enumerate(kinds):
                    if kind.destination[side] >> at & 1:
                        targets[tuple(kind.shared.get(key) for key in rule.same)].append(number)
                for number in sources:
                    shared = tuple(kinds[number].shared.get(key) for key in rule.same)
                    pairs |= dict.fromkeys((number, target) for target in targets.get(shared, ()))
    for source, target in sorted(pairs):
        one, other = groups[source], groups[target]
        if one.version == other.version and other.identity == NOBODY:
            yield source, target


def _meaning(rule: Rule) -> object:
    return (
        rule.action,
        rule.ports,
        frozenset(rule.source),
        frozenset(rule.destination),
        rule.same,
        rule.sides,
        rule.staged,
    )


def _gather(
    changed: dict[tuple[Identity, int, int], tuple[PortSet, PortSet]], crowds: list[tuple[str, ...]]
) -> tuple[Change, ...]:
    """Put together the pairs of crowds with the same change: first by destination, then by set of sources."""
    by_target: defaultdict[tuple[Identity, PortSet, PortSet, int], set[int]] = defaultdict(set)
    for (identity, caller, server), (opened, closed) in changed.items():
        by_target[identity, opened, closed, server].add(caller)
    by_sources: defaultdict[tuple[Identity, PortSet, PortSet, frozenset[int]], set[int]] = defaultdict(set)
    for (identity, opened, closed, server), callers in by_target.items():
        by_sources[identity, opened, closed, frozenset(callers)].add(server)

    def titles(some: Iterable[int]) -> tuple[str, ...]:
        return tuple(sorted(title for crowd in some for title in crowds[crowd]))

    changes = [
        Change(titles(callers), titles(servers), opened, closed, identity)
        for (identity, opened, closed, callers), servers in by_sources.items()
    ]
    return tuple(sorted(changes, key=lambda one: (one.sources, one.destinations, str(one.opened), str(one.identity))))


def _groups(before: Reach, after: Reach, identities: tuple[Identity, ...]) -> list[_Group]:
    """Put together the ends that neither policy tells apart."""
    ends: list[tuple[str, Endpoint, Endpoint]] = []
    for workload in before.fleet.workloads:
        later = after.fleet.by_name[workload.name]
        ends += [
            (
                workload.name,
                Endpoint(address, workload.name, workload.labels, workload.agent),
                Endpoint(address, later.name, later.labels, later.agent),
            )
            for address in workload.addresses
            if before.fleet.by_address[address] is workload
        ]
    books = (*before.policy.used_networks, *after.policy.used_networks)
    ends += [(title, end, end) for title, end in places_outside(books, before.fleet)]
    found: dict[tuple[Kind, Kind, int], _Group] = {}
    for title, end, later in ends:
        for identity in identities if end.agent else (NOBODY,):
            first = before.kind_of(replace(end, identity=identity))
            second = after.kind_of(replace(later, identity=identity))
            at = first, second, end.address.version
            found.setdefault(at, _Group(*at, identity, [])).titles.append(title)
    return list(found.values())
