"""Orders of an emergency in nftables' words.

    input ─ loopback, replies ─ answers, lifelines ─ seals ─ other lifelines ─ … ─ allow_x ─ orders ─ its verdict
    seals, orders:  family → who_<id>            from a map whose elements the kernel itself takes out at the end
    who_<id>:       exempt pair? ends? ports? ─▶ shut_<id> or open_<id>
    answers:        mark of the connection → refuse    from such a map too

`orders` is called by the chain of every rule but a lifeline's, and by the default's. Both chains stay where they are:
an order that comes or goes rewrites them alone, beside maps and chains of its own. What answers in a connection that
was open when an order came is known by the connection's mark, which the agent sets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from cellwall.compile import AddressSpan, OrderCard, Way
from cellwall.enforce.nft.program import (
    FAMILIES,
    FAMILY_NUMBERS,
    ICMP_FIELDS,
    ICMP_KINDS,
    Accept,
    Chain,
    Counter,
    Data,
    Field,
    Goto,
    In,
    Jump,
    Key,
    Kind,
    Known,
    Line,
    Lookup,
    MapShape,
    Midstream,
    New,
    Program,
    Range,
    Reset,
    Return,
    Sample,
    SetMark,
    Statement,
    Version,
)
from cellwall.policy import OrderKind
from cellwall.traffic import ICMPS, TCP, Span, icmp_blocks

ALLOWED, DENIED, WOULD_DENY = 1 << 30, 2 << 30, 3 << 30
"""The upper two bits of the mark with which a tuple is counted; below them, 28 bits of the number of rule or order."""
SEALS, ORDERS, ANSWERS, EXEMPT = "seals", "orders", "answers", "exempt"
RESET = "tells the other end that it is over"
_ONE_WAY = (OrderKind.CONTAIN, OrderKind.LIMIT)
_CUT = 0xC << 28
_OWN_MAPS = ("order_", "answer_", "exempt4_", "exempt6_")
_OWN_CHAINS = ("who_", "shut_", "open_", EXEMPT)


def put_orders(program: Program, cards: Iterable[OrderCard]) -> None:
    """Write `cards` into `program`, and the chains that lead to them; none of them may be there yet."""
    lines: dict[str, list[Line]] = {SEALS: [], ORDERS: [], ANSWERS: []}
    # What opens stands before what shuts: that is all the order there is.
    for card in sorted(cards, key=lambda one: (one.shuts, one.id)):
        families = {version for way in card.ways for version in _versions(way)}
        if not families:
            continue
        _put(program, card, families)
        where = SEALS if card.over_lifelines else ORDERS
        lines[where].append(Line((Lookup((Field.FAMILY,), f"order_{card.id}"),)))
        if card.shuts:
            cut = f"answer_{card.id}"
            program.shapes[cut] = MapShape(cut, (Kind.MARK,), "verdict", until=card.expires)
            program.elements[cut] = {_exactly(cut_mark(card.number)): Goto("refuse")}
            lines[ANSWERS].append(Line((Known(), Lookup((Field.CONNECTION_MARK,), cut))))
    if lines[ANSWERS]:
        lines[ANSWERS].insert(0, Line((Reset(), Return()), RESET))
    for name, held in lines.items():
        program.chains[name] = Chain(tuple(held))


def with_orders(program: Program, cards: Iterable[OrderCard]) -> Program:
    """Give `program`, as `render` makes it, with these orders in place of those that it has; the rest is shared."""
    after = replace(
        program,
        shapes={name: one for name, one in program.shapes.items() if not name.startswith(_OWN_MAPS)},
        elements={name: one for name, one in program.elements.items() if not name.startswith(_OWN_MAPS)},
        chains={name: one for name, one in program.chains.items() if not name.startswith(_OWN_CHAINS)},
    )
    put_orders(after, cards)
    return after


def cut_mark(number: int) -> int:
    """Give the mark of connections that the order of this number shuts: what answers in them is refused too."""
    return _CUT | number


def refusing(number: int, name: str) -> Iterator[Line]:
    """Give the lines that count a packet as denied by a rule or an order, perhaps sample it, and refuse it."""
    yield Line((SetMark(DENIED | number), Jump("see")))
    yield Line((SetMark(0),))
    yield Line((Sample(f"cw:denied:{name}"),))
    yield Line((Goto("refuse"),))


def _put(program: Program, card: OrderCard, families: set[int]) -> None:
    who, end = f"who_{card.id}", f"{'shut' if card.shuts else 'open'}_{card.id}"
    name = f"order_{card.id}"
    program.shapes[name] = MapShape(name, (Kind.FAMILY,), "verdict", until=card.expires)
    program.elements[name] = {_exactly(FAMILY_NUMBERS[version]): Jump(who) for version in sorted(families)}
    lines: list[Line] = []
    back: list[Line] = []
    for version in sorted(families):
        pairs = [pair for pair in card.exempt if len(pair[0]) == (4 if version == 4 else 16)]
        if pairs:
            source, destination, kind, _ = FAMILIES[version]
            held = f"exempt{version}_{card.id}"
            program.shapes[held] = MapShape(held, (kind, kind), "verdict")
            elements: dict[Key, Data] = {_pair(one, other): Goto(EXEMPT) for one, other in pairs}
            program.elements[held] = elements
            program.chains[EXEMPT] = Chain((Line((Return(),), "left to the policy"),))
            lines.append(Line((Lookup((source, destination), held),)))
            back.append(Line((Midstream(), Lookup((destination, source), held))))
    ports = list(_ports(card.spans))
    for way in card.ways:
        lines += [Line((*ends, *match, Goto(end))) for ends in _ends(way) for match in ports]
        answers = [] if card.kind not in _ONE_WAY else _tcp_answers(card.spans)
        back += [Line((Midstream(), *ends, *match, Goto(end))) for ends in _ends(_turned(way)) for match in answers]
    program.chains[who] = Chain((*lines, *(back if card.kind in _ONE_WAY else ())))
    count = Line((Counter(),), f"{card.kind} {card.id}")
    if card.shuts:
        told = Line((Reset(), SetMark(0), Accept()), RESET)
        program.chains[end] = Chain((told, count, *refusing(card.number, card.id)))
    else:
        seen = Line((New(), SetMark(ALLOWED | card.number), Jump("see")))
        program.chains[end] = Chain((count, seen, Line((SetMark(0), Accept()))))


def _turned(way: Way) -> Way:
    return Way(way.destinations, way.sources)


def _tcp_answers(spans: Iterable[tuple[int, int]]) -> list[tuple[Statement, ...]]:
    """Give the matches of what may answer TCP to these points.

    A connection that conntrack forgot would begin anew with the first packet from its server, roles swapped."""
    ports = [
        (low, high)
        for first, last in spans
        for protocol, low, high in Span(first, last).by_protocol()
        if protocol == TCP
    ]
    if not ports:
        return []
    return [() if ports == [(0, 0xFFFF)] else (In(Field.SOURCE_PORT, Kind.PORT, tuple(ports)),)]


def _versions(way: Way) -> Iterator[int]:
    """Give the versions of IP that flows of a way can have."""
    for version in FAMILIES:
        if all(not spans or any(one.version == version for one in spans) for spans in (way.sources, way.destinations)):
            yield version


def _ends(way: Way) -> Iterator[tuple[Statement, ...]]:
    if not way.sources and not way.destinations:
        yield ()
        return
    for version in _versions(way):
        source, destination, kind, _ = FAMILIES[version]
        ends = ((source, way.sources), (destination, way.destinations))
        found = [In(field, kind, _ranges(spans, version)) for field, spans in ends if spans]
        yield (Version(version), *found)


def _ranges(spans: Iterable[AddressSpan], version: int) -> tuple[Range, ...]:
    return tuple((one.first, one.last) for one in spans if one.version == version)


def _ports(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[Statement, ...]]:
    """Give the matches of points, one protocol's ports in one; of all points an empty match."""
    whole: list[Range] = []
    some: defaultdict[int, list[Range]] = defaultdict(list)
    for first, last in spans:
        for protocol, low, high in Span(first, last).by_protocol():
            if (low, high) == (0, 0xFFFF):
                if whole and whole[-1][1] == protocol - 1:
                    whole[-1] = (whole[-1][0], protocol)
                else:
                    whole.append((protocol, protocol))
            else:
                some[protocol].append((low, high))
    if whole == [(0, 0xFF)]:
        yield ()
        return
    if whole:
        yield (In(Field.PROTOCOL, Kind.PROTOCOL, tuple(whole)),)
    for protocol, ranges in some.items():
        if protocol not in ICMPS:
            only = In(Field.PROTOCOL, Kind.PROTOCOL, ((protocol, protocol),))
            yield only, In(Field.DESTINATION_PORT, Kind.PORT, tuple(ranges))
            continue
        (types, codes), (type_kind, code_kind) = ICMP_FIELDS[protocol], ICMP_KINDS[protocol]
        for kinds, numbers in (block for low, high in ranges for block in icmp_blocks(low, high)):
            of_type = In(types, type_kind, (kinds,))
            yield (of_type,) if numbers == (0, 0xFF) else (of_type, In(codes, code_kind, (numbers,)))


def _exactly(value: int) -> Key:
    return ((value, value),)


def _pair(one: bytes, other: bytes) -> Key:
    return (*_exactly(int.from_bytes(one, "big")), *_exactly(int.from_bytes(other, "big")))
