"""A controller's folder belongs to one controller at a time."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.fleet.controller_world import running

from cellwall.controller import ControllerOptions
from cellwall.controller.api import rest
from cellwall.controller.errors import ControllerError
from cellwall.controller.loop import Controller


async def test_a_second_controller_on_a_folder_is_refused_at_once_and_the_first_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        before = {one.name: one.stat().st_ino for one in world.folder.iterdir()}
        twin = ControllerOptions(
            world.controller.options.data, "127.0.0.1:0", ("https://127.0.0.1:7443",), tmp_path / "twin.sock"
        )
        async with AsyncExitStack() as stack:
            with pytest.raises(ControllerError, match=r"another controller runs on `.*`; each wants a folder"):
                await Controller(twin).open(stack)
        assert {one.name: one.stat().st_ino for one in world.folder.iterdir()} == before
        assert (await world.ask("GET", "/status"))["audit_broken_at"] is None
    async with running(tmp_path) as world:
        assert (await world.ask("GET", "/status"))["audit_broken_at"] is None


def test_who_comes_before_the_server_takes_connections_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with rest._bind(path), socket.socket(socket.AF_UNIX) as person:  # pyright: ignore[reportPrivateUsage]
        person.connect(str(path))
