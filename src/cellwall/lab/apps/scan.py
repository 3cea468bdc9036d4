"""Try the doors of others from where we stand: what an attacker's first minute looks like."""

from __future__ import annotations

import errno
import time
from collections import deque

from .datagrams import exchange, question
from .spec import ProbeResult, ProbeSpec, ScanSpec
from .streams import STREAMS
from .turn import Task, Turn, connect, reason

_BARRED = frozenset({errno.EPERM, errno.EACCES, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN})


def scan(spec: ScanSpec) -> list[ProbeResult]:
    """Make all probes, `parallel` at a time, and give the results in their order."""
    turn = Turn()
    results: dict[int, ProbeResult] = {}
    todo = deque(enumerate(spec["probes"]))

    def work() -> Task[None]:
        while todo:
            place, probe = todo.popleft()
            results[place] = yield from _try(probe, spec["timeout_s"])

    for _ in range(spec["parallel"]):
        turn.start(work())
    turn.run()
    return [results[place] for place in range(len(spec["probes"]))]


def _try(probe: ProbeSpec, timeout_s: float) -> Task[ProbeResult]:
    began = time.monotonic()
    outcome, detail = "reached", ""
    try:
        yield from _knock(probe, began + timeout_s)
    except TimeoutError:
        outcome = "timed out"
    except OSError as error:
        outcome, detail = "refused", reason(error)
        if error.errno in _BARRED:
            detail = f"barred: {detail}"
    return ProbeResult(outcome=outcome, detail=detail, took_ms=round((time.monotonic() - began) * 1000, 1))


def _knock(probe: ProbeSpec, deadline: float) -> Task[None]:
    kind, host, port = probe["kind"], probe["host"], probe["port"]
    if kind in STREAMS or kind == "tcp":
        stream = yield from connect(host, port, deadline)
        try:
            # The mapper answers with a door of its dynamic range, which is then tried in turn.
            if kind == "rpc":
                yield from STREAMS[kind].ask(stream, "scan")
        finally:
            stream.close()
        return
    payload = question("scan.invalid", 1, 4711) if port == 53 else b"scan"
    yield from exchange(host, port, payload, deadline)
