"""The TLS port: the CA for all, enrolment for who has a token, and the channel for who has a certificate.

accept ─ TLS (client certificate asked for) ─┬─ POST /v1/enroll ── one answer, and the end
                                             ├─ GET /v1/ca ─────── one answer, and the end
                                             └─ GET /v1/agent ──── WebSocket: Hello, then both speak
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from asyncio import Future, Queue, Task
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from cellwall.controller.api.intake import Intake
from cellwall.controller.control import Control
from cellwall.controller.errors import ControllerError, Denied, NotFound, NotReady
from cellwall.controller.store.flows import FlowStore
from cellwall.inventory import InventoryError
from cellwall.traffic import CellwallError
from cellwall.wire import (
    AGENT_PATH,
    AUTHORITY_PATH,
    ENROL_PATH,
    MOST_ENROLMENT,
    MOST_FROM_AGENT,
    Answer,
    Ask,
    Counters,
    Denials,
    Facts,
    Flows,
    FromAgent,
    FromController,
    HeldVerdict,
    Hello,
    Holds,
    PointState,
    Receipt,
    Rejected,
    Renew,
    ShowCounters,
    ShowTable,
    TableText,
    Taken,
    WireError,
    decode_enrol,
    decode_from_agent,
    encode,
    workload_of,
)

PING_EVERY_S, HELLO_S, ASK_S = 20.0, 15.0, 5.0
PUSH_AT_ONCE = 250
WAITING_BATCHES = 4
"""So many batches of flows of one agent wait for the store; then we stop reading from it."""

# Port scans and clients that go away are not news: what matters is logged by us.
_QUIET = logging.getLogger("cellwall.controller.websockets")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


@dataclass
class Line:
    """One connected agent."""

    name: str
    socket: ServerConnection
    flows: Queue[Flows] = field(default_factory=lambda: Queue[Flows](WAITING_BATCHES))
    asked: dict[int, Future[Answer]] = field(default_factory=dict[int, "Future[Answer]"])
    sending: Task[None] | None = None


class Channel:
    """The agents' side of a controller.

    `changed` is called when something must be compiled anew, `heard` when a point stands differently than before.
    """

    def __init__(
        self,
        control: Control,
        flows: FlowStore,
        clock: Callable[[], float],
        changed: Callable[[], None],
        heard: Callable[[], None],
    ) -> None:
        self._control = control
        self.intake = Intake(flows, control.log)
        self._clock = clock
        self._changed = changed
        self._heard = heard
        self._lines: dict[str, Line] = {}
        self._number = 0

    async def listen(self, context: ssl.SSLContext, listener: socket.socket) -> Server:
        """Begin to listen on a bound socket."""
        return await serve(
            self._talk,
            sock=listener,
            ssl=context,
            process_request=self._first_words,
            create_connection=self._door(),
            ping_interval=PING_EVERY_S,
            ping_timeout=PING_EVERY_S,
            # A compressor for each of thousands of agents costs more than the bytes that it saves.
            compression=None,
            max_size=MOST_FROM_AGENT,
            max_queue=8,
            open_timeout=HELLO_S,
            close_timeout=2,
            server_header=None,
            logger=_QUIET,
        )

    @property
    def connected(self) -> frozenset[str]:
        """The names of the agents that are connected."""
        return frozenset(self._lines)

    async def push(self) -> None:
        """Send every connected agent what it is to have, where that is something new."""
        names = tuple(self._lines)
        for start in range(0, len(names), PUSH_AT_ONCE):
            some = [name for name in names[start : start + PUSH_AT_ONCE] if name in self._lines]
            for name, message in self._control.next_messages(some, self._clock()).items():
                self._send(self._lines[name], message)
            # Whoever waits for the loop is let in between.
            await asyncio.sleep(0)

    async def ask(self, name: str, question: Holds | ShowTable | ShowCounters) -> HeldVerdict | TableText | Counters:
        """Ask an agent. Raises `NotReady` when it is away or does not answer, and `ControllerError` when it cannot."""
        line = self._lines.get(name)
        if line is None:
            raise NotReady(f"the agent of `{name}` is not connected")
        self._number += 1
        number, waiting = self._number, asyncio.get_running_loop().create_future()
        line.asked[number] = waiting
        try:
            await line.socket.send(encode(Ask(id=number, question=question)))
            async with asyncio.timeout(ASK_S):
                answer: Answer = await waiting
        except (TimeoutError, ConnectionClosed):
            raise NotReady(f"the agent of `{name}` did not answer within {ASK_S:g} s") from None
        finally:
            line.asked.pop(number, None)
        if isinstance(answer.answer, HeldVerdict | TableText | Counters):
            return answer.answer
        raise ControllerError(f"the agent of `{name}` cannot say: {answer.answer.reason}")

    def hang_up(self, name: str) -> None:
        """End the connection of an agent that may no longer come."""
        line = self._lines.pop(name, None)
        if line is not None:
            line.socket.transport.abort()

    # --- the first request ---

    def _door(self) -> type[ServerConnection]:
        class Door(_Door):
            answer = staticmethod(self._enrol)

        return Door

    def _enrol(self, body: bytes) -> tuple[HTTPStatus, bytes]:
        try:
            reply = self._control.enrol(decode_enrol(body), self._clock())
        except (WireError, ControllerError, InventoryError) as error:
            self._control.log("enrolment refused", why=str(error))
            return HTTPStatus.FORBIDDEN, encode(Rejected(reason=str(error)))
        except CellwallError as error:
            self._control.log("enrolment failed", why=str(error))
            return HTTPStatus.SERVICE_UNAVAILABLE, encode(Rejected(reason=str(error), again=True))
        self._control.log("enrolled", workload=reply.name)
        self.hang_up(reply.name)
        self._changed()
        return HTTPStatus.OK, encode(reply)

    def _first_words(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == AUTHORITY_PATH:
            response = connection.respond(HTTPStatus.OK, self._control.authority.pem)
            response.headers["Content-Type"] = "application/x-pem-file"
            return response
        if request.path != AGENT_PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"wanted {AUTHORITY_PATH}, {ENROL_PATH} or {AGENT_PATH}\n")
        try:
            self._control.admit(*_who(connection))
        except Denied as error:
            return connection.respond(HTTPStatus.FORBIDDEN, f"{error}\n")
        except CellwallError as error:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
        return None

    # --- the channel ---

    async def _talk(self, connection: ServerConnection) -> None:
        name, _ = _who(connection)
        line = Line(name, connection)
        storing = asyncio.create_task(self._store(line))
        try:
            await self._begin(line)
            async for data in connection:
                await self._take(line, _decoded(data))
        except (ConnectionClosed, TimeoutError):
            pass
        except CellwallError as error:
            self._control.log("agent rejected", workload=name, why=str(error))
            with suppress(ConnectionClosed):
                again = not isinstance(error, WireError | NotFound)
                await connection.send(encode(Rejected(reason=str(error)[:1000], again=again)))
        finally:
            storing.cancel()
            if line.sending is not None:
                line.sending.cancel()
            if self._lines.get(name) is line:
                del self._lines[name]
                self._control.bye(name, self._clock())
                self._control.log("agent left", workload=name)

    async def _begin(self, line: Line) -> None:
        async with asyncio.timeout(HELLO_S):
            first = _decoded(await line.socket.recv())
        if not isinstance(first, Hello):
            raise WireError("an agent speaks first, and says hello")
        welcome = self._control.hello(line.name, first, self._clock())
        older = self._lines.get(line.name)
        self._lines[line.name] = line
        if older is not None:
            older.socket.transport.abort()
        await line.socket.send(encode(welcome))
        self._control.log("agent came", workload=line.name, version=first.version, holds=first.holding.generation)
        self._push(line)

    async def _take(self, line: Line, message: FromAgent) -> None:
        if self._lines.get(line.name) is not line:
            raise WireError("a newer connection took the place of this one")
        now, reply = self._clock(), None
        match message:
            case Receipt():
                reply = self._control.receipt(line.name, message, now)
                self._heard()
                if message.state is PointState.REVERTED:
                    # At once: whatever this point says next must not hide it.
                    self._control.judge_rollout(now)
                    if self._control.stale:
                        self._changed()
                self._push(line)
            case Facts():
                self._control.facts(line.name, message, now)
                if self._control.stale:
                    self._changed()
            case Flows():
                await line.flows.put(message)
            case Denials():
                self._control.denials(line.name, message)
            case Answer():
                waiting = line.asked.get(message.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Renew():
                reply = self._control.renew(line.name, message.request, now)
            case Hello():
                raise WireError("an agent says hello once")
        if reply is not None:
            await line.socket.send(encode(reply))

    def _push(self, line: Line) -> None:
        for message in self._control.next_messages([line.name], self._clock()).values():
            self._send(line, message)

    def _send(self, line: Line, message: FromController) -> None:
        """Send in a task of its own: a slow agent holds up nobody. There is never more than one for an agent, as the
        next one is only due when it has answered."""
        line.sending = asyncio.create_task(_deliver(line.socket, encode(message)))

    async def _store(self, line: Line) -> None:
        with suppress(ConnectionClosed):
            while True:
                flows = await line.flows.get()
                if not await self.intake.store(line.name, flows):
                    # Not taken: the agent keeps it and sends it again.
                    continue
                if flows.lost or flows.dropped:
                    self._control.log("flows lost", workload=line.name, lost=flows.lost, dropped=flows.dropped)
                await line.socket.send(encode(Taken(batch=flows.batch)))


class _Door(ServerConnection):
    """A connection of which the first bytes say whether it is an enrolment's POST or websockets' business.

    websockets reads GET requests only.
    """

    answer: Callable[[bytes], tuple[HTTPStatus, bytes]]
    """Gives the status and the body that answer a posted body."""

    _posted: bytearray | None = None
    _looked = False

    def data_received(self, data: bytes) -> None:
        """Take what arrives."""
        if not self._looked:
            self._looked = True
            self._posted = bytearray() if data.startswith(b"POST") else None
        if self._posted is None:
            super().data_received(data)
            return
        self._posted += data
        answer = self._post(bytes(self._posted))
        if answer is not None and not self.transport.is_closing():
            status, body = answer
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/msgpack\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

    def _post(self, data: bytes) -> tuple[HTTPStatus, bytes] | None:
        """Answer a request, or give None while it is not all there (RFC 9112)."""
        head, blank, body = data.partition(b"\r\n\r\n")
        if not blank:
            return (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"") if len(data) > 16_384 else None
        first, *fields = head.decode("latin-1").split("\r\n")
        if first.split(" ")[1:2] != [ENROL_PATH]:
            return HTTPStatus.NOT_FOUND, b""
        headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()):
            return HTTPStatus.LENGTH_REQUIRED, b""
        if int(length) > MOST_ENROLMENT:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b""
        return self.answer(body[: int(length)]) if len(body) >= int(length) else None


async def _deliver(connection: ServerConnection, data: bytes) -> None:
    with suppress(ConnectionClosed):
        await connection.send(data)


def _decoded(data: bytes | str) -> FromAgent:
    if isinstance(data, str):
        raise WireError("a text message; all of ours are binary")
    return decode_from_agent(data)


def _who(connection: ServerConnection) -> tuple[str, str]:
    """Give the name in the client's certificate, which TLS has checked, and its serial number. Raises `Denied`."""
    tls: ssl.SSLObject | None = connection.transport.get_extra_info("ssl_object")
    shown: dict[str, Any] = (tls.getpeercert() if tls is not None else None) or {}
    uris = [value for kind, value in shown.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        raise Denied("an agent shows a certificate that names one workload; enrol first")
    try:
        # `ssl` writes the serial number with leading zeros to whole bytes.
        return workload_of(uris[0]), f"{int(shown.get('serialNumber', '0'), 16):x}"
    except (WireError, ValueError) as error:
        raise Denied(f"the certificate names no workload: {error}") from None
