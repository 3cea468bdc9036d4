"""Somebody who knocks at a closed door a hundred times a second, and somebody who talks through an open one."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.namespaces import Namespace

EVERY_S, PATIENCE_S = 0.01, 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """What was seen: attempts at the closed port and how many got in; words through the open one, the longest wait for
    an answer in seconds, and how often the conversation ended."""

    knocks: int
    entered: int
    words: int
    longest_s: float
    ended: int


@dataclass
class Probe:
    """A probe that runs in a namespace until `stop`."""

    folder: Path

    def stop(self) -> Told:
        """End it and give what it saw."""
        (self.folder / "stop").touch()
        until = time.monotonic() + 10
        while not (self.folder / "told").exists():
            assert time.monotonic() < until, "the probe does not end"
            time.sleep(0.02)
        return Told(**json.loads((self.folder / "told").read_text()))


def probe(where: Namespace, folder: Path, address: str, closed: int, spoken: int) -> Probe:
    """Begin to knock at port `closed`, and to talk to the echo at port `spoken`."""
    return _begin(where, folder, address, closed, spoken)


def knock(where: Namespace, folder: Path, address: str, closed: int) -> Probe:
    """Begin to knock at port `closed`, and nothing more: the network need not be there yet."""
    return _begin(where, folder, address, closed, 0)


def _begin(where: Namespace, folder: Path, address: str, closed: int, spoken: int) -> Probe:
    folder.mkdir()
    where.start(_probe, folder, address, closed, spoken)
    until = time.monotonic() + 10
    while not (folder / "begun").exists():
        assert time.monotonic() < until, "the probe does not begin"
        time.sleep(0.01)
    return Probe(folder)


def echo(port: int) -> None:
    """Say back what each of many says, for ever; to be run in a child."""
    import selectors

    os.closerange(3, 256)
    chooser = selectors.DefaultSelector()
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256) as server:
        chooser.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in chooser.select():
                if key.fileobj is server:
                    chooser.register(server.accept()[0], selectors.EVENT_READ)
                    continue
                talker = key.fileobj
                assert isinstance(talker, socket.socket)
                word = b""
                with suppress(OSError):
                    if word := talker.recv(64):
                        talker.sendall(word)
                if not word:
                    chooser.unregister(talker)
                    talker.close()


def _probe(folder: Path, address: str, closed: int, spoken: int) -> None:
    knocks = entered = words = ended = 0
    longest = 0.0
    waiting: list[tuple[float, socket.socket]] = []
    talk = socket.create_connection((address, spoken), 5) if spoken else None
    (folder / "begun").touch()
    while not (folder / "stop").exists():
        began = time.monotonic()
        door = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        door.connect_ex((address, closed))
        waiting.append((began, door))
        knocks += 1
        still: list[tuple[float, socket.socket]] = []
        for since, one in waiting:
            # Connected is who has a peer.
            try:
                one.getpeername()
                entered += 1
            except OSError:
                if began - since < PATIENCE_S:
                    still.append((since, one))
                    continue
            one.close()
        waiting = still
        if talk is None:
            time.sleep(EVERY_S)
            continue
        try:
            talk.sendall(b"word")
            talk.settimeout(5)
            assert talk.recv(64)
            words += 1
        except (OSError, AssertionError):
            ended += 1
            talk.close()
            with suppress(OSError):
                talk = socket.create_connection((address, spoken), 1)
        longest = max(longest, time.monotonic() - began)
        time.sleep(max(0.0, began + EVERY_S - time.monotonic()))
    told = Told(knocks, entered, words, longest, ended)
    beside = folder / "told.new"
    beside.write_text(json.dumps({name: getattr(told, name) for name in Told.__slots__}))
    beside.rename(folder / "told")
