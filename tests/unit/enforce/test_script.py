"""The text for nft(8): each statement by its words, each change in an order that the kernel takes."""

from __future__ import annotations

import pytest
from tests.unit.compile.worlds import WEB, compiled

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
from cellwall.enforce.nft.render import render
from cellwall.enforce.nft.script import ELEMENTS_A_LINE, MOST_COMMENT, scripts, transaction, write, write_line
from cellwall.enforce.nft.steps import Steps, plan_steps


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (Loopback(True), 'iif "lo"'),
        (Loopback(False), 'oif "lo"'),
        (Reply(), "ct direction reply ct state established,related"),
        (New(), "ct state invalid,new,untracked"),
        (Known(), "ct state established"),
        (Midstream(), "meta l4proto tcp ct state new tcp flags & (syn | ack) != syn"),
        (Version(6), "meta nfproto ipv6"),
        (In(Field.PROTOCOL, Kind.PROTOCOL, ((6, 6),)), "meta l4proto 6"),
        (In(Field.DESTINATION_PORT, Kind.PORT, ((80, 90), (443, 443))), "th dport { 80-90, 443 }"),
        (In(Field.IP_DESTINATION, Kind.IPV4, ((0x0A000001, 0x0A000001),)), "ip daddr 10.0.0.1"),
        (In(Field.IP6_DESTINATION, Kind.IPV6, ((1, 1),)), "ip6 daddr ::1"),
        (HasUser(), "meta skuid 0-4294967295"),
        (SetMark(255), "meta mark set 0x000000ff"),
        (MarkFrom(Field.IP_SOURCE, "peer4"), "meta mark set ip saddr map @peer4"),
        (Lookup((Field.MARK, Field.PROTOCOL), "m"), "meta mark . meta l4proto vmap @m"),
        (LookupUnit(2, "m"), "socket cgroupv2 level 2 vmap @m"),
        (Count("seen4", (Field.IP_SOURCE, Field.MARK)), "update @seen4 { ip saddr . meta mark counter }"),
        (Counter(), "counter"),
        (
            Sample("cw:denied:r"),
            'limit rate 5/second burst 20 packets log prefix "cw:denied:r" group 5 snaplen 128 queue-threshold 8',
        ),
        (Jump("see"), "jump see"),
        (Goto("refuse"), "goto refuse"),
        (Return(), "return"),
        (Accept(), "accept"),
        (Drop(), "drop"),
        (Stray(), "ct state invalid"),
        (Refuse(True), "meta l4proto tcp reject with tcp reset"),
        (Refuse(False), "reject with icmpx admin-prohibited"),
    ],
)
def test_a_statement_is_written_in_nfts_words(statement: Statement, text: str) -> None:
    assert write(statement) == text


def test_a_comment_cannot_end_its_line_or_its_quotes() -> None:
    assert write_line(Line((Accept(),), 'a "b"\nc')) == "accept comment \"a 'b' c\""
    assert write_line(Line((SetMark(1), Accept()))) == "meta mark set 0x00000001 accept"


def test_a_comment_is_cut_where_the_kernel_cuts_it_and_never_amid_a_character() -> None:
    text = write_line(Line((Accept(),), "ä" * 100))
    comment = text.removeprefix('accept comment "').removesuffix('"')
    assert comment == "ä" * (MOST_COMMENT // 2)


def program(elements: dict[Key, Data] | None = None) -> Program:
    """A small table: two base chains, a map of addresses, a rule."""
    look = Line((MarkFrom(Field.IP_SOURCE, "peer4"),))
    return Program(
        {
            "peer4": MapShape("peer4", (Kind.IPV4,), "mark"),
            "seen4": MapShape("seen4", (Kind.IPV4,), "", size=9, timeout_s=8),
        },
        {"peer4": elements or {}},
        {
            "rule": Chain((Line((Counter(), Accept()), "a rule"),)),
            "input": Chain((look, Line((Goto("rule"),))), "input", drops=True),
            "output": Chain((look, Line((Goto("rule"),))), "output"),
            "about": Chain(()),
        },
    )


def test_a_first_change_builds_and_switches() -> None:
    assert transaction(None, program({((2, 2),): 5, ((1, 1),): 7})) == (
        "# build\n"
        "add table inet cellwall\n"
        "add set inet cellwall seen4 { type ipv4_addr ; flags dynamic,timeout ; size 9 ; timeout 8s ; }\n"
        "add map inet cellwall peer4 { type ipv4_addr : mark ; }\n"
        "add chain inet cellwall rule\n"
        "add element inet cellwall peer4 { 0.0.0.1 : 0x00000007, 0.0.0.2 : 0x00000005 }\n"
        'add rule inet cellwall rule counter accept comment "a rule"\n'
        "# switch\n"
        "add table inet cellwall\n"
        "add chain inet cellwall input { type filter hook input priority filter ; policy drop ; }\n"
        "flush chain inet cellwall input\n"
        "add rule inet cellwall input meta mark set ip saddr map @peer4\n"
        "add rule inet cellwall input goto rule\n"
        "add chain inet cellwall output { type filter hook output priority filter ; policy accept ; }\n"
        "flush chain inet cellwall output\n"
        "add rule inet cellwall output meta mark set ip saddr map @peer4\n"
        "add rule inet cellwall output goto rule\n"
        "add chain inet cellwall about\n"
        "flush chain inet cellwall about\n"
    )


def test_nothing_to_change_is_no_text() -> None:
    held = plan_steps(None, program()).program
    assert scripts(plan_steps(held, program())) == ("", "", "")
    assert transaction(held, program()) == ""
    assert scripts(Steps(Program())) == ("", "", "")


def test_members_come_before_and_go_after() -> None:
    held = plan_steps(None, program({((1, 1),): 7})).program
    assert transaction(held, program({((2, 2),): 7})) == (
        "# build\n"
        "add table inet cellwall\n"
        "add element inet cellwall peer4 { 0.0.0.2 : 0x00000007 }\n"
        "# sweep\n"
        "delete element inet cellwall peer4 { 0.0.0.1 }\n"
    )


def test_what_is_swept_is_emptied_before_it_is_deleted_chains_before_maps() -> None:
    point = compiled("rules: [{id: r, allow: tcp/1, from: role=web, to: role=db}]").points["db"]
    held = plan_steps(None, render(point.ruleset, point.members)).program
    sweep = scripts(plan_steps(held, program()))[2].splitlines()
    verbs = [line.split(" inet ")[0] for line in sweep]
    order = ["delete element", "flush chain", "flush map", "flush set", "delete chain", "delete map", "delete set"]
    assert [order.index(verb) for verb in dict.fromkeys(verbs)] == sorted(order.index(verb) for verb in set(verbs))
    assert any("allow_r" in line for line in sweep)


def test_many_elements_are_written_in_pieces_in_order_of_key() -> None:
    many: dict[Key, Data] = {((n, n),): 1 for n in range(ELEMENTS_A_LINE * 2, -1, -1)}
    lines = [line for line in transaction(None, program(many)).splitlines() if line.startswith("add element")]
    assert [line.count(" : ") for line in lines] == [ELEMENTS_A_LINE, ELEMENTS_A_LINE, 1]
    assert "{ 0.0.0.0 : " in lines[0]


def test_a_control_group_is_written_by_its_path_and_ranges_with_both_ends() -> None:
    one = program()
    one.shapes["units"] = MapShape("units", (Kind.CGROUP,), "verdict")
    one.elements["units"] = {((77, 77),): Goto("end")}
    one.cgroups[77] = "system.slice/a.service"
    one.shapes["wide"] = MapShape("wide", (Kind.MARK, Kind.PORT), "verdict", interval=True)
    one.elements["wide"] = {((1, 1), (80, 90)): Goto("end")}
    one.chains["end"] = Chain(())
    looks = LookupUnit(2, "units"), Lookup((Field.MARK, Field.DESTINATION_PORT), "wide"), Accept()
    one.chains["rule"] = Chain(tuple(Line((look,)) for look in looks))
    text = transaction(None, one)
    assert 'add element inet cellwall units { "system.slice/a.service" : goto end }' in text
    assert "add element inet cellwall wide { 0x00000001 . 80-90 : goto end }" in text
    assert "add map inet cellwall wide { type mark . inet_service : verdict ; flags interval ; }" in text


def test_the_text_of_a_change_is_the_same_however_its_parts_were_gathered() -> None:
    text = "rules: [{id: r, allow: [tcp/1, udp/5-9, icmp/8], from: [role=web, 'network:office'], to: role=db}]"
    point = compiled(text).points["db"]
    backwards = dict(reversed(list(point.members.items())))
    assert WEB.packed in backwards
    assert transaction(None, render(point.ruleset, point.members)) == transaction(
        None, render(point.ruleset, backwards)
    )
