"""Tens of thousands of real packets: in each of many random worlds, flows between all ends, at all ports, in batches;
what left, what came through and what the points counted is what `decide` says."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from ipaddress import ip_address
from itertools import product

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.conftest import COMPARED, SOAK
from tests.kernel.namespaces import needs_namespaces
from tests.kernel.test_kernel_agrees import SIZE, Lab, Trial, units
from tests.kernel.wire import bridge
from tests.property.worlds import IDENTITIES, OUTSIDE, POINTS, World, worlds

from cellwall.inventory import Fleet
from cellwall.policy import NOBODY, Flow, endpoint
from cellwall.traffic import ICMP, ICMPV6

pytestmark = needs_namespaces
IN_EACH, AT_LEAST = 500, 100_000 if SOAK else 20_000
BATCH = 100
"""So many packets are sent before they are heard: more would not fit into what a socket holds."""


@pytest.fixture(scope="module")
def lab() -> Generator[Lab]:
    inside = [(ip_address(f"10.0.0.{index}"), ip_address(f"fd00::{index}")) for index in range(1, SIZE + 1)]
    with units() as root, bridge([*inside, tuple(OUTSIDE)]) as hosts:
        yield Lab(hosts, root)


def test_the_kernel_agrees_with_decide_on_tens_of_thousands_of_packets(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    packets: list[int] = []

    @settings(max_examples=20, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
    @given(worlds(rules=8, size=SIZE), st.integers(0, 1 << 32))
    def agrees(world: World, seed: int) -> None:
        trial = Trial(lab, world)
        chosen = some_flows(world.fleet, IN_EACH, random.Random(seed))
        for first in range(0, len(chosen), BATCH):
            trial.send(chosen[first : first + BATCH])
        packets.append(trial.packets)
        assert not trial.wrong(), trial.complaint

    while sum(packets) < AT_LEAST:
        agrees()
    record_property(f"{COMPARED}fates of real packets, with `decide`", sum(packets))


def some_flows(fleet: Fleet, most: int, chance: random.Random) -> list[Flow]:
    """Choose among the flows between all ends of one family, of which one is a workload's, at all points."""
    inside = [address for workload in fleet.workloads for address in workload.addresses]
    every = [
        (source, destination, at)
        for source, destination, at in product((*inside, *OUTSIDE), (*inside, *OUTSIDE), POINTS)
        if source.version == destination.version
        and (source in fleet.by_address or destination in fleet.by_address)
        and fleet.by_address.get(source) is not fleet.by_address.get(destination)
        and at[0] != (ICMPV6 if source.version == 4 else ICMP)
    ]
    found: list[Flow] = []
    for source, destination, (protocol, port) in chance.sample(every, min(most, len(every))):
        # Every other one as nobody in particular.
        identity = chance.choice(IDENTITIES) if chance.randrange(2) else NOBODY
        found.append(Flow(endpoint(fleet, source, identity), endpoint(fleet, destination), protocol, port))
    return found
