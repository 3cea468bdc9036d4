"""The map that `cellwall map` draws: groups of workloads, what flows between them, gathered until it can be read.

answer of the API ──▶ read_map ──▶ gather ──▶ map_text, or map_layout ──▶ map_svg
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

FAN_FROM = 3
"""So many groups of one panel (or all of them, if more than one) with the same edge to one place become one edge."""
HUB_FROM = 5
"""Fewer groups than this are never `EVERYONE`; more are, from three fifths of the fleet's groups on."""


class Verdict(StrEnum):
    """What becomes of a flow: passes, passes only until its ends enforce, or is dropped."""

    ALLOWED = "allowed"
    WOULD = "would be denied"
    DENIED = "denied"

    @property
    def glyph(self) -> str:
        """A sign that tells verdicts apart without colour."""
        return {"allowed": "✔", "denied": "✘"}.get(self.value, "◌")


@dataclass(frozen=True, slots=True, order=True)
class Panel:
    """What groups are drawn together: an application in an environment, or something outside the fleet."""

    app: str
    env: str = ""

    def __str__(self) -> str:
        return f"{self.app} · {self.env}" if self.env else self.app


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """Workloads that share their labels. `workloads` counts them, 0 for addresses outside the fleet."""

    id: str
    panel: Panel
    title: str
    workloads: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """Flows from one group to another over one service, with one verdict. `service` reads as `tcp/5432`."""

    source: str
    destination: str
    service: str
    connections: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Map:
    """Groups in order of panel and title, and edges between their ids."""

    groups: tuple[Group, ...]
    edges: tuple[Edge, ...]

    @property
    def panels(self) -> Mapping[Panel, tuple[Group, ...]]:
        """The groups of each panel."""
        found: dict[Panel, list[Group]] = defaultdict(list)
        for group in self.groups:
            found[group.panel].append(group)
        return {panel: tuple(groups) for panel, groups in found.items()}


@dataclass(frozen=True, slots=True, order=True)
class Load:
    """What one service carries along a strand; `of` is how many edges were gathered into it."""

    service: str
    connections: int
    of: int = 1


EVERYONE = Panel("everyone")
"""Stands, at the end of a strand, for most groups of the fleet: who uses DNS, whom the monitoring asks."""


@dataclass(frozen=True, slots=True)
class Strand:
    """What is drawn as one line, or as a note at one group where the other end is `EVERYONE`.

    An end is the id of a group, or a panel, which then stands for as many of its groups as the loads say.
    """

    source: str | Panel
    destination: str | Panel
    verdict: Verdict
    loads: tuple[Load, ...]

    @property
    def connections(self) -> int:
        """How many connections it carries."""
        return sum(load.connections for load in self.loads)

    @property
    def hub(self) -> str | None:
        """The group at which this is a note, if it is one."""
        if self.source == EVERYONE and isinstance(self.destination, str):
            return self.destination
        return self.source if self.destination == EVERYONE and isinstance(self.source, str) else None

    @property
    def label(self) -> str:
        """What it carries, in short: the two busiest services, how many groups share it, and what is not allowed."""
        named = [load.service + (f" ×{load.of}" if load.of > 1 else "") for load in self.loads[:2]]
        more = len(self.loads) - len(named)
        text = ", ".join(named) + (f" +{more}" if more else "")
        return text if self.verdict is Verdict.ALLOWED else f"{text} {self.verdict}"


Ends = tuple[str | Panel, str | Panel]


def gather(drawn: Map) -> tuple[Strand, ...]:
    """Merge edges into strands, so that a person can follow them.

    What most of the fleet shares becomes a note at its hub, what a panel shares becomes one line of the panel, and
    all services with one verdict between the same two ends become one line."""
    edges = sorted(drawn.edges)
    ends: dict[Edge, Ends] = {edge: (edge.source, edge.destination) for edge in edges}
    _gather_hubs(drawn, ends)
    _gather_fans(drawn, ends)
    loads: dict[tuple[str | Panel, str | Panel, Verdict], dict[str, Load]] = defaultdict(dict)
    for edge in edges:
        source, destination = ends[edge]
        carried = loads[source, destination, edge.verdict]
        old = carried.get(edge.service, Load(edge.service, 0, 0))
        carried[edge.service] = Load(edge.service, old.connections + edge.connections, old.of + 1)
    return tuple(
        Strand(
            source, destination, verdict, tuple(sorted(carried.values(), key=lambda load: (-load.connections, load)))
        )
        for (source, destination, verdict), carried in loads.items()
    )


def _gather_hubs(drawn: Map, ends: dict[Edge, Ends]) -> None:
    fleet = sum(group.workloads > 0 for group in drawn.groups)
    enough = max(HUB_FROM, math.ceil((fleet - 1) * 0.6))
    shared: dict[tuple[str, str, Verdict, bool], list[Edge]] = defaultdict(list)
    for edge in ends:
        if edge.source != edge.destination:
            shared[edge.destination, edge.service, edge.verdict, True].append(edge)
            shared[edge.source, edge.service, edge.verdict, False].append(edge)
    for (_, _, _, inward), some in sorted(shared.items(), key=lambda item: (-len(item[1]), item[0])):
        free = [edge for edge in some if ends[edge] == (edge.source, edge.destination)]
        if len(free) >= enough:
            for edge in free:
                ends[edge] = (EVERYONE, edge.destination) if inward else (edge.source, EVERYONE)


def _gather_fans(drawn: Map, ends: dict[Edge, Ends]) -> None:
    panel_of = {group.id: group.panel for group in drawn.groups}
    sizes = {panel: len(groups) for panel, groups in drawn.panels.items()}
    fans: dict[tuple[Panel, str, str, Verdict, bool], list[Edge]] = defaultdict(list)
    for edge in ends:
        one, other = panel_of[edge.source], panel_of[edge.destination]
        if one != other:
            fans[one, edge.destination, edge.service, edge.verdict, True].append(edge)
            fans[other, edge.source, edge.service, edge.verdict, False].append(edge)
    # The widest fan takes its edges first; what it took is no longer part of another.
    for (panel, _, _, _, outward), fan in sorted(fans.items(), key=lambda item: (-len(item[1]), item[0])):
        free = [edge for edge in fan if ends[edge] == (edge.source, edge.destination)]
        if len(free) >= min(FAN_FROM, max(sizes[panel], 2)):
            for edge in free:
                ends[edge] = (panel, edge.destination) if outward else (edge.source, panel)


def make_map(groups: Iterable[Group], edges: Iterable[Edge]) -> Map:
    """Put a map together: sorted, edges of the same ends, service and verdict added up, dangling ones left out."""
    ordered = tuple(sorted(groups, key=lambda group: (group.panel, group.title, group.id)))
    known = {group.id for group in ordered}
    sums: dict[tuple[str, str, str, Verdict], int] = defaultdict(int)
    for edge in edges:
        if edge.source in known and edge.destination in known:
            sums[edge.source, edge.destination, edge.service, edge.verdict] += edge.connections
    summed = [Edge(one, to, service, count, verdict) for (one, to, service, verdict), count in sums.items()]
    return Map(ordered, tuple(sorted(summed)))
