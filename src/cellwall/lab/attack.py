"""Attack a lab from inside: a real scanner, in the foothold's namespace, as the user and unit that was broken into."""

from __future__ import annotations

import json
import os
import pwd
from collections import Counter
from dataclasses import dataclass

from cellwall.lab import cgroups, state
from cellwall.lab.apps.spec import ProbeResult, ScanSpec
from cellwall.lab.fleet import app_command, stored_scenario
from cellwall.lab.nodes import unknown
from cellwall.lab.plan import Door, doors, prefix
from cellwall.lab.processes import inside, run
from cellwall.lab.state import LabError

REACHED, REFUSED, TIMED_OUT = "reached", "refused", "timed out"
_PARALLEL = 200


@dataclass(frozen=True, slots=True)
class Attempt:
    """One door tried. `service` is empty where none is known there; `outcome` is reached, refused or timed out.

    `detail` says why for the refused; a datagram counts as reached only when an answer came."""

    target: str
    service: str
    address: str
    protocol: str
    port: int
    outcome: str
    detail: str
    took_ms: float


@dataclass(frozen=True, slots=True)
class AttackReport:
    """What could be reached from `foothold`."""

    lab: str
    foothold: str
    user: str
    attempts: tuple[Attempt, ...]

    def reached(self) -> tuple[Attempt, ...]:
        """Give the doors that opened."""
        return tuple(attempt for attempt in self.attempts if attempt.outcome == REACHED)

    def count(self, outcome: str) -> int:
        """Count the attempts that ended with `outcome`."""
        return sum(attempt.outcome == outcome for attempt in self.attempts)

    def table(self) -> str:
        """Write one line per target: how many doors opened, refused or stayed silent, and which opened."""
        rows = [["TARGET", "TRIED", "REACHED", "REFUSED", "SILENT", "OPEN"]]
        for target in dict.fromkeys(attempt.target for attempt in self.attempts):
            mine = [attempt for attempt in self.attempts if attempt.target == target]
            outcomes = Counter(attempt.outcome for attempt in mine)
            opened = dict.fromkeys(f"{a.service or '?'} {a.protocol}/{a.port}" for a in mine if a.outcome == REACHED)
            numbers = [str(outcomes[outcome]) for outcome in (REACHED, REFUSED, TIMED_OUT)]
            rows.append([target, str(len(mine)), *numbers, ", ".join(opened) or "-"])
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        return "\n".join("  ".join((*map(str.ljust, row, widths), row[5])) for row in rows)


def attack(lab: str, foothold: str, unit: str | None = None, timeout_s: float = 0.7) -> AttackReport:
    """Try every known service and the usual lateral ports of all other workloads, from `foothold`.

    The scanner runs as the user and in the cgroup of `unit`, the first of the foothold's where none is named. Each
    door gets `timeout_s`; both families are tried. Raises `LabError`."""
    scenario = stored_scenario(lab)
    folder = state.folder_of(lab)
    workload = scenario.workload(foothold)
    if workload is None:
        raise LabError(unknown("workload", foothold, [w.name for w in scenario.workloads]))
    units = {u.name: u for u in workload.units}
    broken = units.get(unit) if unit else next(iter(workload.units), None)
    if broken is None:
        raise LabError(unknown("unit", unit, units) if unit else f"workload `{foothold}` has no unit to break into")
    entry = pwd.getpwnam(broken.user)
    tried = doors(scenario, foothold)
    branch = cgroups.branch(lab)
    cgroup = branch / foothold / broken.name if branch else None
    spec = ScanSpec(
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        cgroup=str(cgroup) if cgroup and cgroup.is_dir() else "",
        timeout_s=timeout_s,
        parallel=_PARALLEL,
        probes=[door.probe for door in tried],
    )
    path = folder / "specs" / f"scan.{os.getpid()}.json"
    state.write(path, json.dumps(spec))
    try:
        output = run(inside(prefix(lab) + foothold, app_command("scan", path)), folder)
    finally:
        path.unlink(missing_ok=True)
    results: list[ProbeResult] = json.loads(output)
    return AttackReport(lab, foothold, broken.user, tuple(map(_attempt, tried, results)))


def _attempt(door: Door, result: ProbeResult) -> Attempt:
    return Attempt(
        door.target,
        door.service,
        door.probe["host"],
        door.protocol,
        door.probe["port"],
        result["outcome"],
        result["detail"],
        result["took_ms"],
    )
