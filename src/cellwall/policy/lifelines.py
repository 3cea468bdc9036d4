"""The lifelines that are built in: shown wherever rules are shown, and not to be switched off."""

from __future__ import annotations

from ipaddress import ip_network

from cellwall.flows import Side
from cellwall.inventory import Listener
from cellwall.policy.errors import Place
from cellwall.policy.types import Action, AddressBook, Rule, Who
from cellwall.traffic import NOTHING, TCP, PortSet, Span, parse_ports, point

_BUILT_IN = Place("built in")
ANYONE = (Who(),)


def _lifeline(rule_id: str, reason: str, ports: tuple[str, ...], side: Side | None = None) -> Rule:
    points = NOTHING
    for text in ports:
        points |= parse_ports(text)
    sides = frozenset({side}) if side else frozenset(Side)
    return Rule(rule_id, Action.LIFELINE, points, ANYONE, ANYONE, ports, reason=reason, sides=sides, place=_BUILT_IN)


BUILT_IN: tuple[Rule, ...] = (
    # RFC 792, RFC 4443 §3, and RFC 4890 §4.3.1: without these, path MTU discovery breaks.
    _lifeline(
        "icmp-errors",
        "errors about packets that were sent",
        ("icmp/3", "icmp/11-12", "icmpv6/1-4"),
    ),
    # RFC 4861 and RFC 2710, RFC 3810: routers and neighbours, and the multicast groups that they need.
    _lifeline("neighbour-discovery", "IPv6 does not work without it", ("icmpv6/130-136", "icmpv6/143")),
    # RFC 2131 §4.1, RFC 8415 §7.2: a client asks the server's port, and is answered on its own.
    _lifeline("dhcp-request", "the host gets its address", ("udp/67", "udp/547"), Side.EGRESS),
    _lifeline("dhcp-answer", "the host gets its address", ("udp/68", "udp/546"), Side.INGRESS),
)
"""What every point lets through, whatever the policy. Loopback is one more, decided by the flow's ends."""

CONTROLLER_CHANNEL = "controller-channel"
ESSENTIAL = frozenset({"icmp-errors", "neighbour-discovery", CONTROLLER_CHANNEL})
"""The built-in lifelines that hold even for who is sealed: without them nobody could take the seal away again."""


def controller_channel(controllers: tuple[Listener, ...]) -> Rule:
    """Give the lifeline from any agent to the controllers, by address and port."""
    places = sorted({(listener.address.version, int(listener.address)) for listener in controllers})
    book = AddressBook(
        "controllers",
        tuple(sorted({ip_network(listener.address) for listener in controllers}, key=str)) if places else (),
    )
    ports = PortSet.of(Span(point(TCP, one.port), point(TCP, one.port)) for one in controllers)
    return Rule(
        CONTROLLER_CHANNEL,
        Action.LIFELINE,
        ports,
        ANYONE,
        (Who(network=book),),
        reason="agents reach their controller",
        place=_BUILT_IN,
    )
