"""Ends of rules that name everybody without saying so, and rules that let everything through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cellwall.analysis.algebra.atoms import FAR_WORKLOAD, SCENE, Universe
from cellwall.analysis.algebra.boxes import Box, boxes_of
from cellwall.analysis.algebra.cover import Cover, Proof
from cellwall.analysis.linting.findings import Check, Edit, EditKind, Finding, Severity, about
from cellwall.analysis.linting.fleet import ends
from cellwall.policy import Action, Policy, Rule, Who
from cellwall.traffic import EVERYTHING

ANYONE = (Who(),)


def everybody(policy: Policy, universe: Universe) -> Iterator[Finding]:
    """Ends that match every workload, or every address, though they are not written as `any`."""
    told: dict[tuple[Who, ...], str] = {}
    in_universe = set(universe.rules)
    for rule in policy.rules:
        open_to_all = rule.ports == EVERYTHING and rule.source == ANYONE == rule.destination and not rule.same
        if rule.action is Action.ALLOW and open_to_all:
            message = "allows everything that no rule denies, from anybody to anybody"
            yield about(rule, Check.MATCHES_ALL, Severity.WARNING, message, "name who may")
        for word, whos in ends(rule):
            if not _may_be_all(whos) or rule not in in_universe:
                continue
            if whos not in told:
                told[whos] = _extent(whos, universe)
            if told[whos] == "any":
                message = f"`{word}` names every address there is, and so matches anybody"
                edits = (Edit(EditKind.SET, rule.place, word, "any"),)
                yield about(rule, Check.MATCHES_ALL, Severity.INFO, message, "write `any`", edits=edits)
            elif told[whos]:
                message = f"`{word}` matches every workload, whatever its labels"
                yield about(rule, Check.MATCHES_ALL, Severity.INFO, message, "name those that are meant")


def _may_be_all(whos: tuple[Who, ...]) -> bool:
    """Say whether it is worth asking: one selector that asks for something cannot match everybody."""
    if any(who.selector is None and who.network is None for who in whos):
        return False
    return (
        len(whos) > 1
        or any(who.selector is not None and not who.selector.requirements for who in whos)
        or any(who.network is not None and any(not prefix.prefixlen for prefix in who.network.prefixes) for who in whos)
    )


def _extent(whos: tuple[Who, ...], universe: Universe) -> str:
    some = Rule("end", Action.ALLOW, EVERYTHING, whos, ANYONE)
    all_of = boxes_of(universe, replace(some, source=ANYONE))
    cover = Cover(universe, (some,))
    if isinstance(cover.covered(all_of, cover.alive), Proof):
        return "any"
    workloads = [Box((box.plain[SCENE] & FAR_WORKLOAD, *box.plain[1:]), box.pairs) for box in all_of]
    return "workloads" if isinstance(cover.covered(workloads, cover.alive), Proof) else ""
