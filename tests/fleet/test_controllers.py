"""Several controllers on one PostgreSQL are one controller: to people, to agents, and when one of them goes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from tests.fleet.controller_world import Agent, World, enrol, running, until
from tests.postgresql import Server

from cellwall.controller.cluster.loop import Cluster as Loop
from cellwall.controller.cluster.peers import Peers
from cellwall.controller.errors import ControllerError, StateError
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.traffic import parse_address
from cellwall.wire import Answer, Ask, Confirmed, Facts, PointState, ShowTable, TableText, Taken, pack_flows

OPEN = """
rules:
  - {id: web, allow: tcp/80, from: any, to: app=web, reason: it is the web}
modes:
  - {where: any, mode: enforce}
"""
CLOSED = OPEN.replace("tcp/80", "tcp/443")


class Cluster:
    """Controllers on one database, with the same keys."""

    def __init__(self, url: str, folder: Path, stack: AsyncExitStack) -> None:
        self.url, self.folder, self._stack = url, folder, stack
        self.worlds: dict[str, World] = {}
        self._each: dict[str, AsyncExitStack] = {}

    async def start(self, name: str, **options: Any) -> World:
        """Start one; the first one's keys are copied to it."""
        folder = self.folder / name
        keys = next((world.folder / "data" / "keys" for world in self.worlds.values()), None)
        if keys is not None and not (folder / "data" / "keys").exists():
            shutil.copytree(keys, folder / "data" / "keys")
        folder.mkdir(exist_ok=True)
        stack = self._each[name] = await self._stack.enter_async_context(AsyncExitStack())
        self.worlds[name] = await stack.enter_async_context(running(folder, name=name, database=self.url, **options))
        return self.worlds[name]

    async def stop(self, name: str) -> None:
        """Stop one in good order."""
        await self._each.pop(name).aclose()


@pytest_asyncio.fixture
async def cluster(server: Server, tmp_path: Path) -> AsyncGenerator[Cluster]:
    async with AsyncExitStack() as stack:
        yield Cluster(server.make(), tmp_path, stack)


def peers(world: World) -> Peers:
    return world.controller.control.peers


async def comes(agent: Agent, revision: int) -> None:
    """Let an agent hold what comes, until it is of a revision."""
    while agent.revision != revision:
        await agent.enforce()


async def states(world: World) -> dict[str, str]:
    return {name: row["state"] for name, row in (await world.rollout()).items()}


def at(agent: Agent, world: World) -> Agent:
    """Let an agent connect to another controller from now on."""
    agent.world = world
    return agent


async def test_what_is_done_at_one_is_so_at_all(cluster: Cluster) -> None:
    one, two = await cluster.start("one"), await cluster.start("two")
    token = await one.token("web-1", labels={"app": "web"})
    web = await enrol(two, token, "web-1")
    await web.connect()
    await web.say(Facts(addresses=(b"\x0a\x00\x00\x01",), hostname="web-1"))
    db = await one.agent("db-1", "10.0.0.2")

    async def known() -> bool:
        return all([len((await world.ask("GET", "/workloads"))["items"]) == 2 for world in (one, two)])

    await until(known)
    number = await one.apply(OPEN)
    for agent in (web, db):
        await comes(agent, number)

    async def everywhere() -> bool:
        return [await states(one), await states(two)] == [{"web-1": "enforced", "db-1": "enforced"}] * 2

    await until(everywhere)
    # A label that is set at one reaches the agent of the other.
    await one.ask("PUT", "/labels/db-1", {"labels": {"app": "web"}})
    await web.enforce_what_comes()
    await db.enforce()

    async def heard() -> bool:
        return (await two.ask("GET", "/workloads/db-1"))["labels"] == {"app": "web"}

    await until(heard)
    status = await two.ask("GET", "/status")
    assert status["audit_broken_at"] is None
    assert status["agents"]["connected"] == 2


async def test_an_agent_of_another_controller_answers_too(cluster: Cluster) -> None:
    one, two = await cluster.start("one"), await cluster.start("two")
    web = await one.agent("web-1", "10.0.0.1", {"app": "web"})

    async def there() -> bool:
        return peers(two).elsewhere == {"web-1": "one"}

    await until(there)
    asking = asyncio.create_task(two.controller.channel.ask("web-1", ShowTable()))
    asked = await web.hear_a(Ask)
    await web.say(Answer(id=asked.id, answer=TableText(text="table inet cellwall")))
    assert await asking == TableText(text="table inet cellwall")


async def test_the_newest_connection_counts_and_no_number_is_used_twice(cluster: Cluster) -> None:
    one, two = await cluster.start("one"), await cluster.start("two")
    web = await one.agent("web-1", "10.0.0.1", {"app": "web"})
    await comes(web, await one.apply(OPEN))
    first = web.highest
    old = web.connection
    assert old is not None
    await at(web, two).connect()
    await asyncio.wait_for(old.wait_closed(), 5)
    await comes(web, await one.apply(CLOSED))
    assert web.highest > first

    async def enforced() -> bool:
        return await states(one) == await states(two) == {"web-1": "enforced"}

    await until(enforced)


async def test_a_change_on_trial_is_confirmed_by_the_controller_that_the_agent_has_come_to(cluster: Cluster) -> None:
    one, two = await cluster.start("one"), await cluster.start("two")
    web = await one.agent("web-1", "10.0.0.1", {"app": "web"})
    await web.enforce_what_comes()
    await one.apply(OPEN, confirm_s=30)
    while web.revision != 1:
        web.take(await web.hear_policy())
        if web.revision != 1:
            await web.report(PointState.ENFORCED)
    await at(web, two).connect()
    await web.report(PointState.PROVISIONAL)
    await web.hear_a(Confirmed)


async def test_an_agent_that_another_let_in_a_moment_ago_is_welcome(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await cluster.start("one"), await cluster.start("two")

    async def never(_loop: Loop, _changed: object) -> None:
        await asyncio.Event().wait()

    # What others change reaches the third late: not before this test is over.
    monkeypatch.setattr(Loop, "turn", never)
    three = await cluster.start("three")
    web = await enrol(one, await one.token("web-1"), "web-1")
    await until(lambda: knows(two, "web-1"))
    assert not await knows(three, "web-1")
    await at(web, three).connect()
    # Nor is a person told that it is not there.
    db = await enrol(two, await two.token("db-1"), "db-1")
    await three.ask("PUT", "/labels/db-1", {"labels": {"app": "web"}})
    await at(db, three).connect()


async def knows(world: World, name: str) -> bool:
    return name in {one["name"] for one in (await world.ask("GET", "/workloads"))["items"]}


async def test_when_the_leader_goes_another_one_leads(cluster: Cluster) -> None:
    one, two = await cluster.start("one"), await cluster.start("two")
    assert (peers(one).leads, peers(two).leads) == (True, False)
    await cluster.stop("one")

    async def leads() -> bool:
        return peers(two).leads

    await until(leads)


async def test_a_revision_that_fails_at_the_agent_of_another_is_taken_back_by_the_leader(cluster: Cluster) -> None:
    one, two = await cluster.start("one"), await cluster.start("two")
    web = await two.agent("web-1", "10.0.0.1", {"app": "web"})
    await comes(web, await two.apply(OPEN))

    async def good() -> bool:
        return (await two.ask("GET", "/status"))["revision_state"] == "good"

    await until(good)
    await two.apply(CLOSED)
    web.take(await web.hear_policy())
    await web.report(PointState.REVERTED, "no canary answers")
    await comes(web, 3)
    assert peers(one).leads
    assert (await one.ask("GET", "/policy"))["documents"] == {"policy.yaml": OPEN}


async def test_who_has_other_keys_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.start("one")
    with pytest.raises(ControllerError, match="there are no keys here; copy"):
        async with running(tmp_path / "three", name="three", database=cluster.url):
            pass
    assert not (tmp_path / "three" / "data" / "keys" / "ca.key").exists()


async def test_a_name_is_one_controllers_alone(cluster: Cluster, tmp_path: Path) -> None:
    one = await cluster.start("one")
    shutil.copytree(one.folder / "data" / "keys", tmp_path / "four" / "data" / "keys")
    with pytest.raises(ControllerError, match="a controller named `one` is there already"):
        async with running(tmp_path / "four", name="one", database=cluster.url):
            pass


async def test_agents_stay_and_hear_again_when_the_database_was_gone(server: Server, cluster: Cluster) -> None:
    one = await cluster.start("one")
    web = await one.agent("web-1", "10.0.0.1", {"app": "web"})
    await comes(web, await one.apply(OPEN))
    server.stop()
    await one.ask("PUT", "/labels/web-1", {"labels": {"x": "y"}}, status=503)
    await web.say(Facts(addresses=(b"\x0a\x00\x00\x09",), hostname="later"))
    await web.report(PointState.ENFORCED)
    began = asyncio.get_running_loop().time()
    for _ in range(20):
        await one.ask("POST", "/tokens", {"workload": "x"}, status=503)
    assert asyncio.get_running_loop().time() - began < 2
    await asyncio.sleep(1)
    server.start()

    async def heard() -> bool:
        answer = await one.people.get("/workloads/web-1")
        return answer.status_code == 200 and answer.json()["addresses"] == ["10.0.0.9"]

    await until(heard)

    async def applied() -> int:
        documents = {"documents": {"policy.yaml": CLOSED}}
        answer = await one.people.post("/policy/apply", json=documents)
        return int(answer.json()["revision"]) if answer.status_code == 200 else 0

    number = await until(applied)
    await comes(web, number)

    async def enforced() -> bool:
        return (await states(one)) == {"web-1": "enforced"}

    await until(enforced)
    assert web.connection is not None
    assert not [event for event, _ in one.said if event in ("agent left", "agent rejected")]


@pytest.mark.soak
async def test_a_database_that_hangs_holds_up_nobody_for_long(server: Server, cluster: Cluster) -> None:
    one = await cluster.start("one")
    web = await one.agent("web-1", "10.0.0.1", {"app": "web"})
    server.pause()
    try:
        loop = asyncio.get_running_loop()
        slowest = 0.0
        for _ in range(30):
            began = loop.time()
            await asyncio.sleep(0.2)
            slowest = max(slowest, loop.time() - began - 0.2)
        answer = await one.people.post("/tokens", json={"workload": "x"})
        assert answer.status_code == 503
        assert slowest < 6
    finally:
        server.resume()

    async def made() -> bool:
        return (await one.people.post("/tokens", json={"workload": "x"})).status_code < 300

    await until(made)
    await comes(web, await one.apply(OPEN))


async def test_a_database_that_went_back_takes_nothing_back_from_agents(server: Server, cluster: Cluster) -> None:
    one = await cluster.start("one")
    web = await one.agent("web-1", "10.0.0.1", {"app": "web"})
    await comes(web, await one.apply(OPEN))

    async def good() -> bool:
        return (await one.ask("GET", "/status"))["revision_state"] == "good"

    await until(good)
    place = one.controller.control.store.database
    with place.transaction():
        (last,) = place.rows(text("select max(place) from changes"))[0]
    await comes(web, await one.apply(CLOSED))
    await until(good)
    # What a replica lacks that had not heard the last of it, and now is the database.
    with place.transaction():
        for statement in ("delete from courses where revision = 2", f"delete from changes where place > {last}"):
            place.run(text(statement))
    server.stop()
    await asyncio.sleep(1)
    server.start()

    async def held() -> bool:
        answer = await one.people.get("/status")
        return answer.status_code == 200 and bool(answer.json()["held"])

    await until(held, "that it is noticed", 20)
    why = (await one.ask("GET", "/status"))["held"]["why"]
    assert why == "the database went back to revision 1, and 2 was in force"
    assert await web.hears_nothing(1.0)
    assert one.controller.control.revision.number == 2
    answer = await one.ask("POST", "/accept-restore", {"documents": {"policy.yaml": CLOSED}})
    assert answer["revision"] == 3
    await web.enforce_what_comes()
    assert web.ruleset is not None
    assert [rule.services for rule in web.ruleset.rules] == ["tcp/443"]


async def test_an_agent_hears_of_a_controller_that_joins_while_it_is_connected(cluster: Cluster) -> None:
    one = await cluster.start("one")
    web = await one.agent("web-1", "10.0.0.1")
    key = FlowKey(parse_address("10.0.0.1"), parse_address("10.0.0.2"), 6, 80)
    seen = [FlowRecord(key, "", Side.EGRESS, Outcome.ALLOWED, Outcome.ALLOWED, (), 1, 1, 1.0, 2.0)]

    async def send(batch: str) -> tuple[str, ...]:
        await web.say(pack_flows(seen, batch=batch, start=1.0, end=2.0))
        return (await web.hear_a(Taken)).controllers

    assert await send("b-1") == ()
    await cluster.start("two", advertise=("https://127.0.0.2:7443",))

    async def met() -> bool:
        return len(peers(one).urls) == 2

    await until(met)
    assert set(await send("b-2")) == {"https://127.0.0.1:7443", "https://127.0.0.2:7443"}
    assert await send("b-3") == (), "once is enough"


async def test_a_session_that_the_database_ends_in_a_write_is_replaced_soon(cluster: Cluster, server: Server) -> None:
    one = await cluster.start("one")
    database = one.controller.control.store.database
    session = text("select pg_backend_pid()")
    # What its own first writes told has been heard: from here on nothing wakes it.
    await asyncio.sleep(1.5)

    def ended_within() -> None:
        with database.transaction():
            other = server.connect("postgres")
            other.cursor().execute("select pg_terminate_backend(%s)", (database.rows(session)[0][0],))
            other.close()
            database.rows(session)

    with pytest.raises(StateError):
        ended_within()
    # The link's own session goes on, and tells nothing.
    assert database.trouble

    async def back() -> bool:
        return not database.trouble

    await until(back)
    assert await one.apply(OPEN) == 1
