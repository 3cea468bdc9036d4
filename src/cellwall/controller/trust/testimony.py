"""What is believed of the flows that an agent reports: its own ends, at moments that can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cellwall.flows import FlowRecord, Side
from cellwall.inventory import Workload
from cellwall.traffic import Address

AHEAD_S, BACK_S = 300.0, 30 * 86_400.0
"""How far from now the moments of a report may be: a host's clock may be wrong, and what it tells some time old."""


def credible(
    records: Sequence[FlowRecord], reporter: str, owners: Mapping[Address, Workload], now: float
) -> tuple[FlowRecord, ...]:
    """Give the records that `reporter` may have seen; those of an end that is another workload's are left out.

    Who sees egress is the source, who sees ingress the destination. An address that is nobody's passes: link-local
    ones, groups, and those that a host had a moment ago. A record seen last later or earlier than it can have been is
    moved to when it can: the store's tables have a part for each day, and take no insert that goes into too many.
    """
    oldest, newest = now - BACK_S, now + AHEAD_S
    found: list[FlowRecord] = []
    for one in records:
        own = owners.get(one.key.source if one.side is Side.EGRESS else one.key.destination)
        if own is not None and own.name != reporter:
            continue
        if not (oldest <= one.last_seen <= newest and one.first_seen <= one.last_seen):
            last = min(max(one.last_seen, oldest), newest)
            one = replace(one, first_seen=min(one.first_seen, last), last_seen=last)
        found.append(one)
    return tuple(found)
