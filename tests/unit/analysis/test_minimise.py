import random

import pytest
from tests.unit.analysis.world import NOW

from cellwall.analysis.linting.alternatives import joined_ends
from cellwall.analysis.linting.edits import apply_edits
from cellwall.analysis.linting.minimise import Minimised, minimise
from cellwall.analysis.linting.sameness import TooEntangledError, told_apart
from cellwall.policy import Policy, Who, parse_policy

HEAD = """\
labels: {env: {values: [prod, dev]}, role: {}, app: {}}
services: {web: [tcp/80, tcp/443], dns: udp/53, secure: tcp/443}
networks: {office: [192.0.2.0/24]}
rules:
"""


def minimised(*rules: str) -> tuple[list[str], Minimised]:
    """Give the rules of the shorter document, as text without ids and owners; all mean the same."""
    text = HEAD + "".join(f"  - {{id: r{number}, {rule}}}\n" for number, rule in enumerate(rules))
    policy = parse_policy([("p.yaml", text)])
    told = minimise(policy, NOW)
    changed = apply_edits({"p.yaml": text}, told.edits)
    assert list(told_apart(policy, parse_policy(changed.items()), NOW)) == []
    return [line.strip().removeprefix("- ") for line in changed["p.yaml"].splitlines()[4:]], told


def test_rules_that_differ_in_ports_alone_become_one() -> None:
    rules, told = minimised(
        "allow: tcp/81, from: role=x, to: role=y",
        "allow: [web, tcp/9], from: role=x, to: role=y",
        "allow: tcp/82, from: role=x, to: role=y",
    )
    assert rules == ["{id: r0, allow: [web, tcp/9, tcp/81-82], from: role=x, to: role=y}"]
    assert (told.before, told.after, told.merges[0].rules) == (3, 1, ("r0", "r1", "r2"))


def test_rules_that_together_have_all_ports_have_any() -> None:
    rules, _ = minimised("allow: tcp, from: role=x, to: role=y", "allow: any, from: role=x, to: role=y, log: true")
    assert len(rules) == 1 and "log" in rules[0]
    halves = "allow: [{}], from: role=x, to: role=y"
    every = [str(number) for number in range(256)]
    rules, _ = minimised(halves.format(", ".join(every[:99])), halves.format(", ".join(every[99:])))
    assert rules == ["{id: r0, allow: any, from: role=x, to: role=y}"]


def test_rules_that_differ_in_one_end_alone_become_one() -> None:
    rules, _ = minimised(
        "allow: dns, from: role=x, to: role=y",
        "allow: dns, from: role=z, to: role=y",
        "allow: dns, from: network:office, to: role=y",
        "deny: dns, from: role=x, to: 'role=a,env=prod'",
        "deny: dns, from: role=x, to: 'role=b,env=prod'",
    )
    assert rules == [
        '{id: r0, allow: dns, from: ["network:office", "role in (x,z)"], to: role=y}'.replace(
            '"network:office"', "network:office"
        ),
        '{id: r3, deny: dns, from: role=x, to: "env=prod,role in (a,b)"}',
    ]


def test_rules_of_one_value_with_itself_share_it() -> None:
    rules, _ = minimised(*(f"allow: dns, from: 'app={app},role=x', to: 'app={app},role=y'" for app in "abc"))
    assert rules == ['{id: r0, allow: dns, from: "app in (a,b,c),role=x", to: "app in (a,b,c),role=y", same: app}']
    rules, _ = minimised(*(f"allow: dns, from: 'env={env},role=x', to: 'env={env}'" for env in ("prod", "dev")))
    assert rules == ["{id: r0, allow: dns, from: role=x, to: any, same: env}"]
    rules, _ = minimised(
        "allow: dns, from: 'app in (a,b),role=x', to: 'app in (a,b)', same: [app, env]",
        "allow: dns, from: 'app=c,role=x', to: 'app=c', same: env",
    )
    assert rules == ['{id: r0, allow: dns, from: "app in (a,b,c),role=x", to: "app in (a,b,c)", same: [app, env]}']


def test_one_side_and_the_other_are_both() -> None:
    rules, _ = minimised(
        "allow: dns, from: role=x, to: role=y, side: egress", "allow: dns, from: role=x, to: role=y, side: ingress"
    )
    assert rules == ["{id: r0, allow: dns, from: role=x, to: role=y}"]


def test_rules_that_never_decide_are_left_out_also_those_that_a_joined_one_covers() -> None:
    rules, told = minimised(
        "allow: dns, from: env=prod, to: any",
        "allow: dns, from: env=dev, to: any",
        "allow: dns, from: 'env=dev,role=x', to: role=y",
        "allow: dns, from: 'env,role=z', to: role=y",
    )
    assert rules == ['{id: r0, allow: dns, from: "env in (dev,prod)", to: any}']
    assert {one.rule for one in told.removals} == {"r2", "r3"}


def test_owners_keep_their_rules_and_reasons_are_joined() -> None:
    rules, _ = minimised(
        "allow: dns, from: role=x, to: role=y, owner: me, reason: one",
        "allow: dns, from: role=z, to: role=y, owner: me, reason: 'two: more', ticket: T-1",
        "allow: dns, from: role=u, to: role=y, owner: you",
    )
    assert rules == [
        '{id: r0, allow: dns, from: "role in (x,z)", to: role=y, owner: me, reason: "one; two: more", ticket: T-1}',
        "{id: r2, allow: dns, from: role=u, to: role=y, owner: you}",
    ]


def test_what_is_staged_expired_or_logged_is_left_alone() -> None:
    same = "allow: dns, from: role=x, to: role=y"
    given = (
        f"{same}, staged: true",
        f"{same}, expires: 2020-01-01T00:00:00Z",
        f"{same}, log: true",
        f"{same}, log: true",
    )
    rules, told = minimised(*given)
    assert rules == [f"{{id: r{number}, {rule}}}" for number, rule in enumerate(given)]
    assert told.edits == ()


def test_identities_and_alternatives_that_others_hold_are_kept_exact() -> None:
    rules, _ = minimised(
        "allow: dns, from: {workloads: role=x, as: {user: a}}, to: role=y",
        "allow: dns, from: {workloads: role=x, as: {unit: b.service}}, to: role=y",
        "allow: dns, from: {workloads: any, as: {user: a}}, to: role=y",
    )
    assert rules == [
        "{id: r1, allow: dns, "
        "from: [{workloads: any, as: {user: a}}, {workloads: role=x, as: {unit: b.service}}], to: role=y}"
    ]


def test_what_a_joined_rule_covers_goes_though_it_was_joined_itself() -> None:
    rules, told = minimised(
        "allow: tcp/1-9, from: env=prod, to: any",
        "allow: tcp/1-9, from: env=dev, to: any",
        "allow: tcp/1, from: 'env,role=x', to: role=y",
        "allow: tcp/2, from: 'env,role=x', to: role=y",
    )
    assert len(rules) == 1 and told.after == 1
    assert [one.kept for one in told.merges] == ["r0"]


def test_alternatives_are_joined_and_those_that_others_hold_left_out() -> None:
    whos = read("allow: dns, from: [role=x, 'role=x,env=prod', network:office, any], to: any").rules[0].source
    assert joined_ends(whos) == (Who(),)
    assert [str(who) for who in joined_ends(whos[:3])] == ["network:office", "role=x"]
    asked = read(
        "allow: dns, from: [{workloads: role=x, as: {user: a}}, role=x, {workloads: role=z, as: {user: a}}], to: any"
    )
    assert [str(who) for who in joined_ends(asked.rules[0].source)] == ["role in (x,z) as user=a", "role=x"]


def flattened(intents: int) -> str:
    """An access list as it grows: what each intent means, in single rules, some of them twice over."""
    chance = random.Random(7)
    lines: list[str] = []
    for intent in range(intents):
        ends = [[f"app=a{chance.randrange(60)}" for _ in range(chance.randint(1, 3))] for _ in range(2)]
        ports = [f"tcp/{chance.randrange(1, 9000)}" for _ in range(chance.randint(1, 4))]
        lines += (
            f"allow: {p}, from: '{s},role=r{intent % 9}', to: {d}" for s in ends[0] for d in ends[1] for p in ports
        )
        if not intent % 4:
            lines.append(f"allow: tcp/443, from: app=a{intent % 60}, to: app=a{intent % 60}")
    return HEAD + "".join(f"  - {{id: r{number}, {rule}}}\n" for number, rule in enumerate(lines))


def test_a_grown_access_list_loses_half_of_its_rules() -> None:
    text = flattened(120)
    policy = parse_policy([("p.yaml", text)])
    told = minimise(policy, NOW)
    fewer = parse_policy(apply_edits({"p.yaml": text}, told.edits).items())
    assert list(told_apart(policy, fewer, NOW)) == []
    assert len(fewer.rules) == told.after <= told.before / 2


def read(*rules: str) -> Policy:
    return parse_policy([("p.yaml", HEAD + "".join(f"  - {{id: r{n}, {rule}}}\n" for n, rule in enumerate(rules)))])


def test_policies_that_differ_are_told_apart_by_a_flow() -> None:
    one, other = read("allow: dns, from: role=x, to: role=y"), read("allow: dns, from: role=x, to: 'role=y,env=prod'")
    (shown,) = told_apart(one, other, NOW)
    assert "udp/53 from a workload" in shown.words
    assert list(told_apart(one, one, NOW)) == []


def test_a_vocabulary_counts_only_where_both_have_it() -> None:
    one = read("allow: dns, from: env, to: any")
    other = read("allow: dns, from: 'env in (prod,dev)', to: any")
    assert list(told_apart(one, other, NOW)) == []
    text = "labels: {env: {}}\nservices: {dns: udp/53}\nrules: [{id: r, allow: dns, from: env, to: any}]"
    assert len(list(told_apart(parse_policy([("p.yaml", text)]), other, NOW))) == 1


def test_policies_too_entangled_to_be_compared_are_refused() -> None:
    one, other = read("allow: dns, from: env, to: any"), read("allow: dns, from: 'env in (prod,dev)', to: any")
    with pytest.raises(TooEntangledError, match="rule `r0` overlaps with too many others"):
        list(told_apart(one, other, NOW, most_steps=0))
