"""Orders of an emergency through a controller: given, in force at once, audited, over."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tests.fleet.controller_world import Agent, World, running, until

from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.policy import OrderKind
from cellwall.wire import Bundle, MemberChange

OBSERVED = "rules: [{id: r, allow: tcp/5432, from: role=web, to: role=db}]\nmodes: [{where: '', mode: observe}]\n"


async def fleet(world: World, newest: int = 2) -> tuple[Agent, Agent]:
    """Two agents that hold a policy."""
    web = await world.agent("web", "10.0.0.1", {"role": "web"}, newest)
    db = await world.agent("db", "10.0.0.2", {"role": "db"}, newest)
    await world.apply(OBSERVED, confirm_s=0)
    await settle(world, web, db)
    return web, db


async def settle(world: World, *agents: Agent) -> None:
    """Let agents hold what comes, until all that are there hold what they are to."""

    async def settled() -> bool:
        for one in agents:
            await one.enforce_what_comes()
        return all(row["state"] in ("enforced", "silent") for row in (await world.rollout()).values())

    await until(settled)


async def give(world: World, *agents: Agent, **body: Any) -> dict[str, Any]:
    """Give an order, while agents do what they are told."""
    asked = asyncio.create_task(world.ask("POST", "/orders", {"wait_s": 5, **body}))
    messages = [await agent.enforce() for agent in agents]
    # An order is a small change, never the whole.
    assert all(isinstance(one, MemberChange) and one.orders is not None for one in messages)
    return await asked


def test_an_order_is_in_force_everywhere_at_once_and_its_end_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            web, db = await fleet(world)
            answer = await give(world, web, db, kind="contain", ports="tcp/445", for_s=4, reason="worm")
            assert answer["in_force"] == {
                "everywhere": True, "points": 2, "having": 2, "waiting": 0, "waiting_for": [], "unable": [],
                "took_s": answer["in_force"]["took_s"],
            }  # fmt: skip
            assert 0 <= answer["in_force"]["took_s"] < 5
            assert web.ruleset is not None
            (card,) = web.ruleset.orders
            assert (card.id, card.kind, card.expires) == (
                answer["order"]["id"],
                OrderKind.CONTAIN,
                answer["order"]["expires"],
            )
            (item,) = (await world.ask("GET", "/orders"))["items"]
            assert (item["state"], item["in_force"]["having"], item["reason"]) == ("stands", 2, "worm")
            why = await world.ask("GET", "/why", source="web", destination="db", port="tcp/445")
            assert why["outcome"] == "denied"
            assert why["egress"]["rules"][0]["id"] == card.id

            async def over() -> bool:
                return not (await world.ask("GET", "/orders"))["items"]

            await until(over)
            for agent in (web, db):
                await agent.enforce()
                assert agent.ruleset is not None and agent.ruleset.orders == ()
            (item,) = (await world.ask("GET", "/orders", every=True))["items"]
            assert item["state"] == "over"
            actions = [one["action"] for one in (await world.ask("GET", "/audit"))["items"]]
            assert "order" in actions and "order expired" in actions

    asyncio.run(story())


def test_an_order_that_ends_by_itself_leaves_what_is_told_of_the_others_as_it_was(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            web, db = await fleet(world)
            await give(world, web, db, kind="contain", ports="tcp/445")
            await give(world, web, db, kind="contain", ports="tcp/139", for_s=1)

            async def left() -> bool:
                return len((await world.ask("GET", "/orders"))["items"]) == 1

            await until(left)
            for agent in (web, db):
                await agent.enforce()

            async def told() -> bool:
                (item,) = (await world.ask("GET", "/orders"))["items"]
                return (item["in_force"]["having"], item["in_force"]["waiting"]) == (2, 0)

            await until(told, "the other order to be in force at both")

    asyncio.run(story())


def test_a_lifted_order_is_gone_and_only_who_takes_part_in_an_opening_hears_of_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            web, db = await fleet(world)
            other = await world.agent("other", "10.0.0.3", {}, 2)
            await settle(world, web, db, other)
            body = {"kind": "open", "ports": "tcp/22", "source": ["web"], "destination": ["db"], "for_s": 60}
            answer = await give(world, web, db, **body)
            assert answer["in_force"]["points"] == 2
            assert await other.hears_nothing()
            name = answer["order"]["id"]
            asked = asyncio.create_task(world.ask("DELETE", f"/orders/{name}", reason="done", wait_s=5))
            for agent in (web, db):
                await agent.enforce()
            assert (await asked)["gone"]["everywhere"]
            await world.ask("DELETE", f"/orders/{name}", status=409)
            await world.ask("DELETE", "/orders/nothing", status=404)

    asyncio.run(story())


def test_a_dry_run_says_what_is_cut_and_changes_nothing_and_recent_pairs_can_be_exempt(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            web, _ = await fleet(world)
            now = time.time()
            key = FlowKey(ip_address("10.0.0.1"), ip_address("10.0.0.2"), 6, 445)
            seen = FlowRecord(key, "web", Side.EGRESS, Outcome.ALLOWED, Outcome.DENIED, (), 1, 3, now - 9, now)
            world.controller.flows.insert([seen], "web/1")
            asked = {"kind": "contain", "ports": "tcp/445", "dry_run": True}
            answer = await world.ask("POST", "/orders", asked)
            assert (answer["cuts"], answer["points"]) == (1, 2)
            assert answer["cut"][0]["source_workload"] == "web"
            answer = await world.ask("POST", "/orders", {**asked, "exempt_since": "1h"})
            assert (answer["cuts"], answer["order"]["exempt"]) == (0, 1)
            assert await web.hears_nothing()
            assert (await world.ask("GET", "/orders"))["items"] == []
            for wrong in (
                {"kind": "quarantine"},
                {"kind": "isolate"},
                {"kind": "isolate", "source": ["gone"]},
                {"kind": "open", "source": ["web"], "destination": ["db"]},
                {"kind": "contain", "ports": "tcp/999999"},
            ):
                assert (await world.people.post("/orders", json=wrong)).status_code in (400, 422)

    asyncio.run(story())


def test_an_agent_that_is_too_old_for_orders_is_not_sent_them_and_that_shows(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            old, other = await fleet(world, newest=1)
            new = await world.agent("new", "10.0.0.3", {}, 2)
            await settle(world, old, other, new)
            answer = await give(world, new, kind="isolate", source=["db"])
            assert answer["in_force"]["everywhere"] and answer["in_force"]["having"] == 1
            assert {one["workload"] for one in answer["in_force"]["unable"]} == {"web", "db"}
            rows = await world.rollout()
            assert rows["new"]["state"] == "enforced"
            assert rows["web"]["state"] == "relaxed"
            assert "too old for orders" in rows["web"]["reason"]
            assert await old.hears_nothing()
            # It is upgraded, and gets what it missed.
            await old.close()
            old.newest = 2
            await old.connect()
            await old.enforce()
            assert old.ruleset is not None and [card.id for card in old.ruleset.orders] == [answer["order"]["id"]]

    asyncio.run(story())


def test_an_order_stands_through_a_restart_of_the_controller(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            web, db = await fleet(world)
            answer = await give(world, web, db, kind="seal", source=["db"])
            await web.close()
            await db.close()
        async with running(tmp_path) as world:
            (item,) = (await world.ask("GET", "/orders"))["items"]
            assert item["id"] == answer["order"]["id"]
            web.world = world
            # It holds what is wanted: nothing has to be sent.
            await web.connect()
            assert await web.hears_nothing()
            late = await world.agent("late", "10.0.0.9", {}, 2)

            async def told() -> bool:
                message = await late.hear_policy()
                late.take(message)
                await late.report(late_state)
                return isinstance(message, Bundle) and bool(late.ruleset and late.ruleset.orders)

            from cellwall.wire import PointState

            late_state = PointState.ENFORCED
            await until(told)

    asyncio.run(story())
