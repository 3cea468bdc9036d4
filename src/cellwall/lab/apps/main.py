"""Start as a unit of a workload, or as the scanner: `run FILE` or `scan FILE`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from types import FrameType

from .call import keep_calling
from .scan import scan
from .serve import offer
from .spec import AppReport, AppSpec, CallCount, CallSpec, ScanSpec
from .turn import Task, Turn, sleep_until

_REPORT_EVERY_S = 1.0
_GO_EVERY_S = 0.1


def main(arguments: list[str]) -> None:
    """Do what the specification in the named file says."""
    act, path = arguments
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if act == "scan":
        task: ScanSpec = json.loads(text)
        become(task["uid"], task["gid"], task["cgroup"], "scan")
        json.dump(scan(task), sys.stdout)
    else:
        run(json.loads(text))


def become(uid: int, gid: int, cgroup: str, process: str) -> None:
    """Join the cgroup, take the process name, and give up root for `uid` and `gid`."""
    if cgroup:
        with open(f"{cgroup}/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")  # cgroups(7): 0 is the writing process
    with open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write(process)
    if uid:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def run(spec: AppSpec) -> None:
    """Offer the services, then make the calls, until a SIGTERM."""
    # INVARIANT: identity and cgroup come before the first socket; the kernel remembers a socket's maker, not its user.
    # The folders are opened while we are still root: the user need not be able to walk there.
    home, folder = (os.open(os.path.dirname(spec[name]), os.O_RDONLY | os.O_DIRECTORY) for name in ("report", "go"))
    become(spec["uid"], spec["gid"], spec["cgroup"], spec["process"])
    turn = Turn()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        turn.stop()

    # A handler runs between bytecodes and the turn comes round for the reporter, so this takes a second at most.
    signal.signal(signal.SIGTERM, stop)
    report = _earlier(home)
    for service in spec["serve"]:
        offer(turn, service, report["sinks"])
    report["pid"] = os.getpid()
    _write(home, report)
    turn.start(_call_when_told(turn, spec["call"], folder, report["calls"]))
    turn.start(_keep_reporting(home, report))
    turn.run()
    _write(home, report)


def _earlier(home: int) -> AppReport:
    """Go on counting where a process of the same unit stopped."""
    with contextlib.suppress(OSError, ValueError):
        handle = os.open("report.json", os.O_RDONLY, dir_fd=home)
        with open(handle, encoding="utf-8") as file:
            return json.load(file)
    return AppReport(pid=0, at=0.0, calls={}, sinks={})


def _write(home: int, report: AppReport) -> None:
    report["at"] = time.time()
    handle = os.open("report.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=home)
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(report, file)
    os.replace("report.new", "report.json", src_dir_fd=home, dst_dir_fd=home)


def _keep_reporting(home: int, report: AppReport) -> Task[None]:
    while True:
        yield from sleep_until(time.monotonic() + _REPORT_EVERY_S)
        _write(home, report)


def _call_when_told(turn: Turn, calls: list[CallSpec], folder: int, counts: dict[str, CallCount]) -> Task[None]:
    while "go" not in os.listdir(folder):
        yield from sleep_until(time.monotonic() + _GO_EVERY_S)
    for call in calls:
        fresh = CallCount(attempts=0, failed=0, connects=0, slowest_ms=0.0, total_ms=0.0, failures=[])
        turn.start(keep_calling(call, counts.setdefault(call["id"], fresh)))
