"""Bring a lab up, say how it is, take it down.

    scenario ──▶ network ──▶ cgroups ──▶ units serve ──▶ units call ──▶ controller ──▶ agents

Each step makes what is missing and leaves what is there, so that `up` goes on where a killed `up` stopped. `down`
sweeps by name and mark, not by memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cellwall.lab import cgroups, namespaces, programs, state
from cellwall.lab.parse import parse_scenario
from cellwall.lab.plan import AGENT_UNIT, CONTROLLER, CONTROLLER_UNIT, Program, app_spec, prefix
from cellwall.lab.plan import programs as planned
from cellwall.lab.processes import Process, await_end, find, find_inside, inside, kill, leaders, leading, runs, spawn
from cellwall.lab.scenario import Scenario
from cellwall.lab.state import LabError, Progress
from cellwall.traffic import Address

_APPS = Path(__file__).resolve().parent
_START = "import sys; sys.path.append(sys.argv[1]); from apps.main import main; main(sys.argv[2:])"
_LISTEN_S = 30.0


@dataclass(frozen=True, slots=True)
class WorkloadState:
    """How one workload of a lab is: `missing` names the units, the agent's among them, that should run and do not."""

    name: str
    namespace: str
    addresses: tuple[Address, ...]
    network: bool
    agent: bool
    running: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabState:
    """How a lab is. `socket` and `controller_url` are set where it has a controller."""

    name: str
    folder: Path
    workloads: tuple[WorkloadState, ...]
    controller: bool
    socket: Path | None
    controller_url: str | None
    cgroup: Path | None

    @property
    def complete(self) -> bool:
        """Whether everything that should run does."""
        return all(w.network and not w.missing for w in self.workloads) and (self.controller or not self.socket)


def quiet(what: str, done: int, total: int) -> None:
    """Take progress and say nothing."""
    del what, done, total


def app_command(act: str, path: Path) -> list[str]:
    """Give the command that starts one of the lab's own programs on the instruction at `path`."""
    # -I and -S: nothing installed is looked for, which halves the time to start and the memory.
    return [sys.executable, "-I", "-S", "-c", _START, str(_APPS), act, str(path)]


def up(scenario: Scenario, progress: Progress = quiet, *, control: bool = True) -> LabState:
    """Bring up what is missing of a lab and give its state; a second `up` changes nothing.

    Without `control` there is neither controller nor agents. Raises `LabError`, also when the lab is up from another
    scenario; what stands by then stays, for the next `up` or a `down`."""
    if os.geteuid() != 0:
        raise LabError("a lab needs root: it makes network namespaces")
    folder = state.folder_of(scenario.lab)
    users = {program.unit.user: _user(program.unit.user) for program in planned(scenario)}
    with state.locked(folder):
        _keep_source(folder, scenario.source)
        for name in ("log", "apps", "specs", "net", "run"):
            (folder / name).mkdir(exist_ok=True)
        progress("network", 0, 1)
        _end_strays(scenario, folder)
        namespaces.build(scenario, folder)
        progress("network", 1, 1)
        branch = cgroups.grow(scenario.lab, _cgroup_paths(scenario, control))
        _run_units(scenario, folder, branch, users, progress)
        state.write(folder / "go", "")
        if control:
            programs.join(scenario, folder, branch, progress)
    return status(scenario.lab)


def status(lab: str) -> LabState:
    """Say how a lab is. Raises `LabError` if there is none of that name."""
    folder = state.folder_of(lab)
    scenario = stored_scenario(lab)
    running = leaders(folder)
    control = programs.wanted(folder)
    workloads: list[WorkloadState] = []
    for workload in scenario.workloads:
        wanted = [unit.name for unit in workload.units] + ([AGENT_UNIT] if control and workload.agent else [])
        alive = [name for name in wanted if f"{workload.name}/{name}" in running]
        namespace = prefix(lab) + workload.name
        workloads.append(
            WorkloadState(
                workload.name,
                namespace,
                workload.addresses,
                namespaces.finished(folder, namespace),
                AGENT_UNIT in alive,
                tuple(alive),
                tuple(name for name in wanted if name not in alive),
            )
        )
    return LabState(
        lab,
        folder,
        tuple(workloads),
        f"{CONTROLLER}/{CONTROLLER_UNIT}" in running,
        state.socket_path(folder) if control else None,
        programs.controller_url(scenario) if control else None,
        cgroups.branch(lab),
    )


def down(lab: str) -> bool:
    """Take a lab away, to the last process, namespace, cgroup and file; say whether there was any.

    Works on the remains of an `up` that was killed. Raises `LabError` if something would not go."""
    folder = state.folder_of(lab)
    there = folder.exists() or bool(namespaces.present(lab))
    with state.locked(folder):
        # A killed `up` may have left an ip(8) at work: end what makes things before sweeping what was made.
        for _ in range(5):
            doomed: tuple[Process, ...] = (*find(folder), *find_inside(namespaces.present(lab)))
            if not doomed:
                break
            kill(doomed)
            await_end(doomed)
        namespaces.remove(namespaces.present(lab), folder)
        left = namespaces.present(lab) + [f"process {process.pid}" for process in find(folder)]
        if not cgroups.cut(lab):
            left.append(f"cgroup {cgroups.branch(lab)}")
        if left:
            raise LabError(f"lab `{lab}` did not go away: `{'`, `'.join(left)}`")
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        state.root().rmdir()
    return there


def stored_scenario(lab: str) -> Scenario:
    """Give the scenario that a lab was built from. Raises `LabError` if there is no such lab."""
    path = state.scenario_path(state.folder_of(lab))
    try:
        return parse_scenario(path.read_text("utf-8"), str(path))
    except OSError:
        known = state.names()
        hint = f"there is `{'`, `'.join(known)}`" if known else "none is up; try `cellwall lab up SCENARIO`"
        raise LabError(f"no lab is called `{lab}`: {hint}") from None


def _keep_source(folder: Path, source: str) -> None:
    path = state.scenario_path(folder)
    if path.exists() and path.read_text("utf-8") != source:
        raise LabError(
            f"lab `{folder.name}` is up from another scenario; take it down first: `cellwall lab down {folder.name}`"
        )
    state.write(path, source)


def _end_strays(scenario: Scenario, folder: Path) -> None:
    """End what is of no use to anyone: tools of a killed `up`, children that outlived their unit, and whatever lives
    in a namespace that is gone or half made."""
    lost = {site.name for site in namespaces.unplugged(scenario, folder)}
    everything = find(folder)
    kept = {key for key in leading(everything, folder) if key.partition("/")[0] not in lost}
    doomed = [process for process in everything if process.key not in kept]
    kill(doomed)
    await_end(doomed)


def _user(name: str) -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise LabError(f"this machine has no user `{name}`; choose one from /etc/passwd") from None
    return entry.pw_uid, entry.pw_gid


def _cgroup_paths(scenario: Scenario, control: bool) -> list[str]:
    paths = [program.key for program in planned(scenario)]
    if control:
        paths += [f"{workload.name}/{AGENT_UNIT}" for workload in scenario.workloads if workload.agent]
        paths.append(f"{CONTROLLER}/{CONTROLLER_UNIT}")
    return paths


def _run_units(
    scenario: Scenario,
    folder: Path,
    branch: Path | None,
    users: dict[str, tuple[int, int]],
    progress: Progress,
) -> None:
    """Start every unit that does not run, and wait until all of them listen."""
    running = leaders(folder)
    units = planned(scenario)
    pids = {key: process.pid for key, process in running.items()}
    for program in units:
        if program.key in pids:
            continue
        uid, gid = users[program.unit.user]
        report = state.report_path(folder, program.key)
        report.parent.mkdir(exist_ok=True)
        os.chown(report.parent, uid, gid)
        cgroup = str(branch / program.key) if branch else ""
        spec = app_spec(scenario, program, uid=uid, gid=gid, cgroup=cgroup, report=str(report), go=str(folder / "go"))
        path = folder / "specs" / (program.key.replace("/", ".") + ".json")
        state.write(path, json.dumps(spec))
        command = inside(prefix(scenario.lab) + program.workload.name, app_command("run", path))
        pids[program.key] = spawn(command, folder, program.key, state.log_path(folder, program.key))
    _await_listening(folder, units, pids, progress)


def _await_listening(folder: Path, units: tuple[Program, ...], pids: dict[str, int], progress: Progress) -> None:
    deadline = time.monotonic() + _LISTEN_S
    waiting = {program.key for program in units}
    while waiting:
        waiting = {key for key in waiting if _reporter(folder, key) != pids[key]}
        progress("units", len(units) - len(waiting), len(units))
        if not waiting:
            return
        for key in waiting:
            if not runs(pids[key]):
                raise LabError(f"unit `{key}` ended at once: {state.last_line(state.log_path(folder, key))}")
        if time.monotonic() > deadline:
            raise LabError(f"unit `{min(waiting)}` does not listen after {_LISTEN_S:.0f} s")
        time.sleep(0.05)


def _reporter(folder: Path, key: str) -> int:
    try:
        return int(json.loads(state.report_path(folder, key).read_text("utf-8"))["pid"])
    except (OSError, ValueError, KeyError):
        return 0
