"""Start the controller and the agents of a lab: the one place that knows how these programs are called."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from cellwall.lab import state
from cellwall.lab.plan import AGENT_UNIT, CONTROLLER, CONTROLLER_UNIT, prefix
from cellwall.lab.processes import inside, leaders, runs, spawn
from cellwall.lab.scenario import Scenario, Workload
from cellwall.lab.state import LabError, Progress

_PORT = 7443
_ANSWER_S = 60.0
_ENROL_S = 60.0
_AT_ONCE = 4
"""How many enrolments run side by side: starting a program costs half a second of processor time."""
_CELLWALL = (sys.executable, "-m", "cellwall")


def wanted(folder: Path) -> bool:
    """Say whether the lab in `folder` was brought up with a controller."""
    return (folder / "controller").is_dir()


def controller_url(scenario: Scenario) -> str:
    """Give the address at which the agents reach their controller."""
    return f"https://{scenario.controllers[0]}:{_PORT}"


def join(scenario: Scenario, folder: Path, branch: Path | None, progress: Progress) -> None:
    """Start the controller, declare what has no agent, enrol what has one and start the agents. Raises `LabError`."""
    for name in ("controller", "agents", "tokens"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    progress("controller", 0, 1)
    _run_controller(scenario, folder, branch)
    progress("controller", 1, 1)
    for workload in scenario.workloads:
        if workload.declared:
            _declare(workload, folder)
    _run_agents(scenario, folder, branch, progress)


def call(path: Path, method: str, url: str, body: Mapping[str, object] | None = None) -> tuple[int, str]:
    """Make one request over the unix socket at `path`; give status and text. Raises `OSError` where nobody answers."""
    connection = _UnixConnection(path)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, url, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    except HTTPException as error:
        raise ConnectionError(f"no HTTP answer: {error}") from None
    finally:
        connection.close()


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20.0)
        self.sock.connect(str(self._path))


def _run_controller(scenario: Scenario, folder: Path, branch: Path | None) -> None:
    key = f"{CONTROLLER}/{CONTROLLER_UNIT}"
    socket_path, log = state.socket_path(folder), state.log_path(folder, key)
    running = leaders(folder)
    if key in running:
        pid = running[key].pid
        _settle(pid, branch, key)  # a killed `up` may not have come that far
    else:
        command = [
            *_CELLWALL, "controller", "run",
            "--data", str(folder / "controller"),
            "--listen", f"[::]:{_PORT}",
            "--advertise", controller_url(scenario),
            "--socket", str(socket_path),
        ]  # fmt: skip
        socket_path.unlink(missing_ok=True)
        pid = spawn(inside(prefix(scenario.lab) + CONTROLLER, command), folder, key, log)
        _settle(pid, branch, key)
    deadline = time.monotonic() + _ANSWER_S
    while True:
        try:
            call(socket_path, "GET", "/api/v1/workloads?limit=1")
            return
        except OSError:
            if not runs(pid):
                raise LabError(f"the controller ended at once: {state.last_line(log)}") from None
            if time.monotonic() > deadline:
                raise LabError(f"the controller does not answer after {_ANSWER_S:.0f} s; see `{log}`") from None
            time.sleep(0.2)


def _declare(workload: Workload, folder: Path) -> None:
    declared = folder / "agents" / f"{workload.name}.declared"
    if declared.exists():
        # Not a second time: its labels may have been changed since.
        return
    body = {
        "name": workload.name,
        "addresses": [str(address) for address in workload.addresses],
        "labels": dict(workload.labels),
    }
    status, text = call(state.socket_path(folder), "POST", "/api/v1/workloads", body)
    if status >= 300 and status != 409:  # 409: declared by an `up` that died before it could write so down
        raise LabError(f"the controller did not take workload `{workload.name}`: {status} {text[:200]}")
    state.write(declared, "")


def _run_agents(scenario: Scenario, folder: Path, branch: Path | None, progress: Progress) -> None:
    """Enrol some at a time, and start each agent as soon as it is enrolled."""
    running = leaders(folder)
    todo = [w for w in scenario.workloads if w.agent]
    total, enrolling = len(todo), dict[int, tuple[Workload, float]]()
    waiting = [w for w in todo if f"{w.name}/{AGENT_UNIT}" not in running]
    for key in (f"{w.name}/{AGENT_UNIT}" for w in todo):
        if key in running:
            _settle(running[key].pid, branch, key)
    while waiting or enrolling:
        progress("agents", total - len(waiting) - len(enrolling), total)
        while waiting and len(enrolling) < _AT_ONCE:
            workload = waiting.pop(0)
            if _enrolled(folder, workload).exists():
                _run_agent(scenario, workload, folder, branch)
            else:
                enrolling[_enrol(scenario, workload, folder)] = (workload, time.monotonic() + _ENROL_S)
        for pid, (workload, deadline) in list(enrolling.items()):
            ended, code = os.waitpid(pid, os.WNOHANG)
            if ended and os.waitstatus_to_exitcode(code) == 0:
                del enrolling[pid]
                state.write(_enrolled(folder, workload), "")
                _run_agent(scenario, workload, folder, branch)
            elif ended or time.monotonic() > deadline:
                log = state.log_path(folder, f"{workload.name}/enroll")
                raise LabError(f"workload `{workload.name}` could not be enrolled: {state.last_line(log)}")
        time.sleep(0.05)
    progress("agents", total, total)


def _enrolled(folder: Path, workload: Workload) -> Path:
    return folder / "agents" / f"{workload.name}.enrolled"


def _enrol(scenario: Scenario, workload: Workload, folder: Path) -> int:
    """Start the enrolment of a workload from nothing and give its pid."""
    home = folder / "agents" / workload.name
    # What is half enrolled is of no use: the token may be spent.
    shutil.rmtree(home, ignore_errors=True)
    body = {"labels": dict(workload.labels), "uses": 1, "workload": workload.name}
    status, text = call(state.socket_path(folder), "POST", "/api/v1/tokens", body)
    if status >= 300:
        raise LabError(f"the controller gave no token for `{workload.name}`: {status} {text[:200]}")
    token = folder / "tokens" / workload.name
    state.write(token, str(json.loads(text)["token"]), 0o600)
    command = [
        *_CELLWALL, "enroll",
        "--controller", controller_url(scenario),
        "--token-file", str(token),
        "--state", str(home),
        "--name", workload.name,
    ]  # fmt: skip
    key = f"{workload.name}/enroll"
    command = inside(prefix(scenario.lab) + workload.name, command)
    return spawn(command, folder, key, state.log_path(folder, key), stays=False)


def _run_agent(scenario: Scenario, workload: Workload, folder: Path, branch: Path | None) -> None:
    key = f"{workload.name}/{AGENT_UNIT}"
    command = [*_CELLWALL, "agent", "run", "--state", str(folder / "agents" / workload.name), "--interval", "2"]
    if branch:
        command += ["--cgroup-root", str(branch / workload.name)]
    log = state.log_path(folder, key)
    pid = spawn(inside(prefix(scenario.lab) + workload.name, command), folder, key, log)
    _settle(pid, branch, key)


def _settle(pid: int, branch: Path | None, key: str) -> None:
    """Move a process into its unit's cgroup before it has got as far as opening sockets."""
    if branch:
        (branch / key / "cgroup.procs").write_text(str(pid), "ascii")
