"""What an agent counts, in a file that node_exporter's textfile collector reads: whole, or not there.

No socket and no library: the file is written each minute, and is part of a support bundle.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cellwall.agent.core import Agent
from cellwall.agent.events import Command
from cellwall.agent.options import VERSION
from cellwall.clients import Counter, Family, counter, exposition, gauge

EVERY_S = 60.0
FILE = "metrics.prom"
_CONNTRACK = Path("/proc/sys/net/netfilter")


@dataclass
class Gauges:
    """The counters of one agent since it began, written to `path`."""

    path: Path
    lost: int = 0
    dropped: int = 0
    _due: float = 0.0
    _events: Counter = field(
        default_factory=lambda: Counter("cellwall_agent_events_total", "Events of the log.", "event", "level")
    )
    _writes: Counter = field(
        default_factory=lambda: Counter("cellwall_agent_writes_total", "Writes to our table, by what for.", "kind")
    )
    _repairs: Counter = field(
        default_factory=lambda: Counter("cellwall_agent_repairs_total", "Changes by others that were undone.")
    )

    def listening(self, log: Callable[..., None]) -> Callable[..., None]:
        """Give a log whose events are counted here, whatever their level, and written by `log`."""

        def heard(event: str, /, **fields: object) -> None:
            self._events.add(event, str(fields.get("level", "info")))
            log(event, **fields)

        return heard

    def wrote(self, command: Command) -> None:
        """Count a write to the kernel."""
        kind = type(command).__name__.lower()
        self._writes.add(kind)
        if kind == "repair":
            self._repairs.add()

    def missed(self, losses: tuple[int, int]) -> tuple[int, int]:
        """Count flows that the kernel could not count, and records that found no room; gives them back."""
        self.lost += losses[0]
        self.dropped += losses[1]
        return losses

    def write(self, agent: Agent, waiting: int, ends: float, now: float) -> None:
        """Write the file when it is time; what cannot be written is passed over. `ends` is the certificate's."""
        if now < self._due:
            return
        self._due = now + EVERY_S
        families = (*self._families(), *standing_families(agent, waiting, ends, now), *host_families())
        temporary = self.path.with_name(f".{self.path.name}")
        with suppress(OSError):
            temporary.write_text(exposition(families), "utf-8")
            # The collector runs as somebody else; there is nothing secret in it.
            os.chmod(temporary, 0o644)
            os.replace(temporary, self.path)

    def _families(self) -> tuple[Family, ...]:
        return (
            *(one.family() for one in (self._events, self._writes, self._repairs)),
            counter("cellwall_agent_flows_lost_total", "Flows that the kernel could not count.", self.lost),
            counter("cellwall_agent_flows_dropped_total", "Flow records thrown away unsent.", self.dropped),
        )


def standing_families(agent: Agent, waiting: int, ends: float, now: float) -> tuple[Family, ...]:
    """Give the metrics of how an agent stands. `waiting` are flow records, `ends` and `now` seconds since the epoch."""
    held = agent.in_kernel
    return (
        gauge("cellwall_agent_info", "What runs; always 1.", {VERSION: 1.0}, "version"),
        gauge("cellwall_agent_written_timestamp_seconds", "When this was written.", now),
        gauge("cellwall_agent_connected", "1 while the controller is there.", agent.connected),
        gauge("cellwall_agent_generation", "The generation in the kernel; 0 is none.", held.generation if held else 0),
        gauge("cellwall_agent_revision", "The revision in the kernel; 0 is none.", held.revision if held else 0),
        gauge("cellwall_agent_members", "Addresses in the kernel's map.", len(held.members) if held else 0),
        gauge("cellwall_agent_mode", "1 for the mode in force.", {held.ruleset.mode: 1.0} if held else {}, "mode"),
        gauge("cellwall_agent_state", "1 for what was reported last.", {agent.receipt.state: 1.0}, "state"),
        gauge("cellwall_agent_fighting", "1 while somebody else changes our table again and again.", agent.fighting),
        gauge("cellwall_agent_flows_waiting", "Flow records on their way.", waiting),
        gauge("cellwall_agent_certificate_expiry_timestamp_seconds", "When our certificate ends.", ends or None),
    )


def host_families() -> tuple[Family, ...]:
    """Give the metrics of the host that this concerns, and of our process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (
        gauge("cellwall_agent_conntrack_entries", "Tracked connections.", _kernel("nf_conntrack_count")),
        gauge("cellwall_agent_conntrack_limit", "The most tracked connections.", _kernel("nf_conntrack_max")),
        counter("cellwall_agent_cpu_seconds_total", "Processor time, user and system.", used.ru_utime + used.ru_stime),
        gauge("cellwall_agent_resident_memory_bytes", "Resident memory.", _resident()),
    )


def _kernel(name: str) -> float | None:
    try:
        return float((_CONNTRACK / name).read_text("ascii"))
    except (OSError, ValueError):
        return None


def _resident() -> float | None:
    try:
        return float(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
