"""What workloads do: who serves and calls what, who is a hub, and which services everybody offers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from cellwall.classify.facts import Facts
from cellwall.flows import FlowRecord, Transmission, transmission
from cellwall.inventory import Fleet

EPHEMERAL = 32768
"""From here on ports are handed out by the kernel or by a portmapper (ip(7), ip_local_port_range)."""
MOST_WEIGHT = 3.0

Service = tuple[int, int]
"""Protocol and port; the dynamic ones are all `EPHEMERAL`."""


@dataclass(frozen=True)
class Behaviour:
    """Who talks to whom in a fleet, by name of workload.

    `serves` and `calls` are what was seen in flows; `calls` holds pairs of the callee and the service. `peers` are
    all that a workload talked with. `everywhere` are services that most workloads offer (SSH, metrics): they tell
    nothing of any one of them. `hubs` talk with most of the fleet."""

    serves: Mapping[str, frozenset[Service]]
    calls: Mapping[str, frozenset[tuple[str, Service]]]
    callers: Mapping[str, frozenset[tuple[str, Service]]]
    peers: Mapping[str, frozenset[str]]
    everywhere: frozenset[Service]
    hubs: frozenset[str]

    def graph(self, without: frozenset[str]) -> dict[str, dict[str, float]]:
        """Give who belongs together: a link for each service between two workloads, at most `MOST_WEIGHT` of them.

        Workloads in `without` and services offered everywhere are left out, and so are volumes, which say more of
        keep-alive than of kinship."""
        weights: defaultdict[str, dict[str, float]] = defaultdict(dict)
        names = sorted(self.calls.keys() - without)
        for name in names:
            weights[name] = weights[name]
            for callee, service in sorted(self.calls[name]):
                if callee not in without and callee != name and service not in self.everywhere:
                    weight = min(weights[name].get(callee, 0.0) + 1.0, MOST_WEIGHT)
                    weights[name][callee] = weights[callee][name] = weight
        return dict(weights)


def observe_behaviour(fleet: Fleet, facts: Mapping[str, Facts], records: Iterable[FlowRecord]) -> Behaviour:
    """Sum up who talks to whom between the workloads of `fleet`; unicast only, and whatever the verdict."""
    names = [workload.name for workload in fleet.workloads]
    serves: dict[str, set[Service]] = {name: set() for name in names}
    calls: dict[str, set[tuple[str, Service]]] = {name: set() for name in names}
    callers: dict[str, set[tuple[str, Service]]] = {name: set() for name in names}
    peers: dict[str, set[str]] = {name: set() for name in names}
    for key in {one.key for one in records}:
        if transmission(key.destination) is not Transmission.UNICAST:
            continue
        source, destination = fleet.by_address.get(key.source), fleet.by_address.get(key.destination)
        service = key.protocol, min(key.port, EPHEMERAL)
        if destination is not None and source is not destination:
            serves[destination.name].add(service)
        if source is not None and destination is not None and source is not destination:
            calls[source.name].add((destination.name, service))
            callers[destination.name].add((source.name, service))
            peers[source.name].add(destination.name)
            peers[destination.name].add(source.name)
    offered: defaultdict[Service, set[str]] = defaultdict(set)
    for name in names:
        listening = {(one.protocol, min(one.port, EPHEMERAL)) for one in facts[name].services} if name in facts else ()
        for service in serves[name].union(listening):
            offered[service].add(name)
    managed = max(len(facts), 1)
    return Behaviour(
        {name: frozenset(found) for name, found in serves.items()},
        {name: frozenset(found) for name, found in calls.items()},
        {name: frozenset(found) for name, found in callers.items()},
        {name: frozenset(found) for name, found in peers.items()},
        frozenset(service for service, by in offered.items() if len(by) >= 4 and len(by) >= 0.6 * managed),
        _hubs(peers),
    )


def _hubs(peers: Mapping[str, set[str]]) -> frozenset[str]:
    degrees = {name: len(found) for name, found in peers.items()}
    usual = median(degrees.values()) if degrees else 0
    return frozenset(
        name
        for name, degree in degrees.items()
        if (degree >= 6 and degree >= 0.6 * (len(degrees) - 1)) or (degree >= 20 and degree >= 6 * usual)
    )
