"""What passes between the ends of one IP version in one of two policies and not in the other, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from cellwall.analysis.change.both import Both, Unit, moves, union
from cellwall.analysis.table.blocks import Hint, Shared, cover
from cellwall.analysis.table.rows import touch
from cellwall.analysis.table.ways import Ruling
from cellwall.analysis.table.words import Ends, Phrase, Words, bits_of, places_of
from cellwall.policy import Identity
from cellwall.traffic import EVERYTHING, LAST_POINT, PortSet, Span


@dataclass(frozen=True, slots=True)
class Found:
    """A difference in words: of one IP version, one process at each end and some stretches of ports."""

    opened: bool
    sources: Phrase
    destinations: Phrase
    same: tuple[str, ...]
    ports: PortSet
    version: int
    processes: tuple[Identity, Identity]
    because: tuple[Ruling, ...]


def parts(both: Both) -> tuple[Part, ...]:
    """Give the ends of each IP version, where there can be a difference."""
    if not both.everywhere and not both.differing:
        return ()
    of = {version: tuple(unit for unit in both.units if unit.address.version == version) for version in (4, 6)}
    return tuple(Part(both, units, version) for version, units in of.items() if units)


class _Turn:
    """Turns rows of the kinds of a table into rows of classes; `kinds` are those of each class."""

    def __init__(self, kinds: Iterable[int]) -> None:
        self._classes: defaultdict[int, int] = defaultdict(int)
        for at, kind in enumerate(kinds):
            self._classes[kind] |= 1 << at
        self._bytes: dict[tuple[int, int], int] = {}
        self._rows: dict[int, int] = {}

    def classes(self, row: int) -> int:
        """Give the classes (a bit each) of the kinds of a row."""
        found = self._rows.get(row)
        if found is None:
            found = 0
            for at, byte in enumerate(row.to_bytes((row.bit_length() + 7) // 8, "little")):
                if byte:
                    found |= self._byte(at, byte)
            self._rows[row] = found
        return found

    def _byte(self, at: int, byte: int) -> int:
        # Rows of one table are much alike: most of their bytes come again and again.
        found = self._bytes.get((at, byte))
        if found is None:
            found = 0
            for place in places_of(byte):
                found |= self._classes.get(at << 3 | place, 0)
            self._bytes[at, byte] = found
        return found


class Part:
    """The ends of one IP version, in classes that neither policy tells apart."""

    def __init__(self, whole: Both, units: Sequence[Unit], version: int) -> None:
        self._whole, self.version = whole, version
        groups: defaultdict[object, list[int]] = defaultdict(list)
        for number, unit in enumerate(units):
            kinds = tuple(
                table.kind_at(unit.address, identity) for table in whole.tables for identity in whole.identities
            )
            groups[kinds].append(number)
        self._members = [bits_of(numbers) for numbers in groups.values()]
        self._titles = [bits_of(whole.number[units[at].title] for at in numbers) for numbers in groups.values()]
        examples = [units[numbers[0]] for numbers in groups.values()]
        self._examples = examples
        self._ends = (Ends([one.before for one in examples]), Ends([one.after for one in examples]))
        self._all = self._ends[0].all
        self._outside = self._all & ~(self._ends[0].workloads | self._ends[1].workloads)
        self._shared = Shared([one.known.labels for one in examples])
        self._words = Words(Ends([unit.known for unit in units]), [_title(unit.title) for unit in units], whole.whos)
        # Pairs that are none: a workload with itself, two places outside.
        by_title: defaultdict[int, int] = defaultdict(int)
        for at, titles in enumerate(self._titles):
            if titles.bit_count() == 1 and not self._outside >> at & 1:
                by_title[titles] |= 1 << at
        self._free = {
            at: self._outside if self._outside >> at & 1 else by_title.get(titles, 0)
            for at, titles in enumerate(self._titles)
        }
        self._kinds = {
            (side, identity): [table.kind_at(one.address, identity) for one in examples]
            for side, table in enumerate(whole.tables)
            for identity in whole.identities
        }
        self._turns = {at: _Turn(kinds) for at, kinds in self._kinds.items()}
        self._speaking = self._ports_spoken_of()
        self._hints = tuple(
            (
                side,
                rule,
                Hint(
                    number,
                    self._ends[side].met_by_any(rule.source),
                    self._ends[side].met_by_any(rule.destination),
                    rule.same,
                ),
            )
            for number, (side, rule) in enumerate(whole.differing)
        )

    def found(self, gained: dict[int, int], lost: dict[int, int]) -> Iterator[Found]:
        """Give what differs, line by line; notes which sources (bits of names) each destination gains and loses."""
        stretches = [list(self._stretches(at)) for at in range(len(self._examples))]
        for processes in product(self._whole.identities, self._whole.identities):
            changes = [self._changes(at, stretches[at], processes) for at in range(len(stretches))]
            for opened in (True, False):
                for at, some in enumerate(changes):
                    self._count(at, {pair[not opened] for _, _, pair in some}, gained if opened else lost)
                for ports, rows in _by_ports(changes, opened):
                    yield from self._covered(opened, ports, rows, processes)

    def _ports_spoken_of(self) -> list[list[PortSet]]:
        """Give, for each class, the sets of ports of the rules near by that name it as a destination."""
        named: defaultdict[PortSet, int] = defaultdict(int)
        for ends, near in zip(self._ends, self._whole.near, strict=True):
            for rule in near:
                named[rule.ports] |= ends.met_by_any(rule.destination)
        found: list[list[PortSet]] = [[] for _ in self._examples]
        for ports, destinations in named.items():
            for at in places_of(destinations):
                found[at].append(ports)
        return found

    def _stretches(self, at: int) -> Iterator[tuple[int, int]]:
        """Cut the ports of which rules that differ speak, at one destination, where some rule begins or ends."""
        if self._whole.everywhere:
            region = EVERYTHING
        else:
            region = union(rule.ports for _, rule, hint in self._hints if hint.destinations >> at & 1)
        if not region:
            return
        cuts = {0, LAST_POINT + 1}
        for ports in (region, *self._speaking[at]):
            cuts |= {edge for span in ports.spans for edge in (span.first, span.last + 1)}
        for first, after in pairwise(sorted(cuts)):
            if first in region:
                yield first, after - 1

    def _changes(
        self, at: int, stretches: Iterable[tuple[int, int]], processes: tuple[Identity, Identity]
    ) -> list[tuple[int, int, tuple[int, int]]]:
        """Give, by stretch of ports, from which classes a destination is newly reached, and from which no longer."""
        caller, server = processes
        counts = self._all & ~self._free[at]
        found: list[tuple[int, int, tuple[int, int]]] = []
        for first, last in stretches:
            was, becomes = (self._row(side, at, first, caller, server) & counts for side in (0, 1))
            if was != becomes:
                found.append((first, last, (becomes & ~was, was & ~becomes)))
        return found

    def _row(self, side: int, at: int, point: int, caller: Identity, server: Identity) -> int:
        table = self._whole.tables[side]
        row = table.into(self._kinds[side, server][at], table.ports_at(point))
        return self._turns[side, caller].classes(row)

    def _count(self, at: int, rows: set[int], pairs: dict[int, int]) -> None:
        classes = sources = 0
        for row in rows:
            classes |= row
        for source in places_of(classes):
            sources |= self._titles[source]
        for title in places_of(self._titles[at]) if sources else ():
            itself = 0 if self._outside >> at & 1 else 1 << title
            pairs[title] = pairs.get(title, 0) | sources & ~itself

    def _covered(
        self, opened: bool, ports: PortSet, rows: dict[int, int], processes: tuple[Identity, Identity]
    ) -> Iterator[Found]:
        speaking = [
            (side, rule, hint) for side, rule, hint in self._hints if touch(rule.ports, ports) and hint.destinations
        ]
        # First the rules that do this: those that came and allow, or went and denied, where something opens.
        speaking.sort(key=lambda one: moves(one[0], one[1]) is not opened)
        for block in cover(rows, self._free, self._shared, [hint for _, _, hint in speaking], self._whole.sames):
            hinted = None if block.hint is None else self._whole.differing[block.hint][1]
            sources, destinations = (
                self._words.of(self._unit_bits(bits), self._unit_bits(more), whos)
                for bits, more, whos in (
                    (block.sources, block.more_sources, hinted.source if hinted else ()),
                    (block.destinations, block.more_destinations, hinted.destination if hinted else ()),
                )
            )
            because = [
                self._whole.ruling(side, rule)
                for side, rule, hint in speaking
                if hint.sources & block.sources
                and hint.destinations & block.destinations
                and (moves(side, rule) is opened or self._whole.everywhere)
            ]
            yield Found(opened, sources, destinations, block.same, ports, self.version, processes, tuple(because))

    def _unit_bits(self, classes: int) -> int:
        found = 0
        for at in places_of(classes):
            found |= self._members[at]
        return found

    def names(self, phrase: Phrase) -> bool:
        """Say whether `phrase` names somebody here."""
        return bool(self._words.ends.met_by_any(phrase.whos)) or any(self._words.known(name) for name in phrase.names)


def _by_ports(
    changes: Sequence[list[tuple[int, int, tuple[int, int]]]], opened: bool
) -> Iterator[tuple[PortSet, dict[int, int]]]:
    """Give the matrices of what changes, each with all the ports on which it is this one."""
    cuts = sorted({edge for some in changes for first, last, _ in some for edge in (first, last + 1)})
    at_cut = {cut: number for number, cut in enumerate(cuts)}
    rows: list[dict[int, int]] = [{} for _ in cuts]
    for at, some in enumerate(changes):
        for first, last, pair in some:
            if row := pair[not opened]:
                for number in range(at_cut[first], at_cut[last + 1]):
                    rows[number][at] = row
    found: defaultdict[tuple[tuple[int, int], ...], list[Span]] = defaultdict(list)
    for number, held in enumerate(rows):
        if held:
            found[tuple(sorted(held.items()))].append(Span(cuts[number], cuts[number + 1] - 1))
    for held, spans in found.items():
        yield PortSet.of(spans), dict(held)


def _title(title: str) -> str:
    """Name a place without its IP version, of which a line speaks apart."""
    return title.removesuffix(" (IPv4)").removesuffix(" (IPv6)")
