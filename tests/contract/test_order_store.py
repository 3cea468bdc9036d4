"""Orders are kept alike in SQLite and in PostgreSQL, to the last field."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from cellwall.controller.errors import NotFound
from cellwall.controller.orders import Orders
from cellwall.controller.store.orders import OrderRow, OrderStore
from cellwall.controller.store.sql import SqlState
from cellwall.labels import parse_selector
from cellwall.policy import Order, OrderKind, Party
from cellwall.traffic import parse_ports

CONTAIN = Order(
    "contain-1",
    OrderKind.CONTAIN,
    Party(("a", "b"), (parse_selector("role in (db,web),!old"),), (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))),
    Party(),
    parse_ports("tcp/445") | parse_ports("icmp/8"),
    frozenset({(ip_address("10.0.0.1"), ip_address("10.0.0.2")), (ip_address("fd00::1"), ip_address("fd00::2"))}),
    100.0,
    200.5,
    "ann",
    "a worm's `reason`",
)
SEAL = Order("seal-1", OrderKind.SEAL, Party(("db",)), begins=90.0, author="bob")


def log(_event: str, /, **_details: object) -> None:
    """Say nothing."""


def test_what_is_kept_comes_back_and_what_is_over_stands_no_more(state: SqlState) -> None:
    store = OrderStore(state.database)
    orders = Orders(store, state, log)
    assert orders.standing == () and not orders.refresh()
    orders.give(SEAL, 90.0)
    orders.give(CONTAIN, 100.0)
    assert orders.standing == (CONTAIN, SEAL)
    kept = orders.standing
    assert not orders.refresh() and orders.standing is kept
    assert store.find("contain-1") == OrderRow(CONTAIN, 100.0)
    assert Orders(store, state, log).standing == (CONTAIN, SEAL)
    assert orders.next_change(95.0) == 100.0 and orders.next_change(100.0) == 200.5

    orders.expire(200.0)
    assert orders.standing is kept
    orders.expire(300.0)
    assert orders.standing == (SEAL,)
    # It was over when it said, not when that was noted.
    assert orders.find("contain-1").over == 200.5
    assert orders.lift("seal-1", "cat", "done", 301.0) == OrderRow(SEAL, 90.0, 301.0, "cat")
    assert [row.order.id for row in orders.recent(9)] == ["contain-1", "seal-1"]
    for name in ("seal-1", "nothing"):
        with pytest.raises(NotFound):
            orders.lift(name, "cat", "", 302.0)
    with pytest.raises(NotFound):
        orders.find("nothing")
    told = [(one.author, one.action, one.subject) for one in reversed(state.audit(9))]
    assert told == [
        ("bob", "order", "seal-1"),
        ("ann", "order", "contain-1"),
        ("controller", "order expired", "contain-1"),
        ("cat", "lift order", "seal-1"),
    ]


def test_names_are_new_each_time(state: SqlState) -> None:
    orders = Orders(OrderStore(state.database), state, log)
    names = {orders.new_id(OrderKind.SEAL) for _ in range(20)}
    assert len(names) == 20
    for name in names:
        replace(SEAL, id=name)
