"""Who may reach whom, as bit rows: the one definition of "allowed" under every analysis of a whole fleet.

    ends ──Cut──▶ kinds ──▶ columns: kinds that no rule tells apart as a source
                      └───▶ rows:    kinds that no rule tells apart as a destination × classes of ports

A row says which columns get through. There are few rows, since what a row holds depends on the rules that name its
destination and on nothing else: rows are interned by the sets of these rules, and by what they hold. Its twin is
`policy.decide`, asked for each pair of ends.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from cellwall.analysis.table.naming import Part, bits_of, checks, ends_of, number_part, own_ends, seen_by
from cellwall.analysis.table.reach import Assume, all_identities, places, places_outside
from cellwall.compile import Class, Cut, RuleBook, name_of
from cellwall.flows import Side
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels, Match, Selector
from cellwall.policy import (
    BUILT_IN,
    NOBODY,
    Action,
    AddressBook,
    Endpoint,
    Identity,
    Mode,
    Policy,
    Rule,
    Who,
    controller_channel,
)
from cellwall.traffic import LAST_POINT, Address, PortSet, Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONTROLLERS = "the controllers"
"""The name of the book of controllers' addresses here: no network in a document can have it."""
ACTIONS = (Action.LIFELINE, Action.DENY, Action.ALLOW, Action.WALL)
Sets = tuple[int, int, int, int]
"""Columns (a bit each) that rules of each of `ACTIONS` name as a source."""
Shared = tuple[tuple[str, str], ...]
Both = tuple[frozenset[str], frozenset[str]]
"""The ids of rules, as the points of the source's and of the destination's side see it."""
Stretch = tuple[int, Both]
"""From this class of ports on, these rules."""
Profile = tuple[tuple[int, ...], tuple[int, ...]]
"""The rows of a group along the line of ports: the classes of ports at which another begins, and its number."""


@dataclass(frozen=True, eq=False)
class TableKind:
    """Ends that the policy cannot tell apart: `example` is one of them, with the identity of its process.

    `titles` are the names of workloads, or of places outside such as `network:office (IPv4)`."""

    example: Endpoint
    version: int
    titles: tuple[str, ...]
    mode: Mode

    @property
    def identity(self) -> Identity:
        """The local process."""
        return self.example.identity


@dataclass(eq=False, slots=True)
class _End:
    """Addresses that the policy cannot tell apart, whatever the process there."""

    one: Class
    example: Endpoint
    version: int
    mode: Mode
    titles: list[str] = field(default_factory=list[str])
    kinds: dict[Identity, int] = field(default_factory=dict[Identity, int])


class Table:
    """The meaning of a policy for a fleet at one moment, for all pairs of ends and all ports.

    `assume` says whether modes count. `without` are rules left out; `books` and `selectors` are told apart too,
    though no rule names them. A workload's traffic to itself, which always passes, is not in here. Rows are worked out
    as they are asked for, by one thread at a time until all `profiles` are there."""

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
        self.policy, self.fleet, self.now, self.assume = policy, fleet, now, assume
        channel = controller_channel(fleet.controllers)
        ends = (Who(network=replace(_book(channel), name=CONTROLLERS)),)
        written = (rule for rule in chain(policy.lifelines, policy.rules) if rule.id not in without)
        self._book = RuleBook.of(
            rule
            for rule in (*BUILT_IN, replace(channel, destination=ends), *written)
            if rule.in_time(now) and not rule.refused and not rule.staged and rule.ports
        )
        self._owners = {address.packed: workload for address, workload in fleet.by_address.items()}
        self.cut: Cut = self._book.cut(self._owners, selectors, books)
        self._ends: dict[tuple[object, ...], _End] = {}
        self._end_at: dict[bytes, _End] = {}
        self.ports: tuple[PortSet, ...] = ()
        self._cut_ports()
        self._gather_ends()
        self.kinds: tuple[TableKind, ...] = tuple(self._make_kinds())
        self._gather_columns()
        self._make_rows()

    # --- asked ---

    def into(self, destination: int, ports: int) -> int:
        """Give the kinds (a bit each) that pass to a kind on every point of a class of ports."""
        return self._spread(self.row(destination, ports))

    def out_of(self, source: int, ports: int) -> int:
        """Give the kinds (a bit each) that a kind passes to on a class of ports."""
        column, found = self.column_of[source], 0
        for destination, group in enumerate(self.group_of):
            if self.rows[self._at(group, ports)] >> column & 1:
                found |= 1 << destination
        return found

    def row(self, destination: int, ports: int) -> int:
        """Give the columns (a bit each; see `column_of`) that pass to a kind on a class of ports."""
        return self.rows[self._at(self.group_of[destination], ports)]

    def kind_at(self, address: Address, identity: Identity = NOBODY) -> int:
        """Give the kind of the end at an address."""
        end = self._end_at.get(address.packed)
        if end is None:
            return self.kind_outside(address.version, int(address))
        return self._kind_as(end, identity)

    def several(self) -> NDArray[np.bool_]:
        """Say of each kind whether rules ask who the process there is, so that others may fare otherwise."""
        import numpy as np

        return np.array([len(end.kinds) > 1 for end in self._kind_ends], np.bool_)

    def agents(self) -> NDArray[np.bool_]:
        """Say of each kind whether a point of its own enforces for it."""
        import numpy as np

        return np.array([kind.example.agent for kind in self.kinds], np.bool_)

    def kind_outside(self, version: int, at: int) -> int:
        """Give the kind of an address, as an integer, that no workload owns."""
        names = self.cut.networks_of(version, at)
        end = self._ends.get((names, version)) or self._ends[frozenset(), version]
        return end.kinds[NOBODY]

    @cached_property
    def kinds_by_address(self) -> dict[bytes, int]:
        """The kinds of all workloads' addresses, packed, whatever the process there."""
        return {packed: end.kinds[NOBODY] for packed, end in self._end_at.items()}

    def ports_at(self, point: int) -> int:
        """Give the class of a point of the line of ports."""
        return bisect_right(self.firsts, point) - 1

    @cached_property
    def kinds_of(self) -> tuple[int, ...]:
        """The kinds (a bit each) of each column."""
        found = [0] * self.column_count
        for kind, column in enumerate(self.column_of):
            found[column] |= 1 << kind
        return tuple(found)

    def _spread(self, row: int) -> int:
        known = self._spread_rows.get(row)
        if known is None:
            known = 0
            for column in places(row):
                known |= self.kinds_of[column]
            self._spread_rows[row] = known
        return known

    def _at(self, group: int, ports: int) -> int:
        firsts, rows = self.profile(group)
        return rows[bisect_right(firsts, ports) - 1]

    def profile(self, group: int) -> Profile:
        """Give the rows of a group of destinations along the line of ports; worked out when first asked for."""
        known = self._profiles.get(group)
        if known is None:
            known = self._profiles[group] = self._make_profile(*self._wanted[group])
        return known

    @cached_property
    def profiles(self) -> tuple[Profile, ...]:
        """The profiles of all groups; `rows` is whole only after it."""
        return tuple(map(self.profile, range(len(self._wanted))))

    # --- ports ---

    def _cut_ports(self) -> None:
        sets = {rule.ports for rule in self._book.rules.values()}
        edges = {0} | {at for ports in sets for span in ports.spans for at in (span.first, span.last + 1)}
        edges.discard(LAST_POINT + 1)
        self.firsts = sorted(edges)
        place = {first: at for at, first in enumerate(self.firsts)}
        place[LAST_POINT + 1] = len(self.firsts)
        lasts = [*(first - 1 for first in self.firsts[1:]), LAST_POINT]
        self.ports = tuple([PortSet((Span(*pair),)) for pair in zip(self.firsts, lasts, strict=True)])
        numbers = {ports: number for number, ports in enumerate(sets)}
        self._ports_of = {rule.id: numbers[rule.ports] for rule in self._book.rules.values()}
        self._spans = [tuple([(place[span.first], place[span.last + 1]) for span in ports.spans]) for ports in sets]

    # --- ends and kinds ---

    def _gather_ends(self) -> None:
        modes: dict[Labels, Mode] = {}
        ends, end_at = self._ends, self._end_at
        for packed, workload in self._owners.items():
            labels = workload.labels
            mode = modes.get(labels)
            if mode is None:
                mode = modes[labels] = self.policy.mode_of(labels)
            key = self.cut.places[packed], len(packed), mode, workload.agent, True
            end = ends.get(key)
            if end is None:
                end = ends[key] = self._workload_end(packed, workload, mode)
            end.titles.append(workload.name)
            end_at[packed] = end
        for title, example in places_outside(self.cut.books, self.fleet):
            self._outside(example.address).titles.append(title.replace(f"network:{CONTROLLERS}", CONTROLLERS))

    def _workload_end(self, packed: bytes, workload: Workload, mode: Mode) -> _End:
        address = next(one for one in workload.addresses if one.packed == packed)
        example = Endpoint(address, workload.name, workload.labels, workload.agent)
        return _End(self.cut.places[packed], example, address.version, mode)

    def _outside(self, address: Address) -> _End:
        names = self.cut.networks_of(address.version, int(address))
        key = names, address.version
        end = self._ends.get(key)
        if end is None:
            mode = self.policy.mode_of(Labels())
            end = self._ends[key] = _End(Class((), (), names), Endpoint(address), address.version, mode)
        return end

    def _make_kinds(self) -> Iterator[TableKind]:
        number = 0
        for end in self._ends.values():
            asked = self._asked(end)
            for identity in all_identities(asked) if asked else (NOBODY,):
                end.kinds[identity] = number
                number += 1
                yield TableKind(
                    replace(end.example, identity=identity) if identity else end.example,
                    end.version,
                    tuple(end.titles),
                    end.mode,
                )

    def _asked(self, end: _End) -> set[Identity]:
        """Give the identities that rules ask of processes there."""
        if not self._asking or not end.example.agent:
            return set()
        return {who.identity for rule in self._asking for who in own_ends(rule) if who.identity and end.one.meets(who)}

    @cached_property
    def _asking(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self._book.rules.values() if any(who.identity for who in own_ends(rule)))

    @staticmethod
    def _kind_as(end: _End, identity: Identity) -> int:
        if len(end.kinds) == 1 or not identity:
            return end.kinds[NOBODY]
        # Of what is known of a process, only what rules ask for counts: the identity that says the most of it.
        covering = [one for one in end.kinds if one.covers(identity)]
        return end.kinds[max(covering, key=lambda one: sum(part is not None for part in (one.user, one.unit, one.exe)))]

    # --- columns: what tells sources apart ---

    def _gather_columns(self) -> None:
        self._kind_ends = [end for end in self._ends.values() for _ in end.kinds]
        by_name, named = self._parts("source")
        columns: dict[tuple[tuple[int, ...], Shared, int, Mode | None], int] = {}
        self.column_of: list[int] = []
        for kind, end in zip(self.kinds, self._kind_ends, strict=True):
            parts = self._parts_of(end, kind.identity, "source", by_name, named)
            shared = end.one.shared
            key = parts, shared, end.version, self._grip(kind)
            self.column_of.append(columns.setdefault(key, len(columns)))
        self.column_count = len(columns)
        self._everyone = (1 << len(columns)) - 1
        self._of_version, self._loose, self._guarded, self._sharing = {4: 0, 6: 0}, 0, 0, defaultdict[object, int](int)
        by_part: defaultdict[int, list[int]] = defaultdict(list)
        for (parts, shared, version, grip), column in columns.items():
            bit = 1 << column
            self._of_version[version] |= bit
            self._loose |= bit if grip is None else 0
            self._guarded |= bit if grip is Mode.GUARD else 0
            for pair in shared:
                self._sharing[pair] |= bit
            for part in parts:
                by_part[part].append(column)
        columns_of: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for part, held in by_part.items():
            bits = bits_of(held, len(columns))
            for at, ids in enumerate(named[part]):
                table = columns_of[at]
                for rule_id in ids:
                    table[rule_id] = table.get(rule_id, 0) | bits
        # Of each rule that some end is a source of: its place among the actions, its columns, its shared keys.
        self._terms = tuple(
            {
                rule_id: (_PLACE[rule.action], bits, rule.same)
                for rule_id, bits in table.items()
                if (rule := self._book.rules[rule_id])
            }
            for table in columns_of
        )

    def _grip(self, kind: TableKind) -> Mode | None:
        """Give how far the point at an end enforces; None for not at all."""
        if not kind.example.agent:
            return None
        if self.assume is Assume.ENFORCE:
            return Mode.ENFORCE
        return None if kind.mode is Mode.OBSERVE else kind.mode

    def _parts(self, word: str) -> tuple[dict[object, int], list[Part]]:
        """Give, for each name, the number of the set of rules that have it at the `word` end; 0 is no rule."""
        by_name: defaultdict[object, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for rule in self._book.rules.values():
            for side in rule.sides:
                for who in seen_by(rule, word, side):
                    if not who.identity or not checks(word, side):
                        by_name[name_of(who)][side is Side.INGRESS].append(rule.id)
        numbers: dict[Part, int] = {((), ()): 0}
        found: dict[object, int] = {}
        for name, (egress, ingress) in by_name.items():
            part = tuple(egress), tuple(ingress)
            found[name] = numbers.setdefault(part, len(numbers))
        return found, list(numbers)

    def _parts_of(
        self, end: _End, identity: Identity, word: str, by_name: dict[object, int], named: list[Part]
    ) -> tuple[int, ...]:
        """Give the numbers of the sets of rules that an end meets, sorted."""
        found = {by_name.get(None, 0)}
        for match in end.one.matches if end.example.workload is not None else ():
            part = by_name.get(match)
            if part is None:
                part = by_name[match] = self._part_of(match, by_name, named)
            found.add(part)
        found.update(by_name.get(name, 0) for name in end.one.networks)
        if identity:
            found.add(self._part_asked(end, identity, word, by_name, named))
        found.discard(0)
        return tuple(sorted(found))

    def _part_of(self, match: Match, by_name: dict[object, int], named: list[Part]) -> int:
        """Give the number of the set of rules that name any of the selectors of a match."""
        parts = [named[by_name[one]] for one in match.selectors if one in by_name]
        return number_part(parts, by_name, named)

    def _part_asked(
        self, end: _End, identity: Identity, word: str, by_name: dict[object, int], named: list[Part]
    ) -> int:
        """Give the number of the set of rules that ask for this identity there."""
        side = Side.EGRESS if word == "source" else Side.INGRESS
        ids = tuple(
            rule.id
            for rule in self._asking
            if side in rule.sides
            and any(
                who.identity and who.identity.covers(identity) and end.one.meets(who) for who in ends_of(rule, word)
            )
        )
        return number_part([((), ids) if side is Side.INGRESS else (ids, ())], by_name, named)

    # --- rows: what tells destinations apart ---

    def _make_rows(self) -> None:
        by_name, named = self._parts("destination")
        groups: dict[object, int] = {}
        self.group_of: list[int] = []
        self._wanted: list[tuple[list[Part], Shared, int, Mode | None]] = []
        self._profiles: dict[int, Profile] = {}
        self.rows: list[int] = []
        self._row_numbers: dict[int, int] = {}
        self._spread_rows: dict[int, int] = {}
        self._resolved: dict[object, int] = {}
        self._shared_columns: dict[tuple[tuple[str, ...], Shared], int] = {}
        swept = self._sweep(*map(frozenset, named[by_name.get(None, 0)]))
        commons = {both: at for at, both in enumerate(dict.fromkeys(both for _, both in swept))}
        self._commons = tuple(commons)
        self._common = [(first, commons[both]) for first, both in swept]
        self._both_ways = self._terms[0].keys() == self._terms[1].keys()
        for kind, end in zip(self.kinds, self._kind_ends, strict=True):
            parts = self._parts_of(end, kind.identity, "destination", by_name, named)
            shared = end.one.shared
            key = parts, shared, end.version, self._grip(kind)
            group = groups.get(key)
            if group is None:
                group = groups[key] = len(groups)
                anyone = by_name.get(None, 0)
                own = [named[part] for part in parts if part != anyone]
                self._wanted.append((own, shared, end.version, key[3]))
            self.group_of.append(group)

    def _sweep(self, egress: frozenset[str], ingress: frozenset[str]) -> list[Stretch]:
        """Go along the classes of ports: where the set of rules changes, and the rules there, at both sides."""
        first = self._sweep_side(egress)
        if egress == ingress:
            return [(edge, (rules, rules)) for edge, rules in first]
        second = self._sweep_side(ingress)
        found: list[Stretch] = []
        at = other = 0
        for edge in sorted({edge for edge, _ in chain(first, second)}):
            while at + 1 < len(first) and first[at + 1][0] <= edge:
                at += 1
            while other + 1 < len(second) and second[other + 1][0] <= edge:
                other += 1
            found.append((edge, (first[at][1], second[other][1])))
        return found

    def _sweep_side(self, ids: frozenset[str]) -> list[tuple[int, frozenset[str]]]:
        by_ports: defaultdict[int, list[str]] = defaultdict(list)
        for rule_id in ids:
            by_ports[self._ports_of[rule_id]].append(rule_id)
        begins: defaultdict[int, list[str]] = defaultdict(list)
        ends: defaultdict[int, list[str]] = defaultdict(list)
        for ports, held in by_ports.items():
            for first, end in self._spans[ports]:
                begins[first] += held
                ends[end] += held
        active: set[str] = set()
        found: list[tuple[int, frozenset[str]]] = []
        for edge in sorted({0, *begins, *ends}):
            if edge == len(self.firsts):
                break
            active.difference_update(ends.get(edge, ()))
            active.update(begins.get(edge, ()))
            found.append((edge, frozenset(active)))
        return found

    def _make_profile(self, own: list[Part], shared: Shared, version: int, grip: Mode | None) -> Profile:
        # A rule of which nobody is a source says nothing.
        egress = self._terms[0].keys() & set(chain.from_iterable(part[0] for part in own))
        alike = self._both_ways and all(part[0] == part[1] for part in own)
        ingress = egress if alike else self._terms[1].keys() & set(chain.from_iterable(part[1] for part in own))
        swept, common = self._sweep(frozenset(egress), frozenset(ingress)), self._common
        firsts: list[int] = []
        numbers: list[int] = []
        known: dict[tuple[int, int], int] = {}
        at = other = 0
        for first in sorted({one[0] for one in chain(swept, common)}) if len(swept) > 1 else (one[0] for one in common):
            while at + 1 < len(swept) and swept[at + 1][0] <= first:
                at += 1
            while other + 1 < len(common) and common[other + 1][0] <= first:
                other += 1
            key = at, common[other][1]
            number = known.get(key, -1)
            if number < 0:
                number = known[key] = self._row(swept[at][1], key[1], shared, version, grip)
            if not numbers or numbers[-1] != number:
                firsts.append(first)
                numbers.append(number)
        return tuple(firsts), tuple(numbers)

    def _row(
        self,
        rules: Both,
        common: int,
        shared: Shared,
        version: int,
        grip: Mode | None,
    ) -> int:
        key = rules, common, shared, version, grip
        number = self._resolved.get(key)
        if number is None:
            row = self._passing(rules, common, shared, grip) & self._of_version[version]
            number = self._row_numbers.setdefault(row, len(self.rows))
            if number == len(self.rows):
                self.rows.append(row)
            self._resolved[key] = number
        return number

    def _passing(self, rules: Both, common: int, shared: Shared, grip: Mode | None) -> int:
        """Give the columns that get through where these rules speak, those of any destination being `common`."""
        first, second = (self._common_sets(side, common, shared) for side in (0, 1))
        if first[0] == second[0] == self._everyone:
            return self._everyone
        own = self._own_sets(0, rules[0], shared)
        lifeline, deny, allow, wall = _joined(first, own)
        egress = self._loose | lifeline | (~deny & (allow | (self._guarded & ~wall)))
        if grip is None:
            return egress & self._everyone
        if rules[0] != rules[1] or not self._sided.isdisjoint(rules[1]):
            own = self._own_sets(1, rules[1], shared)
        lifeline, deny, allow, wall = _joined(second, own)
        return egress & (lifeline | (~deny & (allow | (~wall if grip is Mode.GUARD else 0)))) & self._everyone

    @cached_property
    def _sided(self) -> frozenset[str]:
        """The rules that are seen otherwise at one side than at the other, for an identity that they ask for."""
        rules = self._book.rules.values()
        return frozenset(one.id for one in rules if any(who.identity for who in (*one.source, *one.destination)))

    def _common_sets(self, side: int, common: int, shared: Shared) -> Sets:
        """Give what the rules about any destination say, at one stretch of ports."""
        key = side, common, shared if self._common_shares else ()
        known = self._common_known.get(key)
        if known is None:
            known = self._common_known[key] = self._own_sets(side, self._commons[common][side], shared)
        return known

    @cached_property
    def _common_known(self) -> dict[object, Sets]:
        return {}

    @cached_property
    def _common_shares(self) -> bool:
        return any(self._book.rules[rule_id].same for both in self._commons for rule_id in chain(*both))

    def _own_sets(self, side: int, rules: Iterable[str], shared: Shared) -> Sets:
        """Give the columns that each action's rules name as a source."""
        sets, terms = [0, 0, 0, 0], self._terms[side]
        for rule_id in rules:
            term = terms.get(rule_id)
            if term is not None:
                place, bits, same = term
                sets[place] |= bits & self._same(same, shared) if same else bits
        return sets[0], sets[1], sets[2], sets[3]

    def _same(self, keys: tuple[str, ...], shared: Shared) -> int:
        """Give the columns that share these values of `keys`; none where one is missing."""
        at = keys, shared
        known = self._shared_columns.get(at)
        if known is None:
            wanted = [pair for pair in shared if pair[0] in keys]
            known = self._everyone if len(wanted) == len(set(keys)) else 0
            for pair in wanted:
                known &= self._sharing[pair]
            self._shared_columns[at] = known
        return known


_PLACE: Mapping[Action, int] = {action: at for at, action in enumerate(ACTIONS)}


def _book(channel: Rule) -> AddressBook:
    found = channel.destination[0].network
    assert found is not None
    return found


def _joined(one: Sets, other: Sets) -> Sets:
    return one[0] | other[0], one[1] | other[1], one[2] | other[2], one[3] | other[3]
