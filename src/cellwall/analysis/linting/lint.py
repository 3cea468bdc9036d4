"""What is questionable in a valid policy: rules that do nothing, do more than they say, or that nobody owns.

The checks are in `docs/design/analysis.md`, in one table. Those of rules against each other hold for any fleet and are
exact (`lint_cover.py`); those for a fleet are in `lint_fleet.py`, those against what was seen in `lint_flows.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from cellwall.analysis.algebra.census import Census
from cellwall.analysis.linting.covered import Covered, live
from cellwall.analysis.linting.ends import everybody
from cellwall.analysis.linting.findings import Check, Edit, EditKind, Finding, Severity, about, listed, removal
from cellwall.analysis.linting.fleet import absence, caught_by_absence, halves, selectors, traps
from cellwall.analysis.linting.flows import Observed, against_flows
from cellwall.analysis.linting.notation import one_or_list, scalar
from cellwall.inventory import Fleet
from cellwall.policy import Place, Policy, Rule, Service
from cellwall.traffic import NOTHING, PortSet, parse_ports

__all__ = ["Check", "Covered", "Edit", "Finding", "Observed", "Severity", "caught_by_absence", "lint"]


def lint(policy: Policy, fleet: Fleet | None, now: float, observed: Observed | None = None) -> tuple[Finding, ...]:
    """Look over `policy` at `now` (seconds since the epoch); in order of place.

    With a `fleet`, also for what its workloads make of it; with flows that were seen in it, also against those."""
    covered = Covered(policy, now, fleet)
    found = [
        *_rules_out_of_force(policy.rules, now),
        *covered.never,
        *covered.undecided,
        *covered.partly(),
        *everybody(policy, covered.universe),
        *_duplicates(rule for rule in policy.rules if not live(rule, now)),
        *_owners(policy.rules),
        *_services(policy),
        *_unused(policy),
    ]
    if fleet is None:
        found += traps((*policy.rules, *policy.lifelines))
    else:
        census = Census(fleet)
        never = [one for one in covered.never if one.check is Check.NEVER_MATCHES]
        told = {one.subject: (Check.NEVER_MATCHES, Check.MATCHES_NOTHING) for one in never}
        found += (one for one in selectors(policy, census) if one.check not in told.get(one.subject, ()))
        found += [*absence(policy, census), *halves(policy.rules, census)]
        if observed is not None:
            found += against_flows(policy, census, observed, now)
    return tuple(sorted(found, key=lambda one: (one.place, list(Severity).index(one.severity), one.check, one.message)))


def _rules_out_of_force(rules: Iterable[Rule], now: float) -> Iterator[Finding]:
    for rule in rules:
        if rule.refused:
            yield about(rule, Check.REFUSED, Severity.ERROR, f"the rule is in force nowhere: {rule.refused}")
        if rule.staged:
            yield about(rule, Check.STAGED, Severity.INFO, "the rule is staged: reported, not enforced")
        if rule.expires is not None and rule.expires <= now:
            message, hint = "the rule has expired", "remove it, or move its end"
            yield about(rule, Check.EXPIRED, Severity.WARNING, message, hint, edits=removal(rule))
        elif rule.starts is not None and now < rule.starts:
            yield about(rule, Check.NOT_STARTED, Severity.INFO, "the rule has not started")


def _duplicates(rules: Iterable[Rule]) -> Iterator[Finding]:
    """Rules that say the same in the same words, of those in force nowhere; the others are compared exactly."""
    meaning: dict[object, Rule] = {}
    for rule in rules:
        ends = frozenset(rule.source), frozenset(rule.destination)
        at = rule.action, rule.ports, *ends, rule.same, rule.starts, rule.expires, rule.staged, rule.refused
        first = meaning.setdefault(at, rule)
        if first is not rule:
            message = f"says the same as `{first.id}` ({first.place})"
            yield about(
                rule,
                Check.DUPLICATE,
                Severity.WARNING,
                message,
                "remove one of them",
                proof=(first.id,),
                edits=removal(rule),
            )


def _owners(rules: Iterable[Rule]) -> Iterator[Finding]:
    for rule in rules:
        if not rule.owner:
            yield about(rule, Check.OWNERLESS, Severity.INFO, "nobody owns the rule", "say who in `owner`")


def _services(policy: Policy) -> Iterator[Finding]:
    """Named services that share ports, and rules that name a service twice over."""
    by_name = {service.name: service for service in policy.services if service.application is None}
    shared: defaultdict[str, list[Service]] = defaultdict(list)
    active: list[tuple[int, Service]] = []
    spans = sorted(
        ((span, service) for service in by_name.values() for span in service.ports.spans), key=lambda one: one[0]
    )
    for span, service in spans:
        active = [one for one in active if one[0] >= span.first]
        for _, other in active:
            first, later = sorted((service, other), key=lambda one: (one.place, one.name))
            if first is not later and first not in shared[later.name]:
                shared[later.name].append(first)
        active.append((span.last, service))
    for name, others in shared.items():
        service = by_name[name]
        both = NOTHING
        for other in others:
            both |= service.ports & other.ports
        names = sorted(other.name for other in others)
        alone = service.ports == others[0].ports if len(others) == 1 else False
        message = f"service `{name}` {'is the same as' if alone else f'shares {both} with'} {listed(names)}"
        yield Finding(Check.SERVICES_OVERLAP, Severity.INFO, name, service.place, message, proof=tuple(names))
    for rule in policy.rules:
        if len(rule.services) > 1 and not rule.refused:
            yield from _twice_over(rule, by_name)


def _twice_over(rule: Rule, services: dict[str, Service]) -> Iterator[Finding]:
    kept = list(rule.services)
    ports = {name: services[name].ports if name in services else parse_ports(name) for name in kept}
    for name in reversed(rule.services):
        others: PortSet = NOTHING
        for other in kept:
            others |= ports[other] if other is not name else NOTHING
        if not ports[name] - others:
            kept.remove(name)
    if len(kept) < len(rule.services):
        gone = [name for name in rule.services if name not in kept]
        message = f"{listed(gone)} {'is' if len(gone) == 1 else 'are'} among the other services that it lists"
        edit = Edit(EditKind.SET, rule.place, str(rule.action), one_or_list(scalar(name) for name in kept))
        yield about(
            rule, Check.SERVICES_OVERLAP, Severity.WARNING, message, f"list {listed(kept)} alone", edits=(edit,)
        )


def _unused(policy: Policy) -> Iterator[Finding]:
    tested = (who for test in policy.tests for who in (*test.source, *test.destination))
    networks = {who.network.name for who in tested if who.network is not None} | {b.name for b in policy.used_networks}
    for book in policy.networks:
        if book.name not in networks:
            yield _idle(book.name, book.place, f"network `{book.name}` is used nowhere")
    services = {name for one in (*policy.rules, *policy.lifelines, *policy.tests) for name in one.services}
    for service in policy.services:
        if service.name not in services:
            yield _idle(service.name, service.place, f"service `{service.name}` is used nowhere")


def _idle(name: str, place: Place, message: str) -> Finding:
    edits = (Edit(EditKind.REMOVE, place),) if place.line else ()
    return Finding(Check.UNUSED, Severity.INFO, name, place, message, edits=edits)
