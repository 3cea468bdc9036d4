"""Which rules decide at which points: overlapping rules become disjoint spans with one action each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cellwall.policy import Action, Rule

PRECEDENCE = (Action.LIFELINE, Action.DENY, Action.ALLOW, Action.WALL)


@dataclass(frozen=True, slots=True, order=True)
class Resolved:
    """The points `first` to `last` get `action`, because of `rules` (ids, sorted): all of that action that match."""

    first: int
    last: int
    action: Action
    rules: tuple[str, ...]


def resolve(rules: Sequence[Rule]) -> tuple[Resolved, ...]:
    """Give the meaning of `rules`, all of which match the ends: disjoint spans in order, neighbours never alike.

    Points that no rule names are in no span.
    """
    edges: dict[int, list[tuple[bool, Rule]]] = {}
    for rule in rules:
        for span in rule.ports.spans:
            edges.setdefault(span.first, []).append((True, rule))
            edges.setdefault(span.last + 1, []).append((False, rule))
    active: dict[Action, set[str]] = {action: set() for action in PRECEDENCE}
    found: list[Resolved] = []
    ordered = sorted(edges)
    for index, edge in enumerate(ordered):
        for begins, rule in edges[edge]:
            if not begins:
                active[rule.action].discard(rule.id)
        for begins, rule in edges[edge]:
            if begins:
                active[rule.action].add(rule.id)
        action = next((action for action in PRECEDENCE if active[action]), None)
        if action is None:
            continue
        last = ordered[index + 1] - 1
        because = tuple(sorted(active[action]))
        if found and found[-1].last == edge - 1 and (found[-1].action, found[-1].rules) == (action, because):
            found[-1] = Resolved(found[-1].first, last, action, because)
        else:
            found.append(Resolved(edge, last, action, because))
    return tuple(found)


def difference(whole: tuple[Resolved, ...], common: tuple[Resolved, ...]) -> tuple[Resolved, ...]:
    """Give the parts of `whole` that differ from `common` in action or rules.

    Whatever `common` names, `whole` names too, because its rules are a superset.
    """
    found: list[Resolved] = []
    at = 0
    for one in whole:
        first = one.first
        while at < len(common) and common[at].last < first:
            at += 1
        index = at
        while index < len(common) and common[index].first <= one.last:
            other = common[index]
            if (other.action, other.rules) == (one.action, one.rules):
                if other.first > first:
                    found.append(Resolved(first, other.first - 1, one.action, one.rules))
                first = max(first, other.last + 1)
            index += 1
        if first <= one.last:
            found.append(Resolved(first, one.last, one.action, one.rules))
    return tuple(found)
