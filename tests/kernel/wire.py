"""Real packets of any protocol between namespaces on one bridge, each told apart by what it carries."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Generator, Iterator, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path

from tests.kernel.namespaces import Namespace, namespace

from cellwall.traffic import ICMP, ICMPV6, SCTP, TCP, UDP, Address

MAGIC = b"cwpk"
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; the socket module has no name for it
_libc = ctypes.CDLL(None)


@dataclass
class Host:
    """A namespace on the bridge with its addresses, and raw sockets in it to send and to hear with."""

    space: Namespace
    addresses: tuple[Address, ...]
    heard: dict[int, socket.socket] = field(default_factory=dict[int, socket.socket])
    senders: dict[tuple[int, int, str], socket.socket] = field(
        default_factory=dict[tuple[int, int, str], socket.socket]
    )


@contextmanager
def bridge(hosts: list[tuple[Address, ...]]) -> Generator[list[Host]]:
    """Make a namespace for each tuple of addresses, all on one link, each with the others' neighbour entries.

    Routes are on-link, so that any address reaches any other."""
    with ExitStack() as stack:
        middle = stack.enter_context(namespace())
        middle.run(["ip", "link", "add", "bridge0", "type", "bridge", "mcast_snooping", "0"])
        middle.run(["ip", "link", "set", "bridge0", "up"])
        made: list[Host] = []
        for index, addresses in enumerate(hosts):
            one = stack.enter_context(namespace())
            mac = f"02:00:00:00:00:{index + 1:02x}"
            one.run(["ip", "link", "add", "eth0", "address", mac, "type", "veth", "peer", "name", f"p{index}",
                     "netns", middle.name])  # fmt: skip
            middle.run(["ip", "link", "set", f"p{index}", "master", "bridge0", "up"])
            one.run(["ip", "link", "set", "eth0", "up"])
            for address in addresses:
                command = ["ip", "addr", "add", f"{address}/{32 if address.version == 4 else 128}", "dev", "eth0"]
                one.run([*command, "nodad"] if address.version == 6 else command)
            for family in ("-4", "-6"):
                if any(f"-{address.version}" == family for address in addresses):
                    one.run(["ip", family, "route", "add", "default", "dev", "eth0"])
            made.append(Host(one, addresses))
        for index, host in enumerate(made):
            lines = [
                f"neigh replace {address} lladdr 02:00:00:00:00:{other + 1:02x} dev eth0 nud permanent"
                for other, addresses in enumerate(hosts)
                if other != index
                for address in addresses
            ]
            host.space.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
        try:
            yield made
        finally:
            for host in made:
                for one in (*host.heard.values(), *host.senders.values()):
                    one.close()


def listen(host: Host, protocols: set[int]) -> None:
    """Hear every packet of `protocols` that comes through the input hook of `host`."""
    with host.space.inside():
        for protocol in protocols:
            for family, key in ((socket.AF_INET, protocol), (socket.AF_INET6, -protocol - 1)):
                if (family == socket.AF_INET and protocol == ICMPV6) or (
                    family == socket.AF_INET6 and protocol == ICMP
                ):
                    continue
                one = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
                # Beyond what the machine allows by default, where some 500 packets would fill it.
                one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
                host.heard[key] = one


def hear(host: Host, wait_s: float = 0.0, *, expected: Set[int] = frozenset()) -> set[int]:
    """Give the numbers of the packets that came through, reading all that is there.

    Where one of `expected` has not come, wait for it up to a second: a busy kernel delivers later than it sends."""
    found: set[int] = set()
    ends = time.monotonic() + 1
    while True:
        ready, _, _ = select.select(list(host.heard.values()), [], [], wait_s)
        for one in ready:
            found.update(_numbers(one))
        wait_s = ends - time.monotonic()
        if expected <= found or wait_s <= 0:
            return found


def _numbers(one: socket.socket) -> Iterator[int]:
    while True:
        try:
            data = one.recv(2048)
        except BlockingIOError:
            return
        at = data.find(MAGIC)
        if at >= 0 and len(data) >= at + 8:
            yield struct.unpack_from(">I", data, at + 4)[0]


def send(
    host: Host,
    source: Address,
    destination: Address,
    protocol: int,
    port: int,
    number: int,
    *,
    uid: int = 0,
    cgroup: Path | None = None,
) -> bool:
    """Send packet `number` from a socket of user `uid` in `cgroup`; say whether the output hook let it go."""
    key = (protocol if source.version == 4 else -protocol - 1, uid, str(cgroup))
    if key not in host.senders:
        host.senders[key] = _sender(host, source.version, protocol, uid, cgroup)
    one = host.senders[key]
    body = _body(source, destination, protocol, port, number)
    try:
        if source.version == 4:
            total = 20 + len(body)
            header = struct.pack(
                ">BBHHHBBH4s4s", 0x45, 0, total, 0, 0, 64, protocol, 0, source.packed, destination.packed
            )
            one.sendto(header + body, (str(destination), 0))
        else:
            # in6_pktinfo chooses the source address.
            info = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source.packed + struct.pack("=I", 0))
            one.sendmsg([body], [info], 0, (str(destination), 0, 0, 0))
    except PermissionError:
        return False
    return True


def _sender(host: Host, version: int, protocol: int, uid: int, cgroup: Path | None) -> socket.socket:
    home = _move(cgroup) if cgroup else None
    # nftables takes the user from the credentials that opened the socket's file; capabilities to send stay.
    _libc.setfsuid(uid)
    try:
        with host.space.inside():
            if version == 4:
                one = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            else:
                one = socket.socket(socket.AF_INET6, socket.SOCK_RAW, protocol)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    finally:
        _libc.setfsuid(0)
        if home:
            _move(home)
    return one


def _move(cgroup: Path) -> Path | None:
    """Move this process to `cgroup`; give the one that it was in."""
    listing = Path("/proc/self/cgroup").read_text()
    path = next(line[3:] for line in listing.splitlines() if line.startswith("0::"))
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    mount = next(parent for parent in (cgroup, *cgroup.parents) if not (parent.parent / "cgroup.procs").exists())
    return mount / path.lstrip("/")


def _body(source: Address, destination: Address, protocol: int, port: int, number: int) -> bytes:
    mark = MAGIC + struct.pack(">I", number)
    # From 20000 on, so that no packet of a test is the reply to another.
    sport = 20000 + number % 40000
    if protocol == TCP:
        body = struct.pack(">HHIIBBHHH", sport, port, number, 0, 7 << 4, 2, 1024, 0, 0) + mark
        return _summed(source, destination, protocol, body, 16)
    if protocol == UDP:
        body = struct.pack(">HHHH", sport, port, 16, 0) + mark
        return _summed(source, destination, protocol, body, 6)
    if protocol == SCTP:
        # An INIT chunk; the checksum is CRC32c, which conntrack does not check when it is not asked to.
        chunk = struct.pack(">BBHIIHHI", 1, 0, 28, number | 1, 65535, 1, 1, number) + mark
        return _crc(struct.pack(">HHII", sport, port, 0, 0) + chunk)
    if protocol in (ICMP, ICMPV6):
        body = struct.pack(">BBHHH", port >> 8, port & 0xFF, 0, number & 0xFFFF, number >> 16) + mark
        if protocol == ICMP:
            return body[:2] + _checksum(body).to_bytes(2, "big") + body[4:]
        return body
    return b"\0\0\0\0" + mark


def _summed(source: Address, destination: Address, protocol: int, body: bytes, at: int) -> bytes:
    pseudo = source.packed + destination.packed
    if isinstance(source, IPv6Address):
        pseudo += struct.pack(">II", len(body), protocol)
    else:
        pseudo += struct.pack(">BBH", 0, protocol, len(body))
    value = _checksum(pseudo + body) or 0xFFFF
    return body[:at] + value.to_bytes(2, "big") + body[at + 2 :]


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _crc(packet: bytes) -> bytes:
    """Put the CRC32c of RFC 9260 appendix A into an SCTP packet."""
    crc = 0xFFFFFFFF
    for byte in packet:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return packet[:8] + struct.pack("<I", crc ^ 0xFFFFFFFF) + packet[12:]
