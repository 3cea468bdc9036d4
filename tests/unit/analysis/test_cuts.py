from tests.unit.analysis.village import asked, read, ways

from cellwall.analysis.table.asked import SERVICES
from cellwall.analysis.table.reach import Assume
from cellwall.analysis.walks.cuts import Separation, cut_most, separate
from cellwall.policy import Policy
from cellwall.traffic import parse_ports


def apart(start: str, goal: str, policy: Policy | None = None, hops: int | None = None) -> Separation:
    ends = asked(start, policy), asked(goal, policy)
    return separate(ways(*ends, policy=policy), *ends, SERVICES, hops)


def test_the_rule_is_chosen_without_which_the_fewest_are_taken() -> None:
    start = asked("shop-web")
    first, *more = cut_most(ways(start), start, 3, SERVICES)
    assert (first.rule.id, first.left, first.gone) == ("web-to-api", 0, ("shop-api", "shop-db"))
    assert not more, "there is nothing left to cut"


def test_what_is_allowed_twice_is_not_cut_by_one_rule() -> None:
    policy = read("rules: [{id: a, allow: tcp/1, from: any, to: any}, {id: b, allow: any, from: any, to: any}]")
    start = asked("shop-web", policy)
    assert cut_most(ways(start, policy=policy), start, 2, SERVICES) == ()
    assert [rule.id for rule in apart("shop-web", "shop-db", policy).rules] == ["a", "b"]


def test_as_few_rules_as_possible_keep_two_sides_apart() -> None:
    told = apart("shop-web", "shop-db")
    assert told.fewest and told.possible and len(told.rules) == 1
    told = apart("any", "shop-db")
    assert {rule.id for rule in told.rules} >= {"api-to-db", "metrics", "ssh"} or not told.possible


def test_what_is_apart_needs_no_cut_and_what_needs_no_rule_cannot_be_cut() -> None:
    assert apart("shop-db", "shop-web").rules == ()
    assert not apart("network:office", "printer").possible
    assert apart("network:office", "shop-db", hops=1).rules == ()


def test_a_rule_of_one_side_is_cut_at_that_side() -> None:
    policy = read(
        "rules:\n"
        "  - {id: out, allow: tcp/1, from: role=web, to: role=db, side: egress}\n"
        "  - {id: in-1, allow: tcp/1, from: role=web, to: role=db, side: ingress}\n"
        "  - {id: in-2, allow: tcp/0-9, from: any, to: role=db, side: ingress}\n"
        "modes: [{where: '', mode: enforce}]\n"
    )
    assert [rule.id for rule in apart("role=web", "role=db", policy).rules] == ["out"]
    start = asked("role=web", policy)
    assert [cut.rule.id for cut in cut_most(ways(start, policy=policy), start, 1, SERVICES)] == ["out"]


def test_where_a_point_only_guards_a_hop_may_need_no_rule() -> None:
    text = (
        "rules: [{id: wall, wall: tcp/445, from: any, to: any}, {id: smb, allow: tcp/445, from: role=web, to: role=db},"
    )
    policy = read(f"{text} {{id: no, deny: tcp/1-9, from: any, to: any}}]\nmodes: [{{where: '', mode: guard}}]\n")
    ends = asked("role=web", policy), asked("role=db", policy)
    guarded = ways(*ends, policy=policy, assume=Assume.MODES)
    assert not separate(guarded, *ends, SERVICES).possible
    smb = separate(guarded, *ends, parse_ports("tcp/445"))
    assert [rule.id for rule in smb.rules] == ["smb"] and smb.fewest
    assert separate(guarded, *ends, parse_ports("tcp/5")).rules == ()


def test_a_lifeline_that_is_written_can_be_cut_and_a_deny_does_not_stop_it() -> None:
    text = "networks: {n: [10.0.0.1, 'fd00::1']}\nlifelines: [{id: line, allow: tcp/22, from: network:n, to: any}]\n"
    policy = read(f"{text}rules: [{{id: no, deny: any, from: any, to: any}}]\n")
    assert [rule.id for rule in apart("shop-web", "shop-db", policy).rules] == ["line"]


def test_many_ways_round_are_all_cut() -> None:
    lines = [f"  - {{id: a{n}, allow: tcp/{n}, from: role=web, to: role=gate}}\n" for n in range(1, 12)]
    lines += [f"  - {{id: b{n}, allow: tcp/{n}, from: role=gate, to: role=db}}\n" for n in range(1, 11)]
    policy = read("rules:\n" + "".join(lines))
    told = apart("role=web", "role=db", policy)
    assert {rule.id for rule in told.rules} == {f"b{n}" for n in range(1, 11)} and not told.fewest
