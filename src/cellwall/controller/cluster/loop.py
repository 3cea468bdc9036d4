"""A controller's own session with PostgreSQL, in a thread: its heartbeat, its name, the lead, and what others notify.

    thread:  connect ─ name ─ listen ─┬─ wait for a notification, or a beat ─┬─▶ woken
                 ▲                    │  heart, and the lead if it is free   │
                 └── lost: no lead ◀──┴──────────────────────────────────────┘

The session's end, however it comes, frees the lead and the name: PostgreSQL's locks end with their session.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from secrets import token_hex
from time import monotonic
from typing import Any

import msgspec

from cellwall.controller.cluster.peers import Peers, Subjects
from cellwall.controller.errors import ControllerError, NotReady, StateError
from cellwall.controller.store.cluster import CHANNEL, ClusterStore, Question
from cellwall.controller.store.database import said
from cellwall.controller.store.engines import connect, parse_place
from cellwall.traffic import CellwallError
from cellwall.wire import Counters, HeldVerdict, Holds, ShowCounters, ShowTable, TableText, Trouble

BEAT_S, AGAIN_S, ASK_S, TAKEN_S = 0.5, 0.5, 6.0, 5.0
IDLE_SHARE = 2.0
"""After changes of others were read, so many times as long as that took belongs to our agents."""
LINK_MS = 1500
"""What the session asks is answered at once, or the database is gone."""
NAMES, LEAD = 0x6E616D65, 0x6C656164
"""The first halves of the advisory locks for names and for the lead, which is `(LEAD, 0)`."""

_KEEP_ALIVE = "set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3"
"""A machine that vanished is noticed by PostgreSQL after 11 s; a program that ended, at once."""

Said = HeldVerdict | TableText | Counters
Asked = Holds | ShowTable | ShowCounters
Ask = Callable[[str, Asked], Awaitable[Said]]


class Link:
    """The session. `woken` is called, in its thread, when something is to be looked at: `up`, `leads`, changes."""

    def __init__(self, url: str, name: str, woken: Callable[[], None], log: Callable[..., None]) -> None:
        self._place, self._name, self._woken, self._log = parse_place(url), name, woken, log
        self.up = False
        self.leads = False
        self.failures = 0
        """How often in a row there was no session to be had."""
        self.taken = False
        """Whether another controller of our name is there."""
        self._stop, self._bell = os.pipe()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; the lead is free when this returns."""
        self._ended.set()
        os.write(self._bell, b".")
        self._thread.join(10)
        os.close(self._stop)
        os.close(self._bell)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._session()
            except Exception as error:  # noqa: BLE001 - whatever the driver or the network says: it is begun again
                if self.up or not self.taken:
                    self._log("database link lost", level="warning", why=said(error))
            self.up, self.leads = False, False
            self.failures += 1
            self._woken()
            self._ended.wait(AGAIN_S)

    def _session(self) -> None:
        connection, line = connect(self._place, f"cellwall {self._name}", LINK_MS)
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            for statement in _KEEP_ALIVE.split("; "):
                cursor.execute(statement)
            self.taken = not _truth(cursor, "select pg_try_advisory_lock(%s, hashtext(%s))", (NAMES, self._name))
            if self.taken:
                return
            cursor.execute(f"listen {CHANNEL}")
            self._turn(connection, cursor, line)
        finally:
            connection.close()

    def _turn(self, connection: Any, cursor: Any, line: Any) -> None:
        beat = "update controllers set seen = extract(epoch from clock_timestamp()) where name = %s"
        due = 0.0
        while not self._ended.is_set():
            # Whatever was notified by now is in the driver once this is answered; what comes later wakes us.
            if monotonic() >= due:
                due = monotonic() + BEAT_S
                cursor.execute(beat, (self._name,))
            else:
                cursor.execute("select 1")
            led = self.leads
            self.leads = led or _truth(cursor, "select pg_try_advisory_lock(%s, 0)", (LEAD,))
            if connection.notifications or not self.up or led is not self.leads:
                connection.notifications.clear()
                self.up, self.failures = True, 0
                self._woken()
            select.select([line, self._stop], [], [], max(due - monotonic(), 0.0))


def _truth(cursor: Any, statement: str, values: tuple[Any, ...]) -> bool:
    cursor.execute(statement, values)
    return bool(cursor.fetchone()[0])


class Cluster:
    """The loop's part: it takes what the link tells, and carries questions to agents of other controllers."""

    def __init__(self, store: ClusterStore, peers: Peers, url: str, log: Callable[..., None]) -> None:
        self._store, self.peers, self._log = store, peers, log
        self._woken = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ask: Ask
        self._link: Link | None = None
        if not peers.alone:
            loop = asyncio.get_running_loop()

            def woken() -> None:
                loop.call_soon_threadsafe(self._woken.set)

            def say(event: str, **details: object) -> None:
                loop.call_soon_threadsafe(lambda: log(event, **details))

            self._link = Link(url, peers.me.name, woken, say)

    async def open(self, ask: Ask) -> None:
        """Begin; `ask` asks an agent that is connected here. Raises `ControllerError` where our name is taken."""
        self._ask = ask
        if self._link is None:
            return
        self.peers.on("question", self._asked)
        self.peers.on("answer", self._answered)
        self._link.start()
        # A session that was killed may still be ending: it is waited for.
        for _ in range(int(TAKEN_S / AGAIN_S)):
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S * 2):
                    await self._woken.wait()
            self._woken.clear()
            if self._link.up:
                break
        else:
            self._link.close()
            if self._link.taken:
                name = self.peers.me.name
                raise ControllerError(f"a controller named `{name}` is there already; give another --name")
            raise ControllerError("the database does not let us listen for what other controllers change")
        self._store.database.watched = True
        self._take()

    def close(self) -> None:
        """End, and give up the lead."""
        for task in self._tasks:
            task.cancel()
        if self._link is not None:
            self._link.close()

    async def turn(self, changed: Callable[[], None]) -> None:
        """Take what the link tells, until cancelled; `changed` is called when others may have changed something."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._woken.wait()
            # Also where nothing is told: a session of ours may have ended while that of the link goes on.
            self._take()
            if not self._woken.is_set():
                continue
            self._woken.clear()
            began = monotonic()
            try:
                if self.peers.catch_up():
                    changed()
            except StateError as error:
                self._log("changes of others cannot be read", level="warning", why=str(error))
            # While agents come by the thousand others write without end: what they wrote meanwhile is read at once.
            await asyncio.sleep(IDLE_SHARE * (monotonic() - began))

    def _take(self) -> None:
        link, peers, database = self._link, self.peers, self._store.database
        if link is None:
            return
        if link.up and database.trouble:
            database.back()
            self._log("database is back")
        elif link.failures > 1 and not database.trouble:
            # Nobody waits for a database of which the link knows that it is gone.
            database.gone("the database cannot be reached")
            self._log("database is gone", level="error")
        if link.leads is not peers.leads:
            with suppress(StateError):
                peers.lead(leads=link.leads)
            self._log("leading" if link.leads else "leading no longer", name=peers.me.name)

    # --- questions to agents of others ---

    async def ask(self, workload: str, question: Asked) -> Said:
        """Ask an agent that is connected to another controller. Raises `NotReady` and `ControllerError`."""
        peer = self.peers.elsewhere.get(workload)
        if peer is None:
            raise NotReady(f"the agent of `{workload}` is not connected")
        at = self._store.clock() or 0.0
        asked = Question(token_hex(16), at, self.peers.me.name, peer, workload, msgspec.msgpack.encode(question))
        waiting = self._waiting[asked.id] = asyncio.get_running_loop().create_future()
        try:
            with self._store.database.transaction():
                self._store.put_question(asked)
                self._store.database.note("question", peer)
            async with asyncio.timeout(ASK_S):
                said_of_it = await waiting
        except TimeoutError:
            self._store.drop_question(asked.id)
            raise NotReady(f"the controller `{peer}`, which has the agent of `{workload}`, did not answer") from None
        finally:
            del self._waiting[asked.id]
        answer = msgspec.msgpack.decode(said_of_it, type=HeldVerdict | TableText | Counters | Trouble)
        if isinstance(answer, Trouble):
            raise ControllerError(answer.reason)
        return answer

    def _asked(self, peers: Subjects) -> None:
        if peers is None or self.peers.me.name in peers:
            self._spawn(self._reply())

    async def _reply(self) -> None:
        try:
            for one in self._store.questions_to(self.peers.me.name):
                if one.id not in self._waiting:
                    # Marked as taken: an agent is asked once, whoever wakes us meanwhile.
                    self._waiting[one.id] = asyncio.get_running_loop().create_future()
                    self._spawn(self._reply_to(one))
        except StateError as error:
            self._log("questions cannot be read", level="warning", why=str(error))

    async def _reply_to(self, one: Question) -> None:
        try:
            question: Asked = msgspec.msgpack.decode(one.question, type=Holds | ShowTable | ShowCounters)
            answer: Said | Trouble = await self._ask(one.workload, question)
        except CellwallError as error:
            answer = Trouble(reason=str(error)[:1000])
        try:
            with self._store.database.transaction():
                self._store.answer(one.id, msgspec.msgpack.encode(answer))
                self._store.database.note("answer", one.asker)
        except StateError as error:
            self._log("an answer cannot be written", level="warning", why=str(error))
        finally:
            del self._waiting[one.id]

    def _answered(self, peers: Subjects) -> None:
        if peers is None or self.peers.me.name in peers:
            self._spawn(self._take_answers())

    async def _take_answers(self) -> None:
        try:
            for one, answer in self._store.take_answers(self._waiting).items():
                waiting = self._waiting.get(one)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except StateError as error:
            self._log("answers cannot be read", level="warning", why=str(error))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
