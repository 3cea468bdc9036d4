"""Flows of all agents go to the store together, and each agent hears of its own batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from msgspec import structs

from cellwall.controller.api.intake import MOST_ROWS, Intake
from cellwall.controller.store.flows import MemoryFlows
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


def many(number: int, rows: int) -> Flows:
    """A batch that says it has many rows, and has none of them."""
    return structs.replace(flows(number), rows=rows)


async def test_who_sends_much_waits_behind_who_sends_little() -> None:
    store = Counting()
    intake = Intake(store, lambda *_, **__: None)
    answers: list[str] = []

    def answer(name: str) -> Callable[[bool], None]:
        return lambda done: answers.append(name) if done else None

    for number in range(3):
        intake.put("greedy", many(number, MOST_ROWS - 10), answer("greedy"))
    for number in range(5):
        intake.put(f"modest-{number}", flows(number), answer(f"modest-{number}"))
    # One large batch, and all the small ones with it; what is left of the large ones comes after whoever comes now.
    first = intake._next()  # pyright: ignore[reportPrivateUsage]
    assert [one.name for one in first] == ["greedy", *(f"modest-{number}" for number in range(5))]
    intake.put("late", flows(9), answer("late"))
    assert [one.name for one in intake._next()] == ["greedy", "late"]  # pyright: ignore[reportPrivateUsage]


async def test_nobody_reports_more_in_the_long_run_than_a_disk_can_take() -> None:
    intake = Intake(Counting(), lambda *_, **__: None)
    taken: list[bool] = []
    for number in range(10):
        intake.put("greedy", many(number, 100_000), taken.append)
    assert (intake.waiting, taken) == (3, [False] * 7)
    assert intake.put_off == 7
    intake.put("modest", flows(1), taken.append)
    assert intake.waiting == 4


async def test_one_agent_fills_an_eighth_of_the_room_at_most() -> None:
    intake = Intake(Counting(), lambda *_, **__: None)
    taken: list[bool] = []
    for number in range(4):
        intake.put("greedy", structs.replace(flows(number), source=bytes(15 << 20)), taken.append)
    assert (intake.waiting, taken) == (2, [False, False])
    assert intake.held > 30 << 20, "what is kept is counted, whatever it says of itself"


async def test_names_that_begin_alike_do_not_take_each_other_s_batches() -> None:
    store = Counting()
    long = "w" * 100
    async with turning(store) as (intake, _):
        for name in (f"{long}-1", f"{long}-2", f"{long}-1"):
            assert await intake.store(name, flows(1))
    assert store.count() == 2
