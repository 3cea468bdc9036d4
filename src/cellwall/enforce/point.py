"""The contract of an enforcement point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Protocol

from cellwall.compile import Members, OrderCard, Ruleset
from cellwall.flows import Outcome
from cellwall.policy import Mode
from cellwall.traffic import Address, CellwallError


class Refused(CellwallError):
    """The point refused a change; it is as it was. Trying the same again is of no use."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a point did: whether anything changed, and how: `none`, `elements` or `refill`."""

    digest: str
    change: str


@dataclass(frozen=True, slots=True)
class Held:
    """What a point says that it holds, read back from it."""

    revision: int
    mode: Mode
    digest: str
    workload: str


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference between what a point should hold and what it does."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Connections of one tuple since the last look. `rule` is the number of the rule or order that decided, 0 the
    default.

    `port` is as in `cellwall.traffic.ports`; 0 for protocols without."""

    source: Address
    destination: Address
    protocol: int
    port: int
    outcome: Outcome
    would: Outcome
    rule: int
    count: int


class Leave(StrEnum):
    """What to leave behind when Cellwall is removed from a host."""

    KEEP = "keep"
    OPEN = "open"
    CLOSE = "close"


class Spell(StrEnum):
    """Why something holds only for a while: a change on trial, or a host that is suspended."""

    TRIAL = "trial"
    SUSPENSION = "suspended"


@dataclass(frozen=True, slots=True)
class Interim:
    """What decides in place of what lasts until `until`, in seconds since the epoch (UTC).

    At that moment the point itself goes back, whoever is dead by then. Orders of an emergency do not reach a suspended
    host; to a trial they are what they are to what lasts."""

    why: Spell
    ruleset: Ruleset
    members: Members
    until: float


class Point(Protocol):
    """An enforcement point. Each change is all or nothing; a second apply of the same changes nothing."""

    def prepare(self, ruleset: Ruleset, members: Members) -> None:
        """Try the change without making it. Raises `Refused`."""
        ...

    def apply(self, ruleset: Ruleset | None, members: Members, interims: tuple[Interim, ...] = ()) -> Receipt:
        """Make the point hold exactly this, in one step. Raises `Refused`; then it is as it was.

        While `interims` last they decide instead, the last of them first. With `ruleset` None, that everything passes
        is what lasts."""
        ...

    def apply_members(self, added: Mapping[bytes, int], removed: Iterable[bytes]) -> None:
        """Change who is where, after an `apply`, for what decides; what it goes back to stays what it is.

        Raises `Refused`; then it is as it was."""
        ...

    def apply_orders(self, orders: tuple[OrderCard, ...]) -> None:
        """Put these in place of the orders of an emergency, after an `apply`; nothing else is written anew.

        Raises `Refused`; then it is as it was."""
        ...

    def read_back(self) -> Held | None:
        """Say what the point holds, without memory; None where it holds nothing of ours."""
        ...

    def verify(self) -> tuple[Drift, ...]:
        """Compare what the point holds with what was last applied; empty when they are the same."""
        ...

    def collect(self) -> tuple[Seen, ...]:
        """Give what was counted since the last call."""
        ...

    def counters(self) -> dict[str, tuple[int, int]]:
        """Give packets and bytes by id of rule or order, and `default`, since the point's rules were last written."""
        ...

    def remove(self, leave: Leave) -> None:
        """Leave the host: the rules as they are, none, or all but lifelines closed."""
        ...


def digest_of(ruleset: Ruleset) -> str:
    """Name a ruleset by its content, 16 hexadecimal digits; members and orders come and go on their own, and are not
    in it."""
    return blake2b(repr(replace(ruleset, orders=())).encode(), digest_size=8).hexdigest()
