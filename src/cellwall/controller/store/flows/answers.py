"""What other controllers ask of a flow store that has no worker to answer them, answered as the worker does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Network, ip_network, summarize_address_range
from typing import Any

import msgspec

from cellwall.controller.store.flows.asker import ASKED, MAPPED
from cellwall.controller.store.flows.columns import OUTCOMES, to_columns, unpack16
from cellwall.controller.store.flows.contract import HOUR_S, FlowStoreError, Query
from cellwall.controller.store.flows.together import OwnFlows
from cellwall.flows import FlowKey
from cellwall.traffic import EVERYTHING, Network, PortSet, Span, canonical


def answered(store: OwnFlows, request: bytes) -> bytes:
    """Answer the content of a frame with that of one."""
    call, arguments = msgspec.msgpack.decode(request)
    try:
        return msgspec.msgpack.encode((None, _answer(store, call, *arguments)))
    except FlowStoreError as error:
        return msgspec.msgpack.encode((str(error), None))


def _answer(store: OwnFlows, call: str, *arguments: Any) -> Any:
    match call, arguments:
        case "flows", (asked,):
            found = store.flows(_query(**asked))
            return to_columns(end for flow in found for end in (flow.egress, flow.ingress) if end is not None)
        case "edges", (since, until):
            return to_columns(store.edges(since * HOUR_S, math.inf if until is None else until * HOUR_S))
        case "tuples", (since,):
            return to_columns(store.tuples(since * HOUR_S))
        case "tuples_of", (since, keys):
            return to_columns(store.tuples_of(since * HOUR_S, _keys(keys)))
        case "key_parts", (since,):
            return store.key_parts(since * HOUR_S)
        case "series_parts", (since, until, step_s):
            return store.series_parts(since, until, step_s)
        case _:
            raise FlowStoreError(f"there is no question `{call}`; wanted one of `{'`, `'.join(ASKED)}`")


def _query(**asked: Any) -> Query:
    ports, after = asked["ports"], asked["after"]
    outcome, would = (None if asked[name] is None else OUTCOMES[int(asked[name])] for name in ("outcome", "would"))
    return Query(
        asked["since"],
        math.inf if asked["until"] is None else asked["until"],
        _networks(asked["source"]),
        _networks(asked["destination"]),
        EVERYTHING if ports is None else PortSet.of(Span(first, last) for first, last in ports),
        outcome,
        would,
        asked["limit"],
        None if after is None else (after[0], _keys([after[1:]])[0]),
        frozenset(_keys(asked["keys"])),
    )


def _keys(packed: Iterable[Any]) -> list[FlowKey]:
    return [FlowKey(unpack16(one), unpack16(other), protocol, port) for one, other, protocol, port in packed]


def _networks(ranges: Iterable[tuple[bytes, bytes]]) -> tuple[Network, ...]:
    return tuple(
        _narrow(wide)
        for first, last in ranges
        for wide in summarize_address_range(IPv6Address(first), IPv6Address(last))
    )


def _narrow(wide: IPv6Network) -> Network:
    """Give the network of IPv4 that is mapped, where one is."""
    if not wide.subnet_of(MAPPED):
        return wide
    return ip_network((canonical(wide.network_address), wide.prefixlen - 96))
