"""Flow records: who talked to whom, what was decided, and how the reports of both ends add up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from cellwall.traffic import Address


class Outcome(StrEnum):
    """Whether a flow passes."""

    ALLOWED = "allowed"
    DENIED = "denied"


class Side(StrEnum):
    """Which end of a flow: the source's point decides egress, the destination's ingress."""

    EGRESS = "egress"
    INGRESS = "ingress"


@dataclass(frozen=True, slots=True)
class Process:
    """The local process of one end, as far as it could be had; what is not known is empty."""

    name: str = ""
    user: str = ""
    unit: str = ""
    exe: str = ""

    def __bool__(self) -> bool:
        return bool(self.name or self.user or self.unit or self.exe)


UNKNOWN = Process()


@dataclass(frozen=True, slots=True)
class FlowKey:
    """What makes two connections one flow. `protocol` 0 to 255; `port` as in `cellwall.traffic.ports`."""

    source: Address
    destination: Address
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """What one point saw of a flow in a window.

    `connections` counts new connections (for UDP without answer, packets); `packets` and `bytes` are 0 where the
    point does not know them. Times are seconds since the epoch, UTC. `outcome` is what happened, `would` what full
    enforcement gives, `rules` the ids that decided (empty: the default), `revision` the policy's that was in force.
    `standing` marks a connection that was open before the agent came.
    """

    key: FlowKey
    reporter: str
    side: Side
    outcome: Outcome
    would: Outcome
    rules: tuple[str, ...]
    revision: int
    connections: int
    first_seen: float
    last_seen: float
    packets: int = 0
    bytes: int = 0
    process: Process = UNKNOWN
    standing: bool = False


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow with the reports of both ends merged; a side that reported nothing is None."""

    key: FlowKey
    egress: FlowRecord | None
    ingress: FlowRecord | None

    @property
    def outcome(self) -> Outcome:
        """Denied when either end denied."""
        denied = any(end is not None and end.outcome is Outcome.DENIED for end in (self.egress, self.ingress))
        return Outcome.DENIED if denied else Outcome.ALLOWED

    @property
    def would(self) -> Outcome:
        """What full enforcement at the ends that reported gives."""
        denied = any(end is not None and end.would is Outcome.DENIED for end in (self.egress, self.ingress))
        return Outcome.DENIED if denied else Outcome.ALLOWED

    @property
    def connections(self) -> int:
        """How many: the larger of both ends' counts, as each sees the same ones."""
        return max(end.connections for end in (self.egress, self.ingress) if end is not None)

    @property
    def first_seen(self) -> float:
        """When either end saw it first, seconds since the epoch, UTC."""
        return min(end.first_seen for end in (self.egress, self.ingress) if end is not None)

    @property
    def last_seen(self) -> float:
        """When either end saw it last, seconds since the epoch, UTC."""
        return max(end.last_seen for end in (self.egress, self.ingress) if end is not None)

    @property
    def one_sided(self) -> bool:
        """Whether only one end reported."""
        return self.egress is None or self.ingress is None


def add(one: FlowRecord, other: FlowRecord) -> FlowRecord:
    """Add up two records of the same key, reporter, side, verdicts, rules and revision."""
    return replace(
        one,
        connections=one.connections + other.connections,
        packets=one.packets + other.packets,
        bytes=one.bytes + other.bytes,
        first_seen=min(one.first_seen, other.first_seen),
        last_seen=max(one.last_seen, other.last_seen),
        process=one.process or other.process,
        standing=one.standing and other.standing,
    )


def merge(records: Iterable[FlowRecord]) -> tuple[Flow, ...]:
    """Merge the reports of both ends: one flow a key, in whatever order the records come.

    Of several records of one end, the latest names reporter, verdict, rules and revision; the latest that knows the
    process names it."""
    given = tuple(records)
    ends: dict[tuple[FlowKey, Side], FlowRecord] = {}
    for record in sorted(given, key=_recency, reverse=True):
        at = (record.key, record.side)
        ends[at] = add(ends[at], record) if at in ends else record
    keys = dict.fromkeys(record.key for record in given)
    return tuple(Flow(key, ends.get((key, Side.EGRESS)), ends.get((key, Side.INGRESS))) for key in keys)


def _recency(record: FlowRecord) -> tuple[float, int, str, str, tuple[str, ...], str, tuple[str, str, str, str]]:
    # All but the first only break ties, so that the result is the same in every order.
    process = record.process
    named = (process.name, process.user, process.unit, process.exe)
    return record.last_seen, record.revision, record.outcome, record.would, record.rules, record.reporter, named
