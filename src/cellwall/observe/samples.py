"""Samples of packets as values: read from NFLOG messages and the packets in them. Pure; `nflog.py` listens.

The numbers are those of linux/netfilter/nfnetlink_log.h; headers are those of RFC 791, 8200, 9293, 768 and 792.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from cellwall.clients import KernelError, attributes, to_number, to_text
from cellwall.observe.connections import Ends
from cellwall.traffic import ICMP, ICMPV6, SCTP, TCP, UDP

_HEADER, _MARK, _TIMESTAMP, _IN, _OUT, _PAYLOAD, _PREFIX = 1, 2, 3, 4, 5, 9, 10
_UID, _SEQUENCE, _GID = 11, 12, 14
_PORTED = frozenset((TCP, UDP, SCTP, 33, 136))
# IPv6 headers that only lead to the next: hop-by-hop, routing, fragment, destination options, authentication.
_HOP, _ROUTING, _FRAGMENT, _OPTIONS, _AUTHENTICATION = 0, 43, 44, 60, 51
_LEADING = frozenset((_HOP, _ROUTING, _FRAGMENT, _OPTIONS, _AUTHENTICATION))
_U16 = struct.Struct(">H")
_PORTS = struct.Struct(">HH")


@dataclass(frozen=True, slots=True)
class Header:
    """What the headers of a packet say.

    `ends` are as of a connection in the direction of the packet: for ICMP `sport` is the identifier of an echo, 0
    of other messages. `complete` is False when the ports could not be read, because the packet is a later fragment
    or was cut short: they are 0 then. `tcp_flags` is the byte of RFC 9293 §3.1, 0 for other protocols. `octets` is
    the length of the whole packet.
    """

    ends: Ends
    complete: bool
    tcp_flags: int
    octets: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A packet that a rule logged.

    `header` is None when the packet is neither IPv4 nor IPv6, or cut too short to tell. `hook` is that of
    netfilter: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting. `uid` and `gid` are those of the sending
    socket, None for what comes in. `at_ns` is nanoseconds since the epoch, None when the kernel did not stamp it.
    """

    prefix: str
    header: Header | None
    hook: int
    in_device: str
    out_device: str
    mark: int
    uid: int | None
    gid: int | None
    at_ns: int | None
    sequence: int | None


def parse_sample(body: bytes, names: Mapping[int, str]) -> Sample:
    """Read an NFLOG message; `names` names the interfaces by number. Raises `KernelError` when it is cut short."""
    told = attributes(body, 4)
    packet_header = told.get(_HEADER, b"")
    if len(packet_header) < 3:
        raise KernelError("sample of a packet without its header")
    uid, gid, sequence, stamp = told.get(_UID), told.get(_GID), told.get(_SEQUENCE), told.get(_TIMESTAMP, b"")
    at_ns = None
    if len(stamp) == 16:
        seconds, micros = struct.unpack(">QQ", stamp)
        at_ns = seconds * 1_000_000_000 + micros * 1000
    return Sample(
        to_text(told.get(_PREFIX, b"")).strip(),
        parse_packet(told.get(_PAYLOAD, b"")),
        packet_header[2],
        names.get(to_number(told.get(_IN, b"")), ""),
        names.get(to_number(told.get(_OUT, b"")), ""),
        to_number(told.get(_MARK, b"")),
        None if uid is None else to_number(uid),
        None if gid is None else to_number(gid),
        at_ns,
        None if sequence is None else to_number(sequence),
    )


def parse_packet(packet: bytes) -> Header | None:
    """Read the headers of an IP packet from its first bytes; None when it is no IP packet or too short to tell."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        start = (packet[0] & 0xF) * 4
        later = bool(_U16.unpack_from(packet, 6)[0] & 0x1FFF)
        octets = _U16.unpack_from(packet, 2)[0]
        if start < 20:
            return None
        return _transport(packet, None if later else start, packet[9], packet[12:16], packet[16:20], octets)
    if version == 6 and len(packet) >= 40:
        octets = _U16.unpack_from(packet, 4)[0] + 40
        protocol, at = _skip_leading(packet)
        return _transport(packet, at, protocol, packet[8:24], packet[24:40], octets)
    return None


def _skip_leading(packet: bytes) -> tuple[int, int | None]:
    """The protocol of an IPv6 packet, and where its header starts; None when that cannot be read."""
    protocol, at = packet[6], 40
    while protocol in _LEADING:
        if at + 8 > len(packet):
            return protocol, None
        kind, protocol, size = protocol, packet[at], packet[at + 1]
        if kind == _FRAGMENT:
            if _U16.unpack_from(packet, at + 2)[0] & 0xFFF8:
                return protocol, None
            at += 8
        else:
            at += (size + 2) * 4 if kind == _AUTHENTICATION else (size + 1) * 8
    return protocol, at


def _transport(packet: bytes, at: int | None, protocol: int, source: bytes, target: bytes, octets: int) -> Header:
    have = 0 if at is None else len(packet) - at
    sport = dport = flags = 0
    complete = True
    if protocol in _PORTED:
        complete = at is not None and have >= 4
        if at is not None and complete:
            sport, dport = _PORTS.unpack_from(packet, at)
            if protocol == TCP and have >= 14:
                flags = packet[at + 13]
    elif protocol in (ICMP, ICMPV6):
        complete = at is not None and have >= 2
        if at is not None and complete:
            dport = _U16.unpack_from(packet, at)[0]
            echo = dport >> 8 in ((0, 8) if protocol == ICMP else (128, 129))
            if echo and have >= 6:
                sport = _U16.unpack_from(packet, at + 4)[0]
    return Header(Ends(source, target, protocol, sport, dport), complete, flags, octets)
