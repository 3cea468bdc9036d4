"""What was seen, with the verdicts that a policy gives it: the map of the past in the colours of the present."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from cellwall.analysis.seen.replay import identity_of
from cellwall.analysis.table.reach import Assume, Kind, Reach, holds
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.inventory import Fleet
from cellwall.policy import Policy
from cellwall.traffic import point


def recolour(policy: Policy, fleet: Fleet, records: Iterable[FlowRecord], now: float) -> tuple[FlowRecord, ...]:
    """Give `records` with the verdicts that `policy` gives at `now` (seconds since the epoch), and without rules.

    What the source's point denies never arrives: then the reports of the other end are left out. In order of key as
    first met, egress before ingress."""
    reach = Reach(policy, fleet, now)
    by_key: defaultdict[FlowKey, dict[Side, list[FlowRecord]]] = defaultdict(lambda: {side: [] for side in Side})
    for one in records:
        by_key[one.key][one.side].append(_judged(reach, one))
    found: list[FlowRecord] = []
    for ends in by_key.values():
        sent = ends[Side.EGRESS]
        found += sent
        if not sent or any(one.outcome is Outcome.ALLOWED for one in sent):
            found += ends[Side.INGRESS]
    return tuple(found)


def _judged(reach: Reach, one: FlowRecord) -> FlowRecord:
    at = point(one.key.protocol, one.key.port)
    local = identity_of(one.process)
    if one.side is Side.EGRESS:
        source, destination = reach.kind(one.key.source, local), reach.kind(one.key.destination)
    else:
        source, destination = reach.kind(one.key.source), reach.kind(one.key.destination, local)
    mine, theirs = (reach.fleet.by_address.get(address) for address in (one.key.source, one.key.destination))
    own = mine is not None and mine is theirs

    def verdict(assume: Assume, source: Kind = source, destination: Kind = destination) -> Outcome:
        passing = reach.passing_at(one.side, source, destination, assume, own=own)
        return Outcome.ALLOWED if holds(passing, at) else Outcome.DENIED

    return replace(one, outcome=verdict(Assume.MODES), would=verdict(Assume.ENFORCE), rules=())
