"""Two policies side by side: the ends that neither tells apart, and what passes between them in one and not the other.

Only where a rule that differs speaks, ends can fare differently, unless they themselves differ: then all is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from cellwall.analysis.table.reach import Assume, all_identities, places_outside
from cellwall.analysis.table.rows import MakeRows, live_rules, touch
from cellwall.analysis.table.table import CONTROLLERS
from cellwall.analysis.table.ways import Ruling
from cellwall.inventory import Fleet, Workload
from cellwall.policy import Action, Endpoint, Policy, Rule, controller_channel, endpoint
from cellwall.traffic import EVERYTHING, Address, PortSet

OPENING = frozenset({Action.ALLOW, Action.LIFELINE})


@dataclass(frozen=True, slots=True)
class State:
    """A policy and the fleet that it is for."""

    policy: Policy
    fleet: Fleet


@dataclass(frozen=True, slots=True)
class Unit:
    """An address, with what it was and what it is."""

    title: str
    address: Address
    before: Endpoint
    after: Endpoint

    @property
    def known(self) -> Endpoint:
        """What it is, or was where it is nobody's any more."""
        return self.after if self.after.workload is not None else self.before


class Both:
    """Two policies, and what they differ in: rules, and the ends where these are not the same."""

    def __init__(self, make: MakeRows, before: State, after: State, now: float, assume: Assume) -> None:
        self.states = (before, after)
        self.units = tuple(_units(*self.states))
        live = tuple({rule.id: rule for rule in live_rules(one.policy, one.fleet, now)} for one in self.states)
        self.differing = tuple(_differing(*live))
        moved = any(unit.before != unit.after for unit in self.units)
        modes = assume is Assume.MODES and any(
            before.policy.mode_of(unit.before.labels) is not after.policy.mode_of(unit.after.labels)
            for unit in self.units
            if unit.before.agent
        )
        self.everywhere = moved or modes
        region = EVERYTHING if self.everywhere else union(rule.ports for _, rule in self.differing)
        self.near = tuple(tuple(rule for rule in rules.values() if touch(rule.ports, region)) for rules in live)
        rules = [rule for some in self.near for rule in some]
        written = [rule for one in self.states for rule in rules if rule.id in one.policy.by_id]
        self.whos = tuple(dict.fromkeys(who for rule in written for who in (*rule.source, *rule.destination)))
        self.identities = all_identities(who.identity for who in self.whos)
        self.sames = tuple(sorted({rule.same for rule in rules if rule.same}, key=lambda same: (len(same), same)))
        # Both tables are about the rules near by alone, and tell apart what either has to.
        policies = [_only(one.policy, near, assume) for one, near in zip(self.states, self.near, strict=True)]
        self.tables = tuple(
            make(
                policies[side],
                one.fleet,
                now,
                assume,
                # The other's networks may be others by the same names.
                books=[replace(book, name=f"other {book.name}") for book in policies[1 - side].used_networks],
                selectors=policies[1 - side].selectors,
            )
            for side, one in enumerate(self.states if self.everywhere or self.differing else ())
        )
        self.names = tuple(sorted({unit.title for unit in self.units}))
        self.number = {name: at for at, name in enumerate(self.names)}

    def ruling(self, side: int, rule: Rule) -> Ruling:
        """Name a rule that differs, and say what became of it."""
        word = "changed" if rule.id in self.states[1 - side].policy.by_id else ("removed", "added")[side]
        return Ruling(rule.id, f"{word} {rule.action}", str(rule.place))


def moves(side: int, rule: Rule) -> bool:
    """Say whether a rule that is on one side alone opens something: it came and allows, or went and denied."""
    return (side == 1) is (rule.action in OPENING)


def _units(before: State, after: State) -> Iterator[Unit]:
    owned = {**before.fleet.by_address, **after.fleet.by_address}
    for address, workload in sorted(owned.items(), key=lambda one: (one[1].name, one[0].version, int(one[0]))):
        yield Unit(workload.name, address, endpoint(before.fleet, address), endpoint(after.fleet, address))
    books = [book for one in (before, after) for book in one.policy.used_networks]
    for one in (before, after):
        listening = controller_channel(one.fleet.controllers).destination[0].network
        books += [replace(listening, name=CONTROLLERS)] if listening is not None else []
    everybody = Fleet((Workload("everybody", addresses=tuple(owned)),))
    for title, end in places_outside(books, everybody):
        yield Unit(title.replace(f"network:{CONTROLLERS}", CONTROLLERS), end.address, end, end)


def _differing(before: Mapping[str, Rule], after: Mapping[str, Rule]) -> Iterator[tuple[int, Rule]]:
    """Give the rules of each side, by number, that mean what no rule of the other means that is not there as well."""
    sides = (before, after)
    left = [[rule for name, rule in own.items() if rule != other.get(name)] for own, other in (sides, sides[::-1])]
    meanings = [set(map(_meaning, rules)) for rules in left]
    for side, rules in enumerate(left):
        yield from ((side, rule) for rule in rules if _meaning(rule) not in meanings[1 - side])


def _only(policy: Policy, rules: Iterable[Rule], assume: Assume) -> Policy:
    """Give `policy` with these of its rules alone, and its modes where they count."""
    names = {rule.id for rule in rules}
    return replace(
        policy,
        rules=tuple(rule for rule in policy.rules if rule.id in names),
        lifelines=tuple(rule for rule in policy.lifelines if rule.id in names),
        modes=policy.modes if assume is Assume.MODES else (),
    )


def _meaning(rule: Rule) -> object:
    ends = frozenset(rule.source), frozenset(rule.destination)
    return rule.action, rule.ports, *ends, rule.same, rule.sides


def union(some: Iterable[PortSet]) -> PortSet:
    """Give all ports of `some`."""
    return PortSet.of(span for ports in some for span in ports.spans)
