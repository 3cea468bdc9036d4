"""Marks the open connections that orders shut, so that what answers in them is refused too.

The kernel takes conntrack's word for what is a reply, and looks no further: without the mark a server could go on
sending in a connection whose client is shut out. What shuts is told by `judge`, so what a lifeline or an opening lets
through is left alone.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import suppress
from itertools import islice
from math import inf

from cellwall.clients import KernelError
from cellwall.compile import Members, OrderCard, Ruleset, judge
from cellwall.enforce import cut_mark
from cellwall.flows import Outcome, Side
from cellwall.observe import (
    Connection,
    host_addresses,
    mark_connection,
    open_conntrack,
    unpack_address,
    walk_connections,
)
from cellwall.policy import Tier
from cellwall.traffic import PORTED, Address, point

MOST_LOOKED_AT = 200_000


def mark_shut(ruleset: Ruleset, members: Members) -> int:
    """Mark the tracked connections that orders shut, unmark those that they shut no longer; give how many are shut.

    The mark does nothing by itself: the chain that looks at it holds each order's for as long as the order lasts.
    """
    if not any(card.shuts for card in ruleset.orders):
        return 0
    shut = 0
    with suppress(KernelError):
        here = frozenset(one.address for one in host_addresses().reachable)
        with open_conntrack() as link:
            for one, mark in list(_marked(ruleset, members, here)):
                shut += mark != 0
                if one.mark != mark:
                    mark_connection(one.original, mark, link)
    return shut


def _marked(ruleset: Ruleset, members: Members, here: Container[Address]) -> Iterator[tuple[Connection, int]]:
    """Give the connections that are to have a mark of ours, and those that have one and are to have none."""
    orders = [card for card in ruleset.orders if card.shuts]
    ours = {cut_mark(card.number) for card in orders}
    for one in islice(walk_connections(), MOST_LOOKED_AT):
        # As our table sees it: after its target and before its source is translated.
        source, destination = unpack_address(one.original.source), unpack_address(one.reply.source)
        protocol, ported = one.original.protocol, one.original.protocol in PORTED
        port = one.reply.sport if ported else one.original.dport
        speaking = [card for card in orders if card.speaks_of(source, destination, point(protocol, port))]
        mark = 0
        if speaking:
            side = Side.EGRESS if source in here else Side.INGRESS
            ends = (source, destination) if side is Side.EGRESS else (destination, source)
            found = judge(ruleset, members, side, *ends, protocol, port)
            if found.tier is Tier.ORDER and found.outcome is Outcome.DENIED:
                mark = cut_mark(_last(card for card in speaking if card.id in found.rules).number)
        if mark or one.mark in ours:
            yield one, mark


def _last(cards: Iterator[OrderCard]) -> OrderCard:
    """Give the order that lasts longest: its mark holds for as long as one of them shuts."""
    return max(cards, key=lambda card: inf if card.expires is None else card.expires)
