"""Orders of an emergency as they are kept: those in force, those to come, and all that ever were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, Column, Float, Index, Row, Table, Text, select, update

from cellwall.controller.store.database import Database
from cellwall.controller.store.tables import METADATA
from cellwall.labels import parse_selector
from cellwall.policy import Order, OrderKind, Party
from cellwall.traffic import PortSet, Span, parse_address, parse_network

orders = Table(
    "orders",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("source", JSON, nullable=False),
    Column("destination", JSON, nullable=False),
    Column("spans", JSON, nullable=False),
    Column("exempt", JSON, nullable=False),
    Column("begins", Float, nullable=False),
    Column("expires", Float),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("given", Float, nullable=False),
    Column("over", Float),
    Column("ended_by", Text, nullable=False),
    Index("orders_by_end", "over"),
)
"""`over` is when an order was lifted or found to have expired, null while it is neither."""


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order, when it was given, and when and by whom it was ended: `over` is None while it is not."""

    order: Order
    given: float
    over: float | None = None
    ended_by: str = ""


class OrderStore:
    """Keeps orders. Every call raises `StateError` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def standing(self) -> tuple[OrderRow, ...]:
        """Give the orders that were neither lifted nor found to have expired, in order of id."""
        query = select(orders).where(orders.c.over.is_(None)).order_by(orders.c.id)
        return tuple(map(_row, self._database.rows(query)))

    def recent(self, limit: int) -> tuple[OrderRow, ...]:
        """Give the orders of all times, the last given first."""
        query = select(orders).order_by(orders.c.given.desc(), orders.c.id).limit(limit)
        return tuple(map(_row, self._database.rows(query)))

    def find(self, name: str) -> OrderRow | None:
        """Give one order, whether or not it is over."""
        found = self._database.rows(select(orders).where(orders.c.id == name))
        return _row(found[0]) if found else None

    def add(self, order: Order, given: float) -> None:
        """Keep a new order."""
        self._database.put(
            orders,
            {
                "id": order.id,
                "kind": order.kind.value,
                "source": _party(order.source),
                "destination": _party(order.destination),
                "spans": [[span.first, span.last] for span in order.ports.spans],
                "exempt": sorted([str(one), str(other)] for one, other in order.exempt),
                "begins": order.begins,
                "expires": order.expires,
                "author": order.author,
                "reason": order.reason,
                "given": given,
                "over": None,
                "ended_by": "",
            },
        )

    def end(self, name: str, ended_by: str, at: float) -> None:
        """Keep that an order is over."""
        self._database.run(update(orders).where(orders.c.id == name).values(over=at, ended_by=ended_by))


def _party(party: Party) -> dict[str, list[str]]:
    return {
        "workloads": list(party.workloads),
        "selectors": list(map(str, party.selectors)),
        "networks": list(map(str, party.networks)),
    }


def _read_party(told: dict[str, list[str]]) -> Party:
    return Party(
        tuple(told["workloads"]),
        tuple(map(parse_selector, told["selectors"])),
        tuple(map(parse_network, told["networks"])),
    )


def _row(row: Row[Any]) -> OrderRow:
    order = Order(
        row.id,
        OrderKind(row.kind),
        _read_party(row.source),
        _read_party(row.destination),
        PortSet(tuple(Span(first, last) for first, last in row.spans)),
        frozenset((parse_address(one), parse_address(other)) for one, other in row.exempt),
        row.begins,
        row.expires,
        row.author,
        row.reason,
    )
    return OrderRow(order, row.given, row.over, row.ended_by)
