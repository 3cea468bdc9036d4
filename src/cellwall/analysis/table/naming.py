"""How rules name ends, as a table sees them: who is named at which end, and which point can check it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cellwall.flows import Side
from cellwall.policy import Action, Rule, Who

Part = tuple[tuple[str, ...], tuple[str, ...]]
"""The ids of the rules that name an end, as the points of the source's and of the destination's side see it."""


def checks(word: str, side: Side) -> bool:
    """Say whether the point at `side` is that of the `word` end: it alone can check an identity there."""
    return (word == "source") is (side is Side.EGRESS)


def ends_of(rule: Rule, word: str) -> tuple[Who, ...]:
    """Give the `word` end of a rule, `source` or `destination`."""
    return rule.source if word == "source" else rule.destination


def seen_by(rule: Rule, word: str, side: Side) -> Iterator[Who]:
    """Give the ends of a rule as the point at `side` sees them: it lets an allow's far identity be, and no other's."""
    near = checks(word, side)
    return (who for who in ends_of(rule, word) if near or not who.identity or rule.action is Action.ALLOW)


def own_ends(rule: Rule) -> Iterator[Who]:
    """Give the ends of a rule at whose own points it is in force."""
    if Side.EGRESS in rule.sides:
        yield from rule.source
    if Side.INGRESS in rule.sides:
        yield from rule.destination


def number_part(parts: Iterable[Part], by_name: dict[object, int], named: list[Part]) -> int:
    """Give the number of the union of `parts`, in `named`; 0 is no rule."""
    egress = {rule_id for part in parts for rule_id in part[0]}
    ingress = {rule_id for part in parts for rule_id in part[1]}
    part = tuple(sorted(egress)), tuple(sorted(ingress))
    number = by_name.get(part)
    if number is None:
        if not any(part):
            number = 0
        else:
            number = len(named)
            named.append(part)
        by_name[part] = number
    return number


def bits_of(held: list[int], width: int) -> int:
    """Give an integer with these bits set."""
    if len(held) < 16:
        bits = 0
        for at in held:
            bits |= 1 << at
        return bits
    found = bytearray(width // 8 + 1)
    for at in held:
        found[at >> 3] |= 1 << (at & 7)
    return int.from_bytes(found, "little")
