"""What is questionable in a valid policy: rules that do nothing, do more than they say, or that nobody owns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from cellwall.flows import Side
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Operator, Requirement, Selector
from cellwall.policy import Action, ModeRule, Place, Policy, Rule, Who


class Severity(StrEnum):
    """How much a finding matters: the policy does not do what it says; it may not; good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Check(StrEnum):
    """What was found."""

    MATCHES_NOTHING = "matches-nothing"
    NEVER_MATCHES = "never-matches"
    REFUSED = "refused"
    STAGED = "staged"
    EXPIRED = "expired"
    NOT_STARTED = "not-started"
    CAUGHT_BY_ABSENCE = "caught-by-absence"
    OWNERLESS = "ownerless"
    DUPLICATE = "duplicate"
    HALF = "half"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, about a rule (`subject` is its id), a mode or a name; `hint` says what to do."""

    check: Check
    severity: Severity
    subject: str
    place: Place
    message: str
    hint: str = ""


def lint(policy: Policy, fleet: Fleet, now: float) -> tuple[Finding, ...]:
    """Look over `policy` with the workloads of `fleet` at `now` (seconds since the epoch); in order of place."""
    found = [
        *_rules_out_of_force(policy.rules, now),
        *_selectors(policy, fleet),
        *_absence(policy, fleet),
        *_duplicates(policy.rules),
        *_halves(policy.rules, fleet),
        *_owners(policy.rules),
        *_unused(policy),
    ]
    return tuple(sorted(found, key=lambda one: (one.place, list(Severity).index(one.severity), one.check, one.message)))


def _rules_out_of_force(rules: Iterable[Rule], now: float) -> Iterator[Finding]:
    for rule in rules:
        if rule.refused:
            yield _about(rule, Check.REFUSED, Severity.ERROR, f"the rule is in force nowhere: {rule.refused}")
        if rule.staged:
            yield _about(rule, Check.STAGED, Severity.INFO, "the rule is staged: reported, not enforced")
        if rule.expires is not None and rule.expires <= now:
            yield _about(rule, Check.EXPIRED, Severity.WARNING, "the rule has expired", "remove it, or move its end")
        elif rule.starts is not None and now < rule.starts:
            yield _about(rule, Check.NOT_STARTED, Severity.INFO, "the rule has not started")


def _selectors(policy: Policy, fleet: Fleet) -> Iterator[Finding]:
    values: defaultdict[str, set[str]] = defaultdict(set)
    for workload in fleet.workloads:
        for key, value in workload.labels.items():
            values[key].add(value)
    matched: dict[Selector, bool] = {}

    def matches(selector: Selector) -> bool:
        if selector not in matched:
            matched[selector] = any(selector.matches(workload.labels) for workload in fleet.workloads)
        return matched[selector]

    for rule in (*policy.rules, *policy.lifelines):
        for word, whos in (("from", rule.source), ("to", rule.destination)):
            for who in whos:
                if who.selector is None or matches(who.selector):
                    continue
                # One alternative of several may be for what is still to come; all of them are the rule's end.
                alone = not any(_holds_any(other, matched, fleet) for other in whos)
                severity = Severity.ERROR if alone else Severity.WARNING
                message = f"`{word}: {who.selector}` matches no workload"
                yield _about(rule, Check.MATCHES_NOTHING, severity, message, _nearest(who.selector, values))
        if rule.same and not _can_share(rule, fleet):
            message = f"no two workloads that it names share {' and '.join(f'`{key}`' for key in rule.same)}"
            yield _about(rule, Check.NEVER_MATCHES, Severity.ERROR, message)
    for mode in policy.modes:
        if not matches(mode.where):
            message = f"`where: {mode.where}` matches no workload"
            yield _about_mode(mode, Check.MATCHES_NOTHING, Severity.WARNING, message, _nearest(mode.where, values))


def _holds_any(who: Who, matched: dict[Selector, bool], fleet: Fleet) -> bool:
    if who.selector is None:
        return True
    if who.selector not in matched:
        matched[who.selector] = any(who.selector.matches(workload.labels) for workload in fleet.workloads)
    return matched[who.selector]


def _can_share(rule: Rule, fleet: Fleet) -> bool:
    ends: list[set[tuple[str, ...]]] = []
    for whos in (rule.source, rule.destination):
        found = [one for one in fleet.workloads if any(_named(who, one) for who in whos)]
        if not found:
            return True  # Said already, as a selector that matches nothing.
        ends.append({tuple(one.labels[key] for key in rule.same) for one in found if set(rule.same) <= set(one.labels)})
    return bool(ends[0] & ends[1])


def _named(who: Who, workload: Workload) -> bool:
    if who.selector is not None:
        return who.selector.matches(workload.labels)
    return who.network is None or any(address in who.network for address in workload.addresses)


def _nearest(selector: Selector, values: dict[str, set[str]]) -> str:
    """Suggest what may have been meant: the nearest key, or the nearest value of a key that is there."""
    for requirement in selector.requirements:
        if requirement.key not in values:
            close = get_close_matches(requirement.key, sorted(values), n=1, cutoff=0.6)
            if close:
                return f"no workload has the label `{requirement.key}`; did you mean `{close[0]}`?"
            return f"no workload has the label `{requirement.key}`"
        if requirement.operator is Operator.IN:
            missing = [value for value in requirement.values if value not in values[requirement.key]]
            if len(missing) == len(requirement.values):
                close = get_close_matches(missing[0], sorted(values[requirement.key]), n=1, cutoff=0.5)
                if close:
                    return f"did you mean `{requirement.key}={close[0]}`?"
                there = ", ".join(f"`{value}`" for value in sorted(values[requirement.key])[:8])
                return f"values of `{requirement.key}` are {there}"
    return "its parts match, but never all on one workload"


def _absence(policy: Policy, fleet: Fleet) -> Iterator[Finding]:
    for rule in (*policy.rules, *policy.lifelines):
        for word, whos in (("from", rule.source), ("to", rule.destination)):
            for selector in dict.fromkeys(who.selector for who in whos if who.selector is not None):
                if caught := _caught(selector, fleet):
                    message = f"`{word}: {selector}` also catches {_listed(caught)}, which have no such label"
                    keys = ",".join(one.key for one in selector.requirements if one.operator is Operator.NOT_IN)
                    hint = f"ask for the label too: `{keys},{selector}`" if keys else ""
                    yield _about(rule, Check.CAUGHT_BY_ABSENCE, Severity.WARNING, message, hint)
    for mode in policy.modes:
        if caught := _caught(mode.where, fleet):
            message = f"`where: {mode.where}` also catches {_listed(caught)}, which have no such label"
            yield _about_mode(mode, Check.CAUGHT_BY_ABSENCE, Severity.WARNING, message)


def caught_by_absence(selector: Selector, fleet: Fleet) -> tuple[str, ...]:
    """Give the workloads that `selector` matches only because they lack a label that it negates, by name."""
    return tuple(_caught(selector, fleet))


def _caught(selector: Selector, fleet: Fleet) -> list[str]:
    negated = [one for one in selector.requirements if _by_absence(one)]
    return [
        workload.name
        for workload in fleet.workloads
        if negated and selector.matches(workload.labels) and any(one.key not in workload.labels for one in negated)
    ]


def _by_absence(requirement: Requirement) -> bool:
    return requirement.operator in {Operator.NOT_IN, Operator.ABSENT}


def _duplicates(rules: Iterable[Rule]) -> Iterator[Finding]:
    meaning: dict[object, Rule] = {}
    for rule in rules:
        ends = frozenset(rule.source), frozenset(rule.destination)
        at = rule.action, rule.ports, *ends, rule.same, rule.starts, rule.expires, rule.staged, rule.refused
        first = meaning.setdefault(at, rule)
        if first is not rule:
            message = f"says the same as `{first.id}` ({first.place})"
            yield _about(rule, Check.DUPLICATE, Severity.WARNING, message, "remove one of them")


def _halves(rules: Iterable[Rule], fleet: Fleet) -> Iterator[Finding]:
    """Rules of which one end has no point, so that only the other enforces; or neither, so that none does."""
    for rule in rules:
        blind: list[Side] = []
        for side, whos in ((Side.EGRESS, rule.source), (Side.INGRESS, rule.destination)):
            found = [one for one in fleet.workloads if any(_named(who, one) for who in whos)]
            known = any(who.selector is not None or who.network is None for who in whos)
            if (found or not known) and not any(one.agent for one in found):
                blind.append(side)
        if len(blind) == 2:
            message = "no end has a point: nothing enforces it"
            yield _about(rule, Check.HALF, Severity.WARNING, message)
        elif blind and rule.action is not Action.ALLOW:
            end = "source" if blind[0] is Side.EGRESS else "destination"
            other = "destination" if blind[0] is Side.EGRESS else "source"
            message = f"the {end} has no point: only the {other} enforces it"
            yield _about(rule, Check.HALF, Severity.INFO, message)


def _owners(rules: Iterable[Rule]) -> Iterator[Finding]:
    for rule in rules:
        if not rule.owner:
            yield _about(rule, Check.OWNERLESS, Severity.INFO, "nobody owns the rule", "say who in `owner`")


def _unused(policy: Policy) -> Iterator[Finding]:
    tested = (who for test in policy.tests for who in (*test.source, *test.destination))
    networks = {who.network.name for who in tested if who.network is not None} | {b.name for b in policy.used_networks}
    for book in policy.networks:
        if book.name not in networks:
            yield Finding(Check.UNUSED, Severity.INFO, book.name, book.place, f"network `{book.name}` is used nowhere")
    services = {name for one in (*policy.rules, *policy.lifelines, *policy.tests) for name in one.services}
    for service in policy.services:
        if service.name not in services:
            message = f"service `{service.name}` is used nowhere"
            yield Finding(Check.UNUSED, Severity.INFO, service.name, service.place, message)


def _about(rule: Rule, check: Check, severity: Severity, message: str, hint: str = "") -> Finding:
    return Finding(check, severity, rule.id, rule.place, message, hint)


def _about_mode(mode: ModeRule, check: Check, severity: Severity, message: str, hint: str = "") -> Finding:
    return Finding(check, severity, str(mode.where), mode.place, message, hint)


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
