"""What iptables, ip6tables and nft call protocols, ICMP types and TCP flags; and their connection states."""

from __future__ import annotations

from cellwall.traffic import ICMP, ICMPV6, PROTOCOLS, point
from cellwall.translate.firewalls.first_match import Situation
from cellwall.translate.firewalls.intervals import Intervals

PROTOCOL_WORDS: dict[str, int] = PROTOCOLS | {
    "ip": 0, "hopopt": 0, "ggp": 3, "ipencap": 4, "ipv4": 4, "st": 5, "egp": 8, "igp": 9, "pup": 12, "hmp": 20,
    "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "xtp": 36, "ddp": 37, "idpr-cmtp": 38, "ipv6": 41, "ipv6-route": 43,
    "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "skip": 57, "ipv6-icmp": 58, "icmp6": 58, "ipv6-nonxt": 59,
    "ipv6-opts": 60, "rspf": 73, "vmtp": 81, "eigrp": 88, "ospfigp": 89, "ax.25": 93, "etherip": 97, "encap": 98,
    "pim": 103, "ipcomp": 108, "comp": 108, "l2tp": 115, "isis": 124, "fc": 133, "mobility-header": 135,
    "ipv6-mh": 135, "mpls-in-ip": 137, "manet": 138, "hip": 139, "shim6": 140, "wesp": 141, "rohc": 142,
}  # fmt: skip
"""Names of protocols as /etc/protocols of Debian 12 has them, and Cellwall's own."""

_ICMP_TYPES: dict[str, tuple[int, int | None]] = {
    "echo-reply": (0, None), "pong": (0, None), "destination-unreachable": (3, None),
    "network-unreachable": (3, 0), "host-unreachable": (3, 1), "protocol-unreachable": (3, 2),
    "port-unreachable": (3, 3), "fragmentation-needed": (3, 4), "source-route-failed": (3, 5),
    "network-unknown": (3, 6), "host-unknown": (3, 7), "network-prohibited": (3, 9), "host-prohibited": (3, 10),
    "TOS-network-unreachable": (3, 11), "TOS-host-unreachable": (3, 12), "communication-prohibited": (3, 13),
    "host-precedence-violation": (3, 14), "precedence-cutoff": (3, 15), "source-quench": (4, None),
    "redirect": (5, None), "network-redirect": (5, 0), "host-redirect": (5, 1), "TOS-network-redirect": (5, 2),
    "TOS-host-redirect": (5, 3), "echo-request": (8, None), "ping": (8, None), "router-advertisement": (9, None),
    "router-solicitation": (10, None), "time-exceeded": (11, None), "ttl-exceeded": (11, None),
    "ttl-zero-during-transit": (11, 0), "ttl-zero-during-reassembly": (11, 1), "parameter-problem": (12, None),
    "ip-header-bad": (12, 0), "required-option-missing": (12, 1), "timestamp-request": (13, None),
    "timestamp-reply": (14, None), "info-request": (15, None), "info-reply": (16, None),
    "address-mask-request": (17, None), "address-mask-reply": (18, None),
}  # fmt: skip
_ICMPV6_TYPES: dict[str, tuple[int, int | None]] = {
    "destination-unreachable": (1, None), "no-route": (1, 0), "communication-prohibited": (1, 1),
    "beyond-scope": (1, 2), "address-unreachable": (1, 3), "port-unreachable": (1, 4), "failed-policy": (1, 5),
    "reject-route": (1, 6), "packet-too-big": (2, None), "time-exceeded": (3, None), "ttl-exceeded": (3, None),
    "ttl-zero-during-transit": (3, 0), "ttl-zero-during-reassembly": (3, 1), "parameter-problem": (4, None),
    "bad-header": (4, 0), "unknown-header-type": (4, 1), "unknown-option": (4, 2), "echo-request": (128, None),
    "ping": (128, None), "echo-reply": (129, None), "pong": (129, None), "mld-listener-query": (130, None),
    "mld-listener-report": (131, None), "mld-listener-done": (132, None), "mld-listener-reduction": (132, None),
    "router-solicitation": (133, None), "nd-router-solicit": (133, None), "router-advertisement": (134, None),
    "nd-router-advert": (134, None), "neighbour-solicitation": (135, None), "neighbor-solicitation": (135, None),
    "nd-neighbor-solicit": (135, None), "neighbour-advertisement": (136, None),
    "neighbor-advertisement": (136, None), "nd-neighbor-advert": (136, None), "redirect": (137, None),
    "nd-redirect": (137, None), "router-renumbering": (138, None), "ind-neighbor-solicit": (141, None),
    "ind-neighbor-advert": (142, None), "mld2-listener-report": (143, None),
}  # fmt: skip

STATES: dict[str, frozenset[Situation]] = {
    "new": frozenset({Situation.NEW, Situation.LOOPBACK}),
    "established": frozenset({Situation.OPEN}),
    "related": frozenset(),
    "invalid": frozenset(),
    "untracked": frozenset(),
}
"""What packets of each connection state are followed. Related ones are errors and helpers' connections."""

TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}


def protocol_number(word: str) -> int | None:
    """Give the number of a protocol's name or number; None where it is neither."""
    word = word.lower()
    if word.isdecimal() and word.isascii():
        return int(word) if len(word) <= 3 and int(word) <= 255 else None
    return PROTOCOL_WORDS.get(word)


def whole(protocol: int) -> Intervals:
    """Give all of a protocol."""
    return ((point(protocol, 0), point(protocol, 0xFFFF)),)


def icmp_points(protocol: int, word: str) -> Intervals | None:
    """Give the points of `8`, `3/4` or `echo-request` of ICMP or ICMPv6; None where it is no such thing."""
    if word == "any" and protocol == ICMP:
        return whole(protocol)
    named = {ICMP: _ICMP_TYPES, ICMPV6: _ICMPV6_TYPES}[protocol].get(word)
    if named is None:
        kind, slash, code = word.partition("/")
        if not all(
            part.isdecimal() and part.isascii() and len(part) <= 3 for part in (kind, *([code] if slash else []))
        ):
            return None
        named = int(kind), int(code) if slash else None
    kind, code = named
    if kind > 0xFF or (code or 0) > 0xFF:
        return None
    first, last = (0, 0xFF) if code is None else (code, code)
    return ((point(protocol, kind << 8 | first), point(protocol, kind << 8 | last)),)


def with_flags(mask: int, wanted: int) -> frozenset[Situation]:
    """Give the situations whose TCP segments have, of the flags in `mask`, just those in `wanted`.

    The first segment of a connection has SYN alone, one of an open connection has ACK (RFC 9293 §3.5)."""
    first = STATES["new"] if TCP_FLAGS["syn"] & mask == wanted else frozenset[Situation]()
    later = STATES["established"] if TCP_FLAGS["ack"] & mask == wanted else frozenset[Situation]()
    return first | later
