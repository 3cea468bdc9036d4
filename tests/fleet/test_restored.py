"""A controller whose state is older than what agents hold sends nothing, says so, and waits for a person."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fleet.controller_world import Agent, World, running, until

from cellwall.controller.store.backup import restore_backup, take_backup

OPEN = """
rules:
  - {id: web, allow: tcp/80, from: any, to: app=web, reason: it is the web}
modes:
  - {where: any, mode: enforce}
"""
LATER = OPEN.replace("tcp/80", "tcp/443")


async def comes(agent: Agent, revision: int) -> None:
    while agent.revision != revision:
        await agent.enforce()


@asynccontextmanager
async def restored(folder: Path, *, later: bool = True) -> AsyncGenerator[tuple[World, Agent]]:
    """A controller as it was one revision ago, or one label ago, and an agent that has come further."""
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    async with running(folder / "one") as world:
        web = await world.agent("web-1", "10.0.0.1", {"app": "web"})
        await comes(web, await world.apply(OPEN))
        await until(lambda: good(world))
        take_backup(folder / "backup", folder / "one" / "data", "", "secret", "1", 9.0)
        if later:
            await comes(web, await world.apply(LATER))
        else:
            highest = web.highest
            await world.ask("POST", "/workloads", {"name": "x", "addresses": ["10.0.0.9"], "labels": {"app": "web"}})
            while web.highest == highest:
                await web.enforce()
        await until(lambda: good(world))
    restore_backup(folder / "backup", folder / "two" / "data", "", "secret")
    async with running(folder / "two") as world:
        web.world = world
        await web.connect()
        yield world, web


async def good(world: World) -> bool:
    return (await world.ask("GET", "/status"))["revision_state"] == "good"


async def test_an_older_policy_is_not_sent_over_a_newer_one(tmp_path: Path) -> None:
    async with restored(tmp_path) as (world, web):
        assert await web.hears_nothing(1.0)
        held = (await world.ask("GET", "/status"))["held"]
        assert "`web-1` holds revision 2, and 1 is the newest here" in held["why"]
        assert any(event == "nothing is sent to agents" for event, _ in world.said)
        assert "hold" in [one["action"] for one in (await world.ask("GET", "/audit"))["items"]]
        refused = await world.ask("POST", "/policy/apply", {"documents": {"p.yaml": LATER}}, status=409)
        assert "cellwall controller accept-restore" in refused["detail"]
        # A change of labels does not bring it either, nor does another connection.
        await world.ask("PUT", "/labels/web-1", {"labels": {"app": "web", "x": "y"}})
        await web.close()
        await web.connect()
        assert await web.hears_nothing(0.5)


async def test_it_is_held_after_a_restart_too(tmp_path: Path) -> None:
    async with restored(tmp_path):
        pass
    async with running(tmp_path / "two") as world:
        assert (await world.ask("GET", "/status"))["held"]["seen"] == 2


async def test_a_person_lets_it_go_and_its_number_is_new(tmp_path: Path) -> None:
    async with restored(tmp_path) as (world, web):
        assert await web.hears_nothing()
        dry = await world.ask("POST", "/accept-restore", {"dry_run": True})
        assert dry["revision"] is None
        assert await web.hears_nothing()
        answer = await world.ask("POST", "/accept-restore", {})
        assert answer["revision"] == 3
        await comes(web, 3)
        assert web.ruleset is not None
        assert [rule.services for rule in web.ruleset.rules] == ["tcp/80"]
        assert (await world.ask("GET", "/status"))["held"] is None
        await world.ask("POST", "/accept-restore", {}, status=409)
        await comes(web, await world.apply(LATER))
        assert web.revision == 4


async def test_a_person_gives_the_newer_policy_again(tmp_path: Path) -> None:
    async with restored(tmp_path) as (world, web):
        assert await web.hears_nothing()
        await world.ask("POST", "/accept-restore", {"documents": {"p.yaml": LATER}})
        await until(lambda: good(world))
        held = (await world.ask("GET", "/policy"))["documents"]
        assert held == {"p.yaml": LATER}
        await web.enforce_what_comes()
        assert web.ruleset is not None
        assert [rule.services for rule in web.ruleset.rules] == ["tcp/443"]


async def test_labels_that_the_backup_does_not_know_are_not_taken_back_either(tmp_path: Path) -> None:
    async with restored(tmp_path, later=False) as (world, web):
        assert await web.hears_nothing(1.0)
        assert "holds what was never sent from here" in (await world.ask("GET", "/status"))["held"]["why"]


async def test_a_controller_that_is_only_restarted_holds_nothing_back(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    async with running(tmp_path / "one") as world:
        web = await world.agent("web-1", "10.0.0.1", {"app": "web"})
        await comes(web, await world.apply(OPEN))
    shutil.copytree(tmp_path / "one" / "data", tmp_path / "two" / "data")
    async with running(tmp_path / "two") as world:
        web.world = world
        await web.connect()
        await comes(web, await world.apply(LATER))
        assert (await world.ask("GET", "/status"))["held"] is None
