"""The ways into each kind of end: rows of a table, looked up only where a rule makes a difference."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cellwall.analysis.table.asked import Asked
from cellwall.analysis.table.reach import Assume
from cellwall.analysis.table.rows import MakeRows, live_rules, plain_title
from cellwall.analysis.table.table import Table
from cellwall.analysis.table.words import Ends, Words, bits_of, places_of
from cellwall.flows import Outcome, Side
from cellwall.inventory import Fleet
from cellwall.labels import Selector
from cellwall.policy import (
    NOBODY,
    Action,
    AddressBook,
    Endpoint,
    Flow,
    Identity,
    ModeRule,
    Policy,
    Rule,
    Verdict,
    Who,
    decide_at,
    endpoint,
)
from cellwall.traffic import EVERYTHING, LAST_POINT, PortSet, Span, port_name


@dataclass(frozen=True, slots=True)
class Ruling:
    """A rule that decides, and where it stands: file:line:column, `built in`, or nothing for the default."""

    id: str
    action: str
    place: str

    def __str__(self) -> str:
        return f"`{self.id}` ({self.place})"


@dataclass(frozen=True, slots=True)
class Hop:
    """One connection that passes: `ports` all do, `service` is the first, on which the rules are that let it.

    `egress` and `ingress` are the rules that let it pass at each end: none where the end has no point, or its mode
    lets it pass without a rule. `identity` and `server` are the local processes that it takes."""

    source: str
    destination: str
    service: str
    ports: PortSet
    egress: tuple[Ruling, ...]
    ingress: tuple[Ruling, ...]
    identity: Identity = NOBODY
    server: Identity = NOBODY

    @property
    def rules(self) -> tuple[Ruling, ...]:
        """The rules at both ends, each once."""
        return tuple(dict.fromkeys((*self.egress, *self.ingress)))


class Ways:
    """A table with what it takes to walk over it: the members of kinds, the ports that make a difference, and why."""

    def __init__(
        self,
        make: MakeRows,
        policy: Policy,
        fleet: Fleet,
        now: float,
        assume: Assume = Assume.ENFORCE,
        *,
        without: frozenset[str] = frozenset(),
        asked: Iterable[Asked] = (),
        books: Iterable[AddressBook] = (),
        selectors: Iterable[Selector] = (),
    ) -> None:
        named = tuple(asked)
        self.policy, self.fleet, self.now, self.assume, self.without = policy, fleet, now, assume, without
        self.table = make(
            policy,
            fleet,
            now,
            assume,
            without=without,
            books=(*books, *(book for one in named for book in one.books)),
            selectors=(*selectors, *(selector for one in named for selector in one.selectors)),
        )
        self.kinds = self.table.kinds
        self.titles = tuple(tuple(map(plain_title, kind.titles)) for kind in self.kinds)
        self.ends = Ends([kind.example for kind in self.kinds])
        self.hosts = tuple(sorted({title for kind in self.kinds if kind.example.workload for title in kind.titles}))
        number = {name: at for at, name in enumerate(self.hosts)}
        self.members = tuple(
            bits_of(number[title] for title in kind.titles) if kind.example.workload else 0 for kind in self.kinds
        )
        own: list[list[int]] = [[] for _ in self.hosts]
        for at, kind in enumerate(self.kinds):
            if kind.example.workload:
                for title in kind.titles:
                    own[number[title]].append(at)
        self.kinds_of = tuple(bits_of(kinds) for kinds in own)
        self.places = self.ends.all & ~self.ends.workloads
        self.rules = tuple(rule for rule in live_rules(policy, fleet, now) if rule.id not in without)
        self._runs: dict[tuple[int, bool], tuple[list[int], list[int]]] = {}
        self._any: dict[PortSet, dict[int, int]] = defaultdict(dict)
        self._at_point: dict[int, list[tuple[int, int, Rule]]] = {}

    def held(self, asked: Asked) -> int:
        """Give the kinds of the ends that are asked about."""
        return self.ends.met_by_any(asked.whos)

    def hosts_of(self, kinds: int) -> int:
        """Give the workloads that have an end of one of `kinds`."""
        found = 0
        for at in places_of(kinds & self.ends.workloads):
            found |= self.members[at]
        return found

    def whole(self, hosts: int) -> int:
        """Give the kinds of all ends of `hosts`."""
        found = 0
        for at in places_of(hosts):
            found |= self.kinds_of[at]
        return found

    def names(self, hosts: int) -> tuple[str, ...]:
        """Give the names of `hosts`, in order."""
        return tuple(self.hosts[at] for at in places_of(hosts))

    @cached_property
    def words(self) -> Callable[[Sequence[str]], str]:
        """What names sets of workloads and places outside by their titles, as a policy would."""
        known = [self.fleet.by_name[name] for name in self.hosts]
        ends = Ends([Endpoint(one.addresses[0], one.name, one.labels) for one in known])
        whos = [Who(selector) for selector in self.policy.selectors]
        words, number = Words(ends, self.hosts, whos), {name: at for at, name in enumerate(self.hosts)}

        def write(titles: Sequence[str]) -> str:
            outside = [title for title in titles if title not in number]
            phrase = words.of(bits_of(number[title] for title in titles if title in number))
            some = f"{phrase} ({phrase.count})" if phrase.count > 1 else ", ".join(phrase.titles)
            return " or ".join(filter(None, [some, *outside]))

        return write

    # --- ways ---

    def runs(self, destination: int) -> tuple[list[int], list[int]]:
        """Give which kinds of sources pass to a kind of destination, along the line of ports: the first point of each
        stretch, and the sources there.

        What passes between two places outside is nothing to the fleet, and left out."""
        outside = bool(self.places >> destination & 1)
        table = self.table
        if not isinstance(table, Table):
            rows = [table.into(destination, at) for at in range(len(table.ports))]
            return [ports.spans[0].first for ports in table.ports], self._inside(rows) if outside else rows
        key = table.group_of[destination], outside
        found = self._runs.get(key)
        if found is None:
            firsts, _ = table.profile(key[0])
            rows = [table.into(destination, at) for at in firsts]
            found = self._runs[key] = [table.firsts[at] for at in firsts], self._inside(rows) if outside else rows
        return found

    def _inside(self, rows: list[int]) -> list[int]:
        return [row & self.ends.workloads for row in rows]

    def any_into(self, destination: int, ports: PortSet = EVERYTHING) -> int:
        """Give the kinds of sources that pass to a kind of destination on some of `ports`."""
        known = self._any[ports]
        found = known.get(destination)
        if found is None:
            firsts, rows = self.runs(destination)
            if ports is EVERYTHING:
                some = set(rows)
            else:
                some = {
                    row
                    for span in ports.spans
                    for row in rows[bisect_right(firsts, span.first) - 1 : bisect_right(firsts, span.last)]
                }
            found = 0
            for row in some:
                found |= row
            known[destination] = found
        return found

    def between(self, source: int, destination: int, ports: PortSet = EVERYTHING) -> PortSet:
        """Give those of `ports` that pass from one kind to another."""
        return self.from_any(1 << source, destination, ports)

    def from_any(self, sources: int, destination: int, ports: PortSet = EVERYTHING) -> PortSet:
        """Give those of `ports` that pass from one of `sources` to a kind."""
        firsts, rows = self.runs(destination)
        spans: list[Span] = []
        for at, row in enumerate(rows):
            if row & sources:
                last = firsts[at + 1] - 1 if at + 1 < len(firsts) else LAST_POINT
                if spans and spans[-1].last == firsts[at] - 1:
                    spans[-1] = Span(spans[-1].first, last)
                else:
                    spans.append(Span(firsts[at], last))
        found = PortSet(tuple(spans))
        return found if ports is EVERYTHING else found & ports

    # --- why ---

    def hop(self, source: int, caller: str, destination: int, server: str, ports: PortSet = EVERYTHING) -> Hop:
        """Say why a member of one kind passes to a member of another, on the first of `ports` that do."""
        passing = self.between(source, destination, ports)
        at = passing.spans[0].first
        told: list[tuple[Ruling, ...]] = []
        for side in (Side.EGRESS, Side.INGRESS):
            one = self._decided(side, source, caller, destination, server, at)
            told.append(
                tuple(map(self.ruling, one.because)) if one is not None and one.would is Outcome.ALLOWED else ()
            )
        return Hop(
            caller,
            server,
            port_name(at),
            passing,
            told[0],
            told[1],
            self.kinds[source].identity,
            self.kinds[destination].identity,
        )

    def _decided(self, side: Side, source: int, caller: str, destination: int, server: str, at: int) -> Verdict | None:
        """Give what one point decides between two members of kinds; None where there is none."""
        near = self.kinds[source if side is Side.EGRESS else destination]
        if not near.example.agent:
            return None
        # The rules about two kinds at one point are few: a policy of these alone decides the same there, sooner.
        rules = self._at_point.get(at)
        if rules is None:
            rules = self._at_point[at] = [
                (self.ends.met_by_any(rule.source), self.ends.met_by_any(rule.destination), rule)
                for rule in self.rules
                if at in rule.ports and rule.id in self.policy.by_id
            ]
        about = [rule for one, other, rule in rules if one >> source & 1 and other >> destination & 1]
        policy = replace(
            self.policy,
            rules=tuple(rule for rule in about if rule.action is not Action.LIFELINE),
            lifelines=tuple(rule for rule in about if rule.action is Action.LIFELINE),
            modes=(ModeRule(Selector(), near.mode),),
        )
        flow = Flow(self._end(source, caller), self._end(destination, server), at >> 16, at & 0xFFFF)
        return decide_at(side, policy, self.fleet, flow, self.now)

    def denying(self, source: int, caller: str, destination: int, server: str, at: int) -> tuple[Ruling | None, ...]:
        """Give the rules by which points deny a connection, None among them where one denies it by default."""
        found: dict[Ruling | None, None] = {}
        for side in (Side.EGRESS, Side.INGRESS):
            one = self._decided(side, source, caller, destination, server, at)
            if one is not None and one.would is Outcome.DENIED:
                found |= dict.fromkeys(map(self.ruling, one.because) if one.because else (None,))
        return tuple(found)

    def as_processes(self, kind: int, title: str) -> tuple[int, ...]:
        """Give the kinds of a member of a kind at the same address, as each process that can be told apart."""
        address = self._end(kind, title).address
        identities = dict.fromkeys((NOBODY, *(one.identity for one in self.kinds)))
        return tuple(dict.fromkeys(self.table.kind_at(address, identity) for identity in identities))

    def ruling(self, name: str) -> Ruling:
        """Give a rule that decided, and where it stands."""
        rule = self.policy.by_id.get(name)
        if rule is None:
            return Ruling(name, "lifeline", "built in")
        return Ruling(name, rule.action.value, str(rule.place))

    def _end(self, kind: int, title: str) -> Endpoint:
        one = self.kinds[kind]
        example = replace(one.example, identity=one.identity)
        workload = self.fleet.by_name.get(title) if example.workload is not None else None
        if workload is None or workload.name == example.workload:
            return example
        for address in workload.addresses:
            if (
                address.version == one.version
                and self.fleet.by_address[address] is workload
                and self.table.kind_at(address, one.identity) == kind
            ):
                return endpoint(self.fleet, address, one.identity)
        return example
