"""The agents' port, with real sockets and TLS: who does not read or speak, or speaks nonsense, harms nobody else."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from time import time

import pytest
from tests.bench.fleet_sim_agent import UPGRADE, frame

from cellwall.controller.api import lines
from cellwall.controller.api.lines import Line, Lines
from cellwall.controller.trust.ca import open_authority

BIG = 8 * 1024 * 1024


@dataclass
class Echo:
    """Answers every message: with itself, or, where it begins with `!`, with much more."""

    port: Lines | None = None
    left: list[str] = field(default_factory=list[str])

    def authority(self) -> str:
        return "the CA"

    def ready(self) -> bool:
        return True

    def enrol(self, body: bytes, peer: str) -> tuple[HTTPStatus, bytes]:
        return HTTPStatus.OK, body

    def admit(self, line: Line) -> tuple[HTTPStatus, str] | None:
        line.name = f"agent-{line.number}"
        return None

    def adopt(self, line: Line, wanted: str) -> tuple[HTTPStatus, str] | None:
        return HTTPStatus.NOT_FOUND, f"there is no {wanted}"

    def heard(self, line: Line, data: bytes | str) -> None:
        assert self.port is not None
        if not line.greeted:
            self.port.greeted(line)
        assert isinstance(data, bytes)
        self.port.send(line, bytes(BIG) if data.startswith(b"!") else data)

    def gone(self, line: Line) -> None:
        self.left.append(line.name)


@dataclass
class Port:
    """A port, and how to come to it."""

    host: Echo
    lines: Lines
    number: int
    context: ssl.SSLContext

    async def come(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number, ssl=self.context, limit=1 << 16)
        writer.write(UPGRADE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        return reader, writer


@pytest.fixture
async def port(tmp_path: Path) -> AsyncGenerator[Port]:
    authority = open_authority(tmp_path / "keys", time())
    listener = socket.create_server(("127.0.0.1", 0))
    number = int(listener.getsockname()[1])
    host = Echo()
    host.port = Lines(host, authority.server_context(("127.0.0.1",), time()), listener, lambda *_, **__: None)
    yield Port(host, host.port, number, ssl.create_default_context(cadata=authority.pem))
    host.port.close()


async def hear(reader: asyncio.StreamReader) -> bytes:
    """Read a short frame of the server, which pings too."""
    while True:
        kind, size = await reader.readexactly(2)
        data = await reader.readexactly(size)
        if kind == 0x82:
            return data


async def settled(true: Callable[[], bool], seconds: float = 8.0) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not true():
        assert loop.time() < deadline
        await asyncio.sleep(0.05)


async def test_who_reads_nothing_is_hung_up_on_and_its_memory_is_given_back(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "STALLED_S", 1.0)
    reader, writer = await port.come()
    slow, mute = await port.come()
    # Its reader's buffer fills, then the sockets', then ours.
    mute.write(frame(2, b"!") * 2)
    await settled(lambda: port.lines.waiting > BIG)
    # Somebody else is served meanwhile.
    writer.write(frame(2, b"hello"))
    assert await hear(reader) == b"hello"
    await settled(lambda: port.lines.dropped["too slow"] == 1)
    assert port.lines.waiting == 0
    assert len(port.host.left) == 1
    writer.write(frame(2, b"again"))
    assert await hear(reader) == b"again"
    del slow
    mute.close()
    writer.close()


async def test_who_never_greets_is_hung_up_on(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "GREETING_S", 0.5)
    silent = socket.create_connection(("127.0.0.1", port.number))
    await settled(lambda: port.lines.young == 1)
    await settled(lambda: port.lines.dropped["not greeted"] == 1)
    assert port.lines.young == 0
    silent.close()


@pytest.mark.parametrize("said", [b"\xff" * 64, frame(3, b"?"), b"\x82\x02hi", frame(9, bytes(200))])
async def test_frames_that_are_none_end_their_own_connection_alone(port: Port, said: bytes) -> None:
    reader, writer = await port.come()
    other, wrong = await port.come()
    wrong.write(said)
    async with asyncio.timeout(8):
        with suppress(ConnectionError):
            await other.read()
    writer.write(frame(2, b"hello"))
    assert await hear(reader) == b"hello"
    wrong.close()
    writer.close()


async def test_a_message_in_pieces_is_one_message(port: Port) -> None:
    reader, writer = await port.come()
    whole = frame(2, b"ab")
    first, second = bytearray(frame(2, b"ab")), bytearray(frame(0, b"cd"))
    first[0] &= 0x7F
    for byte in (*first, *second, *whole):
        writer.write(bytes((byte,)))
        await writer.drain()
    assert await hear(reader) == b"abcd"
    assert await hear(reader) == b"ab"
    writer.close()


async def test_while_hundreds_shake_hands_who_is_connected_is_served(port: Port) -> None:
    reader, writer = await port.come()
    crowd = [asyncio.create_task(port.come()) for _ in range(100)]
    answered = 0
    while not all(one.done() for one in crowd):
        writer.write(frame(2, b"hello"))
        assert await hear(reader) == b"hello"
        answered += 1
    assert answered > 3
    for one in crowd:
        one.result()[1].close()
    writer.close()
