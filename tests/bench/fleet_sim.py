"""Thousands of agents in one process, told over its standard input what to do: `python -m tests.bench.fleet_sim`.

Commands and reports are JSON, one a line. The process turns one epoll over all connections; an agent that loses its
connection, or is not welcomed in time, comes again as the real one does: after a pause that doubles, with jitter.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import resource
import select
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.traffic import parse_address
from cellwall.wire import encode, pack_flows
from tests.bench.fleet_sim_agent import Agent, Lost, Stage, Wits
from tests.bench.fleet_sim_keys import KEPT, address_of

WELCOME_S, PING_S = 10.0, 20.0
BACKOFF_FIRST_S, BACKOFF_LAST_S = 1.0, 20.0
"""As in cellwall.agent.loop."""
SOURCES = 200
"""From so many addresses of loopback connections are made."""
AT_ONCE = 4
"""So much of what is left to do is done before it is looked again whether there is something else."""


class Crowd:
    """All agents of this process."""

    def __init__(self, first: int, count: int, ports: Sequence[int], key: bytes, folder: Path = KEPT) -> None:
        self.ports, self.folder = ports, folder
        self.moves: Counter[int] = Counter()
        """How often each agent has gone to the next controller: whenever a connection was lost."""
        self.wits = Wits(Ed25519PublicKey.from_public_bytes(key), tell=self._told)
        self.agents = [
            Agent(number, f"w{number:05}", address_of(number).packed, self.wits)
            for number in range(first, first + count)
        ]
        self.epoll = select.epoll()
        self.by_file: dict[int, Agent] = {}
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.order = 0
        self.told: Counter[str] = Counter()
        self.why: Counter[str] = Counter()
        self.resume = False
        self.resumed = 0
        self.per_agent = 0
        """How many batches of flows each agent has under way."""
        self.bodies: list[bytes] = []
        self.batches = 0
        self.welcomed: list[float] = []
        self.storm_began = 0.0
        self.stopping = False
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.check_hostname = False
        self.context.load_verify_locations(folder / "keys" / "ca.pem")
        self.chance = random.Random(first)
        self.after(PING_S, lambda: self._pings(0))

    # --- time ---

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Do something later."""
        self.order += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.order, work))

    def _pings(self, at: int) -> None:
        """Each agent pings every `PING_S`: a hundredth of them at a time."""
        for agent in self.agents[at::100]:
            if agent.stage is Stage.UP:
                self._guard(agent, agent.ping)
        self.after(PING_S / 100, lambda: self._pings((at + 1) % 100))

    # --- connections ---

    def connect(self, agent: Agent) -> None:
        """Begin to connect."""
        if agent.stage is not Stage.AWAY:
            return
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # IP_BIND_ADDRESS_NO_PORT, ip(7): the port is chosen when connecting, and is the pair's.
        raw.setsockopt(socket.IPPROTO_IP, 24, 1)
        raw.bind((f"127.1.{agent.number % SOURCES}.1", 0))
        agent.begin(raw)
        raw.connect_ex(("127.0.0.1", self.ports[(agent.number + self.moves[agent.number]) % len(self.ports)]))
        self.by_file[raw.fileno()] = agent
        self.epoll.register(raw.fileno(), select.EPOLLOUT)
        began = agent.came
        self.after(WELCOME_S, lambda: self._impatient(agent, began, Stage.GREETING))
        self.after(2 * WELCOME_S, lambda: self._impatient(agent, began, Stage.UP))

    def _impatient(self, agent: Agent, began: float, wanted: Stage) -> None:
        """As the real one: so long until the WebSocket stands, and as long again until it is welcomed."""
        if agent.came == began and Stage.AWAY.value < agent.stage.value < wanted.value:
            self.lost(agent, f"not in time: {agent.stage.name.lower()}")

    def lost(self, agent: Agent, why: str) -> None:
        """Lose a connection, and come again."""
        self.why[why[:80]] += 1
        self.moves[agent.number] += 1
        self._forget(agent)
        pause = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2**agent.tries)
        agent.tries += 1
        if not self.stopping:
            self.after(pause * self.chance.uniform(0.5, 1), lambda: self.connect(agent))

    def _forget(self, agent: Agent) -> None:
        one = agent.tls or agent.raw
        if one is not None and one.fileno() >= 0:
            self.by_file.pop(one.fileno(), None)
            self.epoll.unregister(one.fileno())
        agent.drop()

    def _connected(self, agent: Agent) -> None:
        raw = agent.raw
        assert raw is not None
        error = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise Lost(os.strerror(error))
        # A connection takes its certificate from the context when it is made: so one context serves all.
        self.context.load_cert_chain(self.folder / "agents" / f"{agent.name}.pem")
        session = agent.session if self.resume else None
        number = raw.fileno()
        tls = self.context.wrap_socket(raw, do_handshake_on_connect=False, server_hostname="localhost", session=session)
        assert tls.fileno() == number
        agent.raw = None
        agent.wrapped(tls)
        self.epoll.modify(number, select.EPOLLIN)

    def _told(self, agent: Agent, what: str) -> None:
        self.told[what] += 1
        if what == "welcome":
            self.welcomed.append(time.monotonic() - self.storm_began)
            assert agent.tls is not None
            self.resumed += bool(agent.tls.session_reused)
            if self.per_agent:
                self.after(0, lambda: self._feed(agent))
        elif what == "taken" and self.per_agent:
            self._feed(agent)

    # --- the loop ---

    def _guard(self, agent: Agent, work: Callable[[], None]) -> None:
        try:
            work()
        except Lost as error:
            self.lost(agent, str(error))

    def _serve(self, agent: Agent, events: int) -> None:
        if agent.stage is Stage.CONNECTING:
            self._connected(agent)
        agent.turn()
        if agent.tls is not None:
            if self.resume and agent.session is None and agent.stage is Stage.UP:
                agent.session = agent.tls.session
            wanted = select.EPOLLIN * (not agent.mute) | select.EPOLLOUT * bool(agent.out)
            if wanted != select.EPOLLIN or events & select.EPOLLOUT:
                self.epoll.modify(agent.tls.fileno(), wanted)

    def run(self) -> None:
        """Turn until told to stop."""
        own = sys.stdin.fileno()
        os.set_blocking(own, False)
        self.epoll.register(own, select.EPOLLIN)
        heard = b""
        while not self.stopping:
            wait = max(0.0, min(1.0, self.timers[0][0] - time.monotonic())) if self.timers else 1.0
            ready = self.epoll.poll(0.0 if self.wits.undone else wait, 512)
            if not ready:
                self.wits.do_some(AT_ONCE)
            for number, events in ready:
                if number == own:
                    data = os.read(own, 65536)
                    if not data:
                        return
                    *lines, heard = (heard + data).split(b"\n")
                    for line in lines:
                        self.order_of(json.loads(line))
                    continue
                agent = self.by_file.get(number)
                if agent is not None:
                    try:
                        self._serve(agent, events)
                    except Lost as error:
                        self.lost(agent, str(error))
            now = time.monotonic()
            while self.timers and self.timers[0][0] <= now:
                heapq.heappop(self.timers)[2]()

    # --- told from outside ---

    def order_of(self, command: dict[str, Any]) -> None:
        """Do what is asked, and answer."""
        what = command["do"]
        if what == "connect":
            self.storm_began = time.monotonic()
            self.welcomed.clear()
            self.resume = bool(command.get("resume"))
            rate = command.get("rate")
            for at, agent in enumerate(self.agents):
                if rate:
                    self.after(at / rate, lambda one=agent: self.connect(one))
                else:
                    self.connect(agent)
        elif what == "drop":
            for agent in self.agents:
                self._forget(agent)
                agent.tries = 0
            self.told.clear()
            self.why.clear()
            self.welcomed.clear()
            self.resumed = 0
        elif what == "flows":
            self._flows(int(command["rows"]), int(command["under_way"]))
        elif what == "mute":
            for agent in self.agents[: int(command["count"])]:
                agent.mute = True
                if agent.tls is not None:
                    self.epoll.modify(agent.tls.fileno(), 0)
        elif what == "stop":
            self.stopping = True
        self.answer()

    def answer(self) -> None:
        """Say how all stand."""
        stages = Counter(agent.stage.name for agent in self.agents)
        used = resource.getrusage(resource.RUSAGE_SELF)
        ordered = sorted(self.welcomed)
        told = {
            "up": stages["UP"],
            "stages": stages,
            "told": self.told,
            "under_way": sum(len(agent.waiting) for agent in self.agents),
            "why": self.why.most_common(8),
            "holding": Counter(agent.revision for agent in self.agents),
            "at": max((agent.received for agent in self.agents), default=0.0),
            "welcomed": ordered[:: max(1, len(ordered) // 200)] + ordered[-1:],
            "welcomes": len(ordered),
            "resumed": self.resumed,
            "verified": self.wits.verified,
            "undone": len(self.wits.undone),
            "compared": self.wits.compared,
            "cpu_s": used.ru_utime + used.ru_stime,
        }
        print(json.dumps(told), flush=True)

    # --- flows ---

    def _flows(self, rows: int, under_way: int) -> None:
        """Have every agent keep so many batches under way, from here on; 0 ends it."""
        self.per_agent = under_way
        if not under_way:
            return
        self.bodies = [_body(self.agents[number % len(self.agents)].address, rows, number) for number in range(64)]
        for agent in self.agents:
            if agent.stage is Stage.UP:
                self._guard(agent, lambda one=agent: self._feed(one))

    def _feed(self, agent: Agent) -> None:
        while len(agent.waiting) < self.per_agent and agent.stage is Stage.UP:
            self.batches += 1
            batch = f"{self.batches:020}"
            agent.waiting[batch] = b""
            body = self.bodies[self.batches % len(self.bodies)]
            agent.send(body.replace(_PLACE, batch.encode(), 1))


_PLACE = b"B" * 20


def _body(own: bytes, rows: int, seed: int) -> bytes:
    chance, now = random.Random(seed), time.time()
    here = parse_address(".".join(map(str, own)))
    records = [
        FlowRecord(
            FlowKey(here, parse_address(str(address_of(chance.randrange(10_000)))), 6, chance.choice((80, 443, 5432))),
            "",
            chance.choice((Side.EGRESS, Side.INGRESS)),
            Outcome.ALLOWED,
            Outcome.ALLOWED,
            chance.choice(((), ("app-to-db",), ("web", "app-to-db"))),
            1,
            chance.randrange(1, 20),
            now - 2,
            now,
            process=Process(chance.choice(("nginx", "postgres", "java")), "app"),
        )
        for _ in range(rows)
    ]
    return encode(pack_flows(records, batch=_PLACE.decode(), start=now - 2, end=now))


def main() -> None:
    """Read from the arguments: first agent, how many, the controllers' ports, bundle key in hexadecimal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    first, count, ports, key = sys.argv[1:5]
    Crowd(int(first), int(count), [int(one) for one in ports.split(",")], bytes.fromhex(key)).run()


if __name__ == "__main__":
    main()
