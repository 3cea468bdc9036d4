"""The flow store: what every one of them can do; see `loop.py` for the real one and `memory.py` for its fake."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cellwall.analysis import Keys
from cellwall.flows import Flow, FlowKey, FlowRecord, Outcome
from cellwall.traffic import EVERYTHING, Address, CellwallError, Network, PortSet

HOUR_S = 3600.0
DAY_S = 86400.0


class FlowStoreError(CellwallError):
    """The flow store did not do what was asked: it cannot be started, or it is being started again; try later."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which flows to give. All parts must hold; what is empty or None is not asked for.

    A record counts when its `last_seen` is from `since` until just before `until` (seconds since the epoch, UTC).
    `source` and `destination` list prefixes of which one must hold the address; `ports` are points. `outcome` and
    `would` are those of the merged flow. `after` is the last flow of the previous page, as `cursor` gives it. Only
    `keys` are looked at where some are named; of these there are few.
    """

    since: float = 0.0
    until: float = math.inf
    source: tuple[Network, ...] = ()
    destination: tuple[Network, ...] = ()
    ports: PortSet = EVERYTHING
    outcome: Outcome | None = None
    would: Outcome | None = None
    limit: int = 1000
    after: tuple[float, FlowKey] | None = None
    keys: frozenset[FlowKey] = frozenset()


@dataclass(frozen=True, slots=True, order=True)
class Tick:
    """The connections of one step of a series: `start` in seconds since the epoch; `would_deny` were allowed, and full
    enforcement would deny them."""

    start: float
    allowed: int
    denied: int
    would_deny: int


class FlowStore(Protocol):
    """Keeps flow records. All calls are synchronous, and any thread may make them.

    Every call raises `FlowStoreError` when the store is not there; a call that fails may be made again.
    """

    def insert(self, records: Sequence[FlowRecord], batch: str) -> None:
        """Keep `records`: there when this returns, whatever process dies. A `batch` given before changes nothing.

        `batch` is any text of 1 to 200 characters, such as `agent/number`: the last 10,000 are remembered, and the last
        64 of each agent.
        """
        ...

    def insert_many(self, batches: Sequence[tuple[Sequence[FlowRecord], str]]) -> Mapping[str, str]:
        """Keep many batches in one write; gives those that can never be kept, by name, and why. See `insert`."""
        ...

    def flows(self, query: Query) -> tuple[Flow, ...]:
        """Give one page of flows, both ends merged, the last seen first (then by key)."""
        ...

    def edges(self, since: float, until: float = math.inf) -> tuple[FlowRecord, ...]:
        """Give all that was seen, added up: one record for each key, reporter, side, process, verdict and rules.

        For the map and for proposals. The times are rounded outwards to whole hours; `revision` is the latest. In
        order of key, side, reporter and the rest.
        """
        ...

    def tuples(self, since: float) -> tuple[FlowRecord, ...]:
        """Give the distinct flows: as `edges`, with one record for each key, side and process. For replay.

        Verdict, rules, revision and reporter are those of the latest.
        """
        ...

    def keys(self, since: float) -> Keys:
        """Give the distinct keys of `tuples`, as columns: for millions of them."""
        ...

    def tuples_of(self, since: float, keys: Sequence[FlowKey]) -> tuple[FlowRecord, ...]:
        """Give those of `tuples` that have one of `keys`."""
        ...

    def series(self, since: float, until: float, step_s: float) -> tuple[Tick, ...]:
        """Count connections per step of `step_s` seconds from `since`, both ends merged; empty steps are left out."""
        ...

    def ping(self) -> None:
        """Do nothing, if the store is there to do it."""
        ...

    def count(self) -> int:
        """Count the records that are kept."""
        ...

    def prune(self, before: float) -> int:
        """Drop the UTC days that ended at or before `before`; gives how many records went."""
        ...

    def close(self) -> None:
        """Let go of the store; what was inserted stays. May be called twice."""
        ...


def cursor(flow: Flow) -> tuple[float, FlowKey]:
    """Give the place of `flow` in the order of `FlowStore.flows`, for `Query.after`."""
    return flow.last_seen, flow.key


def place(at: tuple[float, FlowKey]) -> tuple[float, int, int, int, int]:
    """Give a `cursor` as something that is in order as `FlowStore.flows` is."""
    return -at[0], *key_order(at[1])


def key_order(key: FlowKey) -> tuple[int, int, int, int]:
    """Order keys as the stores do: by source, destination (IPv4 as mapped IPv6), protocol and port."""
    return as_v6(key.source), as_v6(key.destination), key.protocol, key.port


def as_v6(address: Address) -> int:
    """Give an address as the integer of its IPv6 form; IPv4 is mapped (RFC 4291 §2.5.5.2)."""
    return int(address) | (0xFFFF << 32 if address.version == 4 else 0)
