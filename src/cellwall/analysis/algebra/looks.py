"""Looks and boxes as flows, selectors and sentences that people can read."""

from __future__ import annotations

from dataclasses import dataclass

from cellwall.analysis.algebra.atoms import (
    DIAGONAL,
    EXE,
    FAR_WORKLOAD,
    FROM,
    INGRESS_SCENES,
    IPV4_SCENES,
    PORT,
    SCENE,
    TIME,
    TO,
    USER,
    Key,
    Universe,
    usable,
)
from cellwall.analysis.algebra.boxes import Box, Look
from cellwall.analysis.algebra.cover import places
from cellwall.flows import Side
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels, Operator, Requirement, Selector
from cellwall.policy import Endpoint, Flow, Identity
from cellwall.traffic import Address, PortSet, Span, port_name

SOURCE, DESTINATION = "source", "destination"


@dataclass(frozen=True, slots=True)
class Example:
    """One flow, as the point at `side` sees it at `moment` (seconds since the epoch), in a fleet of its ends alone.

    The far end has no point, so that what `decide` says of the flow is what the near one says."""

    side: Side
    flow: Flow
    moment: float
    words: str

    @property
    def fleet(self) -> Fleet:
        """The workloads of the flow."""
        ends = (self.flow.source, self.flow.destination)
        return Fleet(
            tuple(Workload(end.workload, end.labels, (end.address,), end.agent) for end in ends if end.workload)
        )


def example(universe: Universe, look: Look) -> Example:
    """Give a flow that is seen as `look`."""
    scene = 1 << look.plain[SCENE]
    side = Side.INGRESS if scene & INGRESS_SCENES else Side.EGRESS
    version = 4 if scene & IPV4_SCENES else 6
    ground = universe.grounds[version]
    # The destination first: it has fewer to choose from, being no loopback.
    destination = next(usable(ground, look.plain[TO], version, destination=True))
    source = next(one for one in usable(ground, look.plain[FROM], version, destination=False) if one != destination)
    asked = [
        universe.named[at - USER][look.plain[at]] if look.plain[at] < len(universe.named[at - USER]) else None
        for at in range(USER, EXE + 1)
    ]
    near = Identity(*asked)
    far = bool(scene & FAR_WORKLOAD)
    ends = (
        _end(universe, look, 0, source, side is Side.EGRESS, far, near),
        _end(universe, look, 1, destination, side is Side.INGRESS, far, near),
    )
    first, _ = universe.span(look.plain[PORT])
    flow = Flow(*ends, first >> 16, first & 0xFFFF)
    moment = universe.moments[look.plain[TIME]]
    return Example(side, flow, moment, _sentence(universe, flow, side, look, near))


def _end(
    universe: Universe, look: Look, at: int, address: Address, near: bool, far: bool, identity: Identity
) -> Endpoint:
    if not near and not far:
        return Endpoint(address)
    named: dict[str, str] = {}
    for key, pair in zip(universe.keys, look.pairs, strict=True):
        if (value := _value(key, pair[at])) is not None:
            named[key.name] = value
    name = DESTINATION if at else SOURCE
    return Endpoint(address, name, Labels(named), near, identity if near else Identity())


def _value(key: Key, atom: int) -> str | None:
    if atom < len(key.values):
        return key.values[atom]
    if atom == len(key.values):
        return None
    number = atom - len(key.values)
    word = "other" if number == 1 else "another"
    while word in key.values:
        word += "-x"
    return word


def _sentence(universe: Universe, flow: Flow, side: Side, look: Look, identity: Identity) -> str:
    by_address = any(ground.size() > 1 for ground in universe.grounds.values())
    ends: list[str] = []
    for end in (flow.source, flow.destination):
        if end.workload is None:
            words = f"{end.address} (no workload)"
        else:
            words = f"a workload `{end.labels}`" if end.labels else "a workload without labels"
            words += f" ({end.address})" if by_address else ""
        ends.append(words + (f" as {identity}" if end.agent and identity else ""))
    service = port_name(flow.protocol << 16 | flow.port)
    later = " later" if look.plain[TIME] else ""
    return f"{service} from {ends[0]} to {ends[1]}, on {side}{later}"


def region(universe: Universe, box: Box) -> str:
    """Say what `box` holds: ports, from whom, to whom; processes, families and moments are left out."""
    keys = [universe.keys[at].name for at, pair in box.pairs.items() if pair[0] == DIAGONAL]
    shared = f", with the same {' and '.join(f'`{key}`' for key in keys)}" if keys else ""
    source, destination = (_end_words(universe, box, end) for end in (1, 2))
    return f"{ports_of(universe, box.plain[PORT])} from {source} to {destination}{shared}"


def _end_words(universe: Universe, box: Box, end: int) -> str:
    parts: list[str] = []
    asked: list[Requirement] = []
    for at, pair in box.pairs.items():
        key = universe.keys[at]
        # Who shares a value has one.
        if pair[0] != DIAGONAL or pair[end] != key.full & ~key.absent:
            asked += requirements(key, pair[end]) or ()
    if asked:
        parts.append(f"`{Selector(tuple(sorted(asked)))}`")
    mask = box.plain[FROM if end == 1 else TO]
    if mask != universe.full[FROM]:
        parts.append(_books(universe, mask, box.plain[SCENE]))
    return " in ".join(parts) or "any"


def _books(universe: Universe, mask: int, scenes: int) -> str:
    version = 4 if scenes & IPV4_SCENES else 6
    ground = universe.grounds[version]
    mask &= (1 << ground.size()) - 1
    inside = [(held.bit_count(), book.name) for book, held in ground.books.items() if held and not mask & ~held]
    if not inside:
        return "some addresses"
    size, name = min(inside)
    return f"`network:{name}`" if size == mask.bit_count() else f"some of `network:{name}`"


def ports_of(universe: Universe, mask: int) -> PortSet:
    """Give the ports of a mask of atoms."""
    spans: list[Span] = []
    atom = 0
    while mask >> atom:
        rest = mask >> atom
        atom += (rest & -rest).bit_length() - 1
        rest = mask >> atom
        count = (~rest & (rest + 1)).bit_length() - 1
        spans.append(Span(universe.span(atom)[0], universe.span(atom + count - 1)[1]))
        atom += count
    return PortSet.of(spans)


def requirements(key: Key, mask: int) -> tuple[Requirement, ...] | None:
    """Give the requirements that let `key` have just the values of `mask`; None where no selector can say it."""
    if mask == key.full:
        return ()
    if mask == key.absent:
        return (Requirement(key.name, Operator.ABSENT),)
    absent, others = bool(mask & key.absent), bool(mask & key.others)
    if not absent and not others:
        return (Requirement(key.name, Operator.IN, _named(key, mask)),)
    missing = _named(key, key.absent - 1 & ~mask)
    if absent:
        return (Requirement(key.name, Operator.NOT_IN, missing),) if missing and (others or key.closed) else None
    present = Requirement(key.name, Operator.EXISTS)
    return (present, Requirement(key.name, Operator.NOT_IN, missing)) if missing else (present,)


def _named(key: Key, mask: int) -> tuple[str, ...]:
    return tuple(sorted(key.values[at] for at in places(mask)))
