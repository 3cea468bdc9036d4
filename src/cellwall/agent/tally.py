"""Flow records on their way to the controller: added up while they wait, bounded, every loss counted. No I/O."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from cellwall.compile import Members, Ruleset, judge
from cellwall.flows import UNKNOWN, FlowKey, FlowRecord, Outcome, Process, Side, add
from cellwall.policy import Identity
from cellwall.traffic import Address

MOST_WAITING = 50_000
MOST_IN_FLIGHT = 4
SEND_AGAIN_S = 30.0

_Key = tuple[FlowKey, Side, Outcome, Outcome, tuple[str, ...], int, Process, bool]


def side_of(source: Address, local: Container[Address]) -> Side:
    """Say which end of a flow we are: who sends from an address of ours is its source."""
    return Side.EGRESS if source in local else Side.INGRESS


def judged(
    ruleset: Ruleset, members: Members, key: FlowKey, side: Side, process: Process = UNKNOWN
) -> tuple[Outcome, Outcome, tuple[str, ...]]:
    """Give outcome, would-be outcome and rule ids that `ruleset` has for a connection that is open already."""
    local, peer = (key.source, key.destination) if side is Side.EGRESS else (key.destination, key.source)
    identity = Identity(process.user or None, process.unit or None, process.exe or None)
    found = judge(ruleset, members, side, local, peer, key.protocol, key.port, identity)
    return found.outcome, found.would, found.rules


@dataclass
class Tally:
    """Records that wait. Those that differ only in counts and times become one; more than `most` are not kept.

    `dropped` counts the records that found no room, `lost` the flows that the kernel could not count, both since
    they were last taken.
    """

    most: int = MOST_WAITING
    dropped: int = 0
    lost: int = 0
    since: float | None = None
    _waiting: dict[_Key, FlowRecord] = field(default_factory=dict[_Key, FlowRecord])

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, records: Iterable[FlowRecord]) -> None:
        """Put records in, or count them as dropped."""
        for one in records:
            key = (one.key, one.side, one.outcome, one.would, one.rules, one.revision, one.process, one.standing)
            known = self._waiting.get(key)
            if known is not None:
                self._waiting[key] = add(known, one)
            elif len(self._waiting) < self.most:
                self._waiting[key] = one
                self.since = one.first_seen if self.since is None else min(self.since, one.first_seen)
            else:
                self.dropped += 1

    def take(self, most: int) -> tuple[FlowRecord, ...]:
        """Take at most `most` records out, the oldest first."""
        keys = list(self._waiting)[:most]
        return tuple(self._waiting.pop(key) for key in keys)

    def take_losses(self) -> tuple[int, int]:
        """Give what was lost and dropped since the last call, and begin anew."""
        losses = self.lost, self.dropped
        self.lost = self.dropped = 0
        return losses


@dataclass
class Outbox:
    """Batches that were sent and not yet taken: they are sent again after a while, under the same name."""

    prefix: str
    most: int = MOST_IN_FLIGHT
    again_s: float = SEND_AGAIN_S
    _number: int = 0
    _sent: dict[str, tuple[float, bytes]] = field(default_factory=dict[str, tuple[float, bytes]])

    @property
    def full(self) -> bool:
        """Whether it is time to wait for an answer."""
        return len(self._sent) >= self.most

    def name(self) -> str:
        """Give the next batch its name, which no other batch of this agent ever has."""
        self._number += 1
        return f"{self.prefix}-{self._number}"

    def sent(self, batch: str, message: bytes, now: float) -> None:
        """Keep a batch until it is taken."""
        self._sent[batch] = now, message

    def taken(self, batch: str) -> None:
        """Forget a batch."""
        self._sent.pop(batch, None)

    def due(self, now: float, *, reconnected: bool = False) -> tuple[bytes, ...]:
        """Give the messages to send again: those that wait for long, or all on a new connection."""
        late = [name for name, (at, _) in self._sent.items() if reconnected or now - at >= self.again_s]
        for name in late:
            self._sent[name] = now, self._sent[name][1]
        return tuple(self._sent[name][1] for name in late)


@dataclass
class Samples:
    """Denied packets: at most `most` at a time, one of a kind within `apart_s` seconds; the others are counted."""

    most: int = 100
    apart_s: float = 10.0
    skipped: int = 0
    _last: dict[tuple[object, ...], float] = field(default_factory=dict[tuple[object, ...], float])
    _room: int = 0

    def __post_init__(self) -> None:
        self._room = self.most

    def refill(self, now: float) -> None:
        """Make room for another `most`, once per interval, and forget what is long past."""
        self._room = self.most
        self._last = {kind: at for kind, at in self._last.items() if now - at < self.apart_s}

    def wanted(self, kind: tuple[object, ...], now: float) -> bool:
        """Say whether to keep a sample of this `kind`."""
        if self._room <= 0 or now - self._last.get(kind, -self.apart_s) < self.apart_s:
            self.skipped += 1
            return False
        self._last[kind] = now
        self._room -= 1
        return True


def common(processes: Iterable[Process]) -> Process:
    """Give what all these processes share: a field in which they differ is not known."""
    every = list(processes)
    if not every:
        return UNKNOWN
    columns = zip(*((one.name, one.user, one.unit, one.exe) for one in every), strict=True)
    return Process(*(column[0] if len(set(column)) == 1 else "" for column in columns))
