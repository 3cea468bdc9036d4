"""Call services steadily, verify every answer and count what became of it."""

from __future__ import annotations

import socket
import time

from .datagrams import ask_dns, ask_echo, log_line
from .spec import CallCount, CallSpec
from .streams import STREAMS
from .turn import Stream, Task, connect, reason, sleep_until

PATIENCE_S = 5.0
"""How long an attempt may take before it has failed."""
_REUSES = 20
_KEPT_FAILURES = 50


def keep_calling(spec: CallSpec, count: CallCount) -> Task[None]:
    """Make the call once every `every_s` seconds for ever, and keep `count` up to date."""
    caller = Caller(spec, count)
    due = time.monotonic() + spec["start_s"]
    while True:
        yield from sleep_until(due)
        began = time.monotonic()
        try:
            yield from caller.attempt(began + PATIENCE_S)
        except OSError as error:
            caller.hang_up()
            count["failed"] += 1
            count["failures"] = [*count["failures"], (time.time(), reason(error))][-_KEPT_FAILURES:]
        took_ms = (time.monotonic() - began) * 1000
        count["attempts"] += 1
        count["total_ms"] += took_ms
        count["slowest_ms"] = max(count["slowest_ms"], took_ms)
        # What is late is not made up for: an outage must not end in a burst.
        due = max(due + spec["every_s"], time.monotonic())


class Caller:
    """One caller and the connection that it keeps."""

    def __init__(self, spec: CallSpec, count: CallCount) -> None:
        self._spec = spec
        self._count = count
        self._stream: Stream | None = None
        self._uses = 0
        # The first token differs from run to run, so that an answer cannot be a left-over.
        self._number = time.time_ns() % 1_000_000

    def attempt(self, deadline: float) -> Task[None]:
        """Ask once. Raises `OSError`: the network's answer, `TimeoutError` or `WrongAnswer`."""
        self._number += 1
        spec = self._spec
        if spec["lifetime"] == "udp":
            yield from self._ask_datagram(deadline)
            return
        protocol = STREAMS[spec["kind"]]
        if self._stream is None:
            self._count["connects"] += 1
            self._stream = yield from connect(spec["host"], spec["port"], deadline)
            yield from protocol.greet(self._stream)
        self._stream.deadline = deadline
        yield from protocol.ask(self._stream, f"t{self._number}")
        self._uses += 1
        if spec["lifetime"] == "short" or (spec["lifetime"] == "keepalive" and self._uses >= _REUSES):
            self.hang_up()

    def hang_up(self) -> None:
        """Close the kept connection, if there is one."""
        if self._stream is not None:
            self._stream.close()
            self._stream, self._uses = None, 0

    def _ask_datagram(self, deadline: float) -> Task[None]:
        spec, host, port = self._spec, self._spec["host"], self._spec["port"]
        if spec["kind"] == "dns":
            name, address = spec["names"][self._number % len(spec["names"])]
            yield from ask_dns(host, port, name, address, self._number % 65536, deadline)
        elif spec["kind"] == "udp-echo":
            yield from ask_echo(host, port, f"t{self._number}", deadline)
        else:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(log_line(spec["id"], self._count["attempts"] + 1), (host, port))
