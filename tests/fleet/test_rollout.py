"""Rollouts, over the real protocol: waves, health, halts, reverts, and the second person's consent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.controller_world import Agent, World, running, until

from cellwall.controller.errors import Denied
from cellwall.controller.waves import opened
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.labels import Labels
from cellwall.policy import parse_waves
from cellwall.wire import PointState, Taken, pack_flows

FIRST = 'modes: [{where: "", mode: enforce}]\nrules: [{id: all, allow: any, from: env, to: env}]\n'
TIGHT = 'modes: [{where: "", mode: enforce}]\nrules: [{id: some, allow: tcp/80, from: env, to: env}]\n'
WAVES = "rollout: {waves: [canary, env=staging], settle_s: SETTLE}\n"
LABELS = {"prod-1": "prod", "prod-2": "prod", "prod-3": "prod", "stage-1": "staging", "stage-2": "staging"}
ORDER = sorted(LABELS)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as world:
        yield world


async def fleet(world: World) -> dict[str, Agent]:
    """Five agents that hold the first policy."""
    agents = {name: await world.agent(name, f"10.0.0.{at}", {"env": LABELS[name]}) for at, name in enumerate(ORDER, 1)}
    await world.apply(FIRST)
    await until(lambda: caught_up(world, agents, 1))
    return agents


async def caught_up(world: World, agents: dict[str, Agent], revision: int) -> bool:
    for agent in agents.values():
        await agent.enforce_what_comes()
    state = await world.ask("GET", "/policy/rollout")
    return (state["revision"], state["state"]) == (revision, "good") and not state["compiling"]


def canary() -> str:
    points = {name: Labels({"env": env}) for name, env in LABELS.items()}
    (name,) = opened(parse_waves(["canary"]), 0, points)
    return name


def having(agents: dict[str, Agent], revision: int) -> set[str]:
    return {name for name, agent in agents.items() if agent.revision == revision}


async def state(world: World) -> dict[str, Any]:
    return await world.ask("GET", "/policy/rollout")


async def listen(agents: dict[str, Agent], for_s: float = 0.5) -> None:
    """Let all agents enforce what comes, for a while."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        for agent in agents.values():
            await agent.enforce_what_comes()


async def wave(world: World, agents: dict[str, Agent], number: int) -> dict[str, Any]:
    """Wait until a wave is open and all its points have it."""

    async def there() -> dict[str, Any] | None:
        await listen(agents, 0.1)
        now = await state(world)
        opened_ones = [one for one in now["waves"] if one["open"]]
        full = all(one["have_it"] == one["points"] for one in opened_ones)
        return now if now["wave"] == number and full else None

    return await until(there, f"wave {number}")


async def test_a_revision_goes_wave_by_wave_and_the_others_hold_the_one_before(world: World) -> None:
    agents = await fleet(world)
    revision = await world.apply(TIGHT + WAVES.replace("SETTLE", "1"))
    first = await wave(world, agents, 0)
    assert [one["wave"] for one in first["waves"]] == ["canary", "env=staging", "all"]
    assert (first["state"], first["base"], having(agents, revision)) == ("rolling", 1, {canary()})
    second = await wave(world, agents, 1)
    assert second["state"] == "rolling"
    assert having(agents, revision) == {canary(), "stage-1", "stage-2"}
    await until(lambda: caught_up(world, agents, revision))
    assert having(agents, revision) == set(LABELS)


async def test_who_joins_during_a_rollout_gets_what_its_wave_has(world: World) -> None:
    agents = await fleet(world)
    revision = await world.apply(TIGHT + WAVES.replace("SETTLE", "60"))
    await wave(world, agents, 0)
    agents["prod-9"] = await world.agent("prod-9", "10.0.0.9", {"env": "prod"})

    async def joined() -> bool:
        await listen(agents, 0.1)
        return agents["prod-9"].revision > 0

    await until(joined)
    await listen(agents)
    # The newcomer may be the one that the canary's share takes; who was it stays it.
    assert canary() in having(agents, revision) <= {canary(), "prod-9"}
    olds = [agents[name] for name in LABELS if name != canary()]
    newcomer = ip_address("10.0.0.9").packed
    assert all(newcomer in agent.members and agent.revision == 1 for agent in olds)


async def test_a_canary_that_takes_it_back_takes_it_back_everywhere(world: World) -> None:
    agents = await fleet(world)
    revision = await world.apply(TIGHT + WAVES.replace("SETTLE", "60"), confirm_s=30)
    agents_canary = agents[canary()]
    before = agents_canary.ruleset, dict(agents_canary.members), agents_canary.generation, agents_canary.revision
    message = await agents_canary.hear_policy()
    agents_canary.take(message)
    agents_canary.ruleset, agents_canary.members, agents_canary.generation, agents_canary.revision = before
    await agents_canary.report(PointState.REVERTED, "no canary answers: `db`")
    await until(lambda: caught_up(world, agents, revision + 1))
    shown = await world.ask("GET", f"/policy/revisions/{revision}")
    assert (shown["state"], "no canary answers" in shown["reason"]) == ("failed", True)
    assert having(agents, revision) == set()
    assert (await world.ask("GET", "/policy"))["documents"] == {"policy.yaml": FIRST}


async def test_a_wave_that_a_point_refuses_halts_and_a_person_says_what_next(world: World) -> None:
    agents = await fleet(world)
    revision = await world.apply(TIGHT + WAVES.replace("SETTLE", "0"))
    agents_canary = agents[canary()]
    message = await agents_canary.hear_policy()
    agents_canary.highest = message.generation
    await agents_canary.report(PointState.REFUSED, "the kernel says no")

    async def halted() -> bool:
        return (await state(world))["state"] == "halted"

    await until(halted)
    await listen(agents)
    assert having(agents, revision) == set()
    reverted = await world.ask("POST", "/policy/revert", {})
    await until(lambda: caught_up(world, agents, reverted["revision"]))


async def test_what_is_halted_can_be_resumed_and_what_is_not_cannot(world: World) -> None:
    agents = await fleet(world)
    await world.ask("POST", "/policy/rollout/halt", {"note": "x"}, status=409)
    revision = await world.apply(TIGHT + WAVES.replace("SETTLE", "1"))
    await wave(world, agents, 0)
    halted = await world.ask("POST", "/policy/rollout/halt", {"note": "lunch"})
    assert (halted["state"], halted["reason"]) == ("halted", "lunch")
    await listen(agents, 1.5)
    assert having(agents, revision) == {canary()}
    await world.ask("POST", "/policy/rollout/resume", {"note": "back"})
    # Three waves, each looked at for a second and then at the next look, which there is every other second.
    await until(lambda: caught_up(world, agents, revision), within_s=30)
    await world.ask("POST", "/policy/rollout/resume", {}, status=409)


def denied(source: str, target: str, port: int, revision: int) -> FlowRecord:
    now = time.time()
    key = FlowKey(ip_address(source), ip_address(target), 6, port)
    return FlowRecord(
        key=key,
        side=Side.INGRESS,
        reporter=canary(),
        outcome=Outcome.DENIED,
        would=Outcome.DENIED,
        rules=(),
        revision=revision,
        connections=1,
        packets=1,
        bytes=60,
        first_seen=now,
        last_seen=now,
    )


async def test_denials_that_nobody_foresaw_take_a_revision_back(world: World) -> None:
    agents = await fleet(world)
    revision = await world.apply(TIGHT + WAVES.replace("SETTLE", "30"))
    await wave(world, agents, 0)
    at = f"10.0.0.{ORDER.index(canary()) + 1}"
    other = f"10.0.0.{ORDER.index('stage-1' if canary() != 'stage-1' else 'stage-2') + 1}"
    record = denied(other, at, 5432, revision)
    agent = agents[canary()]
    await agent.say(pack_flows([record], batch="b/1", start=1.0, end=2.0))
    await agent.hear_a(Taken)
    await until(lambda: caught_up(world, agents, revision + 1), within_s=30)
    shown = await world.ask("GET", f"/policy/revisions/{revision}")
    assert shown["state"] == "failed" and "1 flows are denied that nobody foresaw" in shown["reason"]
    assert "tcp/5432" in shown["reason"]


async def test_an_applications_own_check_holds_up_a_wave_and_fails_it(world: World) -> None:
    agents = await fleet(world)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    checked = TIGHT + f"rollout: {{waves: [canary], checks: [{{id: shop, tcp: '127.0.0.1:{port}'}}]}}\n"
    good = await world.apply(checked)
    await until(lambda: caught_up(world, agents, good), within_s=30)
    server.close()
    await server.wait_closed()
    bad = await world.apply(checked.replace("tcp/80", "tcp/81"))

    async def failed() -> bool:
        await listen(agents, 0.1)
        return (await world.ask("GET", f"/policy/revisions/{bad}"))["state"] == "failed"

    await until(failed, "the check's failure", 30)
    assert "the check `shop` fails" in (await world.ask("GET", f"/policy/revisions/{bad}"))["reason"]
    await until(lambda: caught_up(world, agents, bad + 1), within_s=30)


async def test_a_controller_that_comes_back_goes_on_where_the_rollout_was(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        agents = await fleet(world)
        revision = await world.apply(TIGHT + WAVES.replace("SETTLE", "2"))
        await wave(world, agents, 0)
        for agent in agents.values():
            await agent.close()
    async with running(tmp_path) as world:
        for agent in agents.values():
            agent.world = world
            await agent.connect()
        now = await state(world)
        assert (now["revision"], now["state"], now["base"]) == (revision, "rolling", 1)
        await listen(agents)
        assert canary() in having(agents, revision) < set(LABELS)
        await until(lambda: caught_up(world, agents, revision))


GUARDED = FIRST + "approvals: [{where: env=prod, reviewers: 1}]\n"


async def test_a_change_that_needs_consent_waits_for_a_second_person(world: World) -> None:
    agents = await fleet(world)
    await world.apply(GUARDED)
    await until(lambda: caught_up(world, agents, 2))
    change = {"documents": {"policy.yaml": TIGHT + GUARDED.split("\n", 2)[2]}}
    planned = await world.ask("POST", "/policy/apply", {**change, "dry_run": True})
    assert [one["where"] for one in planned["approvals"]] == ["env=prod"]
    answer = await world.ask("POST", "/policy/apply", change)
    assert (answer["revision"], answer["state"]) == (3, "proposed")
    assert (await world.ask("GET", "/policy"))["revision"] == 2
    (waiting,) = (await world.ask("GET", "/policy/proposals"))["items"]
    assert (waiting["revision"], waiting["reviewers_needed"], waiting["consents"]) == (3, 1, [])
    refused = await world.ask("POST", "/policy/revisions/3/approve", {}, status=403)
    assert "somebody else has to agree" in refused["detail"]
    await listen(agents)
    assert having(agents, 3) == set()


async def test_who_takes_an_approval_away_needs_it(world: World) -> None:
    agents = await fleet(world)
    await world.apply(GUARDED)
    await until(lambda: caught_up(world, agents, 2))
    answer = await world.ask("POST", "/policy/apply", {"documents": {"policy.yaml": FIRST}})
    assert answer["state"] == "proposed"
    withdrawn = await world.ask("POST", f"/policy/revisions/{answer['revision']}/reject", {"note": "typo"})
    assert withdrawn["state"] == "rejected"
    await world.ask("POST", f"/policy/revisions/{answer['revision']}/approve", {}, status=409)
    # The way back to what was in force needs nobody.
    assert (await world.ask("POST", "/policy/revert", {"to": 1}))["revision"] == 4


async def test_with_the_last_consent_it_comes_into_force_unless_another_came_before(world: World) -> None:
    agents = await fleet(world)
    both = FIRST + "approvals: [{where: env=prod, reviewers: 2}]\n"
    await world.apply(both)
    await until(lambda: caught_up(world, agents, 2))
    rollouts = world.controller.control.rollouts
    numbers = [
        (await world.ask("POST", "/policy/apply", {"documents": {"policy.yaml": text}}))["revision"]
        for text in (both.replace("any, from", "tcp, from"), both.replace("any, from", "udp, from"))
    ]
    assert rollouts.consent(numbers[0], "ann", "", time.time(), agrees=True) == 1
    assert rollouts.consent(numbers[0], "ann", "again", time.time(), agrees=True) == 1
    with pytest.raises(Denied):
        rollouts.consent(numbers[0], rollouts.find(numbers[0]).author, "", time.time(), agrees=True)
    assert rollouts.state(numbers[0]) == "proposed"
    await world.ask("POST", "/policy/revert", {"to": 1})
    problem = await world.ask("POST", f"/policy/revisions/{numbers[1]}/approve", {}, status=409)
    assert "has to be proposed again" in problem["detail"]


async def test_a_controller_is_ready_while_points_wait_for_their_wave(world: World) -> None:
    agents = await fleet(world)
    await world.apply(TIGHT + WAVES.replace("SETTLE", "60"))
    await wave(world, agents, 0)
    ready = await world.people.get("http://controller/health/ready")
    assert ready.status_code == 200, ready.text
