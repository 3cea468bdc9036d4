"""What answers in a connection that an order shuts is refused too, at each end alone, in the real kernel."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from tests.kernel.namespaces import Namespace, needs_namespaces, pair
from tests.kernel.test_open_connections import AT_ONCE_S, calls
from tests.kernel.test_orders import compiled, order

from cellwall.agent.cuts import mark_shut
from cellwall.enforce import NftPoint
from cellwall.policy import Order, OrderKind, Party

pytestmark = needs_namespaces


class Talk:
    """A client in `a` that asked a server in `b` over UDP, and was answered."""

    def __init__(self, a: Namespace, b: Namespace, version: int, port: int = 53) -> None:
        family, address = (socket.AF_INET, b.v4) if version == 4 else (socket.AF_INET6, b.v6)
        with b.inside():
            self.server = socket.socket(family, socket.SOCK_DGRAM)
            self.server.bind((str(address), port))
        with a.inside():
            self.client = socket.socket(family, socket.SOCK_DGRAM)
            self.client.connect((str(address), port))
        self.client.send(b"ask")
        _, self.asker = self.server.recvfrom(9)
        assert self.answers()

    def answers(self) -> bool:
        """Say whether what the server sends to who asked it arrives."""
        self.client.settimeout(0.3)
        try:
            self.server.sendto(b"more", self.asker)
            return self.client.recv(9) == b"more"
        except OSError:
            return False


@contextmanager
def talk(a: Namespace, b: Namespace, version: int = 4, port: int = 53) -> Generator[Talk]:
    """Have a client ask, and a server answer."""
    one = Talk(a, b, version, port)
    try:
        yield one
    finally:
        one.client.close()
        one.server.close()


def observing(a: Namespace, b: Namespace, name: str) -> NftPoint:
    """The point of `name` in the namespace that this is called in; it only observes, and tracks connections."""
    point, wanted = NftPoint(), compiled(a, b, "observe").points[name]
    point.apply(wanted.ruleset, wanted.members)
    return point


def give(point: NftPoint, a: Namespace, b: Namespace, name: str, *orders: Order) -> int:
    """Give a point these orders, as the agent does; how many connections they shut."""
    after = compiled(a, b, "observe", *orders).points[name]
    point.apply_orders(after.ruleset.orders)
    return mark_shut(after.ruleset, after.members)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", ["web", "db"])
def test_what_answers_over_udp_is_shut_at_each_end_alone(name: str, version: int) -> None:
    with pair() as (a, b), (a if name == "web" else b).inside():
        point = observing(a, b, name)
        with talk(a, b, version) as one, talk(a, b, version, 99) as other:
            assert give(point, a, b, name, order(OrderKind.CONTAIN, "udp/53")) == 1
            assert not one.answers()
            assert other.answers()
            assert point.verify() == ()
            # Lifted, the very same connection goes on.
            point.apply_orders(())
            assert one.answers()


def test_the_mark_ends_with_the_order_in_the_kernel_when_nobody_is_left() -> None:
    with pair() as (a, b), b.inside():
        point = observing(a, b, "db")
        with talk(a, b) as one:
            give(point, a, b, "db", order(OrderKind.CONTAIN, "udp/53", 1.2))
            assert not one.answers()
            time.sleep(1.2)
            assert one.answers()


def test_of_two_orders_that_shut_it_the_longer_one_marks_a_connection() -> None:
    with pair() as (a, b), b.inside():
        point = observing(a, b, "db")
        with talk(a, b) as one:
            longer = replace(order(OrderKind.CONTAIN, "udp"), id="o2")
            give(point, a, b, "db", order(OrderKind.CONTAIN, "udp/53", 1.2), longer)
            time.sleep(1.3)
            assert not one.answers()


def test_an_opening_and_a_lifeline_let_answers_through_as_they_let_questions() -> None:
    with pair() as (a, b), b.inside():
        point = observing(a, b, "db")
        with talk(a, b) as one, calls(a, b, b.v4, 22) as (ssh,):
            shut = order(OrderKind.CONTAIN, "any")
            give(point, a, b, "db", shut)
            assert ssh.answers()
            assert ssh.speaks_first()
            assert not one.answers()
            give(point, a, b, "db", shut, replace(order(OrderKind.OPEN, "udp/53"), id="o2"))
            assert one.answers()


@pytest.mark.parametrize("name", ["web", "db"])
@pytest.mark.parametrize("speaks", ["client", "server"])
def test_whichever_end_of_a_cut_tcp_connection_speaks_next_nothing_passes_and_its_own_host_says_so(
    name: str, speaks: str
) -> None:
    with pair() as (a, b), (a if name == "web" else b).inside():
        point = observing(a, b, name)
        with calls(a, b, b.v4, 445, 5432) as (cut, kept):
            assert cut.answers()
            began = time.monotonic()
            give(point, a, b, name, order(OrderKind.CONTAIN, "tcp/445"))
            near, far = (cut.client, cut.server) if speaks == "client" else (cut.server, cut.client)
            assert _is_told(near)
            assert time.monotonic() - began < AT_ONCE_S
            far.setblocking(False)
            with pytest.raises(BlockingIOError):
                far.recv(4)
            assert kept.answers()
            assert kept.speaks_first()


def test_a_limited_workload_hears_no_more_answers_and_what_it_serves_goes_on() -> None:
    with pair() as (a, b), b.inside():
        point = observing(a, b, "db")
        with talk(b, a) as asked, talk(a, b) as served:
            assert give(point, a, b, "db", Order("o1", OrderKind.LIMIT, Party(("db",)), begins=time.time())) == 1
            assert not asked.answers()
            assert served.answers()


def _is_told(end: socket.socket) -> bool:
    """Say whether an end that sends is told that the connection is over."""
    end.settimeout(AT_ONCE_S)
    try:
        end.sendall(b"more")
        return end.recv(4) == b""
    except ConnectionError:
        return True
    except OSError:
        return False
