"""Facts of the host, in namespaces made to have them."""

from __future__ import annotations

import platform
import select
import socket
import time
from collections.abc import Generator
from ipaddress import ip_address

import pytest
from tests.kernel.namespaces import Namespace, needs_namespaces, pair

from cellwall.observe import (
    AddressWatch,
    FirewallTable,
    Processes,
    default_routes,
    firewall_tables,
    host_addresses,
    host_facts,
    host_identity,
    listening_services,
    nft_version,
)
from cellwall.traffic import TCP, UDP

pytestmark = needs_namespaces


@pytest.fixture
def host() -> Generator[Namespace]:
    with pair() as (_, made), made.inside():
        yield made


def test_addresses_are_those_that_others_reach_and_link_local_ones_apart(host: Namespace) -> None:
    # An address on the loopback interface is as reachable as any, as routers and anycast services have it.
    host.run(["ip", "addr", "add", "192.0.2.7/32", "dev", "lo"])
    found = host_addresses()
    assert {(one.address, one.prefix, one.device) for one in found.reachable} == {
        (host.v4, 24, "wire"),
        (host.v6, 64, "wire"),
        (ip_address("192.0.2.7"), 32, "lo"),
    }
    assert [(one.address.is_link_local, one.device) for one in found.link_local] == [(True, "wire")]
    assert not any(one.temporary for one in found.reachable)


def test_a_watch_tells_of_addresses_that_come_and_go(host: Namespace) -> None:
    with AddressWatch() as watch:
        assert watch.read() == []
        host.run(["ip", "addr", "add", "10.99.0.1/24", "dev", "wire"])
        host.run(["ip", "addr", "del", "10.99.0.1/24", "dev", "wire"])
        # An interface that comes later is named too.
        host.run(["ip", "link", "add", "late", "type", "veth", "peer", "name", "late2"])
        host.run(["ip", "addr", "add", "2001:db8::9/64", "dev", "late", "nodad"])
        told = list(watch.read())
        # Of IPv6 the kernel tells in its own time.
        while len(told) < 3 and select.select([watch], [], [], 5)[0]:
            told += watch.read()
        assert [(one.came, str(one.address.address), one.address.device) for one in told] == [
            (True, "10.99.0.1", "wire"),
            (False, "10.99.0.1", "wire"),
            (True, "2001:db8::9", "late"),
        ]
        assert watch.lost == 0


def test_default_routes_are_listed_with_the_preferred_first(host: Namespace) -> None:
    assert default_routes() == ()
    host.run(["ip", "route", "add", "default", "via", "10.77.0.1", "metric", "20"])
    host.run(["ip", "route", "add", "default", "dev", "wire", "metric", "30"])
    host.run(["ip", "-6", "route", "add", "default", "via", "fd77::1", "metric", "5"])
    host.run(["ip", "route", "add", "10.0.0.0/8", "via", "10.77.0.1"])
    assert [(one.family, one.gateway and str(one.gateway), one.device, one.metric) for one in default_routes()] == [
        (4, "10.77.0.1", "wire", 20),
        (4, None, "wire", 30),
        (6, "fd77::1", "wire", 5),
    ]


def test_a_default_route_over_several_hops_names_each(host: Namespace) -> None:
    hops = ["nexthop", "via", "10.77.0.1", "dev", "wire", "nexthop", "via", "10.77.0.9", "dev", "wire"]
    host.run(["ip", "route", "add", "default", *hops])
    assert [str(one.gateway) for one in default_routes()] == ["10.77.0.1", "10.77.0.9"]


def serve() -> None:
    server = socket.create_server(("::", 5432), family=socket.AF_INET6, dualstack_ipv6=True)
    # A second socket on the same port, as servers with workers have.
    datagrams = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for one in datagrams:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", 53))
    while True:
        server.accept()


def test_services_name_the_process_that_answers(host: Namespace) -> None:
    child = host.start(serve)
    host.wait_for_port(53, udp=True)
    found = listening_services(Processes(), 0)
    assert [(one.protocol, str(one.address), one.port, one.user) for one in found] == [
        (TCP, "0.0.0.0", 5432, "root"),
        (TCP, "::", 5432, "root"),
        (UDP, "127.0.0.1", 53, "root"),
    ]
    assert {one.process.pid for one in found if one.process} == {child.pid}


def test_tables_of_other_firewalls_are_named(host: Namespace) -> None:
    assert firewall_tables() == ()
    host.nft("add table inet cellwall\nadd table ip nat\nadd table bridge filter\n")
    assert set(firewall_tables()) == {
        FirewallTable("inet", "cellwall"),
        FirewallTable("ip", "nat"),
        FirewallTable("bridge", "filter"),
    }


def test_the_identity_is_that_of_the_machine(host: Namespace) -> None:
    who = host_identity()
    assert (who.hostname, who.kernel, who.architecture) == (
        socket.gethostname(),
        platform.release(),
        platform.machine(),
    )
    assert len(who.boot_id) == 36 and who.os


def test_the_version_of_nft_is_known(host: Namespace) -> None:
    version = nft_version()
    assert version is not None and version >= (0, 9)


def test_all_facts_together_cost_milliseconds(host: Namespace) -> None:
    processes = Processes()
    facts = host_facts(processes, 0)
    assert facts.identity == host_identity() and facts.addresses == host_addresses()
    started, used = time.perf_counter(), time.process_time()
    for now in range(10):
        host_addresses()
        listening_services(processes, now)
    print(f"{(time.perf_counter() - started) * 100:.2f} ms each, {(time.process_time() - used) * 100:.2f} ms of CPU")
    assert time.perf_counter() - started < 5
