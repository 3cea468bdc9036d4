"""What one policy opens and closes against another: exactly, over the fleet, as rules that a person can read.

rules that differ ──▶ the ends and ports that they speak of ──▶ rows of both tables there ──▶ what differs
     by stretch of ports ──▶ blocks (`blocks.py`) ──▶ words (`words.py`) ──▶ lines, alike ones put together
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from itertools import product

from cellwall.analysis.change.both import Both, State, union
from cellwall.analysis.change.part import Found, Part, parts
from cellwall.analysis.table.reach import Assume
from cellwall.analysis.table.rows import MakeRows
from cellwall.analysis.table.ways import Ruling
from cellwall.analysis.table.words import Ends, Phrase, Words, bits_of
from cellwall.policy import Endpoint, Identity, Mode, Who
from cellwall.traffic import PortSet

_NOWHERE = IPv4Address(0)


@dataclass(frozen=True, slots=True)
class Line:
    """One rule's worth of difference: all of `sources` pass to all of `destinations` on `ports`, and did not; or no
    longer do, where it is not `opened`. With `same`, those of them that share the values of these keys.

    `callers` and `servers` are the local processes of which it is true, none where it is true of all; `version` is 4
    or 6 where it is true of one only. `because` are the rules that differ and speak of it."""

    opened: bool
    ports: PortSet
    sources: Phrase
    destinations: Phrase
    same: tuple[str, ...] = ()
    callers: tuple[Identity, ...] = ()
    servers: tuple[Identity, ...] = ()
    version: int | None = None
    because: tuple[Ruling, ...] = ()


@dataclass(frozen=True, slots=True)
class ModeChange:
    """Workloads whose points run in another mode than before; None where there was none, or is none any more."""

    before: Mode | None
    after: Mode | None
    workloads: Phrase


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that differs. `opened_pairs` and `closed_pairs` count pairs of workloads and places outside.

    `added`, `removed` and `changed` are ids of rules; a rule that is `changed` may still mean the same."""

    lines: tuple[Line, ...]
    modes: tuple[ModeChange, ...]
    opened_pairs: int
    closed_pairs: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def opened(self) -> tuple[Line, ...]:
        """What newly passes."""
        return tuple(line for line in self.lines if line.opened)

    @property
    def closed(self) -> tuple[Line, ...]:
        """What no longer passes."""
        return tuple(line for line in self.lines if not line.opened)

    @property
    def nothing(self) -> bool:
        """Whether both mean the same for this fleet, modes included."""
        return not self.lines and not self.modes


def compare(make: MakeRows, before: State, after: State, now: float, assume: Assume = Assume.ENFORCE) -> Comparison:
    """Compare two policies at `now` (seconds since the epoch), with modes as they are or all taken to enforce."""
    both = Both(make, before, after, now, assume)
    gained: dict[int, int] = {}
    lost: dict[int, int] = {}
    halves = parts(both)
    found = [one for part in halves for one in part.found(gained, lost)]
    old, new = before.policy.by_id, after.policy.by_id
    return Comparison(
        tuple(sorted(_lines(found, halves, both.identities), key=_order)),
        tuple(mode_changes(before, after)),
        sum(row.bit_count() for row in gained.values()),
        sum(row.bit_count() for row in lost.values()),
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(rule for rule in old.keys() & new.keys() if old[rule] != new[rule])),
    )


def mode_changes(before: State, after: State) -> Iterator[ModeChange]:
    """Give the workloads whose mode differs, by the modes."""
    states = (before, after)
    fleets = [one.fleet.by_name for one in states]
    names = sorted({*fleets[0], *fleets[1]})
    changes: defaultdict[tuple[Mode | None, ...], list[int]] = defaultdict(list)
    for at, name in enumerate(names):
        modes = tuple(
            one.policy.mode_of(fleet[name].labels) if name in fleet and fleet[name].agent else None
            for one, fleet in zip(states, fleets, strict=True)
        )
        if modes[0] is not modes[1]:
            changes[modes].append(at)
    if changes:
        ends = Ends([Endpoint(_NOWHERE, name, (fleets[1].get(name) or fleets[0][name]).labels) for name in names])
        words = Words(ends, names, [Who(rule.where) for one in states for rule in one.policy.modes])
        for (old, new), some in sorted(changes.items(), key=lambda one: one[1]):
            yield ModeChange(old, new, words.of(bits_of(some)))


def _order(line: Line) -> tuple[bool, str, str, str, str]:
    return not line.opened, str(line.ports), str(line.sources), str(line.destinations), str(line.callers)


def _lines(found: Iterable[Found], halves: Iterable[Part], identities: tuple[Identity, ...]) -> Iterator[Line]:
    """Put together what is the same on several ports, then for several processes, then for both IP versions."""
    by_ends: defaultdict[object, list[Found]] = defaultdict(list)
    for one in found:
        by_ends[one.opened, *_said(one), one.version, one.processes].append(one)
    by_ports: defaultdict[object, list[Found]] = defaultdict(list)
    for some in by_ends.values():
        one = _together(some)
        by_ports[one.opened, *_said(one), one.ports, one.version].append(one)
    by_processes: defaultdict[object, list[list[Found]]] = defaultdict(list)
    for some in by_ports.values():
        processes = frozenset(one.processes for one in some)
        by_processes[some[0].opened, *_said(some[0]), some[0].ports, processes].append(some)
    for versions in by_processes.values():
        one = _together([one for some in versions for one in some])
        told = {some[0].version for some in versions}
        others = (part for part in halves if part.version not in told)
        alone = any(part.names(one.sources) and part.names(one.destinations) for part in others)
        for callers, servers in _processes({each.processes for each in versions[0]}, identities):
            version = one.version if alone else None
            ends = one.sources, one.destinations, one.same
            yield Line(one.opened, one.ports, *ends, callers, servers, version, one.because)


def _said(one: Found) -> tuple[object, ...]:
    phrases = one.sources, one.destinations
    return *((phrase.whos, phrase.names) for phrase in phrases), one.same


def _together(some: list[Found]) -> Found:
    sources, destinations = (
        replace(phrases[0], titles=tuple(sorted({title for phrase in phrases for title in phrase.titles})))
        for phrases in ([one.sources for one in some], [one.destinations for one in some])
    )
    because = tuple(dict.fromkeys(rule for one in some for rule in one.because))
    ports = union(one.ports for one in some)
    return replace(some[0], sources=sources, destinations=destinations, ports=ports, because=because)


def _processes(
    told: set[tuple[Identity, Identity]], identities: tuple[Identity, ...]
) -> Iterator[tuple[tuple[Identity, ...], tuple[Identity, ...]]]:
    """Give pairs of processes as products: callers and servers, none of either where it is all of them."""
    if told == set(product(identities, repeat=2)):
        yield (), ()
        return
    servers_of: defaultdict[tuple[Identity, ...], list[Identity]] = defaultdict(list)
    for caller in identities:
        servers = tuple(server for server in identities if (caller, server) in told)
        if servers:
            servers_of[servers].append(caller)
    for servers, callers in servers_of.items():
        yield (
            () if len(callers) == len(identities) else tuple(callers),
            () if len(servers) == len(identities) else servers,
        )
