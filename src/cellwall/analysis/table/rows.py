"""What is asked of a table of who may reach whom, so that a plain one can take its place; and small things about it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from cellwall.analysis.table.asked import ADDRESS
from cellwall.analysis.table.reach import Assume
from cellwall.inventory import Fleet
from cellwall.labels import Selector
from cellwall.policy import BUILT_IN, NOBODY, AddressBook, Endpoint, Identity, Mode, Policy, Rule, controller_channel
from cellwall.traffic import Address, PortSet


class Kind(Protocol):
    """A kind of end, as a table tells it from others."""

    @property
    def example(self) -> Endpoint: ...
    @property
    def version(self) -> int: ...
    @property
    def titles(self) -> tuple[str, ...]: ...
    @property
    def mode(self) -> Mode: ...
    @property
    def identity(self) -> Identity: ...


class Rows(Protocol):
    """What is asked of a table here; `Table` has it, and so has its plain twin."""

    @property
    def kinds(self) -> Sequence[Kind]: ...
    @property
    def ports(self) -> Sequence[PortSet]: ...
    def into(self, destination: int, ports: int) -> int: ...
    def kind_at(self, address: Address, identity: Identity = NOBODY) -> int: ...
    def ports_at(self, point: int) -> int: ...


class MakeRows(Protocol):
    """How a table is made."""

    def __call__(
        self,
        policy: Policy,
        fleet: Fleet,
        now: float,
        assume: Assume = Assume.ENFORCE,
        *,
        without: frozenset[str] = frozenset(),
        books: Iterable[AddressBook] = (),
        selectors: Iterable[Selector] = (),
    ) -> Rows: ...


def live_rules(policy: Policy, fleet: Fleet, now: float) -> Iterator[Rule]:
    """Give the rules that are in force at `now`, those that are built in included."""
    for rule in (*BUILT_IN, controller_channel(fleet.controllers), *policy.lifelines, *policy.rules):
        if rule.in_time(now) and not rule.refused and not rule.staged:
            yield rule


def plain_title(title: str) -> str:
    """Name an address that was asked about as such, not as a network."""
    return title.replace(f"network:{ADDRESS}", "")


def touch(one: PortSet, other: PortSet) -> bool:
    """Say whether two sets of ports have a point in common."""
    few, many = (one, other) if len(one.spans) <= len(other.spans) else (other, one)
    for span in few.spans:
        at = bisect_right(many.spans, span.first, key=lambda each: each.first) - 1
        if at >= 0 and many.spans[at].last >= span.first:
            return True
        after = bisect_left(many.spans, span.first, key=lambda each: each.first)
        if after < len(many.spans) and many.spans[after].first <= span.last:
            return True
    return False
