"""Flows on their way from all agents to the store: many batches are one write.

agents ── Channel ── store(name, batch) ─┐  gathered for a moment, or while  ┌─ FlowStore.insert_many ── Taken
agents ── Channel ── store(name, batch) ─┴─ the write before this one goes on ┘
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cellwall.controller.control import Log
from cellwall.controller.store.flows import FlowStore
from cellwall.flows import FlowRecord
from cellwall.traffic import CellwallError
from cellwall.wire import Flows, WireError, unpack_flows

GATHER_S, MOST_ROWS = 0.05, 100_000
"""Batches that come within so long are one write, of about so many rows at most."""
MOST_WAITING = 256 * 1024 * 1024
"""So many bytes may wait, of all agents together."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    name: str
    flows: Flows
    size: int
    answer: Callable[[bool], None] = field(compare=False)

    @property
    def batch(self) -> str:
        """The batch's name in the store: behind its agent's, so that none takes the place of another's."""
        return f"{self.name[:64]}/{self.flows.batch}"


class Intake:
    """Writes what agents report. What waits is bounded by `MOST_WAITING` bytes: what is over that is put off."""

    def __init__(self, flows: FlowStore, log: Log) -> None:
        self._flows = flows
        self._log = log
        self._waiting: deque[_Waiting] = deque()
        self._more = asyncio.Event()
        self.held = 0
        """How many bytes wait, or are being written."""
        self.put_off = 0
        """How many batches were not taken because too much waited; their agents keep them and send them again."""

    @property
    def waiting(self) -> int:
        """How many batches wait to be written."""
        return len(self._waiting)

    def put(self, name: str, flows: Flows, answer: Callable[[bool], None]) -> None:
        """Keep a batch of an agent; `answer` is called with False where that failed and it is to be sent again.

        A batch that can never be kept counts as kept, and is logged."""
        size = _size(flows)
        if self.held + size > MOST_WAITING and self._waiting:
            self.put_off += 1
            if self.put_off % 1000 == 1:
                self._log("flows put off", level="warning", workload=name, waiting=self.waiting, bytes=self.held)
            answer(False)
            return
        self.held += size
        self._waiting.append(_Waiting(name, flows, size, answer))
        self._more.set()

    async def store(self, name: str, flows: Flows) -> bool:
        """Do as `put` does, and give the answer."""
        stored: Future[bool] = asyncio.get_running_loop().create_future()

        def answer(done: bool) -> None:
            # Whoever asked may be gone.
            if not stored.done():
                stored.set_result(done)

        self.put(name, flows, answer)
        return await stored

    async def turn(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._more.wait()
            await asyncio.sleep(GATHER_S)
            some = self._next()
            began = time.perf_counter()
            try:
                refused = await asyncio.to_thread(self._write, some)
            except CellwallError as error:
                self._log("flows not stored", level="warning", batches=len(some), why=str(error))
                self._answer(some, done=False)
                continue
            for name, why in refused.items():
                # Sent again it would be no better: it is taken, and gone.
                self._log("flows refused", level="warning", batch=name, why=why)
            seconds = round(time.perf_counter() - began, 4)
            good = [one.flows.rows for one in some if one.batch not in refused]
            self._log("flows stored", level="debug", batches=len(good), rows=sum(good), seconds=seconds)
            self._answer(some, done=True)

    def _next(self) -> list[_Waiting]:
        rows = 0
        some: list[_Waiting] = []
        while self._waiting and (not some or rows + self._waiting[0].flows.rows <= MOST_ROWS):
            some.append(one := self._waiting.popleft())
            rows += one.flows.rows
        if not self._waiting:
            self._more.clear()
        return some

    def _answer(self, some: Sequence[_Waiting], *, done: bool) -> None:
        for one in some:
            self.held -= one.size
            one.answer(done)

    def _write(self, some: Sequence[_Waiting]) -> Mapping[str, str]:
        batches: list[tuple[tuple[FlowRecord, ...], str]] = []
        refused: dict[str, str] = {}
        for one in some:
            try:
                batches.append((unpack_flows(one.flows, one.name), one.batch))
            except WireError as error:
                refused[one.batch] = str(error)
        return {**refused, **self._flows.insert_many(batches)}


def _size(flows: Flows) -> int:
    """Give about how many bytes of memory a batch takes until it is written."""
    return 1000 + 100 * flows.rows + 50 * len(flows.addresses)
