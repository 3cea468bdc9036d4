"""An older end and a newer one understand each other, for every number that we speak: our agent with a controller, and
our controller with an agent, that know nothing newer. What they say are the golden bytes of `tests/golden/wire`.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fleet.agent_world import NAME, Puppet, connects, puppet, serve_tcp, start_agent
from tests.fleet.controller_world import running, until
from tests.golden.test_wire import VERIFY_KEY, golden
from tests.kernel.namespaces import needs_namespaces, pair

from cellwall.wire import DIGESTS, HISTORY, Bundle, Hello, PointState, Taken, Welcome

KNOWN_IN_1 = {"type", "workload", "generation", "revision", "ruleset", "members", "issued_at", "confirm_s", "signature"}


class Older(Puppet):
    """A controller that sends bytes as an older one does."""

    def play(self, data: bytes) -> None:
        assert self._loop
        asyncio.run_coroutine_threadsafe(self._sockets[-1].send(data), self._loop).result(10)


@needs_namespaces
@pytest.mark.parametrize("number", HISTORY)
def test_our_agent_enforces_what_an_older_controller_sends_and_is_understood(number: int, tmp_path: Path) -> None:
    told = golden(number)
    with pair() as (client, web), puppet(client, tmp_path / "ca") as controller:
        controller.__class__ = Older
        assert isinstance(controller, Older)
        controller.enrol(tmp_path / "state")
        # The golden bundles are signed by a key of their own.
        about = tmp_path / "state" / "enrolment.json"
        enrolment = json.loads(about.read_text()) | {"bundle_key": msgspec.to_builtins(VERIFY_KEY)}
        about.write_text(json.dumps(enrolment))
        for port in (80, 81):
            web.start(serve_tcp, port)
            web.wait_for_port(port)
        start_agent(web, tmp_path / "state")
        hello = controller.wait(Hello)
        assert hello.oldest <= number <= hello.newest
        until_s = time.monotonic() + 5
        while not controller.connected and time.monotonic() < until_s:
            time.sleep(0.02)
        for name, generation in (("bundle digested" if number >= DIGESTS else "bundle", 3), ("change", 4)):
            controller.play(bytes.fromhex(told[name]["bytes"]))
            receipt = controller.receipt(generation, PointState.ENFORCED)
            # The digest is over what both ends must write alike.
            change = msgspec.msgpack.decode(bytes.fromhex(told["change"]["bytes"]))
            assert generation == 3 or receipt.holding.digest == change["digest"]
        assert connects(client, "10.77.0.2", 80) and not connects(client, "10.77.0.2", 81)
        controller.play(bytes.fromhex(told["ask holds"]["bytes"]))
        controller.wait(object, lambda one: getattr(one, "id", None) == 1)


@pytest.mark.parametrize("number", HISTORY)
async def test_our_controller_takes_what_an_older_agent_says_and_sends_it_what_it_knows(
    number: int, tmp_path: Path
) -> None:
    told = golden(number)
    async with running(tmp_path) as world:
        agent = await world.agent(NAME, "10.77.0.2", {"role": "web"}, newest=number)
        assert agent.connection is not None
        await world.apply("modes: [{where: role=web, mode: enforce}]\n")
        message = await agent.hear_policy()
        while isinstance(message, Bundle) and message.revision == 0:
            agent.take(message)
            await agent.report(PointState.ENFORCED)
            message = await agent.hear_policy()
        assert isinstance(message, Bundle)
        sent = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=dict[str, Any])
        assert number > 1 or set(sent) <= KNOWN_IN_1
        assert message.form == (2 if number >= DIGESTS else 1)
        agent.take(message)
        await agent.report(PointState.ENFORCED)
        for name in ("facts", "flows", "denials", "receipt relaxed", "receipt enforced"):
            await agent.connection.send(bytes.fromhex(told[name]["bytes"]))
        await agent.hear_a(Taken)

        async def seen() -> bool:
            flows = (await world.ask("GET", "/flows"))["items"]
            denials = (await world.ask("GET", "/denials"))["items"]
            facts = (await world.ask("GET", f"/workloads/{NAME}"))["facts"]
            return bool(flows) and bool(denials) and facts["hostname"] == "web-1" and facts["foreign"] == ["ip filter"]

        await until(seen)
        await agent.close()


async def test_a_welcome_names_the_number_that_both_speak(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        for number in HISTORY:
            agent = await world.agent(f"w{number}", f"10.77.1.{number}", newest=number)
            await agent.close()
            welcome = await agent.connect()
            assert isinstance(welcome, Welcome) and welcome.protocol == number
            await agent.close()
