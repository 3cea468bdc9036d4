"""Flows on their way from all agents to the store: many batches are one write.

agents ── Channel ── store(name, batch) ─┐  gathered for a moment, or while  ┌─ FlowStore.insert_many ── Taken
agents ── Channel ── store(name, batch) ─┴─ the write before this one goes on ┘
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cellwall.controller.control import Log
from cellwall.controller.store.flows import FlowStore
from cellwall.flows import FlowRecord
from cellwall.traffic import CellwallError
from cellwall.wire import Flows, WireError, unpack_flows

GATHER_S, MOST_ROWS = 0.05, 100_000
"""Batches that come within so long are one write, of about so many rows at most."""


@dataclass(frozen=True)
class _Waiting:
    name: str
    flows: Flows
    stored: Future[bool] = field(compare=False)


class Intake:
    """Writes what agents report. What waits is bounded by what its callers hold: each waits for its one batch."""

    def __init__(self, flows: FlowStore, log: Log) -> None:
        self._flows = flows
        self._log = log
        self._waiting: list[_Waiting] = []
        self._more = asyncio.Event()

    async def store(self, name: str, flows: Flows) -> bool:
        """Keep a batch of an agent; False where that failed and it is to be sent again.

        A batch that can never be kept counts as kept, and is logged."""
        one = _Waiting(name, flows, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._more.set()
        return await one.stored

    async def turn(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._more.wait()
            await asyncio.sleep(GATHER_S)
            some = self._next()
            try:
                refused = await asyncio.to_thread(self._write, some)
            except CellwallError as error:
                self._log("flows not stored", batches=len(some), why=str(error))
                _answer(some, done=False)
                continue
            for name, why in refused.items():
                # Sent again it would be no better: it is taken, and gone.
                self._log("flows refused", batch=name, why=why)
            _answer(some, done=True)

    def _next(self) -> list[_Waiting]:
        rows = count = 0
        for one in self._waiting:
            if count and rows + one.flows.rows > MOST_ROWS:
                break
            rows, count = rows + one.flows.rows, count + 1
        some, self._waiting = self._waiting[:count], self._waiting[count:]
        if not self._waiting:
            self._more.clear()
        return some

    def _write(self, some: Sequence[_Waiting]) -> Mapping[str, str]:
        batches: list[tuple[tuple[FlowRecord, ...], str]] = []
        refused: dict[str, str] = {}
        for one in some:
            # The name is before the batch: what one agent sends cannot take the place of another's.
            batch = f"{one.name[:64]}/{one.flows.batch}"
            try:
                batches.append((unpack_flows(one.flows, one.name), batch))
            except WireError as error:
                refused[batch] = str(error)
        return {**refused, **self._flows.insert_many(batches)}


def _answer(some: Sequence[_Waiting], *, done: bool) -> None:
    for one in some:
        # Whoever asked may be gone.
        if not one.stored.done():
            one.stored.set_result(done)
