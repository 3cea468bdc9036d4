"""Applications: groups of workloads that talk among themselves, and the word that their names have in common."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from cellwall.classify.behaviour import EPHEMERAL, Behaviour
from cellwall.classify.facts import Facts
from cellwall.classify.hints import Hint, Verdict, weigh
from cellwall.classify.names import Name, read_unit_name

TOO_COMMON = 0.6
"""A word in more of the names than this is that of a site or a company, if most names have another."""
ALIKE = 0.6


@dataclass(frozen=True, slots=True)
class Group:
    """Workloads that talk among themselves; `app` is the best word for them, with its support from 0 to 1."""

    members: tuple[str, ...]
    app: str = ""
    support: float = 0.0
    reason: str = ""


def find_words(
    names: Mapping[str, Name], facts: Mapping[str, Facts], behaviour: Behaviour
) -> dict[str, dict[str, float]]:
    """Give, per workload, the words of its name and its units that may name an application, with their weights."""
    holders = Counter(word for name in names.values() for word in set(name.rest))
    common = {word for word, count in holders.items() if count > TOO_COMMON * len(names)}
    others = sum(1 for name in names.values() if set(name.rest) - common)
    if 2 * others < len(names):
        common = set[str]()
    words: dict[str, dict[str, float]] = {}
    for workload, name in names.items():
        own = {word: 1.0 for word in name.rest if word not in common}
        for one in facts[workload].services if workload in facts else ():
            if (one.protocol, min(one.port, EPHEMERAL)) in behaviour.everywhere:
                continue
            unit = read_unit_name(one.unit)
            for word in unit.rest:
                # A unit with the name of its program says what runs, not what for.
                weight = 0.8 if unit.roles else 0.1 if word == one.process else 0.3
                own[word] = max(own.get(word, 0.0), weight if word not in common else 0.0)
        words[workload] = own
    return words


def name_groups(
    groups: tuple[tuple[str, ...], ...],
    words: Mapping[str, Mapping[str, float]],
    known: Mapping[str, str],
    roles: Mapping[str, str],
) -> tuple[Group, ...]:
    """Give each group the word that most of its members support; a known label counts twice.

    A group without a word takes that of the one group that has the same roles in it."""
    named: list[Group] = []
    for members in groups:
        support: defaultdict[str, float] = defaultdict(float)
        for member in members:
            if member in known:
                support[known[member]] += 2.0
            else:
                for word, weight in words[member].items():
                    support[word] += weight
        best = min(((-weight, word) for word, weight in support.items() if weight >= 0.3), default=None)
        if best is None:
            named.append(Group(members))
            continue
        share = min(1.0, -best[0] / len(members))
        reason = f"talks with {_listed(members)}, where names and units say `{best[1]}`"
        named.append(Group(members, best[1], share, reason))
    return tuple(_by_shape(group, named, roles) if not group.app else group for group in named)


def _by_shape(group: Group, named: list[Group], roles: Mapping[str, str]) -> Group:
    shape = Counter(roles.get(member, "?") for member in group.members)
    scored: list[tuple[float, Group]] = []
    for other in named:
        if other.app and len(group.members) >= 3:
            theirs = Counter(roles.get(member, "?") for member in other.members)
            kinds = {role for role in shape if role in theirs and role != "?"}
            share = len(kinds) / len(shape.keys() | theirs.keys())
            if share >= ALIKE:
                scored.append((share, other))
    scored.sort(key=lambda pair: (-pair[0], pair[1].members))
    if scored and len({other.app for share, other in scored if share == scored[0][0]}) == 1:
        other = scored[0][1]
        reason = f"talks with {_listed(group.members)}, which have the same roles as {_listed(other.members)}"
        return Group(group.members, other.app, 0.3, reason)
    if len(group.members) >= 2:
        reason = f"talks with {_listed(group.members)}; no word is common to them"
        return Group(group.members, f"app-{group.members[0]}", 0.0, reason)
    return group


def app_hints(
    workload: str, group: Group | None, words: Mapping[str, float], infrastructure: Hint | None
) -> list[Hint]:
    """Give what points to an application for one workload."""
    hints = [
        Hint(word, 0.6 * weight, "word", f"`{word}` is in its name or its units")
        for word, weight in words.items()
        if weight >= 0.3
    ]
    if group is not None and group.app:
        own = 0.2 + 0.6 * group.support if group.support else 0.25
        hints.append(Hint(group.app, min(own + 0.2, 0.75) if group.support else own, "company", group.reason))
    if infrastructure is not None:
        hints.append(infrastructure)
    return hints


def find_apps(
    names: Mapping[str, Name],
    groups: tuple[Group, ...],
    words: Mapping[str, Mapping[str, float]],
    infrastructure: Mapping[str, Hint],
    known: Mapping[str, str],
) -> dict[str, Verdict]:
    """Give the likely application of every workload that is not in `known`."""
    of = {member: group for group in groups for member in group.members}
    found: dict[str, Verdict] = {}
    for name in names:
        verdict = weigh(app_hints(name, of.get(name), words[name], infrastructure.get(name)))
        if name not in known and verdict is not None:
            found[name] = verdict
    return found


def _listed(members: tuple[str, ...]) -> str:
    shown = ", ".join(f"`{member}`" for member in members[:3])
    return f"{shown} and {len(members) - 3} more" if len(members) > 3 else shown
