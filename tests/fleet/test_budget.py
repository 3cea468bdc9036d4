"""The memory of hosts, held against what a revision needs: in the plan, before each wave, and by the agent itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.controller_world import Agent, World, running, until

from cellwall.controller.waves import opened
from cellwall.enforce import weigh
from cellwall.labels import Labels
from cellwall.policy import parse_waves
from cellwall.wire import Facts, PointState

FIRST = 'modes: [{where: "", mode: enforce}]\nrules: [{id: all, allow: any, from: env, to: env}]\n'
NEXT = 'modes: [{where: "", mode: enforce}]\nrules: [{id: some, allow: tcp/80, from: env, to: env}]\n'
NAMES = ("db-1", "web-1", "web-2")
PLENTY, LITTLE = 1 << 30, 1 << 20


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as world:
        yield world


async def fleet(world: World) -> dict[str, Agent]:
    """Three agents that hold the first policy, with memory enough."""
    agents = {name: await world.agent(name, f"10.0.0.{at}", {"env": "prod"}) for at, name in enumerate(NAMES, 1)}
    for name in agents:
        await says(agents, name, PLENTY)
    await world.apply(FIRST)
    await until(lambda: comes_to(world, agents, "good"))
    return agents


async def says(agents: dict[str, Agent], name: str, memory: int) -> None:
    """Have a host say how much memory it can give, and wait until that is known."""
    agent = agents[name]
    address = ip_address(f"10.0.0.{NAMES.index(name) + 1}").packed
    await agent.say(Facts(addresses=(address,), hostname=name, memory=memory))

    async def known() -> bool:
        shown = await agent.world.ask("GET", f"/workloads/{name}")
        return shown["facts"] is not None and shown["facts"]["memory"]["free"] == memory

    await until(known)


async def comes_to(world: World, agents: dict[str, Agent], state: str) -> dict[str, Any] | None:
    for agent in agents.values():
        await agent.enforce_what_comes()
    found = await world.ask("GET", "/policy/rollout")
    return found if found["state"] == state and not found["compiling"] else None


async def test_a_host_without_the_memory_keeps_a_revision_out_until_it_has_it(world: World) -> None:
    agents = await fleet(world)
    await says(agents, "db-1", LITTLE)
    plan = await world.ask("POST", "/policy/plan", {"documents": {"p.yaml": NEXT}})
    (short,) = plan["cramped"]
    assert (short["workload"], short["room_bytes"]) == ("db-1", LITTLE)
    assert agents["db-1"].ruleset is not None
    assert "free some there, or raise its agent's `--most-memory`" in short["reason"]
    body = {"documents": {"p.yaml": NEXT}}
    for dry_run in (True, False):
        said = await world.ask("POST", "/policy/apply", {**body, "dry_run": dry_run}, status=409)
        assert "1 of 3 points would refuse it, first `db-1`: to write its table" in said["detail"]
    await says(agents, "db-1", PLENTY)
    await world.ask("POST", "/policy/apply", body)
    await until(lambda: comes_to(world, agents, "good"))
    assert agents["db-1"].ruleset is not None
    # What was planned is what the agent itself works out of what it was sent.
    weight = weigh(agents["db-1"].ruleset, len(agents["db-1"].members))
    assert (short["elements"], short["peak_bytes"], short["kernel_bytes"]) == (
        weight.elements,
        weight.peak,
        weight.held,
    )


async def test_memory_that_is_gone_meanwhile_halts_the_wave_that_would_be_refused(world: World) -> None:
    agents = await fleet(world)
    await world.ask("POST", "/policy/apply", {"documents": {"p.yaml": NEXT}, "waves": ["canary"], "settle_s": 0.5})
    (canary,) = opened(parse_waves(["canary"]), 0, {name: Labels({"env": "prod"}) for name in NAMES})
    waiting = next(name for name in NAMES if name != canary)
    await says(agents, waiting, LITTLE)
    halted = await until(lambda: comes_to(world, agents, "halted"))
    assert halted["wave"] == 0
    assert f"`{waiting}` would refuse it: to write its table" in halted["reason"]
    assert agents[waiting].revision == 1
    await says(agents, waiting, PLENTY)
    await world.ask("POST", "/policy/rollout/resume", {})
    await until(lambda: comes_to(world, agents, "good"))
    assert agents[waiting].revision == 2


async def test_a_point_that_was_accepted_to_refuse_keeps_no_other_waiting(world: World) -> None:
    agents = await fleet(world)
    cramped = "web-2"
    await says(agents, cramped, LITTLE)
    body = {"documents": {"p.yaml": NEXT}, "waves": ["env=prod", "50%"], "accept_refused": True}
    await world.ask("POST", "/policy/apply", body)
    refusing = agents.pop(cramped)
    message = await refusing.hear_policy()
    refusing.highest = message.generation
    await refusing.report(PointState.REFUSED, "to write it takes too much")
    ended = await until(lambda: comes_to(world, agents, "partial"))
    assert ended["wave"] == len(ended["waves"]) - 1
    assert f"`{cramped}` refused it" in ended["reason"]
    (said,) = [
        one for one in (await world.ask("GET", "/audit", action="propose"))["items"] if one["details"].get("accepted")
    ]
    assert said["details"]["accepted"][0].startswith("`web-2` would refuse it: to write")


async def test_memory_that_is_gone_since_a_revision_was_proposed_keeps_it_from_being_agreed_to(world: World) -> None:
    agents = await fleet(world)
    rollouts = world.controller.control.rollouts
    guarded = NEXT + "approvals: [{where: env=prod, reviewers: 1}]\n"
    plan = {"base": 1, "waves": ["all"], "approvals": [{"where": "env=prod", "reviewers": 1}], "owner": "ann"}
    number = rollouts.propose({"p.yaml": guarded}, "ann", "", time.time(), confirm_s=0.0, plan=plan).number
    await says(agents, "web-1", LITTLE)
    said = await world.ask("POST", f"/policy/revisions/{number}/approve", {}, status=409)
    assert "1 of 3 points would refuse it, first `web-1`" in said["detail"]
    assert said["detail"].endswith("that was not so when it was proposed")
    await says(agents, "web-1", PLENTY)
    assert (await world.ask("POST", f"/policy/revisions/{number}/approve", {}))["state"] == "rolling"
    await until(lambda: comes_to(world, agents, "good"))
