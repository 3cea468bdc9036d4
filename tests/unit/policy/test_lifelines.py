"""The built-in lifelines let through what a host cannot live without, and nothing more."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from cellwall.flows import Side
from cellwall.inventory import Listener
from cellwall.policy import BOTH_SIDES, BUILT_IN, controller_channel
from cellwall.traffic import NOTHING, TCP, parse_ports, point

OUT, IN, NEITHER = frozenset({Side.EGRESS}), frozenset({Side.INGRESS}), frozenset[Side]()
ONE, TWO = ip_address("198.51.100.1"), ip_address("2001:db8::1")


def sides(text: str) -> frozenset[Side]:
    (span,) = parse_ports(text).spans
    return frozenset(side for rule in BUILT_IN if span.first in rule.ports for side in rule.sides)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("icmp/3/4", BOTH_SIDES),
        ("icmp/11/0", BOTH_SIDES),
        ("icmpv6/2/0", BOTH_SIDES),
        ("icmpv6/135/0", BOTH_SIDES),
        ("icmpv6/143/0", BOTH_SIDES),
        ("udp/67", OUT),
        ("udp/547", OUT),
        ("udp/68", IN),
        ("udp/546", IN),
        # No pings, redirects, timestamps, or names to look up.
        ("icmp/8/0", NEITHER),
        ("icmp/5/0", NEITHER),
        ("icmp/13/0", NEITHER),
        ("icmpv6/128/0", NEITHER),
        ("icmpv6/137/0", NEITHER),
        ("udp/53", NEITHER),
    ],
)
def test_a_lifeline_is_one_of_the_few(text: str, wanted: frozenset[Side]) -> None:
    assert sides(text) == wanted


def test_no_two_built_in_lifelines_say_the_same() -> None:
    for side in Side:
        seen = NOTHING
        for rule in BUILT_IN:
            if side in rule.sides:
                assert not seen & rule.ports
                seen |= rule.ports


def test_the_controllers_are_reached_by_address_and_port() -> None:
    rule = controller_channel((Listener(TWO, 7443), Listener(ONE, 7443), Listener(ONE, 7444)))
    (who,) = rule.destination
    assert who.network is not None
    assert who.network.prefixes == (ip_network(ONE), ip_network(TWO))
    assert point(TCP, 7443) in rule.ports and point(TCP, 7444) in rule.ports and rule.ports.size() == 2


def test_without_a_controller_the_channel_leads_nowhere() -> None:
    assert controller_channel(()).ports == NOTHING
