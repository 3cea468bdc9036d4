"""A million verdicts, core against core: the table that judges flows in bulk, the compiled form at both ends, `decide`.

In small worlds every flow is asked: all pairs of ends, all points, several processes. One large world is there for what
small ones cannot show, such as rows of many words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cellwall.analysis import Assume, Columns, Table
from cellwall.compile import Compiler, judge
from cellwall.flows import Outcome, Side
from cellwall.inventory import Fleet
from cellwall.policy import NOBODY, Endpoint, Flow, Policy, decide, endpoint
from cellwall.traffic import ICMP, ICMPV6, Address, point
from tests.bench.fleets import enterprise, flow_columns
from tests.conftest import COMPARED, SOAK
from tests.property.worlds import IDENTITIES, OUTSIDE, POINTS, World, worlds

NOW = 1_800_000_000.0
PARTS = 4
AT_LEAST, DECIDED = (1_000_000, 200_000) if SOAK else (250_000, 50_000)
"""Flows in each part: parts run side by side."""
DECIDE_EACH = 5
"""One flow in so many is also asked of `decide`, which takes longest."""


@dataclass
class Compared:
    """How many flows were asked, of how many `decide` too, in how many worlds, and those that disagree."""

    flows: int = 0
    decided: int = 0
    worlds: int = 0
    wrong: list[str] = field(default_factory=list[str])

    def record(self, record_property: Callable[[str, object], None]) -> None:
        """Have it written to the log of a build."""
        record_property(f"{COMPARED}verdicts of table and compiled form", self.flows)
        record_property(f"{COMPARED}verdicts of compiled form and `decide`", self.decided)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_million_flows_get_one_verdict_however_it_is_computed(
    part: int, record_property: Callable[[str, object], None]
) -> None:
    del part  # each draws worlds of its own
    told = Compared()

    @settings(
        max_examples=20,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(worlds(rules=8, size=12), st.integers(0, 1 << 32))
    def agrees(world: World, seed: int) -> None:
        flows = list(_all_flows(world.fleet, random.Random(seed)))
        # A table is made for one of both: by turns.
        compare(world.policy, world.fleet, flows, list(Assume)[told.worlds % 2], told, DECIDE_EACH)
        assert not told.wrong, "\n".join(told.wrong[:5]) + f"\n{world.text}"

    while told.flows < AT_LEAST or told.decided < DECIDED:
        agrees()
    told.record(record_property)


def test_flows_of_a_large_fleet_get_one_verdict_however_it_is_computed(
    record_property: Callable[[str, object], None],
) -> None:
    policy, fleet = enterprise(3_000, 400, seed=random.SystemRandom().randrange(1 << 32))
    columns = flow_columns(policy, fleet, 20_000, edges=20_000)
    lines = zip(columns.sources.tolist(), columns.destinations.tolist(), columns.points.tolist(), strict=True)
    flows = [
        Flow(endpoint(fleet, ip_address(source)), endpoint(fleet, ip_address(destination)), at >> 16, at & 0xFFFF)
        for source, destination, at in lines
        if source != destination
    ]
    told = Compared()
    for assume in Assume:
        compare(policy, fleet, flows, assume, told, each=50)
    assert not told.wrong, told.wrong[:5]
    told.record(record_property)


def compare(policy: Policy, fleet: Fleet, flows: Sequence[Flow], assume: Assume, told: Compared, each: int) -> None:
    """Ask all of each flow, none of which is of a workload with itself, and `decide` of one in `each`."""
    by_compiled = _Compiled(policy, fleet, flows)
    by_table = _by_table(Table(policy, fleet, NOW, assume), flows)
    for at, (flow, table) in enumerate(zip(flows, by_table, strict=True)):
        compiled = by_compiled.judge(flow)
        if table is not compiled[assume]:
            told.wrong.append(f"{flow} as {flow.source.identity}, {assume}: table {table}, compiled {compiled}")
        if (at + told.worlds) % each == 0:
            decision = decide(policy, fleet, flow, NOW)
            decided = _passing(decision.outcome, decision.would)
            told.decided += 1
            if decided != compiled:
                told.wrong.append(f"{flow} as {flow.source.identity}: decide {decided}, compiled {compiled}")
    told.flows += len(flows)
    told.worlds += 1


def _passing(outcome: Outcome, would: Outcome) -> dict[Assume, bool]:
    return {Assume.MODES: outcome is Outcome.ALLOWED, Assume.ENFORCE: would is Outcome.ALLOWED}


def _by_table(table: Table, flows: Sequence[Flow]) -> list[bool]:
    known: dict[object, int] = {}
    for end in {end for flow in flows for end in (flow.source, flow.destination)}:
        known[end.address, end.identity] = table.kind_at(end.address, end.identity)
    sources, destinations = (
        np.array([known[end.address, end.identity] for end in ends], np.int32)
        for ends in ([flow.source for flow in flows], [flow.destination for flow in flows])
    )
    points = np.array([point(flow.protocol, flow.port) for flow in flows], np.uint32)
    return Columns(table).judge(sources, destinations, points).tolist()


class _Compiled:
    """The compiled form at both ends of flows; ingress, which does not see the source's process, is asked once."""

    def __init__(self, policy: Policy, fleet: Fleet, flows: Iterable[Flow]) -> None:
        compiler = Compiler(policy, fleet, 1, NOW)
        agents = {end.workload for flow in flows for end in (flow.source, flow.destination) if end.agent}
        self._points = {name: compiler.point(name) for name in agents if name is not None}
        self._ingress: dict[tuple[Address, Address, int, int], dict[Assume, bool]] = {}

    def judge(self, flow: Flow) -> dict[Assume, bool]:
        """Say whether it passes in the modes that there are, and under full enforcement."""
        key = flow.source.address, flow.destination.address, flow.protocol, flow.port
        ingress = self._ingress.get(key)
        if ingress is None:
            ingress = self._ingress[key] = self._at(Side.INGRESS, flow.destination, flow.source, flow)
        egress = self._at(Side.EGRESS, flow.source, flow.destination, flow)
        return {assume: egress[assume] and ingress[assume] for assume in Assume}

    def _at(self, side: Side, own: Endpoint, peer: Endpoint, flow: Flow) -> dict[Assume, bool]:
        if own.workload is None or not own.agent:
            return dict.fromkeys(Assume, True)
        held = self._points[own.workload]
        judged = judge(
            held.ruleset, held.members, side, own.address, peer.address, flow.protocol, flow.port, own.identity
        )
        return _passing(judged.outcome, judged.would)


def _all_flows(fleet: Fleet, chance: random.Random) -> Iterator[Flow]:
    """Give the flows between all ends of one family, one of them a workload's, at all points, as several processes."""
    inside = [address for workload in fleet.workloads for address in workload.addresses]
    asked = (NOBODY, *chance.sample(IDENTITIES[1:], 2))
    for source, destination in product((*inside, *OUTSIDE), repeat=2):
        one, other = fleet.by_address.get(source), fleet.by_address.get(destination)
        if source.version != destination.version or one is other:
            continue
        target = endpoint(fleet, destination)
        for identity in asked if one is not None and one.agent else (NOBODY,):
            origin = endpoint(fleet, source, identity)
            for protocol, port in POINTS:
                if protocol != (ICMPV6 if source.version == 4 else ICMP):
                    yield Flow(origin, target, protocol, port)
