"""What became of the legitimate traffic of a lab: per call how many attempts, how many failures and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from cellwall.lab import state
from cellwall.lab.apps.spec import AppReport, CallCount, CallSpec, SinkCount
from cellwall.lab.fleet import stored_scenario
from cellwall.lab.plan import call_specs, programs

_LATE_S = 5.0
"""How far behind the sender's count a syslog server's may be before messages count as lost."""


@dataclass(frozen=True, slots=True)
class CallReport:
    """One call's count. `failures` holds the last of them: seconds since the epoch, and the reason.

    `attempts` are finished ones; `connects` are connections opened; `slowest_ms` is over the whole life of the call."""

    caller: str
    unit: str
    to: str
    service: str
    family: int
    lifetime: str
    attempts: int
    failed: int
    connects: int
    slowest_ms: float
    failures: tuple[tuple[float, str], ...]

    @property
    def id(self) -> str:
        """What names the call within its lab."""
        return f"{self.caller}/{self.unit}>{self.to}/{self.service}/{self.family}/{self.lifetime}"


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """All calls of a lab since they began, or within a window."""

    lab: str
    calls: tuple[CallReport, ...]

    @property
    def attempts(self) -> int:
        """How many requests were made and finished."""
        return sum(call.attempts for call in self.calls)

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return sum(call.failed for call in self.calls)

    def since(self, mark: TrafficReport) -> TrafficReport:
        """Give what happened after `mark`, an earlier report of the same lab."""
        before = {call.id: call for call in mark.calls}
        return replace(self, calls=tuple(_minus(call, before.get(call.id)) for call in self.calls))

    def troubled(self) -> tuple[CallReport, ...]:
        """Give the calls that failed, the worst first."""
        return tuple(sorted((call for call in self.calls if call.failed), key=lambda call: -call.failed))


def traffic_report(lab: str) -> TrafficReport:
    """Read what the callers of a lab have counted, at most a second ago. Raises `LabError` if there is no such lab."""
    scenario = stored_scenario(lab)
    folder = state.folder_of(lab)
    reports: dict[str, AppReport] = {}
    for program in programs(scenario):
        try:
            text = state.report_path(folder, program.key).read_text("utf-8")
        except OSError:
            continue
        reports[program.key] = cast(AppReport, json.loads(text))
    sinks = {name: count for report in reports.values() for name, count in report["sinks"].items()}
    calls = tuple(
        call_report(program.workload.name, program.unit.name, spec, reports[program.key]["calls"], sinks)
        for program in programs(scenario)
        if program.key in reports
        for spec in call_specs(scenario, program)
    )
    return TrafficReport(lab, calls)


def call_report(
    caller: str, unit: str, spec: CallSpec, counts: Mapping[str, CallCount], sinks: Mapping[str, SinkCount]
) -> CallReport:
    """Put together what is known of one call; what nobody answers to, syslog, is judged by what its server got."""
    to, service, family, lifetime = spec["id"].partition(">")[2].split("/")
    count = counts.get(spec["id"])
    made = CallReport(caller, unit, to, service, int(family), lifetime, 0, 0, 0, 0.0, ())
    if count is None:
        return made
    failed = count["failed"]
    if spec["kind"] == "syslog":
        sink = sinks.get(spec["id"], SinkCount(received=0, missed=0, last=0))
        on_the_way = 2 + int(_LATE_S / spec["every_s"])
        failed = max(failed, sink["missed"]) + max(0, count["attempts"] - sink["last"] - on_the_way)
    return replace(
        made,
        attempts=count["attempts"],
        failed=failed,
        connects=count["connects"],
        slowest_ms=round(count["slowest_ms"], 1),
        failures=tuple((at, why) for at, why in count["failures"]),
    )


def _minus(call: CallReport, before: CallReport | None) -> CallReport:
    if before is None:
        return call
    return replace(
        call,
        attempts=max(0, call.attempts - before.attempts),
        failed=max(0, call.failed - before.failed),
        connects=max(0, call.connects - before.connects),
        failures=tuple(failure for failure in call.failures if failure not in before.failures),
    )
