"""The plain twin of `analysis.Table`: every end is a kind of its own, and every bit is asked of `decide`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from cellwall.analysis import Assume, all_identities, places_outside
from cellwall.flows import Outcome
from cellwall.inventory import Fleet
from cellwall.labels import Selector
from cellwall.policy import (
    BUILT_IN,
    NOBODY,
    AddressBook,
    Endpoint,
    Flow,
    Identity,
    Mode,
    Policy,
    controller_channel,
    decide,
    endpoint,
)
from cellwall.traffic import LAST_POINT, Address, PortSet, Span


@dataclass(frozen=True)
class PlainKind:
    """One end, as one local process."""

    example: Endpoint
    version: int
    titles: tuple[str, ...]
    mode: Mode
    identity: Identity


def live_books(policy: Policy, now: float) -> list[AddressBook]:
    """Give the networks of the rules that are in force."""
    rules = [rule for rule in (*policy.rules, *policy.lifelines) if rule.in_time(now) and not rule.staged]
    whos = [who for rule in rules if not rule.refused for who in (*rule.source, *rule.destination)]
    return list(dict.fromkeys(who.network for who in whos if who.network is not None))


class PlainTable:
    """As `Table`, slow and obviously right."""

    def __init__(
        self,
        policy: Policy,
        fleet: Fleet,
        now: float,
        assume: Assume = Assume.ENFORCE,
        *,
        without: frozenset[str] = frozenset(),
        books: Iterable[AddressBook] = (),
        selectors: Iterable[Selector] = (),
    ) -> None:
        del selectors  # as every end is a kind of its own, all selectors are told apart
        self.policy = replace(
            policy,
            rules=tuple(rule for rule in policy.rules if rule.id not in without),
            lifelines=tuple(rule for rule in policy.lifelines if rule.id not in without),
        )
        self.fleet, self.now, self.assume = fleet, now, assume
        channel = controller_channel(fleet.controllers)
        listening = [replace(who.network, name="the controllers") for who in channel.destination if who.network]
        self.books = tuple(dict.fromkeys([*live_books(self.policy, now), *books, *listening]))
        rules = (*BUILT_IN, channel, *policy.lifelines, *policy.rules)
        self._asked = {who.identity for rule in rules for who in (*rule.source, *rule.destination)}
        ends = [
            (workload.name, endpoint(fleet, address))
            for workload in fleet.workloads
            for address in workload.addresses
            if fleet.by_address[address] is workload
        ]
        ends += [(title.replace("network:the", "the"), end) for title, end in places_outside(self.books, fleet)]
        self.kinds: tuple[PlainKind, ...] = tuple(
            PlainKind(
                replace(end, identity=identity),
                end.address.version,
                (title,),
                self.policy.mode_of(end.labels),
                identity,
            )
            for title, end in ends
            for identity in (all_identities(self._asked) if end.agent else (NOBODY,))
        )
        cuts = {0} | {at for rule in rules for span in rule.ports.spans for at in (span.first, span.last + 1)}
        firsts = sorted(cuts - {LAST_POINT + 1})
        lasts = [*(first - 1 for first in firsts[1:]), LAST_POINT]
        self.ports = tuple(PortSet((Span(first, last),)) for first, last in zip(firsts, lasts, strict=True))
        self._rows: dict[tuple[int, int], int] = {}

    def into(self, destination: int, ports: int) -> int:
        """Give the sources that pass to a destination."""
        at = destination, ports
        if at not in self._rows:
            bits = (self._passes(source, destination, ports) << source for source in range(len(self.kinds)))
            self._rows[at] = sum(bits)
        return self._rows[at]

    def out_of(self, source: int, ports: int) -> int:
        """Give the destinations that a source passes to."""
        return sum((self.into(to, ports) >> source & 1) << to for to in range(len(self.kinds)))

    def kind_at(self, address: Address, identity: Identity = NOBODY) -> int:
        """Give the kind of an end."""
        return self._places[self._like(address), self._told(identity) if self._agent(address) else NOBODY]

    def ports_at(self, point: int) -> int:
        """Give the class of a point."""
        return next(at for at, ports in enumerate(self.ports) if point in ports)

    def _passes(self, source: int, destination: int, ports: int) -> bool:
        one, other = self.kinds[source], self.kinds[destination]
        if one.version != other.version or (one.titles == other.titles and one.example.workload is not None):
            return False
        at = self.ports[ports].spans[0].first
        flow = Flow(one.example, other.example, at >> 16, at & 0xFFFF)
        decision = decide(self.policy, self.fleet, flow, self.now)
        outcome = decision.would if self.assume is Assume.ENFORCE else decision.outcome
        return outcome is Outcome.ALLOWED

    @cached_property
    def _places(self) -> dict[tuple[Address, Identity], int]:
        return {(kind.example.address, kind.identity): at for at, kind in enumerate(self.kinds)}

    def _agent(self, address: Address) -> bool:
        owner = self.fleet.by_address.get(address)
        return owner is not None and owner.agent

    def _like(self, address: Address) -> Address:
        if address in self.fleet.by_address:
            return address
        held = {book for book in self.books if address in book}
        return next(
            kind.example.address
            for kind in self.kinds
            if kind.example.workload is None
            and kind.version == address.version
            and {book for book in self.books if kind.example.address in book} == held
        )

    def _told(self, identity: Identity) -> Identity:
        told = {asked for asked in self._asked if asked.covers(identity)}
        return next(one for one in all_identities(self._asked) if told == {a for a in self._asked if a.covers(one)})
