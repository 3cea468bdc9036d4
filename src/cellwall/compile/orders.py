"""Orders become what points enforce: both ends as addresses, never as classes, so an order cuts no class anew.

What a point has of orders stands beside its rules: an order that comes or goes compiles nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cellwall.compile.rulebook import FIRST_ORDER, RULE_BITS, stable_number
from cellwall.compile.ruleset import AddressSpan, OrderCard, Way
from cellwall.inventory import Fleet, Workload
from cellwall.policy import Order, Party
from cellwall.traffic import Address

_ROOM_BITS = (1 << RULE_BITS) - FIRST_ORDER


class OrderBook:
    """The orders in force at one moment, resolved against one fleet."""

    def __init__(self, orders: Iterable[Order], fleet: Fleet, now: float) -> None:
        given = sorted((order for order in orders if order.in_time(now)), key=lambda order: order.id)
        self._fleet = fleet
        taken: set[int] = set()
        self._cards: list[tuple[Order, OrderCard]] = []
        self._parties: dict[Party, tuple[AddressSpan, ...] | None] = {}
        for order in given:
            number = stable_number(order.id, _ROOM_BITS.bit_length() - 1, taken)
            taken.add(number)
            ways = tuple(way for one, other in order.ways if (way := self._way(one, other)) is not None)
            spans = tuple((span.first, span.last) for span in order.ports.spans)
            card = OrderCard(FIRST_ORDER + number, order.id, order.kind, ways, spans, (), order.expires)
            self._cards.append((order, card))
        self._exempt = {order.id: _by_address(order.exempt) for order in given if order.exempt}
        self._shared: dict[tuple[int, ...], tuple[OrderCard, ...]] = {}

    def at(self, workload: Workload) -> tuple[OrderCard, ...]:
        """Give the orders that the point of `workload` is to enforce: those of whose flows it may be an end.

        Where nobody is exempt, points with the same orders are given the same object: it is written once for all."""
        found: list[OrderCard] = []
        for order, card in self._cards:
            if not any(self._is(party, workload) for way in order.ways for party in way):
                continue
            pairs = self._exempt.get(order.id)
            if pairs is not None:
                mine = {pair for address in workload.addresses for pair in pairs.get(address, ())}
                card = replace(card, exempt=tuple(sorted((one.packed, other.packed) for one, other in mine)))
            found.append(card)
        return self._shared.setdefault(tuple(map(id, found)), tuple(found)) if not self._exempt else tuple(found)

    def _is(self, party: Party, workload: Workload) -> bool:
        # An address that another workload owns is not this one's, but its packets may be: by all it may have.
        return party.anyone or any(party.has(address, workload.name, workload.labels) for address in workload.addresses)

    def _way(self, one: Party, other: Party) -> Way | None:
        sources, destinations = self._spans(one), self._spans(other)
        # Nobody on one side: there is no such flow.
        return None if sources is None or destinations is None else Way(sources, destinations)

    def _spans(self, party: Party) -> tuple[AddressSpan, ...] | None:
        """Give the addresses of a party: none where it is anyone, None where it is nobody."""
        if party.anyone:
            return ()
        if party not in self._parties:
            spans = [
                AddressSpan(one.version, int(one.network_address), int(one.broadcast_address)) for one in party.networks
            ]
            spans += [
                AddressSpan(address.version, int(address), int(address))
                for name in self._named(party)
                for address in self._fleet.by_name[name].addresses
                if self._fleet.by_address[address].name == name
            ]
            self._parties[party] = _merged(spans) or None
        return self._parties[party]

    def _named(self, party: Party) -> Iterable[str]:
        if not party.selectors:
            return [name for name in party.workloads if name in self._fleet.by_name]
        return [
            one.name
            for one in self._fleet.workloads
            if one.name in party.workloads or any(each.matches(one.labels) for each in party.selectors)
        ]


def _merged(spans: Iterable[AddressSpan]) -> tuple[AddressSpan, ...]:
    merged: list[AddressSpan] = []
    for span in sorted(spans):
        last = merged[-1] if merged else None
        if last is not None and last.version == span.version and span.first <= last.last + 1:
            merged[-1] = replace(last, last=max(last.last, span.last))
        else:
            merged.append(span)
    return tuple(merged)


def _by_address(pairs: Iterable[tuple[Address, Address]]) -> Mapping[Address, list[tuple[Address, Address]]]:
    found: dict[Address, list[tuple[Address, Address]]] = {}
    for pair in pairs:
        for address in pair:
            found.setdefault(address, []).append(pair)
    return found


def next_order_change(orders: Iterable[Order], now: float) -> float | None:
    """Give the next moment after `now` at which an order begins or expires; None where there is none."""
    moments = (moment for order in orders for moment in (order.begins, order.expires))
    return min((moment for moment in moments if moment is not None and moment > now), default=None)
