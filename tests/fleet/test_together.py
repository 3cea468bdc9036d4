"""What was seen is one whole, however many controllers agents have told it to; and who cannot be asked is named."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.fleet.controller_world import World, until
from tests.fleet.test_controllers import Cluster
from tests.ports import free_port
from tests.postgresql import Server

from cellwall.controller.api import neighbours
from cellwall.controller.api.neighbours import CONTROLLER, NAME, PATH
from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side

NAMES = ("one", "two", "three")
OPEN = """
rules:
  - {id: web, allow: tcp/80, from: any, to: app=web, reason: it is the web}
modes:
  - {where: any, mode: enforce}
"""


@pytest_asyncio.fixture
async def three(server: Server, tmp_path: Path) -> AsyncGenerator[Cluster]:
    async with AsyncExitStack() as stack:
        made = Cluster(server.make(), tmp_path, stack)
        for name in NAMES:
            await start(made, name)
        await until(lambda: all_met(made))
        yield made


async def start(cluster: Cluster, name: str) -> World:
    port = free_port()
    at = f"127.0.0.1:{port}"
    return await cluster.start(name, listen=at, advertise=(f"https://{at}",))


async def all_met(cluster: Cluster) -> bool:
    return all(len(world.controller.control.peers.others) == len(NAMES) - 1 for world in cluster.worlds.values())


def seen(
    world: World, number: int, *, ingress: bool = False, outcome: Outcome = Outcome.ALLOWED, ago: float = 1
) -> None:
    """Let a controller have been told of connections from 10.0.0.1 to a port of 10.0.0.2, by one end."""
    now = time.time() - ago
    key = FlowKey(ip_address("10.0.0.1"), ip_address("10.0.0.2"), 6, number)
    side, reporter = (Side.INGRESS, "db-1") if ingress else (Side.EGRESS, "web-1")
    record = FlowRecord(key, reporter, side, outcome, outcome, (), 0, 5, now - 1, now, 10, 100, Process("curl"))
    world.controller.flows.insert([record], f"{reporter}/{number}/{ingress}/{ago}")


async def flows(world: World, **query: Any) -> dict[int, dict[str, Any]]:
    return {one["port"]: one for one in (await world.ask("GET", "/flows", query=query))["items"]}


async def test_each_controller_shows_the_flows_of_all(three: Cluster) -> None:
    for number, world in enumerate(three.worlds.values()):
        seen(world, 8000 + number, ago=10 * (number + 1))
    for world in three.worlds.values():
        answer = await world.ask("GET", "/flows")
        assert [one["port"] for one in answer["items"]] == [8000, 8001, 8002]
        assert "missing_controllers" not in answer
    # Pages are cut after they are put together.
    first = await three.worlds["two"].ask("GET", "/flows", query={"limit": 2})
    rest = await three.worlds["one"].ask("GET", "/flows", query={"limit": 2, "cursor": first["next"]})
    assert [one["port"] for page in (first, rest) for one in page["items"]] == [8000, 8001, 8002]


async def test_two_ends_that_told_two_controllers_are_one_flow(three: Cluster) -> None:
    one, two, last = three.worlds.values()
    seen(one, 5432)
    seen(two, 5432, ingress=True, outcome=Outcome.DENIED)
    seen(one, 80)
    found = await flows(last)
    assert found[5432]["outcome"] == "denied" and found[5432]["connections"] == 5
    assert {end for end in ("egress", "ingress") if found[5432][end]} == {"egress", "ingress"}
    assert set(await flows(last, outcome="denied")) == {5432}
    assert set(await flows(last, outcome="allowed")) == {80}
    ticks = (await last.ask("GET", "/series"))["items"]
    assert (sum(one["allowed"] for one in ticks), sum(one["denied"] for one in ticks)) == (5, 5)


async def test_a_replay_and_proposals_look_at_the_flows_of_all(three: Cluster) -> None:
    one, two, last = three.worlds.values()
    await one.agent("web-1", "10.0.0.1", {"app": "front"})
    await two.agent("db-1", "10.0.0.2", {"app": "web"})
    await until(lambda: knows_where(last, "db-1", "web-1"))
    seen(one, 80)
    seen(two, 80, ingress=True)
    seen(two, 443, ingress=True)
    replay = await last.ask("POST", "/replay", {"documents": {"policy.yaml": OPEN}})
    assert (replay["checked"], replay["connections"]) == (2, 10)
    assert [cut["port"] for cut in replay["cut"]] == [443], replay
    suggested = await last.ask("POST", "/policy/suggest", {})
    assert "443" in json.dumps(suggested) and "missing_controllers" not in suggested
    drawn = await last.ask("GET", "/map", query={"group": "app"})
    assert len(drawn["edges"]) == 2, drawn


async def test_who_is_gone_is_named_until_it_is_forgotten(three: Cluster, monkeypatch: Any) -> None:
    one, two, last = three.worlds.values()
    for number, world in enumerate((one, two, last)):
        seen(world, 8000 + number)
    await three.stop("three")
    answer = await one.ask("GET", "/flows")
    assert sorted(found["port"] for found in answer["items"]) == [8000, 8001]
    assert [each["name"] for each in answer["missing_controllers"]] == ["three"]
    assert "cannot be reached" in answer["missing_controllers"][0]["why"]
    # After a while it is known to be gone, and is not asked any more; of what came after it, nothing is missing.
    monkeypatch.setattr("cellwall.controller.cluster.peers.GONE_S", 3.0)
    await until(lambda: gone(one, "three"))
    answer = await one.people.get("/map")
    assert answer.headers["cellwall-missing-controllers"] == "three"
    assert answer.json()["missing_controllers"][0]["why"].startswith("gone since 20")
    monkeypatch.setattr(neighbours, "SLACK_S", 0.0)
    assert "missing_controllers" not in await one.ask("GET", "/flows", query={"since": "0s"})
    # Who is forgotten is not missed.
    await one.ask("DELETE", "/controllers/three")
    assert "missing_controllers" not in await one.ask("GET", "/flows")


async def knows_where(world: World, *names: str) -> bool:
    """Whether a controller has heard of agents, and where they are."""
    return {one["name"] for one in (await world.ask("GET", "/workloads"))["items"] if one["addresses"]} == {*names}


async def gone(world: World, name: str) -> bool:
    return name in world.controller.control.peers.gone


async def test_who_does_not_answer_in_time_is_named(three: Cluster, monkeypatch: Any) -> None:
    one, _, last = three.worlds.values()
    monkeypatch.setattr(neighbours, "ANSWER_S", 0.5)
    seen(one, 80)
    last.controller.flows.forward = lambda _request: time.sleep(4) or b""  # type: ignore[method-assign]
    began = time.monotonic()
    answer = await one.ask("GET", "/flows")
    assert time.monotonic() - began < 3.5
    assert [each["name"] for each in answer["missing_controllers"]] == ["three"]
    assert [found["port"] for found in answer["items"]] == [80]


async def test_only_a_controller_may_ask_and_only_what_reads(three: Cluster) -> None:
    one, two, _ = three.worlds.values()
    agent = await one.agent("web-1", "10.0.0.1")
    here = ssl.create_default_context(cadata=one.controller.control.authority.pem)
    assert "only a controller" in await asked(two, here, "two")
    authority = one.controller.control.authority
    for uri, wanted, said in (
        (CONTROLLER + "nobody", "two", "only a controller"),
        (CONTROLLER + "one", "three", "leads to controller `two`"),
        ("spiffe://cellwall/workload/web-1", "two", "only a controller"),
    ):
        context = ssl.create_default_context(cadata=authority.pem)
        neighbours.show_as(context, authority.issue_controller(uri, 1, time.time()))
        assert said in await asked(two, context, wanted)
    abroad = one.controller.control.peers.others
    there = neighbours.Abroad(next(peer for peer in abroad if peer.name == "two"), lambda: context_of(one))
    with pytest.raises(neighbours.FlowStoreError, match="there is no question `prune`"):
        await asyncio.to_thread(there._ask, "prune", 0)  # pyright: ignore[reportPrivateUsage]
    assert await asyncio.to_thread(there.tuples, 0.0) == ()
    there.close()
    await agent.close()


def context_of(world: World) -> ssl.SSLContext:
    authority = world.controller.control.authority
    context = ssl.create_default_context(cadata=authority.pem)
    neighbours.show_as(context, authority.issue_controller(CONTROLLER + "one", 1, time.time()))
    return context


async def asked(world: World, context: ssl.SSLContext, name: str) -> str:
    """Ask on the agents' port, and give the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.controller.port, ssl=context)
    words = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: cellwall\r\n{NAME}: {name}\r\n\r\n"
    writer.write(words.encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    with suppress(OSError):
        writer.close()
    return answer.decode()
