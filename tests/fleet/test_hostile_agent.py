"""One compromised agent, with its certificate and key, at a real controller: it harms nobody but itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.fleet.controller_world import Agent, World, ask_to_enrol, enrol, make_request, running, until

from cellwall.controller.api import channel
from cellwall.controller.api.lines import Line
from cellwall.controller.api.manners import A_SECOND, BURST
from cellwall.controller.trust.testimony import BACK_S
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.traffic import Address
from cellwall.wire import (
    Enrol,
    Facts,
    Holding,
    PointState,
    Receipt,
    Rejected,
    Renew,
    Renewed,
    Taken,
    encode,
    pack_flows,
)

POLICY = """\
labels: {app: {values: [web, db]}}
rules:
  - {id: web, allow: tcp/%d, from: any, to: "app in (web, db)"}
modes: [{where: '', mode: guard}]
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    async with running(tmp_path) as made:
        yield made


async def both(world: World) -> tuple[Agent, Agent]:
    """An honest agent and one that is the attacker's, both with the first revision in force."""
    honest = await world.agent("honest", "10.9.0.1", {"app": "web"})
    mallory = await world.agent("mallory", "10.9.0.2", {"app": "db"})
    await world.apply(POLICY % 80, confirm_s=0)

    async def in_force() -> bool:
        for one in (honest, mallory):
            await one.enforce_what_comes()
        rows = await world.rollout()
        return all(row["state"] == "enforced" and row["revision_held"] == 1 for row in rows.values())

    await until(in_force)
    return honest, mallory


async def comes(agent: Agent, revision: int) -> None:
    """Enforce what comes until it is a revision."""
    while agent.revision != revision:
        await agent.enforce()


# --- what it says that it holds ---


@pytest.mark.parametrize("lie", ["revision", "generation"])
async def test_who_says_that_it_holds_what_was_never_sent_holds_up_nobody_else(world: World, lie: str) -> None:
    honest, mallory = await both(world)
    await world.agent("third", "10.9.0.3", {"app": "db"})
    await mallory.close()
    held = mallory.holding()
    if lie == "revision":
        mallory.revision = 2**31 - 1
        mallory.generation += 1
    mallory.highest = 2**53
    await mallory.connect()
    await world.apply(POLICY % 81, confirm_s=0)
    await comes(honest, 2)
    await world.ask("POST", "/orders", {"kind": "isolate", "source": ["mallory"], "for_s": 60, "reason": "it lies"})
    # To the liar nothing goes, until somebody says so: its own wall stands as it was.
    assert await mallory.hears_nothing()
    assert "nothing is sent to it" in (await world.rollout())["mallory"]["reason"]
    assert [one["subject"] for one in (await world.ask("GET", "/audit", action="hold"))["items"]] == ["mallory"]
    assert held.revision == 1 and (await world.ask("GET", "/status"))["held"] is None
    # A revision has the number that comes next, whatever it said.
    assert await world.apply(POLICY % 82, confirm_s=0) == 3
    answer = await world.ask("POST", "/accept-restore", {})
    assert answer["revision"] == 4


async def test_several_that_hold_what_was_never_sent_hold_up_everything(world: World) -> None:
    honest, mallory = await both(world)
    for one, number in ((honest, 7), (mallory, 2**31 - 1)):
        await one.close()
        one.revision, one.generation = number, one.generation + 1
        await one.connect()
    held = (await world.ask("GET", "/status"))["held"]
    # Of what they say, no number counts that only one says.
    assert held["seen"] == 7
    await world.ask("POST", "/policy/apply", {"documents": {"p.yaml": POLICY % 81}}, status=409)
    assert 8 <= (await world.ask("POST", "/accept-restore", {}))["revision"] < 20


async def test_the_highest_number_in_a_receipt_costs_the_others_nothing(world: World) -> None:
    honest, mallory = await both(world)
    await mallory.say(Receipt(generation=2**53, state=PointState.ENFORCED, holding=lying(mallory, 2**53)))
    await asyncio.sleep(0.2)
    for number in (1, 2):
        await world.apply(POLICY % (80 + number), confirm_s=0)
        await comes(honest, 1 + number)
    assert not [one for one, details in world.said if one == "agents wait" and details.get("level") == "error"]
    # A higher one is no message.
    await mallory.say(Receipt(generation=2**63 - 1, state=PointState.ENFORCED))

    async def hung_up() -> bool:
        return "mallory" not in world.controller.channel.connected

    await until(hung_up)


def lying(agent: Agent, generation: int) -> Holding:
    held = agent.holding()
    return Holding(generation=generation, revision=held.revision, digest=held.digest)


# --- flows ---


def record(source: str, destination: str, side: Side, at: float, reporter: str = "mallory") -> FlowRecord:
    key = FlowKey(ip_address(source), ip_address(destination), 6, 5432)
    return FlowRecord(key, reporter, side, Outcome.ALLOWED, Outcome.ALLOWED, ("web",), 1, 1, at, at, 1, 1)


async def report(agent: Agent, batch: str, *records: FlowRecord) -> None:
    now = time.time()
    await agent.say(pack_flows(records, batch=batch, start=now - 2, end=now))
    while (await agent.hear_a(Taken)).batch != batch:
        pass


async def test_flows_are_believed_of_one_s_own_end_only(world: World) -> None:
    _, mallory = await both(world)
    await world.agent("victim", "10.9.0.4", {"app": "db"})
    now = time.time()
    await report(
        mallory,
        "b1",
        record("10.9.0.1", "10.9.0.4", Side.EGRESS, now),
        record("10.9.0.1", "10.9.0.4", Side.INGRESS, now),
        record("10.9.0.2", "10.9.0.4", Side.EGRESS, now),
        record("10.9.0.1", "10.9.0.2", Side.INGRESS, now),
        record("fe80::1", "10.9.0.4", Side.EGRESS, now),
    )
    seen = (await world.ask("GET", "/flows"))["items"]
    assert sorted((one["source"], one["destination"]) for one in seen) == [
        ("10.9.0.1", "10.9.0.2"),
        ("10.9.0.2", "10.9.0.4"),
        ("fe80::1", "10.9.0.4"),
    ]
    assert ("flows of others", 2) in [(event, details.get("left_out")) for event, details in world.said]


async def test_flows_of_many_days_do_not_stop_the_store(tmp_path: Path) -> None:
    async with running(tmp_path, flows="chdb") as world:
        honest, mallory = await both(world)
        now = time.time()
        many = [record("10.9.0.2", "10.9.0.1", Side.EGRESS, at) for at in (0.0, 1e11, now + 1e6)]
        many += [record("10.9.0.2", "10.9.0.1", Side.EGRESS, now - day * 86_400) for day in range(300)]
        await report(mallory, "b1", *many)
        await report(honest, "b1", record("10.9.0.1", "10.9.0.2", Side.EGRESS, now, "honest"))
        seen = (await world.ask("GET", "/flows"))["items"]
        ends = {(one["source"], one["destination"]) for one in seen}
        assert ends == {("10.9.0.1", "10.9.0.2"), ("10.9.0.2", "10.9.0.1")}
        assert all(now - BACK_S - 60 <= one["last_seen"] <= now + 360 for one in seen)


# --- names and addresses ---


async def test_a_name_of_the_documents_is_not_for_any_token(world: World) -> None:
    await world.apply(
        "labels: {role: {}}\nworkloads: {plc-7: {addresses: [10.9.0.11], labels: {role: plc}}}\n", confirm_s=0
    )
    token = await world.token(None, labels={"role": "guest"}, uses=2)
    reply = await ask_to_enrol(world, Enrol(secret=token.secret, request=make_request()[1], name="plc-7"))
    assert isinstance(reply, Rejected) and "in the policy's documents" in reply.reason
    # With one that was made for it, it is let in.
    agent = await enrol(world, await world.token("plc-7"), "plc-7")
    assert agent.name == "plc-7"


async def addresses(world: World, name: str) -> list[str]:
    return list((await world.ask("GET", f"/workloads/{name}"))["addresses"])


async def test_a_taken_address_comes_back_to_who_had_it_and_comes_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On loopback no channel comes from an address of the fleet: this one does.
    comes_from = {"victim": "10.9.0.50", "mallory": "10.9.0.66", "other": "10.9.0.50"}

    def came_from(line: Line) -> Address:
        return ip_address(comes_from[line.name])

    monkeypatch.setattr(channel, "came_from", came_from)
    victim = await world.agent("victim", "10.9.0.50", {"app": "db"})
    await victim.close()

    async def away() -> bool:
        return "victim" not in world.controller.channel.connected

    await until(away)
    mallory = await world.agent("mallory", "10.9.0.50", {"app": "web"})
    assert await addresses(world, "mallory") == ["10.9.0.50"]
    # Whoever never had it does not get it by coming from behind it.
    other = await world.agent("other", "10.9.0.50", {"app": "web"})
    assert await addresses(world, "other") == []
    await victim.connect()
    await victim.say(Facts(addresses=(ip_address("10.9.0.50").packed,), hostname="victim"))

    async def back() -> bool:
        return await addresses(world, "victim") == ["10.9.0.50"] and await addresses(world, "mallory") == []

    await until(back)
    # To say it again is of no use to who took it.
    await mallory.say(Facts(addresses=(ip_address("10.9.0.50").packed,), hostname="mallory"))
    await asyncio.sleep(0.3)
    assert await back()
    await other.close()


@pytest.mark.parametrize(
    "odd", ["127.0.0.1", "::1", "fe80::1", "169.254.7.7", "224.0.0.1", "ff02::1", "0.0.0.0", "255.255.255.255"]
)
async def test_an_address_of_many_hosts_is_nobody_s(world: World, odd: str) -> None:
    await world.agent("mallory", odd, {"app": "web"})
    assert await addresses(world, "mallory") == []


# --- floods ---


async def test_who_tells_other_addresses_without_end_is_listened_to_now_and_then(world: World) -> None:
    honest, mallory = await both(world)
    before = len((await world.ask("GET", "/audit", limit=1000))["items"])
    for number in range(200):
        await mallory.say(Facts(addresses=(ip_address(f"10.9.7.{number}").packed,), hostname="mallory"))
        await asyncio.sleep(0.01)
    written = len((await world.ask("GET", "/audit", limit=1000))["items"]) - before
    assert written <= 12, written
    # The last that it said counts in the end.
    last = world.controller.channel._later  # pyright: ignore[reportPrivateUsage]
    assert [facts.addresses for facts in last.values()] == [(ip_address("10.9.7.199").packed,)]
    await world.apply(POLICY % 81, confirm_s=0)
    await comes(honest, 2)


async def test_who_talks_without_end_is_read_more_slowly_and_others_at_once(world: World) -> None:
    honest, mallory = await both(world)
    receipt = encode(Receipt(generation=1, state=PointState.DRIFTED, reason="x" * 500, holding=mallory.holding()))
    assert mallory.connection is not None

    async def flood() -> None:
        assert mallory.connection is not None
        while True:
            await mallory.connection.send(receipt)

    flooding = asyncio.create_task(flood())
    try:
        began = time.monotonic()
        await asyncio.sleep(1.5)
        for number in (1, 2, 3):
            await world.apply(POLICY % (90 + number), confirm_s=0)
            await comes(honest, 1 + number)
        took = time.monotonic() - began
        assert took < 10
        heard = sum(event == "receipt" and said["workload"] == "mallory" for event, said in world.said)
        assert heard < BURST + 500 + A_SECOND * took, heard
    finally:
        flooding.cancel()


async def test_certificates_are_not_renewed_without_end(world: World) -> None:
    _, mallory = await both(world)
    for _ in range(5):
        await mallory.say(Renew(request=make_request()[1]))
        await mallory.hear_a(Renewed)
    await mallory.say(Renew(request=make_request()[1]))
    refused = await mallory.hear_a(Rejected)
    assert "too often" in refused.reason and refused.again
