"""The flow store's fake: the same contract in memory, for tests and for a controller that keeps no flows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import md5

from cellwall.analysis import Keys, distinct
from cellwall.controller.store.flows.answers import answered
from cellwall.controller.store.flows.contract import DAY_S, HOUR_S, FlowStoreError, Query, Tick, cursor, place
from cellwall.controller.store.flows.parts import KEY_PARTS, SERIES_PARTS, key_columns, packed
from cellwall.controller.store.flows.sums import edges_of, named, tuples_of
from cellwall.flows import Flow, FlowKey, FlowRecord, Outcome, Process, Side, Tally, merge, tally
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
            and (not query.keys or one.key in query.keys)
        ]
        found = [
            flow
            for flow in merge(chosen)
            if query.outcome in (None, flow.outcome)
            and query.would in (None, flow.would)
            and (query.after is None or place(cursor(flow)) > place(query.after))
        ]
        return tuple(sorted(found, key=lambda flow: place(cursor(flow)))[: query.limit])

    def edges(self, since: float, until: float = math.inf) -> tuple[FlowRecord, ...]:
        """Give the sums by key, reporter, side, process, verdict and rules."""
        self._check()
        first, end = math.floor(since / HOUR_S) * HOUR_S, until if math.isinf(until) else _ceil(until, HOUR_S)
        return edges_of(one for one in self._records if first <= one.last_seen < end)

    def tuples(self, since: float) -> tuple[FlowRecord, ...]:
        """Give one record for each key, side and process."""
        return tuples_of(self.edges(since))

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

    def key_parts(self, since: float) -> list[bytes]:
        """Give what `keys` is made of, as `parts.KEY_PARTS`."""
        rows: dict[tuple[FlowKey, bool, int], tuple[int, tuple[float, bool]]] = {}
        for one in self.tuples(since):
            ingress = one.side is Side.INGRESS
            at = one.key, ingress, 0 if ingress else _who(one.process)
            counted, latest = rows.get(at, (0, (0.0, False)))
            rows[at] = counted + one.connections, max(latest, (one.last_seen, one.outcome is Outcome.DENIED))
        return packed(
            KEY_PARTS,
            (
                (*key_columns(key), side, who, count, refused, at)
                for (key, side, who), (count, (at, refused)) in rows.items()
            ),
        )

    def series_parts(self, since: float, until: float, step_s: float) -> list[bytes]:
        """Give what `series` is made of, as `parts.SERIES_PARTS`."""
        self._check()
        rows: dict[tuple[FlowKey, bool, int], tuple[int, int, int]] = {}
        for one in self._records:
            if since <= one.last_seen < until:
                at = one.key, one.side is Side.INGRESS, math.floor((one.last_seen - since) / step_s)
                every, refused, would = rows.get(at, (0, 0, 0))
                denied = one.outcome is Outcome.DENIED
                doubtful = not denied and one.would is Outcome.DENIED
                count = one.connections
                rows[at] = every + count, refused + denied * count, would + doubtful * count
        return packed(
            SERIES_PARTS, ((*key_columns(key), side, step, *sums) for (key, side, step), sums in rows.items())
        )

    def forward(self, request: bytes) -> bytes:
        """Answer what another controller asks, as a worker does."""
        return answered(self, request)

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


def _who(process: Process) -> int:
    return int.from_bytes(md5("\0".join(named(process)).encode(), usedforsecurity=False).digest()[:8], "little")


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return not networks or any(address in network for network in networks)


def _ceil(moment: float, step: float) -> float:
    return math.ceil(moment / step) * step
