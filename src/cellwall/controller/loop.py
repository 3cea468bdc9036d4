"""The controller's program: it opens what there is, turns the loop, and ends on SIGTERM.

agents ══ TLS ══ Channel ─┐                     ┌─ compile (a thread) ─┐
                          ├─ Control ── stale ──┤                      ├── push to agents
people ══ socket ══ REST ─┘    │                └─ the clock ──────────┘
                          SQLite, flow store
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TextIO

from cellwall.controller.api.channel import Channel
from cellwall.controller.api.rest import Desk, serve_people
from cellwall.controller.ca import SERVER_DAYS, open_authority
from cellwall.controller.control import Control, Log, open_control
from cellwall.controller.errors import ControllerError
from cellwall.controller.options import ControllerOptions
from cellwall.controller.store.flows import FlowStore, FlowStoreError
from cellwall.controller.store.sql import open_state
from cellwall.controller.testing import check
from cellwall.controller.wants import Wants
from cellwall.inventory import Listener
from cellwall.traffic import canonical

GATHER_S = 0.05
"""Changes that come within so long are compiled together."""
TEST_GATHER_S = 0.5
"""The tests of the policy are checked so long after a change, once for all that comes meanwhile."""
TICK_S, PRUNE_EVERY_S, DAY_S = 1.0, 3600.0, 86_400.0


def run_controller(options: ControllerOptions, ready: Callable[[Controller], None] | None = None) -> None:
    """Run a controller until SIGTERM or SIGINT. Raises `ControllerError` and `StateError` when it cannot begin.

    `ready` is called, in the loop, once both faces listen.
    """
    asyncio.run(_run(options, ready))


async def _run(options: ControllerOptions, ready: Callable[[Controller], None] | None) -> None:
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
        self.log = log or log_to(sys.stderr)
        self.port = options.bound.port
        self._stale = asyncio.Event()
        self._wants = Wants()
        self._heard = asyncio.Event()
        self._untested = asyncio.Event()
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.control: Control
        self.channel: Channel
        self.flows: FlowStore

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the store, the CA, and both doors; all of it is closed when `stack` is."""
        options = self.options
        options.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = open_authority(options.data / "keys", self.clock())
        store = open_state(options.data / "state.db")
        stack.callback(store.close)
        self.flows = await asyncio.to_thread(_open_flows, options)
        stack.callback(self.flows.close)
        listener = _bind(options)
        self.port = int(listener.getsockname()[1])
        listeners = _listeners(options, self.port)
        self.control = open_control(options, store, authority, listeners, self.log, self.clock())
        stack.callback(self.control.flush)
        self.channel = Channel(self.control, self.flows, self.clock, self._stale.set, self._heard.set)
        await self._compile()
        hosts = tuple(one.host for one in options.advertised)
        context = authority.server_context(hosts, self.clock())
        server = await self.channel.listen(context, listener)
        stack.push_async_callback(_close, server)
        desk = Desk(self.control, self.flows, self.channel, self.clock, self._stale.set)
        await stack.enter_async_context(serve_people(desk, options.socket_path))
        for work in (
            self._compiler(),
            self._tester(),
            self._ticker(lambda: authority.renew_server(context, hosts, self.clock())),
            self.channel.intake.turn(),
        ):
            task = asyncio.create_task(work)
            self._tasks.append(task)
            stack.push_async_callback(_cancel, task)
            task.add_done_callback(lambda _: self.stop())
        self.log("listening", port=self.port, socket=str(options.socket_path), authority=authority.fingerprint)

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
        ground, now = self.control.ground(), self.clock()
        self.control.stale = False
        self._untested.set()
        began = time.perf_counter()
        try:
            wanted = await asyncio.to_thread(self._wants.of, ground, now)
        except Exception as error:  # noqa: BLE001 - whatever it is: agents keep what they hold, and people can revert
            self.log("compiling failed", revision=ground.revision, why=repr(error))
            return
        if not self.control.adopt(ground, wanted):
            self.control.stale = True
        self.log(
            "compiled", revision=ground.revision, points=len(wanted), seconds=round(time.perf_counter() - began, 3)
        )

    async def _tester(self) -> None:
        """Check the tests of the policy again when policy, fleet or time have changed, a moment later."""
        while True:
            await self._untested.wait()
            await asyncio.sleep(TEST_GATHER_S)
            self._untested.clear()
            ground, now = self.control.ground(), self.clock()
            if not self.control.tests.due(ground, now):
                continue
            try:
                report = await asyncio.to_thread(check, ground, now)
            except Exception as error:  # noqa: BLE001 - whatever it is: policy and agents go on without
                self.log("tests could not be checked", why=repr(error))
                continue
            # Of a policy that is in force no longer nothing is told: the next is checked in a moment.
            if ground.revision == self.control.revision.number:
                self.control.tests.adopt(report)

    async def _ticker(self, renew_server: Callable[[], None]) -> None:
        """See how the rollout goes when something was heard, and every second; tidy up every hour."""
        prune = renew = self.clock()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._heard.wait()
                await asyncio.sleep(GATHER_S)
            self._heard.clear()
            now = self.clock()
            self.control.flush()
            self.control.judge_rollout(now)
            if self.control.stale:
                self._stale.set()
            elif self.control.offer_again(now):
                await self.channel.push()
            if now - renew > SERVER_DAYS * DAY_S / 3:
                renew = now
                renew_server()
            if now - prune > PRUNE_EVERY_S:
                prune = now
                before = now - self.options.keep_days * DAY_S
                self.control.store.prune(before)
                with suppress(FlowStoreError):
                    await asyncio.to_thread(self.flows.prune, before)


async def _cancel(task: asyncio.Task[None]) -> None:
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=TICK_S)


async def _close(server: object) -> None:
    from websockets.asyncio.server import Server

    assert isinstance(server, Server)
    server.close()
    await server.wait_closed()


def _open_flows(options: ControllerOptions) -> FlowStore:
    # Here and not above: the engine is large, and only this program needs it.
    if options.flows == "memory":
        from cellwall.controller.store.flow_memory import MemoryFlows

        return MemoryFlows()
    if options.flows != "chdb":
        raise ControllerError(f"`{options.flows}` is no flow store; wanted `chdb` or `memory`")
    from cellwall.controller.store.loop import open_flows

    return open_flows(options.data / "flows")


def _bind(options: ControllerOptions) -> socket.socket:
    at = options.bound
    family = socket.AF_INET6 if ip_address(at.host).version == 6 else socket.AF_INET
    if family == socket.AF_INET6 and at.host == "::" and not socket.has_dualstack_ipv6():
        family, at = socket.AF_INET, type(at)("0.0.0.0", at.port)  # noqa: S104 - what `[::]` means there
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(at.host != "::"))
        listener.bind((at.host, at.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ControllerError(f"cannot listen on `{options.listen}`: {error.strerror}") from None
    listener.setblocking(False)
    return listener


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


def log_to(stream: TextIO) -> Log:
    """Give a log that writes one JSON object a line: `at`, `event`, and what belongs to it."""

    def log(event: str, /, **details: object) -> None:
        entry: Mapping[str, object] = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        print(json.dumps({**entry, **details}, default=str), file=stream, flush=True)

    return log
