"""The options of a rule of iptables, one function each: what they narrow a rule to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cellwall.policy import Place
from cellwall.traffic import ICMP, ICMPV6, PORTED, SCTP, TCP, UDP
from cellwall.translate.firewalls.boxes import Box
from cellwall.translate.firewalls.intervals import SHARED, join, less
from cellwall.translate.firewalls.ipset import IpSet
from cellwall.translate.firewalls.rule import (
    HostFacts,
    Reading,
    Unread,
    address_range,
    but_of,
    port_number,
    port_points,
    prefix,
)
from cellwall.translate.firewalls.words import (
    STATES,
    TCP_FLAGS,
    icmp_points,
    protocol_number,
    whole,
    with_flags,
)

_MOST_PORTS = 0xFFFF
_MODULE_OF = {ICMP: "icmp", ICMPV6: "icmp6", TCP: "tcp", UDP: "udp", SCTP: "sctp", 33: "dccp", 136: "udplite"}


@dataclass(slots=True)
class Rule:
    """A rule being read: its protocols, its modules, its target, and what it matches."""

    reading: Reading
    version: int
    known: HostFacts
    sets: Mapping[str, IpSet]
    protocols: frozenset[int] = frozenset(range(256))
    modules: set[str] = field(default_factory=set[str])
    target: str = ""
    goes: bool = False
    comment: str = ""
    notes: list[tuple[Place, str]] = field(default_factory=list[tuple[Place, str]])


Take = Callable[[Rule, tuple[str, ...], bool], None]


@dataclass(frozen=True, slots=True)
class Option:
    """An option: how many values it takes, the modules of which one must be loaded (none: always there), and what it
    narrows a rule to, its values and whether `!` stands before it being given."""

    values: int
    take: Take
    modules: frozenset[str] = frozenset()


def _protocol(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    if values[0] == "all" or values[0] == "0":
        if but:
            rule.reading.boxes = ()
        return
    number = protocol_number(values[0])
    if number is None:
        raise Unread(f"`{values[0]}` is not a protocol")
    rule.protocols = rule.protocols - {number} if but else frozenset({number})
    rule.reading.narrow((Box(ports=whole(number)),), but=but)
    if not but:
        # A protocol loads the module of its name.
        rule.modules.add(_MODULE_OF.get(number, ""))


def _addresses(source: bool) -> Take:
    def take(rule: Rule, values: tuple[str, ...], but: bool) -> None:
        found = join(part for word in values[0].split(",") for part in prefix(word, rule.version))
        rule.reading.narrow((rule.reading.end(source, found),), but=but)

    return take


def _range_of(source: bool) -> Take:
    def take(rule: Rule, values: tuple[str, ...], but: bool) -> None:
        rule.reading.narrow((rule.reading.end(source, address_range(values[0], rule.version)),), but=but)

    return take


def _interface(incoming: bool) -> Take:
    def take(rule: Rule, values: tuple[str, ...], but: bool) -> None:
        if values[0] == "+":
            if but:
                rule.reading.boxes = ()
            return
        rule.reading.interface(rule.known, values[0], incoming, but=but)

    return take


def _ports(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    if not rule.protocols <= PORTED:
        raise Unread("ports without a protocol that has them")
    spans: list[tuple[int, int]] = []
    for word in values[0].split(","):
        first, colon, last = word.partition(":")
        low = port_number(first) if first or not colon else 0
        high = port_number(last) if last else _MOST_PORTS if colon else low
        if low > high:
            raise Unread(f"`{word}` runs backwards")
        spans.extend(port_points(rule.protocols, low, high))
    points = join(spans)
    rule.reading.narrow((Box(ports=but_of(points, rule.protocols) if but else points),))


def _source_ports(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    if not but and values[0] in ("0:65535", ":", "0:", ":65535"):
        return
    raise Unread(f"source port `{values[0]}` is not a thing a policy speaks of")


def _icmp(protocol: int) -> Take:
    def take(rule: Rule, values: tuple[str, ...], but: bool) -> None:
        if rule.protocols != frozenset({protocol}):
            raise Unread("an ICMP type without its protocol")
        word = "any" if protocol == ICMP and values[0] == "255" else values[0]
        points = icmp_points(protocol, word)
        if points is None:
            raise Unread(f"`{values[0]}` is no ICMP type")
        rule.reading.narrow((Box(ports=less(whole(protocol), points) if but else points),))

    return take


def _state(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    words = values[0].lower().split(",")
    unknown = [word for word in words if word not in STATES]
    if unknown:
        raise Unread(f"state `{unknown[0].upper()}` is not a thing a policy speaks of")
    rule.reading.situations(frozenset(one for word in words for one in STATES[word]), but=but)


def _flags(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    mask, wanted = (_bits(one) for one in values)
    rule.reading.situations(with_flags(mask, wanted), but=but)


def _syn(rule: Rule, _: tuple[str, ...], but: bool) -> None:
    _flags(rule, ("FIN,SYN,RST,ACK", "SYN"), but)


def _bits(text: str) -> int:
    if text in ("ALL", "NONE"):
        return 0x3F if text == "ALL" else 0
    words = [word.lower() for word in text.split(",")]
    if any(word not in TCP_FLAGS for word in words):
        raise Unread(f"`{text}` are no flags of TCP")
    return sum(TCP_FLAGS[word] for word in set(words))


def _kind_of_address(source: bool) -> Take:
    def take(rule: Rule, values: tuple[str, ...], but: bool) -> None:
        own = source is not (rule.reading.side.value == "ingress")
        kinds = set(values[0].split(","))
        if not own or not kinds <= {"LOCAL", "UNICAST", "MULTICAST", "BROADCAST", "ANYCAST"}:
            raise Unread(f"the kind of address `{values[0]}` is known to the host's routes only")
        _own_or_shared(rule, source, own="LOCAL" in kinds, but=but)

    return take


def _packet_kind(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    # What comes for a host's own address comes to it alone.
    if values[0] not in ("unicast", "broadcast", "multicast") or rule.reading.side.value != "ingress":
        raise Unread(f"the kind of packet `{values[0]}` is not a thing a policy speaks of")
    _own_or_shared(rule, False, own=values[0] == "unicast", but=but)


def _own_or_shared(rule: Rule, source: bool, *, own: bool, but: bool) -> None:
    # A host's own address is local, and neither multicast nor broadcast.
    if own is but:
        rule.reading.narrow((rule.reading.end(source, SHARED),))


def _set(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    name, flags = values[0], values[1].split(",")
    named = rule.sets.get(name)
    if named is None:
        raise Unread(f"set `{name}` is not known; give the text of `ipset save` too")
    elements = named.elements()
    if named.version != rule.version and named.kinds != ("port",):
        raise Unread(f"set `{name}` is of the other family")
    if len(flags) < len(named.kinds):
        raise Unread(f"set `{name}` needs `src` or `dst` {len(named.kinds)} times")
    where = dict(zip(named.kinds, flags, strict=False))
    if where.get("port", "dst") != "dst":
        raise Unread("source ports are not a thing a policy speaks of")
    boxes: list[Box] = []
    for addresses, points in elements:
        end = rule.reading.end(where["ip"] == "src", addresses) if "ip" in where else Box()
        boxes.append(Box(end.remote, points, end.local))
    if named.temporary:
        rule.notes.append((named.place, f"elements of set `{name}` come and go; those that it has are carried over"))
    rule.reading.narrow(tuple(boxes), but=but)


def _user(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    if but:
        raise Unread("everyone but one user is not a thing a policy speaks of")
    rule.reading.user(rule.known, values[0])


def _comment(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    rule.comment = values[0]


def _loads(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    rule.modules.add(values[0])
    if values[0] not in MODULES:
        raise Unread(f"match `{values[0]}` is not a thing a policy speaks of")


def _target(goes: bool) -> Take:
    def take(rule: Rule, values: tuple[str, ...], but: bool) -> None:
        rule.target, rule.goes = values[0], goes

    return take


def _fragment(rule: Rule, values: tuple[str, ...], but: bool) -> None:
    if not but:
        raise Unread("later fragments are not a thing a policy speaks of")


MODULES = frozenset(
    {"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6", "conntrack", "state", "comment", "set",
     "addrtype", "multiport", "iprange", "owner", "pkttype"}
)  # fmt: skip
_PORTED_MODULES = frozenset({"tcp", "udp", "udplite", "sctp", "dccp"})
_MULTI = frozenset({"multiport"})


def _options() -> dict[str, Option]:
    known: dict[str, Option] = {}

    def add(names: str, values: int, take: Take, *modules: str) -> None:
        known.update((name, Option(values, take, frozenset(modules))) for name in names.split())

    add("-p --protocol", 1, _protocol)
    add("-s --source --src", 1, _addresses(source=True))
    add("-d --destination --dst", 1, _addresses(source=False))
    add("-i --in-interface", 1, _interface(incoming=True))
    add("-o --out-interface", 1, _interface(incoming=False))
    add("-f --fragment", 0, _fragment)
    add("-m --match", 1, _loads)
    add("-j --jump", 1, _target(goes=False))
    add("-g --goto", 1, _target(goes=True))
    add("--dport --destination-port", 1, _ports, *_PORTED_MODULES)
    add("--sport --source-port", 1, _source_ports, *_PORTED_MODULES)
    add("--dports --destination-ports", 1, _ports, *_MULTI)
    add("--sports --source-ports", 1, _source_ports, *_MULTI)
    add("--ports", 1, _source_ports, *_MULTI)
    add("--tcp-flags", 2, _flags, "tcp")
    add("--syn", 0, _syn, "tcp")
    add("--icmp-type", 1, _icmp(ICMP), "icmp")
    add("--icmpv6-type", 1, _icmp(ICMPV6), "icmp6", "icmpv6")
    add("--state", 1, _state, "state")
    add("--ctstate", 1, _state, "conntrack")
    add("--comment", 1, _comment, "comment")
    add("--src-type", 1, _kind_of_address(source=True), "addrtype")
    add("--dst-type", 1, _kind_of_address(source=False), "addrtype")
    add("--src-range", 1, _range_of(source=True), "iprange")
    add("--dst-range", 1, _range_of(source=False), "iprange")
    add("--match-set", 2, _set, "set")
    add("--uid-owner", 1, _user, "owner")
    add("--pkt-type", 1, _packet_kind, "pkttype")
    return known


OPTIONS = _options()

QUIET_TARGETS: dict[str, dict[str, int]] = {
    "LOG": {"--log-prefix": 1, "--log-level": 1, "--log-tcp-sequence": 0, "--log-tcp-options": 0, "--log-ip-options": 0,
            "--log-uid": 0, "--log-macdecode": 0},
    "NFLOG": {"--nflog-prefix": 1, "--nflog-group": 1, "--nflog-range": 1, "--nflog-size": 1, "--nflog-threshold": 1},
}  # fmt: skip
"""Targets that let a packet go on, with their options."""
OTHER_QUIET = frozenset(
    {"ULOG", "MARK", "CONNMARK", "SECMARK", "CONNSECMARK", "SET", "CLASSIFY", "TCPMSS", "DSCP", "TOS", "TTL", "HL",
     "AUDIT", "TRACE", "CT", "NOTRACK", "CHECKSUM", "RATEEST", "LED", "IDLETIMER", "TEE", "ECN"}
)  # fmt: skip
"""More of them; what their options are does not matter here."""
