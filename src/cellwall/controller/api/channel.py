"""The agents' side of a controller: what they say is taken, and what they are to hold is sent.

Lines ── a message ──▶ Channel ─┬─ receipt, hello, answer ── at once, in memory ──▶ Control
                                ├─ facts, denials ── gathered: many are one write ─▶ Control
                                ├─ flows ── Intake: many batches are one write
                                └─ who is due ── gathered: one write, then signed and sent to all of them ──▶ Lines
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import Future
from collections.abc import Awaitable, Callable, Set
from contextlib import suppress
from http import HTTPStatus
from itertools import islice
from time import monotonic
from typing import Any

from cellwall.controller.api.intake import Believe, Intake
from cellwall.controller.api.lines import Line, Lines, came_from
from cellwall.controller.api.manners import Manners
from cellwall.controller.api.neighbours import Attendants
from cellwall.controller.control import Control
from cellwall.controller.errors import ControllerError, Denied, NotFound, NotReady, StateError
from cellwall.controller.store.flows import FlowStore
from cellwall.controller.trust.testimony import credible
from cellwall.inventory import InventoryError
from cellwall.traffic import CellwallError
from cellwall.wire import (
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

ASK_S, AGAIN_S = 5.0, 1.0
GATHER_S = 0.005
"""What is to be written comes together for so long."""
ISSUE_AT_ONCE, FACTS_AT_ONCE = 1000, 250
"""So many agents' numbers, or facts, are one write."""
SEND_S = 1.0
"""So long agents are sent to before anybody else is let in: what they answer is read after it, and delays no letter."""
MOST_UNREAD = 64 * 1024 * 1024
"""While so many bytes wait for agents to read them, nobody is sent policy: copies of it fill no memory."""
MOST_DENIALS = 10_000
"""So many messages with samples of denied packets are kept for a database that is gone."""
WAITING_BATCHES = 4
"""So many batches of flows of one agent wait for the store; then we stop reading from it."""

Elsewhere = Callable[[str, Holds | ShowTable | ShowCounters], Awaitable[HeldVerdict | TableText | Counters]]


async def _nowhere(name: str, _: Holds | ShowTable | ShowCounters) -> HeldVerdict | TableText | Counters:
    raise NotReady(f"the agent of `{name}` is not connected")


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
        self.intake = Intake(flows, control.log, self._believe)
        self._clock = clock
        self._changed = changed
        self._heard = heard
        self.well = True
        self.ask_elsewhere: Elsewhere = _nowhere
        """Asks an agent that is not connected here."""
        self.attendants: Attendants | None = None
        """Answers other controllers, where there may be others."""
        self._lines: dict[str, Line] = {}
        self._asked: dict[tuple[str, int], Future[Answer]] = {}
        self._number = 0
        self._facts: dict[Line, Facts] = {}
        self._later: dict[Line, Facts] = {}
        self._manners = Manners()
        self._told: dict[str, tuple[str, ...]] = {}
        """Which controllers each agent was told of."""
        self._denials: list[tuple[str, Denials]] = []
        self._due: dict[str, None] = {}
        self._work = asyncio.Event()
        self._port: Lines | None = None
        self._clerk: asyncio.Task[None] | None = None

    async def listen(self, context: ssl.SSLContext, listener: socket.socket) -> None:
        """Begin to listen on a bound socket."""
        self._port = Lines(self, context, listener, self._control.log)
        self._clerk = asyncio.create_task(self._turn())

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._port is not None:
            self._port.close()
        if self._clerk is not None:
            self._clerk.cancel()
            await asyncio.wait([self._clerk])

    @property
    def connected(self) -> Set[str]:
        """The names of the agents that are connected, as they come and go."""
        return self._lines.keys()

    def pressure(self) -> dict[str, int]:
        """Say what waits and what was turned away, by name: to be shown to whoever looks after the controller."""
        port = self._port
        return {
            "agents_due": len(self._due),
            "facts": len(self._facts),
            "flow_batches": self.intake.waiting,
            "flow_bytes": self.intake.held,
            "flow_batches_put_off": self.intake.put_off,
            "not_greeted_yet": port.young if port else 0,
            "unread_bytes": port.waiting if port else 0,
            **({f"hung_up_{why.replace(' ', '_')}": count for why, count in port.dropped.items()} if port else {}),
        }

    async def push(self) -> None:
        """Have every connected agent sent what it is to have, where that is something new."""
        self._due.update(dict.fromkeys(self._lines))
        self._work.set()

    async def ask(self, name: str, question: Holds | ShowTable | ShowCounters) -> HeldVerdict | TableText | Counters:
        """Ask an agent. Raises `NotReady` when it is away or does not answer, and `ControllerError` when it cannot."""
        line = self._lines.get(name)
        if line is None:
            return await self.ask_elsewhere(name, question)
        self._number += 1
        key, waiting = (name, self._number), asyncio.get_running_loop().create_future()
        self._asked[key] = waiting
        try:
            self._say(line, Ask(id=self._number, question=question))
            async with asyncio.timeout(ASK_S):
                answer: Answer = await waiting
        except TimeoutError:
            raise NotReady(f"the agent of `{name}` did not answer within {ASK_S:g} s") from None
        finally:
            del self._asked[key]
        if isinstance(answer.answer, HeldVerdict | TableText | Counters):
            return answer.answer
        raise ControllerError(f"the agent of `{name}` cannot say: {answer.answer.reason}")

    def hang_up(self, name: str) -> None:
        """End the connection of an agent that may no longer come."""
        line = self._lines.pop(name, None)
        if line is not None and self._port is not None:
            self._port.abort(line)

    # --- the first request: see `Host` ---

    def authority(self) -> str:
        """Give the CA as PEM."""
        return self._control.authority.pem

    def ready(self) -> bool:
        """Say whether all is well, as `well` was told last."""
        return self.well

    def enrol(self, body: bytes, peer: str) -> tuple[HTTPStatus, bytes]:
        """Answer a request to enrol."""
        try:
            # In one write, so that of two who ask two controllers for one name one finds that it is taken.
            with self._control.store.transaction():
                reply = self._control.enrolment.enrol(decode_enrol(body), self._clock())
        except (WireError, ControllerError, InventoryError) as error:
            self._control.log("enrolment refused", level="warning", peer=peer, why=str(error))
            return HTTPStatus.FORBIDDEN, encode(Rejected(reason=str(error)))
        except CellwallError as error:
            self._control.log("enrolment failed", level="warning", peer=peer, why=str(error))
            return HTTPStatus.SERVICE_UNAVAILABLE, encode(Rejected(reason=str(error), again=True))
        self._control.log("enrolled", workload=reply.name, peer=peer)
        self.hang_up(reply.name)
        self._changed()
        return HTTPStatus.OK, encode(reply)

    def adopt(self, line: Line, wanted: str) -> tuple[HTTPStatus, str] | None:
        """Let another controller ask ours, on a connection of its own."""
        assert self._port is not None
        if self.attendants is None:
            return HTTPStatus.NOT_FOUND, "this controller is the only one\n"
        refusal = self.attendants.refuse(line.tls, wanted)
        if refusal is None:
            self.attendants.attend(self._port.release(line))
        return refusal

    def admit(self, line: Line) -> tuple[HTTPStatus, str] | None:
        """Look at the certificate of who asks for the channel."""
        try:
            name, serial = _who(line.tls)
            self._control.enrolment.admit(name, serial, self._clock())
        except Denied as error:
            return HTTPStatus.FORBIDDEN, f"{error}\n"
        except CellwallError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n"
        line.name = name
        return None

    # --- the channel ---

    def heard(self, line: Line, data: bytes | str) -> None:
        """Take a message of an agent."""
        try:
            message = _decoded(data)
            if self._lines.get(line.name) is line:
                self._take(line, message)
                if (wait_s := self._manners.wait_s(line.name, message, monotonic())) > 0 and self._port is not None:
                    self._port.rest(line, wait_s)
            elif not line.greeted:
                self._begin(line, message)
            else:
                raise WireError("a newer connection took the place of this one")
        except StateError as error:
            if not line.greeted:
                self._reject(line, error)
                return
            # Nobody is sent away for it: what was heard is in memory, and what was asked for is asked for again.
            self._control.log("not written", level="warning", workload=line.name, why=str(error))
        except CellwallError as error:
            self._reject(line, error)

    def gone(self, line: Line) -> None:
        """Take note that a line is gone."""
        if self._lines.get(line.name) is line:
            del self._lines[line.name]
            self._due.pop(line.name, None)
            self.intake.forget(line.name)
            self._told.pop(line.name, None)
            self._manners.forget(line.name, monotonic())
            self._control.bye(line.name, self._clock())
            self._control.log("agent left", workload=line.name)

    def _reject(self, line: Line, error: CellwallError) -> None:
        self._control.log("agent rejected", level="warning", workload=line.name, why=str(error))
        if self._port is not None:
            self._port.reject(line, str(error), again=not isinstance(error, WireError | NotFound))

    def _begin(self, line: Line, first: FromAgent) -> None:
        if not isinstance(first, Hello):
            raise WireError("an agent speaks first, and says hello")
        assert self._port is not None
        welcome = self._control.hello(line.name, first, self._clock())
        older = self._lines.get(line.name)
        self._lines[line.name] = line
        self._port.greeted(line)
        if older is not None:
            self._port.abort(older)
        self._told[line.name] = welcome.controllers
        self._say(line, welcome)
        self._control.log("agent came", workload=line.name, version=first.version, holds=first.holding.generation)
        self._want(line.name)

    def _take(self, line: Line, message: FromAgent) -> None:
        now = self._clock()
        match message:
            case Receipt():
                reply = self._control.receipt(line.name, message, now)
                self._heard()
                if message.state is PointState.REVERTED:
                    # At once: whatever this point says next must not hide it.
                    self._control.judge_rollout(now)
                    if self._control.stale:
                        self._changed()
                self._want(line.name)
                if reply is not None:
                    self._say(line, reply)
            case Facts():
                self._note(line, message)
            case Flows():
                self._store(line, message)
            case Denials():
                if self._manners.keeps(line.name, message, monotonic()):
                    self._denials.append((line.name, message))
                    self._work.set()
            case Answer():
                waiting = self._asked.get((line.name, message.id))
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Renew():
                self._say(line, self._control.enrolment.renew(line.name, message.request, now))
            case Hello():
                raise WireError("an agent says hello once")

    def _note(self, line: Line, facts: Facts) -> None:
        """Take facts now or later: of two that come together the later one counts."""
        delay_s = 0.0 if line in self._later else self._manners.delay_s(line.name, facts, monotonic())
        if line in self._later or delay_s > 0:
            if line not in self._later:
                asyncio.get_running_loop().call_later(delay_s, self._noted, line)
            self._later[line] = facts
            return
        self._facts[line] = facts
        self._work.set()

    def _noted(self, line: Line) -> None:
        facts = self._later.pop(line, None)
        if facts is not None and self._lines.get(line.name) is line:
            self._note(line, facts)

    def _say(self, line: Line, message: FromController) -> None:
        assert self._port is not None
        self._port.send(line, encode(message))

    def _want(self, name: str) -> None:
        self._due[name] = None
        self._work.set()

    # --- what is gathered ---

    async def _turn(self) -> None:
        while True:
            await self._work.wait()
            await asyncio.sleep(GATHER_S)
            self._work.clear()
            try:
                while self._facts or self._denials or self._due:
                    self._write_facts()
                    self._write_denials()
                    await self._send_due()
                    # Whoever waits for the loop is let in between.
                    await asyncio.sleep(0)
            except CellwallError as error:
                self._control.log("agents wait", level="warning", due=len(self._due), why=str(error))
                await asyncio.sleep(AGAIN_S)
                self._work.set()
            except Exception as error:  # noqa: BLE001 - the outermost turn: whatever it is, agents are to be served again
                self._control.log("agents wait", level="error", due=len(self._due), why=repr(error))
                await asyncio.sleep(AGAIN_S)
                self._work.set()

    def _write_facts(self) -> None:
        some = {line: self._facts.pop(line) for line in tuple(islice(self._facts, FACTS_AT_ONCE))}
        if not some:
            return
        now = self._clock()
        wrong: dict[Line, CellwallError] = {}
        try:
            with self._control.store.transaction():
                for line, facts in some.items():
                    try:
                        self._control.facts(line.name, facts, now, came_from(line))
                    except (WireError, NotFound, InventoryError) as error:
                        # It was found before anything was written.
                        wrong[line] = error
        except CellwallError:
            # None of it is written: it waits for the database, unless something newer is said meanwhile.
            self._facts = {**some, **self._facts}
            raise
        for line, error in wrong.items():
            self._reject(line, error)
        if self._control.stale:
            self._changed()

    def _write_denials(self) -> None:
        some, self._denials = self._denials, []
        if not some:
            return
        try:
            with self._control.store.transaction():
                for name, denials in some:
                    with suppress(WireError):
                        self._control.denials(name, denials)
        except CellwallError:
            self._denials = [*some, *self._denials][-MOST_DENIALS:]
            raise
        for name, denials in some:
            told, skipped = len(denials.samples), denials.skipped
            self._control.log("denials", level="debug", workload=name, samples=told, skipped=skipped)

    async def _send_due(self) -> None:
        assert self._port is not None
        port, until = self._port, monotonic() + SEND_S
        while self._due and monotonic() < until:
            some = tuple(islice(self._due, ISSUE_AT_ONCE))
            lines = {name: line for name in some if (line := self._lines.get(name)) is not None}
            sends = self._control.issue(lines)
            for name in some:
                del self._due[name]
            for name, send in sends.items():
                while port.waiting > MOST_UNREAD:
                    port.eased.clear()
                    await port.eased.wait()
                # Who came anew while others were waited for has said what it holds, and is due again.
                if self._lines.get(name) is lines[name]:
                    self._say(lines[name], self._control.letter(name, send, self._clock()))

    # --- flows ---

    def _believe(self) -> Believe:
        fleet, now = self._control.ground().fleet, self._clock()
        # In another thread: the fleet is a value.
        return lambda records, name: credible(records, name, fleet.by_address, now)

    def _store(self, line: Line, flows: Flows) -> None:
        line.batches += 1
        if line.batches >= WAITING_BATCHES and self._port is not None:
            self._port.pause(line)

        def stored(*, done: bool) -> None:
            line.batches -= 1
            if self._port is not None:
                self._port.resume(line)
            # What was not taken the agent keeps, and sends again.
            if done and self._lines.get(line.name) is line:
                if flows.lost or flows.dropped:
                    lost, dropped = flows.lost, flows.dropped
                    self._control.log("flows lost", level="warning", workload=line.name, lost=lost, dropped=dropped)
                self._say(line, Taken(batch=flows.batch, controllers=self._news_of_controllers(line.name)))

        self.intake.put(line.name, flows, lambda done: stored(done=done))

    def _news_of_controllers(self, name: str) -> tuple[str, ...]:
        # Whoever joins after an agent has connected would else be unknown to it when it is needed.
        urls = self._control.peers.urls
        if set(urls) == set(self._told.get(name, urls)):
            return ()
        self._told[name] = urls
        return urls


def _decoded(data: bytes | str) -> FromAgent:
    if isinstance(data, str):
        raise WireError("a text message; all of ours are binary")
    return decode_from_agent(data)


def _who(tls: ssl.SSLSocket) -> tuple[str, str]:
    """Give the name in the client's certificate, which TLS has checked, and its serial number. Raises `Denied`."""
    shown: dict[str, Any] = tls.getpeercert() or {}
    uris = [value for kind, value in shown.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        raise Denied("an agent shows a certificate that names one workload; enrol first")
    try:
        # `ssl` writes the serial number with leading zeros to whole bytes.
        return workload_of(uris[0]), f"{int(shown.get('serialNumber', '0'), 16):x}"
    except (WireError, ValueError) as error:
        raise Denied(f"the certificate names no workload: {error}") from None
