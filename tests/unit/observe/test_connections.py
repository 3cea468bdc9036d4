"""Tracked connections as bytes and values, and their roles, without a kernel."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.clients import KernelError, attribute, be32, be64, nested
from cellwall.observe import Connection, Ends, Socket, State, Status, open_connections, swapped
from cellwall.observe.connections import parse_connection, parse_ends, write_ends
from cellwall.observe.conntrack import parse_events
from cellwall.traffic import ICMP, ICMPV6, SCTP, TCP, UDP

HERE, THERE = IPv4Address("10.0.0.1").packed, IPv4Address("10.0.0.2").packed
HERE6, THERE6 = IPv6Address("fd00::1").packed, IPv6Address("fd00::2").packed


@pytest.mark.parametrize(
    "ends",
    [
        Ends(HERE, THERE, TCP, 40000, 443),
        Ends(HERE6, THERE6, UDP, 40000, 53),
        Ends(HERE, THERE, ICMP, 77, 8 << 8),
        Ends(HERE6, THERE6, ICMPV6, 77, 128 << 8 | 3),
        Ends(HERE, THERE, 47, 0, 0),
    ],
)
def test_ends_are_read_as_they_are_written(ends: Ends) -> None:
    assert parse_ends(write_ends(1, ends)[4:]) == ends


def test_an_unusual_layout_of_the_ends_is_read_too() -> None:
    usual = Ends(HERE, THERE, TCP, 1, 2)
    # A zone inside, and the ports before the protocol.
    body = nested(1, attribute(2, THERE), attribute(1, HERE)) + attribute(3, b"\0\5")
    body += nested(2, attribute(3, b"\0\2"), attribute(2, b"\0\1"), attribute(1, b"\6"))
    assert parse_ends(body) == usual


def body(*more: bytes) -> bytes:
    ends = Ends(HERE, THERE, TCP, 40000, 443)
    return bytes(4) + write_ends(1, ends) + write_ends(2, ends.reversed()) + b"".join(more)


FULL = body(
    be32(3, Status.SEEN_REPLY | Status.CONFIRMED),
    be32(7, 120),
    nested(9, be64(1, 10), be64(2, 1000)),
    nested(10, be64(1, 20), be64(2, 2000)),
    nested(20, be64(1, 5), be64(2, 6)),
    nested(4, nested(1, attribute(1, b"\3"))),
    be32(8, 7),
    be32(12, 99),
    attribute(18, b"\0\4"),
)


def test_all_that_the_kernel_tells_is_read() -> None:
    one = parse_connection(FULL)
    assert one == Connection(
        Ends(HERE, THERE, TCP, 40000, 443), Ends(THERE, HERE, TCP, 443, 40000),
        10, 120, 7, 99, 4, 3, 10, 1000, 20, 2000, 5, 6,
    )  # fmt: skip
    assert one.answered and not one.translated
    assert one.original.source_address == IPv4Address("10.0.0.1")


def test_what_the_kernel_does_not_tell_is_none() -> None:
    one = parse_connection(body())
    assert (one.original_packets, one.started_ns, one.tcp_state) == (None, None, None)


def test_a_connection_without_both_directions_is_an_error() -> None:
    with pytest.raises(KernelError):
        parse_connection(bytes(4) + write_ends(1, Ends(HERE, THERE, TCP, 1, 2)))


@given(st.integers(0, len(FULL)), st.integers(0, len(FULL) - 1), st.integers(0, 255))
def test_damaged_messages_raise_nothing_but_kernel_errors(cut: int, place: int, byte: int) -> None:
    damaged = bytearray(FULL)
    damaged[place] = byte
    for one in (FULL[:cut], bytes(damaged), bytes(damaged)[:cut]):
        with suppress(KernelError):
            parse_connection(one)
        with suppress(KernelError):
            list(parse_events(struct.pack("=IHHII", 16 + len(one), 1 << 8, 0x400, 0, 0) + one))


def bound(port: int, local: bytes = bytes(16), protocol: int = TCP, v6_only: bool = False) -> Socket:
    state = State.LISTEN if protocol == TCP else State.CLOSE
    return Socket(protocol, state, local, port, bytes(len(local)), 0, 0, 0, 1, 1, v6_only)


def connected(local: bytes, port: int, remote: bytes, remote_port: int, state: State = State.ESTABLISHED) -> Socket:
    return Socket(TCP, state, local, port, remote, remote_port, 0, 0, 1, 1, False)


def test_who_began_an_open_connection_is_told_by_the_port_that_is_listened_on() -> None:
    sockets = [connected(HERE, 5432, THERE, 40000), connected(HERE, 41000, THERE, 443)]
    assert open_connections(sockets, [bound(5432)]) == {
        Ends(THERE, HERE, TCP, 40000, 5432),
        Ends(HERE, THERE, TCP, 41000, 443),
    }


def test_both_ends_of_a_local_connection_are_one() -> None:
    sockets = [connected(HERE, 5432, HERE, 40000), connected(HERE, 40000, HERE, 5432)]
    assert open_connections(sockets, [bound(5432, bytes(4))]) == {Ends(HERE, HERE, TCP, 40000, 5432)}


def test_connections_that_are_being_opened_or_closed_are_left_to_the_kernel() -> None:
    assert open_connections([connected(HERE, 1, THERE, 2, State.SYN_SENT)], []) == frozenset()
    assert open_connections([replace(connected(HERE, 1, THERE, 2), protocol=SCTP)], []) == frozenset()


def test_a_listener_on_another_address_or_family_does_not_count() -> None:
    socket = connected(HERE, 5432, THERE, 40000)
    mine = Ends(HERE, THERE, TCP, 5432, 40000)
    for listener in (bound(5432, THERE), bound(5432, v6_only=True), bound(5432, protocol=UDP), bound(5433)):
        assert open_connections([socket], [listener]) == {mine}
    for listener in (bound(5432, HERE), bound(5432, bytes(4)), bound(5432)):
        assert open_connections([socket], [listener]) == {mine.reversed()}


def tracked(source: bytes, sport: int, target: bytes, dport: int, status: int = 0) -> Connection:
    ends = Ends(source, target, TCP, sport, dport)
    return Connection(ends, ends.reversed(), status)


def test_roles_are_swapped_when_a_listened_port_here_calls_an_ephemeral_one() -> None:
    listening, local = [bound(5432)], [HERE, HERE6]
    wrong = [tracked(HERE, 5432, THERE, 40000), tracked(HERE6, 5432, THERE6, 60999)]
    right = [
        tracked(THERE, 40000, HERE, 5432),
        tracked(HERE, 40000, THERE, 5432),
        # Another host's source port that happens to be one that we listen on.
        tracked(THERE, 5432, HERE, 40000),
        # Not a port that clients are given.
        tracked(HERE, 5432, THERE, 6000),
        # Its first packet was seen, or it could not have been translated.
        tracked(HERE, 5432, THERE, 40000, Status.DESTINATION_NAT),
    ]
    assert swapped([*wrong, *right], listening, local) == wrong
    assert swapped(wrong, listening, local, (1024, 2048)) == []


def test_a_call_between_two_servers_of_one_host_is_left_alone() -> None:
    listening = [bound(5432), bound(40000)]
    assert swapped([tracked(HERE, 5432, HERE, 40000)], listening, [HERE]) == []
