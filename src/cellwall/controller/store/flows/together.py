"""The flows of all controllers as one flow store: each has those that its agents reported to it, perhaps of one end.

edges, tuples ── of each, added up again as each has added them up
keys, series ─── of each in parts, as both ends of a flow may be at two controllers
flows ────────── pages of each, until none can have an earlier one; then those flows of all, merged, sorted, cut
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol, TypeVar

from cellwall.analysis import Keys
from cellwall.controller.store.flows.asker import MOST_KEYS
from cellwall.controller.store.flows.contract import FlowStore, Query, Tick, cursor, place
from cellwall.controller.store.flows.parts import Parts, keys_of, series_of
from cellwall.controller.store.flows.sums import edges_of, tuples_of
from cellwall.flows import Flow, FlowKey, FlowRecord, Outcome, merge

T = TypeVar("T")
LEAST_PAGE = 2000
"""Where only some verdicts are asked for, so many flows of each controller are looked at before one is shown."""


class Parted(Protocol):
    """A flow store whose answers can be put together with those of others; see `FlowStore`."""

    def flows(self, query: Query) -> tuple[Flow, ...]:
        """Give one page of merged flows."""
        ...

    def edges(self, since: float, until: float = math.inf) -> tuple[FlowRecord, ...]:
        """Give the sums by key, reporter, side, process, verdict and rules."""
        ...

    def tuples(self, since: float) -> tuple[FlowRecord, ...]:
        """Give one record for each key, side and process."""
        ...

    def tuples_of(self, since: float, keys: Sequence[FlowKey]) -> tuple[FlowRecord, ...]:
        """Give those of `tuples` that have one of `keys`."""
        ...

    def key_parts(self, since: float) -> Parts:
        """Give what `keys` is made of, as `parts.KEY_PARTS`."""
        ...

    def series_parts(self, since: float, until: float, step_s: float) -> Parts:
        """Give what `series` is made of, as `parts.SERIES_PARTS`."""
        ...


class OwnFlows(FlowStore, Parted, Protocol):
    """The flow store of a controller, which it puts together with those of others and lets others ask."""

    def forward(self, request: bytes) -> bytes:
        """Answer the content of a frame with that of one; see `frames.py`. Raises `FlowStoreError`."""
        ...


class Others(Protocol):
    """The other controllers' flow stores."""

    def some(self, since: float) -> bool:
        """Whether another controller may have flows that were seen since a moment; who is gone is noted as missing."""
        ...

    def ask(self, question: Callable[[str, Parted], T], own: Parted, since: float) -> Mapping[str, T]:
        """Ask all of them, and `own` under the name ``""``, at once; who does not answer is noted as missing."""
        ...


class TogetherFlows:
    """All controllers' flows; see `FlowStore`. What is kept or dropped is this controller's own."""

    def __init__(self, own: OwnFlows, others: Others) -> None:
        self._own, self._others = own, others

    def insert(self, records: Sequence[FlowRecord], batch: str) -> None:
        """Keep `records` unless `batch` was kept before."""
        self._own.insert(records, batch)

    def insert_many(self, batches: Sequence[tuple[Sequence[FlowRecord], str]]) -> Mapping[str, str]:
        """Keep many batches."""
        return self._own.insert_many(batches)

    def ping(self) -> None:
        """See that our own store is there."""
        self._own.ping()

    def count(self) -> int:
        """Count our own records."""
        return self._own.count()

    def prune(self, before: float) -> int:
        """Drop our own old days."""
        return self._own.prune(before)

    def close(self) -> None:
        """Close our own store."""
        self._own.close()

    def flows(self, query: Query) -> tuple[Flow, ...]:
        """Give one page of merged flows."""
        if not self._others.some(query.since):
            return self._own.flows(query)
        return _Paging(self, query).page()

    def edges(self, since: float, until: float = math.inf) -> tuple[FlowRecord, ...]:
        """Give the sums by key, reporter, side, process, verdict and rules."""
        found = self.each(lambda _, one: one.edges(since, until), since)
        return _whole(found, edges_of)

    def tuples(self, since: float) -> tuple[FlowRecord, ...]:
        """Give one record for each key, side and process."""
        return _whole(self.each(lambda _, one: one.tuples(since), since), tuples_of)

    def tuples_of(self, since: float, keys: Sequence[FlowKey]) -> tuple[FlowRecord, ...]:
        """Give those of `tuples` that have one of `keys`."""
        return _whole(self.each(lambda _, one: one.tuples_of(since, keys), since), tuples_of)

    def keys(self, since: float) -> Keys:
        """Give the distinct keys as columns."""
        if not self._others.some(since):
            return self._own.keys(since)
        return keys_of([*self.each(lambda _, one: one.key_parts(since), since).values()])

    def series(self, since: float, until: float, step_s: float) -> tuple[Tick, ...]:
        """Count connections per step."""
        if not self._others.some(since):
            return self._own.series(since, until, step_s)
        found = self.each(lambda _, one: one.series_parts(since, until, step_s), since)
        return series_of([*found.values()], since, step_s)

    def each(self, question: Callable[[str, Parted], T], since: float) -> Mapping[str, T]:
        """Ask every controller, this one under the name ``""``."""
        return self._others.ask(question, self._own, since)


class _Paging:
    """One page of flows, of which several controllers may have an end.

    Each gives its flows in order of when it saw them last. A flow is last seen when any of them saw it last: so what
    none has given yet comes after the place up to which every one of them has given all."""

    def __init__(self, whole: TogetherFlows, query: Query) -> None:
        self._whole, self._query = whole, query
        # Whether both ends let a flow through is known only when they are together; that one denies, that one knows.
        self._wide = replace(
            query,
            outcome=query.outcome if query.outcome is Outcome.DENIED else None,
            would=query.would if query.would is Outcome.DENIED else None,
        )
        self._sifted = query.outcome is not None or query.would is not None
        self._ends: dict[FlowKey, dict[str, Flow | None]] = {}
        self._given: dict[str, tuple[float, FlowKey] | None] = {}

    def page(self) -> tuple[Flow, ...]:
        """Give it."""
        size = max(self._query.limit, LEAST_PAGE if self._sifted else 0)
        names = self._more(size, None)
        while True:
            self._complete(names)
            reached = [place(at) for at in self._given.values() if at is not None]
            found = self._found(min(reached, default=None))
            if len(found) >= self._query.limit or not reached:
                return found[: self._query.limit]
            size *= 2
            self._more(size, frozenset(name for name, at in self._given.items() if at is not None))

    def _more(self, size: int, among: frozenset[str] | None) -> frozenset[str]:
        """Have another page of each that has more; who did not answer at first is not asked for more."""

        def question(name: str, store: Parted) -> tuple[Flow, ...]:
            if among is not None and name not in among:
                return ()
            return store.flows(replace(self._wide, limit=size, after=self._given.get(name) or self._query.after))

        answers = self._whole.each(question, self._query.since)
        for name, flows in answers.items():
            for one in flows:
                self._ends.setdefault(one.key, {})[name] = one
        lost = self._given.keys() - answers.keys()
        self._given |= {
            name: cursor(flows[-1]) if len(flows) >= size else None
            for name, flows in answers.items()
            if among is None or name in among
        }
        self._given |= dict.fromkeys(lost, None)
        return frozenset(answers)

    def _complete(self, names: frozenset[str]) -> None:
        """Ask each for what the others have shown and it has not."""

        def question(name: str, store: Parted) -> tuple[Flow, ...]:
            keys = [key for key, ends in self._ends.items() if name not in ends]
            asked = replace(self._query, outcome=None, would=None, after=None, limit=MOST_KEYS)
            parts = (keys[first : first + MOST_KEYS] for first in range(0, len(keys), MOST_KEYS))
            return tuple(one for part in parts for one in store.flows(replace(asked, keys=frozenset(part))))

        for name, flows in self._whole.each(question, self._query.since).items():
            for one in flows:
                self._ends[one.key][name] = one
        for ends in self._ends.values():
            for name in names:
                ends.setdefault(name, None)

    def _found(self, reached: tuple[float, int, int, int, int] | None) -> tuple[Flow, ...]:
        """Give, in order, what is sure to come before all that nobody has given yet."""
        query = self._query
        records = (
            end
            for ends in self._ends.values()
            for one in ends.values()
            if one is not None
            for end in (one.egress, one.ingress)
            if end is not None
        )
        after = None if query.after is None else place(query.after)
        placed = ((place(cursor(flow)), flow) for flow in merge(records))
        found = [
            (at, flow)
            for at, flow in placed
            if query.outcome in (None, flow.outcome)
            and query.would in (None, flow.would)
            and (after is None or at > after)
            and (reached is None or at <= reached)
        ]
        return tuple(flow for _, flow in sorted(found, key=lambda one: one[0]))


def _whole(
    found: Mapping[str, tuple[FlowRecord, ...]], together: Callable[[Iterable[FlowRecord]], tuple[FlowRecord, ...]]
) -> tuple[FlowRecord, ...]:
    given = [one for one in found.values() if one]
    return together(chain.from_iterable(given)) if len(given) > 1 else given[0] if given else ()
