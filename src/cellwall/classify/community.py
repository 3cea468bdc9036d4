"""Groups of those who talk among themselves, by the map equation (Rosvall and Bergstrom, 2008), without chance.

A random walker on an undirected, weighted graph is described by the shortest code with one word list a group: the
groups that make it shortest are those in which the walker stays long. Unlike modularity it does not merge small
groups as the graph grows. Groups are found by moving single nodes, then whole groups, each to where the code gets
shortest, until nothing moves; where all that is connected in one group is shorter still, it is that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import log2

_LEAST = 1e-10
"""A move must shorten the code by more than this many bits, or rounding would move nodes for ever."""

Graph = Mapping[str, Mapping[str, float]]
"""Node → neighbour → weight over 0; symmetric, and without loops."""


def communities(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Cut the nodes of `graph` into groups, each sorted, in order of their first node. The same for the same graph."""
    names = sorted(graph)
    at = {name: number for number, name in enumerate(names)}
    links = [{at[other]: weight for other, weight in sorted(graph[name].items())} for name in names]
    # The search may stop at parts where nothing but all of them together would be shorter.
    cuts = (_cut(names, numbers) for numbers in (_group(links), _connected(links)))
    return min(cuts, key=lambda cut: code_length(graph, cut))


def _cut(names: list[str], groups: list[int]) -> tuple[tuple[str, ...], ...]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for name, group in zip(names, groups, strict=True):
        found[group].append(name)
    return tuple(sorted(tuple(members) for members in found.values()))


def code_length(graph: Graph, groups: tuple[tuple[str, ...], ...]) -> float:
    """Give the length of the code in bits a step for a cut of `graph`; the shorter the better."""
    total = sum(weight for links in graph.values() for weight in links.values())
    if not total:
        return 0.0
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    leave = [0.0] * len(groups)
    stay = [0.0] * len(groups)
    length = 0.0
    for name, links in graph.items():
        visits = sum(links.values()) / total
        length -= _plogp(visits)
        stay[group_of[name]] += visits
        leave[group_of[name]] += sum(w for other, w in links.items() if group_of[other] != group_of[name]) / total
    length += _plogp(sum(leave)) + sum(_plogp(q + p) - 2 * _plogp(q) for q, p in zip(leave, stay, strict=True))
    return length


def _plogp(share: float) -> float:
    return share * log2(share) if share > 0 else 0.0


def _connected(links: list[dict[int, float]]) -> list[int]:
    """Give each node the number of the first one that it is connected with, over any others."""
    groups = [-1] * len(links)
    for first in range(len(links)):
        waiting = [first] if groups[first] < 0 else []
        while waiting:
            node = waiting.pop()
            if groups[node] < 0:
                groups[node] = first
                waiting.extend(links[node])
    return groups


def _group(links: list[dict[int, float]]) -> list[int]:
    """Give the group of each node; loops in `links` are what aggregated nodes hold inside."""
    total = sum(sum(row.values()) for row in links)
    if not total:
        return list(range(len(links)))
    groups = list(range(len(links)))
    while True:
        moved = _move(links, total)
        numbers = {group: number for number, group in enumerate(sorted(set(moved)))}
        groups = [numbers[moved[group]] for group in groups]
        if len(numbers) == len(links):
            return groups
        merged: list[dict[int, float]] = [{} for _ in numbers]
        for node, row in enumerate(links):
            into = merged[numbers[moved[node]]]
            for other, weight in row.items():
                group = numbers[moved[other]]
                into[group] = into.get(group, 0.0) + weight
        links = [dict(sorted(row.items())) for row in merged]


def _move(links: list[dict[int, float]], total: float) -> list[int]:
    """Move single nodes to the group of a neighbour while that shortens the code."""
    group = list(range(len(links)))
    visits = [sum(row.values()) / total for row in links]
    outward = [sum(weight for other, weight in row.items() if other != node) / total for node, row in enumerate(links)]
    stay, leave = list(visits), list(outward)
    leaving = sum(leave)
    changed = True
    while changed:
        changed = False
        for node, row in enumerate(links):
            to: dict[int, float] = {}
            for other, weight in row.items():
                if other != node:
                    to[group[other]] = to.get(group[other], 0.0) + weight / total
            own = group[node]
            alone = leave[own] - outward[node] + 2 * to.get(own, 0.0)
            best, gain = own, -_LEAST
            after = (alone, stay[own] - visits[node])
            for candidate, weight in to.items():
                if candidate == own:
                    continue
                joined = (leave[candidate] + outward[node] - 2 * weight, stay[candidate] + visits[node])
                was = leave[own], leave[candidate]
                new = after[0], joined[0]
                change = (
                    _plogp(leaving + sum(new) - sum(was))
                    - _plogp(leaving)
                    - 2 * sum(_plogp(q) for q in new)
                    + 2 * sum(_plogp(q) for q in was)
                    + _plogp(sum(after))
                    + _plogp(sum(joined))
                    - _plogp(leave[own] + stay[own])
                    - _plogp(leave[candidate] + stay[candidate])
                )
                if change < gain:
                    best, gain = candidate, change
            if best != own:
                weight = to[best]
                new_own, new_best = max(after[0], 0.0), max(leave[best] + outward[node] - 2 * weight, 0.0)
                leaving += new_own + new_best - leave[own] - leave[best]
                leave[own], leave[best] = new_own, new_best
                stay[own] -= visits[node]
                stay[best] += visits[node]
                group[node] = best
                changed = True
    return group
