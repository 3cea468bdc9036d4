"""What a program of the lab is told, as JSON: the one form that planner and programs share."""

from __future__ import annotations

from typing import TypedDict


class ServeSpec(TypedDict):
    """A service to offer. `dynamic` is the range that `rpc` hands out; `zone` is what `dns` answers."""

    kind: str
    port: int
    dynamic: list[int]
    zone: dict[str, list[str]]


class CallSpec(TypedDict):
    """A call to repeat: `id` is unique in the lab; `names` are pairs of name and address to resolve, for `dns`."""

    id: str
    kind: str
    lifetime: str
    host: str
    port: int
    every_s: float
    start_s: float
    names: list[list[str]]


class AppSpec(TypedDict):
    """One process: who it is, where it reports, when its calls begin, what it offers and what it calls.

    `cgroup` is a folder of the cgroup2 tree, or empty; `report` ends in `/report.json` and `go` in `/go`; the calls
    begin when the latter exists."""

    process: str
    uid: int
    gid: int
    cgroup: str
    report: str
    go: str
    serve: list[ServeSpec]
    call: list[CallSpec]


class CallCount(TypedDict):
    """What became of a call so far: finished `attempts`, each a success or a failure.

    `failures` holds the last of them as pairs of time (seconds since the epoch) and reason; latencies are in ms."""

    attempts: int
    failed: int
    connects: int
    slowest_ms: float
    total_ms: float
    failures: list[tuple[float, str]]


class SinkCount(TypedDict):
    """What a syslog server got of one call: how many messages, how many gaps, the last number."""

    received: int
    missed: int
    last: int


class AppReport(TypedDict):
    """What a process writes once a second, and at its end. Its first report says that its services listen."""

    pid: int
    at: float
    calls: dict[str, CallCount]
    sinks: dict[str, SinkCount]


class ProbeSpec(TypedDict):
    """One thing to try: `kind` is that of a service, or `tcp` or `udp` where none is known."""

    kind: str
    host: str
    port: int


class ScanSpec(TypedDict):
    """A scan from a foothold: who the scanner runs as, how long each probe waits, how many run at once."""

    uid: int
    gid: int
    cgroup: str
    timeout_s: float
    parallel: int
    probes: list[ProbeSpec]


class ProbeResult(TypedDict):
    """What a probe found: `outcome` is `reached`, `refused` or `timed out`; `port` is the dynamic one for `rpc`."""

    outcome: str
    detail: str
    took_ms: float
