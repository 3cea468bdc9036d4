"""What the fields of nftables narrow a rule to, seen from one side."""

from __future__ import annotations

from collections.abc import Sequence

from cellwall.flows import Side
from cellwall.traffic import ICMP, ICMPV6, PORTED, point
from cellwall.translate.firewalls.boxes import Box, meet_all
from cellwall.translate.firewalls.intervals import IPV4, IPV6, SHARED, Intervals, join, less
from cellwall.translate.firewalls.nft_syntax import Element, Flags
from cellwall.translate.firewalls.rule import HostFacts, Reading, Unread, address_range, port_number, port_points
from cellwall.translate.firewalls.words import (
    STATES,
    TCP_FLAGS,
    icmp_points,
    protocol_number,
    whole,
    with_flags,
)

_FAMILIES = {"ip": IPV4, "ip6": IPV6, "ipv4": IPV4, "ipv6": IPV6}
_PORTED = {"tcp": 6, "udp": 17, "udplite": 136, "sctp": 132, "dccp": 33}
_MOST = 0xFFFF
_ALL_PORTED: Intervals = join(part for one in PORTED for part in whole(one))


def narrow(reading: Reading, known: HostFacts, fields: tuple[str, ...], how: str, elements: Sequence[Element]) -> None:
    """Narrow a rule to where `fields` stand in relation `how` to `elements`. Raises `Unread`."""
    but = how == "!="
    if fields == ("ct state",):
        words = [word for element in elements for word in element]
        if how not in ("==", "!=") or any(word not in STATES for word in words):
            raise Unread(f"the state `{', '.join(words)}` is not a thing a policy speaks of")
        reading.situations(frozenset(one for word in words for one in STATES[word]), but=but)
    elif len(fields) == 1 and fields[0].removeprefix("meta ") in ("iif", "iifname", "oif", "oifname"):
        _interfaces(reading, known, fields[0], how, [word for element in elements for word in element])
    elif len(fields) == 1 and fields[0] in ("fib daddr type", "fib saddr type", "meta pkttype"):
        _kinds(reading, fields[0], how, {word for element in elements for word in element})
    elif fields == ("meta skuid",):
        if how != "==":
            raise Unread("everyone but one user is not a thing a policy speaks of")
        made: list[Box] = []
        for element in elements:
            one = Reading(reading.side)
            one.user(known, element[0])
            made.extend(one.boxes)
        reading.narrow(tuple(made))
    else:
        _products(reading, fields, how, elements)


def flags(reading: Reading, asked: Flags) -> None:
    """Narrow a rule to TCP segments with certain flags. Raises `Unread`."""
    if any(word not in TCP_FLAGS for word in (*asked.mask, *asked.wanted)):
        raise Unread("these flags of TCP are not known")
    mask, wanted = (sum(TCP_FLAGS[word] for word in set(words)) for words in (asked.mask, asked.wanted))
    reading.narrow((Box(ports=whole(6)),))
    reading.situations(with_flags(mask, wanted), but=asked.but)


def _interfaces(reading: Reading, known: HostFacts, field: str, how: str, names: list[str]) -> None:
    incoming = field.removeprefix("meta ").startswith("iif")
    if how not in ("==", "!="):
        raise Unread(f"`{field} {how}` is not a thing a policy speaks of")
    if len(names) == 1:
        reading.interface(known, names[0], incoming, but=how == "!=")
        return
    if how == "!=":
        # None of several: each of them in turn is not the one.
        for name in names:
            reading.interface(known, name, incoming, but=True)
        return
    some: list[Reading] = []
    for name in names:
        one = reading.copy()
        one.interface(known, name, incoming)
        some.append(one)
    if len({one.when for one in some}) != 1:
        raise Unread("loopback and other interfaces in one set are not a thing a policy speaks of")
    reading.boxes = tuple(box for one in some for box in one.boxes)
    reading.when = some[0].when


def _kinds(reading: Reading, field: str, how: str, kinds: set[str]) -> None:
    source = field == "fib saddr type"
    own = source is not (reading.side is Side.INGRESS) if field != "meta pkttype" else reading.side is Side.INGRESS
    known = {"local", "unicast", "multicast", "broadcast", "anycast", "host", "other"}
    if not own or how not in ("==", "!=") or not kinds <= known:
        raise Unread(f"`{field} {', '.join(sorted(kinds))}` is known to the host alone")
    # A host's own address is local; what comes for it comes to it alone.
    is_own = "local" in kinds if field != "meta pkttype" else not kinds.isdisjoint({"host", "unicast"})
    if is_own is (how == "!="):
        reading.narrow((reading.end(source, SHARED),))


def _products(reading: Reading, fields: tuple[str, ...], how: str, elements: Sequence[Element]) -> None:
    alone = "th dport" in fields and "meta l4proto" not in fields
    if alone and any(less(box.ports, _ALL_PORTED) for box in reading.boxes):
        raise Unread("`th` without a protocol that has ports")
    if how not in ("==", "!="):
        if len(elements) != 1 or len(fields) != 1:
            raise Unread(f"relation `{how}` to several values is not a thing a policy speaks of")
        elements = ((_span(fields[0], how, elements[0][0]),),)
    domain = (Box(),)
    for field in fields:
        domain = meet_all(domain, (_domain(field),))
    found: list[Box] = []
    for element in elements:
        if len(element) != len(fields):
            raise Unread(f"`{' . '.join(element)}` has not as many parts as there are fields")
        boxes: tuple[Box, ...] = domain
        for field, word in zip(fields, element, strict=True):
            boxes = meet_all(boxes, (_box(reading, field, word),))
        found.extend(boxes)
    if how == "!=":
        reading.narrow(domain)
        reading.narrow(tuple(found), but=True)
    else:
        reading.narrow(tuple(found))


def _domain(field: str) -> Box:
    """Give what has such a field at all."""
    word = field.partition(" ")[0]
    if word in ("ip", "ip6"):
        return Box(remote=_FAMILIES[word], local=_FAMILIES[word])
    if word in ("icmp", "icmpv6"):
        family = IPV4 if word == "icmp" else IPV6
        return Box(family, whole(ICMP if word == "icmp" else ICMPV6), family)
    if word in _PORTED:
        return Box(ports=whole(_PORTED[word]))
    return Box(ports=_ALL_PORTED) if word == "th" else Box()


def _box(reading: Reading, field: str, word: str) -> Box:
    kind, _, what = field.partition(" ")
    if word == "*":
        return Box()
    if what in ("saddr", "daddr"):
        return reading.end(what == "saddr", address_range(word, 4 if kind == "ip" else 6))
    if field in ("ip protocol", "ip6 nexthdr", "meta l4proto"):
        return Box(ports=_protocols(word))
    if field in ("meta nfproto", "meta protocol"):
        if word not in _FAMILIES:
            raise Unread(f"`{word}` is neither IPv4 nor IPv6")
        return Box(remote=_FAMILIES[word], local=_FAMILIES[word])
    if what == "dport":
        first, dash, last = word.partition("-")
        low = port_number(first)
        high = port_number(last) if dash else low
        if low > high:
            raise Unread(f"`{word}` runs backwards")
        return Box(ports=port_points(frozenset({_PORTED[kind]}) if kind in _PORTED else PORTED, low, high))
    if kind in ("icmp", "icmpv6"):
        return Box(ports=_icmp(ICMP if kind == "icmp" else ICMPV6, what, word))
    raise Unread(f"`{field}` is not a thing a policy speaks of")


def _protocols(word: str) -> Intervals:
    first, dash, last = word.partition("-")
    if dash and first.isdecimal() and last.isdecimal():
        ends = protocol_number(first), protocol_number(last)
    else:
        ends = protocol_number(word), protocol_number(word)
    if ends[0] is None or ends[1] is None or ends[0] > ends[1]:
        raise Unread(f"`{word}` is not a protocol")
    return ((point(ends[0], 0), point(ends[1], _MOST)),)


def _icmp(protocol: int, what: str, word: str) -> Intervals:
    ends: list[Intervals] = []
    for part in word.split("-") if word.replace("-", "").isdecimal() else [word]:
        points = icmp_points(protocol, part) if "/" not in part and part != "any" else None
        if points is None:
            raise Unread(f"`{word}` is no ICMP {what}")
        ends.append(points)
    if len(ends) > 2 or ends[0] > ends[-1]:
        raise Unread(f"`{word}` is no ICMP {what}")
    if what == "type":
        return ((ends[0][0][0], ends[-1][-1][1]),)
    if not word.replace("-", "").isdecimal():
        raise Unread(f"`{word}` is no ICMP code")
    first, last = (int(part) for part in (word.split("-") * 2)[:2])
    return join((point(protocol, kind << 8 | first), point(protocol, kind << 8 | last)) for kind in range(256))


def _span(field: str, how: str, word: str) -> str:
    """Write `> 1024` as the range that it is."""
    if not field.endswith("dport"):
        raise Unread(f"`{field} {how}` is not a thing a policy speaks of")
    at = port_number(word)
    low, high = {"<": (0, at - 1), "<=": (0, at), ">": (at + 1, _MOST), ">=": (at, _MOST)}[how]
    if not 0 <= low <= high <= _MOST:
        raise Unread(f"`{field} {how} {word}` is no port")
    return f"{low}-{high}"
