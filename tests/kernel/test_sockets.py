"""Sockets and the processes that hold them, of real servers and clients in namespaces."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.kernel.namespaces import Child, Namespace, needs_namespaces, pair

from cellwall.observe import (
    Process,
    Processes,
    Socket,
    State,
    cgroup_mount,
    cgroup_path,
    connected_sockets,
    find_socket,
    listening_sockets,
    open_sockets,
    unit_of_path,
)
from cellwall.traffic import TCP, UDP

pytestmark = needs_namespaces


@pytest.fixture
def wire() -> Generator[tuple[Namespace, Namespace]]:
    with pair() as (a, b):
        yield a, b


def packed(where: Namespace) -> tuple[bytes, bytes]:
    return where.v4.packed, where.v6.packed


def serve(port: int, uid: int = 0, cgroup: str = "") -> None:
    """Hold a TCP socket for both families and a UDP one for IPv4, and every call that comes."""
    if cgroup:
        Path(cgroup, "cgroup.procs").write_text("0")
    if uid:
        os.setresuid(uid, uid, uid)
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("0.0.0.0", port))
    calls: list[socket.socket] = []
    while True:
        calls.append(server.accept()[0])
        calls[-1].sendall(b"x")


def call(where: Namespace, host: object, port: int) -> socket.socket:
    with where.inside():
        made = socket.create_connection((str(host), port), 3)
    assert made.recv(1) == b"x"
    return made


def test_listening_sockets_of_all_kinds_are_listed(wire: tuple[Namespace, Namespace]) -> None:
    _, b = wire
    b.start(serve, 5432, 1234)
    b.wait_for_port(5432, udp=True)
    with b.inside(), open_sockets() as link:
        only6 = socket.create_server(("::", 5433), family=socket.AF_INET6)
        found = {(one.protocol, one.local_port): one for one in listening_sockets(link)}
    assert found.keys() == {(TCP, 5432), (UDP, 5432), (TCP, 5433)}
    both = found[TCP, 5432]
    assert (both.state, both.uid, both.v6_only, both.takes_any) == (State.LISTEN, 1234, False, True)
    assert both.local == bytes(16) and both.inode
    assert found[UDP, 5432].state is State.CLOSE and found[UDP, 5432].local == bytes(4)
    assert found[TCP, 5433].v6_only
    only6.close()


def test_mapped_addresses_are_ipv4(wire: tuple[Namespace, Namespace]) -> None:
    a, b = wire
    b.start(serve, 5432)
    b.wait_for_port(5432)
    calls = [call(a, host, 5432) for host in (b.v4, b.v6)]
    with b.inside():
        found = {one.remote_address: one for one in connected_sockets()}
    assert found.keys() == {a.v4, a.v6}
    assert found[a.v4].local_address == b.v4
    assert found[a.v4].remote_port == calls[0].getsockname()[1]
    assert {one.state for one in found.values()} == {State.ESTABLISHED}


def test_one_socket_is_looked_up_exactly(wire: tuple[Namespace, Namespace]) -> None:
    a, b = wire
    b.start(serve, 5432, 1234)
    b.wait_for_port(5432, udp=True)
    calls = [call(a, host, 5432) for host in (b.v4, b.v6)]
    with a.inside():
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.connect((str(b.v4), 5432))
    with b.inside(), open_sockets() as link:
        for made, near, far in zip(calls, packed(a), packed(b), strict=True):
            port = made.getsockname()[1]
            found = find_socket(TCP, far, 5432, near, port, link)
            assert found is not None
            assert (found.local, found.remote, found.remote_port, found.uid) == (far, near, port, 1234)
            # No such connection, but somebody listens.
            other = find_socket(TCP, far, 5432, near, 1, link)
            assert other is not None and other.state is State.LISTEN
            assert find_socket(TCP, far, 5433, near, port, link) is None
        listener = find_socket(UDP, packed(b)[0], 5432, packed(a)[0], 4000, link)
        assert listener is not None and (listener.state, listener.local_port) == (State.CLOSE, 5432)
        assert find_socket(UDP, packed(b)[0], 5433, packed(a)[0], 4000, link) is None
        started = time.perf_counter()
        for _ in range(500):
            find_socket(TCP, packed(b)[0], 5432, packed(a)[0], calls[0].getsockname()[1], link)
        each = (time.perf_counter() - started) / 500
        print(f"{each * 1e6:.1f} µs each")
        assert each < 0.001
    with a.inside():
        port = datagrams.getsockname()[1]
        mine = find_socket(UDP, packed(a)[0], port, packed(b)[0], 5432)
        assert mine is not None and (mine.state, mine.remote_port) == (State.ESTABLISHED, 5432)
        assert any(one == mine for one in connected_sockets())


def holder_of(where: Namespace, port: int, processes: Processes, now: float) -> Process | None:
    with where.inside():
        (one,) = (one for one in listening_sockets() if (one.protocol, one.local_port) == (TCP, port))
        return processes.holders([one], now).get(one.inode)


def test_the_process_user_and_unit_behind_a_socket_are_named(wire: tuple[Namespace, Namespace]) -> None:
    _, b = wire
    mount = cgroup_mount()
    if mount is None:
        pytest.skip("there is no cgroup v2 tree here")
    slice_ = mount / f"cwk{os.getpid()}.slice"
    unit = slice_ / "shop@2.service"
    children: list[Child] = []
    try:
        unit.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error}")
    try:
        children.append(b.start(serve, 5432, 65534, str(unit)))
        b.wait_for_port(5432)
        held = holder_of(b, 5432, Processes(), 0)
        assert held is not None
        assert held.pid == children[0].pid and held.unit == "shop@2.service"
        assert held.comm and "python" in held.exe
        assert (held.uid, held.user) == (65534, "nobody")
        with b.inside():
            (one,) = (one for one in listening_sockets() if one.protocol == TCP)
        assert cgroup_path(one.cgroup) == f"/{slice_.name}/{unit.name}"
        assert unit_of_path(cgroup_path(one.cgroup)) == "shop@2.service"
    finally:
        for child in children:
            child.stop()
        until = time.monotonic() + 5
        while unit.exists() and time.monotonic() < until:
            try:
                unit.rmdir()
                slice_.rmdir()
            except OSError:
                time.sleep(0.02)


def hold(path: str) -> None:
    """Take a socket over from another process, as systemd hands them to services, and keep it."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        _, handles, _, _ = socket.recv_fds(link, 1, 1)
    assert handles
    time.sleep(600)


def test_processes_are_walked_rarely_and_only_in_this_namespace(
    wire: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    a, b = wire
    processes = Processes(walk_every_s=60)
    b.start(serve, 5432)
    b.wait_for_port(5432)
    assert holder_of(b, 5432, processes, 0) is not None
    # A socket of b that only a process in a holds: not of this namespace, so not named.
    path = str(tmp_path / "hand")
    gate = socket.socket(socket.AF_UNIX)
    gate.bind(path)
    gate.listen()
    with b.inside():
        server = socket.create_server((str(b.v4), 5433))
    child = a.start(hold, path)
    link, _ = gate.accept()
    socket.send_fds(link, [b"x"], [server.fileno()])
    server.close()
    link.close()
    assert holder_of(b, 5433, processes, 1) is None
    assert child.alive()
    # What is known is not looked for again, even after its holder is gone from the list.
    assert holder_of(b, 5432, processes, 2) is not None


def test_a_dump_of_many_sockets_costs_little(wire: tuple[Namespace, Namespace]) -> None:
    a, b = wire
    b.start(serve, 5432)
    b.wait_for_port(5432)
    calls = [call(a, b.v4, 5432) for _ in range(300)]
    with a.inside(), open_sockets() as link:
        started = time.perf_counter()
        found: list[Socket] = connected_sockets(link)
        print(f"{(time.perf_counter() - started) / 300 * 1e6:.1f} µs each")
        held = Processes().holders(found, 0)
    assert len(found) == len(calls)
    # The test itself holds them, and is in that namespace for the while.
    assert {one.pid for one in held.values()} == {os.getpid()} and len(held) == len(calls)
