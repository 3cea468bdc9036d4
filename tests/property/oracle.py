"""What rules match, told to a solver: written from `policy.matches` alone, without atoms or boxes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cellwall.flows import Side
from cellwall.labels import Operator, Requirement
from cellwall.policy import BUILT_IN, Action, Identity, LabelKey, Rule, Who
from cellwall.traffic import LAST_POINT, PortSet

z3: Any = import_module("z3")
"""Untyped, so imported as anything."""


@dataclass
class End:
    """One end: whether it is a workload, its address, and its labels (0 is none)."""

    workload: Any
    address: Any
    labels: dict[str, Any]
    near: Any


class Oracle:
    """All looks there can be from `now` on, with the values of `vocabulary` where it lists them."""

    def __init__(self, rules: Iterable[Rule], vocabulary: Iterable[LabelKey], now: float) -> None:
        self.rules = tuple(rules)
        selectors = [
            who.selector for rule in self.rules for who in (*rule.source, *rule.destination) if who.selector is not None
        ]
        keys = {one.key for selector in selectors for one in selector.requirements}
        keys |= {key for rule in self.rules for key in rule.same}
        self.words: dict[str, int] = {}
        self.solver: Any = z3.Solver()
        self.egress, self.sixth = z3.Bool("egress"), z3.Bool("sixth")
        self.port, self.moment = z3.Int("port"), z3.Real("moment")
        self.near = {word: z3.Int(word) for word in ("user", "unit", "exe")}
        self.source = self._end("source", keys, self.egress)
        self.destination = self._end("destination", keys, z3.Not(self.egress))
        closed = {one.key: one.values for one in vocabulary if one.values}
        add = self.solver.add
        add(self.port >= 0, self.port <= LAST_POINT, self.moment >= now)
        for end in (self.source, self.destination):
            add(z3.Implies(z3.Not(self.sixth), z3.ULE(end.address, (1 << 32) - 1)))
            add(z3.Implies(end.near, end.workload))
            for key, value in end.labels.items():
                add(value >= 0)
                if key in closed:
                    add(z3.Or(value == 0, *(value == self._word(one) for one in closed[key])))
        add(*(value >= 0 for value in self.near.values()))
        add(self.source.address != self.destination.address)
        looped = z3.If(self.sixth, self.destination.address == 1, z3.LShR(self.destination.address, 24) == 127)
        add(z3.Not(looped))

    def _end(self, name: str, keys: Iterable[str], near: Any) -> End:
        labels = {key: z3.Int(f"{name}.{key}") for key in sorted(keys)}
        return End(z3.Bool(f"{name}.workload"), z3.BitVec(f"{name}.address", 128), labels, near)

    def _word(self, value: str) -> int:
        return self.words.setdefault(value, len(self.words) + 1)

    def only(self, rule: Rule, others: Iterable[Rule]) -> bool:
        """Say whether there is a look that `rule` matches, and none of `others`, nor a lifeline that is built in."""
        self.solver.push()
        self.solver.add(self.matches(rule))
        self.solver.add(*(z3.Not(self.matches(other)) for other in (*BUILT_IN, *others)))
        answer = self.solver.check()
        self.solver.pop()
        assert answer != z3.unknown
        return answer == z3.sat

    def apart(self, one: Iterable[Rule], other: Iterable[Rule]) -> bool:
        """Say whether there is a look that two sets of rules decide in different tiers."""
        self.solver.push()
        self.solver.add(self._tier(one) != self._tier(other))
        answer = self.solver.check()
        self.solver.pop()
        assert answer != z3.unknown
        return answer == z3.sat

    def _tier(self, rules: Iterable[Rule]) -> Any:
        told: Any = z3.IntVal(4)
        listed = (*BUILT_IN, *rules)
        for number, action in reversed(tuple(enumerate((Action.LIFELINE, Action.DENY, Action.ALLOW, Action.WALL)))):
            matching = z3.Or(*(self.matches(rule) for rule in listed if rule.action is action))
            told = z3.If(matching, z3.IntVal(number), told)
        return told

    def matches(self, rule: Rule) -> Any:
        """Say when `rule` matches, while it is in force."""
        sides = z3.Or(*(self.egress if side is Side.EGRESS else z3.Not(self.egress) for side in rule.sides))
        terms = [sides, self._ports(rule.ports)]
        if rule.starts is not None:
            terms.append(self.moment >= rule.starts)
        if rule.expires is not None:
            terms.append(self.moment < rule.expires)
        ends = (self.source, self.destination)
        for key in rule.same:
            mine, theirs = (end.labels[key] for end in ends)
            terms += [self.source.workload, self.destination.workload, mine != 0, mine == theirs]
        for end, whos in zip(ends, (rule.source, rule.destination), strict=True):
            terms.append(z3.Or(*(self._is(who, end, rule.action) for who in whos)))
        return z3.And(*terms)

    def _ports(self, ports: PortSet) -> Any:
        return z3.Or(*(z3.And(self.port >= span.first, self.port <= span.last) for span in ports.spans))

    def _is(self, who: Who, end: End, action: Action) -> Any:
        terms: list[Any] = [z3.BoolVal(True)]
        if who.selector is not None:
            terms.append(end.workload)
            terms += [self._passes(one, end) for one in who.selector.requirements]
        if who.network is not None:
            held: list[Any] = []
            for prefix in who.network.prefixes:
                first, last = int(prefix.network_address), int(prefix.broadcast_address)
                family = self.sixth if prefix.version == 6 else z3.Not(self.sixth)
                held.append(z3.And(family, z3.UGE(end.address, first), z3.ULE(end.address, last)))
            terms.append(z3.Or(*held))
        if who.identity:
            known = self._known(who.identity)
            terms.append(z3.If(end.near, known, z3.BoolVal(action is Action.ALLOW)))
        return z3.And(*terms)

    def _known(self, identity: Identity) -> Any:
        named = (("user", identity.user), ("unit", identity.unit), ("exe", identity.exe))
        return z3.And(*(self.near[word] == self._word(value) for word, value in named if value is not None))

    def _passes(self, one: Requirement, end: End) -> Any:
        value = end.labels[one.key]
        named = z3.Or(*(value == self._word(text) for text in one.values))
        if one.operator is Operator.IN:
            return named
        if one.operator is Operator.NOT_IN:
            return z3.Not(named)
        return value != 0 if one.operator is Operator.EXISTS else value == 0
