"""The controller's program: it opens what there is, turns the loop, and ends on SIGTERM.

agents ══ TLS ══ Channel ─┐                     ┌─ compile (a thread) ─┐
                          ├─ Control ── stale ──┤                      ├── push to agents
people ══ socket ══ REST ─┘    │                └─ the clock ──────────┘
                          SQLite, flow store
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from ipaddress import ip_address

from cellwall.clients import EventLog, form_named, level_named
from cellwall.controller.api.channel import Channel
from cellwall.controller.api.drafts import Drafts
from cellwall.controller.api.health import pulse, watch
from cellwall.controller.api.neighbours import Attendants, Neighbours
from cellwall.controller.api.rest import Desk, serve_people
from cellwall.controller.cluster.health import together
from cellwall.controller.cluster.loop import Cluster
from cellwall.controller.cluster.peers import check_authority
from cellwall.controller.cluster.share import share
from cellwall.controller.control import Control, Log, open_control
from cellwall.controller.core import Wanted
from cellwall.controller.errors import ControllerError, StateError
from cellwall.controller.folder import held
from cellwall.controller.ground import Ground
from cellwall.controller.health import MOST_MISSES, broken, try_check, unexpected
from cellwall.controller.listening import listen
from cellwall.controller.metrics import Metrics
from cellwall.controller.options import ControllerOptions
from cellwall.controller.rollout import Health
from cellwall.controller.store.cluster import ClusterStore
from cellwall.controller.store.flows import (
    FlowStore,
    FlowStoreError,
    MemoryFlows,
    OwnFlows,
    Query,
    TogetherFlows,
    open_flows,
)
from cellwall.controller.store.sql import open_state
from cellwall.controller.testing import check
from cellwall.controller.trust.ca import SERVER_DAYS, Authority, open_authority
from cellwall.controller.wants import Wants
from cellwall.flows import Outcome
from cellwall.inventory import Listener
from cellwall.traffic import canonical

Points = Mapping[str, Wanted]
GATHER_S = 0.01
"""Changes that come within so long are compiled together."""
IDLE_SHARE = 4.0
"""After a look at how the rollout goes, so many times as long as it took belongs to others."""
TEST_GATHER_S = 0.5
"""The tests of the policy are checked so long after a change, once for all that comes meanwhile."""
SWITCH_S = 0.0005
"""A thread that computes has the interpreter for so long, and who serves agents gives it away with every system call:
of the 5 ms that Python lets it, thousands of agents would wait several times each."""
TICK_S, HEALTH_EVERY_S, PRUNE_EVERY_S, DAY_S = 1.0, 2.0, 3600.0, 86_400.0


def run_controller(options: ControllerOptions, ready: Callable[[Controller], None] | None = None) -> None:
    """Run a controller until SIGTERM or SIGINT. Raises `ControllerError` and `StateError` when it cannot begin.

    `ready` is called, in the loop, once both faces listen.
    """
    asyncio.run(_run(options, ready))


async def _run(options: ControllerOptions, ready: Callable[[Controller], None] | None) -> None:
    sys.setswitchinterval(SWITCH_S)
    async with AsyncExitStack() as stack:
        controller = Controller(options)
        await controller.open(stack)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, controller.stop)
        if ready is not None:
            ready(controller)
        await controller.turn()


class Controller:
    """A controller with its doors: `open` them, `turn` the loop until `stop`."""

    def __init__(self, options: ControllerOptions, log: Log | None = None, clock: Callable[[], float] = time.time):
        self.options = options
        self.clock = clock
        self.metrics = Metrics()
        self.journal = EventLog(sys.stderr, form_named(options.log_format), level_named(options.log_level))
        self.log = self.metrics.listening(log or self.journal)
        self.port = options.bound.port
        self._stale = asyncio.Event()
        self._wants, self._base_wants, self._drafts = Wants(), Wants(), Drafts()
        self._heard = asyncio.Event()
        self._untested = asyncio.Event()
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.control: Control
        self.channel: Channel
        self.cluster: Cluster
        self.flows: OwnFlows

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the store, the CA, and both doors; all of it is closed when `stack` is."""
        options = self.options
        stack.enter_context(held(options.data))
        store = open_state(options.data / "state.db", options.database)
        stack.callback(store.close)
        keys, cluster = options.data / "keys", ClusterStore(store.database)
        there = (keys / "ca.pem").exists()
        authority = check_authority(cluster, there, lambda: open_authority(keys, self.clock()))
        self.flows = await asyncio.to_thread(_open_flows, options)
        stack.callback(self.flows.close)
        listener = listen(options.bound)
        self.port = int(listener.getsockname()[1])
        listeners = _listeners(options, self.port)
        self.control = open_control(options, store, authority, listeners, self.log, self.clock())
        stack.callback(self._flush)
        self.channel = Channel(self.control, self.flows, self.clock, self._stale.set, self._heard.set)
        self.cluster = Cluster(cluster, self.control.peers, options.database, self.log)
        self.channel.ask_elsewhere = self.cluster.ask
        together = self._neighbours(stack, authority)
        share(self.control, self.channel.hang_up, self._stale.set, self.clock)
        self.control.peers.join()
        await self.cluster.open(self.channel.ask)
        stack.callback(self.cluster.close)
        await self._compile()
        hosts = tuple(one.host for one in options.advertised)
        context = authority.server_context(hosts, self.clock())
        await self.channel.listen(context, listener)
        stack.push_async_callback(self.channel.close)
        kept, changed = self.journal.kept.copy, self._stale.set
        desk = Desk(self.control, together, self.channel, self.clock, changed, self.metrics, kept, self._drafts)
        await stack.enter_async_context(serve_people(desk, options.socket_path))
        for work in (
            self._compiler(),
            self._tester(),
            self._ticker(lambda: authority.renew_server(context, hosts, self.clock())),
            self.channel.intake.turn(),
            self.cluster.turn(self._stale.set),
            pulse(self.metrics, self.log),
            watch(desk),
            self._doctor(),
        ):
            task = asyncio.create_task(work)
            self._tasks.append(task)
            stack.push_async_callback(_cancel, task)
            task.add_done_callback(lambda _: self.stop())
        self.log("listening", port=self.port, socket=str(options.socket_path), authority=authority.fingerprint)

    def _neighbours(self, stack: AsyncExitStack, authority: Authority) -> FlowStore:
        """Let other controllers ask for our flows; give all controllers' flows as one store."""
        peers = self.control.peers
        if peers.alone:
            return self.flows
        neighbours = Neighbours(peers, authority, self.log)
        stack.callback(neighbours.close)
        self.channel.attendants = Attendants(self.flows, peers, self.log)
        stack.callback(self.channel.attendants.close)
        return TogetherFlows(self.flows, neighbours)

    async def turn(self) -> None:
        """Wait for the end; raises what ended the work, where it was not `stop`."""
        await self._ended.wait()
        for task in self._tasks:
            if task.done():
                task.result()
        self.log("ending")

    def stop(self) -> None:
        """End soon."""
        self._ended.set()

    def _flush(self) -> None:
        """Write what is in memory only, at the end; agents say it again, where that cannot be."""
        with suppress(StateError):
            self.control.flush()
            self.control.peers.leave()

    # --- what goes on ---

    async def _compiler(self) -> None:
        while True:
            await self._wait_for_change()
            await self._compile()
            await self.channel.push()
            self._heard.set()
            if self.control.stale:
                self._stale.set()

    async def _wait_for_change(self) -> None:
        """Wait until something changed, or a rule starts or expires."""
        moment = self.control.next_change(self.clock())
        with suppress(TimeoutError):
            # Not longer than an hour at a time: the clock may be set.
            left = None if moment is None else min(max(moment - self.clock(), 0.0), 3600.0)
            async with asyncio.timeout(left):
                await self._stale.wait()
            await asyncio.sleep(GATHER_S)
        self._stale.clear()

    async def _compile(self) -> None:
        ground, base, now = self.control.ground(), self.control.base_ground(), self.clock()
        self.control.stale = False
        self._untested.set()
        began = time.perf_counter()
        try:
            try:
                wanted, based = await self._want(ground, base, now)
            except Exception as error:  # noqa: BLE001 - by difference it failed: from nothing it may not
                self.log("compiling anew", level="error", revision=ground.revision, why=repr(error))
                wanted, based = await self._want(ground, base, now)
        except Exception as error:  # noqa: BLE001 - whatever it is: agents keep what they hold, and people can revert
            self.log("compiling failed", level="error", revision=ground.revision, why=repr(error))
            return
        if not self.control.adopt(ground, wanted, based):
            self.control.stale = True
        self.log(
            "compiled", revision=ground.revision, points=len(wanted), seconds=round(time.perf_counter() - began, 3)
        )

    async def _want(self, ground: Ground, base: Ground | None, now: float) -> tuple[Points, Points | None]:
        self._wants = self._drafts.trade(ground.policy, self._wants)
        wanted = await asyncio.to_thread(self._wants.of, ground, now)
        if base is None:
            self._base_wants = Wants()
            return wanted, None
        return wanted, await asyncio.to_thread(self._base_wants.of, base, now)

    async def _tester(self) -> None:
        """Check the tests of the policy again when policy, fleet or time have changed, a moment later."""
        while True:
            await self._untested.wait()
            await asyncio.sleep(TEST_GATHER_S)
            self._untested.clear()
            ground, now = self.control.ground(), self.clock()
            if not self.control.peers.leads or not self.control.tests.due(ground, now):
                continue
            try:
                report = await asyncio.to_thread(check, ground, now)
            except Exception as error:  # noqa: BLE001 - whatever it is: policy and agents go on without
                self.log("tests could not be checked", level="error", why=repr(error))
                continue
            # Of a policy that is in force no longer nothing is told: the next is checked in a moment.
            if ground.revision == self.control.revision.number:
                with suppress(StateError):
                    self.control.tests.adopt(report)

    async def _doctor(self) -> None:
        """See how points with a new revision fare, while it is on its way."""
        misses: dict[str, int] = {}
        while True:
            await asyncio.sleep(HEALTH_EVERY_S)
            try:
                await self._look_after(misses)
            except (FlowStoreError, StateError) as error:
                # Not known is not well: the wave waits.
                self.log("rollout cannot be watched", level="warning", why=str(error))

    async def _look_after(self, misses: dict[str, int]) -> None:
        control, rollouts, began = self.control, self.control.rollouts, self.clock()
        course, ground, plan = rollouts.course, control.ground(), rollouts.revision.plan
        if course is None or not control.watches_rollout:
            misses.clear()
            return
        base = control.base_ground() or replace(ground, policy=rollouts.base_policy)
        checks = ground.policy.rollout.checks
        answers = await asyncio.gather(*(asyncio.to_thread(try_check, one) for one in checks))
        for one, trouble in zip(checks, answers, strict=True):
            misses[one.id] = misses.get(one.id, 0) + 1 if trouble else 0
        failing = [why for one, why in zip(checks, answers, strict=True) if misses[one.id] >= MOST_MISSES]
        flows = await asyncio.to_thread(self.flows.flows, Query(since=course.opened, outcome=Outcome.DENIED))
        denied = await asyncio.to_thread(unexpected, flows, plan, ground, base, began)
        if rollouts.course is course:
            failing += broken(control.tests.report, rollouts.revision)
            # A check that has just begun to fail is neither well nor failed yet.
            at = 0.0 if any(misses.values()) and not failing else began
            told, reporters = tuple(one for one, _ in denied), tuple(by for _, by in denied)
            seen = Health(told, tuple(failing), at, reporters)
            rollouts.health = together(ClusterStore(control.store.database), control.peers, course, seen)
            self._heard.set()

    async def _ticker(self, renew_server: Callable[[], None]) -> None:
        """See how the rollout goes when something was heard, and every second; tidy up every hour."""
        prune = renew = self.clock()
        gone = ""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._heard.wait()
                await asyncio.sleep(GATHER_S)
            self._heard.clear()
            now = self.clock()
            if now - renew > SERVER_DAYS * DAY_S / 3:
                renew = now
                renew_server()
            began = time.perf_counter()
            try:
                self.control.flush()
                self.control.peers.watch()
                if self.control.peers.leads:
                    self.control.orders.expire(now)
                opened = self.control.judge_rollout(now)
                if gone:
                    gone = ""
                    self.log("state is written again")
                    self._stale.set()
                if self.control.stale:
                    self._stale.set()
                elif self.control.offer_again(now) or opened:
                    await self.channel.push()
                self._drafts.tidy(now)
                if now - prune > PRUNE_EVERY_S:
                    prune = now
                    before = now - self.options.keep_days * DAY_S
                    if self.control.peers.leads:
                        self.control.store.prune(before)
                        self.control.peers.prune()
                    with suppress(FlowStoreError):
                        await asyncio.to_thread(self.flows.prune, before)
            except StateError as error:
                # What is in force stays, agents stay connected, and what they say waits in memory.
                if not gone:
                    self.log("state cannot be written", level="error", why=str(error))
                gone = str(error)
            # Receipts of thousands come within a second: looking at all points after each would leave time for nothing.
            await asyncio.sleep(IDLE_SHARE * (time.perf_counter() - began))


async def _cancel(task: asyncio.Task[None]) -> None:
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=TICK_S)


def _open_flows(options: ControllerOptions) -> OwnFlows:
    if options.flows == "memory":
        return MemoryFlows()
    if options.flows != "chdb":
        raise ControllerError(f"`{options.flows}` is no flow store; wanted `chdb` or `memory`")
    return open_flows(options.data / "flows")


def _listeners(options: ControllerOptions, port: int) -> tuple[Listener, ...]:
    """Give where agents reach us, DNS names resolved: those addresses become lifelines. Raises `ControllerError`."""
    found: list[Listener] = []
    for one in options.advertised:
        try:
            answers = socket.getaddrinfo(one.host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ControllerError(f"`{one.host}` cannot be resolved: {error.strerror}") from None
        for answer in answers:
            listener = Listener(canonical(ip_address(answer[4][0])), one.port or port)
            if listener not in found:
                found.append(listener)
    return tuple(found)
