"""A workload in a network namespace, policies for it, and a controller that does as a test says.

The puppet controller is real TLS, real WebSockets and real signatures; only what it decides is the test's.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from tests.kernel.namespaces import Child, Namespace
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from cellwall.agent.bundle import Bundle as AgentBundle
from cellwall.agent.bundle import open_bundle
from cellwall.agent.enroll import make_request
from cellwall.agent.enrolment import Enrolment
from cellwall.compile import Point, compile_fleet
from cellwall.controller.trust.ca import Authority, open_authority
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels
from cellwall.policy import parse_policy
from cellwall.wire import (
    Ask,
    Bundle,
    Confirmed,
    Flows,
    FromAgent,
    FromController,
    Hello,
    PointState,
    Receipt,
    Renew,
    Renewed,
    Taken,
    Welcome,
    change_between,
    decode_from_agent,
    digest,
    encode,
    encode_members,
    encode_ruleset,
    sign,
    unpack_flows,
)
from cellwall.wire import MemberChange as Change

T = TypeVar("T")
PORT = 7443
NAME = "web"


def policy(rules: str = "", mode: str = "enforce", tests: str = "") -> str:
    """A policy for `web`, with rules as YAML lines."""
    return f"""
labels: {{role: {{}}}}
rules: {rules or "[]"}
modes: [{{where: role=web, mode: {mode}}}]
tests: {tests or "[]"}
"""


ALLOW_80 = '[{id: in-80, allow: tcp/80, from: "role=client", to: "role=web"}]'
ALLOW_81 = '[{id: in-81, allow: tcp/81, from: "role=client", to: "role=web"}]'


def fleet(controllers: tuple[str, ...] = ("10.77.0.1",), more: int = 0) -> Fleet:
    """`client` at 10.77.0.1 and `web` at 10.77.0.2; `more` members that nobody talks to."""
    crowd = tuple(
        Workload(f"c{number}", Labels({"role": "client"}), (ip_address(0x0B000000 + number),), agent=False)
        for number in range(more)
    )
    return Fleet(
        (
            Workload(NAME, Labels({"role": "web"}), (ip_address("10.77.0.2"), ip_address("fd77::2"))),
            Workload("client", Labels({"role": "client"}), (ip_address("10.77.0.1"), ip_address("fd77::1"))),
            *crowd,
        ),
        tuple(Listener(ip_address(one), PORT) for one in controllers),
    )


def point(documents: str, revision: int, among: Fleet | None = None) -> Point:
    """Compile for `web`."""
    return compile_fleet(parse_policy([("p.yaml", documents)]), among or fleet(), revision, 1000.0).points[NAME]


@dataclass
class Puppet:
    """A controller whose decisions are the test's; it runs in a thread, inside a namespace."""

    authority: Authority
    confirming: bool = True
    interval_s: float = 0.5
    heard: list[FromAgent] = field(default_factory=list[FromAgent])
    connections: int = 0
    taking: bool = True
    renew_before_s: float = 0.0
    ahead_s: float = 0.0
    """By how much its clock is ahead of everybody else's."""
    _sockets: list[ServerConnection] = field(default_factory=list[ServerConnection])
    _loop: asyncio.AbstractEventLoop | None = None
    _generation: int = 0
    _current: tuple[int, Point] | None = None

    # --- what the test says ---

    def now(self) -> float:
        """Give the time by its clock."""
        return time.time() + self.ahead_s

    def enrol(self, folder: Path, host: str = "10.77.0.1") -> Enrolment:
        """Enrol `web` by hand into `folder`."""
        key, request = make_request(NAME)
        issued = self.authority.issue(request, NAME, 30, time.time())
        enrolment = Enrolment(folder, NAME, f"https://{host}:{PORT}", self.authority.verify_key)
        enrolment.save(issued.pem, key, self.authority.pem)
        return enrolment

    def bundle(self, what: Point, confirm_s: float = 0.0) -> Bundle:
        """Sign the next generation."""
        self._generation += 1
        self._current = self._generation, what
        return sign(
            Bundle(
                workload=NAME,
                generation=self._generation,
                revision=what.ruleset.revision,
                ruleset=encode_ruleset(what.ruleset),
                members=encode_members(what.members),
                issued_at=self.now(),
                confirm_s=float(confirm_s),
            ),
            self.authority.bundle_key,
        )

    def change(self, what: Point) -> Change:
        """Sign the change of members from the last bundle or change to `what`."""
        assert self._current
        base, before = self._current
        self._generation += 1
        added, removed = change_between(before.members, what.members)
        self._current = self._generation, what
        return sign(
            Change(
                workload=NAME,
                base=base,
                generation=self._generation,
                revision=what.ruleset.revision,
                added=encode_members(added),
                removed=removed,
                digest=digest(before.ruleset, what.members),
                issued_at=self.now(),
            ),
            self.authority.bundle_key,
        )

    def opened(self, what: Point, confirm_s: float = 0.0) -> AgentBundle:
        """The next generation as the agent's own value."""
        message = self.bundle(what, confirm_s)
        return open_bundle(message, encode(message))

    def send(self, message: FromController) -> None:
        """Send to the agent that is connected."""
        self.send_raw(encode(message))

    def send_raw(self, data: bytes | str) -> None:
        """Send whatever it is."""
        assert self._loop
        asyncio.run_coroutine_threadsafe(self._sockets[-1].send(data), self._loop).result(10)

    def wait(self, kind: type[T], fits: Callable[[T], bool] = lambda _: True, timeout_s: float = 20.0) -> T:
        """Wait for a message that fits, those that came before included."""
        until = time.monotonic() + timeout_s
        while True:
            for message in tuple(self.heard):
                if isinstance(message, kind) and fits(message):
                    return message
            assert time.monotonic() < until, f"no such {kind.__name__}; heard {self.heard[-8:]}"
            time.sleep(0.01)

    def receipt(self, generation: int, state: PointState, timeout_s: float = 20.0) -> Receipt:
        """Wait for a receipt."""
        return self.wait(Receipt, lambda one: one.generation == generation and one.state is state, timeout_s)

    def ask(self, question: Any, number: int) -> Any:
        """Ask a live question and wait for the answer."""
        from cellwall.wire import Answer

        self.send(Ask(id=number, question=question))
        return self.wait(Answer, lambda one: one.id == number).answer

    def flows(self) -> list[Any]:
        """All flow records that came."""
        batches = {one.batch: one for one in tuple(self.heard) if isinstance(one, Flows)}
        return [record for one in batches.values() for record in unpack_flows(one, NAME)]

    # --- what it does by itself ---

    def serve(self, where: Namespace, started: threading.Event, hosts: tuple[str, ...]) -> None:
        """Run until `stop`, in the thread that calls."""
        with where.inside():
            self._loop = asyncio.new_event_loop()
            context = self.authority.server_context(hosts, time.time())
            self._loop.run_until_complete(self._serve(context, started))
            self._loop.close()

    async def _serve(self, context: ssl.SSLContext, started: threading.Event) -> None:
        self._ending = asyncio.Event()
        async with serve(self._talk, None, PORT, ssl=context, max_size=None, close_timeout=0.2):
            started.set()
            await self._ending.wait()

    def stop(self) -> None:
        """End the server."""
        assert self._loop
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ending.set)

    def resume(self, where: Namespace) -> None:
        """Listen again after a `stop`."""
        started = threading.Event()
        threading.Thread(target=self.serve, args=(where, started, ("10.77.0.1",)), daemon=True).start()
        assert started.wait(10), "the puppet does not listen again"

    @property
    def connected(self) -> bool:
        """Whether an agent ever connected."""
        return bool(self._sockets)

    def hang_up(self) -> None:
        """Cut all connections."""
        assert self._loop
        for socket in self._sockets:
            self._loop.call_soon_threadsafe(socket.transport.abort)

    async def _talk(self, socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            hello = decode_from_agent(bytes(await socket.recv()))  # type: ignore[arg-type]
            assert isinstance(hello, Hello)
            self.heard.append(hello)
            self.connections += 1
            welcome = Welcome(
                protocol=1, interval_s=self.interval_s, renew_before_s=self.renew_before_s, now=self.now()
            )
            await socket.send(encode(welcome))
            self._sockets.append(socket)
            async for data in socket:
                assert isinstance(data, bytes)
                message = decode_from_agent(data)
                self.heard.append(message)
                if isinstance(message, Renew):
                    issued = self.authority.issue(message.request, NAME, 90, time.time())
                    await socket.send(encode(Renewed(certificate=issued.pem)))
                if isinstance(message, Flows) and self.taking:
                    await socket.send(encode(Taken(batch=message.batch)))
                if isinstance(message, Receipt) and message.state is PointState.PROVISIONAL and self.confirming:
                    await socket.send(encode(Confirmed(generation=message.generation)))


@contextmanager
def puppet(where: Namespace, folder: Path, hosts: tuple[str, ...] = ("10.77.0.1",)) -> Generator[Puppet]:
    """Run a puppet controller in `where`, its keys in `folder`."""
    made = Puppet(open_authority(folder, time.time()))
    started = threading.Event()
    thread = threading.Thread(target=made.serve, args=(where, started, hosts), daemon=True)
    thread.start()
    assert started.wait(10), "the puppet does not listen"
    try:
        yield made
    finally:
        made.stop()
        thread.join(10)


def start_agent(
    where: Namespace, state: Path, *options: str, interval_s: float = 0.5, python: tuple[str, ...] = (sys.executable,)
) -> Child:
    """Run an agent inside `where`, by `python`; what it says is in `state`/log."""
    program = [*python, "-m", "cellwall", "agent", "run", "--state", str(state), "--interval", str(interval_s)]
    script = 'exec "$@" 2>>"$0"'
    return where.spawn(["sh", "-c", script, str(state / "log"), *program, *options])


def kernel_text(where: Namespace, *tables: str) -> str:
    """The tables as nft lists them, without what counts; all of them where none is named."""
    if tables:
        return "".join(where.run(["nft", "-s", "list", "table", *one.split()]).stdout for one in tables)
    return where.run(["nft", "-s", "list", "ruleset"]).stdout


def meaning(where: Namespace) -> list[str]:
    """The lines of our table, sorted, without the numbers by which old and new parts are told apart, and without how
    long what ends by itself was given; [] for none."""
    done = where.run(["nft", "-s", "list", "table", "inet", "cellwall"], check=False)
    text = re.sub(r"set seen\w* \{.*?\n\t\}\n", "", done.stdout, flags=re.DOTALL)
    text = re.sub(r" timeout \w+ :", " :", text)
    return sorted(re.sub(r"_\d+(?![\w-])", "", text).splitlines())


def connects(where: Namespace, address: str, port: int, timeout_s: float = 1.0) -> bool:
    """Say whether a TCP connection from `where` works."""
    return where.call(_connects, address, port, timeout_s)


def _connects(address: str, port: int, timeout_s: float) -> bool:
    import socket

    try:
        with socket.create_connection((address, port), timeout_s):
            return True
    except OSError:
        return False


def serve_tcp(port: int) -> None:
    """Accept connections on `port`, both families, for ever; to be run in a child."""
    import socket

    # A fork has the puppet's sockets too, and would keep them open.
    os.closerange(3, 256)
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        held: list[socket.socket] = []
        while True:
            held.append(server.accept()[0])
