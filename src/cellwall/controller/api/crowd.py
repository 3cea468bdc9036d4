"""How many may stand before the people's face, and how long: nobody who says nothing keeps others out.

connect ─ Crowd: not too many, nor too many of one address ─ TLS: within a while ─ Peer: a request's head within a while
"""

from __future__ import annotations

import asyncio
import pwd
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cellwall.controller.access.people import subnet

MOST_HERE, MOST_EACH = 450, 100
"""So many connections are open at once, and so many from one IPv4 address or IPv6 network."""
SHAKING_S, ASKING_S, TAKING_S = 10.0, 15.0, 60.0
"""How long a TLS handshake, a request's head, and reading on in an answer may take."""


class _Guest(socket.socket):
    """A connection that was let in, which tells when it ends."""

    left: Callable[[], None] | None = None

    def close(self) -> None:
        """Close it."""
        super().close()
        if self.left is not None:
            left, self.left = self.left, None
            left()


class Crowd(socket.socket):
    """A listening socket that lets in no more than it should, and hangs up on who does not finish TLS in time."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(fileno=listener.detach())
        self._each: Counter[str] = Counter()
        self._shaking: dict[int, tuple[float, _Guest]] = {}
        self.turned_away = 0
        """How many were not let in, as there were too many."""

    @property
    def here(self) -> int:
        """How many connections are open."""
        return self._each.total()

    def accept(self) -> tuple[socket.socket, Any]:
        """Let the next one in; who is one too many is hung up on. Raises as a socket does when nobody waits."""
        while True:
            raw, address = super().accept()
            self._hurry()
            key = subnet(str(address[0]))
            if self.here >= MOST_HERE or self._each[key] >= MOST_EACH:
                self.turned_away += 1
                raw.close()
                continue
            guest = _Guest(fileno=raw.detach())
            number = guest.fileno()
            self._each[key] += 1
            self._shaking[number] = monotonic(), guest
            guest.left = lambda key=key, guest=guest, number=number: self._left(key, guest, number)
            return guest, address

    def greeted(self, number: int) -> None:
        """Take note that TLS is done on the connection with this file number."""
        self._shaking.pop(number, None)

    def _hurry(self) -> None:
        """Hang up on whose handshake takes too long, the oldest first."""
        before = monotonic() - SHAKING_S
        for number, (since, guest) in tuple(self._shaking.items()):
            if since > before:
                return
            del self._shaking[number]
            with suppress(OSError):
                guest.shutdown(socket.SHUT_RDWR)

    def _left(self, key: str, guest: _Guest, number: int) -> None:
        self._each[key] -= 1
        if not self._each[key]:
            del self._each[key]
        if self._shaking.get(number, (0.0, None))[1] is guest:
            del self._shaking[number]


class Peer(H11Protocol):
    """HTTP that does not wait for ever; at a Unix socket its client is the user at the other end (unix(7),
    SO_PEERCRED)."""

    def __init__(self, crowd: Crowd | None, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._crowd = crowd
        self._waiting: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin."""
        super().connection_made(transport)
        peer: socket.socket | None = transport.get_extra_info("socket")
        if peer is not None and peer.family == socket.AF_UNIX:
            pid, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            self.client = (_user(uid), pid)
        elif peer is not None and self._crowd is not None:
            self._crowd.greeted(peer.fileno())
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came; a request whose head is not all there is not waited for longer than a while."""
        super().data_received(data)
        self._wait()

    def pause_writing(self) -> None:
        """Take note that nobody reads the answer."""
        super().pause_writing()
        self._stuck = self._stuck or self.loop.call_later(TAKING_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Take note that somebody reads on."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        for timer in (self._waiting, self._stuck):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        heading = self.conn.their_state is h11.IDLE
        if heading and self._waiting is None:
            self._waiting = self.loop.call_later(ASKING_S, self.transport.abort)
        elif not heading and self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
