"""The agents' connections: TLS and WebSocket on non-blocking sockets, without a task or a buffer for each of thousands.

accept ─ handshakes, in order, a few milliseconds a turn ─┬─ POST /v1/enroll ── one answer, and the end
 (the kernel queues the others)                           ├─ GET /v1/ca ─────── one answer, and the end
                                                          ├─ GET /v1/controller  given away: see `neighbours.py`
                                                          ├─ GET /v1/health ─── one answer, and the end
                                                          └─ GET /v1/agent ──── WebSocket: messages, both ways

A storm of connections costs processor time that nobody can save; it is spent in slices, so that whoever is connected
is served in between, and on those that came first, so that they are done before they lose patience. Who does not read
what it is sent, or is silent, is hung up on; what waits to be written is bounded for all together (`Lines.waiting`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from time import monotonic
from typing import Protocol

from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from cellwall.controller.api.frames import BINARY, CLOSE, PING, PONG, TEXT, Frames, Nonsense, frame
from cellwall.controller.api.neighbours import NAME as CONTROLLER_NAME
from cellwall.controller.api.neighbours import PATH as CONTROLLER_PATH
from cellwall.controller.api.posted import answered, posted
from cellwall.traffic import Address, AddressError, parse_address
from cellwall.wire import AGENT_PATH, AUTHORITY_PATH, ENROL_PATH, HEALTH_PATH, MOST_FROM_AGENT, Rejected, encode

PING_EVERY_S, SILENT_S, STALLED_S, GREETING_S = 20.0, 45.0, 20.0, 15.0
"""Every agent is pinged so often; hung up on when silent, when it reads nothing of what waits for it, and when it has
not said hello, for so long."""
IMPATIENT_S = 5.0
"""So long the next bytes of a greeting are waited for while the room for greetings is full."""
LEAST_ROOM, IN_TIME_S, GIVEN_UP_S = 64, 3.0, 9.0
"""So many handshakes may be under way at least, and as many as are done in so many seconds; who has waited for its
first step for so long has given up, and nothing is spent on it."""
SLICE_S = 0.01
"""So long the loop does handshakes before it looks after those that are connected."""
ACCEPT_AT_ONCE, MOST_YOUNG, BACKLOG = 32, 1024, 2048
"""So many connections are accepted in a turn, and so many at most are not greeted yet; the kernel keeps the others."""
MOST_OWED = 1 << 16
"""Who has so many bytes to read gets no answers to its pings."""
READ, WRITE_AT_ONCE = 1 << 16, 1 << 18
_OVER = (State.CLOSING, State.CLOSED)
NO_FILES_PAUSE_S, LINGER_S = 0.2, 2.0

# Port scans and clients that go away are not news: what matters is logged by us.
QUIET = logging.getLogger("cellwall.controller.websockets")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


class Stage(Enum):
    """How far a connection has come."""

    SHAKING = "tls"
    ASKING = "http"
    OPEN = "open"
    ENDING = "ending"
    LINGERING = "lingering"
    CLOSED = "closed"


class Host(Protocol):
    """Whom connections speak to. Whatever it raises ends the connection."""

    def authority(self) -> str:
        """Give the CA as PEM."""
        ...

    def ready(self) -> bool:
        """Say whether all is well, for load balancers."""
        ...

    def enrol(self, body: bytes, peer: str) -> tuple[HTTPStatus, bytes]:
        """Answer a request to enrol, of whoever is at the address `peer`."""
        ...

    def admit(self, line: Line) -> tuple[HTTPStatus, str] | None:
        """Look at who asks for the channel, and name the line; or give the answer that turns it away."""
        ...

    def adopt(self, line: Line, wanted: str) -> tuple[HTTPStatus, str] | None:
        """Look at who asks as a controller for the one `wanted`, and take its connection; or give the answer."""
        ...

    def heard(self, line: Line, data: bytes | str) -> None:
        """Take a message."""
        ...

    def gone(self, line: Line) -> None:
        """Take note that a line that was admitted is gone."""
        ...


class Line:
    """One connection. `name` is the workload whose certificate it showed, once it is admitted."""

    __slots__ = (
        "batches", "began", "begun", "frames", "greeted", "heard", "name", "number", "out", "parts", "paused",
        "rests_until", "stage", "stuck", "tls", "ws",
    )  # fmt: skip

    def __init__(self, tls: ssl.SSLSocket, now: float) -> None:
        self.name = ""
        self.tls = tls
        self.number = tls.fileno()
        self.stage = Stage.SHAKING
        self.began = self.heard = now
        self.begun = self.greeted = False
        self.ws: ServerProtocol | None = None
        """Reads the request, and is gone after it."""
        self.frames = Frames(MOST_FROM_AGENT)
        self.parts = b""
        """Of a request to enrol, what has come so far."""
        self.out = bytearray()
        self.stuck = 0.0
        """Since when nothing of `out` could be written."""
        self.batches = 0
        """How many of its batches of flows wait for the store."""
        self.paused = False
        self.rests_until = 0.0


class Lines:
    """All connections of the agents' port."""

    def __init__(self, host: Host, context: ssl.SSLContext, listener: socket.socket, log: Callable[..., None]) -> None:
        self._host, self._context, self._listener, self._log = host, context, listener, log
        self._loop = asyncio.get_running_loop()
        self._young: dict[int, Line] = {}
        self._grown: dict[int, Line] = {}
        self._due: deque[Line] = deque()
        self._due_first: deque[Line] = deque()
        """Who has done a part of its handshake comes before who has done none: what was spent is not to be in vain."""
        self._begun = self._finished = 0
        """How many handshakes have begun and are not greeted, and how many were greeted since the last sweep."""
        self._room = LEAST_ROOM * 4
        self._pumping = self._accepting = False
        self._closed = False
        self._pinged = 0
        self.waiting = 0
        """How many bytes wait to be written, to all agents."""
        self.eased = asyncio.Event()
        """Set whenever some of that was written."""
        self.dropped: dict[str, int] = {"too slow": 0, "silent": 0, "not greeted": 0}
        """How many connections were ended by us, and why."""
        # A ticket for a connection to come costs more than it saves: a controller that begins again knows none of them.
        context.num_tickets = 0
        raise_file_limit()
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._accept_again()
        self._sweeper = self._loop.call_later(1.0, self._sweep)

    # --- for the channel ---

    @property
    def young(self) -> int:
        """How many connections are not greeted yet."""
        return len(self._young)

    def greeted(self, line: Line) -> None:
        """Count a line among those that are connected."""
        self._ended(line)
        line.greeted = True
        self._finished += 1
        self._young.pop(line.number, None)
        self._grown[line.number] = line
        self._accept_again()

    def send(self, line: Line, data: bytes) -> None:
        """Send a message, now or when the agent reads. To a line that is closed nothing is sent."""
        if line.stage is Stage.OPEN:
            self._write(line, frame(BINARY, data))

    def reject(self, line: Line, reason: str, *, again: bool) -> None:
        """Say why, and hang up."""
        self.send(line, encode(Rejected(reason=reason[:1000], again=again)))
        self._close(line, CloseCode.NORMAL_CLOSURE)

    def _close(self, line: Line, code: int) -> None:
        """Say goodbye, and hang up when that is written."""
        if line.stage is Stage.OPEN:
            self._write(line, frame(CLOSE, code.to_bytes(2, "big")))
        self._end(line)

    def pause(self, line: Line) -> None:
        """Read nothing from an agent for a while."""
        if not line.paused and line.stage is Stage.OPEN:
            line.paused = True
            self._loop.remove_reader(line.number)

    def resume(self, line: Line) -> None:
        """Read again."""
        if line.paused and line.stage is Stage.OPEN and monotonic() >= line.rests_until:
            line.paused = False
            line.heard = monotonic()
            self._loop.add_reader(line.number, self._readable, line)

    def rest(self, line: Line, for_s: float) -> None:
        """Read nothing from an agent for so long."""
        line.rests_until = monotonic() + for_s
        self.pause(line)
        self._loop.call_later(for_s + 0.001, self.resume, line)

    def abort(self, line: Line) -> None:
        """Hang up at once."""
        if line.stage is Stage.CLOSED:
            return
        self._loop.remove_reader(line.number)
        self._loop.remove_writer(line.number)
        was, line.stage = line.stage, Stage.CLOSED
        self._ended(line)
        self._young.pop(line.number, None)
        self._grown.pop(line.number, None)
        self._drained(len(line.out))
        line.out.clear()
        line.tls.close()
        self._accept_again()
        if line.name and was is not Stage.SHAKING:
            self._host.gone(line)

    def release(self, line: Line) -> ssl.SSLSocket:
        """Give a connection away on which nothing was said yet: it is another's from here on."""
        self._loop.remove_reader(line.number)
        line.stage = Stage.CLOSED
        self._ended(line)
        self._young.pop(line.number, None)
        self._accept_again()
        return line.tls

    def close(self) -> None:
        """Hang up on everybody, and listen no longer."""
        if self._closed:
            return
        self._closed = True
        self._sweeper.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for line in (*self._young.values(), *self._grown.values()):
            self.abort(line)

    # --- accepting ---

    def _accept_again(self) -> None:
        if not self._accepting and not self._closed and len(self._young) < MOST_YOUNG:
            self._accepting = True
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            if len(self._young) >= MOST_YOUNG:
                break
            try:
                raw, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._log("cannot accept connections", level="error", why=str(error.strerror))
                    self._stop_accepting()
                    self._loop.call_later(NO_FILES_PAUSE_S, self._accept_again)
                return
            self._take(raw)
        else:
            return
        self._stop_accepting()

    def _stop_accepting(self) -> None:
        self._accepting = False
        self._loop.remove_reader(self._listener.fileno())

    def _take(self, raw: socket.socket) -> None:
        try:
            raw.setblocking(False)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            raw.close()
            return
        line = Line(tls, monotonic())
        self._young[line.number] = line
        self._loop.add_reader(line.number, self._shake_soon, line)

    # --- the handshake ---

    def _shake_soon(self, line: Line) -> None:
        self._loop.remove_reader(line.number)
        self._loop.remove_writer(line.number)
        (self._due_first if line.begun else self._due).append(line)
        self._pump_soon()

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Do handshakes for a slice of time; the next slice comes when the loop has looked after the others."""
        until = monotonic() + SLICE_S
        while (line := self._next()) is not None:
            self._shake(line)
            if monotonic() > until:
                self._loop.call_soon(self._pump)
                return
        self._pumping = False

    def _next(self) -> Line | None:
        """Give whose handshake goes on: who has begun comes first, and no more begin than can end in time."""
        if self._due_first:
            return self._due_first.popleft()
        while self._due and self._begun < self._room:
            line = self._due.popleft()
            if line.stage is Stage.SHAKING:
                line.begun = True
                self._begun += 1
                return line
        return None

    def _ended(self, line: Line) -> None:
        """Count a line that had begun, and was not greeted yet, no longer among those."""
        if line.begun and not line.greeted:
            self._begun -= 1
            if self._due:
                self._pump_soon()

    def _shake(self, line: Line) -> None:
        if line.stage is not Stage.SHAKING:
            return
        line.heard = monotonic()
        try:
            line.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.add_reader(line.number, self._shake_soon, line)
        except ssl.SSLWantWriteError:
            self._loop.add_writer(line.number, self._shake_soon, line)
        except (OSError, ValueError):
            self.abort(line)
        else:
            line.stage = Stage.ASKING
            self._loop.add_reader(line.number, self._readable, line)
            # What came along with the end of the handshake makes the socket readable no more.
            self._readable(line)

    # --- reading ---

    def _readable(self, line: Line) -> None:
        try:
            data = line.tls.recv(READ)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except (OSError, ValueError):
            self.abort(line)
            return
        if not data:
            self.abort(line)
            return
        line.heard = monotonic()
        try:
            self._read(line, data)
        except Exception as error:  # noqa: BLE001 - the outermost turn: what one agent says must not end the others
            self._log("agent failed", level="error", workload=line.name, why=repr(error))
            self.abort(line)
            return
        if line.stage is not Stage.CLOSED and not line.paused and line.tls.pending():
            # OpenSSL holds a part of a record, of which the kernel knows nothing.
            self._loop.call_soon(self._more, line)

    def _more(self, line: Line) -> None:
        if line.stage is not Stage.CLOSED and not line.paused:
            self._readable(line)

    def _read(self, line: Line, data: bytes) -> None:
        if line.stage is Stage.OPEN:
            self._hear(line, data)
            return
        if line.ws is None:
            if line.parts or data.startswith(b"P"):
                self._posted(line, data)
                return
            line.ws = ServerProtocol(max_size=MOST_FROM_AGENT, logger=QUIET)
        ws = line.ws
        ws.receive_data(data)
        for event in ws.events_received():
            if isinstance(event, Request) and line.stage is Stage.ASKING:
                self._first_words(line, ws, event)
            else:
                # Nobody speaks before the answer.
                line.stage = Stage.ENDING
        for out in ws.data_to_send():
            if out:
                self._write(line, out)
        if ws.state is State.OPEN:
            line.ws = None
        elif line.stage is Stage.ENDING or ws.state in _OVER or ws.handshake_exc or ws.parser_exc:
            self._end(line)

    def _hear(self, line: Line, data: bytes) -> None:
        try:
            said = line.frames.feed(data)
        except Nonsense as error:
            self._close(line, error.code)
            return
        for one in said:
            if line.stage is not Stage.OPEN:
                return
            if one.kind == BINARY:
                self._host.heard(line, one.data)
            elif one.kind == TEXT:
                self._host.heard(line, one.data.decode("utf-8", "replace"))
            elif one.kind == PING and len(line.out) < MOST_OWED:
                self._write(line, frame(PONG, one.data))
            elif one.kind == CLOSE:
                self._close(line, CloseCode.NORMAL_CLOSURE)

    def _posted(self, line: Line, data: bytes) -> None:
        line.parts += data
        answer = posted(line.parts, ENROL_PATH, lambda body: self._host.enrol(body, _peer(line)))
        if answer is not None:
            line.parts = b""
            self._write(line, answered(*answer))
            self._end(line)

    def _first_words(self, line: Line, ws: ServerProtocol, request: Request) -> None:
        if request.path == AUTHORITY_PATH:
            response = ws.reject(HTTPStatus.OK, self._host.authority())
            response.headers["Content-Type"] = "application/x-pem-file"
        elif request.path == HEALTH_PATH:
            ready = self._host.ready()
            status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
            response = ws.reject(status, "ready\n" if ready else "not ready\n")
        elif request.path == CONTROLLER_PATH:
            refusal = self._host.adopt(line, request.headers.get(CONTROLLER_NAME, ""))
            if refusal is None:
                return
            response = ws.reject(*refusal)
        elif request.path != AGENT_PATH:
            response = ws.reject(HTTPStatus.NOT_FOUND, f"wanted {AUTHORITY_PATH}, {ENROL_PATH} or {AGENT_PATH}\n")
        elif (refusal := self._host.admit(line)) is not None:
            response = ws.reject(*refusal)
        else:
            response = ws.accept(request)
        ws.send_response(response)
        line.stage = Stage.OPEN if ws.state is State.OPEN else Stage.ENDING

    # --- writing ---

    def _write(self, line: Line, data: bytes) -> None:
        if line.stage is Stage.CLOSED:
            return
        sent = 0
        if not line.out:
            try:
                sent = line.tls.send(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except (OSError, ValueError):
                self.abort(line)
                return
            if sent == len(data):
                return
            line.stuck = monotonic()
            self._loop.add_writer(line.number, self._writable, line)
        line.out += data[sent:] if sent else data
        self.waiting += len(data) - sent

    def _writable(self, line: Line) -> None:
        done = 0
        try:
            while line.out and done < WRITE_AT_ONCE:
                with memoryview(line.out) as view:
                    sent = line.tls.send(view)
                del line.out[:sent]
                done += sent
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (OSError, ValueError):
            self._drained(done)
            self.abort(line)
            return
        if done:
            line.stuck = monotonic()
            self._drained(done)
        if not line.out:
            self._loop.remove_writer(line.number)
            if line.stage is Stage.ENDING:
                self._end(line)

    def _drained(self, count: int) -> None:
        if count:
            self.waiting -= count
            self.eased.set()

    def _end(self, line: Line) -> None:
        """Hang up when all is written."""
        if line.stage is Stage.CLOSED:
            return
        if line.out:
            line.stage = Stage.ENDING
            self._loop.remove_reader(line.number)
            return
        if line.stage is Stage.LINGERING:
            return
        line.stage = Stage.LINGERING
        with suppress(OSError, ValueError):
            # It tells the other end that this is the end, and would wait to be told the same.
            line.tls.unwrap()
        with suppress(OSError, ValueError):
            line.tls.shutdown(socket.SHUT_WR)
        # What it still sends is read: closing on it would take back our last words (RFC 9112, 9.6).
        self._loop.add_reader(line.number, self._discard, line)
        self._loop.call_later(LINGER_S, self.abort, line)

    def _discard(self, line: Line) -> None:
        try:
            if line.tls.recv(READ):
                return
        except BlockingIOError:
            return
        except (OSError, ValueError):
            pass
        self.abort(line)

    # --- time ---

    def _sweep(self) -> None:
        """Every second: hang up on who is too slow or silent, and ping one in `PING_EVERY_S` of the others."""
        now = monotonic()
        # While there is no room for others, who says nothing is not waited for.
        patience_s = IMPATIENT_S if self._due or len(self._young) >= MOST_YOUNG else GREETING_S
        if self._due:
            # More come than can be served: what is begun is to be done before those who wait lose patience.
            self._room = max(LEAST_ROOM, min(MOST_YOUNG, int(IN_TIME_S * self._finished)))
        self._finished = 0
        waiting = {*self._due, *self._due_first}
        for line in tuple(self._young.values()):
            mute = now - line.heard > patience_s and line not in waiting
            late = now - line.began > (GREETING_S if line.begun else GIVEN_UP_S)
            if mute or late:
                self._drop(line, "not greeted")
        turn, self._pinged = self._pinged, (self._pinged + 1) % int(PING_EVERY_S)
        for line in tuple(self._grown.values()):
            if line.out and now - line.stuck > STALLED_S:
                self._drop(line, "too slow")
            elif not line.paused and now - line.heard > SILENT_S:
                self._drop(line, "silent")
            elif line.number % int(PING_EVERY_S) == turn and line.stage is Stage.OPEN and not line.out:
                self._write(line, frame(PING, b""))
        self._sweeper = self._loop.call_later(1.0, self._sweep)

    def _drop(self, line: Line, why: str) -> None:
        self.dropped[why] += 1
        if line.name:
            self._log("agent hung up on", level="warning", workload=line.name, why=why)
        self.abort(line)


def came_from(line: Line) -> Address | None:
    """Give the address at the other end of a connection."""
    try:
        return parse_address(str(line.tls.getpeername()[0]).partition("%")[0])
    except (OSError, AddressError):
        return None


def _peer(line: Line) -> str:
    try:
        return str(line.tls.getpeername()[0])
    except OSError:
        return "nobody"


def raise_file_limit() -> None:
    """Let this process open as many files as it may: there is one for each agent."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
