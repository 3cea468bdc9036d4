"""What a change of policy does to every point, worked out before it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cellwall.compile import Members, Misfit, Ruleset
from cellwall.controller.core import Wanted
from cellwall.policy import Mode
from cellwall.wire import change_between


class Kind(StrEnum):
    """How much of a point changes: nothing; some addresses; the ruleset."""

    NONE = "none"
    ELEMENTS = "elements"
    REFILL = "refill"


@dataclass(frozen=True, slots=True)
class PointPlan:
    """What happens at one point. `before` is None where it has held nothing. Rules are ids, in order.

    `changed` are rules that are there before and after, with other services, action, place of effect or end."""

    workload: str
    kind: Kind
    before: Mode | None
    after: Mode
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    joining: int = 0
    leaving: int = 0
    misfits: tuple[Misfit, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What happens at all points, in order of name; and the points that go, whose workloads are no more."""

    points: tuple[PointPlan, ...]

    @property
    def misfits(self) -> tuple[tuple[str, Misfit], ...]:
        """What points cannot express: workload and misfit."""
        return tuple((point.workload, misfit) for point in self.points for misfit in point.misfits)

    def count(self, kind: Kind) -> int:
        """Count the points where so much changes."""
        return sum(point.kind is kind for point in self.points)


def make_plan(before: Mapping[str, Wanted], after: Mapping[str, Wanted]) -> Plan:
    """Compare what points are to hold. What many points share is compared once."""
    moves: dict[tuple[int, int], tuple[int, int]] = {}

    def moved(old: Members, new: Members) -> tuple[int, int]:
        # Both are kept by those who want them: so no others can have their identities.
        key = id(old), id(new)
        if key not in moves:
            joining, leaving = change_between(old, new)
            moves[key] = len(joining), len(leaving)
        return moves[key]

    return Plan(tuple(_plan_point(name, before.get(name), after[name], moved) for name in sorted(after)))


def _plan_point(
    name: str, before: Wanted | None, after: Wanted, moved: Callable[[Members, Members], tuple[int, int]]
) -> PointPlan:
    if before is None:
        rules = tuple(sorted(card.id for card in after.ruleset.rules))
        return PointPlan(
            name, Kind.REFILL, None, after.ruleset.mode, rules, joining=len(after.members), misfits=after.misfits
        )
    if before.digest == after.digest:
        return PointPlan(name, Kind.NONE, before.ruleset.mode, after.ruleset.mode, misfits=after.misfits)
    joining, leaving = moved(before.members, after.members)
    alike = before.content == after.content
    kind = Kind.ELEMENTS if alike else Kind.REFILL
    old, new = ({}, {}) if alike else (_rules(before.ruleset), _rules(after.ruleset))
    return PointPlan(
        name,
        kind,
        before.ruleset.mode,
        after.ruleset.mode,
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(rule for rule in new.keys() & old.keys() if old[rule] != new[rule])),
        joining=joining,
        leaving=leaving,
        misfits=after.misfits,
    )


def _rules(ruleset: Ruleset) -> dict[str, frozenset[object]]:
    """Give what each rule does here: its card without its place, and its entries."""
    found: dict[str, set[object]] = {}
    for card in ruleset.rules:
        found[card.id] = {(card.action, card.log, card.expires, card.services)}
    by_number = ruleset.rule_by_number
    for face in ruleset.faces:
        for side, entries in (("ingress", face.ingress), ("egress", face.egress)):
            for entry in entries:
                for number in entry.rules:
                    if number in by_number:
                        at = (side, face.identity, entry.peer, entry.first, entry.last, entry.action)
                        found[by_number[number].id].add(at)
    return {rule: frozenset(does) for rule, does in found.items()}
