"""One simulated agent: the real protocol over real TLS, and a kernel that takes whatever is signed.

    connect ─ TLS 1.3, its own certificate ─ HTTP upgrade ─ Hello ─ Welcome ─ Facts ─┐
    Receipt ◀── verify the signature, work out the digest ◀── Bundle | MemberChange ◀┘

Of every bundle the digest is worked out from its bytes. When there is nothing else to do its signature is verified, and
one agent of `Wits.every` reads what it got as the real agent does, and compares: a real agent has a processor of its
own for that, and here ten thousand share one. What many agents are told alike is read once.
"""

from __future__ import annotations

import os
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from socket import socket
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from websockets.speedups import apply_mask  # pyright: ignore[reportMissingModuleSource]

from cellwall.wire import (
    AGENT_PATH,
    NEWEST,
    Bundle,
    Confirmed,
    Facts,
    FromAgent,
    FromController,
    Hello,
    Holding,
    MemberChange,
    PointState,
    Receipt,
    Rejected,
    Taken,
    Welcome,
    apply_change,
    content_hash,
    decode_from_controller,
    decode_members,
    decode_orders,
    decode_ruleset,
    digest,
    digest_of,
    encode,
    signed_part,
    sum_members,
)
from tests.bench.fleet_sim_keys import VERSION

READ = 1 << 16
UPGRADE = (
    f"GET {AGENT_PATH} HTTP/1.1\r\nHost: controller\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()
FIELDS = 9
"""Of a ruleset as it is sent; its orders come after them."""
BINARY, CLOSE, PING, PONG = 2, 8, 9, 10


class Stage(Enum):
    """How far a connection is."""

    AWAY = 0
    CONNECTING = 1
    SHAKING = 2
    ASKING = 3
    GREETING = 4
    UP = 5


class Lost(Exception):
    """The connection is of no use any more; says why."""


class Members:
    """Members as many agents hold them: read once, with the sum that stands for them."""

    __slots__ = ("after", "flat", "sum")

    def __init__(self, flat: dict[bytes, int]) -> None:
        self.flat = flat
        self.sum = sum_members(flat)
        self.after: dict[tuple[bytes, tuple[bytes, ...]], Members] = {}

    def changed(self, added: bytes, removed: tuple[bytes, ...]) -> Members:
        """Give the members after a change."""
        key = (added, removed)
        if key not in self.after:
            if len(self.after) > 16:
                self.after.clear()
            self.after[key] = Members(apply_change(self.flat, decode_members(added) if added else {}, removed))
        return self.after[key]


@lru_cache(maxsize=4096)
def members_of(data: bytes) -> Members:
    """Read members, once for all that are sent the same."""
    return Members(decode_members(data))


@lru_cache(maxsize=4096)
def content_of(data: bytes) -> tuple[bytes, bytes]:
    """Give what `content_hash` gives of the ruleset in `data`, from its bytes, and its orders."""
    row: list[Any] = msgspec.msgpack.decode(data)
    row[1] = 0
    for rule in row[3]:
        rule[5] = ""
    orders: bytes = b"".join(row[FIELDS:])
    return sha256(msgspec.msgpack.encode(row[:FIELDS])).digest(), orders


@dataclass(slots=True)
class Wits:
    """What all agents know alike, and where they tell what happens."""

    key: Ed25519PublicKey
    every: int = 50
    tell: Callable[[Agent, str], None] = field(default=lambda agent, what: None)
    undone: deque[Callable[[], None]] = field(default_factory=deque[Callable[[], None]])
    """What is left to do when there is nothing else."""
    verified: int = 0
    compared: int = 0

    def do_some(self, most: int) -> None:
        """Do what is left, the oldest first. Raises where something is wrong: then the bench has found something."""
        for _ in range(min(most, len(self.undone))):
            self.undone.popleft()()

    def verify(self, message: Bundle | MemberChange) -> None:
        """Verify a signature."""
        self.key.verify(message.signature, signed_part(message))
        self.verified += 1

    def compare(self, ruleset: bytes, content: bytes, orders: bytes, members: Members, held: str) -> None:
        """Read as the real agent does, and compare."""
        read = replace(decode_ruleset(ruleset), orders=decode_orders(orders))
        assert digest(read, members.flat) == held
        assert content_hash(read) == content
        self.compared += 1


class Agent:
    """An agent and its connection, if it has one; whoever drives it says when the socket can be read or written."""

    __slots__ = (
        "address", "came", "content", "generation", "highest", "members", "mute", "name", "number", "orders", "out",
        "pinged", "raw", "received", "revision", "ruleset", "scraps", "session", "stage", "taken", "tls", "tries",
        "waiting", "wits",
    )  # fmt: skip

    def __init__(self, number: int, name: str, address: bytes, wits: Wits) -> None:
        self.number, self.name, self.address, self.wits = number, name, address, wits
        self.stage = Stage.AWAY
        self.raw: socket | None = None
        self.tls: ssl.SSLSocket | None = None
        self.session: ssl.SSLSession | None = None
        self.out: bytes = b""
        self.scraps: bytes = b""
        self.generation: int = 0
        self.highest: int = 0
        self.revision: int = 0
        self.ruleset: bytes = b""
        self.content: bytes = b""
        self.orders: bytes = b""
        self.members: Members | None = None
        self.tries = 0
        self.came = self.received = self.pinged = 0.0
        self.taken = 0
        self.waiting: dict[str, bytes] = {}
        self.mute = False

    # --- the connection ---

    def begin(self, raw: socket) -> None:
        """A connection is being made."""
        self.raw, self.stage, self.came = raw, Stage.CONNECTING, time.monotonic()

    def wrapped(self, tls: ssl.SSLSocket) -> None:
        """TCP stands; TLS begins."""
        self.tls, self.stage = tls, Stage.SHAKING

    def drop(self) -> None:
        """Be away; what is held is kept."""
        for one in (self.tls, self.raw):
            if one is not None:
                one.close()
        self.tls = self.raw = None
        self.out, self.scraps = b"", b""
        self.stage = Stage.AWAY
        self.waiting.clear()

    def turn(self) -> None:
        """Do what the socket allows. Raises `Lost`."""
        tls = self.tls
        if tls is None:
            return
        try:
            if self.stage is Stage.SHAKING:
                tls.do_handshake()
                self.stage = Stage.ASKING
                self._write(UPGRADE)
            if self.out:
                self.flush()
            while not self.mute:
                data = tls.recv(READ)
                if not data:
                    raise Lost("closed")
                self._read(data)
                if len(data) < READ and not tls.pending():
                    break
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            raise Lost(f"{type(error).__name__}: {error}") from None

    def flush(self) -> None:
        """Write what waits. Raises `Lost`."""
        assert self.tls is not None
        try:
            while self.out:
                sent = self.tls.send(self.out)
                self.out = self.out[sent:]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            raise Lost(f"{type(error).__name__}: {error}") from None

    def _write(self, data: bytes) -> None:
        self.out += data
        self.flush()

    def say(self, message: FromAgent) -> None:
        """Say something. Raises `Lost`."""
        self.send(encode(message))

    def send(self, data: bytes) -> None:
        """Send a message. Raises `Lost`."""
        self._write(frame(BINARY, data))

    def ping(self) -> None:
        """See whether the controller is there. Raises `Lost`."""
        self._write(frame(PING, b"1234"))

    def _read(self, data: bytes) -> None:
        data = self.scraps + data if self.scraps else data
        if self.stage is Stage.ASKING:
            head, blank, data = data.partition(b"\r\n\r\n")
            if not blank:
                self.scraps = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                raise Lost(head.split(b"\r\n")[0].decode())
            self.stage = Stage.GREETING
            held = self.holding()
            self.say(Hello(name=self.name, version=VERSION, newest=NEWEST, holding=held, highest=self.highest))
        at = 0
        while (end := frame_end(data, at)) is not None:
            kind, start, stop = end
            self._frame(kind, data[start:stop])
            at = stop
        self.scraps = data[at:]

    def _frame(self, kind: int, data: bytes) -> None:
        if kind == BINARY:
            self._hear(decode_from_controller(data))
        elif kind == PING:
            self._write(frame(PONG, data))
        elif kind == CLOSE:
            raise Lost("closed")

    # --- the protocol ---

    def holding(self) -> Holding:
        """What it holds."""
        if self.members is None:
            return Holding()
        held = digest_of(self.content, self.members.sum, self.orders)
        return Holding(generation=self.generation, revision=self.revision, digest=held)

    def _hear(self, message: FromController) -> None:
        match message:
            case Welcome():
                self.stage, self.tries = Stage.UP, 0
                self.say(Facts(addresses=(self.address,), hostname=self.name, os="sim", kernel="6.1", nft="1.0.6"))
                self.wits.tell(self, "welcome")
            case Bundle() | MemberChange():
                self._take(message)
            case Confirmed():
                if message.generation == self.generation:
                    self._receipt(PointState.ENFORCED)
            case Taken():
                if self.waiting.pop(message.batch, None) is not None:
                    self.taken += 1
                    self.wits.tell(self, "taken")
            case Rejected():
                raise Lost(f"rejected: {message.reason}")
            case _:
                pass

    def _take(self, message: Bundle | MemberChange) -> None:
        wits = self.wits
        wits.undone.append(lambda: wits.verify(message))
        assert message.workload == self.name
        assert message.generation > self.highest, f"{self.name}: {message.generation} after {self.highest}"
        if isinstance(message, Bundle):
            self.ruleset = message.ruleset if self.number % wits.every == 0 else b""
            self.content, self.orders = content_of(message.ruleset)
            self.members = members_of(message.members)
        else:
            assert self.members is not None
            assert message.base == self.generation
            if message.added or message.removed:
                self.members = self.members.changed(message.added, message.removed)
            if message.orders is not None:
                self.orders = message.orders
        self.generation = self.highest = message.generation
        self.revision = message.revision
        holding = self.holding()
        if isinstance(message, MemberChange):
            assert message.digest == holding.digest, f"{self.name} went astray"
        if self.ruleset:
            held = self.ruleset, self.content, self.orders, self.members, holding.digest
            wits.undone.append(lambda: wits.compare(*held))
        provisional = isinstance(message, Bundle) and message.confirm_s > 0
        self._receipt(PointState.PROVISIONAL if provisional else PointState.ENFORCED)

    def _receipt(self, state: PointState) -> None:
        self.say(Receipt(generation=self.generation, state=state, holding=self.holding(), at=time.time()))
        self.received = time.time()
        self.wits.tell(self, state.value)


def frame(kind: int, data: bytes) -> bytes:
    """Write a client's frame (RFC 6455, 5.2)."""
    size, mask = len(data), os.urandom(4)
    if size < 126:
        head = bytes((0x80 | kind, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((0x80 | kind, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | kind, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + mask + apply_mask(data, mask)


def frame_end(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Give kind, start and end of the payload of a server's frame at `at`; None while it is not all there."""
    if len(data) < at + 2:
        return None
    kind, size, start = data[at], data[at + 1], at + 2
    assert kind & 0x80, "a controller sends whole messages"
    if size == 126:
        start, size = at + 4, int.from_bytes(data[at + 2 : at + 4], "big")
    elif size == 127:
        start, size = at + 10, int.from_bytes(data[at + 2 : at + 10], "big")
    if len(data) < start + size:
        return None
    return kind & 0x0F, start, start + size
