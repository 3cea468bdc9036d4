"""From what the table holds to what it is to hold, so that every packet meets one of the two and no mixture.

One transaction does not give that (measured on 6.18): when it commits, a packet may walk old rules and look into new
elements, and sets of ranges change a moment after the rules. So nothing that packets can reach is rewritten:

    build    new chains and maps beside the old ones, under free names; nobody is led there yet
    switch   the two base chains alone are rewritten, in one transaction: old rules lead to old maps, new to new
    sweep    what nobody is led to any more goes away

What is the same is shared, so that counters go on and a large map is not copied. Only who is where changes in place:
an address that is to come is there before the switch, one that is to go goes after it. Killed between two steps, the
table holds the old state or the new one, and some chains too many, which the next change sweeps.

What is only for a while (`interim.py`) stands above what lasts, both whole, and switching is what the kernel does by
itself at the end. Then members do not change in place either, as both may share a map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from cellwall.enforce.nft.interim import HOOKS, OF_ORDERS, Layer
from cellwall.enforce.nft.program import (
    Chain,
    Count,
    Data,
    Field,
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

FIXED = (*OF_ORDERS, *HOOKS, "about")
"""Chains that are rewritten where they are: those that the kernel calls, one that nobody goes to, and those that lead
to the orders of an emergency, which so much calls that it would all have to be built anew."""


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


def plan_steps(held: Program | Names | None, wanted: Program, layers: Sequence[Layer] = ()) -> Steps:
    """Plan the change from `held` (None: no table) to `wanted`, whose names are free to be given others.

    `layers` are above it, each for a while and above the one before: the table then holds all of them, whole."""
    return _Planner(held, wanted, layers).plan()


class _Planner:
    def __init__(self, held: Program | Names | None, wanted: Program, layers: Sequence[Layer]) -> None:
        self._held = held if isinstance(held, Program) else Program()
        self._lasting, self._layers = wanted, layers
        self._there = _names_of(held)
        self._taken = {*self._there.maps, *self._there.chains}
        self._out = Program()
        self._steps = Steps(self._out)
        self._wanted = wanted
        self._placed: dict[str, str] = {}
        # The places of what the table holds, and of what it is to hold as far as that is planned: all may be shared.
        self._before = (self._held.names, *self._held.spare)
        self._planned: list[dict[str, str]] = []
        # INVARIANT: while something is for a while, nothing of what lasts is changed: it may come back at any moment.
        self._in_place = not layers and not self._held.spare

    def plan(self) -> Steps:
        steps, out = self._steps, self._out
        self._enter(self._lasting)
        fixed = {name: self._rename(self._lasting.chains[name]) for name in FIXED if name in self._lasting.chains}
        for layer in self._layers:
            self._enter(layer.program)
            for name in OF_ORDERS:
                if name not in fixed and name in layer.program.chains:
                    fixed[name] = self._rename(layer.program.chains[name])
            for hook in HOOKS:
                lead = Line((Lookup((Field.FAMILY,), self._lead(layer, hook)),), f"for a while: {layer.name}")
                fixed[hook] = replace(fixed[hook], lines=(lead, *fixed[hook].lines))
            fixed[f"about_{layer.name}"] = self._rename(layer.program.chains["about"])
        for name in sorted(fixed, key=_turn):
            out.chains[name] = fixed[name]
            if self._held.chains.get(name) != fixed[name]:
                steps.rewritten.append(name)
        *spare, out.names = self._planned
        out.spare = tuple(spare)
        steps.old_chains = sorted(self._there.chains - set(out.chains))
        steps.old_maps = {name: kind for name, kind in sorted(self._there.maps.items()) if name not in out.shapes}
        return steps

    def _enter(self, program: Program) -> None:
        """Place the parts of this program from here on; what is the same as another's is shared with it."""
        self._wanted = program
        self._placed = {name: name for name in OF_ORDERS}
        self._planned.append(self._placed)
        self._out.cgroups.update(program.cgroups)
        for shape in program.shapes.values():
            if not shape.data:
                self._seen(shape)

    def _lead(self, layer: Layer, hook: str) -> str:
        """Place the map that leads packets of a hook away to `layer`, and the chain to which it leads."""
        name = f"{hook}_{layer.name}"
        self._placed[name] = self._put(name, self._rename(layer.entry(hook)))
        shape, elements = layer.lead(hook, self._placed[name])
        self._placed[shape.name] = self._hold(shape, elements)
        return self._placed[shape.name]

    def _seen(self, shape: MapShape) -> None:
        """A set that packets fill stays what it is and where it is."""
        self._placed[shape.name] = shape.name
        if shape.name not in self._out.shapes and shape.name not in self._there.maps:
            self._steps.new_maps.append(shape)
        self._out.shapes[shape.name] = shape

    def _free(self, name: str) -> str:
        chosen = next(one for one in _spellings(name) if one not in self._taken)
        self._taken.add(chosen)
        return chosen

    def _known(self, name: str) -> Iterator[str]:
        """Give the places where something of this name stands, or will."""
        return (names[name] for names in (*self._before, *self._planned) if name in names)

    def _map(self, name: str) -> str:
        if name not in self._placed:
            elements = self._wanted.elements[name]
            if self._wanted.shapes[name].data == "verdict":
                elements = {key: self._goto(data) for key, data in elements.items()}
            self._placed[name] = self._hold(self._wanted.shapes[name], elements)
        return self._placed[name]

    def _hold(self, shape: MapShape, elements: Mapping[Key, Data]) -> str:
        """Place a map: where it is, when it holds the same or only members come and go; else beside it."""
        name, place = shape.name, ""
        for known in self._known(name):
            there = self._out if known in self._out.shapes else self._held
            if known not in there.shapes or replace(there.shapes[known], name=name) != shape:
                continue
            before = there.elements[known]
            if before is elements or before == elements:
                place = known
            elif self._in_place and shape.data == "mark" and not shape.interval and not _moved(before, elements):
                place = known
                self._steps.come[place] = [(key, data) for key, data in elements.items() if key not in before]
                self._steps.gone[place] = [key for key in before if key not in elements]
            if place:
                break
        if not place:
            place = self._free(name)
            self._steps.new_maps.append(replace(shape, name=place))
            self._steps.come[place] = list(elements.items())
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
        self._placed[name] = self._put(name, self._rename(self._wanted.chains[name]))
        return self._placed[name]

    def _put(self, name: str, chain: Chain) -> str:
        """Place a chain: where it is, when it says the same; else beside it."""
        for place in self._known(name):
            if self._out.chains.get(place, self._held.chains.get(place)) == chain:
                break
        else:
            place = self._free(name)
            self._steps.new_chains.append(place)
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


def _turn(name: str) -> tuple[int, str]:
    """Sort the chains that are rewritten: what is called before who calls it."""
    return (FIXED.index(name) if name in FIXED else len(FIXED), name)


def _moved(before: Mapping[Key, Data], after: Mapping[Key, Data]) -> bool:
    """Say whether some key has other data than before."""
    return any(after.get(key, data) != data for key, data in before.items())


def _spellings(name: str) -> Iterable[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))
