"""What a policy is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from cellwall.flows import Side
from cellwall.labels import Labels, Selector
from cellwall.policy.errors import Place
from cellwall.policy.modes import Mode, ModeIndex, ModeRule
from cellwall.policy.rollout import Approval, Rollout
from cellwall.traffic import Address, Network, PortSet


class Action(StrEnum):
    """What a rule does with the flows that it matches."""

    LIFELINE = "lifeline"
    DENY = "deny"
    ALLOW = "allow"
    WALL = "wall"


BOTH_SIDES = frozenset(Side)


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """A local identity: the user that a process runs as, its systemd unit, the path of its program.

    What is None is not asked for (in a rule) or not known (in a flow)."""

    user: str | None = None
    unit: str | None = None
    exe: str | None = None

    def covers(self, other: Identity) -> bool:
        """Say whether all that is asked for here is known of `other`, and the same."""
        return (
            (self.user is None or self.user == other.user)
            and (self.unit is None or self.unit == other.unit)
            and (self.exe is None or self.exe == other.exe)
        )

    def __bool__(self) -> bool:
        return (self.user, self.unit, self.exe) != (None, None, None)

    def __str__(self) -> str:
        named = (("user", self.user), ("unit", self.unit), ("exe", self.exe))
        return ",".join(f"{key}={value}" for key, value in named if value is not None)


NOBODY = Identity()


@dataclass(frozen=True, slots=True)
class AddressBook:
    """A named network: prefixes, and DNS names (which no point can express yet)."""

    name: str
    prefixes: tuple[Network, ...] = ()
    names: tuple[str, ...] = ()
    place: Place = field(default_factory=Place, compare=False)

    def __contains__(self, address: Address) -> bool:
        return any(address in prefix for prefix in self.prefixes)


@dataclass(frozen=True, slots=True)
class Who:
    """One alternative of an end of a rule: a selector, a network, or anyone (both None); perhaps as an identity."""

    selector: Selector | None = None
    network: AddressBook | None = None
    identity: Identity = NOBODY

    def __str__(self) -> str:
        where = f"network:{self.network.name}" if self.network else str(self.selector) if self.selector else "any"
        return f"{where} as {self.identity}" if self.identity else where


@dataclass(frozen=True, slots=True)
class Application:
    """What a service asks of the content of a connection (layer 7); `kind` is `http`, `tls` or `modbus`."""

    kind: str
    terms: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """Named ports, perhaps narrowed to some content."""

    name: str
    ports: PortSet
    application: Application | None = None
    place: Place = field(default_factory=Place, compare=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """One sentence of a policy. Rules have no order.

    `starts` and `expires` are seconds since the epoch, UTC: the rule is in force from `starts` until just before
    `expires`. `refused` says, where it is not empty, why no point can express the rule: it is then in force nowhere.
    """

    id: str
    action: Action
    ports: PortSet
    source: tuple[Who, ...]
    destination: tuple[Who, ...]
    services: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    owner: str = ""
    reason: str = ""
    ticket: str = ""
    starts: float | None = None
    expires: float | None = None
    log: bool = False
    staged: bool = False
    sides: frozenset[Side] = BOTH_SIDES
    refused: str = ""
    place: Place = field(default_factory=Place, compare=False)

    def in_time(self, now: float) -> bool:
        """Say whether the rule has started and has not expired at `now`."""
        return (self.starts is None or self.starts <= now) and (self.expires is None or now < self.expires)


@dataclass(frozen=True, slots=True)
class LabelKey:
    """A key of the vocabulary; any value where `values` is empty."""

    key: str
    values: tuple[str, ...] = ()
    place: Place = field(default_factory=Place, compare=False)


@dataclass(frozen=True, slots=True)
class DeclaredWorkload:
    """A thing without an agent, declared in a document."""

    name: str
    addresses: tuple[Address, ...]
    labels: Labels
    place: Place = field(default_factory=Place, compare=False)


class Claim(StrEnum):
    """What a test claims."""

    CAN = "can"
    CANNOT = "cannot"
    ONLY = "only"


@dataclass(frozen=True, slots=True)
class Test:
    """A claim about what the policy lets through under full enforcement.

    `CAN`: every workload of `source` reaches every one of `destination` on `ports`; `CANNOT`: none does; `ONLY`:
    nobody outside `source` reaches `destination` on any of `ports`. `hops` is how many connections an attacker may take
    who goes on from each workload that it reaches; None is any number. A `canary` is also tried for real, by the agents
    of `source`, before they confirm a change.
    """

    __test__ = False  # not for pytest

    id: str
    claim: Claim
    source: tuple[Who, ...]
    destination: tuple[Who, ...]
    ports: PortSet
    services: tuple[str, ...] = ()
    canary: bool = False
    hops: int | None = 1
    place: Place = field(default_factory=Place, compare=False)


@dataclass(frozen=True)
class Policy:
    """All documents of one revision, checked and resolved; everything is in order of name or id."""

    labels: tuple[LabelKey, ...] = ()
    services: tuple[Service, ...] = ()
    networks: tuple[AddressBook, ...] = ()
    workloads: tuple[DeclaredWorkload, ...] = ()
    rules: tuple[Rule, ...] = ()
    lifelines: tuple[Rule, ...] = ()
    modes: tuple[ModeRule, ...] = ()
    tests: tuple[Test, ...] = ()
    rollout: Rollout = field(default_factory=Rollout)
    approvals: tuple[Approval, ...] = ()

    @cached_property
    def by_id(self) -> dict[str, Rule]:
        """Rules and lifelines by id."""
        return {rule.id: rule for rule in (*self.lifelines, *self.rules)}

    @cached_property
    def selectors(self) -> frozenset[Selector]:
        """The selectors that rules and lifelines use."""
        return frozenset(who.selector for who in self._whos() if who.selector is not None)

    @cached_property
    def used_networks(self) -> tuple[AddressBook, ...]:
        """The networks that rules and lifelines use, in order of name."""
        used = {who.network.name: who.network for who in self._whos() if who.network is not None}
        return tuple(used[name] for name in sorted(used))

    @cached_property
    def same_keys(self) -> tuple[str, ...]:
        """The label keys that some rule asks both ends to share, sorted."""
        return tuple(sorted({key for rule in self.rules for key in rule.same}))

    def _whos(self) -> Iterable[Who]:
        for rule in (*self.rules, *self.lifelines):
            yield from rule.source
            yield from rule.destination

    def mode_of(self, labels: Labels) -> Mode:
        """Give the mode of a workload with `labels`: the most specific selector wins, `observe` where none matches."""
        return self._mode_index.mode_of(labels)

    @cached_property
    def _mode_index(self) -> ModeIndex:
        return ModeIndex(self.modes)
