"""How records of one flow add up: those of one flow store, and those of several, as every agent has reported to one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cellwall.controller.store.flows.contract import key_order
from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side

Edge = tuple[FlowKey, Side, str, Outcome, Outcome, tuple[str, ...], Process]
End = tuple[FlowKey, Side, Process]


def edges_of(records: Iterable[FlowRecord]) -> tuple[FlowRecord, ...]:
    """Add up by key, reporter, side, process, verdict and rules; the latest revision. See `FlowStore.edges`."""
    sums: dict[Edge, FlowRecord] = {}
    for one in records:
        at = (one.key, one.side, one.reporter, one.outcome, one.would, one.rules, one.process)
        had = sums.get(at)
        sums[at] = one if had is None else _added(had, one, max(had.revision, one.revision))
    return tuple(sorted(sums.values(), key=_order))


def tuples_of(records: Iterable[FlowRecord]) -> tuple[FlowRecord, ...]:
    """Add up by key, side and process; the latest names the verdict. See `FlowStore.tuples`."""
    sums: dict[End, FlowRecord] = {}
    for one in records:
        at = (one.key, one.side, one.process)
        had = sums.get(at)
        if had is None:
            sums[at] = one
        else:
            latest, other = (had, one) if _rank(had) >= _rank(one) else (one, had)
            sums[at] = _added(latest, other, latest.revision)
    return tuple(sorted(sums.values(), key=lambda one: (*_order(one)[:5], *named(one.process))))


def named(process: Process) -> tuple[str, str, str, str]:
    """Give a process as words that can be put in order."""
    return process.name, process.user, process.unit, process.exe


def _added(one: FlowRecord, other: FlowRecord, revision: int) -> FlowRecord:
    return replace(
        one,
        revision=revision,
        connections=one.connections + other.connections,
        packets=one.packets + other.packets,
        bytes=one.bytes + other.bytes,
        first_seen=min(one.first_seen, other.first_seen),
        last_seen=max(one.last_seen, other.last_seen),
        standing=one.standing and other.standing,
    )


def _order(one: FlowRecord) -> tuple[int, int, int, int, bool, str, str, str, tuple[str, ...], str, str, str, str]:
    side = one.side is Side.INGRESS
    return *key_order(one.key), side, one.reporter, one.outcome, one.would, one.rules, *named(one.process)


def _rank(one: FlowRecord) -> tuple[float, int, str, str, tuple[str, ...], str]:
    return one.last_seen, one.revision, one.outcome, one.would, one.rules, one.reporter
