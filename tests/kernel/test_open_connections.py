"""Connections that are open when a policy changes: those that it denies are cut at once, the others not disturbed."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address
from threading import Thread

import pytest
from tests.kernel.namespaces import Namespace, needs_namespaces, pair

from cellwall.compile import Point, compile_fleet
from cellwall.enforce import NftPoint
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.observe import adopt, connected_sockets, listening_sockets, open_connections
from cellwall.policy import parse_policy

pytestmark = needs_namespaces
AT_ONCE_S = 1.0


def database(a: Namespace, b: Namespace, mode: str, *ports: int, deny: int = 0) -> Point:
    """What the point of `b` is to hold when `a` may reach it on `ports`."""
    rules = "".join(f"  - {{id: p{port}, allow: tcp/{port}, from: role=web, to: role=db}}\n" for port in ports)
    rules += f"  - {{id: no, deny: tcp/{deny}, from: any, to: role=db}}\n" if deny else ""
    policy = parse_policy([("p.yaml", f"rules:\n{rules or '  []'}\nmodes: [{{where: '', mode: {mode}}}]\n")])
    fleet = Fleet(
        (
            Workload("web", Labels({"role": "web"}), (a.v4, a.v6)),
            Workload("db", Labels({"role": "db"}), (b.v4, b.v6)),
        )
    )
    return compile_fleet(policy, fleet, 1, 0.0).points["db"]


class Call:
    """One open connection from `a` to an echo server in `b`."""

    def __init__(self, a: Namespace, b: Namespace, server: IPv4Address | IPv6Address, port: int) -> None:
        family = socket.AF_INET if server.version == 4 else socket.AF_INET6
        with b.inside():
            listener = socket.create_server((str(server), port), family=family)
        with a.inside():
            self.client = socket.create_connection((str(server), port), timeout=5)
        self.server, _ = listener.accept()
        listener.listen()
        self.listener = listener
        self.server.settimeout(5)

    def answers(self, timeout_s: float = 2.0) -> bool:
        """Say whether a word goes there and back."""
        self.client.settimeout(timeout_s)
        try:
            self.client.sendall(b"word")
            self.server.settimeout(timeout_s)
            self.server.sendall(self.server.recv(4))
            return self.client.recv(4) == b"word"
        except OSError:
            return False

    def speaks_first(self) -> bool:
        """Say whether what the server sends of its own accord arrives."""
        try:
            self.server.sendall(b"news")
            self.client.settimeout(2)
            return self.client.recv(4) == b"news"
        except OSError:
            return False

    def is_reset(self) -> bool:
        """Say whether the client, when it sends, is told that the connection is over."""
        try:
            self.client.sendall(b"word")
            self.client.settimeout(2)
            return self.client.recv(4) == b""
        except ConnectionError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Close both ends."""
        for one in (self.client, self.server, self.listener):
            one.close()


@contextmanager
def calls(a: Namespace, b: Namespace, server: IPv4Address | IPv6Address, *ports: int) -> Generator[list[Call]]:
    """Open a connection to each port."""
    with ExitStack() as stack:
        opened: list[Call] = []
        for port in ports:
            call = Call(a, b, server, port)
            stack.callback(call.close)
            opened.append(call)
        yield opened


@pytest.mark.parametrize("version", [4, 6])
def test_a_connection_that_a_new_policy_denies_is_reset_at_once_and_another_is_not_disturbed(version: int) -> None:
    with pair() as (a, b):
        server = b.v4 if version == 4 else b.v6
        with b.inside():
            point = NftPoint()
            first, second = database(a, b, "enforce", 5432, 5433), database(a, b, "enforce", 5432)
            point.apply(first.ruleset, first.members)
            with calls(a, b, server, 5432, 5433) as (kept, cut):
                assert kept.answers()
                assert cut.answers()
                point.apply(second.ruleset, second.members)
                started = time.monotonic()
                assert cut.is_reset()
                assert time.monotonic() - started < AT_ONCE_S
                assert kept.answers()
                assert kept.speaks_first()
                # The way back does not open it again with the roles swapped.
                assert not cut.answers(0.3)


@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_that_loses_its_class_loses_its_connections(version: int) -> None:
    with pair() as (a, b), b.inside():
        point = NftPoint()
        wanted = database(a, b, "enforce", 5432)
        point.apply(wanted.ruleset, wanted.members)
        with calls(a, b, b.v4 if version == 4 else b.v6, 5432) as (call,):
            assert call.answers()
            point.apply_members({}, [a.v4.packed, a.v6.packed])
            assert not call.answers()


@pytest.mark.parametrize("version", [4, 6])
def test_in_guard_mode_what_a_deny_cut_is_not_reopened_by_the_server(version: int) -> None:
    with pair() as (a, b), b.inside():
        point = NftPoint()
        first, second = database(a, b, "guard"), database(a, b, "guard", deny=5433)
        point.apply(first.ruleset, first.members)
        with calls(a, b, b.v4 if version == 4 else b.v6, 5432, 5433) as (kept, cut):
            assert kept.answers()
            assert cut.answers()
            point.apply(second.ruleset, second.members)
            # An attacker keeps his socket although he was reset: forget the connection, and let the server speak.
            a.nft("table inet ignore { chain i { type filter hook input priority -300; tcp flags rst drop; }; }\n")
            assert not cut.answers(0.3)
            b.run(["conntrack", "-F"], check=False)
            assert not cut.speaks_first()
            assert not cut.answers(0.3)
            assert kept.answers()


@pytest.mark.parametrize("version", [4, 6])
def test_connections_older_than_the_table_live_on_when_they_are_adopted(version: int) -> None:
    with pair() as (a, b):
        server = b.v4 if version == 4 else b.v6
        with calls(a, b, server, 5432, 5433) as (kept, cut), b.inside():
            assert kept.answers()
            listening = listening_sockets()
            adopt(open_connections(connected_sockets(), listening))
            wanted = database(a, b, "enforce", 5432)
            point = NftPoint()
            point.apply(wanted.ruleset, wanted.members)
            # The server speaks first: without the right roles its packets would look like a connection of its own.
            assert kept.speaks_first()
            assert kept.answers()
            assert not cut.answers()


def test_traffic_both_ways_of_one_allowed_connection_needs_no_second_rule() -> None:
    with pair() as (a, b), b.inside():
        wanted = database(a, b, "enforce", 5432)
        NftPoint().apply(wanted.ruleset, wanted.members)
        with calls(a, b, b.v4, 5432) as (call,):
            sent = b"x" * 1_000_000
            sender = Thread(target=call.server.sendall, args=(sent,))
            sender.start()
            got = 0
            while got < len(sent):
                got += len(call.client.recv(65536))
            sender.join()
            assert got == len(sent)
