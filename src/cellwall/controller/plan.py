"""What a change of policy does to every point, worked out before it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cellwall.compile import Members, Misfit, Ruleset
from cellwall.controller.core import Standing, Wanted, holds, travels_alone
from cellwall.enforce import Scales, Weight
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

    `changed` are rules that are there before and after, with other services, action, place of effect or end.
    `weight` is about what its table takes after, None where nothing changes; `room` how many bytes of memory its host
    said that it can give, 0 where that is not known; `whole` whether all of it is sent, and not only who moves."""

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
    weight: Weight | None = None
    room: int = 0
    whole: bool = True

    @property
    def shortage(self) -> str:
        """Why its agent would refuse it, and whose move it is; empty where it would not."""
        return "" if self.weight is None or not self.whole else shortage(self.weight, self.room)


@dataclass(frozen=True)
class Plan:
    """What happens at all points, in order of name; and the points that go, whose workloads are no more."""

    points: tuple[PointPlan, ...]

    @property
    def misfits(self) -> tuple[tuple[str, Misfit], ...]:
        """What points cannot express: workload and misfit."""
        return tuple((point.workload, misfit) for point in self.points for misfit in point.misfits)

    @property
    def cramped(self) -> tuple[PointPlan, ...]:
        """The points whose hosts have not the memory to write it: they would refuse."""
        return tuple(point for point in self.points if point.shortage)

    def count(self, kind: Kind) -> int:
        """Count the points where so much changes."""
        return sum(point.kind is kind for point in self.points)


def shortage(weight: Weight, room: int) -> str:
    """Say why a host that can give `room` bytes (0: not known) would refuse to write a table, and whose move it is;
    empty where it would not."""
    if not room or weight.peak <= room:
        return ""
    return (
        f"to write its table of about {weight.elements} elements takes {-(-weight.peak >> 20)} MiB of memory, and its "
        f"host can give {room >> 20} MiB: free some there, or raise its agent's `--most-memory`"
    )


def refusals(
    wanted: Mapping[str, Wanted], standings: Mapping[str, Standing], rooms: Mapping[str, int]
) -> dict[str, str]:
    """Say which points would refuse what they are to be sent, in order of name, and why.

    `rooms` are the bytes of memory that hosts can give, by name."""
    scales, short = Scales(), dict[str, str]()
    for name in sorted(wanted.keys() & rooms.keys()):
        one, standing = wanted[name], standings.get(name)
        if standing is None or not holds(standing, one):
            why = shortage(scales.weigh(one.ruleset, len(one.members)), rooms[name])
            if why:
                short[name] = why
    return short


def refusal(wanted: Mapping[str, Wanted], standings: Mapping[str, Standing], rooms: Mapping[str, int]) -> str:
    """Say which points would refuse what they are to be sent, the first by name, and why; empty where none would."""
    return first_of(refusals(wanted, standings, rooms))


def first_of(short: Mapping[str, str]) -> str:
    """Write `refusals` in a line, the first by name; empty where there are none."""
    first = next(iter(short), "")
    more = f"; and {len(short) - 1} more would" if len(short) > 1 else ""
    return f"`{first}` would refuse it: {short[first]}{more}" if short else ""


def make_plan(
    before: Mapping[str, Wanted], after: Mapping[str, Wanted], rooms: Mapping[str, int] | None = None
) -> Plan:
    """Compare what points are to hold; `rooms` are the bytes of memory that hosts can give, by name.

    What many points share is compared, and weighed, once."""
    moves: dict[tuple[int, int], tuple[int, int]] = {}
    scales, rooms = Scales(), rooms or {}

    def moved(old: Members, new: Members) -> tuple[int, int]:
        # Both are kept by those who want them: so no others can have their identities.
        key = id(old), id(new)
        if key not in moves:
            joining, leaving = change_between(old, new)
            moves[key] = len(joining), len(leaving)
        return moves[key]

    def plan_point(name: str) -> PointPlan:
        return _plan_point(name, before.get(name), after[name], moved, scales, rooms.get(name, 0))

    return Plan(tuple(map(plan_point, sorted(after))))


def _plan_point(
    name: str,
    before: Wanted | None,
    after: Wanted,
    moved: Callable[[Members, Members], tuple[int, int]],
    scales: Scales,
    room: int,
) -> PointPlan:
    size = len(after.members)
    if before is None:
        return PointPlan(
            name,
            Kind.REFILL,
            None,
            after.ruleset.mode,
            added=tuple(sorted(card.id for card in after.ruleset.rules)),
            joining=size,
            misfits=after.misfits,
            weight=scales.weigh(after.ruleset, size),
            room=room,
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
        weight=scales.weigh(after.ruleset, size),
        room=room,
        whole=not alike or not travels_alone(joining + leaving, size),
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
