"""Tracked connections, read, watched, adopted and repaired, with real sockets in namespaces."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Generator

import pytest
from tests.kernel.namespaces import Namespace, needs_namespaces, pair

from cellwall.clients import KernelError
from cellwall.observe import (
    Connection,
    ConnectionEvents,
    Ends,
    Happening,
    Status,
    TcpState,
    adopt,
    connected_sockets,
    conntrack_fill,
    create_connection,
    delete_connection,
    enable_accounting,
    listening_sockets,
    open_connections,
    open_conntrack,
    repair,
    swapped,
    tracked_connections,
    walk_connections,
)

pytestmark = needs_namespaces

# What matters of our ruleset: replies by conntrack, calls by their port.
REPLIES_AND_CALLS = """table inet wall {
    chain input {
        type filter hook input priority 0; policy drop;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ct direction reply accept
        ct direction original th dport 5432 accept
    }
    chain output {
        type filter hook output priority 0; policy drop;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ct direction reply accept
        ct direction original th dport 6000 accept
    }
}
"""
TRACK_ALL = "table inet wall {\nchain output {\ntype filter hook output priority 0; ct state new accept\n}\n}\n"

Call = tuple[socket.socket, socket.socket]


@pytest.fixture
def wire() -> Generator[tuple[Namespace, Namespace]]:
    with pair() as (client, server):
        yield client, server


def listen(where: Namespace, port: int) -> socket.socket:
    with where.inside():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


def call(where: Namespace, host: object, server: socket.socket) -> Call:
    with where.inside():
        near = socket.create_connection((str(host), server.getsockname()[1]), 3)
    far, _ = server.accept()
    far.settimeout(3)
    return near, far


def carry(sender: socket.socket, receiver: socket.socket, size: int) -> bool:
    """Say whether `size` bytes arrive."""
    wanted = os.urandom(size)
    got = b""
    for start in range(0, size, 16384):
        sender.sendall(wanted[start : start + 16384])
        while len(got) < min(start + 16384, size):
            got += receiver.recv(65536)
    return got == wanted


def ends(near: socket.socket, _: socket.socket) -> Ends:
    def packed(name: tuple[str, int]) -> bytes:
        host = name[0].removeprefix("::ffff:")
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)

    one, other = near.getsockname(), near.getpeername()
    return Ends(packed(one), packed(other), 6, one[1], other[1])


def test_connections_open_before_tracking_are_adopted_with_the_right_roles_and_flow_on(
    wire: tuple[Namespace, Namespace],
) -> None:
    a, b = wire
    server, away = listen(b, 5432), listen(a, 6000)
    calls = [call(a, host, server) for host in (b.v4, b.v6)]
    # And one that b itself began, to a port that it may call.
    mine = call(b, a.v4, away)
    with b.inside():
        assert tracked_connections() == []
        begun = open_connections(connected_sockets(), listening_sockets())
        assert begun == {ends(near, far) for near, far in [*calls, mine]}
        assert adopt(begun).made == 3
        assert (adopt(begun).made, adopt(begun).present) == (0, 3)
        held = tracked_connections()
        assert {one.original for one in held} == begun
        assert all(one.tcp_state == TcpState.ESTABLISHED and one.timeout_s > 400_000 for one in held)
        b.nft(REPLIES_AND_CALLS)
        for near, far in calls:
            # The server speaks first, which would make it the client of an entry that the kernel makes itself.
            assert carry(far, near, 100)
            assert carry(near, far, 300_000)
            assert carry(far, near, 300_000)
        assert carry(*mine, 300_000)
        assert carry(mine[1], mine[0], 300_000)
        held = tracked_connections()
        assert {one.original for one in held} == begun
        assert swapped(held, listening_sockets(), addresses(b)) == []
        # They end as any other.
        for near, far in calls:
            far.close()
            assert near.recv(1) == b""
            near.close()
        assert {one.tcp_state for one in held if one.original.dport == 5432} == {TcpState.ESTABLISHED}
        until = time.monotonic() + 3
        while any(one.tcp_state == TcpState.ESTABLISHED for one in tracked_connections() if one.original.dport == 5432):
            assert time.monotonic() < until
            time.sleep(0.02)


def addresses(where: Namespace) -> list[bytes]:
    return [where.v4.packed, where.v6.packed]


def test_swapped_roles_are_recognised_and_repaired_without_cutting_the_connection(
    wire: tuple[Namespace, Namespace],
) -> None:
    a, b = wire
    server = listen(b, 5432)
    calls = [call(a, host, server) for host in (b.v4, b.v6)]
    with b.inside():
        b.nft(TRACK_ALL)
        for near, far in calls:
            assert carry(far, near, 100)
        held = tracked_connections()
        assert {one.original for one in held} == {ends(near, far).reversed() for near, far in calls}
        wrong = swapped(held, listening_sockets(), addresses(b))
        assert wrong == held
        done = repair(wrong)
        assert (done.made, done.refused) == (2, ())
        assert {one.original for one in tracked_connections()} == {ends(near, far) for near, far in calls}
        b.nft("flush ruleset\n" + REPLIES_AND_CALLS)
        for near, far in calls:
            assert carry(far, near, 100_000)
            assert carry(near, far, 100_000)


def test_a_dump_says_what_conntrack_says(wire: tuple[Namespace, Namespace]) -> None:
    a, b = wire
    a.nft(TRACK_ALL)
    with a.inside():
        enable_accounting()
        enable_accounting()
    server = listen(b, 5432)
    near, far = call(a, b.v4, server)
    assert carry(near, far, 1000)
    with a.inside():
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"x" * 10, (str(b.v6), 53))
        # An echo request, by hand.
        echo = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        echo.sendto(b"\x08\0\x00\x00\x12\x34\0\1" + b"data", (str(b.v4), 0))
        by_port = {(one.original.protocol, one.original.dport): one for one in tracked_connections()}
        assert [one.original for one in tracked_connections(socket.AF_INET6)] == [by_port[17, 53].original]
        filled, most = conntrack_fill()
    assert filled == 3 and most > 100
    tcp, udp, icmp = by_port[6, 5432], by_port[17, 53], by_port[1, 8 << 8]
    assert tcp.original == ends(near, far) and tcp.reply == ends(near, far).reversed()
    assert (tcp.original.source_address, tcp.original.target_address) == (a.v4, b.v4)
    assert tcp.tcp_state == TcpState.ESTABLISHED and tcp.answered and not tcp.translated
    assert tcp.status & Status.ASSURED and tcp.original_octets is not None and tcp.original_octets > 1000
    assert tcp.started_ns is not None and abs(tcp.started_ns / 1e9 - time.time()) < 30
    assert udp.tcp_state is None and not udp.answered
    # IPv6 header, UDP header, payload.
    assert (udp.original_packets, udp.original_octets, udp.reply_packets) == (1, 40 + 8 + 10, 0)
    assert (icmp.original.icmp_type, icmp.original.icmp_code, icmp.original.sport) == (8, 0, 0x1234)


def test_events_tell_the_beginning_and_the_end_with_the_final_counts(wire: tuple[Namespace, Namespace]) -> None:
    a, b = wire
    a.nft(TRACK_ALL)
    with a.inside(), ConnectionEvents() as events:
        enable_accounting()
        assert events.read() == []
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x" * 10, (str(b.v4), 53))
        (began,) = events.read()
        assert began.happening is Happening.NEW and began.connection.original.dport == 53
        assert delete_connection(began.connection.original)
        (ended,) = events.read()
        assert ended.happening is Happening.DESTROY and ended.connection.original == began.connection.original
        assert (ended.connection.original_packets, ended.connection.original_octets) == (1, 38)
        assert ended.connection.started_ns is not None and ended.connection.stopped_ns is not None
        assert ended.connection.started_ns <= ended.connection.stopped_ns
        assert events.lost == 0


def many(count: int) -> list[Ends]:
    return [
        Ends(bytes((10, n >> 16, n >> 8 & 255, n & 255)), b"\x0a\xff\0\1", 6, 1024 + n % 50000, 443)
        for n in range(count)
    ]


def test_events_that_are_not_read_are_counted_as_lost(wire: tuple[Namespace, Namespace]) -> None:
    a, _ = wire
    with a.inside(), ConnectionEvents(receive_buffer=4096) as events:
        assert adopt(many(500)).made == 500
        assert 0 < len(events.read()) < 500
        assert events.lost >= 1


def test_a_created_connection_is_found_and_forgotten(wire: tuple[Namespace, Namespace]) -> None:
    a, _ = wire
    with a.inside(), open_conntrack() as link:
        one = Ends(b"\x0a\0\0\1", b"\x0a\0\0\2", 17, 4000, 53)
        create_connection(one, link=link)
        assert 100 < tracked_connections(link=link)[0].timeout_s <= 120
        assert delete_connection(one, link)
        create_connection(one, timeout_s=60, mark=7, link=link)
        (held,) = tracked_connections(link=link)
        assert (held.original, held.reply, held.mark, held.tcp_state) == (one, one.reversed(), 7, None)
        assert 50 <= held.timeout_s <= 60
        with pytest.raises(KernelError) as twice:
            create_connection(one, link=link)
        assert twice.value.code == errno.EEXIST
        assert delete_connection(one, link)
        assert not delete_connection(one, link)
        assert tracked_connections(link=link) == []


def test_one_refused_connection_stops_no_other(wire: tuple[Namespace, Namespace]) -> None:
    a, _ = wire
    with a.inside():
        # Source and target of different families cannot be.
        bad = Ends(b"\x0a\0\0\1", bytes(16), 6, 1, 2)
        good = many(3)
        done = adopt([good[0], bad, *good[1:]])
        assert (done.made, done.present) == (3, 0)
        assert [one for one, _ in done.refused] == [bad]


def test_tens_of_thousands_of_connections_are_read_at_speed(wire: tuple[Namespace, Namespace]) -> None:
    a, _ = wire
    count = 30_000
    with a.inside(), open_conntrack() as link:
        begun = many(count)
        started = time.perf_counter()
        assert adopt(begun, link).made == count
        adopted = time.perf_counter()
        seen: set[Ends] = {one.original for one in walk_connections(link=link)}
        read = time.perf_counter()
        # A walk that is left early leaves the link in order.
        early: Connection = next(walk_connections(link=link))
        assert early.original in seen
        assert conntrack_fill(link)[0] == count
    assert seen == set(begun)
    print(f"adopted {count / (adopted - started):.0f}/s, read {count / (read - adopted):.0f}/s")
    # A wide bound: the machines of a build are shared.
    assert read - adopted < 3
