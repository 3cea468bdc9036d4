"""Tracked connections as values: read from ctnetlink messages, judged for their roles. Pure; `conntrack.py` speaks.

The numbers are those of linux/netfilter/nfnetlink_conntrack.h. A dump of a hundred thousand is to take a second, so
the usual layouts of a tuple are read in one go, addresses stay packed until somebody looks, and the values are named
tuples: a third of the time of a frozen dataclass to make and to hash.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from enum import IntEnum, IntFlag
from typing import NamedTuple

from cellwall.clients import KernelError, attribute, attributes, be16, nested, to_number
from cellwall.observe.packed import unpack_address
from cellwall.observe.sockets import Socket, State
from cellwall.traffic import ICMP, ICMPV6, SCTP, TCP, UDP, Address

_TUPLE_ORIGINAL, _TUPLE_REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MARK = 1, 2, 3, 4, 7, 8
_COUNTERS_ORIGINAL, _COUNTERS_REPLY, _ID, _ZONE, _TIMESTAMP = 9, 10, 12, 18, 20
_PORTED = frozenset((TCP, UDP, SCTP, 33, 136))
_HEAD = struct.Struct("=HH")
_COUNTS = struct.Struct(">4xQ4xQ")
_NEST = 0x8000


class Status(IntFlag):
    """The bits of a tracked connection that say something to us (linux/netfilter/nf_conntrack_common.h)."""

    EXPECTED = 1
    SEEN_REPLY = 2
    ASSURED = 4
    CONFIRMED = 8
    SOURCE_NAT = 16
    DESTINATION_NAT = 32
    DYING = 512


class TcpState(IntEnum):
    """The state of a tracked TCP connection (linux/netfilter/nf_conntrack_tcp.h)."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9


class Ends(NamedTuple):
    """One direction of a connection: packed addresses, protocol and ports.

    For ICMP `sport` is the identifier and `dport` is type × 256 + code; for protocols without ports both are 0.
    """

    source: bytes
    target: bytes
    protocol: int
    sport: int
    dport: int

    @property
    def source_address(self) -> Address:
        """Where its packets come from."""
        return unpack_address(self.source)

    @property
    def target_address(self) -> Address:
        """Where its packets go to."""
        return unpack_address(self.target)

    @property
    def icmp_type(self) -> int:
        """The type of an ICMP message."""
        return self.dport >> 8

    @property
    def icmp_code(self) -> int:
        """The code of an ICMP message."""
        return self.dport & 0xFF

    def reversed(self) -> Ends:
        """Give the other direction, as it is without address translation; for protocols with ports."""
        return Ends(self.target, self.source, self.protocol, self.dport, self.sport)


class Connection(NamedTuple):
    """A connection as the kernel tracks it; `original` is the direction of who began it.

    `timeout_s` is how long it is kept without a packet. Counts are None unless accounting was on when it began; a
    count includes the headers from IP on. `started_ns` and `stopped_ns` are nanoseconds since the epoch, None
    unless time stamps were on. `tcp_state` is None for other protocols.
    """

    original: Ends
    reply: Ends
    status: int = 0
    timeout_s: int = 0
    mark: int = 0
    id: int = 0
    zone: int = 0
    tcp_state: int | None = None
    original_packets: int | None = None
    original_octets: int | None = None
    reply_packets: int | None = None
    reply_octets: int | None = None
    started_ns: int | None = None
    stopped_ns: int | None = None

    @property
    def translated(self) -> bool:
        """Whether addresses or ports of it are translated (NAT)."""
        return bool(self.status & (Status.SOURCE_NAT | Status.DESTINATION_NAT))

    @property
    def answered(self) -> bool:
        """Whether packets went both ways."""
        return bool(self.status & Status.SEEN_REPLY)


def _heads(family: int) -> tuple[bytes, ...]:
    """The attribute headers between the values of a tuple with ports, as the kernel lays it out."""
    width = 4 if family == 4 else 16
    kind = 1 if family == 4 else 3
    pack = _HEAD.pack
    return (
        pack(2 * width + 12, 1 | _NEST) + pack(width + 4, kind),
        pack(width + 4, kind + 1),
        pack(28, 2 | _NEST) + pack(5, 1),
        pack(6, 2),
        pack(6, 3),
    )


_V4, _V4_HEADS = struct.Struct(">8s4s4s4s8sB3x4sH2x4sH2x"), _heads(4)
_V6, _V6_HEADS = struct.Struct(">8s16s4s16s8sB3x4sH2x4sH2x"), _heads(6)


def parse_ends(data: bytes) -> Ends:
    """Read a tuple. Raises `KernelError` when it is cut short or has no addresses."""
    size = len(data)
    if size == 48:
        one, source, two, target, three, protocol, four, sport, five, dport = _V4.unpack(data)
        if (one, two, three, four, five) == _V4_HEADS:
            return Ends(source, target, protocol, sport, dport)
    elif size == 72:
        one, source, two, target, three, protocol, four, sport, five, dport = _V6.unpack(data)
        if (one, two, three, four, five) == _V6_HEADS:
            return Ends(source, target, protocol, sport, dport)
    told = attributes(data)
    ip, proto = attributes(told.get(1, b"")), attributes(told.get(2, b""))
    source, target = ip.get(1) or ip.get(3, b""), ip.get(2) or ip.get(4, b"")
    if len(source) not in (4, 16) or len(source) != len(target):
        raise KernelError("tracked connection without addresses")
    protocol = to_number(proto.get(1, b""))
    if protocol in (ICMP, ICMPV6):
        first = 4 if protocol == ICMP else 7
        sport, kind, code = (to_number(proto.get(first + step, b"")) for step in range(3))
        return Ends(source, target, protocol, sport, kind << 8 | code)
    return Ends(source, target, protocol, to_number(proto.get(2, b"")), to_number(proto.get(3, b"")))


def write_ends(kind: int, ends: Ends) -> bytes:
    """Lay a tuple out as attribute `kind`."""
    first = 1 if len(ends.source) == 4 else 3
    if ends.protocol in (ICMP, ICMPV6):
        at = 4 if ends.protocol == ICMP else 7
        one_byte = (attribute(at + 1, bytes((ends.icmp_type,))), attribute(at + 2, bytes((ends.icmp_code,))))
        ports = (be16(at, ends.sport), *one_byte)
    else:
        ports = (be16(2, ends.sport), be16(3, ends.dport))
    return nested(
        kind,
        nested(1, attribute(first, ends.source), attribute(first + 1, ends.target)),
        nested(2, attribute(1, bytes((ends.protocol,))), *ports),
    )


def parse_connection(body: bytes) -> Connection:
    """Read a tracked connection. Raises `KernelError` when the message is cut short."""
    told = attributes(body, 4)
    get = told.get
    original, reply = get(_TUPLE_ORIGINAL), get(_TUPLE_REPLY)
    if original is None or reply is None:
        raise KernelError("tracked connection without both directions")
    number = int.from_bytes
    out = get(_COUNTERS_ORIGINAL)
    back = get(_COUNTERS_REPLY)
    times = get(_TIMESTAMP)
    info = get(_PROTOINFO)
    sent = _counts(out) if out is not None else _UNKNOWN
    answered = _counts(back) if back is not None else _UNKNOWN
    began = _times(times) if times is not None else _UNKNOWN
    return Connection(
        parse_ends(original),
        parse_ends(reply),
        number(get(_STATUS, b""), "big"),
        number(get(_TIMEOUT, b""), "big"),
        number(get(_MARK, b""), "big"),
        number(get(_ID, b""), "big"),
        number(get(_ZONE, b""), "big"),
        _tcp_state(info) if info is not None else None,
        *sent,
        *answered,
        *began,
    )


_UNKNOWN: tuple[int | None, int | None] = (None, None)
_COUNT_HEADS = _HEAD.pack(12, 1), _HEAD.pack(12, 2)
_TCP_HEAD = _HEAD.pack(5, 1)


def _counts(data: bytes) -> tuple[int | None, int | None]:
    if len(data) == 24 and data[:4] == _COUNT_HEADS[0] and data[12:16] == _COUNT_HEADS[1]:
        return _COUNTS.unpack(data)
    told = attributes(data)
    return to_number(told.get(1, b"")), to_number(told.get(2, b""))


def _times(data: bytes) -> tuple[int | None, int | None]:
    told = attributes(data)
    start, stop = told.get(1), told.get(2)
    return None if start is None else to_number(start), None if stop is None else to_number(stop)


def _tcp_state(data: bytes) -> int | None:
    # PROTOINFO holds TCP (1) or another protocol, and that holds the state (1) first.
    if data[2:4] in _TCP_KINDS and data[4:8] == _TCP_HEAD:
        return data[8] if len(data) > 8 else None
    told = attributes(data).get(1)
    state = None if told is None else attributes(told).get(1)
    return state[0] if state else None


_TCP_KINDS = (_HEAD.pack(0, 1)[2:], _HEAD.pack(0, 1 | _NEST)[2:])


def open_connections(connected: Iterable[Socket], listening: Collection[Socket]) -> frozenset[Ends]:
    """Say which connections these sockets are part of, each from the side that began it.

    A connection whose local port is listened on was begun by the other end; any other by this host. Connections
    that are not established in full are left out: the kernel will see how they go on. So are protocols other than
    TCP and UDP, whose state the kernel must have seen.
    """
    ports = _listened(listening)
    found: set[Ends] = set()
    for one in connected:
        if one.protocol not in (TCP, UDP):
            continue
        if one.protocol == TCP and one.state not in (State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT2):
            continue
        out = Ends(one.local, one.remote, one.protocol, one.local_port, one.remote_port)
        found.add(out.reversed() if _is_listened(ports, one.protocol, one.local, one.local_port) else out)
    return frozenset(found)


def swapped(
    connections: Iterable[Connection],
    listening: Collection[Socket],
    local: Collection[bytes],
    ephemeral: tuple[int, int] = (32768, 60999),
) -> list[Connection]:
    """Say which tracked connections have their roles the wrong way round.

    Tracking that begins in the middle of a connection takes who speaks first for the client. So it is wrong about
    a connection from a port that this host listens on, at one of its addresses (`local`, packed), to a port from
    the range that clients get theirs from (`ephemeral`, net.ipv4.ip_local_port_range) where it does not listen.
    Translated connections are left alone: their roles were decided by their first packet.
    """
    ports = _listened(listening)
    first, last = ephemeral
    here = frozenset(local)
    return [
        one
        for one in connections
        if one.original.protocol in _PORTED
        and first <= one.original.dport <= last
        and one.original.source in here
        and not one.translated
        and _is_listened(ports, one.original.protocol, one.original.source, one.original.sport)
        and not (
            one.original.target in here
            and _is_listened(ports, one.original.protocol, one.original.target, one.original.dport)
        )
    ]


def _listened(listening: Iterable[Socket]) -> set[tuple[int, int, bytes]]:
    """Protocol, port and address; the address b"4" or b"6" for all of that family."""
    found: set[tuple[int, int, bytes]] = set()
    for one in listening:
        if not one.takes_any:
            found.add((one.protocol, one.local_port, one.local))
            continue
        if len(one.local) == 16:
            found.add((one.protocol, one.local_port, b"6"))
        if len(one.local) == 4 or not one.v6_only:
            found.add((one.protocol, one.local_port, b"4"))
    return found


def _is_listened(ports: set[tuple[int, int, bytes]], protocol: int, address: bytes, port: int) -> bool:
    every = b"4" if len(address) == 4 else b"6"
    return (protocol, port, every) in ports or (protocol, port, address) in ports
