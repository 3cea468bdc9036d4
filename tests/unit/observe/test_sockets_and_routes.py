"""Answers about sockets, addresses and routes, and what is read from /proc, without a kernel."""

from __future__ import annotations

import struct
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_INET, AF_INET6

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.clients import KernelError, Message, attribute, unit_of_process
from cellwall.observe import DefaultRoute, HostAddress, State, unit_of_path, unmapped, unpack_address
from cellwall.observe.host import parse_os_release
from cellwall.observe.processes import parse_users
from cellwall.observe.routes import (
    address_changes,
    parse_default_routes,
    parse_host_address,
    parse_interface,
)
from cellwall.observe.sockets import parse_socket
from cellwall.traffic import TCP

V4, V6 = ip_address("10.0.0.1"), ip_address("fd00::1")


def answer(family: int, local: bytes, remote: bytes, state: int = 1, *told: bytes) -> bytes:
    head = struct.pack("=BBBB", family, state, 0, 0) + struct.pack(">HH", 5432, 40000)
    head += local.ljust(16, b"\0") + remote.ljust(16, b"\0") + struct.pack("=I8xIIIII", 3, 0, 0, 0, 1000, 77)
    return head + b"".join(told)


SOCKET = answer(AF_INET6, V6.packed, bytes(16), 10, attribute(21, struct.pack("=Q", 99)), attribute(11, b"\1"))


def test_a_socket_is_read() -> None:
    one = parse_socket(SOCKET, TCP)
    assert (one.state, one.local_address, one.local_port, one.remote_port) == (State.LISTEN, V6, 5432, 40000)
    assert (one.uid, one.inode, one.cgroup, one.device, one.v6_only) == (1000, 77, 99, 3, True)


def test_a_mapped_address_of_a_socket_is_ipv4() -> None:
    mapped = bytes(10) + b"\xff\xff" + V4.packed
    one = parse_socket(answer(AF_INET6, mapped, mapped), TCP)
    assert (one.local_address, one.remote_address) == (V4, V4)
    assert unmapped(V6.packed) == V6.packed
    # What only begins like one is none.
    assert unmapped(mapped[:12]) == mapped[:12]


def test_a_socket_in_an_unknown_state_is_an_error() -> None:
    with pytest.raises(KernelError, match="unknown state 99"):
        parse_socket(answer(AF_INET, V4.packed, V4.packed, 99), TCP)


@pytest.mark.parametrize("size", [0, 3, 5, 15])
def test_an_address_of_another_length_is_an_error(size: int) -> None:
    with pytest.raises(KernelError, match="wanted 4 or 16"):
        unpack_address(bytes(size))


def address(family: int, prefix: int, flags: int, scope: int, index: int, *told: bytes) -> bytes:
    return struct.pack("=BBBBI", family, prefix, flags, scope, index) + b"".join(told)


def test_an_address_of_a_point_to_point_link_is_the_local_one() -> None:
    body = address(AF_INET, 32, 0, 0, 2, attribute(1, bytes(4)), attribute(2, V4.packed))
    assert parse_host_address(body, {2: "tun0"}) == HostAddress(V4, 32, "tun0", False)


@pytest.mark.parametrize(
    "body",
    [
        address(AF_INET, 8, 0, 254, 1, attribute(2, IPv4Address("127.0.0.1").packed)),
        address(AF_INET6, 128, 0, 0, 1, attribute(1, IPv6Address("::1").packed)),
        address(AF_INET6, 64, 0, 0, 2, attribute(1, V6.packed), attribute(8, struct.pack("=I", 0x08))),
        address(AF_INET6, 64, 0, 0, 2),
    ],
)
def test_loopback_duplicate_and_missing_addresses_are_left_out(body: bytes) -> None:
    assert parse_host_address(body, {}) is None


def test_changes_are_named_by_the_interfaces_told_of_before() -> None:
    link = Message(16, 0, 0, 0, struct.pack("=BxHiII", 0, 0, 5, 0, 0) + attribute(3, b"eth5\0"))
    gone = Message(21, 0, 0, 0, address(AF_INET6, 64, 1, 0, 5, attribute(1, V6.packed)))
    (change,) = address_changes([link, gone], {})
    assert (change.came, change.address) == (False, HostAddress(V6, 64, "eth5", True))


def route(family: int, target: int, table: int, kind: int, *told: bytes) -> bytes:
    return struct.pack("=BBBBBBBBI", family, target, 0, 0, table, 0, 0, kind, 0) + b"".join(told)


OUT = attribute(4, struct.pack("=I", 2))
HOP = struct.pack("=HBBi", 16, 0, 0, 2) + attribute(5, V4.packed)
ROUTE = route(AF_INET, 0, 254, 1, attribute(6, struct.pack("=I", 7)), attribute(9, HOP + HOP))


def test_only_default_routes_of_the_main_table_are_read() -> None:
    good = route(AF_INET, 0, 254, 1, OUT, attribute(5, V4.packed))
    assert list(parse_default_routes(good, {2: "eth0"})) == [DefaultRoute(4, V4, "eth0", 0)]
    # A gateway of the other family (RFC 8950).
    via6 = route(AF_INET, 0, 254, 1, OUT, attribute(18, struct.pack("=H", AF_INET6) + V6.packed))
    assert list(parse_default_routes(via6, {})) == [DefaultRoute(4, V6, "", 0)]
    assert list(parse_default_routes(ROUTE, {2: "eth0"})) == [DefaultRoute(4, V4, "eth0", 7)] * 2
    for other in (route(AF_INET, 8, 254, 1, OUT), route(AF_INET, 0, 255, 1, OUT), route(AF_INET6, 0, 254, 7, OUT)):
        assert list(parse_default_routes(other, {})) == []


BODIES = (SOCKET, ROUTE, address(AF_INET6, 64, 0, 0, 2, attribute(1, V6.packed), attribute(8, bytes(4))))


@given(st.sampled_from(BODIES), st.integers(0, 120), st.integers(0, 119), st.integers(0, 255))
def test_damaged_answers_raise_nothing_but_kernel_errors(whole: bytes, cut: int, place: int, byte: int) -> None:
    damaged = bytearray(whole)
    damaged[place % len(damaged)] = byte
    for one in (whole[:cut], bytes(damaged), bytes(damaged)[:cut]):
        with suppress(KernelError):
            parse_socket(one, TCP)
        with suppress(KernelError):
            parse_host_address(one, {})
        with suppress(KernelError):
            parse_interface(one)
        with suppress(KernelError):
            list(parse_default_routes(one, {}))


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/shell.scope", "shell.scope"),
        ("/system.slice/docker-abc.scope/inner", "docker-abc.scope"),
        ("/docker/abc", ""),
        ("/", ""),
    ],
)
def test_the_innermost_unit_of_a_path_is_named(path: str, unit: str) -> None:
    assert unit_of_path(path) == unit


def test_the_unit_of_a_process_is_that_of_the_v2_tree_or_else_of_systemds_own() -> None:
    both = "1:name=systemd:/system.slice/old.service\n0::/system.slice/new.service\n"
    assert unit_of_process(both) == "new.service"
    assert unit_of_process("3:cpu:/x.service\n1:name=systemd:/system.slice/old.service\n0::/\n") == "old.service"
    assert unit_of_process("") == ""


def test_users_are_read_from_passwd_and_what_is_no_such_line_is_skipped() -> None:
    assert parse_users("root:x:0:0::/root:/bin/sh\ntoor:x:0:0\n+::::::\nweb:x:33:33\n") == {0: "root", 33: "web"}


def test_os_release_is_read_quoted_or_not() -> None:
    text = "# comment\nID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian \\$ 12'\nnonsense\nEMPTY=\n"
    assert parse_os_release(text) == {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian $ 12", "EMPTY": ""}
