"""From what the table holds to what it is to hold, so that every packet meets one of the two and no mixture.

One transaction does not give that (measured on 6.18): when it commits, a packet may walk old rules and look into new
elements, and sets of ranges change a moment after the rules. So nothing that packets can reach is rewritten:

    build    new chains and maps beside the old ones, under free names; nobody is led there yet
    switch   the two base chains alone are rewritten, in one transaction: old rules lead to old maps, new to new
    sweep    what nobody is led to any more goes away

What is the same is shared, so that counters go on and a large map is not copied. Only who is where changes in place:
an address that is to come is there before the switch, one that is to go goes after it. Killed between two steps, the
table holds the old state or the new one, and some chains too many, which the next change sweeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from cellwall.enforce.nft.orders import ORDERS, SEALS
from cellwall.enforce.nft.program import (
    Chain,
    Count,
    Data,
    Goto,
    Jump,
    Key,
    Line,
    Lookup,
    LookupUnit,
    MapShape,
    MarkFrom,
    Program,
    Statement,
)

FIXED = (SEALS, ORDERS, "input", "output", "about")
"""Chains that are rewritten where they are: those that the kernel calls, one that nobody goes to, and two that lead to
the orders of an emergency, of which so much is called that it would all have to be built anew."""


@dataclass(frozen=True)
class Names:
    """What the table holds, where no more than the names are known, after a restart.

    `maps` says of each whether it is a map, or a set that packets fill.
    """

    maps: Mapping[str, bool] = field(default_factory=dict[str, bool])
    chains: frozenset[str] = frozenset()


@dataclass
class Steps:
    """A change in three steps, and the program that the table then holds, under the names that it has there."""

    program: Program
    new_maps: list[MapShape] = field(default_factory=list[MapShape])
    new_chains: list[str] = field(default_factory=list[str])
    come: dict[str, list[tuple[Key, Data]]] = field(default_factory=dict[str, list[tuple[Key, Data]]])
    rewritten: list[str] = field(default_factory=list[str])
    gone: dict[str, list[Key]] = field(default_factory=dict[str, list[Key]])
    old_chains: list[str] = field(default_factory=list[str])
    old_maps: dict[str, bool] = field(default_factory=dict[str, bool])

    @property
    def switches(self) -> bool:
        """Whether packets are led elsewhere, and not only members change."""
        return bool(self.rewritten)


def plan_steps(held: Program | Names | None, wanted: Program) -> Steps:
    """Plan the change from `held` (None: no table) to `wanted`, whose names are free to be given others."""
    return _Planner(held, wanted).plan()


class _Planner:
    def __init__(self, held: Program | Names | None, wanted: Program) -> None:
        self._held = held if isinstance(held, Program) else Program()
        self._wanted = wanted
        self._there = _names_of(held)
        self._taken = {*self._there.maps, *self._there.chains}
        self._out = Program(cgroups=dict(wanted.cgroups))
        self._steps = Steps(self._out)
        self._placed: dict[str, str] = {}

    def plan(self) -> Steps:
        steps = self._steps
        for shape in self._wanted.shapes.values():
            if not shape.data:
                self._seen(shape)
        self._placed.update({SEALS: SEALS, ORDERS: ORDERS})
        for name in (one for one in FIXED if one in self._wanted.chains):
            chain = self._rename(self._wanted.chains[name])
            self._out.chains[name] = chain
            if self._held.chains.get(name) != chain:
                steps.rewritten.append(name)
        self._out.names.update(self._placed)
        steps.old_chains = sorted(self._there.chains - set(self._out.chains))
        steps.old_maps = {name: kind for name, kind in sorted(self._there.maps.items()) if name not in self._out.shapes}
        return steps

    def _seen(self, shape: MapShape) -> None:
        """A set that packets fill stays what it is and where it is."""
        self._placed[shape.name] = shape.name
        self._out.shapes[shape.name] = shape
        if shape.name not in self._there.maps:
            self._steps.new_maps.append(shape)

    def _free(self, name: str) -> str:
        chosen = next(one for one in _spellings(name) if one not in self._taken)
        self._taken.add(chosen)
        return chosen

    def _map(self, name: str) -> str:
        """Place a map: where it is, when it holds the same or only members come and go; else beside it."""
        if name in self._placed:
            return self._placed[name]
        shape = self._wanted.shapes[name]
        elements = self._wanted.elements[name]
        if shape.data == "verdict":
            elements = {key: self._goto(data) for key, data in elements.items()}
        old = self._held.names.get(name, "")
        before = self._held.elements.get(old)
        place = ""
        if before is not None and replace(self._held.shapes[old], name=name) == shape:
            if before is elements or before == elements:
                place = old
            elif shape.data == "mark" and not shape.interval and not _moved(before, elements):
                place = old
                self._steps.come[place] = [(key, data) for key, data in elements.items() if key not in before]
                self._steps.gone[place] = [key for key in before if key not in elements]
        if not place:
            place = self._free(name)
            shape = replace(shape, name=place)
            self._steps.new_maps.append(shape)
            self._steps.come[place] = list(elements.items())
        self._placed[name] = place
        self._out.shapes[place] = replace(shape, name=place)
        self._out.elements[place] = elements
        return place

    def _goto(self, data: Data) -> Data:
        match data:
            case Goto(chain):
                return Goto(self._chain(chain))
            case Jump(chain):
                return Jump(self._chain(chain))
            case _:
                return data

    def _chain(self, name: str) -> str:
        if name in self._placed:
            return self._placed[name]
        chain = self._rename(self._wanted.chains[name])
        old = self._held.names.get(name, "")
        place = old if old and self._held.chains.get(old) == chain else ""
        if not place:
            place = self._free(name)
            self._steps.new_chains.append(place)
        self._placed[name] = place
        self._out.chains[place] = chain
        return place

    def _rename(self, chain: Chain) -> Chain:
        lines = (Line(tuple(map(self._statement, line.statements)), line.comment) for line in chain.lines)
        return Chain(tuple(lines), chain.hook, chain.drops)

    def _statement(self, statement: Statement) -> Statement:
        match statement:
            case Goto(chain):
                return Goto(self._chain(chain))
            case Jump(chain):
                return Jump(self._chain(chain))
            case Lookup(fields, held):
                return Lookup(fields, self._map(held))
            case LookupUnit(level, held):
                return LookupUnit(level, self._map(held))
            case MarkFrom(read, held):
                return MarkFrom(read, self._map(held))
            case Count(held, fields):
                return Count(self._placed[held], fields)
            case _:
                return statement


def _names_of(held: Program | Names | None) -> Names:
    if isinstance(held, Program):
        return Names({name: bool(shape.data) for name, shape in held.shapes.items()}, frozenset(held.chains))
    return held or Names()


def _moved(before: Mapping[Key, Data], after: Mapping[Key, Data]) -> bool:
    """Say whether some key has other data than before."""
    return any(after.get(key, data) != data for key, data in before.items())


def _spellings(name: str) -> Iterable[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))
