"""The flow store's fake: the same contract in memory, for tests and for a controller that keeps no flows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cellwall.analysis import Keys, distinct
from cellwall.controller.store.flows import DAY_S, HOUR_S, FlowStoreError, Query, Tick, cursor, key_order
from cellwall.flows import Flow, FlowKey, FlowRecord, Process, Side, Tally, merge, tally
from cellwall.traffic import Address, Network, point


class MemoryFlows:
    """Keeps flow records in a list; see `FlowStore` for what each call does."""

    def __init__(self) -> None:
        self._batches: list[str] = []
        self._records: list[FlowRecord] = []
        self._open = True

    def insert(self, records: Sequence[FlowRecord], batch: str) -> None:
        """Keep `records` unless `batch` was kept before."""
        self._check()
        if records and batch not in self._batches:
            self._records = [*self._records, *records]
            self._batches = [*self._batches[-9999:], batch]

    def insert_many(self, batches: Sequence[tuple[Sequence[FlowRecord], str]]) -> Mapping[str, str]:
        """Keep many batches."""
        for records, batch in batches:
            self.insert(records, batch)
        return {}

    def flows(self, query: Query) -> tuple[Flow, ...]:
        """Give one page of merged flows."""
        self._check()
        chosen = [
            one
            for one in self._records
            if query.since <= one.last_seen < query.until
            and _within(one.key.source, query.source)
            and _within(one.key.destination, query.destination)
            and point(one.key.protocol, one.key.port) in query.ports
        ]
        found = [
            flow
            for flow in merge(chosen)
            if query.outcome in (None, flow.outcome)
            and query.would in (None, flow.would)
            and (query.after is None or _place(cursor(flow)) > _place(query.after))
        ]
        return tuple(sorted(found, key=lambda flow: _place(cursor(flow)))[: query.limit])

    def edges(self, since: float, until: float = math.inf) -> tuple[FlowRecord, ...]:
        """Give the sums by key, reporter, side, process, verdict and rules."""
        self._check()
        first, end = math.floor(since / HOUR_S) * HOUR_S, until if math.isinf(until) else _ceil(until, HOUR_S)
        sums: dict[tuple[object, ...], FlowRecord] = {}
        for one in self._records:
            if first <= one.last_seen < end:
                _add_to(sums, (one.key, one.side, one.reporter, one.outcome, one.would, one.rules, one.process), one)
        return tuple(sorted(sums.values(), key=_order))

    def tuples(self, since: float) -> tuple[FlowRecord, ...]:
        """Give one record for each key, side and process."""
        sums: dict[tuple[object, ...], FlowRecord] = {}
        for one in sorted(self.edges(since), key=_rank, reverse=True):
            _add_to(sums, (one.key, one.side, one.process), one, revision=False)
        return tuple(sorted(sums.values(), key=lambda one: (*_order(one)[:5], *_named(one.process))))

    def tuples_of(self, since: float, keys: Sequence[FlowKey]) -> tuple[FlowRecord, ...]:
        """Give those of `tuples` that have one of `keys`."""
        asked = frozenset(keys)
        return tuple(one for one in self.tuples(since) if one.key in asked)

    def keys(self, since: float) -> Keys:
        """Give the distinct keys as columns."""
        counts: dict[FlowKey, tuple[int, int]] = {}
        for seen in distinct(self.tuples(since)):
            flows, connections = counts.get(seen.key, (0, 0))
            counts[seen.key] = flows + 1, connections + seen.connections
        return Keys.from_counts(counts)

    def series(self, since: float, until: float, step_s: float) -> tuple[Tick, ...]:
        """Count connections per step."""
        self._check()
        steps: dict[int, dict[FlowKey, list[FlowRecord]]] = defaultdict(lambda: defaultdict(list))
        for one in self._records:
            if since <= one.last_seen < until:
                steps[math.floor((one.last_seen - since) / step_s)][one.key].append(one)
        ticks: list[Tick] = []
        for step, keys in sorted(steps.items()):
            total = sum((tally(records) for records in keys.values()), Tally())
            ticks.append(Tick(since + step * step_s, total.allowed, total.denied, total.would_deny))
        return tuple(ticks)

    def ping(self) -> None:
        """See that the store is open."""
        self._check()

    def count(self) -> int:
        """Count the records."""
        self._check()
        return len(self._records)

    def prune(self, before: float) -> int:
        """Drop the days that ended at or before `before`."""
        self._check()
        kept = [one for one in self._records if one.last_seen >= math.floor(before / DAY_S) * DAY_S]
        gone, self._records = len(self._records) - len(kept), kept
        return gone

    def close(self) -> None:
        """Refuse all further calls."""
        self._open = False

    def _check(self) -> None:
        if not self._open:
            raise FlowStoreError("the flow store is closed")


def _add_to(
    sums: dict[tuple[object, ...], FlowRecord], at: tuple[object, ...], one: FlowRecord, *, revision: bool = True
) -> None:
    had = sums.get(at)
    sums[at] = (
        one
        if had is None
        else replace(
            had,
            revision=max(had.revision, one.revision) if revision else had.revision,
            connections=had.connections + one.connections,
            packets=had.packets + one.packets,
            bytes=had.bytes + one.bytes,
            first_seen=min(had.first_seen, one.first_seen),
            last_seen=max(had.last_seen, one.last_seen),
            standing=had.standing and one.standing,
        )
    )


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return not networks or any(address in network for network in networks)


def _place(at: tuple[float, FlowKey]) -> tuple[float, int, int, int, int]:
    return -at[0], *key_order(at[1])


def _ceil(moment: float, step: float) -> float:
    return math.ceil(moment / step) * step


def _named(process: Process) -> tuple[str, str, str, str]:
    return process.name, process.user, process.unit, process.exe


def _order(one: FlowRecord) -> tuple[int, int, int, int, bool, str, str, str, tuple[str, ...], str, str, str, str]:
    side = one.side is Side.INGRESS
    return *key_order(one.key), side, one.reporter, one.outcome, one.would, one.rules, *_named(one.process)


def _rank(one: FlowRecord) -> tuple[float, int, str, str, tuple[str, ...], str]:
    return one.last_seen, one.revision, one.outcome, one.would, one.rules, one.reporter
