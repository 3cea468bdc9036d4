"""Has the kernel forget connections that an isolation shuts, so that their supposed replies are looked at too."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import suppress
from itertools import islice

from cellwall.clients import KernelError
from cellwall.compile import Members, Ruleset, judge
from cellwall.flows import Outcome, Side
from cellwall.observe import (
    Connection,
    delete_connection,
    host_addresses,
    open_conntrack,
    unpack_address,
    walk_connections,
)
from cellwall.policy import OrderKind, Tier
from cellwall.traffic import PORTED, Address, point

MOST_LOOKED_AT = 200_000
_BOTH_WAYS = (OrderKind.ISOLATE, OrderKind.SEAL)


def forget_shut(ruleset: Ruleset, members: Members) -> int:
    """Take the connections that an isolation or a seal shuts out of conntrack; give how many there were.

    Their packets are then judged as of a new connection, whichever end sends them, and both directions are shut. Of
    other orders nothing is forgotten: the way back, which they do not speak of, would begin the connection anew.
    """
    if not any(card.kind in _BOTH_WAYS for card in ruleset.orders):
        return 0
    forgotten = 0
    with suppress(KernelError):
        here = frozenset(one.address for one in host_addresses().reachable)
        with open_conntrack() as link:
            for one in list(_shut(ruleset, members, here)):
                forgotten += delete_connection(one.original, link)
    return forgotten


def _shut(ruleset: Ruleset, members: Members, here: Container[Address]) -> Iterator[Connection]:
    orders = [card for card in ruleset.orders if card.kind in _BOTH_WAYS]
    ids = {card.id for card in orders}
    for one in islice(walk_connections(), MOST_LOOKED_AT):
        # As our table sees it: after its target and before its source is translated.
        source, destination = unpack_address(one.original.source), unpack_address(one.reply.source)
        protocol, ported = one.original.protocol, one.original.protocol in PORTED
        port = one.reply.sport if ported else one.original.dport
        if not any(card.speaks_of(source, destination, point(protocol, port)) for card in orders):
            continue
        side = Side.EGRESS if source in here else Side.INGRESS
        ends = (source, destination) if side is Side.EGRESS else (destination, source)
        found = judge(ruleset, members, side, *ends, protocol, port)
        if found.tier is Tier.ORDER and found.outcome is Outcome.DENIED and ids.intersection(found.rules):
            yield one
