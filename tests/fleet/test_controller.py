"""A real controller, over real TLS: enrolment, the channel, policy and its way to agents and back."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import structs
from tests.fleet.controller_world import (
    Agent,
    World,
    ask_to_enrol,
    authority,
    blind,
    call,
    enrol,
    make_request,
    running,
    until,
)
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from cellwall.cli.documents import fleet_of
from cellwall.controller import ControllerError
from cellwall.controller.trust.ca import open_authority
from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.policy import Mode, Tier
from cellwall.traffic import parse_address
from cellwall.wire import (
    AGENT_PATH,
    AUTHORITY_PATH,
    ENROL_PATH,
    Answer,
    Ask,
    Bundle,
    Confirmed,
    Counters,
    Denial,
    Denials,
    Enrol,
    Enrolled,
    Facts,
    HeldVerdict,
    Hello,
    Listening,
    MemberChange,
    PointState,
    Rejected,
    Renew,
    Renewed,
    TableText,
    Taken,
    Trouble,
    encode,
    pack_flows,
)

WEB, DB = "10.0.0.1", "10.0.0.2"
SHOP = """
rules:
  - {id: app-to-db, allow: tcp/5432, from: role=web, to: role=db}
modes:
  - {where: "", mode: observe}
  - {where: role=db, mode: enforce}
"""
SHUT = """
modes:
  - {where: "", mode: enforce}
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as found:
        yield found


async def settle(*agents: Agent) -> None:
    """Let every agent enforce whatever it is sent, until each holds what is wanted."""
    world = agents[0].world
    for _ in range(100):
        for agent in agents:
            await agent.enforce_what_comes()
        state = await world.ask("GET", "/policy/rollout")
        rows = {row["workload"]: row for row in state["items"]}
        if not state["compiling"] and all(
            agent.name in rows and rows[agent.name]["state"] in ("enforced", "relaxed") for agent in agents
        ):
            return
    raise AssertionError("they do not settle")


async def in_force(world: World) -> None:
    """Wait until the controller has found that its revision is good."""
    for _ in range(500):
        if (await world.ask("GET", "/policy/rollout"))["state"] == "good":
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not come into force")


# --- enrolment ---


async def test_an_agent_enrols_and_gets_a_bundle_that_its_controller_signed(world: World) -> None:
    token = await world.token("web-1", labels={"role": "web"})
    agent = await enrol(world, token, "web-1")
    assert agent.enrolled.labels == {"role": "web"}
    welcome = await agent.connect()
    assert (welcome.protocol, welcome.controller) == (1, "controller")
    bundle = await agent.enforce()
    assert isinstance(bundle, Bundle)
    assert (bundle.workload, bundle.generation, bundle.revision) == ("web-1", 1, 0)
    assert agent.ruleset is not None
    assert agent.ruleset.mode is Mode.OBSERVE
    rows = await until(lambda: _with_state(world, "web-1", "enforced"))
    assert rows["revision_held"] == 0
    await agent.close()


async def _with_state(world: World, name: str, state: str) -> dict[str, object] | None:
    row = (await world.rollout()).get(name)
    return row if row is not None and row["state"] == state else None


async def refusal(world: World, secret: str, name: str, request: str | None = None) -> Rejected:
    reply = await ask_to_enrol(world, Enrol(secret=secret, request=request or make_request()[1], name=name))
    assert isinstance(reply, Rejected), reply
    return reply


async def test_a_wrong_secret_lets_nobody_in(world: World) -> None:
    await world.token("web-1")
    assert "unknown, used up or expired" in (await refusal(world, "x" * 43, "web-1")).reason
    assert (await world.ask("GET", "/workloads"))["items"] == []


async def test_a_token_of_one_use_serves_once(world: World) -> None:
    token = await world.token()
    await enrol(world, token, "web-1")
    assert "used up" in (await refusal(world, token.secret, "web-2")).reason


async def test_who_lost_the_answer_may_ask_again_with_the_same_key(world: World) -> None:
    token, (_, request) = await world.token("web-1"), make_request()
    asked = Enrol(secret=token.secret, request=request, name="web-1")
    for _ in range(2):
        assert isinstance(await ask_to_enrol(world, asked), Enrolled)
    assert isinstance(await ask_to_enrol(world, structs.replace(asked, request=make_request()[1])), Rejected)


async def test_a_token_of_another_workload_is_refused(world: World) -> None:
    token = await world.token("web-1")
    assert "another workload than `db-1`" in (await refusal(world, token.secret, "db-1")).reason


async def test_a_name_that_is_taken_needs_a_token_made_for_it(world: World) -> None:
    await enrol(world, await world.token(), "web-1")
    again = await world.token()
    assert "there already" in (await refusal(world, again.secret, "web-1")).reason
    # The refused attempt did not use it up.
    await enrol(world, again, "web-2")
    await enrol(world, await world.token("web-1"), "web-1")


async def test_an_expired_token_lets_nobody_in(tmp_path: Path) -> None:
    now = [1_000_000_000.0]
    async with running(tmp_path, clock=lambda: now[0]) as world:
        secret = (await world.token("web-1", ttl_s=10)).secret
        now[0] += 11
        control = world.controller.control
        with pytest.raises(Exception, match="expired"):
            control.enrolment.enrol(Enrol(secret=secret, request=make_request()[1], name="web-1"), now[0])


@pytest.mark.parametrize("name", ["", "../etc", "a b", "x" * 254])
async def test_a_bad_name_is_refused(world: World, name: str) -> None:
    token = await world.token(uses=5)
    context = ssl.create_default_context(cadata=await authority(world))
    asked = encode(Enrol(secret=token.secret, request=make_request()[1], name=name))
    status, _ = await asyncio.to_thread(call, world.controller.port, context, "POST", ENROL_PATH, asked)
    assert status == 403


async def test_a_request_that_is_none_is_refused_and_costs_nothing(world: World) -> None:
    token = await world.token("web-1")
    assert "certificate request" in (await refusal(world, token.secret, "web-1", "nonsense")).reason
    _, weak = make_request(ec.generate_private_key(ec.SECP384R1()))
    assert "P-256" in (await refusal(world, token.secret, "web-1", weak)).reason
    await enrol(world, token, "web-1")


async def test_another_authority_has_another_fingerprint(world: World, tmp_path: Path) -> None:
    token = await world.token("web-1")
    other = open_authority(tmp_path / "other", 0.0)
    assert other.fingerprint != token.authority
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(
            call,
            world.controller.port,
            ssl.create_default_context(cadata=other.pem),
            "POST",
            ENROL_PATH,
            encode(Enrol(secret=token.secret, request=make_request()[1], name="web-1")),
        )


@pytest.mark.parametrize(
    ("method", "path", "body", "wanted"),
    [
        ("GET", AUTHORITY_PATH, None, 200),
        ("GET", "/", None, 404),
        ("GET", AGENT_PATH, None, 403),
        ("POST", "/v1/other", b"x", 404),
        ("POST", ENROL_PATH, b"garbage", 403),
        ("POST", ENROL_PATH, b"x" * 300_000, 413),
    ],
)
async def test_the_door_answers_as_it_should(
    world: World, method: str, path: str, body: bytes | None, wanted: int
) -> None:
    status, _ = await asyncio.to_thread(call, world.controller.port, blind(), method, path, body)
    assert status == wanted


async def test_keys_are_for_their_owner_alone(world: World) -> None:
    for path in (world.folder / "data" / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((world.folder / "api.sock").stat().st_mode) == 0o600


# --- the channel ---


async def test_without_a_certificate_there_is_no_channel(world: World) -> None:
    context = ssl.create_default_context(cadata=await authority(world))
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"wss://127.0.0.1:{world.controller.port}{AGENT_PATH}", ssl=context)
    assert caught.value.response.status_code == 403


async def test_a_certificate_of_another_authority_ends_the_handshake(world: World, tmp_path: Path) -> None:
    agent = await enrol(world, await world.token("web-1"), "web-1")
    other = open_authority(tmp_path / "other", 0.0)
    key, request = make_request()
    forged = other.issue(request, "web-1", 30, world.controller.clock())
    agent.enrolled, agent.key = structs.replace(agent.enrolled, certificate=forged.pem), key
    with pytest.raises((ssl.SSLError, WebSocketException, OSError)):
        await agent.connect()


async def test_an_agent_cannot_take_another_name(world: World) -> None:
    agent = await enrol(world, await world.token("web-1"), "web-1")
    await enrol(world, await world.token("db-1"), "db-1")
    agent.connection = await connect(f"wss://127.0.0.1:{world.controller.port}{AGENT_PATH}", ssl=agent.context())
    await agent.say(Hello(name="db-1", version="1"))
    reply = await agent.hear()
    assert isinstance(reply, Rejected)
    assert "calls itself `db-1`" in reply.reason


async def test_an_agent_of_a_protocol_that_we_do_not_speak_is_told_so(world: World) -> None:
    agent = await enrol(world, await world.token("web-1"), "web-1")
    agent.connection = await connect(f"wss://127.0.0.1:{world.controller.port}{AGENT_PATH}", ssl=agent.context())
    await agent.say(Hello(name="web-1", version="9", oldest=98, newest=99))
    reply = await agent.hear()
    assert isinstance(reply, Rejected)
    assert "upgrade this side" in reply.reason


@pytest.mark.parametrize("said", [b"\xc1\xc1", "text", encode(Facts())])
async def test_who_does_not_begin_with_hello_is_rejected(world: World, said: bytes | str) -> None:
    agent = await enrol(world, await world.token("web-1"), "web-1")
    agent.connection = await connect(f"wss://127.0.0.1:{world.controller.port}{AGENT_PATH}", ssl=agent.context())
    await agent.connection.send(said)
    assert isinstance(await agent.hear(), Rejected)
    with pytest.raises(ConnectionClosed):
        await agent.hear()


async def test_a_newer_connection_takes_the_place_of_the_older(world: World) -> None:
    agent = await world.agent("web-1", WEB)
    await settle(agent)
    older = agent.connection
    assert older is not None
    await agent.connect()
    with pytest.raises(ConnectionClosed):
        await older.recv()
    await agent.report(PointState.ENFORCED)
    assert (await world.ask("GET", "/workloads/web-1"))["connected"]


async def test_a_removed_workload_is_cut_off(world: World) -> None:
    agent = await world.agent("web-1", WEB)
    await settle(agent)
    await world.ask("DELETE", "/workloads/web-1")
    with pytest.raises(ConnectionClosed):
        await agent.hear()
    with pytest.raises(InvalidStatus):
        await agent.connect()


async def test_a_certificate_is_renewed_over_the_channel(world: World) -> None:
    agent = await world.agent("web-1", WEB)
    key, request = make_request()
    await agent.say(Renew(request=request))
    renewed = await agent.hear_a(Renewed)
    agent.enrolled, agent.key = structs.replace(agent.enrolled, certificate=renewed.certificate), key
    await agent.connect()


async def test_an_agent_is_silent_when_it_is_away(tmp_path: Path) -> None:
    async with running(tmp_path, silent_after_s=0.2) as world:
        agent = await world.agent("web-1", WEB)
        await settle(agent)
        await agent.close()
        row = await until(lambda: _with_state(world, "web-1", "silent"))
        assert "enforced" in str(row["reason"])


# --- facts ---


async def addresses_of(world: World, name: str) -> list[str]:
    return (await world.ask("GET", f"/workloads/{name}"))["addresses"]


async def test_facts_are_shown_and_addresses_join_the_fleet(world: World) -> None:
    agent = await world.agent("web-1", WEB)
    facts = Facts(
        addresses=(ip_address(WEB).packed,), listening=(Listening(protocol=6, port=80, process="nginx"),), nft="1.0.6"
    )
    await agent.say(facts)
    shown = await until(lambda: _with_facts(world, "web-1", "1.0.6"))
    assert shown["facts"]["listening"][0]["service"] == "tcp/80"
    assert shown["addresses"] == [WEB]


async def _with_facts(world: World, name: str, nft: str) -> dict[str, dict[str, object]] | None:
    shown = await world.ask("GET", f"/workloads/{name}")
    return shown if shown["facts"] and shown["facts"]["nft"] == nft else None


async def test_an_agent_cannot_take_the_address_of_another(world: World) -> None:
    first = await world.agent("db-1", DB)
    await settle(first)
    await world.ask("POST", "/workloads", {"name": "plc-1", "addresses": ["10.0.0.9"]})
    thief = await world.agent("web-1", WEB)
    stolen = tuple(ip_address(one).packed for one in (WEB, DB, "10.0.0.9"))
    await thief.say(Facts(addresses=stolen, nft="x"))
    await until(lambda: _with_facts(world, "web-1", "x"))
    assert await addresses_of(world, "web-1") == [WEB]
    assert await addresses_of(world, "db-1") == [DB]


async def test_the_address_of_an_agent_that_is_away_can_be_used_again(world: World) -> None:
    first = await world.agent("old-1", DB)
    await settle(first)
    await first.close()

    async def away() -> bool:
        return not (await world.ask("GET", "/workloads/old-1"))["connected"]

    await until(away)
    await world.agent("new-1", DB)

    async def moved() -> bool:
        return await addresses_of(world, "new-1") == [DB]

    await until(moved)
    assert await addresses_of(world, "old-1") == []


# --- policy ---


async def pair(world: World) -> tuple[Agent, Agent]:
    web = await world.agent("web-1", WEB, {"role": "web"})
    db = await world.agent("db-1", DB, {"role": "db"})
    await settle(web, db)
    return web, db


async def test_a_policy_comes_into_force_everywhere(world: World) -> None:
    web, db = await pair(world)
    revision = await world.apply(SHOP, note="first", confirm_s=20)
    for agent in (web, db):
        bundle = await agent.hear_policy()
        assert isinstance(bundle, Bundle)
        assert (bundle.revision, bundle.confirm_s) == (revision, 20)
        agent.take(bundle)
        await agent.report(PointState.PROVISIONAL)
        assert (await agent.hear_a(Confirmed)).generation == bundle.generation
    assert (await world.ask("GET", "/policy/rollout"))["state"] == "rolling"
    for agent in (web, db):
        await agent.report(PointState.ENFORCED)

    async def good() -> bool:
        return (await world.ask("GET", "/policy/rollout"))["state"] == "good"

    await until(good)
    rows = await world.rollout()
    assert {row["state"] for row in rows.values()} == {"enforced"}
    assert {row["revision_held"] for row in rows.values()} == {revision}
    assert db.ruleset is not None
    assert db.ruleset.mode is Mode.ENFORCE
    assert ip_address(WEB).packed in db.members


async def test_the_same_policy_again_touches_no_point(world: World) -> None:
    web, db = await pair(world)
    await world.apply(SHOP)
    await settle(web, db)
    second = await world.apply("# moved down by a line\n" + SHOP)
    assert await web.hears_nothing()
    assert await db.hears_nothing()
    rows = await world.rollout()
    assert {row["revision_held"] for row in rows.values()} == {second}
    plan = await world.ask("POST", "/policy/plan", {"documents": {"policy.yaml": SHOP}})
    assert plan["summary"] == {"none": 2, "elements": 0, "refill": 0}


async def test_a_new_workload_of_a_known_class_is_a_change_of_members(world: World) -> None:
    web, db = await pair(world)
    await world.agent("web-2", "10.0.0.3", {"role": "web"})
    await world.apply(SHOP)
    await settle(web, db)
    await world.agent("web-3", "10.0.0.4", {"role": "web"})
    change = await db.enforce()
    assert isinstance(change, MemberChange)
    assert ip_address("10.0.0.4").packed in db.members
    assert await web.hears_nothing()


async def test_a_point_that_takes_a_revision_back_takes_it_back_everywhere(world: World) -> None:
    web, db = await pair(world)
    good = await world.apply(SHOP)
    await settle(web, db)
    before = db.ruleset, db.members, db.generation, db.revision
    bad = await world.apply(SHUT, confirm_s=5)
    web.take(await web.hear_policy())
    await web.report(PointState.ENFORCED)
    db.take(await db.hear_policy())
    await db.report(PointState.PROVISIONAL)
    db.ruleset, db.members, db.generation, db.revision = before
    await db.report(PointState.REVERTED, "no canary answers")

    bundle = await web.hear_policy()
    assert isinstance(bundle, Bundle)
    assert bundle.confirm_s == 0
    web.take(bundle)
    await web.report(PointState.ENFORCED)

    async def back() -> dict[str, object] | None:
        state = await world.ask("GET", "/policy/rollout")
        return state if state["state"] == "good" else None

    state = await until(back)
    assert (state["revision"], state["reverts_to"]) == (bad + 1, good)
    assert "`db-1` took it back: no canary answers" in state["note"]
    revisions = {one["revision"]: one for one in (await world.ask("GET", "/policy/revisions"))["items"]}
    assert revisions[bad]["state"] == "failed"
    assert await db.hears_nothing()
    assert (await world.ask("GET", "/policy"))["documents"] == {"policy.yaml": SHOP}


async def take_back(agent: Agent) -> None:
    """Take what comes, and put back what was held before, as an agent does that was killed while it was on trial."""
    held = agent.ruleset, agent.members, agent.generation, agent.revision
    agent.take(await agent.hear_policy())
    await agent.report(PointState.PROVISIONAL)
    agent.ruleset, agent.members, agent.generation, agent.revision = held
    await agent.close()
    await agent.connect()
    await agent.report(PointState.REVERTED, "nobody confirmed it before the agent was restarted")


async def test_an_agent_that_was_killed_while_a_change_was_on_trial_is_offered_it_again(tmp_path: Path) -> None:
    ahead = [0.0]
    async with running(tmp_path, clock=lambda: time.time() + ahead[0], silent_after_s=0.2) as world:
        web, db = await pair(world)
        await db.close()
        await asyncio.sleep(0.3)
        revision = await world.apply(SHOP, confirm_s=5)
        await web.enforce()

        async def good() -> bool:
            return (await world.ask("GET", "/policy/rollout"))["state"] == "good"

        await until(good)
        await db.connect()
        await take_back(db)
        row = await until(lambda: _with_state(world, "db-1", "reverted"))
        assert "nobody confirmed it" in str(row["reason"])
        assert await db.hears_nothing(1.5)
        ahead[0] += 10
        bundle = await db.enforce()
        assert isinstance(bundle, Bundle)
        assert (bundle.revision, bundle.confirm_s) == (revision, 5)
        await until(lambda: _with_state(world, "db-1", "enforced"))
        assert [details["times"] for event, details in world.said if event == "offering again"] == [1]
        assert (await world.ask("GET", "/policy/rollout"))["revision"] == revision


async def test_what_failed_is_not_offered_again(tmp_path: Path) -> None:
    ahead = [0.0]
    async with running(tmp_path, clock=lambda: time.time() + ahead[0]) as world:
        web, db = await pair(world)
        bad = await world.apply(SHUT, confirm_s=5)
        await web.enforce()
        await take_back(db)

        async def failed() -> bool:
            return (await world.ask("GET", f"/policy/revisions/{bad}"))["state"] == "failed"

        await until(failed)
        await settle(web, db)
        ahead[0] += 1000
        assert await db.hears_nothing(1.5)
        assert not [event for event, _ in world.said if event == "offering again"]


async def test_a_refused_bundle_is_shown_with_its_reason_and_not_sent_again(world: World) -> None:
    web, db = await pair(world)
    await world.apply(SHOP)
    message = await db.hear_policy()
    db.highest = message.generation
    await db.report(PointState.REFUSED, "nft says no")
    await web.enforce()
    row = await until(lambda: _with_state(world, "db-1", "refused"))
    assert row["reason"] == "nft says no"
    assert await db.hears_nothing()
    state = await world.ask("GET", "/policy/rollout")
    assert (state["state"], state["reason"]) == ("partial", "`db-1` refused it: nft says no")


async def test_a_revert_brings_the_documents_of_before(world: World) -> None:
    web, db = await pair(world)
    first = await world.apply(SHOP)
    await settle(web, db)
    await in_force(world)
    second = await world.apply(SHUT, note="too tight")
    await settle(web, db)
    assert web.ruleset is not None
    assert web.ruleset.mode is Mode.ENFORCE
    dry = await world.ask("POST", "/policy/revert", {"dry_run": True})
    assert (dry["revision"], dry["to"]) == (None, first)
    done = await world.ask("POST", "/policy/revert", {})
    assert (done["revision"], done["to"]) == (second + 1, first)
    await settle(web, db)
    assert web.ruleset.mode is Mode.OBSERVE
    diff = await world.ask("GET", "/policy/diff", a=second)
    assert "+rules:" in diff["files"][0]["diff"]


async def test_a_wrong_policy_is_refused_with_its_place(world: World) -> None:
    body = {"documents": {"web.yaml": "rules:\n  - {id: a, allow: htps, from: any, to: any}\n"}}
    for path in ("/policy/check", "/policy/plan", "/policy/apply"):
        problem = await world.ask("POST", path, body, status=422)
        assert (problem["file"], problem["line"]) == ("web.yaml", 2)
        assert "unknown service `htps`" in problem["detail"]
    assert (await world.ask("GET", "/policy"))["revision"] == 0


REACH = SHOP + "tests:\n  - {id: reach, from: role=web, can: tcp/80, to: role=db}\n"
APART = SHOP + "tests:\n  - {id: apart, from: role=guest, cannot: tcp, to: role=db}\n"


async def test_a_failing_test_keeps_a_policy_out_and_says_what_breaks_it(world: World) -> None:
    await pair(world)
    body = {"documents": {"policy.yaml": REACH}}
    for more in ({}, {"dry_run": True}):
        problem = await world.ask("POST", "/policy/apply", {**body, **more}, status=409)
        assert problem["detail"].startswith("test `reach` fails, at policy.yaml:8:5: web-1 → db-1 tcp/80 is denied;")
    assert (await world.ask("GET", "/policy"))["revision"] == 0
    assert (await world.ask("POST", "/policy/apply", {**body, "accept_failed": True}))["revision"] == 1
    (entry,) = [one for one in (await world.ask("GET", "/audit"))["items"] if one["action"] == "propose"]
    assert entry["details"]["accepted"] == ["test `reach` fails, at policy.yaml:8:5: web-1 → db-1 tcp/80 is denied"]


async def tested(world: World, **passed: bool) -> dict[str, Any]:
    """Wait until the standing tests are these, and checked after the last change."""

    async def stands() -> dict[str, Any] | None:
        found = await world.ask("GET", "/policy/tests")
        right = found["current"] and {one["id"]: one["passed"] for one in found["items"]} == passed
        return found if right else None

    return await until(stands, f"{passed}")


async def turns(world: World) -> list[tuple[str, str, str]]:
    entries = (await world.ask("GET", "/audit"))["items"]
    found = [(one["action"], one["details"]) for one in entries if one["action"].startswith("test ")]
    return [(action, details["because"], details["counterexample"]) for action, details in reversed(found)]


async def test_the_tests_are_checked_again_when_labels_the_fleet_or_the_policy_change(world: World) -> None:
    web, db = await pair(world)
    await world.apply(APART)
    found = await tested(world, apart=True)
    assert (found["revision"], found["items"][0]["vacuous"]) == (1, True)
    # A guest that may do what web may: the label of web goes to it as well.
    await world.apply(APART.replace("from: role=web", "from: 'role in (web,guest)'"), accept_failed=True)
    await tested(world, apart=True)
    assert await turns(world) == []
    await world.ask("PUT", "/labels/web-1", {"labels": {"role": "guest"}})
    found = await tested(world, apart=False)
    broken = "web-1 → db-1 tcp/5432 passes"
    assert found["items"][0]["failure"] == f"test `apart` fails, at policy.yaml:8:5: {broken}"
    assert await turns(world) == [("test fails", "fleet", broken)]
    status = (await world.ask("GET", "/status"))["tests"]
    assert (status["passed"], status["current"]) == (0, True)
    assert status["failed"] == [
        {"id": "apart", "since": found["items"][0]["since"], "failure": found["items"][0]["failure"]}
    ]
    assert ("test fails", {"test": "apart"}) in [
        (event, {"test": details.get("test")}) for event, details in world.said
    ]
    await world.apply(APART)
    await tested(world, apart=True)
    assert [act for act, *_ in await turns(world)] == ["test fails", "test holds again"]
    assert [why for _, why, _ in await turns(world)] == ["fleet", "policy"]
    await web.close()
    await db.close()


async def test_a_test_that_turned_while_no_controller_ran_is_told_by_the_next(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await pair(world)
        await world.apply(SHOP)
        await world.apply(APART.replace("from: role=web", "from: 'role in (web,guest)'"))
        await tested(world, apart=True)
        await world.ask("PUT", "/labels/web-1", {"labels": {"role": "guest"}})
    async with running(tmp_path) as world:
        await tested(world, apart=False)
        assert [(act, counterexample) for act, _, counterexample in await turns(world)] == [
            ("test fails", "web-1 → db-1 tcp/5432 passes")
        ]


async def test_what_a_point_cannot_express_keeps_a_policy_out(world: World) -> None:
    web, db = await pair(world)
    text = "rules:\n  - {id: exe, allow: tcp/1, from: {workloads: role=web, as: {exe: /bin/x}}, to: role=db}\n"
    body = {"documents": {"policy.yaml": text}}
    problem = await world.ask("POST", "/policy/apply", body, status=409)
    assert "`exe`" in problem["detail"]
    await world.ask("POST", "/policy/apply", {**body, "accept_refused": True})
    await settle(web, db)
    row = await until(lambda: _with_state(world, "web-1", "relaxed"))
    assert row["misfits"]


async def test_a_dry_run_changes_nothing(world: World) -> None:
    web, db = await pair(world)
    answer = await world.ask("POST", "/policy/apply", {"documents": {"p.yaml": SHOP}, "dry_run": True})
    assert answer["revision"] is None
    assert {one["workload"]: one["change"] for one in answer["plan"]["points"]} == {"db-1": "refill", "web-1": "refill"}
    await world.ask("PUT", "/labels/web-1", {"labels": {"role": None}, "dry_run": True})
    await world.ask("POST", "/workloads", {"name": "x", "addresses": ["10.9.9.9"], "dry_run": True})
    await world.ask("DELETE", "/workloads/web-1", dry_run=True)
    assert (await world.ask("POST", "/tokens", {"dry_run": True}))["token"] is None
    assert await web.hears_nothing()
    assert await db.hears_nothing()
    assert (await world.ask("GET", "/workloads/web-1"))["labels"] == {"role": "web"}


async def test_two_who_apply_at_once_do_not_overwrite_each_other(world: World) -> None:
    await world.apply(SHOP)
    body = {"documents": {"policy.yaml": SHUT}, "planned_on": 0}
    assert "plan again" in (await world.ask("POST", "/policy/apply", body, status=409))["detail"]


async def test_a_label_changes_what_points_hold(world: World) -> None:
    web, db = await pair(world)
    await world.apply(SHOP)
    await settle(web, db)
    answer = await world.ask("PUT", "/labels/web-1", {"labels": {"role": None, "env": "prod"}})
    assert answer["after"] == {"env": "prod"}
    await settle(web, db)
    assert ip_address(WEB).packed not in db.members
    sources = (await world.ask("GET", "/workloads/web-1"))["label_sources"]
    assert [(one["key"], one["source"]) for one in sources] == [("env", "declared")]


async def test_a_rule_that_expires_goes_by_itself(tmp_path: Path) -> None:
    ahead = [0.0]
    async with running(tmp_path, clock=lambda: time.time() + ahead[0]) as world:
        web, db = await pair(world)
        text = SHOP.replace("to: role=db}", "to: role=db, expires: '2100-01-01T00:00:00Z'}", 1)
        await world.apply(text)
        await settle(web, db)
        assert db.ruleset is not None and db.ruleset.rules
        ahead[0] = 4_102_444_800.0 - time.time() - 0.5
        # Any change makes it look at the clock anew.
        await world.ask("POST", "/workloads", {"name": "x", "addresses": ["10.9.9.9"]})
        await asyncio.sleep(0.8)
        await settle(web, db)
        assert not db.ruleset.rules


async def test_an_unplugged_controller_finds_everything_again(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        web, db = await pair(world)
        await world.apply(SHOP)
        await settle(web, db)
    async with running(tmp_path) as world:
        for agent in (web, db):
            agent.world = world
            await agent.connect()
            await agent.report(PointState.ENFORCED)
            assert await agent.hears_nothing()
        assert {row["state"] for row in (await world.rollout()).values()} == {"enforced"}
        # It can still send differences, under higher numbers.
        await world.agent("web-2", "10.0.0.3", {"role": "web"})
        held = db.generation
        message = await db.enforce()
        assert message.generation == held + 1


async def test_what_is_under_way_is_one_message(world: World) -> None:
    web, db = await pair(world)
    await world.apply(SHOP)
    await settle(web, db)
    for number in range(5):
        await world.ask("PUT", "/labels/db-1", {"labels": {"role": "db", "n": str(number)}})
        await world.apply(SHOP.replace("5432", str(6000 + number)))
        await asyncio.sleep(0.1)
    first = await db.hear_policy()
    assert await db.hears_nothing()
    db.take(first)
    await db.report(PointState.ENFORCED)
    last = await db.enforce()
    assert last.generation == first.generation + 1
    assert db.ruleset is not None
    assert db.ruleset.rules[0].services == "tcp/6004"


# --- what agents see ---


def record(source: str, destination: str, port: int, outcome: Outcome = Outcome.ALLOWED) -> FlowRecord:
    return FlowRecord(
        FlowKey(parse_address(source), parse_address(destination), 6, port),
        "",
        Side.INGRESS,
        outcome,
        Outcome.DENIED,
        (),
        0,
        3,
        1_790_000_000.0,
        1_790_000_100.0,
        process=Process("postgres"),
    )


async def send_flows(agent: Agent, records: list[FlowRecord], batch: str = "b/1") -> None:
    await agent.say(pack_flows(records, batch=batch, start=1.0, end=2.0))
    assert (await agent.hear_a(Taken)).batch == batch


async def test_flows_are_kept_once_and_shown(world: World) -> None:
    web, db = await pair(world)
    for _ in range(2):
        await send_flows(db, [record(WEB, DB, 5432), record("192.0.2.1", DB, 22)])
    await send_flows(web, [replace(record(WEB, DB, 5432), side=Side.EGRESS)])
    flows = (await world.ask("GET", "/flows", query={"from": "web-1"}))["items"]
    assert len(flows) == 1
    assert (flows[0]["source_workload"], flows[0]["destination_workload"]) == ("web-1", "db-1")
    assert (flows[0]["service"], flows[0]["connections"], flows[0]["one_sided"]) == ("tcp/5432", 3, False)
    assert flows[0]["ingress"]["process"]["name"] == "postgres"
    for query in ({"to": "role=db", "port": "tcp/22"}, {"from": "192.0.2.0/24"}, {"port": "22", "outcome": "would"}):
        items = (await world.ask("GET", "/flows", query=query))["items"]
        assert [one["source"] for one in items] == ["192.0.2.1"], query
    assert (await world.ask("GET", "/flows", query={"from": "role=nobody"}))["items"] == []
    drawn = await world.ask("GET", "/map", group="role")
    assert {one["id"] for one in drawn["nodes"]} >= {"role=web", "role=db"}
    edges = (await world.ask("GET", "/flows", group="edge", to="db-1"))["items"]
    assert {one["service"] for one in edges} == {"tcp/5432", "tcp/22"}


async def test_flows_come_in_pages(world: World) -> None:
    _, db = await pair(world)
    await send_flows(db, [record(WEB, DB, port) for port in range(1, 8)])
    seen: list[str] = []
    cursor = None
    while True:
        page = await world.ask("GET", "/flows", query={"limit": 3} | ({"cursor": cursor} if cursor else {}))
        seen += [one["service"] for one in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(seen) == [f"tcp/{port}" for port in range(1, 8)]


async def test_garbled_flows_are_taken_and_thrown_away(world: World) -> None:
    _, db = await pair(world)
    flows = pack_flows([record(WEB, DB, 1)], batch="b/9", start=1.0, end=2.0)
    await db.say(structs.replace(flows, rows=7))
    assert (await db.hear_a(Taken)).batch == "b/9"
    assert (await world.ask("GET", "/flows"))["items"] == []


async def test_a_plan_shows_the_connections_that_it_would_cut(world: World) -> None:
    _, db = await pair(world)
    await send_flows(db, [record(WEB, DB, 5432), record("192.0.2.1", DB, 22)])
    plan = await world.ask("POST", "/policy/plan", {"documents": {"p.yaml": SHOP}})
    assert [(one["source"], one["service"]) for one in plan["replay"]["cut"]] == [("192.0.2.1", "tcp/22")]
    replayed = await world.ask("POST", "/replay", {"documents": {"p.yaml": SHUT}})
    assert replayed["cut_count"] == 2
    assert (await world.ask("POST", "/replay", {"revision": 0}))["cut_count"] == 0
    await world.ask("POST", "/replay", {}, status=400)


async def test_denials_are_shown(world: World) -> None:
    _, db = await pair(world)
    sample = Denial(
        at=5.0, source=ip_address(WEB).packed, destination=ip_address(DB).packed, protocol=6, port=22, side=Side.INGRESS
    )
    await db.say(Denials(samples=(sample,)))

    async def shown() -> list[dict[str, object]]:
        return (await world.ask("GET", "/denials"))["items"]

    (item,) = await until(shown)
    assert (item["source_workload"], item["service"], item["reporter"]) == ("web-1", "tcp/22", "db-1")


async def test_why_names_the_rule_its_place_and_what_the_points_hold(world: World) -> None:
    web, db = await pair(world)
    await world.apply(SHOP)
    await settle(web, db)
    asking = asyncio.create_task(world.ask("GET", "/why", source="web-1", destination="db-1", port="tcp/5432"))
    verdict = HeldVerdict(
        side=Side.INGRESS,
        outcome=Outcome.ALLOWED,
        would=Outcome.ALLOWED,
        tier=Tier.ALLOW,
        rules=("app-to-db",),
        mode=Mode.ENFORCE,
        revision=1,
    )
    await web.say(Answer(id=(await web.hear_a(Ask)).id, answer=Trouble(reason="no table")))
    await db.say(Answer(id=(await db.hear_a(Ask)).id, answer=verdict))
    answer = await asking
    assert answer["outcome"] == "allowed"
    assert answer["ingress"]["rules"][0]["place"] == "policy.yaml:3:5"
    assert answer["held"]["ingress"]["rules"] == ["app-to-db"]
    assert "no table" in answer["held"]["egress"]["error"]
    assert set(answer["foreign"]) <= {"egress", "ingress"}
    await world.ask("GET", "/why", source="nobody", destination="db-1", port="tcp/1", status=400)


async def asked_why(world: World, port: str = "tcp/5432", **more: Any) -> dict[str, Any]:
    return await world.ask("GET", "/why", source="web-1", destination="db-1", port=port, **more)


async def test_why_at_a_moment_is_answered_with_the_revision_the_labels_and_the_addresses_of_then(
    tmp_path: Path,
) -> None:
    ahead = [0.0]
    async with running(tmp_path, clock=lambda: time.time() + ahead[0]) as world:
        clock = world.controller.clock
        before_all = clock() - 5
        web, db = await pair(world)
        first = await world.apply(SHOP)
        await settle(web, db)
        ahead[0] += 100
        at_first = clock()
        ahead[0] += 100
        await world.ask("PUT", "/labels/web-1", {"labels": {"role": "cache"}})
        await settle(web, db)
        at_second = clock()
        ahead[0] += 100
        await web.say(Facts(addresses=(ip_address("10.0.0.77").packed,), nft="moved"))
        await until(lambda: _with_facts(world, "web-1", "moved"))
        second = await world.apply(SHOP.replace("role=web", "role=cache"))
        await settle(web, db)
        await web.close()
        await db.close()

        answer = await asked_why(world, at=str(at_first))
        assert (answer["revision"], answer["outcome"]) == (first, "allowed")
        assert (answer["source"]["labels"], answer["source"]["address"]) == ({"role": "web"}, WEB)
        assert answer["asked"] == {
            "at": pytest.approx(at_first, abs=0.01),
            "revision": first,
            "created": (await world.ask("GET", f"/policy/revisions/{first}"))["created"],
            "in_force": False,
            "labels": {"source": {}, "destination": {}},
        }
        assert "held" not in answer
        answer = await asked_why(world, at=str(at_second))
        assert (answer["revision"], answer["outcome"]) == (first, "denied")
        assert answer["source"]["labels"] == {"role": "cache"}
        answer = await asked_why(world)
        assert (answer["revision"], answer["outcome"]) == (second, "allowed")
        assert answer["source"]["address"] == "10.0.0.77"
        assert "held" in answer
        answer = await asked_why(world, revision=first)
        assert (answer["revision"], answer["outcome"]) == (first, "denied")
        assert "held" not in answer
        problem = await asked_why(world, at=str(before_all), status=404)
        assert problem["detail"].startswith("`web-1` was not there at 20")
        await world.ask("DELETE", "/workloads/web-1")
        problem = await asked_why(world, status=400)
        assert "`web-1` is neither a workload nor an address" in problem["detail"]
        answer = await asked_why(world, at=str(at_first))
        assert answer["source"]["labels"] == {"role": "web"}


async def test_why_answers_for_labels_that_a_workload_does_not_have(world: World) -> None:
    web, db = await pair(world)
    await world.apply(SHOP)
    await settle(web, db)
    query = {"source_label": ["role=till", "pci=cde"]}
    answer = await asked_why(world, query=query)
    assert answer["outcome"] == "denied"
    assert answer["source"]["labels"] == {"pci": "cde", "role": "till"}
    assert answer["asked"]["labels"]["source"] == {"pci": "cde", "role": "till"}
    assert "held" not in answer
    # Without its label the destination is no more enforced.
    answer = await asked_why(world, "tcp/22", query={"destination_label": "role-"})
    assert (answer["outcome"], answer["would"]) == ("allowed", "denied")
    assert (await world.ask("GET", "/workloads/web-1"))["labels"] == {"role": "web"}
    problem = await asked_why(world, query={"source_label": "role"}, status=400)
    assert "wanted `key=value`" in problem["detail"]
    await world.ask(
        "GET", "/why", source="10.9.9.9", destination="db-1", port="22", source_label="role=web", status=400
    )


async def test_why_tells_what_is_decided_between_each_two_addresses(world: World) -> None:
    _, db = await pair(world)
    text = """
networks: {nine: [10.9.0.0/16]}
rules: [{id: from-nine, allow: tcp/5432, from: network:nine, to: role=db}]
modes: [{where: role=db, mode: enforce}]
"""
    await world.apply(text)
    await settle(db)
    body: dict[str, Any] = {"name": "office", "addresses": ["10.8.0.1", "10.9.0.1", "fd00::9"], "labels": {}}
    await world.ask("POST", "/workloads", body)
    question: dict[str, Any] = {"source": "office", "port": "tcp/5432", "query": {"destination_label": "role=db"}}
    answer = await world.ask("GET", "/why", destination="db-1", **question)
    told = [(one["source"], one["outcome"], one["ingress"]["rules"]) for one in answer["pairs"]]
    assert [one[:2] for one in told] == [("10.8.0.1", "denied"), ("10.9.0.1", "allowed")]
    assert [rule["id"] for rule in told[1][2]] == ["from-nine"]
    assert (answer["outcome"], answer["more_pairs"]) == ("denied", 0)
    await world.ask("GET", "/why", source="fd00::1", destination="db-1", port="tcp/5432", status=400)


async def test_why_says_what_the_policy_meant_when_a_flow_was_last_seen(world: World) -> None:
    web, db = await pair(world)
    first = await world.apply(SHOP)
    await settle(web, db)
    seen = world.controller.clock()
    one = replace(record(WEB, DB, 5432), first_seen=seen, last_seen=seen, revision=first)
    await send_flows(db, [one])
    await asyncio.sleep(0.01)
    await world.ask("PUT", "/labels/web-1", {"labels": {"role": "cache"}})
    await world.apply(SHUT)
    await settle(web, db)
    await web.close()
    await db.close()
    answer = await asked_why(world)
    assert (answer["revision"], answer["outcome"]) == (first + 1, "denied")
    then = answer["then"]
    assert (then["revision"], then["outcome"], then["at"]) == (first, "allowed", pytest.approx(seen, abs=0.01))
    assert then["source"]["labels"] == {"role": "web"}
    assert [rule["id"] for rule in then["ingress"]["rules"]] == ["app-to-db"]


async def test_the_ground_is_all_that_a_verdict_depends_on(world: World) -> None:
    web, db = await pair(world)
    first = await world.apply(SHOP)
    await settle(web, db)
    at = world.controller.clock()
    declared = SHOP + "workloads: {plc-1: {addresses: [10.9.0.1], labels: {role: plc}}}\n"
    await world.apply(declared)
    await settle(web, db)
    found = await world.ask("GET", "/ground")
    assert (found["revision"], found["documents"], found["next"]) == (first + 1, {"policy.yaml": declared}, None)
    assert found["controllers"] == [{"address": "127.0.0.1", "port": 7443}]
    plc = {"name": "plc-1", "agent": False, "addresses": ["10.9.0.1"], "labels": {"role": "plc"}, "epoch": 0.0}
    assert [one["name"] for one in found["items"]] == ["db-1", "plc-1", "web-1"]
    assert found["items"][1] == plc
    control = world.controller.control
    assert fleet_of(found) == control.ground().fleet
    # In pages it is the same.
    items: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        one = await world.ask("GET", "/ground", limit=2, **({"cursor": cursor} if cursor else {}))
        items += one["items"]
        cursor = one["next"]
    assert items == found["items"]
    for query in ({"revision": first}, {"at": str(at)}):
        past = await world.ask("GET", "/ground", query=query)
        assert (past["revision"], past["documents"]) == (first, {"policy.yaml": SHOP})
        assert [one["name"] for one in past["items"]] == ["db-1", "web-1"]
    drafted = await world.ask("POST", "/ground", {"documents": {"p.yaml": "workloads: {x: {addresses: [10.9.0.2]}}"}})
    assert [one["name"] for one in drafted["items"]] == ["db-1", "web-1", "x"]
    await world.ask("GET", "/ground", revision=99, status=404)


async def test_what_did_not_change_is_the_same_object_from_one_ground_to_the_next(world: World) -> None:
    web, db = await pair(world)
    await world.apply(SHOP + "workloads: {plc-1: {addresses: [10.9.0.1], labels: {role: plc}}}\n")
    await settle(web, db)
    control = world.controller.control
    before = control.ground()
    assert control.ground() is before
    await world.ask("PUT", "/labels/web-1", {"labels": {"role": "cache"}})
    after = control.ground()
    assert {one.name for one in after.fleet.workloads if one is before.fleet.by_name[one.name]} == {"db-1", "plc-1"}
    drafted = control.ground({"p.yaml": SHOP})
    assert drafted.fleet.by_name["db-1"] is before.fleet.by_name["db-1"]


async def test_a_point_is_asked_what_it_holds(world: World) -> None:
    web, _ = await pair(world)
    asking = asyncio.create_task(world.ask("GET", "/points/web-1/table"))
    await web.say(Answer(id=(await web.hear_a(Ask)).id, answer=TableText(text="table inet cellwall {}")))
    assert (await asking)["text"] == "table inet cellwall {}"
    asking = asyncio.create_task(world.ask("GET", "/points/web-1/counters"))
    await web.say(Answer(id=(await web.hear_a(Ask)).id, answer=Counters(rules={"app-to-db": (2, 120)})))
    assert (await asking)["rules"] == {"app-to-db": {"packets": 2, "bytes": 120}}
    await world.ask("GET", "/points/nobody/table", status=404)
    await web.close()

    async def away() -> bool:
        answer = await world.people.get("/points/web-1/table")
        return answer.status_code == 503

    await until(away)


async def test_time_is_cut_into_steps(world: World) -> None:
    _, db = await pair(world)
    now = world.controller.clock()
    await send_flows(db, [replace(record(WEB, DB, 5432), first_seen=now - 90, last_seen=now - 80)])
    items = (await world.ask("GET", "/series", since="10m", step_s=60))["items"]
    assert sum(one["allowed"] for one in items) == 3
    await world.ask("GET", "/series", since="52w", step_s=1, status=400)


async def test_labels_are_proposed_and_accepted_ones_stay(world: World) -> None:
    agent = await world.agent("pg-1", DB)
    await agent.say(
        Facts(
            addresses=(ip_address(DB).packed,),
            listening=(Listening(protocol=6, port=5432, process="postgres"),),
            nft="y",
        )
    )
    await until(lambda: _with_facts(world, "pg-1", "y"))
    proposals = (await world.ask("GET", "/label-proposals"))["items"]
    roles = [one for one in proposals if one["key"] == "role"]
    assert roles
    await world.ask("POST", "/label-proposals/accept", {"ids": [roles[0]["id"]]})
    labels = (await world.ask("GET", "/workloads/pg-1"))["labels"]
    assert labels["role"] == roles[0]["value"]
    await world.ask("POST", "/label-proposals/accept", {"ids": ["nothing"]}, status=404)


async def test_a_policy_is_suggested_from_what_was_seen(world: World) -> None:
    _, db = await pair(world)
    await send_flows(db, [record(WEB, DB, 5432)])
    answer = await world.ask("POST", "/policy/suggest", {"level": "exact"})
    assert answer["rules"]
    plan = await world.ask("POST", "/policy/plan", {"documents": answer["documents"]})
    assert plan["replay"]["cut_count"] == 0


# --- what was done, and the program itself ---


async def test_what_was_done_is_in_the_audit_log(world: World) -> None:
    await pair(world)
    await world.apply(SHOP)
    entries = (await world.ask("GET", "/audit"))["items"]
    assert {"make token", "enrol", "addresses", "apply"} <= {one["action"] for one in entries}
    assert (await world.ask("GET", "/status"))["audit_broken_at"] is None
    text = str(entries)
    assert "cw1." not in text


async def test_no_secret_is_logged(world: World) -> None:
    token = await world.token("web-1")
    await enrol(world, token, "web-1")
    await refusal(world, token.secret, "web-1")
    assert world.said
    assert token.secret not in str(world.said)


async def test_the_api_describes_itself(world: World) -> None:
    described = await world.ask("GET", "/openapi.json")
    assert "/api/v1/policy/apply" in described["paths"]
    problem = await world.people.get("/workloads/nobody")
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["detail"] == "there is no workload `nobody`"


async def test_a_second_controller_does_not_take_the_folder_or_the_socket(world: World) -> None:
    with pytest.raises(ControllerError, match="another controller runs on"):
        async with running(world.folder):
            pass
    with pytest.raises(ControllerError, match="another controller listens"):
        async with running(world.folder, data=world.folder / "other"):
            pass


PROGRAM = """
import sys
from pathlib import Path
from cellwall.controller import ControllerOptions, run_controller
data = Path(sys.argv[1])
options = ControllerOptions(data, "127.0.0.1:0", ("https://127.0.0.1:7443",), data / "api.sock")
run_controller(options, ready=lambda controller: print(controller.port, flush=True))
"""


def test_the_program_ends_on_sigterm_and_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None and program.stderr is not None
        port = int(program.stdout.readline())
        status, _ = call(port, blind(), "GET", AUTHORITY_PATH)
        assert status == 200
        os.kill(program.pid, signal.SIGTERM)
        assert program.wait(20) == 0, program.stderr.read()
    assert not (tmp_path / "api.sock").exists()
