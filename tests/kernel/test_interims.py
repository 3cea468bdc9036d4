"""What holds for a while in the real kernel: it goes back by itself, to the packet, with no process of ours alive."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest
from tests.kernel.namespaces import Namespace, needs_namespaces, pair
from tests.kernel.test_open_connections import calls

from cellwall.compile import Point, compile_fleet
from cellwall.enforce import Interim, NftPoint, Spell
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import ANYBODY, Mode, Order, OrderKind, Party, parse_policy
from cellwall.traffic import parse_ports

pytestmark = needs_namespaces

BOTH, OLD, NEW, NEITHER = 5001, 5002, 5003, 5004
PORTS = (BOTH, OLD, NEW, NEITHER)
PAUSE_S = 0.001


def point(
    a: Namespace, b: Namespace, *ports: int, more: int = 0, mode: str = "enforce", orders: tuple[Order, ...] = ()
) -> Point:
    """What `db` is to hold that lets `web` in at these UDP and TCP ports; `more` members that nobody meets."""
    allowed = ", ".join(f"{protocol}/{port}" for port in ports for protocol in ("udp", "tcp"))
    text = f"rules: [{{id: in, allow: [{allowed}], from: role=web, to: role=db}}]\nmodes: [{{where: '', mode: {mode}}}]"
    crowd = tuple(
        Workload(f"c{number}", Labels({"role": "web"}), (ip_address(0x0B000000 + number),), agent=False)
        for number in range(more)
    )
    workloads = (
        Workload("web", Labels({"role": "web"}), (a.v4, a.v6)),
        Workload("db", Labels({"role": "db"}), (b.v4, b.v6)),
    )
    compiled = compile_fleet(
        parse_policy([("p.yaml", text)]), Fleet((*workloads, *crowd)), len(ports), time.time(), orders
    )
    return compiled.points["db"]


def on_trial(wanted: Point, lasts_s: float) -> Interim:
    return Interim(Spell.TRIAL, wanted.ruleset, wanted.members, time.time() + lasts_s)


@dataclass
class Traffic:
    """Numbered datagrams to every port in both versions of IP, and which of them came."""

    a: Namespace
    b: Namespace
    sent: dict[tuple[int, int], list[float]] = field(default_factory=dict[tuple[int, int], list[float]])
    came: dict[tuple[int, int], set[int]] = field(default_factory=dict[tuple[int, int], set[int]])
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        ways: dict[tuple[int, int], tuple[socket.socket, socket.socket, str]] = {}
        for version, family, own, other in (
            (4, socket.AF_INET, self.a.v4, self.b.v4),
            (6, socket.AF_INET6, self.a.v6, self.b.v6),
        ):
            for port in PORTS:
                with self.b.inside():
                    server = socket.socket(family, socket.SOCK_DGRAM)
                    server.bind((str(other), port))
                    server.setblocking(False)
                with self.a.inside():
                    client = socket.socket(family, socket.SOCK_DGRAM)
                    client.bind((str(own), 0))
                ways[version, port] = client, server, str(other)
                self.sent[version, port], self.came[version, port] = [], set()
        while not self.ended.is_set():
            for way, (client, _, other) in ways.items():
                self.sent[way].append(time.monotonic())
                client.sendto(str(len(self.sent[way]) - 1).encode(), (other, way[1]))
            time.sleep(PAUSE_S)
            # At once, so that none is lost for want of room to wait in.
            for way, (_, server, _) in ways.items():
                self._read(way, server)
        time.sleep(0.1)
        for way, (client, server, _) in ways.items():
            self._read(way, server)
            client.close()
            server.close()

    def _read(self, way: tuple[int, int], server: socket.socket) -> None:
        while True:
            try:
                self.came[way].add(int(server.recv(99)))
            except BlockingIOError:
                return

    def passed(self, way: tuple[int, int]) -> list[tuple[bool, float]]:
        """Say what happened in turn, each with the moment of its first packet."""
        turns: list[tuple[bool, float]] = []
        for number, moment in enumerate(self.sent[way]):
            if not turns or turns[-1][0] is not (number in self.came[way]):
                turns.append((number in self.came[way], moment))
        return turns


def hold(wanted: Point, *interims: Interim) -> None:
    """Hold it, as a process that is gone afterwards."""
    NftPoint().apply(wanted.ruleset, wanted.members, interims)


def test_at_its_end_a_trial_gives_way_to_the_packet_and_nothing_is_lost_or_let_in_between() -> None:
    with pair() as (a, b):
        old, new = point(a, b, BOTH, OLD), point(a, b, BOTH, NEW)
        b.call(hold, old)
        traffic = Traffic(a, b)
        sender = threading.Thread(target=traffic.run)
        sender.start()
        time.sleep(0.4)
        began = time.monotonic()
        # A child that is gone when the time is over.
        b.call(hold, old, on_trial(new, 1.2))
        written = time.monotonic()
        time.sleep(1.8)
        traffic.ended.set()
        sender.join()
        for version in (4, 6):
            assert [passed for passed, _ in traffic.passed((version, BOTH))] == [True]
            assert [passed for passed, _ in traffic.passed((version, NEITHER))] == [False]
            lost, new_came = traffic.passed((version, OLD)), traffic.passed((version, NEW))
            assert [passed for passed, _ in lost] == [True, False, True]
            assert [passed for passed, _ in new_came] == [False, True, False]
            for turns in (lost, new_came):
                assert began <= turns[1][1] <= written + 0.2
                assert began + 1.1 < turns[2][1] < began + 1.6, "within a moment of its end"
        assert len(traffic.sent[4, BOTH]) > 300


@pytest.mark.parametrize("version", [4, 6])
def test_open_connections_feel_the_end_of_a_trial_as_they_feel_a_change(version: int) -> None:
    with pair() as (a, b), b.inside():
        old, new = point(a, b, BOTH, OLD), point(a, b, BOTH, NEW)
        kernel = NftPoint()
        kernel.apply(old.ruleset, old.members)
        server = b.v4 if version == 4 else b.v6
        with calls(a, b, server, BOTH) as (kept,):
            kernel.apply(old.ruleset, old.members, (on_trial(new, 1.0),))
            with calls(a, b, server, NEW) as (cut,):
                assert kept.answers() and cut.answers()
                time.sleep(1.1)
                assert cut.is_reset()
                assert kept.answers() and kept.speaks_first()
                assert not cut.answers(0.3)
        assert kernel.verify() == (), "an end that comes is no drift"


@pytest.fixture
def stand() -> Generator[tuple[Namespace, Namespace, NftPoint]]:
    with pair() as (a, b), b.inside():
        yield a, b, NftPoint()


def reached(a: Namespace, b: Namespace) -> set[int]:
    """Say at which TCP ports `b` can be reached; both versions of IP must agree."""
    found: dict[int, set[int]] = {4: set(), 6: set()}
    for version, family, address in ((4, socket.AF_INET, b.v4), (6, socket.AF_INET6, b.v6)):
        for port in PORTS:
            with b.inside():
                listener = socket.create_server((str(address), port), family=family)
            try:
                with a.inside():
                    socket.create_connection((str(address), port), timeout=0.4).close()
                found[version].add(port)
            except OSError:
                pass
            finally:
                listener.close()
    assert found[4] == found[6]
    return found[4]


def test_a_confirmed_trial_and_one_taken_back_leave_nothing_behind(
    stand: tuple[Namespace, Namespace, NftPoint],
) -> None:
    a, b, kernel = stand
    old, new, other = point(a, b, BOTH, OLD), point(a, b, BOTH, NEW), point(a, b, NEW)
    kernel.apply(old.ruleset, old.members)
    before = kernel.listing()
    kernel.apply(old.ruleset, old.members, (on_trial(new, 60),))
    held = kernel.read_back()
    assert held and held.digest and reached(a, b) == {BOTH, NEW} and kernel.verify() == ()
    # A trial of something else, above the same.
    kernel.apply(old.ruleset, old.members, (on_trial(other, 60),))
    assert reached(a, b) == {NEW} and kernel.verify() == ()
    kernel.apply(old.ruleset, old.members)
    assert reached(a, b) == {BOTH, OLD} and kernel.verify() == ()
    assert _plain(kernel.listing()) == _plain(before)
    kernel.apply(old.ruleset, old.members, (on_trial(new, 60),))
    kernel.apply(new.ruleset, new.members)
    assert reached(a, b) == {BOTH, NEW} and kernel.verify() == () and "trial" not in kernel.listing()


def test_who_comes_after_finds_what_decides_and_writes_the_same_from_names_alone(
    stand: tuple[Namespace, Namespace, NftPoint],
) -> None:
    a, b, kernel = stand
    old, new = point(a, b, BOTH, OLD), point(a, b, BOTH, NEW, NEITHER)
    kernel.apply(old.ruleset, old.members, (on_trial(new, 60),))
    after = NftPoint()
    held = after.read_back()
    assert held and held.revision == new.ruleset.revision == 3
    after.apply(old.ruleset, old.members, (on_trial(new, 1.0),))
    assert after.verify() == () and reached(a, b) == {BOTH, NEW, NEITHER}
    time.sleep(1.1)
    held = NftPoint().read_back()
    assert held and held.revision == old.ruleset.revision == 2
    assert reached(a, b) == {BOTH, OLD}


def test_members_that_change_during_a_trial_change_for_it_alone(stand: tuple[Namespace, Namespace, NftPoint]) -> None:
    a, b, kernel = stand
    old, new = point(a, b, BOTH, OLD, more=50), point(a, b, BOTH, NEW, more=50)
    kernel.apply(old.ruleset, old.members)
    kernel.apply(old.ruleset, old.members, (on_trial(new, 2.5),))
    assert "map peer4_2" not in kernel.listing(), "what is the same is there once"
    kernel.apply_members({}, [a.v4.packed, a.v6.packed])
    assert reached(a, b) == set() and kernel.verify() == ()
    number = new.members[a.v4.packed]
    kernel.apply_members({a.v4.packed: number, a.v6.packed: number}, [])
    assert reached(a, b) == {BOTH, NEW} and kernel.verify() == ()
    kernel.apply_members({}, [a.v4.packed, a.v6.packed])
    time.sleep(2.6)
    assert reached(a, b) == {BOTH, OLD}, "what is gone back to is what was"


def test_an_order_reaches_what_is_on_trial_and_what_it_goes_back_to(
    stand: tuple[Namespace, Namespace, NftPoint],
) -> None:
    a, b, kernel = stand
    now = time.time()
    order = Order(
        "o1", OrderKind.CONTAIN, ANYBODY, Party(("db",)), parse_ports(f"tcp/{BOTH}"), begins=now, expires=now + 60
    )
    old, new = point(a, b, BOTH, OLD), point(a, b, BOTH, NEW)
    cards = point(a, b, BOTH, NEW, orders=(order,)).ruleset.orders
    kernel.apply(old.ruleset, old.members)
    kernel.apply(old.ruleset, old.members, (on_trial(new, 2.0),))
    kernel.apply_orders(cards)
    assert reached(a, b) == {NEW} and kernel.verify() == ()
    time.sleep(2.1)
    assert reached(a, b) == {OLD}
    assert kernel.counters()["o1"][0] > 0


def test_a_suspended_host_lets_all_pass_although_it_is_contained_and_enforces_again_with_its_trial_and_orders(
    stand: tuple[Namespace, Namespace, NftPoint],
) -> None:
    a, b, kernel = stand
    now = time.time()
    order = Order(
        "o1", OrderKind.CONTAIN, ANYBODY, Party(("db",)), parse_ports(f"tcp/{BOTH}"), begins=now, expires=now + 60
    )
    old, new = (point(a, b, BOTH, port, orders=(order,)) for port in (OLD, NEW))
    watching = replace(new.ruleset, mode=Mode.OBSERVE, orders=())
    kernel.apply(old.ruleset, old.members)
    suspended = Interim(Spell.SUSPENSION, watching, new.members, time.time() + 2.0)
    kernel.apply(old.ruleset, old.members, (on_trial(new, 4.5), suspended))
    assert reached(a, b) == set(PORTS) and kernel.verify() == ()
    held = kernel.read_back()
    assert held and held.mode is Mode.OBSERVE
    time.sleep(max(0.0, suspended.until + 0.1 - time.time()))
    assert reached(a, b) == {NEW}
    held = NftPoint().read_back()
    assert held and held.mode is Mode.ENFORCE
    time.sleep(max(0.0, suspended.until + 2.6 - time.time()))
    assert reached(a, b) == {OLD}


def test_with_nothing_below_it_a_policy_gives_way_to_none(stand: tuple[Namespace, Namespace, NftPoint]) -> None:
    a, b, kernel = stand
    kernel.apply(None, {}, (on_trial(point(a, b, BOTH), 1.5),))
    assert reached(a, b) == {BOTH}
    time.sleep(1.5)
    assert reached(a, b) == set(PORTS)


def _plain(listing: str) -> str:
    """A listing without what was counted."""
    rules = "\n".join(line for line in listing.splitlines() if "expires" not in line)
    return re.sub(r"counter packets \d+ bytes \d+", "counter", rules)
