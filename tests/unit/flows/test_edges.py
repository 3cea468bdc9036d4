from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from cellwall.flows import (
    Edge,
    FlowKey,
    FlowRecord,
    NodeKind,
    Outcome,
    Process,
    Side,
    Tally,
    Transmission,
    draw_map,
    tally,
    transmission,
)
from cellwall.inventory import Fleet, Workload
from cellwall.labels import parse_labels

FLEET = Fleet(
    (
        Workload("web-1", parse_labels("app=shop,role=web"), (ip_address("10.0.0.1"), ip_address("fd00::1"))),
        Workload("web-2", parse_labels("app=shop,role=web"), (ip_address("10.0.0.2"),)),
        Workload("db-1", parse_labels("app=shop,role=db"), (ip_address("10.0.0.3"),)),
        Workload("nas", parse_labels("app=infra"), (ip_address("10.0.0.4"),), agent=False),
        Workload("new", addresses=(ip_address("10.0.0.5"),)),
    )
)


def record(
    source: str,
    destination: str,
    port: int = 5432,
    side: Side = Side.EGRESS,
    outcome: Outcome = Outcome.ALLOWED,
    would: Outcome = Outcome.ALLOWED,
    connections: int = 1,
    name: str = "",
) -> FlowRecord:
    key = FlowKey(ip_address(source), ip_address(destination), 6, port)
    would = Outcome.DENIED if outcome is Outcome.DENIED else would
    return FlowRecord(key, "r", side, outcome, would, (), 1, connections, 10.0, 20.0, process=Process(name))


def both(source: str, destination: str, port: int = 5432) -> list[FlowRecord]:
    return [record(source, destination, port, side) for side in Side]


def drawn(records: list[FlowRecord], group: tuple[str, ...] = ("app", "role")) -> dict[tuple[str, str, str], Edge]:
    return {(edge.source, edge.destination, edge.service): edge for edge in draw_map(records, FLEET, group).edges}


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("10.0.0.1", Transmission.UNICAST),
        ("fd00::1", Transmission.UNICAST),
        ("224.0.0.251", Transmission.MULTICAST),
        ("ff02::fb", Transmission.MULTICAST),
        ("255.255.255.255", Transmission.BROADCAST),
    ],
)
def test_addresses_say_whom_packets_are_for(address: str, kind: Transmission) -> None:
    assert transmission(ip_address(address)) is kind


def test_each_connection_is_tallied_once_and_denials_of_both_ends_add_up() -> None:
    deny = Outcome.DENIED
    records = [
        record("10.0.0.1", "10.0.0.3", connections=10),
        record("10.0.0.1", "10.0.0.3", connections=4, outcome=deny),
        record("10.0.0.1", "10.0.0.3", side=Side.INGRESS, connections=7, would=deny),
        record("10.0.0.1", "10.0.0.3", side=Side.INGRESS, connections=3, outcome=deny),
    ]
    assert tally(records) == Tally(allowed=7, denied=7, would_deny=7)
    assert tally(records[2:]) == Tally(7, 3, 7)
    assert tally(()) == Tally()
    assert Tally(1, 2, 3) + Tally(1, 1, 1) == Tally(2, 3, 4)


def test_workloads_with_the_same_labels_are_one_node_and_their_flows_one_edge() -> None:
    records = [*both("10.0.0.1", "10.0.0.3"), *both("10.0.0.2", "10.0.0.3"), *both("10.0.0.2", "10.0.0.3", 22)]
    seen = draw_map(records, FLEET)
    assert [node.id for node in seen.nodes] == ["app=infra", "app=shop,role=db", "app=shop,role=web", "workload:new"]
    web = seen.nodes[2]
    assert (web.kind, web.workloads, str(web.labels)) == (NodeKind.GROUP, ("web-1", "web-2"), "app=shop,role=web")
    assert seen.nodes[3].kind is NodeKind.WORKLOAD
    assert [(edge.service, edge.flows, edge.tally.allowed) for edge in seen.edges] == [
        ("tcp/22", 1, 1),
        ("tcp/5432", 2, 2),
    ]


def test_without_keys_every_workload_stands_alone() -> None:
    assert set(drawn(both("10.0.0.1", "10.0.0.2"), ())) == {("workload:web-1", "workload:web-2", "tcp/5432")}


def test_a_node_may_talk_with_itself_but_not_a_workload() -> None:
    edges = drawn([*both("10.0.0.1", "10.0.0.2"), *both("10.0.0.1", "10.0.0.1")])
    assert [(edge.flows, *at) for at, edge in edges.items()] == [
        (1, "app=shop,role=web", "app=shop,role=web", "tcp/5432")
    ]


def test_a_side_with_an_agent_that_did_not_report_is_missing() -> None:
    edges = drawn(
        [
            record("10.0.0.1", "10.0.0.3", 1),
            record("10.0.0.1", "10.0.0.3", 2, Side.INGRESS),
            record("10.0.0.1", "10.0.0.4", 3),
            record("203.0.113.1", "10.0.0.3", 4, Side.INGRESS),
            record("10.0.0.1", "10.0.0.3", 5, outcome=Outcome.DENIED),
            *both("10.0.0.1", "10.0.0.3", 6),
        ]
    )
    missing = {at[2]: edge.missing for at, edge in edges.items()}
    assert missing == {
        "tcp/1": (Side.INGRESS,),
        "tcp/2": (Side.EGRESS,),
        "tcp/3": (),
        "tcp/4": (),
        "tcp/5": (),
        "tcp/6": (),
    }


def test_edges_know_their_programs_and_when_they_were_seen() -> None:
    ends = [
        record("10.0.0.1", "10.0.0.3", name="php"),
        replace(record("10.0.0.2", "10.0.0.3", side=Side.INGRESS, name="postgres"), first_seen=5.0, last_seen=50.0),
        record("10.0.0.2", "10.0.0.3"),
    ]
    (edge,) = draw_map(ends, FLEET).edges
    assert edge.processes == (("php",), ("postgres",))
    assert (edge.first_seen, edge.last_seen) == (5.0, 50.0)


def test_addresses_outside_are_networks_subnets_or_alone() -> None:
    records = [
        record(address, "10.0.0.1", 80, Side.INGRESS)
        for address in ("192.0.2.1", "192.0.2.2", "198.51.100.7", "203.0.113.9", "2001:db8::1", "2001:db8::2")
    ]
    named = {"wide": [ip_network("198.51.0.0/16")], "narrow": [ip_network("198.51.100.0/24")]}
    nodes = [node for node in draw_map(records, FLEET, networks=named).nodes if not node.workloads]
    assert [(node.id, node.kind, len(node.addresses)) for node in nodes] == [
        ("192.0.2.0/24", NodeKind.OUTSIDE, 2),
        ("2001:db8::/64", NodeKind.OUTSIDE, 2),
        ("203.0.113.9", NodeKind.OUTSIDE, 1),
        ("network:narrow", NodeKind.NETWORK, 1),
    ]


def test_multicast_is_drawn_only_when_asked_for_and_then_apart() -> None:
    records = [record("10.0.0.1", "224.0.0.251"), record("10.0.0.1", "255.255.255.255"), *both("10.0.0.1", "10.0.0.3")]
    assert len(draw_map(records, FLEET).edges) == 1
    seen = draw_map(records, FLEET, casts=True)
    assert {(edge.destination, edge.transmission) for edge in seen.edges} == {
        ("multicast", Transmission.MULTICAST),
        ("broadcast", Transmission.BROADCAST),
        ("app=shop,role=db", Transmission.UNICAST),
    }
    assert {node.id for node in seen.nodes if node.kind is NodeKind.CAST} == {"multicast", "broadcast"}
