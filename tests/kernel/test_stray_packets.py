"""A packet that conntrack cannot place does not end an allowed connection."""

from __future__ import annotations

import socket
import struct

from tests.kernel.namespaces import Namespace, needs_namespaces, pair

from cellwall.compile import Compiled, compile_fleet
from cellwall.enforce import NftPoint
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import parse_policy

pytestmark = needs_namespaces
PORT = 5432
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
ON, OFF_NO_PROBE, RECEIVED, SENT = 1, -1, 1, 2
FAR = 50_000_000
"""Octets beyond any window."""


def compiled(a: Namespace, b: Namespace) -> Compiled:
    """`a` may reach `b`, and nothing else is allowed at either."""
    rule = f"{{id: r, allow: tcp/{PORT}, from: role=web, to: role=db}}"
    policy = parse_policy([("p.yaml", f"rules: [{rule}]\nmodes: [{{where: any, mode: enforce}}]")])
    web, db = Workload("web", Labels({"role": "web"}), (a.v4,)), Workload("db", Labels({"role": "db"}), (b.v4,))
    return compile_fleet(policy, Fleet((web, db)), 1, 0.0)


def numbers(one: socket.socket) -> tuple[int, int]:
    """The sequence numbers that an open socket would send, and expects, next (tcp(7), TCP_REPAIR)."""
    one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, ON)
    found: list[int] = []
    for queue in (SENT, RECEIVED):
        one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        found.append(one.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ))
    one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF_NO_PROBE)
    return found[0] & 0xFFFFFFFF, found[1] & 0xFFFFFFFF


def checksum(octets: bytes) -> int:
    """The checksum of RFC 1071."""
    total = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def test_a_segment_out_of_the_window_does_not_reset_its_connection() -> None:
    with pair() as (a, b):
        # The server has no point: its own would not let the segment out, which stands for a late one from the wire.
        point = compiled(a, b).points["web"]
        with a.inside():
            NftPoint().apply(point.ruleset, point.members)
        with b.inside():
            listener = socket.create_server((str(b.v4), PORT))
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with a.inside():
            client = socket.create_connection((str(b.v4), PORT), timeout=5)
        server, _ = listener.accept()
        with listener, raw, client, server:
            server.settimeout(5)
            client.sendall(b"one")
            assert server.recv(3) == b"one"
            sends, expects = numbers(server)
            # Twenty octets of header with ACK and PSH, and two of data.
            to = client.getsockname()[1]
            segment = struct.pack(
                ">HHIIBBHHH2s", PORT, to, (sends + FAR) & 0xFFFFFFFF, expects, 5 << 4, 0x18, 500, 0, 0, b"xx"
            )
            pseudo = b.v4.packed + a.v4.packed + struct.pack(">BBH", 0, socket.IPPROTO_TCP, len(segment))
            segment = segment[:16] + struct.pack(">H", checksum(pseudo + segment)) + segment[18:]
            header = struct.pack(
                ">BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, socket.IPPROTO_TCP, 0, b.v4.packed, a.v4.packed
            )
            raw.sendto(header + segment, (str(a.v4), 0))
            for word in (b"two", b"six"):
                client.sendall(word)
                assert server.recv(3) == word
                server.sendall(word)
                assert client.recv(3) == word
