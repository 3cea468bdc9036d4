"""Who drops what we let pass: suspected only for want of a connection, said only when it was seen."""

from __future__ import annotations

from ipaddress import ip_address

from cellwall.agent.strangers import AGAIN_S, FOUND_S, MOST, MOST_TOLD, REMEMBER_S, WAIT_S, Flow, Strangers
from cellwall.flows import FlowKey, Side
from cellwall.traffic import TCP, UDP


def flow(port: int = 80, protocol: int = TCP) -> Flow:
    return Side.INGRESS, FlowKey(ip_address("10.0.0.1"), ip_address("10.0.0.2"), protocol, port)


def test_a_flow_that_became_no_connection_is_suspected_once_and_after_a_while() -> None:
    known = Strangers(watching=True)
    known.counted(flow(), 100.0)
    assert known.suspect(100.0) is None, "its event may still come"
    assert known.suspect(100.0 + WAIT_S) == flow()
    known.counted(flow(), 110.0)
    assert known.suspect(115.0) is None, "it was followed a moment ago"
    known.counted(flow(), 120.0 + AGAIN_S)
    assert known.suspect(130.0 + AGAIN_S) == flow()


def test_a_flow_whose_connection_was_taken_up_is_not_suspected_whichever_came_first() -> None:
    for before in (True, False):
        known = Strangers(watching=True)
        for step in (known.confirmed, known.counted) if before else (known.counted, known.confirmed):
            step(flow(), 100.0)
        assert known.suspect(100.0 + WAIT_S) is None
    # A first packet that is repeated while nobody answers is the same connection.
    known.counted(flow(), 190.0)
    assert known.suspect(195.0) is None
    known.counted(flow(), 110.0 + REMEMBER_S)
    assert known.suspect(120.0 + REMEMBER_S) == flow()


def test_datagrams_that_nobody_answers_are_one_connection_for_as_long_as_they_come() -> None:
    known = Strangers(watching=True)
    known.confirmed(flow(514, UDP), 100.0)
    for number in range(10):
        known.counted(flow(514, UDP), 100.0 + number * REMEMBER_S / 2)
        assert known.suspect(110.0 + number * REMEMBER_S / 2) is None


def test_where_there_is_no_other_firewall_nothing_is_noted_and_icmp_cannot_be_followed() -> None:
    known = Strangers()
    known.counted(flow(), 100.0)
    known.watching = True
    known.counted(flow(0, 1), 100.0)
    assert known.suspect(200.0) is None


def test_what_was_seen_is_said_for_an_hour_and_only_so_much() -> None:
    known = Strangers(watching=True)
    assert known.by(flow(), 100.0) == "" and known.told(100.0) == ()
    known.ended(flow(), "table ip other, chain input, its policy", 100.0)
    assert known.by(flow(), 200.0) == "table ip other, chain input, its policy"
    assert known.told(200.0) == (
        "not us: table ip other, chain input, its policy drops tcp/80 from 10.0.0.1 to 10.0.0.2, "
        "which our policy lets pass",
    )
    assert known.by(flow(), 100.0 + FOUND_S) == "" and known.told(100.0 + FOUND_S) == ()
    for port in range(1000, 1000 + 2 * MOST_TOLD):
        known.ended(flow(port), "there", 300.0)
    assert len(known.told(300.0)) == MOST_TOLD


def test_what_is_noted_is_bounded() -> None:
    known = Strangers(watching=True)
    for number in range(MOST + 5):
        known.confirmed((Side.INGRESS, FlowKey(ip_address(number), ip_address("10.0.0.2"), TCP, 80)), 100.0)
    known.counted((Side.INGRESS, FlowKey(ip_address(0), ip_address("10.0.0.2"), TCP, 80)), 100.0)
    assert known.suspect(110.0) is not None, "the oldest was forgotten"
