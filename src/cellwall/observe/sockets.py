"""Sockets of this network namespace and who holds them, over sock_diag (sock_diag(7), linux/inet_diag.h).

IPv4-mapped IPv6 addresses are IPv4 from here on. Addresses stay packed; the properties unpack them.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Final

from cellwall.clients import KernelError, Netlink, Protocol, attributes
from cellwall.observe.packed import unmapped, unpack_address
from cellwall.traffic import SCTP, TCP, UDP, Address

_BY_FAMILY = 20
_V6ONLY, _CGROUP_ID = 11, 21
_MESSAGE = struct.Struct("=BBBBxxxx16s16sI8xIIIII")
_PORTS = struct.Struct(">HH")
_REQUEST = struct.Struct("=BBBBI")
_ANY = struct.Struct("=I")
_NO_COOKIE = b"\xff" * 8


class State(IntEnum):
    """The state of a socket (linux/tcp_states.h); an unconnected UDP socket is in CLOSE."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12
    BOUND_INACTIVE = 13


_STATES: Final = {int(state): state for state in State}
_LISTENING: Final = {TCP: (State.LISTEN,), UDP: (State.CLOSE,), SCTP: (State.LISTEN,)}
_CONNECTED: Final = {
    # TIME_WAIT is left out: it belongs to no process any more.
    TCP: tuple(s for s in State if s not in (State.LISTEN, State.CLOSE, State.TIME_WAIT, State.BOUND_INACTIVE)),
    UDP: (State.ESTABLISHED,),
    SCTP: (State.ESTABLISHED,),
}


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket; `remote` is all zeros and `remote_port` 0 when it is not connected.

    `device` is the interface that it is bound to, 0 for none. `inode` is 0 once no process holds it. `cgroup` is
    the id of its cgroup v2, 0 where the kernel does not say. `v6_only` is False for an IPv6 socket that also takes
    IPv4.
    """

    protocol: int
    state: State
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    device: int
    uid: int
    inode: int
    cgroup: int
    v6_only: bool

    @property
    def local_address(self) -> Address:
        """The local address."""
        return unpack_address(self.local)

    @property
    def remote_address(self) -> Address:
        """The remote address."""
        return unpack_address(self.remote)

    @property
    def takes_any(self) -> bool:
        """Whether it takes what comes to any local address."""
        return not any(self.local)


def open_sockets() -> Netlink:
    """Open a link to sock_diag in this network namespace, to be used for many calls."""
    return Netlink(Protocol.SOCK_DIAG)


def _use(link: Netlink | None) -> AbstractContextManager[Netlink]:
    return open_sockets() if link is None else nullcontext(link)


def listening_sockets(link: Netlink | None = None) -> list[Socket]:
    """List what takes calls: listening TCP and SCTP sockets and unconnected UDP ones that are bound to a port."""
    return [one for one in _sockets(_LISTENING, link) if one.local_port]


def connected_sockets(link: Netlink | None = None) -> list[Socket]:
    """List the sockets that have a peer, those being opened and closed included."""
    return list(_sockets(_CONNECTED, link))


def _sockets(states: dict[int, tuple[State, ...]], link: Netlink | None) -> Iterator[Socket]:
    with _use(link) as use:
        for protocol, wanted in states.items():
            # To ask about SCTP would load its module where nobody uses it.
            if protocol == SCTP and not Path("/proc/thread-self/net/sctp").exists():
                continue
            bits = sum(1 << state for state in wanted)
            for family in (AF_INET, AF_INET6):
                body = _REQUEST.pack(family, protocol, 0, 0, bits) + bytes(40) + _NO_COOKIE
                try:
                    for answer in use.stream(_BY_FAMILY, body, doing="cannot list sockets"):
                        yield parse_socket(answer, protocol)
                except KernelError as error:
                    # A kernel without IPv6, or without that protocol.
                    if error.code not in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                        raise


def find_socket(
    protocol: int,
    local: bytes,
    local_port: int,
    remote: bytes,
    remote_port: int,
    link: Netlink | None = None,
) -> Socket | None:
    """Look up the socket that has exactly this pair of ends, else the one that listens there; None if none does.

    Addresses are packed. A microsecond matter, where a dump takes milliseconds. Raises `KernelError`.
    """
    family = AF_INET if len(local) == 4 else AF_INET6
    ends = [(local_port, local), (remote_port, remote)]
    if protocol == UDP:
        # The kernel reads the ends the other way round for UDP, "for historical reasons" (net/ipv4/udp_diag.c).
        ends.reverse()
    (source_port, source), (target_port, target) = ends
    body = b"".join(
        (
            _REQUEST.pack(family, protocol, 0, 0, 0xFFFFFFFF),
            _PORTS.pack(source_port, target_port),
            source.ljust(16, b"\0"),
            target.ljust(16, b"\0"),
            _ANY.pack(0),
            _NO_COOKIE,
        )
    )
    with _use(link) as use:
        try:
            answers = use.ask(_BY_FAMILY, body, doing="cannot look up a socket")
        except KernelError as error:
            if error.code == errno.ENOENT:
                return None
            raise
    return parse_socket(answers[0].body, protocol) if answers else None


def parse_socket(body: bytes, protocol: int) -> Socket:
    """Read one `inet_diag_msg` with its attributes. Raises `KernelError` when it is cut short."""
    if len(body) < 72:
        raise KernelError("answer about a socket is cut short")
    family, state, _, _, local, remote, device, _, _, _, uid, inode = _MESSAGE.unpack_from(body)
    local_port, remote_port = _PORTS.unpack_from(body, 4)
    if state not in _STATES:
        raise KernelError(f"socket in unknown state {state}")
    told = attributes(body, 72)
    if family == AF_INET:
        local, remote = local[:4], remote[:4]
    else:
        local, remote = unmapped(local), unmapped(remote)
    return Socket(
        protocol,
        _STATES[state],
        local,
        local_port,
        remote,
        remote_port,
        device,
        uid,
        inode,
        int.from_bytes(told.get(_CGROUP_ID, b""), sys.byteorder),
        bool(told.get(_V6ONLY, b"\0")[:1] not in (b"", b"\0")),
    )
