"""Flows of all agents go to the store together, and each agent hears of its own batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

from msgspec import structs

from cellwall.controller.api.intake import Intake
from cellwall.controller.store.flow_memory import MemoryFlows
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.traffic import parse_address
from cellwall.wire import Flows, pack_flows


class Counting(MemoryFlows):
    """The fake store, which counts its writes, and takes back what it is told to refuse."""

    def __init__(self, refuses: str = "") -> None:
        super().__init__()
        self.writes: list[int] = []
        self.refuses = refuses

    def insert_many(self, batches: Sequence[tuple[Sequence[FlowRecord], str]]) -> Mapping[str, str]:
        """Keep many batches."""
        self.writes.append(len(batches))
        refused = {name: "no" for _, name in batches if name == self.refuses}
        return {**super().insert_many([one for one in batches if one[1] not in refused]), **refused}


def flows(number: int) -> Flows:
    key = FlowKey(parse_address("10.0.0.1"), parse_address("10.0.0.2"), 6, number)
    record = FlowRecord(key, "", Side.EGRESS, Outcome.ALLOWED, Outcome.ALLOWED, (), 1, 1, 1.0, 2.0)
    return pack_flows([record], batch=f"b-{number}", start=1.0, end=2.0)


@asynccontextmanager
async def turning(store: MemoryFlows) -> AsyncGenerator[tuple[Intake, list[str]]]:
    said: list[str] = []

    def log(event: str, /, **_: object) -> None:
        if event != "flows stored":
            said.append(event)

    intake = Intake(store, log)
    turn = asyncio.create_task(intake.turn())
    try:
        yield intake, said
    finally:
        turn.cancel()


async def test_batches_that_come_together_are_one_write() -> None:
    store = Counting()
    async with turning(store) as (intake, _):
        done = await asyncio.gather(*(intake.store(f"w-{number}", flows(number)) for number in range(50)))
    assert done == [True] * 50
    assert store.writes == [50]
    assert store.count() == 50


async def test_what_cannot_be_stored_is_not_taken_and_can_be_sent_again() -> None:
    store = MemoryFlows()
    store.close()
    async with turning(store) as (intake, said):
        assert not await intake.store("w", flows(1))
        assert not await intake.store("w", flows(1))
    assert said == ["flows not stored", "flows not stored"]


async def test_what_can_never_be_stored_is_taken_and_logged_and_keeps_nobody_else_out() -> None:
    store = Counting(refuses="w/b-2")
    garbled = structs.replace(flows(3), rows=7)
    async with turning(store) as (intake, said):
        sent = (flows(1), flows(2), garbled)
        assert await asyncio.gather(*(intake.store("w", one) for one in sent)) == [True] * 3
    assert said == ["flows refused", "flows refused"]
    assert store.count() == 1


async def test_an_agent_that_goes_while_its_batch_waits_disturbs_nobody() -> None:
    store = MemoryFlows()
    async with turning(store) as (intake, _):
        gone = asyncio.create_task(intake.store("gone", flows(1)))
        await asyncio.sleep(0)
        gone.cancel()
        assert await intake.store("w", flows(2))
    assert store.count() == 2
