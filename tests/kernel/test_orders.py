"""Orders of an emergency in the real kernel: they cut at once, and end by themselves, whoever is dead by then."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import pytest
from tests.kernel.namespaces import Namespace, needs_namespaces, pair
from tests.kernel.test_open_connections import AT_ONCE_S, calls

from cellwall.agent.cuts import mark_shut
from cellwall.compile import Compiled, Point, compile_fleet
from cellwall.enforce import NftPoint
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels
from cellwall.policy import ANYBODY, Order, OrderKind, Party, parse_policy
from cellwall.traffic import parse_ports

pytestmark = needs_namespaces
LIFELINE = """
networks: {{bastion: [{a}, "{a6}"]}}
lifelines: [{{id: ssh, allow: tcp/22, from: "network:bastion", to: any}}]
modes: [{{where: "", mode: {mode}}}]
"""


def compiled(a: Namespace, b: Namespace, mode: str, *orders: Order) -> Compiled:
    """Two workloads, `a` with a lifeline to SSH, and orders."""
    policy = parse_policy([("p.yaml", LIFELINE.format(a=a.v4, a6=a.v6, mode=mode))])
    workloads = (
        Workload("web", Labels({"role": "web"}), (a.v4, a.v6)),
        Workload("db", Labels({"role": "db"}), (b.v4, b.v6)),
    )
    fleet = Fleet(workloads, (Listener(a.v4, 7443), Listener(a.v6, 7443)))
    return compile_fleet(policy, fleet, 1, time.time(), orders)


def order(kind: OrderKind, ports: str = "any", lasts_s: float | None = 60.0) -> Order:
    """An order about `db`, from this moment on."""
    quarantine = kind not in (OrderKind.CONTAIN, OrderKind.OPEN)
    ends = (Party(("db",)), ANYBODY) if quarantine else (ANYBODY, Party(("db",)))
    now = time.time()
    return Order("o1", kind, *ends, parse_ports(ports), begins=now, expires=now + lasts_s if lasts_s else None)


@pytest.mark.parametrize("version", [4, 6])
def test_a_containment_cuts_open_connections_at_once_even_where_everything_is_observed(version: int) -> None:
    with pair() as (a, b):
        with b.inside():
            point = NftPoint()
            before = compiled(a, b, "observe").points["db"]
            after = compiled(a, b, "observe", order(OrderKind.CONTAIN, "tcp/445")).points["db"]
            point.apply(before.ruleset, before.members)
        with calls(a, b, b.v4 if version == 4 else b.v6, 445, 5432) as (cut, kept):
            assert cut.answers()
            with b.inside():
                began = time.monotonic()
                point.apply_orders(after.ruleset.orders)
                assert cut.is_reset()
                assert time.monotonic() - began < AT_ONCE_S
                assert kept.answers()
                assert kept.speaks_first()
                assert point.counters()["o1"][0] > 0
                assert {one.rule for one in point.collect() if one.port == 445} >= {after.ruleset.orders[0].number}
                assert point.verify() == ()
                point.apply_orders(())
                assert point.verify() == ()
                assert "o1" not in point.listing()


@pytest.mark.parametrize(
    ("kind", "in_22", "in_80", "out_7443", "out_80"),
    [
        (OrderKind.LIMIT, True, True, True, False),
        (OrderKind.ISOLATE, True, False, True, False),
        (OrderKind.SEAL, False, False, True, False),
    ],
)
def test_the_three_degrees_of_a_quarantine(
    kind: OrderKind, in_22: bool, in_80: bool, out_7443: bool, out_80: bool
) -> None:
    with pair() as (a, b):
        points = compiled(a, b, "observe", order(kind, lasts_s=None)).points
        for space, name in ((a, "web"), (b, "db")):
            # Each point alone does it: a compromised host may have taken away its own table.
            with space.inside():
                point = NftPoint()
                point.apply(points[name].ruleset, points[name].members)
            reached = [_opens(*way) for way in ((a, b, 22), (a, b, 80), (b, a, 7443), (b, a, 80))]
            assert reached == [in_22, in_80, out_7443, out_80]
            space.nft("delete table inet cellwall\n")


def test_what_a_containment_cut_is_not_reopened_by_the_server() -> None:
    with pair() as (a, b), b.inside():
        point = NftPoint()
        before = compiled(a, b, "observe").points["db"]
        after = compiled(a, b, "observe", order(OrderKind.CONTAIN, "tcp/445")).points["db"]
        point.apply(before.ruleset, before.members)
        with calls(a, b, b.v4, 445, 5432) as (cut, kept):
            assert cut.answers()
            point.apply_orders(after.ruleset.orders)
            # An attacker keeps his socket although he was reset, and the connection is forgotten.
            a.nft("table inet ignore { chain i { type filter hook input priority -300; tcp flags rst drop; }; }\n")
            assert not cut.answers(0.3)
            b.run(["conntrack", "-F"], check=False)
            assert not cut.speaks_first()
            assert not cut.answers(0.3)
            assert kept.answers()


def test_an_isolated_host_does_not_go_on_by_way_of_replies() -> None:
    with pair() as (a, b), a.inside():
        point = NftPoint()
        before, after = (compiled(a, b, "observe", *given).points["web"] for given in ((), (order(OrderKind.ISOLATE),)))
        point.apply(before.ruleset, before.members)
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect((str(b.v4), 99))
        client.settimeout(0.4)
        with b.inside():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((str(b.v4), 99))
        client.send(b"ask")
        _, asker = server.recvfrom(9)
        server.sendto(b"answer", asker)
        assert client.recv(9) == b"answer"
        point.apply_orders(after.ruleset.orders)
        assert mark_shut(after.ruleset, after.members) == 1
        server.sendto(b"more", asker)
        with pytest.raises(TimeoutError):
            client.recv(9)
        client.close()
        server.close()


def test_an_order_ends_in_the_kernel_when_agent_and_controller_are_dead() -> None:
    with pair() as (a, b):
        points = compiled(a, b, "enforce", order(OrderKind.OPEN, "tcp/80", 1.5)).points
        shut = compiled(a, b, "observe", replace(order(OrderKind.ISOLATE, lasts_s=1.5), id="o2")).points
        # A child applies them and is gone: nobody is left who could take them back.
        b.call(_apply, points["db"])
        a.call(_apply, shut["web"])
        assert not _opens(b, a, 80)
        a.nft("delete table inet cellwall\n")
        assert _opens(a, b, 80)
        assert not _opens(a, b, 81)
        a.call(_apply, shut["web"])
        time.sleep(2.0)
        assert not _opens(a, b, 80)
        assert _opens(b, a, 81) is False  # `db` is enforced: it may begin nothing anyway
        b.nft("delete table inet cellwall\n")
        assert _opens(b, a, 81)


def test_an_expired_order_is_no_drift_and_the_same_orders_again_change_nothing() -> None:
    with pair() as (a, b), b.inside():
        wanted = compiled(a, b, "enforce", order(OrderKind.OPEN, "tcp/80", 1.2)).points["db"]
        point = NftPoint()
        point.apply(wanted.ruleset, wanted.members)
        assert point.verify() == ()
        assert point.apply(wanted.ruleset, wanted.members).change == "none"
        time.sleep(1.5)
        assert "jump who_o1" not in point.listing()
        assert point.verify() == ()


def test_a_containment_leaves_exempt_pairs_to_the_policy() -> None:
    with pair() as (a, b), b.inside():
        but = replace(order(OrderKind.CONTAIN, "tcp/445"), exempt=frozenset({(a.v4, b.v4)}))
        point = NftPoint()
        wanted = compiled(a, b, "observe", but).points["db"]
        point.apply(wanted.ruleset, wanted.members)
        assert _opens(a, b, 445)
        assert not _opens(a, b, 445, version=6)
        # Left to the policy, it is not opened.
        wanted = compiled(a, b, "enforce", but).points["db"]
        point.apply(wanted.ruleset, wanted.members)
        assert not _opens(a, b, 445)
        assert point.verify() == ()


def _apply(wanted: Point) -> None:
    NftPoint().apply(wanted.ruleset, wanted.members)


def _opens(a: Namespace, b: Namespace, port: int, version: int = 4) -> bool:
    """Say whether a connection from `a` to `b` can be opened."""
    family, address = (socket.AF_INET, b.v4) if version == 4 else (socket.AF_INET6, b.v6)
    with b.inside():
        listener = socket.create_server((str(address), port), family=family)
    try:
        with a.inside():
            socket.create_connection((str(address), port), timeout=0.4).close()
    except OSError:
        return False
    finally:
        listener.close()
    return True
