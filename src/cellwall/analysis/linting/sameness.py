"""Whether two policies mean the same, for any fleet and from now on: proven, or shown by flows."""

from __future__ import annotations

from collections.abc import Iterator

from cellwall.analysis.algebra.atoms import Universe
from cellwall.analysis.algebra.cover import MOST_STEPS, Cover, Gap, Proof, Undecided, places
from cellwall.analysis.algebra.looks import Example, example
from cellwall.analysis.linting.covered import TIERS, live
from cellwall.policy import BUILT_IN, Policy, Rule
from cellwall.traffic import CellwallError


class TooEntangledError(CellwallError):
    """Two policies whose rules overlap too much to be compared."""


def told_apart(one: Policy, other: Policy, now: float, most_steps: int = MOST_STEPS) -> Iterator[Example]:
    """Give a flow for each rule of one policy by which the other decides otherwise; none where both mean the same.

    A point's verdict is that of the first tier with a rule that matches, so the policies agree where each rule of one
    is covered by rules of the other in its own tier and those above, and the other way round. Modes are taken to be
    the same, and label values to be those of the vocabularies, where these list them. Raises `TooEntangledError`."""
    sides = [[rule for rule in (*policy.lifelines, *policy.rules) if live(rule, now)] for policy in (one, other)]
    values = {key.key: key for key in one.labels}
    vocabulary = [key for key in other.labels if values.get(key.key) == key]
    universe = Universe((*sides[0], *sides[1]), vocabulary, None, now)
    cover = Cover(universe, (*BUILT_IN, *sides[0], *sides[1]), most_steps)
    first, second = len(BUILT_IN), len(BUILT_IN) + len(sides[0])
    built_in = cover.boxes_of(range(first))
    groups = (range(first, second), range(second, len(cover.rules)))
    for own, others in (groups, groups[::-1]):
        theirs = built_in | cover.boxes_of(others)
        known = {_meaning(cover.rules[at]) for at in others}
        for at in own:
            rule = cover.rules[at]
            if _meaning(rule) in known:
                continue
            among = 0
            for action in TIERS[: TIERS.index(rule.action) + 1]:
                among |= cover.tiers[action] & theirs
            told = cover.covered([cover.boxes[number] for number in places(cover.of[at])], among)
            match told:
                case Gap(look):
                    yield example(universe, look)
                case Undecided():
                    raise TooEntangledError(f"rule `{rule.id}` overlaps with too many others to be compared")
                case Proof():
                    pass


def _meaning(rule: Rule) -> object:
    ends = frozenset(rule.source), frozenset(rule.destination)
    return rule.action, rule.ports, *ends, rule.same, rule.sides, rule.starts, rule.expires
