"""A controller that is killed, with kill -9, is missed by nobody for long: another leads, and has its agents."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio
from tests.fleet.controller_world import Agent, World, enrol, until
from tests.ports import free_port
from tests.postgresql import Server

from cellwall.controller.store.sql import open_state
from cellwall.controller.trust.ca import open_authority
from cellwall.wire import Facts, parse_token

AGENTS = 12
OPEN = """
rules:
  - {id: web, allow: tcp/80, from: any, to: app=web, reason: it is the web}
modes:
  - {where: any, mode: enforce}
"""


@dataclass
class Process:
    """A controller in a process; as far as an `Agent` is concerned, a `World`."""

    name: str
    folder: Path
    port: int
    process: subprocess.Popen[str]
    people: httpx.AsyncClient

    @property
    def controller(self) -> Process:
        return self

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.people.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def leads(self) -> bool:
        return (await self.ask("GET", "/controllers"))["items"][0]["state"] == "leads"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def started(folder: Path, database: str, **more: str) -> Generator[Process]:
    name, port = folder.name, free_port()
    told = {
        "data": str(folder / "data"),
        "listen": f"127.0.0.1:{port}",
        "advertise": [f"https://127.0.0.1:{port}"],
        "socket": str(folder / "api.sock"),
        "name": name,
        "database": database,
        **more,
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet.controller_process", json.dumps(told)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": "."},
        )
    try:
        transport = httpx.AsyncHTTPTransport(uds=str(folder / "api.sock"))
        people = httpx.AsyncClient(transport=transport, base_url="http://controller/api/v1", timeout=30)
        yield Process(name, folder, port, process, people)
    finally:
        process.kill()
        process.wait()


@pytest_asyncio.fixture
async def three(server: Server, tmp_path: Path) -> AsyncGenerator[list[Process]]:
    database, found = server.make(), list[Process]()
    open_state(None, database).close()
    with ExitStack() as stack:
        for name in ("one", "two", "three"):
            (tmp_path / name / "data").mkdir(parents=True)
            if found:
                shutil.copytree(found[0].folder / "data" / "keys", tmp_path / name / "data" / "keys")
            else:
                open_authority(tmp_path / name / "data" / "keys", time.time())
            found.append(stack.enter_context(started(tmp_path / name, database)))
        for one in found:
            assert one.process.stdout is not None
            line = await asyncio.to_thread(one.process.stdout.readline)
            assert line.strip() == str(one.port), (one.folder / "log").read_text()
        yield found
        for one in found:
            await one.people.aclose()


async def the_leader(places: list[Process]) -> Process:
    """Give the one that leads."""
    for one in places:
        if await one.leads():
            return one
    raise AssertionError("nobody leads")


async def an_agent(at: Process, number: int) -> Agent:
    token = await at.ask("POST", "/tokens", {"workload": f"web-{number}", "labels": {"app": "web"}})
    agent = await enrol(cast(World, at), parse_token(token["token"]), f"web-{number}")
    await agent.connect()
    await agent.say(Facts(addresses=(ip_address(f"10.0.0.{number + 1}").packed,), hostname=agent.name))
    return agent


class Life:
    """An agent that enforces what comes, and goes to another controller when its own is gone."""

    def __init__(self, agent: Agent, places: list[Process]) -> None:
        self.agent, self._places = agent, places
        self.lost = self.back = 0.0
        self._task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        while True:
            try:
                await self.agent.enforce()
            except TimeoutError:
                continue
            except Exception:  # whatever a killed controller looks like from here
                self.lost = self.lost or time.monotonic()
                await self._again()

    async def _again(self) -> None:
        for place in self._places:
            if place.process.poll() is None:
                self.agent.world = cast(World, place)
                try:
                    await self.agent.connect()
                except Exception:
                    continue
                self.back = time.monotonic()
                return
        await asyncio.sleep(0.1)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.agent.close()


async def apply(at: Process, text: str) -> int:
    return int((await at.ask("POST", "/policy/apply", {"documents": {"policy.yaml": text}}))["revision"])


def all_hold(lives: list[Life], revision: int) -> Callable[[], Any]:
    async def hold() -> bool:
        return all(life.agent.revision == revision for life in lives)

    return hold


async def test_the_leader_is_killed_and_another_takes_over(
    three: list[Process], record_property: Callable[[str, object], None]
) -> None:
    one = await the_leader(three)
    two, last = (place for place in three if place is not one)
    lives = [Life(await an_agent(three[number % 3], number), [two, last]) for number in range(AGENTS)]
    try:
        await until(all_hold(lives, await apply(two, OPEN)), "the first policy", 30)
        highest = {life.agent.name: life.agent.highest for life in lives}
        killed = time.monotonic()
        one.kill()

        async def led() -> bool:
            return await two.leads() or await last.leads()

        await until(led)
        took_over = time.monotonic() - killed

        async def back() -> bool:
            return len([life for life in lives if life.back]) == AGENTS // 3

        await until(back)
        agents_back = max(life.back for life in lives) - killed
        # What a person does meanwhile reaches everybody, under numbers that nobody had.
        began = time.monotonic()
        revision = await apply(last, OPEN.replace("tcp/80", "tcp/443"))
        await until(all_hold(lives, revision), "the second policy", 30)
        edit = time.monotonic() - began
        assert all(life.agent.highest > highest[life.agent.name] for life in lives)

        async def good() -> bool:
            return (await two.ask("GET", "/status"))["revision_state"] == "good"

        await until(good, "the rollout's end")
        rows = (await two.ask("GET", "/policy/rollout"))["items"]
        assert {row["state"] for row in rows} == {"enforced"} and len(rows) == AGENTS

        status = await two.ask("GET", "/status")
        assert status["agents"] == {"known": AGENTS, "connected": AGENTS}
        assert status["audit_broken_at"] is None
        print(f"takeover {took_over:.2f} s, agents back {agents_back:.2f} s, edit to all {edit:.2f} s")
        record_property("took over, seconds", round(took_over, 2))
        assert took_over < 3
    finally:
        for life in lives:
            await life.end()


@pytest.mark.soak
async def test_a_controller_that_stands_still_is_not_waited_for(three: list[Process]) -> None:
    one, two, last = three
    agent = await an_agent(two, 0)
    life = Life(agent, [two, last])
    try:
        one.process.send_signal(signal.SIGSTOP)
        # It may hold the lock that every write needs: PostgreSQL ends its session then.
        began = time.monotonic()

        async def gone() -> bool:
            states = {row["name"]: row["state"] for row in (await last.ask("GET", "/controllers"))["items"]}
            return states[one.name] == "gone"

        async def applied() -> int:
            answer = await last.people.post("/policy/apply", json={"documents": {"policy.yaml": OPEN}})
            return int(answer.json()["revision"]) if answer.status_code == 200 else 0

        revision = await until(applied, "a policy", 20)
        await until(all_hold([life], revision), "that it is held", 20)
        assert time.monotonic() - began < 15
        await until(gone, "that it is gone", 20)
    finally:
        one.process.send_signal(signal.SIGCONT)
        await life.end()

    async def agree() -> bool:
        return (await one.ask("GET", "/status"))["revision"] == revision

    await until(agree, "that it has caught up", 20)
