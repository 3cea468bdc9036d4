"""Whoever asks a flow worker, of this controller or of another one: questions become calls, and columns answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Network
from typing import Any

from cellwall.analysis import Keys
from cellwall.controller.store.flows.columns import OUTCOMES, from_columns, pack16
from cellwall.controller.store.flows.contract import HOUR_S, Query, Tick
from cellwall.flows import Flow, FlowKey, FlowRecord, merge
from cellwall.traffic import EVERYTHING, Network

ASKED = ("flows", "edges", "tuples", "tuples_of", "key_parts", "series_parts")
"""What other controllers may ask: the calls that only read, and whose answers add up."""
MOST_KEYS = 1000
"""In one question: a statement is 256 KiB at most."""
MAPPED = IPv6Network("::ffff:0:0/96")
"""Where the tables hold IPv4 addresses (RFC 4291 §2.5.5.2)."""


class FlowAsker(ABC):
    """Asks; see `FlowStore` for what each question means. Every one of them raises `FlowStoreError`."""

    @abstractmethod
    def _ask(self, call: str, *arguments: Any) -> Any:
        """Have `call` answered, one of those of the worker's engine."""

    def flows(self, query: Query) -> tuple[Flow, ...]:
        """Give one page of merged flows."""
        asked: dict[str, Any] = {
            "since": query.since,
            "until": None if math.isinf(query.until) else query.until,
            "source": _ranges(query.source),
            "destination": _ranges(query.destination),
            "ports": None if query.ports == EVERYTHING else [(span.first, span.last) for span in query.ports.spans],
            "outcome": None if query.outcome is None else OUTCOMES.index(query.outcome),
            "would": None if query.would is None else OUTCOMES.index(query.would),
            "limit": query.limit,
            "after": None,
            "keys": _packed(query.keys),
        }
        if query.after is not None:
            seen, key = query.after
            asked["after"] = (seen, *_packed([key])[0])
        return merge(from_columns(self._ask("flows", asked)))

    def edges(self, since: float, until: float = math.inf) -> tuple[FlowRecord, ...]:
        """Give the sums by key, reporter, side, process, verdict and rules."""
        end = None if math.isinf(until) else math.ceil(until / HOUR_S)
        return from_columns(self._ask("edges", math.floor(since / HOUR_S), end))

    def tuples(self, since: float) -> tuple[FlowRecord, ...]:
        """Give one record for each key, side and process."""
        return from_columns(self._ask("tuples", math.floor(since / HOUR_S)))

    def tuples_of(self, since: float, keys: Sequence[FlowKey]) -> tuple[FlowRecord, ...]:
        """Give those of `tuples` that have one of `keys`."""
        asked = _packed(keys)
        parts = (asked[first : first + MOST_KEYS] for first in range(0, len(asked), MOST_KEYS))
        hour = math.floor(since / HOUR_S)
        return tuple(one for part in parts for one in from_columns(self._ask("tuples_of", hour, part)))

    def keys(self, since: float) -> Keys:
        """Give the distinct keys as columns."""
        return Keys.of(*self._ask("keys", math.floor(since / HOUR_S)))

    def key_parts(self, since: float) -> list[bytes]:
        """Give what `keys` is made of, as `parts.KEY_PARTS`."""
        return self._ask("key_parts", math.floor(since / HOUR_S))

    def series(self, since: float, until: float, step_s: float) -> tuple[Tick, ...]:
        """Count connections per step."""
        columns = self._ask("series", float(since), float(until), float(step_s))
        return tuple(Tick(since + step * step_s, *counts) for step, *counts in zip(*columns, strict=True))

    def series_parts(self, since: float, until: float, step_s: float) -> list[bytes]:
        """Give what `series` is made of, as `parts.SERIES_PARTS`."""
        return self._ask("series_parts", float(since), float(until), float(step_s))

    def count(self) -> int:
        """Count the records."""
        return int(self._ask("count"))


def _packed(keys: Iterable[FlowKey]) -> list[tuple[bytes, bytes, int, int]]:
    return [(pack16(one.source), pack16(one.destination), one.protocol, one.port) for one in keys]


def _ranges(networks: tuple[Network, ...]) -> list[tuple[bytes, bytes]]:
    ranges: list[tuple[bytes, bytes]] = []
    for network in networks:
        first, last = network.network_address, network.broadcast_address
        if isinstance(network, IPv6Network) and network.supernet_of(MAPPED):
            # The tables hold IPv4 addresses as mapped ones, which no IPv6 prefix means.
            ranges.append((first.packed, (MAPPED[0] - 1).packed))
            ranges.append(((MAPPED[-1] + 1).packed, last.packed))
        else:
            ranges.append((pack16(first), pack16(last)))
    return ranges
