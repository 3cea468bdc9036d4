"""An order that is given at one of several controllers is in force at the agents of all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio
from tests.fleet.controller_world import Agent, until
from tests.fleet.test_controllers import OPEN, Cluster, comes
from tests.postgresql import Server


@pytest_asyncio.fixture
async def cluster(server: Server, tmp_path: Path) -> AsyncGenerator[Cluster]:
    async with AsyncExitStack() as stack:
        yield Cluster(server.make(), tmp_path, stack)


async def obey(agent: Agent) -> None:
    while True:
        await agent.enforce()


async def test_an_order_reaches_the_agents_of_every_controller(cluster: Cluster) -> None:
    one, two = await cluster.start("one"), await cluster.start("two")
    web = await one.agent("web", "10.0.0.1", {"app": "web"}, 2)
    db = await two.agent("db", "10.0.0.2", {}, 2)
    number = await one.apply(OPEN, confirm_s=0)
    for agent in (web, db):
        await comes(agent, number)
    obeying = [asyncio.create_task(obey(agent)) for agent in (web, db)]
    answer = await one.ask("POST", "/orders", {"kind": "contain", "ports": "tcp/445", "wait_s": 10})
    assert answer["in_force"]["everywhere"] and answer["in_force"]["having"] == 2
    name = answer["order"]["id"]
    assert all(agent.ruleset is not None and agent.ruleset.orders for agent in (web, db))

    async def seen() -> bool:
        return [item["id"] for item in (await two.ask("GET", "/orders"))["items"]] == [name]

    await until(seen)
    # And it is lifted at the other one.
    gone = (await two.ask("DELETE", f"/orders/{name}", wait_s=10))["gone"]
    assert gone["everywhere"] and gone["having"] == 2
    assert all(agent.ruleset is not None and not agent.ruleset.orders for agent in (web, db))
    for task in obeying:
        task.cancel()
