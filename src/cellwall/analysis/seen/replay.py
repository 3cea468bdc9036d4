"""What a draft policy would have done to the flows that were seen: which it would have cut, and which opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cellwall.analysis.table.reach import Assume, Reach
from cellwall.flows import UNKNOWN, FlowKey, FlowRecord, Outcome, Process, Side, tally
from cellwall.inventory import Fleet
from cellwall.policy import NOBODY, Decision, Endpoint, Flow, Identity, Policy, Verdict, decide, endpoint
from cellwall.traffic import point, port_name


@dataclass(frozen=True, slots=True)
class Effect:
    """A flow whose fate changes. `connections` of it were seen, from `first_seen` to `last_seen` (seconds, UTC).

    `egress` and `ingress` are what the points of both ends would have said, None where there is none. `unsure` says
    that a rule asks for a local process which was not known."""

    key: FlowKey
    source: str
    destination: str
    service: str
    was: Outcome
    becomes: Outcome
    egress: Verdict | None
    ingress: Verdict | None
    connections: int
    first_seen: float
    last_seen: float
    process: Process = UNKNOWN
    unsure: bool = False

    @property
    def rules(self) -> tuple[str, ...]:
        """The ids of the rules that decide; empty for the default."""
        verdicts = [one for one in (self.egress, self.ingress) if one is not None]
        deciding = [one for one in verdicts if one.outcome is self.becomes or one.would is self.becomes]
        return tuple(sorted({rule for one in deciding for rule in one.because}))


@dataclass(frozen=True, slots=True)
class Replay:
    """The outcome of a replay: `checked` flows, of which so many `connections`; `unknown` have no point at either end.

    `cut` passed and would not; `opened` were denied and would pass: the most connections first."""

    checked: int
    connections: int
    cut: tuple[Effect, ...]
    opened: tuple[Effect, ...]
    unknown: int

    @property
    def cut_connections(self) -> int:
        """How many of the seen connections would have been cut."""
        return sum(effect.connections for effect in self.cut)


@dataclass(frozen=True, slots=True)
class Seen:
    """One distinct flow: a key and the process at its source, with the processes that it met at the destination."""

    key: FlowKey
    process: Process
    servers: tuple[Process, ...]
    was: Outcome
    connections: int
    first_seen: float
    last_seen: float


def replay(
    policy: Policy, fleet: Fleet, records: Iterable[FlowRecord], now: float, assume: Assume = Assume.MODES
) -> Replay:
    """Replay `records` against `policy`, with labels and modes as they are at `now` (seconds since the epoch).

    `assume` says whether modes count, or all points are taken to enforce. A flow counts once for each process at its
    source; it is denied when one of the processes that answered it would be.
    """
    return replay_seen(Reach(policy, fleet, now), distinct(records), assume)


def replay_seen(reach: Reach, flows: Iterable[Seen], assume: Assume) -> Replay:
    """Replay distinct flows against the policy of `reach`."""
    cut: list[Effect] = []
    opened: list[Effect] = []
    checked = unknown = connections = 0
    for seen in flows:
        checked += 1
        connections += seen.connections
        if not reach.kind(seen.key.source).example.agent and not reach.kind(seen.key.destination).example.agent:
            unknown += 1
        becomes = judge_seen(reach, seen, assume)
        if becomes is not seen.was:
            (cut if becomes is Outcome.DENIED else opened).append(_effect(reach, seen, becomes, assume))
    return Replay(checked, connections, _ordered(cut), _ordered(opened), unknown)


def plain_replay(
    policy: Policy, fleet: Fleet, records: Iterable[FlowRecord], now: float, assume: Assume = Assume.MODES
) -> dict[tuple[FlowKey, Process], Outcome]:
    """Say what becomes of every distinct flow by asking `decide` for each: the plain twin of `replay`."""
    found: dict[tuple[FlowKey, Process], Outcome] = {}
    for seen in distinct(records):
        outcomes: set[Outcome] = set()
        for server in seen.servers:
            source = endpoint(fleet, seen.key.source, identity_of(seen.process))
            destination = endpoint(fleet, seen.key.destination, identity_of(server))
            decision = decide(policy, fleet, Flow(source, destination, seen.key.protocol, seen.key.port), now)
            outcomes.add(_fate(decision, assume))
        found[seen.key, seen.process] = Outcome.DENIED if Outcome.DENIED in outcomes else Outcome.ALLOWED
    return found


def distinct(records: Iterable[FlowRecord]) -> Iterable[Seen]:
    """Give the distinct flows of `records`: by key and process at the source. What was seen last is what it was."""
    by_key: defaultdict[FlowKey, list[FlowRecord]] = defaultdict(list)
    for one in records:
        by_key[one.key].append(one)
    for key, reports in by_key.items():
        ingress = [one for one in reports if one.side is Side.INGRESS]
        egress: defaultdict[Process, list[FlowRecord]] = defaultdict(list)
        for one in reports:
            if one.side is Side.EGRESS:
                egress[one.process].append(one)
        servers = tuple(dict.fromkeys(one.process for one in ingress)) or (UNKNOWN,)
        refused = bool(ingress) and _latest(ingress) is Outcome.DENIED
        for process, own in (egress or {UNKNOWN: []}).items():
            told = [*own, *ingress]
            was = Outcome.DENIED if refused or (own and _latest(own) is Outcome.DENIED) else Outcome.ALLOWED
            count = sum(one.connections for one in own) if len(egress) > 1 else _connections(told)
            first, last = min(one.first_seen for one in told), max(one.last_seen for one in told)
            yield Seen(key, process, servers, was, count, first, last)


def judge_seen(reach: Reach, seen: Seen, assume: Assume) -> Outcome:
    """Say what becomes of a flow that was seen."""
    at = point(seen.key.protocol, seen.key.port)
    source = reach.kind(seen.key.source, identity_of(seen.process))
    mine, theirs = reach.fleet.by_address.get(seen.key.source), reach.fleet.by_address.get(seen.key.destination)
    own = mine is not None and mine is theirs
    for server in seen.servers:
        target = reach.kind(seen.key.destination, identity_of(server))
        if not reach.lets(source, target, at, assume, own=own):
            return Outcome.DENIED
    return Outcome.ALLOWED


def identity_of(process: Process) -> Identity:
    """Give what rules may ask of a process."""
    if not (process.user or process.unit or process.exe):
        return NOBODY
    return Identity(process.user or None, process.unit or None, process.exe or None)


def _latest(records: list[FlowRecord]) -> Outcome:
    return max(records, key=lambda one: (one.last_seen, one.revision, one.outcome)).outcome


def _connections(records: list[FlowRecord]) -> int:
    counted = tally(records)
    return counted.allowed + counted.denied


def _fate(decision: Decision, assume: Assume) -> Outcome:
    return decision.would if assume is Assume.ENFORCE else decision.outcome


def _effect(reach: Reach, seen: Seen, becomes: Outcome, assume: Assume) -> Effect:
    key = seen.key
    source = endpoint(reach.fleet, key.source)
    target = endpoint(reach.fleet, key.destination)
    own = source.workload is not None and source.workload == target.workload
    caller = reach.kind(key.source, identity_of(seen.process))
    servers = [reach.kind(key.destination, identity_of(server)) for server in seen.servers]
    decisions = [reach.decide(caller, server, key.protocol, key.port, own=own) for server in servers]
    chosen = next(one for one in decisions if _fate(one, assume) is becomes)
    return Effect(
        key,
        source.workload or str(key.source),
        target.workload or str(key.destination),
        port_name(point(key.protocol, key.port)),
        seen.was,
        becomes,
        chosen.egress,
        chosen.ingress,
        seen.connections,
        seen.first_seen,
        seen.last_seen,
        seen.process,
        _unsure(reach, seen, source, target),
    )


def _unsure(reach: Reach, seen: Seen, source: Endpoint, destination: Endpoint) -> bool:
    return bool(
        (source.agent and not identity_of(seen.process) and len(reach.identities(Side.EGRESS)) > 1)
        or (destination.agent and not all(map(identity_of, seen.servers)) and len(reach.identities(Side.INGRESS)) > 1)
    )


def _ordered(effects: list[Effect]) -> tuple[Effect, ...]:
    return tuple(
        sorted(effects, key=lambda one: (-one.connections, one.source, one.destination, one.service, str(one.process)))
    )
