"""The table in memory runs statements as the kernel would."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cellwall.enforce.nft.fake import FakeKernel, Fate, Packet
from cellwall.enforce.nft.program import (
    Accept,
    Chain,
    Count,
    Counter,
    Data,
    Drop,
    Field,
    Goto,
    HasUser,
    In,
    Jump,
    Key,
    Kind,
    Known,
    Line,
    Lookup,
    LookupUnit,
    Loopback,
    MapShape,
    MarkFrom,
    Midstream,
    New,
    Program,
    Refuse,
    Reply,
    Return,
    Sample,
    SetMark,
    Statement,
    Stray,
    Version,
)

Chains = dict[str, tuple[tuple[Statement, ...], ...]]
ONE, TWO, SIX = ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("fd00::1")
PACKET = Packet(ONE, TWO, 6, 80)


def run(
    *lines: tuple[Statement, ...],
    packet: Packet = PACKET,
    chains: Chains | None = None,
    shape: MapShape | None = None,
    elements: dict[Key, Data] | None = None,
    drops: bool = True,
) -> Fate:
    """The fate of a packet in a base chain of these lines."""
    program = Program()
    program.chains = {name: Chain(tuple(map(Line, held))) for name, held in (chains or {}).items()}
    program.chains["input"] = Chain(tuple(map(Line, lines)), "input", drops)
    if shape is not None:
        program.shapes[shape.name] = shape
        program.elements[shape.name] = elements or {}
    return FakeKernel(program).run("input", packet)


def test_the_end_of_a_base_chain_is_its_policy() -> None:
    assert run() == Fate(False, (), 0)
    assert run(drops=False) == Fate(True, (), 0)


@pytest.mark.parametrize(
    ("statement", "packet", "matches"),
    [
        (Loopback(True), Packet(ONE, TWO, 6, 80, loopback=True), True),
        (Loopback(True), PACKET, False),
        (Reply(), Packet(ONE, TWO, 6, 80, reply=True), True),
        (Reply(), PACKET, False),
        (New(), PACKET, True),
        (New(), Packet(ONE, TWO, 6, 80, state="invalid"), True),
        (New(), Packet(ONE, TWO, 6, 80, state="established"), False),
        (Stray(), Packet(ONE, TWO, 6, 80, state="invalid"), True),
        (Stray(), PACKET, False),
        (Known(), Packet(ONE, TWO, 6, 80, state="established"), True),
        (Known(), PACKET, False),
        (Midstream(), Packet(ONE, TWO, 6, 80, opens=False), True),
        (Midstream(), PACKET, False),
        (Midstream(), Packet(ONE, TWO, 17, 80, opens=False), False),
        (Version(4), PACKET, True),
        (Version(6), PACKET, False),
        (Version(6), Packet(SIX, SIX, 6, 80), True),
        (HasUser(), PACKET, True),
        (HasUser(), Packet(ONE, TWO, 6, 80, user=None), False),
        (In(Field.PROTOCOL, Kind.PROTOCOL, ((1, 5), (6, 6))), PACKET, True),
        (In(Field.DESTINATION_PORT, Kind.PORT, ((81, 90),)), PACKET, False),
        (In(Field.SOURCE_PORT, Kind.PORT, ((40000, 40000),)), PACKET, True),
        (In(Field.IP_SOURCE, Kind.IPV4, ((int(ONE), int(ONE)),)), PACKET, True),
        (In(Field.IP6_SOURCE, Kind.IPV6, ((int(SIX), int(SIX)),)), PACKET, False),
        (In(Field.ICMP_TYPE, Kind.ICMP_TYPE, ((8, 8),)), Packet(ONE, TWO, 1, 8 << 8 | 3), True),
        (In(Field.ICMP_CODE, Kind.ICMP_CODE, ((3, 3),)), Packet(ONE, TWO, 1, 8 << 8 | 3), True),
        (In(Field.ICMPV6_TYPE, Kind.ICMPV6_TYPE, ((8, 8),)), Packet(ONE, TWO, 58, 8 << 8), False),
        (In(Field.ICMP_TYPE, Kind.ICMP_TYPE, ((8, 8),)), PACKET, False),
        (In(Field.DESTINATION_PORT, Kind.PORT, ((0, 65535),)), Packet(ONE, TWO, 47, 0), False),
        (In(Field.DESTINATION_PORT, Kind.PORT, ((0xABCD, 0xABCD),)), Packet(ONE, TWO, 1, 8 << 8), True),
        (Counter(), PACKET, True),
        (Sample("x"), PACKET, True),
        (SetMark(0), PACKET, True),
    ],
)
def test_a_statement_matches_what_it_says(statement: Statement, packet: Packet, matches: bool) -> None:
    assert run((statement, Accept()), packet=packet).passed is matches


def test_a_line_stops_at_the_first_statement_that_does_not_match() -> None:
    assert run((SetMark(1), Known(), SetMark(2))).mark == 1


def test_a_dropped_packet_goes_no_further() -> None:
    assert not run((Drop(),), (Accept(),)).passed


def test_a_refusal_of_tcp_leaves_other_packets_to_the_next_line() -> None:
    udp = Packet(ONE, TWO, 17, 80)
    assert not run((Refuse(tcp=True),), (Accept(),)).passed
    assert run((Refuse(tcp=True),), (Accept(),), packet=udp).passed
    assert not run((Refuse(tcp=False),), (Accept(),), packet=udp).passed


# --- chains ---


def test_a_jump_comes_back_and_a_goto_does_not() -> None:
    chains: Chains = {"there": ((SetMark(5),),)}
    assert run((Jump("there"), Accept()), chains=chains) == Fate(True, (), 5)
    assert run((Goto("there"),), (Accept(),), chains=chains) == Fate(False, (), 5)


def test_a_return_goes_back_to_the_jump_and_in_a_base_chain_to_its_policy() -> None:
    chains: Chains = {"there": ((Return(),), (SetMark(5),))}
    assert run((Jump("there"), Accept()), chains=chains) == Fate(True, (), 0)
    assert run((Return(),), (Accept(),)) == Fate(False, (), 0)


def test_a_goto_within_a_jump_comes_back_to_the_jump() -> None:
    chains: Chains = {
        "there": ((Goto("on"),), (SetMark(9),)),
        "on": ((SetMark(5),),),
    }
    assert run((Jump("there"), Accept()), chains=chains) == Fate(True, (), 5)


# --- maps ---

PORTS = MapShape("ports", (Kind.MARK, Kind.PORT), "verdict")
WIDE = MapShape("ports", (Kind.MARK, Kind.PORT), "verdict", interval=True)
GO: Chains = {"yes": ((Accept(),),)}
LOOK = (Lookup((Field.MARK, Field.DESTINATION_PORT), "ports"),)


def test_a_look_up_goes_where_the_map_says_and_on_where_it_says_nothing() -> None:
    assert run(LOOK, chains=GO, shape=PORTS, elements={((0, 0), (80, 80)): Goto("yes")}).passed
    assert not run(LOOK, chains=GO, shape=PORTS, elements={((0, 0), (81, 81)): Goto("yes")}).passed
    assert not run((SetMark(1),), LOOK, chains=GO, shape=PORTS, elements={((0, 0), (80, 80)): Goto("yes")}).passed


def test_a_field_that_the_packet_does_not_have_is_in_no_map() -> None:
    gre = Packet(ONE, TWO, 47, 0)
    assert not run(LOOK, chains=GO, shape=WIDE, elements={((0, 0), (0, 65535)): Goto("yes")}, packet=gre).passed


def test_ranges_are_found_only_in_a_map_of_ranges() -> None:
    elements: dict[Key, Data] = {((0, 0), (1, 79)): Goto("no"), ((0, 0), (80, 90)): Goto("yes")}
    assert run(LOOK, chains=GO, shape=WIDE, elements=elements).passed
    assert not run(LOOK, chains=GO, shape=PORTS, elements=elements).passed
    assert not run(LOOK, chains=GO, shape=WIDE, elements={((0, 0), (81, 90)): Goto("yes")}).passed


def test_a_mark_is_set_from_a_map_where_it_says_something() -> None:
    shape = MapShape("peers", (Kind.IPV4,), "mark")
    line = (MarkFrom(Field.IP_SOURCE, "peers"), Accept())
    assert run(line, shape=shape, elements={((int(ONE), int(ONE)),): 7}) == Fate(True, (), 7)
    assert run(line, shape=shape, elements={((int(TWO), int(TWO)),): 7}) == Fate(False, (), 0)


def test_the_control_group_is_looked_up_at_its_depth() -> None:
    shape = MapShape("units", (Kind.CGROUP,), "verdict")
    packet = Packet(ONE, TWO, 6, 80, cgroups={2: 77})
    for level, passed in ((2, True), (1, False), (3, False)):
        line = (LookupUnit(level, "units"),)
        assert run(line, chains=GO, shape=shape, elements={((77, 77),): Goto("yes")}, packet=packet).passed is passed


def test_a_tuple_is_counted_with_its_fields_and_the_mark() -> None:
    fate = run((SetMark(3), Count("seen", (Field.IP_SOURCE, Field.DESTINATION_PORT, Field.MARK)), Accept()))
    assert fate == Fate(True, (("seen", (int(ONE), 80, 3)),), 3)
    assert run((Count("seen", (Field.IP6_SOURCE,)), Accept())) == Fate(False, (), 0)


def test_counters_count_by_their_comment() -> None:
    program = Program(chains={"input": Chain((Line((Counter(),), "here"),), "input")})
    kernel = FakeKernel(program)
    for _ in range(3):
        kernel.run("input", PACKET)
    assert kernel.hits == {"here": 3}
