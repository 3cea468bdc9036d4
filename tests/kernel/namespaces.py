"""Network namespaces for tests of the real kernel: made, entered, always taken away.

    with pair() as (a, b):
        a.nft("add table inet t")
        b.start(serve, 5432)                 # a forked child inside b, stopped at the end
        assert a.call(connect, str(b.v4), 5432)   # runs in a forked child inside a, gives its result
        with a.inside():                     # sockets opened here live in a
            link = Netlink(Protocol.NETFILTER)

Processes are entered by `nsenter --net`, which leaves the cgroup tree in sight, as `ip netns exec` does not.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from itertools import count
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

P = ParamSpec("P")
R = TypeVar("R")

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = count(1)
_NOWHERE4, _NOWHERE6 = IPv4Address(0), IPv6Address(0)


@cache
def missing() -> str:
    """Say what keeps this machine from making namespaces; "" when nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nft", "nsenter"):
        if not any((Path(folder) / program).exists() for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin")):
            return f"`{program}` is not installed"
    name = f"cwk{os.getpid()}x"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


needs_namespaces = pytest.mark.skipif(bool(missing()), reason=missing() or "namespaces can be made")
"""Put `pytestmark = needs_namespaces` into a test module of the kernel."""


@dataclass
class Child:
    """A process that a test started; `stop` ends it and everything in its session."""

    pid: int
    name: str

    def alive(self) -> bool:
        """Say whether it still runs."""
        try:
            return os.waitpid(self.pid, os.WNOHANG) == (0, 0)
        except ChildProcessError:
            return False

    def stop(self) -> None:
        """End it, and what it started, and wait until it is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


@dataclass
class Namespace:
    """One network namespace, with loopback up; `v4` and `v6` are its addresses on the last wire it was joined to."""

    name: str
    v4: IPv4Address = _NOWHERE4
    v6: IPv6Address = _NOWHERE6
    device: str = ""
    _children: list[Child] = field(default_factory=list[Child])

    @property
    def path(self) -> Path:
        """The file that stands for it."""
        return Path("/run/netns") / self.name

    def run(
        self, command: list[str], *, stdin: str | None = None, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end; a failure raises with what the program said."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", "--", *command],
            input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} gave {done.returncode}: {done.stderr.strip()}")
        return done

    def nft(self, script: str) -> str:
        """Feed `script` to nft(8), and give what it prints."""
        return self.run(["nft", "-f", "-"], stdin=script).stdout

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function` in a forked child inside it; give what it returns, raise what it raises.

        The result comes back pickled.
        """
        reader, writer = os.pipe()
        pid = self._fork(writer, lambda: function(*args, **kwargs))
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            told = answer.read()
        os.waitpid(pid, 0)
        if not told:
            raise AssertionError(f"{function.__name__} died in namespace {self.name}")
        good, result = pickle.loads(told)
        if not good:
            error, trace = result
            error.add_note(f"in namespace {self.name}:\n{trace}")
            raise error
        return result

    def start(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Child:
        """Run `function` in a forked child inside it, until it returns or the namespace goes."""
        child = Child(self._fork(None, lambda: function(*args, **kwargs)), function.__name__)
        self._children.append(child)
        return child

    def spawn(self, command: list[str]) -> Child:
        """Run a program inside it, until it ends or the namespace goes."""
        process = subprocess.Popen(
            ["nsenter", f"--net={self.path}", "--", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        # The child is waited for by pid; let Popen not complain that it was not.
        process.returncode = 0
        child = Child(process.pid, command[0])
        self._children.append(child)
        return child

    @contextmanager
    def inside(self) -> Generator[None]:
        """Be in it, with this thread, for a while: sockets opened meanwhile stay in it."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._enter()
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def wait_for_port(self, port: int, *, udp: bool = False, timeout_s: float = 10) -> None:
        """Wait until something listens on `port` in it."""
        until = time.monotonic() + timeout_s
        while f":{port} " not in self.run(["ss", "-Hnul" if udp else "-Hntl"]).stdout:
            assert time.monotonic() < until, f"nothing listens on {port} in {self.name}"
            time.sleep(0.02)

    def close(self) -> None:
        """Stop what was started in it and take it away."""
        while self._children:
            self._children.pop().stop()
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def _enter(self) -> None:
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(handle)
        finally:
            os.close(handle)

    def _fork(self, writer: int | None, work: Callable[[], object]) -> int:
        pid = os.fork()
        if pid:
            return pid
        # The child leaves by _exit alone: nothing of pytest may run in it.
        status = 1
        try:
            os.setsid()
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            self._enter()
            try:
                told: tuple[bool, object] = (True, work())
                status = 0
            except BaseException as error:
                told = (False, (error, traceback.format_exc()))
            if writer is not None:
                try:
                    packed = pickle.dumps(told)
                except Exception:
                    packed = pickle.dumps((False, (AssertionError(f"cannot be pickled: {told!r}"), "")))
                with os.fdopen(writer, "wb") as answer:
                    answer.write(packed)
        finally:
            os._exit(status)


def _setns(handle: int) -> None:
    if _libc.setns(handle, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def namespace() -> Generator[Namespace]:
    """Make a namespace with loopback up."""
    made = Namespace(f"cwk{os.getpid()}n{next(_numbers)}")
    subprocess.run(["ip", "netns", "add", made.name], check=True, capture_output=True)
    try:
        made.run(["ip", "link", "set", "lo", "up"])
        yield made
    finally:
        made.close()


@contextmanager
def pair() -> Generator[tuple[Namespace, Namespace]]:
    """Make two namespaces joined by a wire: 10.77.0.1 and .2, fd77::1 and ::2, device `wire` in both."""
    with ExitStack() as stack:
        a, b = stack.enter_context(namespace()), stack.enter_context(namespace())
        join(a, b)
        yield a, b


def join(a: Namespace, b: Namespace, number: int = 0, device: str = "wire") -> None:
    """Join two namespaces by a wire with addresses 10.77.`number`.1 and .2, fd77:`number`::1 and ::2."""
    a.run(["ip", "link", "add", device, "type", "veth", "peer", "name", device, "netns", str(b.name)])
    for host, one in enumerate((a, b), 1):
        one.v4 = IPv4Address(f"10.77.{number}.{host}")
        one.v6 = IPv6Address(f"fd77:{number:x}::{host}")
        one.device = device
        # No duplicate address detection: the address is to work at once.
        one.run(["ip", "addr", "add", f"{one.v4}/24", "dev", device])
        one.run(["ip", "addr", "add", f"{one.v6}/64", "dev", device, "nodad"])
        one.run(["ip", "link", "set", device, "up"])
    _wait_for_carrier(a, device)
    _wait_for_carrier(b, device)


def _wait_for_carrier(one: Namespace, device: str) -> None:
    until = time.monotonic() + 5
    while "LOWER_UP" not in one.run(["ip", "link", "show", device]).stdout:
        assert time.monotonic() < until, f"{device} in {one.name} does not come up"
        time.sleep(0.01)
