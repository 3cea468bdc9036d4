"""Roles: from names, programs and ports; then, for those without, from who behaves like whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from cellwall.classify.behaviour import EPHEMERAL, Behaviour, Service
from cellwall.classify.facts import Facts
from cellwall.classify.hints import Hint, Verdict, weigh
from cellwall.classify.knowledge import PORTS, PROCESSES
from cellwall.classify.names import Name, read_unit_name
from cellwall.traffic import point, port_name

SSH = (6, 22)
ALIKE = 0.6
"""Behaviour that two workloads must share, of all that either has, for one to lend the other its role."""


def find_roles(
    names: Mapping[str, Name], facts: Mapping[str, Facts], behaviour: Behaviour, known: Mapping[str, str]
) -> dict[str, Verdict]:
    """Give the likely role of every workload that is not in `known` (name → role), as far as there is one."""
    found: dict[str, Verdict] = {}
    for name in names:
        verdict = weigh(_own_hints(name, names[name], facts.get(name), behaviour))
        if name not in known and verdict is not None:
            found[name] = verdict
    roles = {**{name: verdict.value for name, verdict in found.items() if verdict.confidence >= 0.5}, **known}
    for name, verdict in _by_likeness(behaviour, roles).items():
        if name not in found or found[name].confidence < verdict.confidence:
            found[name] = verdict
    return found


def _own_hints(name: str, own: Name, facts: Facts | None, behaviour: Behaviour) -> list[Hint]:
    hints = [
        Hint(role, 0.7 if role == own.roles[-1] else 0.35, "name", f"`{role}` is in its name") for role in own.roles
    ]
    offered = dict.fromkeys(behaviour.serves[name], "is called")
    for one in facts.services if facts else ():
        service = one.protocol, one.port
        if (one.protocol, min(one.port, EPHEMERAL)) in behaviour.everywhere:
            continue
        offered[service] = "listens"
        if one.process in PROCESSES:
            hints.append(
                Hint(PROCESSES[one.process], 0.5, "process", f"`{one.process}` listens on {_written(service)}")
            )
        unit = read_unit_name(one.unit)
        if unit.roles:
            hints.append(Hint(unit.roles[-1], 0.5, "unit", f"`{unit.roles[-1]}` is in the name of `{one.unit}`"))
    for service, how in sorted(offered.items()):
        if service in PORTS and service not in behaviour.everywhere:
            hints.append(Hint(PORTS[service], 0.3, f"port {service}", f"{how} on {_written(service)}"))
    if name in behaviour.hubs:
        reached: defaultdict[tuple[int, int], int] = defaultdict(int)
        for _, service in behaviour.calls[name]:
            reached[service] += 1
        for service, count in sorted(reached.items()):
            if service in behaviour.everywhere and count >= 6:
                role = "bastion" if service == SSH else "monitoring"
                hints.append(Hint(role, 0.5, "reach", f"calls {_written(service)} of {count} workloads"))
    return hints


_Traits = Mapping[tuple[str, Service], frozenset[str]]
"""What a workload does: serving or calling a service → the known roles of those it does it with."""


def _by_likeness(behaviour: Behaviour, roles: Mapping[str, str]) -> dict[str, Verdict]:
    """Lend roles to those without one: workloads that serve and call the same things for the same roles are alike."""
    traits = {name: _traits(name, behaviour, roles) for name in behaviour.serves}
    holders: defaultdict[tuple[str, Service], list[str]] = defaultdict(list)
    for name in sorted(roles):
        for trait in traits.get(name, ()):
            holders[trait].append(name)
    found: dict[str, Verdict] = {}
    for name in sorted(behaviour.serves):
        if name in roles or not traits[name]:
            continue
        like = {other for trait in traits[name] for other in holders[trait]}
        share, other = max(((_share(traits[name], traits[one]), one) for one in sorted(like)), default=(0.0, ""))
        if share >= ALIKE:
            reason = f"serves and calls the same as `{other}`, whose role is `{roles[other]}` ({share:.0%})"
            found[name] = Verdict(roles[other], round(0.6 * share, 3), (reason,))
    return found


def _traits(name: str, behaviour: Behaviour, roles: Mapping[str, str]) -> _Traits:
    traits: defaultdict[tuple[str, Service], set[str]] = defaultdict(set)
    for service in behaviour.serves[name]:
        traits["serves", service] = set()
    for word, peers in (("calls", behaviour.calls[name]), ("serves", behaviour.callers[name])):
        for peer, service in peers:
            traits[word, service] |= {roles[peer]} if peer in roles else set()
    return {trait: frozenset(met) for trait, met in traits.items() if trait[1] not in behaviour.everywhere}


def _share(one: _Traits, other: _Traits) -> float:
    """Say how much two have in common, 0 to 1: a shared trait counts half, and by the roles met if both know them."""
    alike = 0.0
    for trait in one.keys() & other.keys():
        mine, theirs = one[trait], other[trait]
        alike += 0.5 + 0.5 * len(mine & theirs) / len(mine | theirs) if mine and theirs else 1.0
    return alike / len(one.keys() | other.keys())


def _written(service: tuple[int, int]) -> str:
    return port_name(point(*service))
