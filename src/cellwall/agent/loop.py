"""The agent's only turn with I/O: events in, `core.step`, commands out.

    journal ──▶ kernel (before any network) ──▶ controller
                  ▲                                │
                  └── step(agent, event, now) ◀────┘ ◀── clock, watches, canaries

Writing to the kernel and to the journal is done at once and in order, on this thread; what waits for others is not.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from urllib.parse import urlsplit

from msgspec import structs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from cellwall.agent.bundle import open_bundle
from cellwall.agent.clock import Clock
from cellwall.agent.core import Agent, step
from cellwall.agent.enrolment import AgentError, Enrolment, channel_of, load_enrolment
from cellwall.agent.events import (
    AddressesChanged,
    Applied,
    Apply,
    ApplyMembers,
    CanaryResult,
    ClockSet,
    Collect,
    Command,
    Confirmed,
    Connected,
    Desired,
    Disconnected,
    Event,
    Forgery,
    MembersChanged,
    Reconnect,
    Repair,
    Report,
    Restore,
    Result,
    SaveChange,
    SaveJournal,
    SendFacts,
    Stopping,
    Suspended,
    Tick,
    TryCanaries,
    Verify,
)
from cellwall.agent.facts import tell
from cellwall.agent.folder import locked, remember_observing
from cellwall.agent.gauges import FILE, Gauges
from cellwall.agent.keeper import Keeper
from cellwall.agent.lasting import Lasting
from cellwall.agent.lean import give_back
from cellwall.agent.observer import Observer
from cellwall.agent.options import VERSION, AgentOptions
from cellwall.agent.renewal import Renewal
from cellwall.agent.ring import Ring
from cellwall.agent.service import ALIVE, READY, tell_manager
from cellwall.agent.tally import Outbox, Tally
from cellwall.clients import EventLog, Form, KernelError, Level
from cellwall.compile import Canary
from cellwall.enforce import Refused, Tracing, sweep_trace
from cellwall.flows import FlowKey, Side
from cellwall.observe import AddressWatch, host_identity
from cellwall.traffic import CellwallError, one_line
from cellwall.wire import (
    MOST_FROM_CONTROLLER,
    NEWEST,
    OLDEST,
    Answer,
    Ask,
    Bundle,
    Denials,
    Facts,
    FromAgent,
    FromController,
    HeldVerdict,
    Hello,
    Holding,
    Holds,
    MemberChange,
    Receipt,
    Rejected,
    Renewed,
    Taken,
    Trouble,
    Welcome,
    WireError,
    decode_from_controller,
    encode,
    pack_flows,
    verify,
)
from cellwall.wire import Confirmed as Word

TICK_S, CANARY_S, WELCOME_S, PING_S, GATHER_S = 1.0, 2.0, 10.0, 20.0, 0.02
BACKOFF_FIRST_S, BACKOFF_LAST_S, RECONNECT_S, STABLE_S = 1.0, 20.0, 0.3, 10.0
FOLLOW_S = 16.0
"""A TCP connection that is dropped is tried anew after 1, 3, 7 and 15 s."""
QUIET_S, SETTLED_S = 10.0, 10.0
MOST_LETTERS, MOST_RECEIPTS = 1000, 16


def run_agent(options: AgentOptions) -> int:
    """Run the agent until SIGTERM or SIGINT; what is in force stays in force when it ends.

    Raises `NotEnrolled`, `AgentError` when another agent runs on the same folder, or `KernelError` without the right
    to speak to the kernel.
    """
    enrolment = load_enrolment(options.state)
    with locked(options.state):
        remember_observing(options.state, options.observe_only)
        asyncio.run(_Loop(options, enrolment).run())
    return 0


class _Loop:
    def __init__(self, options: AgentOptions, enrolment: Enrolment) -> None:
        self._enrolment = enrolment
        self._options = options
        self._clock = Clock()
        self._gauges = Gauges(options.metrics_file or options.state / FILE)
        self._log = self._gauges.listening(EventLog(sys.stderr, Form(options.log_format), Level(options.log_level)))
        self._agent = Agent(enrolment.name, options.interval_s, options.observe_only)
        self._lasting = Lasting(options, enrolment)
        self._keeper = Keeper(
            options.cgroup_root,
            observe_only=options.observe_only,
            most_memory=options.most_memory,
            clock=self._clock,
        )
        self._events: deque[Event] = deque()
        self._turning = False
        self._boot = host_identity().boot_id
        # What was seen, on its way.
        self._observer: Observer | None = None
        self._ring = Ring(options.state)
        self._tally = Tally()
        self._outbox = Outbox(f"{self._boot[:8]}-{time.time_ns():x}")
        self._collected = time.time()
        self._look_back = self._stirred = True
        self._counted, self._following = 0.0, False
        # The channel.
        self._stop, self._hurry, self._wake = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._up = False
        self._most_rows = 50_000
        self._letters: deque[FromAgent] = deque(maxlen=MOST_LETTERS)
        self._batches: deque[bytes] = deque()
        self._receipts: deque[Receipt] = deque(maxlen=MOST_RECEIPTS)
        self._facts_due = False
        self._facts: Facts | None = None
        self._renewal = Renewal(enrolment)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Enforce what is on disk, then look around, then connect; until stopped."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._look_for_suspension()
        started = self._lasting.load()
        self._clock.not_before(started.issued)
        self._tell(started)
        self._observer = observer = Observer(self._enrolment.name)
        for blind in observer.blind:
            self._log("cannot see", level="warning", what=blind)
        addresses = AddressWatch()
        loop.add_reader(self._keeper.fileno(), self._gathered(self._keeper.fileno(), self._look_at_tables, 0.0))
        loop.add_reader(addresses.fileno(), self._gathered(addresses.fileno(), lambda: self._moved(addresses)))
        for source, read in (
            (observer.connections, lambda: observer.read_connections(self._now())),
            (observer.packets, lambda: observer.read_packets(self._revision(), self._now())),
        ):
            if source is not None:
                loop.add_reader(source.fileno(), self._gathered(source.fileno(), self._stirring(read)))
        loop.call_later(SETTLED_S, give_back)
        sweep_trace()
        channel = asyncio.create_task(self._channel())
        tell_manager(READY)
        try:
            while not self._stop.is_set():
                self._guarded(self._look_for_suspension)
                self._timed(self._clock.look())
                self._guarded(lambda: self._tell(Tick()))
                if self._lasting.save_again(self._agent, self._now()):
                    self._receipts.append(self._agent.receipt)
                    self._wake.set()
                tell_manager(ALIVE)
                self._guarded(self._measure)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), min(TICK_S, self._agent.interval_s))
        finally:
            self._guarded(lambda: self._tell(Stopping()))
            for task in (channel, *self._tasks):
                task.cancel()
            await asyncio.gather(channel, *self._tasks, return_exceptions=True)
            addresses.close()
            observer.close()
            self._keeper.close()

    # --- one turn ---

    def _now(self) -> float:
        # It does not jump: deadlines must not, when the host's time is set.
        return self._clock.steady()

    def _timed(self, news: bool) -> None:
        if news:
            self._log("the controller's time is another", ahead_s=round(self._clock.ahead, 1))
            self._guarded(lambda: self._tell(ClockSet()))

    def _tell(self, event: Event) -> None:
        """Take an event, and all that follow from it, in order."""
        self._events.append(event)
        if self._turning:
            return
        self._turning = True
        try:
            while self._events:
                self._agent, commands = step(self._agent, self._events.popleft(), self._now())
                for command in commands:
                    self._do(command)
        finally:
            self._turning = False

    def _do(self, command: Command) -> None:
        match command:
            case Apply() | Restore() | Repair() | ApplyMembers():
                self._write(command)
            case SaveJournal() | SaveChange():
                self._events.extend(self._lasting.save(command, self._agent, self._now()))
            case Report(receipt, alarm):
                self._receipts.append(receipt)
                if alarm or receipt.reason:
                    said = {"generation": receipt.generation, "state": receipt.state, "reason": receipt.reason}
                    self._log("receipt", level="warning", **said)
                self._wake.set()
            case Reconnect():
                self._hurry.set()
            case TryCanaries(generation, canaries):
                for canary in canaries:
                    self._spawn(self._try(generation, canary))
            case Verify(bundle):
                self._events.append(self._keeper.verify(bundle))
            case Collect():
                self._guarded(self._collect)
            case SendFacts():
                self._facts_due = True
                self._wake.set()

    def _write(self, command: Apply | Restore | Repair | ApplyMembers) -> None:
        self._gauges.wrote(command)
        if not isinstance(command, ApplyMembers):
            # What was counted so far was decided by the rules that are going.
            self._guarded(lambda: self._collect(always=True))
        try:
            self._events.extend(self._keeper.write(command))
        except Exception as error:  # noqa: BLE001 - whatever it is, the step function must hear of it
            generation = command.bundle.generation if command.bundle else None
            self._events.append(Applied(generation, Result.FAILED, f"{type(error).__name__}: {error}"))

    def _look_for_suspension(self) -> None:
        reason, left_s = self._lasting.suspended(self._now())
        if reason != self._agent.suspended:
            self._keeper.suspend(left_s)
            self._tell(Suspended(reason))

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except CellwallError as error:
            self._log("failed", level="warning", why=str(error))
        except Exception as error:  # noqa: BLE001 - the outermost turn: what fails here must not end enforcement
            self._log("failed", level="error", why=f"{type(error).__name__}: {error}")

    def _gathered(self, source: int, read: Callable[[], object], wait_s: float = GATHER_S) -> Callable[[], None]:
        """Make a reader that lets notices gather before it reads them, all at once."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            loop.remove_reader(source)
            loop.call_later(wait_s, gather)

        def gather() -> None:
            self._guarded(read)
            if not self._stop.is_set():
                loop.add_reader(source, readable)

        return readable

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what is seen ---

    def _measure(self) -> None:
        self._gauges.write(self._agent, len(self._tally), self._enrolment.ends(), time.time())

    def _look_at_tables(self) -> None:
        for change in self._keeper.notices():
            self._tell(change)

    def _moved(self, addresses: AddressWatch) -> None:
        if addresses.read() and self._observer is not None:
            self._observer.look_for_addresses()
            self._tell(AddressesChanged())

    def _revision(self) -> int:
        return self._keeper.held.revision if self._keeper.held else 0

    def _stirring(self, read: Callable[[], object]) -> Callable[[], object]:
        """Have what is read of connections and packets mean that there may be something to collect."""

        def stirring() -> object:
            self._stirred = True
            return read()

        return stirring

    def _quiet(self, observer: Observer) -> bool:
        """Say whether nothing can have been counted: each tuple comes with a connection's event or a sample.

        Not quite each: what a firewall behind us drops has neither. So it is never long before we look all the same.
        """
        hears = observer.connections is not None and observer.packets is not None
        hears = hears and not observer.strangers.watching
        return hears and not self._stirred and self._now() - self._counted < QUIET_S

    def _collect(self, *, always: bool = False) -> None:
        held, observer = self._keeper.held, self._observer
        if observer is None or held is None:
            return
        if not always and self._quiet(observer):
            with suppress(Refused, KernelError):
                self._events.extend(self._keeper.refresh())
            self._pack(time.time())
            if self._batches:
                self._wake.set()
            return
        self._stirred, self._counted = False, self._now()
        now = time.time()
        seen, full = self._keeper.collect()
        records = observer.records(seen, held, self._collected, now)
        self._collected = now
        if self._look_back:
            self._look_back = False
            records += observer.standing(held, now)
        self._ring.add(records)
        self._tally.add(records)
        self._tally.lost += full + observer.losses()
        with suppress(Refused, KernelError):
            self._events.extend(self._keeper.refresh())
        denials, skipped = observer.take_denials(now)
        if self._up and (denials or skipped):
            self._letters.append(Denials(samples=tuple(denials), skipped=skipped))
        if (suspect := observer.suspect(records, self._now())) and not self._following:
            self._spawn(self._follow(*suspect))
        self._pack(now)
        self._wake.set()

    def _pack(self, now: float) -> None:
        if not self._up:
            return
        self._batches.extend(self._outbox.due(now))
        while len(self._tally) and not self._outbox.full:
            records = self._tally.take(self._most_rows)
            batch = self._outbox.name()
            lost, dropped = self._gauges.missed(self._tally.take_losses())
            start = min(one.first_seen for one in records)
            message = encode(pack_flows(records, batch=batch, start=start, end=now, lost=lost, dropped=dropped))
            self._outbox.sent(batch, message, now)
            self._batches.append(message)

    async def _follow(self, side: Side, key: FlowKey) -> None:
        """See where packets of a flow end that we let pass."""
        self._following = True
        try:
            incoming = side is Side.INGRESS
            with closing(
                Tracing(key.source, key.destination, key.protocol, key.port, incoming=incoming, seconds=FOLLOW_S)
            ) as tracing:
                until = self._now() + FOLLOW_S
                while self._now() < until and self._observer is not None:
                    await asyncio.sleep(FOLLOW_S / 32)
                    if drops := tracing.read():
                        self._observer.strangers.ended((side, key), str(drops[-1]), self._now())
                        self._facts_due = True
                        self._wake.set()
                        break
        except (Refused, KernelError) as error:
            self._log("failed", level="warning", why=str(error))
        finally:
            self._following = False

    async def _try(self, generation: int, canary: Canary) -> None:
        """Open a canary's connection; one of its addresses is enough."""
        reason = "it has no addresses"
        for address in canary.addresses:
            try:
                async with asyncio.timeout(CANARY_S):
                    _, writer = await asyncio.open_connection(str(address), canary.port)
                writer.close()
                self._tell(CanaryResult(generation, canary.id, passed=True))
                return
            except (OSError, TimeoutError) as error:
                reason = str(error) or "no answer"
        self._tell(CanaryResult(generation, canary.id, passed=False, reason=reason))

    # --- the channel ---

    async def _channel(self) -> None:
        """Keep a connection to a controller, for ever; when one cannot be reached, the next is tried."""
        pause_s, said, turn = BACKOFF_FIRST_S, "", 0
        while True:
            controllers = self._enrolment.controllers
            controller = controllers[turn % len(controllers)]
            began = self._now()
            self._hurry.clear()
            try:
                await self._talk(controller, began)
                reason = ""
            except (CellwallError, OSError, WebSocketException, TimeoutError) as error:
                reason = _why(error)
            except Exception as error:  # noqa: BLE001 - the outermost turn: enforcement goes on without a controller
                reason = f"{type(error).__name__}: {error}"
            if self._up:
                self._up = False
                self._guarded(lambda: self._tell(Disconnected()))
            if self._now() - began > STABLE_S or self._hurry.is_set():
                pause_s = BACKOFF_FIRST_S
            if reason and reason != said and not self._hurry.is_set():
                self._log("no connection", level="warning", controller=controller, why=reason)
            said = reason
            turn += bool(reason)
            if self._hurry.is_set():
                # A whole fleet may be told to come back at the same moment.
                await asyncio.sleep(random.uniform(0, RECONNECT_S))
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), pause_s * random.uniform(0.5, 1))
            pause_s = min(BACKOFF_LAST_S, pause_s * 2)

    async def _talk(self, controller: str, began: float) -> None:
        context = self._enrolment.context()
        host = urlsplit(controller).hostname or ""
        async with connect(
            channel_of(controller), ssl=context, open_timeout=WELCOME_S, close_timeout=2, ping_interval=PING_S,
            ping_timeout=PING_S, max_size=MOST_FROM_CONTROLLER, compression=None, proxy=None, user_agent_header=None,
            # As bytes: to make them of text, Python loads the tables of international names, a megabyte.
            server_hostname=host.encode() if host.isascii() else host,
        ) as socket:  # fmt: skip
            asked = self._now()
            await socket.send(encode(self._hello()))
            welcome = _read(await asyncio.wait_for(socket.recv(), WELCOME_S))
            if isinstance(welcome, Rejected):
                raise AgentError(f"it says: {welcome.reason}")
            if not isinstance(welcome, Welcome):
                raise WireError("it does not welcome us")
            self._most_rows = welcome.most_rows
            self._renewal.before_s = welcome.renew_before_s
            self._up = True
            self._facts = None
            self._batches = deque(self._outbox.due(time.time(), reconnected=True))
            self._letters.clear()
            self._receipts.clear()
            self._log("connected", controller=controller)
            self._remember(welcome.controllers)
            self._timed(self._clock.welcomed(welcome.now, self._now() - asked))
            self._tell(Connected(began))
            work = [asyncio.create_task(one) for one in (self._listen(socket), self._speak(socket), self._hurry.wait())]
            try:
                done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)

    def _remember(self, controllers: tuple[str, ...]) -> None:
        # Told by whom we trust, and needed when that one is gone; without a disk to write to, as it was before.
        with suppress(AgentError, OSError):
            self._enrolment.remember(controllers)

    def _hello(self) -> Hello:
        held = self._agent.in_kernel
        return Hello(
            name=self._enrolment.name,
            version=VERSION,
            oldest=OLDEST,
            newest=NEWEST,
            boot=self._boot,
            holding=held.holding if held else Holding(),
            highest=self._agent.highest,
        )

    async def _listen(self, socket: ClientConnection) -> None:
        async for data in socket:
            try:
                message = _read(data)
            except WireError as error:
                self._tell(Forgery(0, str(error)))
                continue
            if isinstance(message, Rejected):
                raise AgentError(f"it says: {message.reason}")
            # The whole turn is done before the next message is looked at: there is no queue that could grow.
            self._guarded(lambda: self._hear(message, data))  # noqa: B023 - called before the next round

    def _hear(self, message: FromController, data: bytes | str) -> None:
        key, name = self._enrolment.bundle_key, self._enrolment.name
        signed = data if isinstance(data, bytes) else b""
        match message:
            case Bundle() | MemberChange():
                try:
                    if isinstance(message, Bundle):
                        event: Event = Desired(open_bundle(verify(message, key, name), signed))
                    else:
                        event = MembersChanged(verify(message, key, name), signed)
                    if message.generation > self._agent.highest:
                        self._timed(self._clock.fresh(message.issued_at))
                except WireError as error:
                    event = Forgery(message.generation, str(error))
                self._tell(event)
            case Word(generation=generation):
                self._tell(Confirmed(generation))
            case Taken(batch=batch, controllers=controllers):
                if controllers:
                    self._remember(controllers)
                self._outbox.taken(batch)
                self._pack(time.time())
                self._wake.set()
            case Ask(id=number, question=question):
                answer = self._keeper.answer(question)
                if isinstance(answer, HeldVerdict) and isinstance(question, Holds) and self._observer is not None:
                    answer = structs.replace(answer, foreign=self._observer.dropped_by(question, self._now()))
                self._letters.append(Answer(id=number, answer=answer))
                self._wake.set()
                held = self._keeper.held
                if isinstance(answer, Trouble) and held is not None:
                    self._tell(self._keeper.verify(held))
            case Renewed(certificate=certificate):
                self._renewal.take(certificate)
            case Welcome() | Rejected():
                raise WireError("a controller welcomes once")

    async def _speak(self, socket: ClientConnection) -> None:
        """Send what waits, the most urgent first, whenever there is something."""
        while True:
            self._wake.clear()
            if (request := self._renewal.due()) is not None:
                self._letters.append(request)
            while (message := self._next()) is not None:
                await socket.send(message)
            await self._wake.wait()

    def _next(self) -> bytes | None:
        if self._receipts:
            return encode(self._receipts.popleft())
        if self._letters:
            return encode(self._letters.popleft())
        if self._facts_due and self._observer is not None:
            self._facts_due = False
            facts, troubles = self._observer.facts(self._now()), self._observer.strangers.told(self._now())
            troubles = [*troubles, *filter(None, [self._clock.trouble])]
            told = tell(facts, self._observer.blind, self._keeper.room(), self._keeper.held, troubles)
            if told != self._facts:
                self._facts = told
                return encode(told)
        return self._batches.popleft() if self._batches else None


def _why(error: Exception) -> str:
    """Say why there is no connection: where a controller turned us away, in its own words."""
    if isinstance(error, InvalidStatus) and error.response.body:
        said = bytes(error.response.body[:1000]).decode("utf-8", "replace").strip()
        return one_line(f"it says: {said}" if said else str(error))
    return str(error).splitlines()[0] if str(error) else "no answer"


def _read(data: bytes | str) -> FromController:
    if isinstance(data, str):
        raise WireError("a text message; all of ours are binary")
    return decode_from_controller(data)
