"""A small event loop: tasks are generators that yield what they wait for.

No threads, and nothing heavier than `selectors`: some eighty of these programs share two cores in a lab. For the same
reason they are started with `-I -S` and only this folder's parent on the path: nothing installed is loaded.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import sys
import time
from collections.abc import Generator
from itertools import count
from typing import Any, TypeVar

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
Wait = tuple[socket.socket | None, int, float]
"""The socket to wait for (None: sleep), the events, and the deadline on the monotonic clock."""
FOREVER = float("inf")
T = TypeVar("T")
Task = Generator[Wait, None, T]


class Turn:
    """Runs tasks until none is left or `stop` is called; one task per socket waits at a time."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Task[Any], socket.socket | None]] = []
        self._ticket = count()
        self._waiting: dict[Task[Any], int] = {}
        self._running = True

    def start(self, task: Task[Any]) -> None:
        """Run `task` up to its first wait; from there on it goes on by itself."""
        self._step(task, None)

    def stop(self) -> None:
        """Let `run` return after the current turn."""
        self._running = False

    def run(self) -> None:
        """Turn until `stop` is called or every task has ended."""
        while self._running and self._waiting:
            pause = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, _ in self._selector.select(pause):
                self._wake(key.data, key.fileobj, None)  # pyright: ignore[reportArgumentType]
            now = time.monotonic()
            while self._timers and (self._timers[0][0] <= now or self._stale(self._timers[0])):
                entry = heapq.heappop(self._timers)
                if not self._stale(entry):
                    late = TimeoutError() if entry[3] is not None else None
                    self._wake(entry[2], entry[3], late)

    def _stale(self, entry: tuple[float, int, Task[Any], socket.socket | None]) -> bool:
        return self._waiting.get(entry[2]) != entry[1]

    def _wake(self, task: Task[Any], sock: socket.socket | None, error: Exception | None) -> None:
        if sock is not None:
            self._selector.unregister(sock)
        del self._waiting[task]
        self._step(task, error)

    def _step(self, task: Task[Any], error: Exception | None) -> None:
        try:
            sock, events, deadline = task.throw(error) if error else next(task)
        except StopIteration:
            return
        except OSError as trouble:
            print("conversation ended:", reason(trouble), file=sys.stderr)
            return
        ticket = next(self._ticket)
        self._waiting[task] = ticket
        if deadline != FOREVER:
            heapq.heappush(self._timers, (deadline, ticket, task, sock))
            # Most waits end long before their deadline; without this their timers would pile up.
            if len(self._timers) > 2 * len(self._waiting) + 64:
                self._timers = [entry for entry in self._timers if not self._stale(entry)]
                heapq.heapify(self._timers)
        if sock is not None:
            self._selector.register(sock, events, task)


def sleep_until(deadline: float) -> Task[None]:
    """Wait until the monotonic clock shows `deadline`."""
    yield None, 0, deadline


def wait_for(sock: socket.socket, events: int, deadline: float) -> Task[None]:
    """Wait until `sock` is ready. Raises `TimeoutError` at `deadline`."""
    yield sock, events, deadline


class Stream:
    """One TCP connection; every act must be finished by `deadline`, or raises `TimeoutError`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.deadline = 0.0
        self._pending = b""

    def send(self, data: bytes) -> Task[None]:
        """Send all of `data`."""
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                yield from wait_for(self.sock, WRITE, self.deadline)

    def _fill(self) -> Task[None]:
        while True:
            try:
                more = self.sock.recv(65536)
            except BlockingIOError:
                yield from wait_for(self.sock, READ, self.deadline)
                continue
            if not more:
                raise ConnectionAbortedError("closed by the other side")
            self._pending += more
            if len(self._pending) > 1 << 20:
                raise ConnectionAbortedError("the other side talks without end")
            return

    def until(self, mark: bytes) -> Task[bytes]:
        """Receive up to and without `mark`."""
        while mark not in self._pending:
            yield from self._fill()
        found, _, self._pending = self._pending.partition(mark)
        return found

    def exactly(self, length: int) -> Task[bytes]:
        """Receive `length` bytes."""
        while len(self._pending) < length:
            yield from self._fill()
        found, self._pending = self._pending[:length], self._pending[length:]
        return found

    def close(self) -> None:
        """Close the connection; never fails."""
        self.sock.close()


def connect(host: str, port: int, deadline: float) -> Task[Stream]:
    """Connect to `host` by `deadline`. Raises `OSError` for what the network answers."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    stream = Stream(sock)
    stream.deadline = deadline
    try:
        try:
            sock.connect((host, port))
        except BlockingIOError:
            yield from wait_for(sock, WRITE, deadline)
        trouble = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if trouble:
            raise OSError(trouble, "cannot connect")
    except BaseException:
        stream.close()
        raise
    return stream


def exchange(host: str, port: int, data: bytes, deadline: float) -> Task[bytes]:
    """Send one datagram from a port of its own and wait for the answer."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((host, port))
        sock.send(data)
        yield from wait_for(sock, READ, deadline)
        return sock.recv(65536)


def reason(error: OSError) -> str:
    """Say in a word or two what went wrong."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    if error.errno is None:
        return str(error)
    return error.strerror.lower() if error.strerror else f"error {error.errno}"
