"""What is questionable in a policy for a fleet: ends that match nobody, or more than they seem to; points missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from difflib import get_close_matches

from cellwall.analysis.algebra.census import Census
from cellwall.analysis.linting.findings import Check, Edit, EditKind, Finding, Severity, about, about_mode, listed
from cellwall.analysis.linting.notation import end_text, scalar
from cellwall.flows import Side
from cellwall.inventory import Fleet
from cellwall.labels import Operator, Requirement, Selector
from cellwall.policy import Action, Policy, Rule, Who

MOST_COMPARED = 2000


def ends(rule: Rule) -> tuple[tuple[str, tuple[Who, ...]], ...]:
    """Give the ends of a rule with the words that documents have for them."""
    return ("from", rule.source), ("to", rule.destination)


def replaced(rule: Rule, word: str, whos: tuple[Who, ...], old: Selector, new: Selector) -> tuple[Edit, ...]:
    """Give the edit that puts one selector in the place of another, in an end of a rule."""
    changed = (replace(who, selector=new) if who.selector == old else who for who in whos)
    return (Edit(EditKind.SET, rule.place, word, end_text(changed)),)


def selectors(policy: Policy, census: Census) -> Iterator[Finding]:
    """Selectors that match no workload, with what may have been meant; and ends that never share what they must."""
    for rule in (*policy.rules, *policy.lifelines):
        for word, whos in ends(rule):
            for who in whos:
                if who.selector is None or census.matching(who.selector):
                    continue
                # One alternative of several may be for what is still to come; all of them are the rule's end.
                alone = all(other.selector is not None and not census.matching(other.selector) for other in whos)
                severity = Severity.ERROR if alone else Severity.WARNING
                message = f"`{word}: {who.selector}` matches no workload"
                hint, meant = _nearest(who.selector, census)
                edits = replaced(rule, word, whos, who.selector, meant) if meant else ()
                yield about(rule, Check.MATCHES_NOTHING, severity, message, hint, edits=edits)
        if rule.same:
            sources, destinations = census.named(rule.source), census.named(rule.destination)
            # An end that names nobody is said already, as a selector that matches nothing.
            if sources and destinations and not census.sharing(sources, destinations, rule.same):
                message = f"no two workloads that it names share {' and '.join(f'`{key}`' for key in rule.same)}"
                yield about(rule, Check.NEVER_MATCHES, Severity.ERROR, message)
    for mode in policy.modes:
        if not census.matching(mode.where):
            message = f"`where: {mode.where}` matches no workload"
            hint, meant = _nearest(mode.where, census)
            edits = (Edit(EditKind.REPLACE, mode.place, text=scalar(str(meant))),) if meant else ()
            yield about_mode(mode, Check.MATCHES_NOTHING, Severity.WARNING, message, hint, edits)


def _nearest(selector: Selector, census: Census) -> tuple[str, Selector | None]:
    """Suggest what may have been meant: the nearest key, or the nearest value of a key that is there."""
    for one in selector.requirements:
        if one.key not in census.values:
            close = get_close_matches(one.key, list(census.values), n=1, cutoff=0.6)
            if close:
                meant = _instead(selector, one, replace(one, key=close[0]))
                return f"no workload has the label `{one.key}`; did you mean `{close[0]}`?", meant
            return f"no workload has the label `{one.key}`", None
        if one.operator is Operator.IN:
            known = list(census.values[one.key])
            missing = [value for value in one.values if value not in census.values[one.key]]
            if len(missing) == len(one.values):
                close = get_close_matches(missing[0], known[:MOST_COMPARED], n=1, cutoff=0.5)
                if close:
                    values = tuple(sorted({*one.values[1:], close[0]}))
                    return f"did you mean `{one.key}={close[0]}`?", _instead(selector, one, replace(one, values=values))
                there = ", ".join(f"`{value}`" for value in known[:8])
                return f"values of `{one.key}` are {there}", None
    return "its parts match, but never all on one workload", None


def _instead(selector: Selector, old: Requirement, new: Requirement) -> Selector:
    return Selector(tuple(sorted({new if one == old else one for one in selector.requirements})))


def absence(policy: Policy, census: Census) -> Iterator[Finding]:
    """Workloads that are matched only because they lack a label that is negated: they may yet get it."""
    for rule in (*policy.rules, *policy.lifelines):
        for word, whos in ends(rule):
            for selector in dict.fromkeys(who.selector for who in whos if who.selector is not None):
                if caught := _caught(selector, census):
                    message = f"`{word}: {selector}` also catches {listed(caught)}, without that label"
                    present = _present(selector)
                    hint = f"ask for the label too: `{present}`" if present else ""
                    edits = replaced(rule, word, whos, selector, present) if present else ()
                    yield about(rule, Check.CAUGHT_BY_ABSENCE, Severity.WARNING, message, hint, edits=edits)
    for mode in policy.modes:
        if caught := _caught(mode.where, census):
            message = f"`where: {mode.where}` also catches {listed(caught)}, without that label"
            yield about_mode(mode, Check.CAUGHT_BY_ABSENCE, Severity.WARNING, message)


def traps(rules: Iterable[Rule]) -> Iterator[Finding]:
    """Selectors that would match a workload that has not got a label yet; for a fleet that is not known."""
    for rule in rules:
        for word, whos in ends(rule):
            for selector in dict.fromkeys(who.selector for who in whos if who.selector is not None):
                held = {one.key for one in selector.requirements if one.operator in {Operator.IN, Operator.EXISTS}}
                keys = {one.key for one in selector.requirements if _by_absence(one)} - held
                if not keys:
                    continue
                message = f"`{word}: {selector}` also matches workloads that have no {listed(sorted(keys))} yet"
                present = _present(selector)
                hint = f"ask for the label too: `{present}`" if present else ""
                edits = replaced(rule, word, whos, selector, present) if present else ()
                yield about(rule, Check.CAUGHT_BY_ABSENCE, Severity.INFO, message, hint, edits=edits)


def _present(selector: Selector) -> Selector | None:
    """Give the selector that asks for the labels that it negates too; None where it asks for their absence."""
    keys = {one.key for one in selector.requirements if one.operator is Operator.NOT_IN}
    if not keys:
        return None
    added = (Requirement(key, Operator.EXISTS) for key in keys)
    return Selector(tuple(sorted({*selector.requirements, *added})))


def caught_by_absence(selector: Selector, fleet: Fleet) -> tuple[str, ...]:
    """Give the workloads that `selector` matches only because they lack a label that it negates, by name."""
    return tuple(_caught(selector, Census(fleet)))


def _caught(selector: Selector, census: Census) -> list[str]:
    lacking = 0
    for one in selector.requirements:
        if _by_absence(one):
            lacking |= census.everybody & ~census.has(one.key)
    return [one.name for one in census.workloads(lacking & census.matching(selector))] if lacking else []


def _by_absence(requirement: Requirement) -> bool:
    return requirement.operator in {Operator.NOT_IN, Operator.ABSENT}


def halves(rules: Iterable[Rule], census: Census) -> Iterator[Finding]:
    """Rules of which one end has no point, so that only the other enforces; or neither, so that none does."""
    for rule in rules:
        blind: list[Side] = []
        for side, whos in ((Side.EGRESS, rule.source), (Side.INGRESS, rule.destination)):
            found = census.named(whos)
            known = any(who.selector is not None or who.network is None for who in whos)
            if (found or not known) and not found & census.agents:
                blind.append(side)
        if len(blind) == 2:
            yield about(rule, Check.HALF, Severity.WARNING, "no end has a point: nothing enforces it")
        elif blind and rule.action is not Action.ALLOW:
            end = "source" if blind[0] is Side.EGRESS else "destination"
            other = "destination" if blind[0] is Side.EGRESS else "source"
            message = f"the {end} has no point: only the {other} enforces it"
            yield about(rule, Check.HALF, Severity.INFO, message)
