"""The real kernel does with real packets what Kubernetes' truth tables say of the policies that were imported."""

from __future__ import annotations

import random
from collections.abc import Generator
from ipaddress import ip_address

import pytest
from tests.conftest import SOAK
from tests.kernel.namespaces import needs_namespaces
from tests.kernel.wire import Host, bridge, hear, listen, send
from tests.unit.translate.truth_tables import Probe, Step, needs_tables, steps

from cellwall.clients import Netlink
from cellwall.compile import compile_fleet
from cellwall.enforce import Leave, NftPoint
from cellwall.inventory import Fleet
from cellwall.observe import cgroup_mount, open_conntrack
from cellwall.policy import parse_policy
from cellwall.traffic import SCTP, TCP, UDP
from cellwall.translate.kubernetes.documents import import_kubernetes

pytestmark = [needs_namespaces, needs_tables]
NOW = 1_800_000_000.0
EACH = 1 if SOAK else 8
"""One step of so many is tried with packets."""
ADDRESSES = [*(f"192.168.1.{last}" for last in range(5, 14)), "192.168.9.10", "192.168.9.11"]
FLUSH = 1 << 8 | 2
"""IPCTNL_MSG_CT_DELETE of ctnetlink, which without a tuple means all."""


class Cluster:
    """A host for every address that a pod of the tables has, each with a point."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = {str(host.addresses[0]): host for host in hosts}
        self.points: dict[str, NftPoint] = {}
        self.tracking: list[Netlink] = []
        for address, host in self.hosts.items():
            listen(host, {TCP, UDP, SCTP})
            with host.space.inside():
                self.points[address] = NftPoint(cgroup_mount(), None)
                self.tracking.append(open_conntrack())
        self.number = random.SystemRandom().randrange(1 << 24)

    def enforce(self, step: Step) -> Fleet:
        """Put the imported policies of a step in force, and forget all connections."""
        found = import_kubernetes(step.manifests)
        assert not found.refusals
        fleet = Fleet(found.workloads)
        compiled = compile_fleet(parse_policy(found.documents.items()), fleet, 1, NOW).points
        names = {str(one.addresses[0]): one.name for one in fleet.workloads}
        for address, kernel in self.points.items():
            with self.hosts[address].space.inside():
                if address in names:
                    point = compiled[names[address]]
                    kernel.apply(point.ruleset, point.members)
                else:
                    kernel.remove(Leave.OPEN)
        for link in self.tracking:
            link.ask(FLUSH, bytes(4), doing="cannot flush conntrack")
        return fleet

    def probe(self, fleet: Fleet, probe: Probe) -> tuple[int, bool]:
        """Send the first packet of a connection; its number, and whether it left."""
        self.number += 1
        source, target = (fleet.by_name[name].addresses[0] for name in (probe.source, probe.destination))
        return self.number, send(self.hosts[str(source)], source, target, probe.protocol, probe.port, self.number)


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    with bridge([(ip_address(address),) for address in ADDRESSES]) as hosts:
        yield Cluster(hosts)


@pytest.mark.parametrize("step", steps()[::EACH] if needs_tables.args[0] is False else [], ids=lambda step: step.name)
def test_the_kernel_gives_every_probe_the_verdict_of_the_table(cluster: Cluster, step: Step) -> None:
    fleet = cluster.enforce(step)
    wrong: list[str] = []
    left: dict[int, Probe] = {}
    for probe in step.probes:
        if probe.source == probe.destination:
            continue  # over the loopback interface, which no point touches
        number, out = cluster.probe(fleet, probe)
        if out is not probe.egress:
            wrong.append(f"egress of {probe}: left {out}")
        if out:
            left[number] = probe
    awaited: dict[str, set[int]] = {address: set() for address in cluster.hosts}
    for number, probe in left.items():
        if probe.ingress:
            awaited[str(fleet.by_name[probe.destination].addresses[0])].add(number)
    heard = {address: hear(host, expected=awaited[address]) for address, host in cluster.hosts.items()}
    for number, probe in left.items():
        arrived = number in heard[str(fleet.by_name[probe.destination].addresses[0])]
        if arrived is not probe.ingress:
            wrong.append(f"ingress of {probe}: arrived {arrived}")
    assert not wrong, "\n".join([*wrong[:5], f"{len(wrong)} in all"])
