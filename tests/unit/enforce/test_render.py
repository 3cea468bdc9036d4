"""The table does with packets what the ruleset says, in few look-ups, and can be read by a person."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.unit.compile.worlds import CONTROLLER, DB, DEV, ELSEWHERE, FLEET, OFFICE, PLC, WEB, WEB6, compiled

from cellwall.compile import Face, LifelineCard, Ruleset
from cellwall.enforce.nft.fake import FakeKernel, Fate, Packet
from cellwall.enforce.nft.orders import ALLOWED, DENIED, WOULD_DENY
from cellwall.enforce.nft.program import (
    Count,
    Drop,
    Goto,
    Kind,
    Lookup,
    MapShape,
    Program,
    Refuse,
    Sample,
    SetMark,
    Stray,
)
from cellwall.enforce.nft.render import MISS, RULE_MASK, Local, Unit, render
from cellwall.flows import Side
from cellwall.inventory import Fleet
from cellwall.policy import Mode
from cellwall.traffic import ICMP, ICMPV6, TCP, UDP, Address, point

LOCAL = Local(
    {"a": 1000, "root": 0}, {"u.service": Unit(77, 2, "system.slice/u.service"), "deep": Unit(78, 3, "x/y/deep")}
)
TEXT = """
rules:
  - {id: app-to-db, allow: [tcp/5432, udp/53, icmp/8], from: role=web, to: role=db, same: env}
  - {id: office, allow: tcp/5000-6000, from: "network:office", to: any, log: true}
  - {id: no-smb, deny: tcp/445, from: any, to: any}
  - {id: brick, wall: tcp/1-9999, from: any, to: role=db}
"""


def table(text: str = TEXT, mode: str = "enforce", name: str = "db", local: Local = LOCAL) -> Program:
    point = compiled(text, mode).points[name]
    return render(point.ruleset, point.members, local, "0123456789abcdef")


def send(
    program: Program, hook: str, source: Address, destination: Address, port: int, protocol: int = TCP, **more: object
) -> Fate:
    return FakeKernel(program).run(hook, Packet(source, destination, protocol, port, **more))  # type: ignore[arg-type]


def names(program: Program, fate: Fate) -> list[tuple[int, str]]:
    """Of each counted tuple the verdict, and the rule, by the numbers in the table's own words."""
    found: list[tuple[int, str]] = []
    for _, key in fate.counted:
        number = key[-1] & RULE_MASK
        chains = [
            name
            for name, chain in program.chains.items()
            for line in chain.lines
            for one in line.statements
            if number and isinstance(one, SetMark) and one.value & RULE_MASK == number
        ]
        found.append((key[-1] & ~RULE_MASK, chains[0] if chains else ""))
    return found


# --- verdicts ---


@pytest.mark.parametrize(
    ("mode", "peer", "port", "passed", "counted"),
    [
        ("enforce", WEB, 5432, True, (ALLOWED, "allow_app-to-db")),
        ("enforce", DEV, 5432, False, (DENIED, "wall_brick")),
        ("enforce", OFFICE, 5432, True, (ALLOWED, "allow_office")),
        ("enforce", ELSEWHERE, 445, False, (DENIED, "deny_no-smb")),
        ("enforce", ELSEWHERE, 10_000, False, (DENIED, "")),
        ("guard", ELSEWHERE, 445, False, (DENIED, "deny_no-smb")),
        ("guard", ELSEWHERE, 80, False, (DENIED, "wall_brick")),
        ("guard", ELSEWHERE, 10_000, True, (WOULD_DENY, "")),
        ("observe", WEB, 5432, True, (ALLOWED, "allow_app-to-db")),
        ("observe", ELSEWHERE, 445, True, (WOULD_DENY, "deny_no-smb")),
        ("observe", ELSEWHERE, 80, True, (WOULD_DENY, "wall_brick")),
        ("observe", ELSEWHERE, 10_000, True, (WOULD_DENY, "")),
    ],
)
def test_a_packet_gets_the_verdict_of_its_class_and_mode_and_is_counted_with_it(
    mode: str, peer: Address, port: int, passed: bool, counted: tuple[int, str]
) -> None:
    program = table(mode=mode)
    fate = send(program, "input", peer, DB, port)
    assert fate.passed is passed
    assert names(program, fate) == [counted]
    assert fate.mark == 0


def test_a_packet_of_a_known_connection_is_decided_and_not_counted_again() -> None:
    program = table()
    assert send(program, "input", WEB, DB, 5432, state="established") == Fate(True, (), 0)
    assert not send(program, "input", DEV, DB, 5432, state="established").passed


def test_a_reply_passes_without_a_rule() -> None:
    assert send(table(), "input", ELSEWHERE, DB, 40_000, state="established", reply=True) == Fate(True, (), 0)


def test_a_stray_packet_gets_the_verdict_and_no_answer() -> None:
    program = table()
    refuse = [line.statements for line in program.chains["refuse"].lines]
    assert refuse == [(Stray(), Drop()), (Refuse(tcp=True),), (Refuse(tcp=False),)]
    assert not send(program, "input", ELSEWHERE, DB, 10_000, state="invalid").passed
    assert send(program, "input", WEB, DB, 5432, state="invalid").passed


def test_loopback_passes_uncounted() -> None:
    program = table("rules: [{id: no, deny: any, from: any, to: any}]")
    for hook in ("input", "output"):
        assert send(program, hook, DB, DB, 80, loopback=True) == Fate(True, (), 0)
        assert not send(program, hook, DB, DB, 80).passed


@pytest.mark.parametrize(
    ("hook", "packet", "passed"),
    [
        ("input", Packet(ELSEWHERE, DB, ICMP, 3 << 8 | 4), True),
        ("input", Packet(ELSEWHERE, DB, ICMP, 8 << 8), False),
        ("output", Packet(DB, ELSEWHERE, ICMP, 11 << 8), True),
        ("input", Packet(WEB6, ip_address("ff02::1"), ICMPV6, 135 << 8), True),
        ("output", Packet(DB, ip_address("255.255.255.255"), UDP, 67), True),
        ("input", Packet(ELSEWHERE, DB, UDP, 67), False),
        ("input", Packet(ELSEWHERE, DB, UDP, 68), True),
        ("output", Packet(DB, CONTROLLER, TCP, 7443), True),
        ("output", Packet(DB, CONTROLLER, TCP, 7444), False),
        ("output", Packet(DB, ELSEWHERE, TCP, 7443), False),
    ],
)
def test_built_in_lifelines_pass_before_the_policy_and_are_not_counted(hook: str, packet: Packet, passed: bool) -> None:
    fate = FakeKernel(table("rules: [{id: no, deny: any, from: any, to: any}]")).run(hook, packet)
    assert fate.passed is passed
    assert (fate.counted == ()) is passed


def test_a_lifeline_may_be_a_whole_protocol() -> None:
    card = LifelineCard("tunnel", ((point(47, 0), point(47, 65535)), (point(TCP, 80), point(TCP, 90))), (Side.INGRESS,))
    program = render(Ruleset("a", 0, Mode.ENFORCE, lifelines=(card,)), {})
    assert send(program, "input", ELSEWHERE, DB, 0, 47).passed
    assert [send(program, "input", ELSEWHERE, DB, port).passed for port in (79, 80, 90, 91)] == [
        False,
        True,
        True,
        False,
    ]
    assert not send(program, "output", ELSEWHERE, DB, 0, 47).passed


def test_classes_with_the_same_entries_are_all_in_the_maps() -> None:
    program = table("rules: [{id: r, allow: tcp/1-9, from: [role=web, role=plc], to: role=db}]")
    assert [send(program, "input", peer, DB, 5).passed for peer in (WEB, PLC, ELSEWHERE)] == [True, True, False]
    assert len(program.elements["in0_range"]) == 2


def test_a_peer_of_no_class_meets_what_is_narrow_for_everyone_before_what_is_wide() -> None:
    # The wide map has elements of a class and of everyone, the narrow ones of everyone alone.
    text = """
    rules:
      - {id: wide, wall: any, from: any, to: any}
      - {id: narrow, allow: [sctp/80, tcp/5000-5010, icmp/8/0], from: any, to: any}
      - {id: class, allow: any, from: role=web, to: role=db}
    """
    program = table(text)
    for port, protocol in ((80, 132), (5005, TCP), (8 << 8, ICMP)):
        fate = send(program, "input", ELSEWHERE, DB, port, protocol)
        assert names(program, fate) == [(ALLOWED, "allow_narrow")]
    assert names(program, send(program, "input", ELSEWHERE, DB, 81, 132)) == [(DENIED, "wall_wide")]


def test_each_kind_of_traffic_is_counted_by_what_identifies_it() -> None:
    program = table("rules: [{id: r, allow: any, from: any, to: any}]")
    counted = [
        send(program, "input", ELSEWHERE, DB, 80).counted,
        send(program, "input", ELSEWHERE, DB, 13 << 8 | 5, ICMP).counted,
        send(program, "input", ELSEWHERE, DB, 0, 47).counted,
        send(program, "input", WEB6, ip_address("fd00::2"), 53, UDP).counted,
        send(program, "input", WEB6, ip_address("fd00::2"), 128 << 8, ICMPV6).counted,
        send(program, "input", WEB6, ip_address("fd00::2"), 0, 89).counted,
    ]
    assert [one[0][0] for one in counted] == [
        "seen4",
        "seen_icmp4",
        "seen_other4",
        "seen6",
        "seen_icmp6",
        "seen_other6",
    ]
    assert [one[0][1][2:-1] for one in counted] == [(6, 80), (13, 5), (47,), (17, 53), (128, 0), (89,)]


def test_only_enforcing_base_chains_drop_at_their_end() -> None:
    for mode in Mode:
        chains = table(mode=mode).chains
        assert [chains[hook].drops for hook in ("input", "output")] == [mode is Mode.ENFORCE] * 2


def test_a_rule_that_logs_samples_what_it_allows_and_denials_are_always_sampled() -> None:
    chains = table().chains
    sampled = {
        name: [one.prefix for line in chain.lines for one in line.statements if isinstance(one, Sample)]
        for name, chain in chains.items()
    }
    assert sampled["allow_office"] == ["cw:allowed:office"]
    assert sampled["allow_app-to-db"] == []
    assert sampled["deny_no-smb"] == ["cw:denied:no-smb"]
    assert sampled[MISS] == ["cw:denied:default"]


# --- whose address, whose process ---


def test_an_address_that_is_not_known_to_be_ours_meets_the_rules_for_anyone() -> None:
    program = table(
        "rules: [{id: all, allow: tcp/1, from: any, to: any}, {id: db, allow: tcp/2, from: any, to: role=db}]"
    )
    group = ip_address("224.0.0.1")
    assert [send(program, "input", WEB, group, port).passed for port in (1, 2)] == [True, False]
    assert [send(program, "input", WEB, DB, port).passed for port in (1, 2)] == [True, True]


IDENTITIES = """
rules:
  - {id: as-a, allow: tcp/1, from: {workloads: role=web, as: {user: a}}, to: any}
  - {id: as-u, allow: tcp/2, from: {workloads: role=web, as: {unit: u.service}}, to: any}
  - {id: as-deep, allow: tcp/3, from: {workloads: role=web, as: {unit: deep}}, to: any}
  - {id: as-a-in-u, allow: tcp/4, from: {workloads: role=web, as: {user: a, unit: u.service}}, to: any}
  - {id: as-ghost, allow: tcp/5, from: {workloads: role=web, as: {user: ghost, unit: gone.service}}, to: any}
  - {id: all, allow: tcp/9, from: any, to: any}
"""


@pytest.mark.parametrize(
    ("user", "groups", "passing"),
    [
        (33, {1: 5, 2: 6}, [9]),
        (1000, {1: 5, 2: 6}, [1, 9]),
        (33, {1: 5, 2: 77}, [2, 9]),
        (33, {1: 5, 2: 6, 3: 78}, [3, 9]),
        (1000, {1: 5, 2: 77}, [1, 2, 4, 9]),
        (None, {}, [9]),
    ],
)
def test_a_process_meets_the_rules_of_its_user_and_unit(
    user: int | None, groups: dict[int, int], passing: list[int]
) -> None:
    program = table(IDENTITIES, name="web")
    assert [
        port for port in range(1, 10) if send(program, "output", WEB, ELSEWHERE, port, user=user, cgroups=groups).passed
    ] == passing


def test_on_a_host_without_the_users_and_units_nobody_is_them() -> None:
    program = table(IDENTITIES, name="web", local=Local())
    assert [port for port in range(1, 10) if send(program, "output", WEB, ELSEWHERE, port, user=1000).passed] == [9]
    assert program.cgroups == {}
    assert not [name for name in program.shapes if "users" in name or "units" in name]


def test_what_the_kernel_still_sends_for_a_process_that_is_gone_passes() -> None:
    program = table(IDENTITIES, name="web")
    assert send(program, "output", WEB, ELSEWHERE, 7, user=None, state="established").passed
    assert not send(program, "output", WEB, ELSEWHERE, 7, user=33, state="established").passed


def test_units_of_one_depth_are_told_by_one_look_up() -> None:
    text = """
    rules:
      - {id: one, allow: tcp/1, from: {workloads: role=web, as: {unit: one}}, to: any}
      - {id: two, allow: tcp/2, from: {workloads: role=web, as: {unit: two}}, to: any}
    """
    local = Local(units={"one": Unit(1, 2, "a/one"), "two": Unit(2, 2, "a/two")})
    program = table(text, name="web", local=local)
    assert program.elements["out0_rest_units2"] == {((1, 1),): Goto("out0_as1"), ((2, 2),): Goto("out0_as2")}
    for cgroup in (1, 2):
        fates = [send(program, "output", WEB, ELSEWHERE, port, cgroups={2: cgroup}).passed for port in (1, 2)]
        assert fates == [cgroup == 1, cgroup == 2]


def test_control_groups_are_keys_by_number_with_their_path_beside() -> None:
    program = table(IDENTITIES, name="web")
    assert program.cgroups == {77: "system.slice/u.service", 78: "x/y/deep"}
    units = {name: shape.key for name, shape in program.shapes.items() if "_units" in name}
    assert set(units.values()) == {(Kind.CGROUP,)}


# --- guard mode and forgotten connections ---

GUARDED = """
rules:
  - {id: no, deny: tcp/5432, from: role=web, to: role=db}
  - {id: yes, allow: tcp/6000, from: role=web, to: role=db}
  - {id: own, allow: tcp/1, from: {workloads: role=db, as: {user: a}}, to: any}
"""


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize(("port", "opens", "passed"), [(5432, False, False), (5432, True, True), (6000, False, True)])
def test_in_guard_mode_a_server_cannot_reopen_what_was_cut(user: int, port: int, opens: bool, passed: bool) -> None:
    program = table(GUARDED, "guard")
    fate = send(program, "output", DB, WEB, 40_000, source_port=port, opens=opens, user=user)
    assert (fate.passed, fate.mark) == (passed, 0)


def test_in_guard_mode_a_client_meets_the_rules_of_its_own_direction() -> None:
    program = table(GUARDED, "guard", name="web")
    assert not send(program, "input", DB, WEB, 40_000, source_port=5432, opens=False).passed
    assert send(program, "input", DB, WEB, 40_000, source_port=5433, opens=False).passed


# --- what it looks like ---


def test_the_table_says_what_it_is_and_names_its_classes() -> None:
    first, *classes = [line.comment for line in table().chains["about"].lines]
    assert first == "cellwall revision 1 mode enforce digest 0123456789abcdef workload db"
    assert sorted(comment.partition(" is ")[2] for comment in classes) == [
        "env=prod,role=db",
        "env=prod,role=web",
        "network:office",
    ]


def test_the_chain_of_a_rule_says_where_it_was_written() -> None:
    comments = [line.comment for line in table().chains["deny_no-smb"].lines if line.comment]
    assert comments == ["deny no-smb p.yaml:5:5"]


def test_a_packet_takes_as_many_look_ups_with_a_thousand_peers_as_with_one() -> None:
    def lookups(many: int) -> int:
        workloads = [
            replace(FLEET.by_name["dev"], name=f"w{n}", addresses=(ip_address(f"10.1.{n // 256}.{n % 256}"),))
            for n in range(many)
        ]
        fleet = Fleet((*FLEET.workloads, *workloads))
        point = compiled("rules: [{id: r, allow: tcp/1-9, from: role=web, to: role=db}]", fleet=fleet).points["db"]
        program = render(point.ruleset, point.members)
        assert len(program.elements["peer4"]) == many + 2
        return sum(len(chain.lines) for chain in program.chains.values())

    assert lookups(1000) == lookups(1)


def test_a_family_without_networks_or_own_addresses_has_no_maps_for_them() -> None:
    shapes = table("rules: [{id: r, allow: any, from: 'network:office', to: any}]").shapes
    assert "net4" in shapes and "net6" not in shapes
    assert "own4_in" in shapes and "own6_in" not in shapes
    assert shapes["net4"] == MapShape("net4", (Kind.IPV4,), "mark", interval=True)


def test_a_ruleset_without_faces_holds_only_the_default() -> None:
    program = render(Ruleset("closed", 0, Mode.ENFORCE), {})
    assert not send(program, "input", ELSEWHERE, DB, 80).passed
    assert send(program, "output", DB, ELSEWHERE, 80, reply=True).passed
    assert program.elements == {"peer4": {}, "peer6": {}}


def test_a_ruleset_of_one_plain_face_needs_no_map_of_own_addresses() -> None:
    program = render(Ruleset("a", 0, Mode.GUARD, faces=(Face(()),)), {})
    assert send(program, "input", ELSEWHERE, DB, 80).passed
    assert not [name for name in program.shapes if name.startswith("own")]


def test_whatever_a_chain_goes_to_and_looks_into_is_there() -> None:
    for mode in Mode:
        for text, name in ((TEXT, "db"), (IDENTITIES, "web"), (GUARDED, "db"), ("rules: []", "dev")):
            program = table(text, mode, name)
            for chain in program.chains.values():
                for line in chain.lines:
                    for statement in line.statements:
                        match statement:
                            case Goto(target):
                                assert target in program.chains
                            case Lookup(fields, held):
                                assert len(program.shapes[held].key) == len(fields)
                            case Count(held, fields):
                                assert len(program.shapes[held].key) == len(fields)
                            case _:
                                pass
            for elements in program.elements.values():
                assert all(data.chain in program.chains for data in elements.values() if isinstance(data, Goto))
