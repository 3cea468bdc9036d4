"""Flows on their way from all agents to the store: many batches are one write, and no agent is before its turn.

agents ── Channel ── store(name, batch) ─┐  gathered for a moment, or while  ┌─ FlowStore.insert_many ── Taken
agents ── Channel ── store(name, batch) ─┴─ the write before this one goes on ┘
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from cellwall.controller.access.throttle import Bucket
from cellwall.controller.control import Log
from cellwall.controller.store.flows import FlowStore
from cellwall.flows import FlowRecord
from cellwall.traffic import CellwallError
from cellwall.wire import FLOW_COLUMNS, Flows, WireError, unpack_flows

MOST_NAME = 48
GATHER_S, MOST_ROWS = 0.05, 100_000
"""Batches that come within so long are one write, of about so many rows at most."""
MOST_WAITING = 256 * 1024 * 1024
"""So many bytes may wait, of all agents together; of one agent an eighth."""
BURST_ROWS, ROWS_PER_S = 300_000, 5_000
"""So many rows an agent may report at once, and so many a second in the long run: no one fills the disk."""
Believe = Callable[[tuple[FlowRecord, ...], str], tuple[FlowRecord, ...]]
"""Gives those of an agent's records that are believed of it."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    name: str
    flows: Flows
    size: int
    answer: Callable[[bool], None] = field(compare=False)

    @property
    def batch(self) -> str:
        """The batch's name in the store: behind its agent's, so that none takes the place of another's."""
        name = self.name
        if len(name) > MOST_NAME:
            # The store's names are short: a digest keeps apart what begins alike.
            name = f"{name[:MOST_NAME]}~{sha256(name.encode()).hexdigest()[:16]}"
        return f"{name}/{self.flows.batch}"


class Intake:
    """Writes what agents report. What waits is bounded by `MOST_WAITING` bytes: what is over that is put off."""

    def __init__(self, flows: FlowStore, log: Log, believing: Callable[[], Believe] | None = None) -> None:
        self._flows = flows
        self._believing = believing
        """Gives, in the loop, what is then used in another thread."""
        self._log = log
        self._waiting: dict[str, deque[_Waiting]] = {}
        """Who waited longest comes first."""
        self._buckets: dict[str, Bucket] = {}
        self._left_out: Counter[str] = Counter()
        self._more = asyncio.Event()
        self.held = 0
        """How many bytes wait, or are being written."""
        self.put_off = 0
        """How many batches were not taken because too much waited; their agents keep them and send them again."""

    @property
    def waiting(self) -> int:
        """How many batches wait to be written."""
        return sum(len(some) for some in self._waiting.values())

    def put(self, name: str, flows: Flows, answer: Callable[[bool], None]) -> None:
        """Keep a batch of an agent; `answer` is called with False where that failed and it is to be sent again.

        A batch that can never be kept counts as kept, and is logged."""
        size = _size(flows)
        own = self._waiting.get(name, ())
        full = self.held + size > MOST_WAITING and self._waiting
        greedy = own and sum(one.size for one in own) + size > MOST_WAITING / 8
        if full or greedy or not self._bucket(name).admits(time.monotonic(), min(flows.rows, BURST_ROWS)):
            self.put_off += 1
            if self.put_off % 1000 == 1:
                self._log("flows put off", level="warning", workload=name, waiting=self.waiting, bytes=self.held)
            answer(False)
            return
        self.held += size
        self._waiting.setdefault(name, deque()).append(_Waiting(name, flows, size, answer))
        self._more.set()

    def forget(self, name: str) -> None:
        """Forget how much an agent has reported lately, where that is long enough ago."""
        bucket = self._buckets.get(name)
        if bucket is not None and not bucket.room_s(time.monotonic(), BURST_ROWS):
            del self._buckets[name]

    def _bucket(self, name: str) -> Bucket:
        return self._buckets.setdefault(name, Bucket(BURST_ROWS, ROWS_PER_S))

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
                believe = self._believing() if self._believing is not None else None
                refused = await asyncio.to_thread(self._write, some, believe)
            except CellwallError as error:
                self._log("flows not stored", level="warning", batches=len(some), why=str(error))
                self._answer(some, done=False)
                continue
            for name, count in self._left_out.items():
                self._log("flows of others", level="warning", workload=name, left_out=count)
            self._left_out.clear()
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
        for name, own in tuple(self._waiting.items()):
            taken = len(some)
            while own and (not some or rows + own[0].flows.rows <= MOST_ROWS):
                some.append(one := own.popleft())
                rows += one.flows.rows
            if len(some) > taken:
                # Who has more waits behind the others.
                del self._waiting[name]
                if own:
                    self._waiting[name] = own
        if not self._waiting:
            self._more.clear()
        return some

    def _answer(self, some: Sequence[_Waiting], *, done: bool) -> None:
        for one in some:
            self.held -= one.size
            one.answer(done)

    def _write(self, some: Sequence[_Waiting], believe: Believe | None) -> Mapping[str, str]:
        batches: list[tuple[tuple[FlowRecord, ...], str]] = []
        refused: dict[str, str] = {}
        for one in some:
            try:
                records = unpack_flows(one.flows, one.name)
            except WireError as error:
                refused[one.batch] = str(error)
                continue
            if believe is not None:
                told, records = len(records), believe(records, one.name)
                if len(records) < told:
                    self._left_out[one.name] += told - len(records)
            batches.append((records, one.batch))
        return {**refused, **self._flows.insert_many(batches)}


def _size(flows: Flows) -> int:
    """Give about how many bytes of memory a batch takes until it is written."""
    tables = 50 * len(flows.addresses) + 100 * (len(flows.rules) + len(flows.owners))
    return 1000 + 100 * flows.rows + tables + sum(len(getattr(flows, name)) for name in FLOW_COLUMNS)
