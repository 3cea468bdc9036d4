"""What hosts said of the memory they can give, kept in step with the store by reading what is new there."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.msgpack import Decoder
from sqlalchemy import select

from cellwall.controller.core import Standing
from cellwall.controller.store import tables as t
from cellwall.controller.store.database import Database

SLACK_S = 120.0
"""So far may the clocks of several controllers, who all write facts, be apart."""


class _Room(Struct):
    memory: int = 0


_room = Decoder(_Room)


class RoomStore:
    """The memory that each host can give, by workload; whoever has it asks from the database's thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._memory: dict[str, int] = {}
        self._newest = 0.0

    def of(self, standings: Mapping[str, Standing]) -> dict[str, int]:
        """Give the bytes that each host can give, as its last facts say; 0 where they do not.

        Those of `standings` whose agents are connected: what the others said may be long ago."""
        facts = t.facts.c
        rows = self._database.rows(
            select(facts.workload, facts.facts, facts.at).where(facts.at > self._newest - SLACK_S)
        )
        for row in rows:
            self._memory[row.workload] = _room.decode(row.facts).memory
            self._newest = max(self._newest, row.at)
        return {name: self._memory.get(name, 0) for name, one in standings.items() if one.connected}
