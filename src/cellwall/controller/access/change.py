"""Whether a change of policy or of labels stays where its author may make it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cellwall.controller.access.person import Person, may_see, may_touch
from cellwall.controller.access.rights import Right
from cellwall.controller.errors import Denied
from cellwall.controller.ground import Ground
from cellwall.controller.plan import Kind, Plan, PointPlan
from cellwall.inventory import Fleet, Workload
from cellwall.policy import Policy, Rule, Test


def seen_ground(person: Person, ground: Ground) -> Ground:
    """Give `ground` with the workloads alone that are `person`'s to see."""
    if person.may(Right.READ):
        return ground
    seen = tuple(one for one in ground.fleet.workloads if may_see(person, one))
    return replace(ground, fleet=Fleet(seen, ground.fleet.controllers))


def check_change(person: Person, before: Ground, after: Ground, plan: Plan, right: Right = Right.AUTHOR) -> None:
    """Raise `Denied` where a change of policy reaches beyond where `person` has `right`.

    Every rule, test, mode and declared workload that is added, removed or changed must be within it at both ends
    (networks aside), and so must every point where one of these rules, or the mode, changes. What is the whole fleet's
    (vocabulary, lifelines, rollout, approvals) needs the right everywhere.
    """
    if person.may(right):
        return
    changed = _check_documents(person, right, before.policy, after.policy)
    touched = [one.workload for one in plan.points if one.before is not one.after or _rules(one) & changed]
    may_touch(person, right, _workloads(touched, before.fleet, after.fleet))


def check_relabelling(
    person: Person, before: Ground, after: Ground, names: Sequence[str], plan: Plan, right: Right = Right.LABEL
) -> None:
    """Raise `Denied` where labels of `names`, or what they change at any point, are beyond where `person` may.

    A label is a way to whatever rules give it: so the points that would let the workload in count as touched."""
    if person.may(right):
        return
    touched = [*names, *(one.workload for one in plan.points if one.kind is not Kind.NONE)]
    may_touch(person, right, _workloads(touched, before.fleet, after.fleet))


def _check_documents(person: Person, right: Right, before: Policy, after: Policy) -> frozenset[str]:
    """Check what documents say, and give the ids of the rules that are not the same in both."""
    for what in ("labels", "lifelines", "rollout", "approvals"):
        if getattr(before, what) != getattr(after, what):
            raise Denied(
                f"`{what}` is the whole fleet's, and `{person.name}` may {right} only at {person.scope_text(right)}"
            )
    rules: set[str] = set()
    for kind, old, new in (("rule", before.rules, after.rules), ("test", before.tests, after.tests)):
        for one in _changed({one.id: one for one in old}, {one.id: one for one in new}):
            _check_ends(person, right, kind, one)
            rules.add(one.id)
    modes = {mode.where: mode for mode in before.modes}, {mode.where: mode for mode in after.modes}
    for one in _changed(*modes):
        if not person.may_within(right, one.where):
            raise _beyond(person, right, f"the mode of `{one.where}`")
    declared = {one.name: one for one in before.workloads}, {one.name: one for one in after.workloads}
    for one in _changed(*declared):
        if not person.may(right, one.labels):
            raise _beyond(person, right, f"workload `{one.name}`")
    return frozenset(rules)


def _changed(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Iterator[Any]:
    """Give what is not the same in both, as it was and as it is to be."""
    for key in sorted(old.keys() | new.keys(), key=str):
        if old.get(key) != new.get(key):
            yield from (one for one in (old.get(key), new.get(key)) if one is not None)


def _check_ends(person: Person, right: Right, kind: str, one: Rule | Test) -> None:
    ends = (*one.source, *one.destination)
    inside = [who for who in ends if who.selector is not None]
    anyone = any(who.selector is None and who.network is None for who in ends)
    if anyone or not inside or not all(person.may_within(right, who.selector) for who in inside if who.selector):
        raise _beyond(person, right, f"{kind} `{one.id}`")


def _beyond(person: Person, right: Right, what: str) -> Denied:
    return Denied(f"{what} reaches beyond where `{person.name}` may {right}: {person.scope_text(right)}")


def _rules(point: PointPlan) -> frozenset[str]:
    return frozenset((*point.added, *point.removed, *point.changed))


def _workloads(names: Sequence[str], *fleets: Fleet) -> list[Workload]:
    return [fleet.by_name[name] for name in dict.fromkeys(names) for fleet in fleets if name in fleet.by_name]
