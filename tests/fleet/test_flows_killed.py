"""A controller that is killed with kill -9 while it takes flows: each batch counts once, however often it is sent."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest
from tests.fleet.controller_world import Agent, World
from tests.fleet.test_takeover import Process, an_agent, started
from websockets.exceptions import ConnectionClosed

from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.wire import Flows, Taken, pack_flows


def a_batch(name: str) -> Flows:
    now = time.time()
    key = FlowKey(ip_address("10.0.0.1"), ip_address("10.0.0.9"), 6, 443)
    record = FlowRecord(key, "web-0", Side.EGRESS, Outcome.ALLOWED, Outcome.ALLOWED, (), 0, 7, now - 1, now, 10, 100)
    return pack_flows([record], batch=name, start=now - 2, end=now, lost=0, dropped=0)


async def listens(one: Process) -> None:
    assert one.process.stdout is not None
    line = await asyncio.to_thread(one.process.stdout.readline)
    assert line.strip() == str(one.port), (one.folder / "log").read_text()


async def connections(at: Process) -> list[int]:
    return [one["connections"] for one in (await at.ask("GET", "/flows"))["items"]]


async def sends(agent: Agent, at: Process, *batches: Flows) -> None:
    """Connect to a controller, send and have it all taken."""
    agent.world = cast(World, at)
    await agent.connect()
    for batch in batches:
        await agent.say(batch)
        assert (await agent.hear_a(Taken)).batch == batch.batch
    await agent.close()


@pytest.mark.parametrize("moment", ["before", "after", "together"])
async def test_a_batch_under_way_when_its_controller_is_killed_counts_once(moment: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    first, later = a_batch("boot-1"), a_batch("boot-2")
    with started(tmp_path / "one", "", flows="chdb", dies=moment) as one:
        await listens(one)
        agent = await an_agent(one, 0)
        await agent.say(first)
        assert await asyncio.to_thread(one.process.wait, 20) < 0, "it is killed before it answers"
        with suppress(ConnectionClosed):
            await agent.hear_a(Taken)
            pytest.fail("it was acknowledged")
        await agent.close()
        await one.people.aclose()
    with started(tmp_path / "one", "", flows="chdb") as one:
        await listens(one)
        # What was written is there before it is sent again, and once after.
        assert await connections(one) == ([] if moment == "before" else [7])
        await sends(agent, one, first)
        assert await connections(one) == [7]
        await sends(agent, one, first, later, first)
        assert await connections(one) == [14]
        await one.people.aclose()
