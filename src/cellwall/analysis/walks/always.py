"""Whether a claim holds for every fleet: proven over labels and addresses themselves, not over the workloads there are.

A claim that nobody passes holds for every fleet, where at one end everything that the claim forbids is denied: by the
default, as no rule allows it, or by denies that hold all that the allows do. Only one hop can be known so: who else
there will be to go by, no policy says.
"""

from __future__ import annotations

from collections.abc import Iterator

from cellwall.analysis.algebra.atoms import Universe
from cellwall.analysis.algebra.cover import Cover, Proof
from cellwall.analysis.table.asked import Asked
from cellwall.analysis.table.rows import touch
from cellwall.flows import Side
from cellwall.inventory import Fleet
from cellwall.policy import BUILT_IN, Action, Claim, Policy, Rule, Who, controller_channel
from cellwall.traffic import PortSet


def for_every_fleet(
    policy: Policy, fleet: Fleet, now: float, claim: Claim, source: Asked, destination: Asked, ports: PortSet
) -> bool:
    """Say whether it is proven that a claim holds for every fleet at a single hop, from `now` on.

    That is under full enforcement, with labels of the vocabulary, where those that the claim calls workloads all have
    points; of `fleet` only the controllers count. False proves nothing."""
    written = (rule for rule in (*policy.lifelines, *policy.rules) if not rule.staged and not rule.refused)
    standing = [rule for rule in written if rule.expires is None or now < rule.expires]
    rules = [rule for rule in (*BUILT_IN, controller_channel(fleet.controllers), *standing) if touch(rule.ports, ports)]
    return any(
        _denied_at(side, rules, policy, now, claim, source, destination, ports)
        for side in _sides(claim, source, destination)
    )


def _sides(claim: Claim, source: Asked, destination: Asked) -> Iterator[Side]:
    """Give the ends at which there is always a point to deny: those that only workloads can be at."""
    if claim is not Claim.CAN and all(who.selector is not None for who in destination.whos):
        yield Side.INGRESS
    if claim is Claim.CANNOT and all(who.selector is not None for who in source.whos):
        yield Side.EGRESS


def _denied_at(
    side: Side,
    rules: list[Rule],
    policy: Policy,
    now: float,
    claim: Claim,
    source: Asked,
    destination: Asked,
    ports: PortSet,
) -> bool:
    named = Rule("named", Action.WALL, ports, source.whos, destination.whos, sides=frozenset({side}))
    anyone = Rule("anyone", Action.WALL, ports, (Who(),), destination.whos, sides=frozenset({side}))
    universe = Universe((*rules, named, anyone), policy.labels, None, now)
    cover = Cover(universe, (*rules, named, anyone))
    allowed = cover.of[-2] if claim is Claim.ONLY else 0
    forbidden = cover.of[-1] if claim is Claim.ONLY else cover.of[-2]
    denied = cover.tiers[Action.DENY]
    for box in (cover.boxes[at] for at in range(len(cover.boxes)) if forbidden >> at & 1):
        for action, unless in ((Action.LIFELINE, allowed), (Action.ALLOW, allowed | denied)):
            for _, both in cover.touching(box, cover.tiers[action]):
                if not isinstance(cover.covered([both], unless), Proof):
                    return False
    return True
