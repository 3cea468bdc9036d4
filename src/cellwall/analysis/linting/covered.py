"""Rules that never decide, because others decide all that they match: shadowed, redundant, contradicted, unreachable.

Why the algebra of boxes is enough. A point's verdict depends on which tiers have a rule that matches the look; the
tiers are lifeline, deny, allow, wall, and rules within one are a set. Take away a rule of which every look is matched
by the others of its own tier and those above: each look that it matched is decided by the same tier or one above it,
which decided it before as well, so verdict and verdict under enforcement stay, whatever the modes and the fleet.
The other way round, a look that only this rule matches among those falls to a tier below: an allow becomes a denial
under enforcement, a deny may become an allow, and a wall opens in mode `guard`. That look is the counterexample.

Rules are gone through from the narrowest, and one that never decides is left out before the next is asked about: all
that is reported can be taken away at once. Staged and refused rules are in force nowhere, and prove nothing. Modes are
not looked at: they change from day to day. A rule in force for some time is covered only where others are, all that
time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from cellwall.analysis.algebra.atoms import ALL, Universe
from cellwall.analysis.algebra.boxes import Box, Look, breadth
from cellwall.analysis.algebra.cover import MOST_STEPS, Cover, Gap, Proof, Undecided, places
from cellwall.analysis.algebra.looks import Example, example, region
from cellwall.analysis.linting.findings import Check, Finding, Severity, about, listed, removal
from cellwall.inventory import Fleet
from cellwall.policy import BUILT_IN, Action, Policy, Rule

TIERS = (Action.LIFELINE, Action.DENY, Action.ALLOW, Action.WALL)
DOES = {Action.LIFELINE: "allows", Action.DENY: "denies", Action.ALLOW: "allows", Action.WALL: "walls"}
MOST_OVERLAPS = 3


def live(rule: Rule, now: float) -> bool:
    """Say whether a rule is in force somewhere, at `now` or later."""
    return not rule.staged and not rule.refused and (rule.expires is None or now < rule.expires)


class Covered:
    """The rules of a policy against each other, from `now` on (seconds since the epoch), for any fleet.

    Label values are those of the vocabulary where it lists them, unless `fleet` has others. `gaps` has, for each rule
    that decides something, a look that it decides; `never` tells of those that never do, in the order they were left
    out, and `undecided` of those that could not be compared."""

    def __init__(self, policy: Policy, now: float, fleet: Fleet | None = None, most_steps: int = MOST_STEPS) -> None:
        rules = [rule for rule in (*policy.lifelines, *policy.rules) if live(rule, now)]
        self.universe = Universe(rules, policy.labels, fleet, now)
        self.cover = Cover(self.universe, (*BUILT_IN, *rules), most_steps)
        self.gaps: dict[int, Gap] = {}
        self.never: list[Finding] = []
        self.undecided: list[Finding] = []
        self._boxes: list[tuple[Box, ...]] = [
            tuple(self.cover.boxes[number] for number in places(bits)) for bits in self.cover.of
        ]
        for action in TIERS:
            self._tier(action)

    def partly(self) -> Iterator[Finding]:
        """Say which allows are denied in part, and where: good to know, for that is what denies are for."""
        for at, rule in enumerate(self.cover.rules):
            if rule.action is Action.ALLOW and at in self.gaps:
                yield from self._partly(at)

    def example(self, rule_id: str) -> Example | None:
        """Give a flow that only this rule decides as it is decided; None where it never decides."""
        at = next((at for at in self.gaps if self.cover.rules[at].id == rule_id), None)
        if at is None:
            return None
        cover, look = self.cover, self.gaps[at].look
        others = self._above(at) | (cover.tiers[cover.rules[at].action] & ~cover.of[at])
        for number, ends in product(range(len(look.pairs)), ((0, 1), (0,), (1,))):
            plainer = self._without_labels(look, ((number, end) for end in ends))
            if cover.holding(plainer, cover.of[at]) and not cover.holding(plainer, others):
                look = plainer
        return example(self.universe, look)

    def _without_labels(self, look: Look, labels: Iterable[tuple[int, int]]) -> Look:
        """Give a look without some labels, each a key (by number) and an end."""
        pairs = [list(pair) for pair in look.pairs]
        for number, end in labels:
            pairs[number][end] = len(self.universe.keys[number].values)
        return Look(look.plain, tuple((one, other) for one, other in pairs))

    def _above(self, at: int) -> int:
        above = 0
        for action in TIERS[: TIERS.index(self.cover.rules[at].action)]:
            above |= self.cover.tiers[action]
        return above

    def _tier(self, action: Action) -> None:
        cover = self.cover
        wanted = [at for at, rule in enumerate(cover.rules) if rule.action is action and rule not in BUILT_IN]
        sizes = {at: max((breadth(box, self.universe) for box in self._boxes[at]), default=0.0) for at in wanted}
        # Of two alike, the one that stands first is kept.
        placed = {at: number for number, at in enumerate(sorted(wanted, key=lambda at: cover.rules[at].place))}
        for at in sorted(wanted, key=lambda at: (sizes[at], len(self._boxes[at]), -placed[at])):
            found = self._judge(at)
            if found is not None:
                (self.undecided if found.check is Check.UNDECIDED else self.never).append(found)

    def _judge(self, at: int) -> Finding | None:
        cover, rule, boxes = self.cover, self.cover.rules[at], self._boxes[at]
        if not boxes:
            return about(
                rule,
                Check.NEVER_MATCHES,
                Severity.ERROR,
                f"no flow can match it: {self._why_never(rule)}",
                "remove it, or mend its ends",
                edits=removal(rule),
            )
        above = self._above(at)
        mine = cover.tiers[rule.action] & ~cover.of[at]
        told = cover.covered(boxes, above | mine)
        if isinstance(told, Gap):
            self.gaps[at] = told
            return None
        if isinstance(told, Undecided):
            message = "could not be compared with the others: too many overlap with parts of it"
            return about(rule, Check.UNDECIDED, Severity.INFO, message)
        found = self._classify(at, told, above, mine)
        cover.remove(at)
        return found

    def _classify(self, at: int, proof: Proof, above: int, mine: int) -> Finding:
        cover, rule, boxes = self.cover, self.cover.rules[at], self._boxes[at]
        does = DOES[rule.action]
        if above and isinstance(higher := cover.covered(boxes, above), Proof):
            higher = cover.least(boxes, higher, above)
            names, told = self._names(higher)
            actions = {cover.rules[one].action for one in higher.rules}
            if rule.action is Action.WALL:
                check, severity = Check.UNREACHABLE_WALL, Severity.WARNING
                message = f"never decides: all that it walls is decided by {told}"
            elif actions == {Action.LIFELINE} and rule.action is Action.ALLOW:
                check, severity = Check.REDUNDANT, Severity.WARNING
                message = f"never decides: all that it allows passes by {told}"
            else:
                check, severity = Check.CONTRADICTED, Severity.ERROR
                does_not = "let through" if rule.action is Action.DENY else "denied"
                message = f"never decides: all that it {does} is {does_not} by {told}"
            return about(rule, check, severity, message, "remove it, or narrow them", proof=names, edits=removal(rule))
        for other in self._alone(boxes, mine):
            names, told = self._names(Proof((other,)))
            again = isinstance(cover.covered(self._boxes[other], cover.of[at]), Proof)
            if again:
                kept = cover.rules[other]
                check, message = Check.DUPLICATE, f"says the same as `{kept.id}` ({kept.place})"
            else:
                check, message = Check.SHADOWED, f"{told} {does} all that it {does}"
            hint = "remove one of them" if again else "remove it"
            return about(rule, check, Severity.WARNING, message, hint, proof=names, edits=removal(rule))
        names, told = self._names(cover.least(boxes, proof, above | mine))
        message = f"never decides: {told} together decide all that it {does}"
        return about(rule, Check.REDUNDANT, Severity.WARNING, message, "remove it", proof=names, edits=removal(rule))

    def _alone(self, boxes: tuple[Box, ...], mine: int) -> Iterator[int]:
        """Give the rules that cover all by themselves."""
        cover = self.cover
        told = cover.covered(boxes[:1], 0)
        assert isinstance(told, Gap)
        for other in cover.owners(cover.holding(told.look, mine)):
            if isinstance(cover.covered(boxes, cover.of[other] & mine), Proof):
                yield other

    def _names(self, proof: Proof) -> tuple[tuple[str, ...], str]:
        rules = sorted((self.cover.rules[at] for at in proof.rules), key=lambda rule: (rule.place, rule.id))
        told = [f"{_word(rule)}`{rule.id}` ({rule.place})" for rule in rules[:MOST_OVERLAPS]]
        more = len(rules) - len(told)
        words = " and ".join(told) if len(told) < 3 and not more else ", ".join(told)
        return tuple(rule.id for rule in rules), words + (f" and {more} more" if more else "")

    def _why_never(self, rule: Rule) -> str:
        for word, whos in (("from", rule.source), ("to", rule.destination)):
            for who in whos:
                if who.selector is not None and self.universe.selected(who.selector) is None:
                    return f"`{word}: {who.selector}` asks more of a label than one value can be"
        if rule.same:
            return "its ends cannot share what `same` asks for"
        return "no address is at both of its ends' networks in one family, or it is loopback alone"

    def _partly(self, at: int) -> Iterator[Finding]:
        cover, rule = self.cover, self.cover.rules[at]
        by_rule: dict[int, list[Box]] = {}
        for box in self._boxes[at]:
            for number, both in cover.touching(box, cover.tiers[Action.DENY]):
                by_rule.setdefault(cover.owner[number], []).append(both)
        denies = {
            other: [both for both in found if isinstance(cover.covered((both,), cover.tiers[Action.LIFELINE]), Gap)]
            for other, found in by_rule.items()
        }
        names = [cover.rules[other] for other, found in denies.items() if found]
        if not names:
            return
        names.sort(key=lambda one: (one.place, one.id))
        first = next(found for other, found in denies.items() if cover.rules[other] is names[0])
        words = dict.fromkeys(region(self.universe, both) for both in first)
        told = cover.covered(first[:1], cover.tiers[Action.LIFELINE])
        assert isinstance(told, Gap)
        # Labels that the overlap leaves free would only be in the reader's way.
        free = [
            (number, end)
            for number, key in enumerate(self.universe.keys)
            for end, pair in product((0, 1), [first[0].pairs.get(number, self.universe.full_pairs[number])])
            if pair[0] == ALL and pair[1 + end] == key.full
        ]
        plainer = self._without_labels(told.look, free)
        look = told.look if cover.holding(plainer, cover.tiers[Action.LIFELINE]) else plainer
        yield about(
            rule,
            Check.PARTLY_CONTRADICTED,
            Severity.INFO,
            f"{listed([one.id for one in names])} {'denies' if len(names) == 1 else 'deny'} some of it: "
            + "; ".join(list(words)[:MOST_OVERLAPS])
            + (f" and {len(words) - MOST_OVERLAPS} more" if len(words) > MOST_OVERLAPS else ""),
            proof=tuple(one.id for one in names),
            example=example(self.universe, look).words,
        )


def _word(rule: Rule) -> str:
    return f"{rule.action} "
