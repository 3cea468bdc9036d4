"""What a controller counts, for Prometheus: events as the log tells them, and how things stand when it is asked.

everything ── log(event, …) ──▶ Metrics.hear ──▶ counters, histograms ─┐
control, channel, authority ──▶ Standings (values, at the moment) ─────┴─▶ families ──▶ exposition

The number of series does not depend on the number of workloads.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cellwall import __version__
from cellwall.clients import Counter, Family, Histogram, counter, gauge
from cellwall.controller.store.state import RevisionState

Log = Callable[..., None]
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Standings:
    """How a controller stands at one moment; times are seconds since the epoch, and mappings are by label."""

    name: str = ""
    workloads: int = 0
    agents_known: int = 0
    agents_connected: int = 0
    versions: Mapping[str, int] = field(default_factory=dict[str, int])
    points: Mapping[str, int] = field(default_factory=dict[str, int])
    modes: Mapping[str, int] = field(default_factory=dict[str, int])
    revision: int = 0
    revision_state: str = "good"
    wave: int = 0
    waves: int = 0
    uncompiled: bool = False
    tests: Mapping[str, int] = field(default_factory=dict[str, int])
    conflicts: int = 0
    audit_entries: int = 0
    certificates: Mapping[str, float] = field(default_factory=dict[str, float])
    orders: Mapping[str, int] = field(default_factory=dict[str, int])
    database_errors: int = 0
    queues: Mapping[str, int] = field(default_factory=dict[str, int])
    leader: bool = True


class Metrics:
    """The counters of one controller. `hear` is given all that is logged; `lag` is observed by the loop."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[int, float]] = {}
        self._events = Counter("cellwall_events_total", "Events of the log, by event and level.", "event", "level")
        self._receipts = Counter("cellwall_receipts_total", "Receipts of points, by the state they tell.", "state")
        self._sends = Counter("cellwall_sends_total", "Policy sent to points: whole, or a change of members.", "kind")
        self._enrolments = Counter("cellwall_enrolments_total", "Requests to enrol, by how they ended.", "outcome")
        self._requests = Counter(
            "cellwall_http_requests_total", "Requests of people, by route and status.", "method", "route", "status"
        )
        self._rows = Counter("cellwall_flow_rows_total", "Flow records stored.")
        self._batches = Counter("cellwall_flow_batches_total", "Batches of flow records stored.")
        self._refused = Counter("cellwall_flow_batches_refused_total", "Batches that could not be kept, ever.")
        self._unstored = Counter("cellwall_flow_writes_failed_total", "Writes of flows that failed and come again.")
        self._lost = Counter("cellwall_flows_lost_total", "Flows that agents know to have missed in the kernel.")
        self._dropped = Counter("cellwall_flows_dropped_total", "Flow records that agents threw away unsent.")
        self._denials = Counter("cellwall_denials_total", "Samples of denied packets stored.")
        self._failures = Counter("cellwall_compile_failures_total", "Compilations that failed; agents keep theirs.")
        self._compiled = Histogram("cellwall_compile_seconds", "Time to compile the fleet's rulesets.")
        self._lag = Histogram("cellwall_receipt_lag_seconds", "From sending policy to a point to its first receipt.")
        self._answers = Histogram("cellwall_http_request_seconds", "Time to answer a request of people.")
        self._writes = Histogram("cellwall_flow_write_seconds", "Time to write gathered flows to the store.")
        self.lag = Histogram("cellwall_event_loop_lag_seconds", "How much later than asked the loop woke up.")

    def listening(self, log: Log) -> Log:
        """Give a log that is heard here, whatever its level, and written by `log`."""

        def heard(event: str, /, **fields: object) -> None:
            self.hear(event, fields)
            log(event, **fields)

        return heard

    def hear(self, event: str, fields: Mapping[str, object]) -> None:
        """Take what is logged."""
        self._events.add(event, str(fields.get("level", "info")))
        match event:
            case "compiled":
                self._compiled.observe(_number(fields, "seconds"))
            case "compiling failed":
                self._failures.add()
            case "send":
                self._sends.add(str(fields.get("kind")))
                self._sent[str(fields.get("workload"))] = int(_number(fields, "generation")), time.monotonic()
            case "receipt":
                self._receipts.add(str(fields.get("state")))
                self._answered(str(fields.get("workload")), int(_number(fields, "generation")))
            case "agent left":
                self._sent.pop(str(fields.get("workload")), None)
            case "enrolled" | "enrolment refused" | "enrolment failed":
                self._enrolments.add(event.removeprefix("enrolment "))
            case "flows stored":
                self._rows.add(by=_number(fields, "rows"))
                self._batches.add(by=_number(fields, "batches"))
                self._writes.observe(_number(fields, "seconds"))
            case "flows not stored":
                self._unstored.add()
            case "flows refused":
                self._refused.add()
            case "flows lost":
                self._lost.add(by=_number(fields, "lost"))
                self._dropped.add(by=_number(fields, "dropped"))
            case "denials":
                self._denials.add(by=_number(fields, "samples"))
            case "request":
                self._requests.add(*(str(fields.get(name)) for name in ("method", "route", "status")))
                self._answers.observe(_number(fields, "seconds"))
            case _:
                pass

    def _answered(self, workload: str, generation: int) -> None:
        sent = self._sent.get(workload)
        if sent is not None and sent[0] == generation:
            del self._sent[workload]
            self._lag.observe(time.monotonic() - sent[1])

    def families(self, now: Standings | None, ready: Mapping[str, bool]) -> tuple[Family, ...]:
        """Give all metrics. Without `now` those of how things stand are left out: nobody can say."""
        well = gauge("cellwall_ready", "1 where a part that readiness asks for is well.", ready, "part")
        stand = standing_families(now) if now is not None else ()
        return (well, *stand, *(one.family() for one in self._instruments()), *process_families())

    def _instruments(self) -> tuple[Counter | Histogram, ...]:
        return tuple(one for one in vars(self).values() if isinstance(one, Counter | Histogram))


def standing_families(now: Standings) -> tuple[Family, ...]:
    """Give the metrics of how a controller stands."""
    state = {one.value: float(one == now.revision_state) for one in RevisionState}
    return (
        gauge("cellwall_info", "What runs; always 1.", {__version__: 1.0}, "version"),
        gauge("cellwall_workloads", "Workloads of the fleet.", now.workloads),
        gauge("cellwall_agents_known", "Workloads with an agent.", now.agents_known),
        gauge("cellwall_agents_connected", "Agents connected to this controller.", now.agents_connected),
        gauge("cellwall_agents_version", "Agents by the version that they said they are.", now.versions, "version"),
        gauge("cellwall_points", "Enforcement points, by how they stand to the policy in force.", now.points, "state"),
        gauge("cellwall_points_mode", "Enforcement points, by the mode that is wanted.", now.modes, "mode"),
        gauge("cellwall_policy_revision", "The revision in force.", now.revision),
        gauge("cellwall_policy_revision_state", "1 for the state of the revision in force.", state, "state"),
        gauge("cellwall_rollout_wave", "The wave that is under way; 0 where none is.", now.wave),
        gauge("cellwall_rollout_waves", "The waves of the rollout that is under way; 0 where none is.", now.waves),
        gauge("cellwall_uncompiled", "1 while policy or fleet changed and is not compiled.", now.uncompiled),
        gauge("cellwall_policy_tests", "Tests of the policy in force, by result.", now.tests, "result"),
        gauge("cellwall_address_conflicts", "Addresses that several workloads claim.", now.conflicts),
        gauge("cellwall_orders", "Emergency orders that stand, by kind.", now.orders, "kind"),
        counter("cellwall_database_errors_total", "Statements the database did not carry out.", now.database_errors),
        counter("cellwall_audit_entries_total", "Entries of the audit log.", now.audit_entries),
        gauge(
            "cellwall_certificate_expiry_timestamp_seconds",
            "When a certificate ends: the authority's, the server's, the first of the agents'.",
            now.certificates,
            "certificate",
        ),
        gauge("cellwall_queue_depth", "What waits, by queue.", now.queues, "queue"),
        gauge("cellwall_leader", "1 while this controller does the periodic work.", now.leader),
    )


def process_families() -> tuple[Family, ...]:
    """Give the metrics of this process, by the names that every client of Prometheus uses."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    fields = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
    boot = time.time() - float(Path("/proc/uptime").read_text("ascii").split()[0])
    return (
        counter("process_cpu_seconds_total", "Processor time, user and system.", used.ru_utime + used.ru_stime),
        # proc(5): the fields after the name begin with the third; 22 is the start, 24 the resident pages.
        gauge("process_start_time_seconds", "When the process began.", boot + int(fields[19]) / _TICKS),
        gauge("process_resident_memory_bytes", "Resident memory.", int(fields[21]) * _PAGE),
        gauge("process_open_fds", "Open files.", len(os.listdir("/proc/self/fd"))),
        gauge("process_max_fds", "How many files may be open.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    )


def _number(fields: Mapping[str, object], name: str) -> float:
    value = fields.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
