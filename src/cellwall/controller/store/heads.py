"""Signed heads of the audit log, in the state's database."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Column, Float, Integer, Table, Text, select

from cellwall.controller.store.database import Database
from cellwall.controller.store.tables import METADATA


@dataclass(frozen=True, slots=True)
class Head:
    """The controller's word that entry `number` of the audit log had `hash` at `at`. `signature` is hexadecimal."""

    number: int
    hash: str
    at: float
    signature: str


audit_heads = Table(
    "audit_heads",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("hash", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("signature", Text, nullable=False),
)


class HeadStore:
    """Keeps heads. Every call raises `StateError` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def heads(self) -> tuple[Head, ...]:
        """Give all heads, the newest first."""
        return tuple(
            Head(*row) for row in self._database.rows(select(audit_heads).order_by(audit_heads.c.number.desc()))
        )

    def newest(self) -> Head | None:
        """Give the head that reaches furthest."""
        rows = self._database.rows(select(audit_heads).order_by(audit_heads.c.number.desc()).limit(1))
        return Head(*rows[0]) if rows else None

    def put(self, head: Head) -> None:
        """Keep a head."""
        self._database.put(audit_heads, asdict(head))
