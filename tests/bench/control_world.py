"""A controller as it is started in earnest, a crowd of simulated agents, and a person who asks it things meanwhile."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cellwall.controller.trust.ca import open_authority
from tests.bench.fleet_sim_keys import KEPT, ROOT, make_fleet, prepare
from tests.ports import free_port

PATIENCE_S = 120.0
TICKS = os.sysconf("SC_CLK_TCK")


class Problem(AssertionError):
    """The controller or the crowd did not do what was waited for."""


class _Socket(HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("controller", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the Unix socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Boss:
    """The controller's process, and its API."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int

    def ask(self, method: str, path: str, body: object = None, timeout: float = PATIENCE_S) -> Any:
        """Ask the API. Raises `Problem` where the answer is no success."""
        with closing(_Socket(self.folder / "api.sock", timeout)) as connection:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/api/v1{path}", data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise Problem(f"{method} {path}: {answer.status} {text[:300]!r}")
            return json.loads(text)

    def memory(self) -> dict[str, float]:
        """MiB: `VmRSS` all, `RssAnon` without pages of files."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        told = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        return {key: int(told[key][0]) / 1024 for key in ("VmRSS", "VmHWM", "RssAnon")}

    def cpu_s(self) -> float:
        """Seconds of processor used so far, proc(5)."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICKS

    def log(self) -> str:
        """The end of what it said."""
        return (self.folder / "log").read_text()[-2000:]


@dataclass
class Sim:
    """One process of simulated agents."""

    process: subprocess.Popen[str]
    count: int
    first: int

    def tell(self, **command: object) -> dict[str, Any]:
        """Tell it to do something; gives how its agents stand."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Problem("the simulator ended")
        return json.loads(line)

    def look(self) -> dict[str, Any]:
        """Say how its agents stand."""
        return self.tell(do="look")


@dataclass
class Asker:
    """Somebody who asks for the revisions again and again, and notes how long each answer takes."""

    boss: Boss
    every_s: float = 0.2
    took: list[float] = field(default_factory=list[float])
    failed: int = 0
    _end: threading.Event = field(default_factory=threading.Event)

    def _turn(self) -> None:
        while not self._end.wait(self.every_s):
            began = time.perf_counter()
            try:
                self.boss.ask("GET", "/policy/revisions", timeout=60)
                self.took.append(time.perf_counter() - began)
            except (OSError, Problem):
                self.failed += 1

    @contextmanager
    def asking(self) -> Generator[Asker]:
        """Ask while the block lasts."""
        thread = threading.Thread(target=self._turn)
        thread.start()
        try:
            yield self
        finally:
            self._end.set()
            thread.join()


@contextmanager
def controller(folder: Path, *more: str, environment: Mapping[str, str] | None = None) -> Generator[Boss]:
    """Start `cellwall controller run` on `folder`/data until the block ends."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("cellwall")), "controller", "run", "--data", str(folder / "data"), *more,
        "--listen", f"127.0.0.1:{port}", "--advertise", f"https://127.0.0.1:{port}",
        "--socket", str(folder / "api.sock"),
    ]  # fmt: skip
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
        )
    boss = Boss(process, folder, port)
    try:
        for _ in range(1200):
            with suppress(OSError, Problem):
                boss.ask("GET", "/status")
                break
            if process.poll() is not None:
                raise Problem(f"the controller ended: {boss.log()}")
            time.sleep(0.05)
        yield boss
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def crowd(folder: Path, first: int, count: int, *ports: int) -> Generator[Sim]:
    """Start a process of `count` agents, who wait to be told to connect, to one or several controllers."""
    key = open_authority(KEPT / "keys", time.time()).verify_key.hex()
    with (folder / f"sim-{first}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.fleet_sim", str(first), str(count), ",".join(map(str, ports)), key],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
        )  # fmt: skip
    try:
        yield Sim(process, count, first)
    finally:
        process.kill()
        process.wait()
        if text := (folder / f"sim-{first}.log").read_text():
            print(text[-3000:], file=sys.stderr)


@contextmanager
def world(agents: int, *more: str) -> Generator[tuple[Boss, Sim]]:
    """A controller that knows `agents` agents, and those agents, away."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    make_fleet(agents)
    with TemporaryDirectory(prefix="cwbench-") as name:
        folder = Path(name)
        prepare(agents, folder / "data")
        with controller(folder, *more) as boss, crowd(folder, 0, agents, boss.port) as sim:
            yield boss, sim
