"""Rollouts in a fleet where some hosts are bad, over the real protocol: who stays behind, and who never may."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.controller_world import Agent, World, running, until

from cellwall.controller.waves import places
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.labels import Labels
from cellwall.policy import parse_waves
from cellwall.wire import NEWEST, Bundle, MemberChange, PointState, pack_flows

FIRST = 'modes: [{where: "", mode: enforce}]\nrules: [{id: all, allow: any, from: env, to: env}]\n'
TIGHT = 'modes: [{where: "", mode: enforce}]\nrules: [{id: some, allow: tcp/80, from: env, to: env}]\n'
LABELS = {"a-1": "lab", "b-2": "prod", "b-3": "prod", "b-4": "prod", "b-5": "prod"}
WAVES = ["env=lab"]
Bad = dict[str, PointState]


class Clock:
    """The time of day, which can be moved on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def world(tmp_path: Path, clock: Clock) -> AsyncIterator[World]:
    async with running(tmp_path, clock=clock) as world:
        yield world


async def fleet(world: World) -> dict[str, Agent]:
    """Five agents that hold the first policy; wave one is `a-1`."""
    assert places(parse_waves(WAVES), {name: Labels({"env": env}) for name, env in LABELS.items()})["a-1"] == 0
    agents = {
        name: await world.agent(name, f"10.0.0.{at}", {"env": env}, NEWEST)
        for at, (name, env) in enumerate(LABELS.items(), 1)
    }
    await world.apply(FIRST)
    await ends(world, agents, {}, 1, "good")
    return agents


async def turn(agents: dict[str, Agent], bad: Bad, revision: int) -> None:
    """Let agents enforce what comes, but for bad ones: these say so of what is of a revision or later ones."""
    for name, agent in agents.items():
        if name not in bad:
            await agent.enforce_what_comes()
            continue
        while not await agent.hears_nothing(0.05):
            message = agent.heard.pop()
            assert isinstance(message, Bundle | MemberChange)
            if message.revision < revision:
                agent.take(message)
                await agent.report(PointState.ENFORCED)
            else:
                agent.highest = message.generation
                await agent.report(bad[name], f"`{name}` is bad")


async def ends(world: World, agents: dict[str, Agent], bad: Bad, revision: int, as_what: str) -> dict[str, Any]:
    """Wait until a revision is the one in force and is so, and what all points are to hold is compiled."""

    async def ended() -> dict[str, Any] | None:
        await turn(agents, bad, revision)
        now = await world.ask("GET", "/policy/rollout")
        busy = now["compiling"] or any(row["state"] == "pending" for row in now["items"])
        return now if (now["revision"], now["state"]) == (revision, as_what) and not busy else None

    return await until(ended, f"revision {revision} {as_what}", 20)


def holding(agents: dict[str, Agent]) -> dict[str, int]:
    return {name: agent.revision for name, agent in agents.items()}


async def test_who_refuses_stays_behind_and_goes_on_with_what_it_held(world: World) -> None:
    agents = await fleet(world)
    bad = {"b-2": PointState.REFUSED}
    revision = await world.apply(TIGHT, waves=WAVES, tolerate="25%")
    now = await ends(world, agents, bad, revision, "good")
    assert holding(agents) == {name: 1 if name in bad else revision for name in LABELS}
    assert now["reason"] == "without `b-2`, as is tolerated"
    assert now["behind"] == [{"workload": "b-2", "state": "refused", "reason": "refused it: `b-2` is bad"}]
    rows = {row["workload"]: row for row in now["items"]}
    assert (rows["b-2"]["state"], rows["b-2"]["revision_wanted"], rows["b-2"]["revision_held"]) == ("refused", 2, 1)
    assert "it stays behind, which is tolerated" in rows["b-2"]["reason"]
    told = [one for one in (await world.ask("GET", "/audit"))["items"] if one["action"] == "tolerate"]
    assert [one["details"] for one in told] == [{"behind": {"b-2": "refused it: `b-2` is bad"}}]
    assert ("point stays behind", "b-2") in [(event, more.get("workload")) for event, more in world.said]

    # Who is where, and orders, reach it all the same: under the policy that it has.
    agents["b-9"] = await world.agent("b-9", "10.0.0.9", {"env": "prod"}, NEWEST)
    await world.ask("POST", "/orders", {"kind": "contain", "ports": "tcp/445", "reason": "worm"})

    async def reached() -> bool:
        await turn(agents, bad, revision)
        there = agents["b-2"]
        assert there.ruleset is not None
        return ip_address("10.0.0.9").packed in there.members and len(there.ruleset.orders) == 1

    await until(reached, "members and orders at the point that stays behind")
    assert agents["b-2"].revision == 1
    assert (await world.ask("GET", "/policy/rollout"))["state"] == "good"


async def test_who_takes_it_back_takes_it_back_for_itself_alone(world: World) -> None:
    agents = await fleet(world)
    revision = await world.apply(TIGHT, tolerate="1")
    await ends(world, agents, {"b-3": PointState.REVERTED}, revision, "good")
    assert holding(agents) == {name: 1 if name == "b-3" else revision for name in LABELS}
    # The next revision is for all; the same documents will do.
    again = await world.apply(TIGHT)
    now = await ends(world, agents, {}, again, "good")
    assert (now["behind"], now["reason"], agents["b-3"].revision) == ([], "", again)


async def test_one_more_than_is_tolerated_takes_it_back_everywhere(world: World) -> None:
    agents = await fleet(world)
    bad = {"b-2": PointState.REFUSED, "b-3": PointState.REVERTED}
    revision = await world.apply(TIGHT, tolerate="1")

    async def failed() -> bool:
        await turn(agents, bad, revision)
        return (await world.ask("GET", f"/policy/revisions/{revision}"))["state"] == "failed"

    await until(failed, "the failure")
    await ends(world, agents, {}, revision + 1, "good")
    assert "`b-3` took it back" in (await world.ask("GET", f"/policy/revisions/{revision}"))["reason"]
    assert (await world.ask("GET", "/policy"))["documents"] == {"policy.yaml": FIRST}


async def test_a_revert_reaches_those_that_stay_behind_too(world: World) -> None:
    agents = await fleet(world)
    bad = {"b-2": PointState.REFUSED}
    revision = await world.apply(TIGHT, tolerate="1")
    await ends(world, agents, bad, revision, "good")
    back = (await world.ask("POST", "/policy/revert", {}))["revision"]
    now = await ends(world, agents, {}, back, "good")
    assert now["behind"] == [] and all(row["state"] == "enforced" for row in now["items"])
    agents["b-9"] = await world.agent("b-9", "10.0.0.9", {"env": "prod"})
    await ends(world, agents, {}, back, "good")
    assert all(ip_address("10.0.0.9").packed in agent.members for agent in agents.values())


async def test_a_canary_is_not_tolerated_unless_it_is_named_by_label(world: World) -> None:
    agents = await fleet(world)
    bad = {"a-1": PointState.REFUSED}
    revision = await world.apply(TIGHT, waves=WAVES, tolerate="5")
    now = await ends(world, agents, bad, revision, "halted")
    assert now["behind"] == [] and "`a-1` refused it" in now["reason"]
    again = await world.apply(TIGHT, waves=WAVES, tolerate="1", tolerate_also="env=lab")
    now = await ends(world, agents, bad, again, "good")
    assert [one["workload"] for one in now["behind"]] == ["a-1"]


async def test_points_that_need_consent_are_not_tolerated(world: World) -> None:
    agents = await fleet(world)
    guarded = TIGHT + "approvals: [{where: env=prod}]\n"
    revision = (await world.ask("POST", "/policy/apply", {"documents": {"a.yaml": guarded}, "tolerate": "3"}))[
        "revision"
    ]
    rollouts = world.controller.control.rollouts
    proposed = rollouts.find(revision)
    assert proposed.plan["tolerate"] == {"points": "3", "also": ""}
    control, policy = world.controller.control, world.controller.control.ground({"a.yaml": guarded}).policy
    control.release(proposed, policy, time.time(), "bob", how=policy.rollout)
    bad = {"a-1": PointState.REFUSED, "b-2": PointState.REFUSED}
    now = await ends(world, agents, bad, revision, "partial")
    assert [one["workload"] for one in now["behind"]] == ["a-1"]
    assert "`b-2` refused it" in now["reason"]


async def test_who_says_nothing_is_waited_for_until_it_is_late(world: World, clock: Clock) -> None:
    agents = await fleet(world)
    mute = agents.pop("b-4")
    revision = await world.apply(TIGHT, waves=WAVES, tolerate="1", confirm_s=10)

    async def others() -> bool:
        await turn(agents, {}, revision)
        return set(holding(agents).values()) == {revision}

    await until(others)
    assert (await world.ask("GET", "/policy/rollout"))["state"] == "rolling"
    clock.ahead_s = 45

    async def good() -> dict[str, Any] | None:
        await turn(agents, {}, revision)
        now = await world.ask("GET", "/policy/rollout")
        return now if now["state"] == "good" else None

    now = await until(good)
    # It may come yet: it is not set back.
    assert (now["behind"], now["reason"]) == ([], "without `b-4`, as is tolerated")
    await ends(world, {**agents, "b-4": mute}, {}, revision, "good")
    assert mute.revision == revision


async def test_an_agent_that_comes_and_goes_holds_up_a_wave_only_until_it_is_late(world: World, clock: Clock) -> None:
    agents = await fleet(world)
    flapping = agents.pop("b-4")
    revision = await world.apply(TIGHT, tolerate="1", confirm_s=10, settle_s=1)
    for step in range(3):
        await flapping.close()
        await flapping.connect()
        await turn(agents, {}, revision)
        assert (await world.ask("GET", "/policy/rollout"))["state"] == "rolling", step
    clock.ahead_s = 45

    async def good() -> bool:
        await flapping.close()
        await flapping.connect()
        await turn(agents, {}, revision)
        return (await world.ask("GET", "/policy/rollout"))["state"] == "good"

    await until(good, "the end", 20)


async def test_who_stays_behind_does_so_whatever_it_says_until_it_is_another_machine(world: World) -> None:
    agents = await fleet(world)
    bad = {"b-2": PointState.REFUSED}
    revision = await world.apply(TIGHT, tolerate="1")
    await ends(world, agents, bad, revision, "good")
    liar = agents["b-2"]
    # It says that it has it, that it holds nothing, and comes anew: nothing makes room for another.
    await liar.report(PointState.ENFORCED)
    await liar.close()
    liar.ruleset, liar.highest, liar.generation, liar.revision = None, 0, 0, 0
    await liar.connect()
    now = await ends(world, agents, bad, revision, "good")
    assert [one["workload"] for one in now["behind"]] == ["b-2"]
    assert liar.revision == 1
    await liar.close()
    # A new machine under that name is asked like any other.
    agents["b-2"] = await world.agent("b-2", "10.0.0.2", {"env": "prod"}, NEWEST)
    # Even where it gets, before that is noticed, what the one before it was to have.

    async def has_it() -> bool:
        await turn(agents, {}, revision)
        return agents["b-2"].revision == revision

    await until(has_it, "the revision at the new machine")
    assert (await world.ask("GET", "/policy/rollout"))["behind"] == []


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("server").make() if request.param == "postgresql" else ""


async def test_a_controller_that_comes_back_knows_who_stays_behind(tmp_path: Path, database: str) -> None:
    bad = {"b-2": PointState.REFUSED}
    async with running(tmp_path, database=database) as world:
        agents = await fleet(world)
        revision = await world.apply(TIGHT, waves=["env=lab", "50%"], tolerate="1", settle_s=0.5)

        async def behind() -> bool:
            await turn(agents, bad, revision)
            return bool((await world.ask("GET", "/policy/rollout"))["behind"])

        await until(behind, "the point to stay behind", 20)
        for agent in agents.values():
            await agent.close()
    async with running(tmp_path, database=database) as world:
        for agent in agents.values():
            agent.world = world
            await agent.connect()
        now = await world.ask("GET", "/policy/rollout")
        assert [one["workload"] for one in now["behind"]] == ["b-2"]
        await ends(world, agents, bad, revision, "good")
        assert holding(agents) == {name: 1 if name in bad else revision for name in LABELS}


async def test_a_wave_of_nobody_passes_at_once(world: World) -> None:
    agents = await fleet(world)
    revision = await world.apply(TIGHT, waves=["env=nowhere", "env=lab"], settle_s=3600)

    async def second() -> dict[str, Any] | None:
        await turn(agents, {}, revision)
        now = await world.ask("GET", "/policy/rollout")
        return now if now["wave"] == 1 and agents["a-1"].revision == revision else None

    now = await until(second, "the second wave")
    assert [(one["wave"], one["points"]) for one in now["waves"]] == [("env=nowhere", 0), ("env=lab", 1), ("all", 4)]
    assert set(holding({name: one for name, one in agents.items() if name != "a-1"}).values()) == {1}


@pytest.mark.parametrize(
    "said",
    [{"tolerate": "some"}, {"tolerate": "101%"}, {"tolerate_also": "env=lab"}, {"tolerate": "1", "tolerate_also": " "}],
)
async def test_what_is_no_tolerance_is_refused(world: World, said: dict[str, str]) -> None:
    problem = await world.ask("POST", "/policy/apply", {"documents": {"a.yaml": FIRST}, **said}, status=400)
    assert "wanted" in problem["detail"] or "say how many" in problem["detail"]
    assert (await world.ask("GET", "/policy"))["revision"] == 0


def denied(by: str, port: int, revision: int) -> FlowRecord:
    now, places_ = time.time(), {name: f"10.0.0.{at}" for at, name in enumerate(LABELS, 1)}
    key = FlowKey(ip_address("10.0.0.3"), ip_address(places_[by]), 6, port)
    return FlowRecord(
        key=key,
        side=Side.INGRESS,
        reporter=by,
        outcome=Outcome.DENIED,
        would=Outcome.DENIED,
        rules=(),
        revision=revision,
        connections=1,
        first_seen=now,
        last_seen=now,
    )


async def test_who_denies_what_nobody_foresaw_is_set_back_alone(world: World) -> None:
    agents = await fleet(world)
    revision = await world.apply(TIGHT, tolerate="1", settle_s=3600)

    async def everywhere() -> bool:
        await turn(agents, {}, revision)
        return set(holding(agents).values()) == {revision}

    await until(everywhere)
    loud = [denied("b-4", port, revision) for port in range(5000, 5050)]
    await agents["b-4"].say(pack_flows(loud, batch="b/1", start=1.0, end=2.0))

    async def set_back() -> dict[str, Any] | None:
        await turn(agents, {}, revision)
        now = await world.ask("GET", "/policy/rollout")
        return now if now["behind"] and agents["b-4"].revision == 1 else None

    now = await until(set_back, "the point to be set back", 20)
    (behind,) = now["behind"]
    assert behind["workload"] == "b-4" and "denied what nobody foresaw: `b-3` to `b-4` on tcp/5" in behind["reason"]
    # It holds the policy from before, as a new generation of it; nobody else is touched.
    assert now["state"] == "rolling"
    assert holding(agents) == {name: 1 if name == "b-4" else revision for name in LABELS}
    assert agents["b-4"].generation > 2
