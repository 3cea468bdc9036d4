"""The doctor looks at the way to a controller before a token is spent: what is wrong is said, with what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from tests.fleet.controller_world import World, running

from cellwall.agent import Enrolment
from cellwall.agent.folder import locked
from cellwall.cli.doctor import controller as doctor_controller
from cellwall.cli.doctor.agent import agent_checks
from cellwall.cli.doctor.checks import Check
from cellwall.cli.doctor.controller import controller_checks


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as found:
        yield found


async def look(url: str, token: str = "") -> dict[str, Check]:
    return {one.name: one for one in await asyncio.to_thread(controller_checks, url, token)}


async def test_a_controller_that_is_well_is_well_and_the_token_is_not_spent(world: World) -> None:
    token = (await world.ask("POST", "/tokens", {"uses": 1}))["token"]
    found = await look(world.url, token + "\n")
    assert {name: one.state for name, one in found.items()} == dict.fromkeys(
        ("controller", "authority", "certificate", "clocks"), "ok"
    )
    (row,) = (await world.ask("GET", "/tokens"))["items"]
    assert row.get("used", 0) == 0 or row.get("uses_left", 1) == 1


async def test_an_authority_that_the_token_does_not_name_fails(world: World) -> None:
    token = (await world.ask("POST", "/tokens", {"uses": 1}))["token"]
    kind, authority, secret = token.split(".")
    found = await look(world.url, ".".join((kind, authority[::-1], secret)))
    assert found["authority"].state == "fail" and "somebody stands in between" in found["authority"].advice


async def test_a_name_that_the_certificate_is_not_for_fails(tmp_path: Path) -> None:
    async with running(tmp_path, listen="0.0.0.0:0") as world:
        other = await look(f"https://127.0.0.2:{world.controller.port}")
    assert other["certificate"].state == "fail" and "--advertise https://127.0.0.2" in other["certificate"].advice


async def test_clocks_that_disagree_are_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for off_s, state in ((0.0, "ok"), (100.0, "warn"), (-3600.0, "fail")):
        monkeypatch.setattr(doctor_controller, "time", SimpleNamespace(time=lambda off_s=off_s: time.time() + off_s))
        assert (await look(world.url))["clocks"].state == state


async def test_what_is_no_controller_or_not_there_is_said_in_one_line(world: World) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-nonsense\r\n")
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    found = await look(f"https://127.0.0.1:{port}")
    assert found["authority"].state == "fail" and "\n" not in found["authority"].says
    other.close()
    assert (await look(f"https://127.0.0.1:{port}"))["controller"].state == "fail"
    for url, token in (("http://10.0.0.1", ""), (world.url, "nonsense")):
        (only,) = (await look(url, token)).values()
        assert only.state == "fail" and not only.blocks and only.advice


async def test_an_enrolled_host_says_whether_its_agent_runs_and_which_of_its_controllers_answer(
    world: World, tmp_path: Path
) -> None:
    folder, gone = tmp_path / "agent", "https://127.0.0.1:1"
    folder.mkdir()
    (folder / "enrolment.json").write_bytes(
        msgspec.json.encode({"name": "web-1", "controller": gone, "bundle_key": b"k" * 32})
    )

    async def checked() -> dict[str, Check]:
        return {one.name: one for one in await asyncio.to_thread(agent_checks, folder)}

    alone = await checked()
    assert alone["controller"].state == "warn" and f"{gone} (connection refused)" in alone["controller"].says
    assert alone["agent"].state == "warn" and "it does not run" in alone["agent"].says
    assert "--again" in alone["credentials"].advice
    Enrolment(folder, "web-1", gone, b"k" * 32).remember((gone, world.url))
    with locked(folder):
        several = await checked()
    assert several["controller"].state == "ok" and several["controller"].says.startswith(f"{world.url} answers, but")
    assert several["agent"].state == "ok"
