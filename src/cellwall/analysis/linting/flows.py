"""Rules against what was seen: those that no flow used, and those that allow more than the flows that used them."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, product

from cellwall.analysis.algebra.atoms import PORT, Universe
from cellwall.analysis.algebra.census import Census
from cellwall.analysis.algebra.cover import Dimension, bits_of, places
from cellwall.analysis.linting.covered import live
from cellwall.analysis.linting.findings import Check, Edit, EditKind, Finding, Severity, about, removal
from cellwall.analysis.linting.notation import end_text, one_or_list
from cellwall.analysis.seen.replay import Seen, distinct, identity_of
from cellwall.analysis.table.reach import Reach
from cellwall.flows import FlowRecord, Side
from cellwall.inventory import Fleet
from cellwall.labels import Operator, Requirement, Selector
from cellwall.policy import Action, Policy, Rule, Who
from cellwall.traffic import ICMPS, Address, PortSet, Span, point

HOUR_S, DAY_S = 3600.0, 86400.0
MOST_VALUES, MOST_PORTS, MOST_TRIED = 4, 16, 1000


@dataclass(frozen=True, slots=True)
class Observed:
    """Flow records, of which those count that were seen since `since` (seconds since the epoch)."""

    records: tuple[FlowRecord, ...]
    since: float = 0.0


@dataclass(slots=True)
class _Use:
    """What was seen of one rule: points of the line of ports, and the workloads at each end (None: no workload)."""

    points: set[int] = field(default_factory=set[int])
    sources: set[str | None] = field(default_factory=set["str | None"])
    destinations: set[str | None] = field(default_factory=set["str | None"])
    pairs: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])


def against_flows(policy: Policy, census: Census, observed: Observed, now: float) -> Iterator[Finding]:
    """Say which allows no flow used, and which allow more than the flows that used them, with a narrower rule.

    A rule is used by a flow that it matches at either end, whatever else does. Rules that only now start are left
    out, and so are denies and walls: they are there for what should not be seen."""
    if not observed.records:
        return  # Nobody watched: that says nothing of rules.
    kept = [one for one in observed.records if one.last_seen >= observed.since]
    reach = Reach(policy, census.fleet, now)
    uses = _uses(reach, distinct(kept))
    first = max(min((one.first_seen for one in kept), default=observed.since), observed.since)
    days = max(1, round((now - first) / DAY_S))
    hours = max(1, round((now - first) / HOUR_S))
    span = f"the last {days} days" if days > 1 else f"the last {hours} hours" if hours > 1 else "the last hour"
    allows = [one for one in policy.rules if one.action is Action.ALLOW and live(one, now) and one.in_time(now)]
    for rule in allows:
        use = uses.get(rule.id)
        if use is None:
            message = f"no flow of {span} used it"
            hint = "remove it, unless it is for what happens seldom"
            yield about(rule, Check.UNUSED_RULE, Severity.WARNING, message, hint, edits=removal(rule))
        else:
            yield from _narrower(rule, use, census, span)


def _uses(reach: Reach, flows: Iterable[Seen]) -> dict[str, _Use]:
    """Gather what was seen of each allow."""
    universe = Universe(reach.rules)
    ports = Dimension(universe.full[PORT], [universe.ports(rule.ports) for rule in reach.rules], 0)
    allows = bits_of(at for at, rule in enumerate(reach.rules) if rule.action is Action.ALLOW)
    used: dict[str, _Use] = defaultdict(_Use)
    for seen in flows:
        at = point(seen.key.protocol, seen.key.port)
        source = reach.kind(seen.key.source, identity_of(seen.process))
        bits = 0
        for server in seen.servers:
            target = reach.kind(seen.key.destination, identity_of(server))
            if source.example.agent:
                bits |= reach.concerned(Side.EGRESS, source, target)
            if target.example.agent:
                bits |= reach.concerned(Side.INGRESS, source, target)
        bits &= allows & ports.holding(bisect_right(universe.edges, at) - 1)
        ends = _name(reach.fleet, seen.key.source), _name(reach.fleet, seen.key.destination)
        for number in places(bits):
            use = used[reach.rules[number].id]
            use.points.add(at)
            use.sources.add(ends[0])
            use.destinations.add(ends[1])
            if ends[0] is not None and ends[1] is not None:
                use.pairs.add((ends[0], ends[1]))
    return used


def _name(fleet: Fleet, address: Address) -> str | None:
    owner = fleet.by_address.get(address)
    return owner.name if owner is not None else None


def _narrower(rule: Rule, use: _Use, census: Census, span: str) -> Iterator[Finding]:
    ports = _ports(rule.ports, use.points)
    ends = (_end(rule.source, use.sources, census), _end(rule.destination, use.destinations, census))
    edits: list[Edit] = []
    told: list[str] = []
    if ports != rule.ports:
        texts = [text.strip() for text in str(ports).split(",")]
        edits.append(Edit(EditKind.SET, rule.place, str(rule.action), one_or_list(texts)))
        told.append(f"`{rule.action}: {one_or_list(texts)}`")
    for word, was, becomes in (("from", rule.source, ends[0]), ("to", rule.destination, ends[1])):
        if becomes != was:
            edits.append(Edit(EditKind.SET, rule.place, word, end_text(becomes)))
            told.append(f"`{word}: {end_text(becomes)}`")
    if not edits:
        return
    whole, less = (
        census.pairs(census.named(one), census.named(other), rule.same)
        for one, other in ((rule.source, rule.destination), ends)
    )
    seen = len(use.pairs)
    message = f"the flows of {span} used {seen} of the {whole} pairs of workloads that it allows"
    if ports != rule.ports:
        message += f", and {ports} of {rule.ports}"
    hint = f"{' and '.join(told)} {'would do' if len(told) == 1 else 'would do together'}"
    hint += f", and allows {less} pairs" if less != whole else ""
    example = _beyond(rule, use, census)
    yield about(rule, Check.BROADER, Severity.INFO, message, hint, example=example, edits=tuple(edits))


def _ports(allowed: PortSet, seen: set[int]) -> PortSet:
    """Give the spans of `allowed` cut down to what was seen; one of which much was seen is kept whole."""
    kept: list[Span] = []
    for span in allowed.spans:
        inside = [at for at in seen if span.first <= at <= span.last]
        # Codes of an ICMP type are not services, and who uses many ports of a range may use any.
        whole = inside and (span.first >> 16 in ICMPS or len(inside) > MOST_PORTS)
        kept += [span] if whole else [Span(at, at) for at in inside]
    return PortSet.of(kept)


def _end(whos: tuple[Who, ...], seen: set[str | None], census: Census) -> tuple[Who, ...]:
    """Give an end that names all that were seen there and fewer others; the same where there is none."""
    if None in seen or any(who.network is not None for who in whos):
        return whos
    workloads = [census.fleet.by_name[name] for name in seen if name is not None]
    used = tuple(who for who in whos if any((who.selector or Selector()).matches(one.labels) for one in workloads))
    if len(used) > 1 or not used:
        return used or whos
    (who,) = used
    selector = who.selector or Selector()
    named = census.matching(selector)
    added: list[Requirement] = []
    while True:
        best: tuple[int, Requirement] | None = None
        for key in sorted(census.values):
            values = Counter(one.labels.get(key) for one in workloads)
            if None in values or len(values) > MOST_VALUES:
                continue
            asked = Requirement(key, Operator.IN, tuple(sorted(value for value in values if value is not None)))
            left = named & census.matching(Selector((asked,)))
            # A label that only these workloads have says who they are, not what: it would not serve the next one.
            if left != named and (best is None or left.bit_count() < best[0]) and _is_shared(key, census):
                best = left.bit_count(), asked
        if best is None:
            break
        added.append(best[1])
        named &= census.matching(Selector((best[1],)))
    if not added:
        return used
    kept = [one for one in selector.requirements if not any(one.key == new.key for new in added)]
    return (replace(who, selector=Selector(tuple(sorted({*kept, *added})))),)


def _is_shared(key: str, census: Census) -> bool:
    held = census.values[key]
    return len(held) * 2 <= sum(one.bit_count() for one in held.values()) or len(held) <= MOST_VALUES


def _beyond(rule: Rule, use: _Use, census: Census) -> str:
    """Name a pair of workloads that it allows and that was not seen, if one of the first pairs is."""
    sources, destinations = (census.workloads(census.named(whos)) for whos in (rule.source, rule.destination))
    for one, other in islice(product(islice(sources, MOST_TRIED), islice(destinations, MOST_TRIED)), MOST_TRIED):
        shared = all(key in one.labels and one.labels[key] == other.labels.get(key) for key in rule.same)
        if one is not other and shared and (one.name, other.name) not in use.pairs:
            return f"{one.name} → {other.name} was never seen"
    return ""
