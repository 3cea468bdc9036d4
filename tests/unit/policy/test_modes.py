"""The most specific mode wins, ties are refused, and thousands of modes cost little."""

from __future__ import annotations

import time
from itertools import product

import pytest

from cellwall.labels import Labels, overlaps, parse_selector
from cellwall.policy import Mode, ModeRule, Policy, PolicyError, parse_policy
from cellwall.policy.modes import ModeIndex


def mode(where: str, kind: Mode) -> ModeRule:
    return ModeRule(parse_selector(where), kind)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({}, Mode.OBSERVE),
        ({"app": "shop"}, Mode.GUARD),
        ({"app": "shop", "env": "prod"}, Mode.ENFORCE),
        ({"app": "blog", "env": "prod"}, Mode.OBSERVE),
        ({"app": "blog", "env": "dev"}, Mode.GUARD),
    ],
)
def test_the_most_specific_mode_wins(labels: dict[str, str], wanted: Mode) -> None:
    policy = Policy(
        modes=(
            mode("", Mode.OBSERVE),
            mode("app=shop", Mode.GUARD),
            mode("app in (shop,other),env=prod", Mode.ENFORCE),
            mode("env,env!=prod", Mode.GUARD),
        )
    )
    assert policy.mode_of(Labels(labels)) is wanted


def test_without_any_mode_a_workload_is_observed() -> None:
    assert Policy().mode_of(Labels({"app": "shop"})) is Mode.OBSERVE


WHERES = ["", "a=1", "a in (1,2)", "a!=1", "a", "!a", "b=1", "b in (1,2)", "a=1,b=1", "a=2,b", "a in (1,2),b=1", "b,!a"]
WORLD = [
    Labels({key: value for key, value in (("a", a), ("b", b)) if value})
    for a, b in product(["", "1", "2", "3"], ["", "1", "2", "3"])
]


def test_the_index_finds_what_looking_at_each_mode_finds() -> None:
    rules = [mode(where, kind) for where in WHERES for kind in (Mode.GUARD, Mode.ENFORCE)]
    index = ModeIndex(rules)
    for where in WHERES:
        selector = parse_selector(where)
        near = set(index.near(selector))
        assert near >= {rule for rule in rules if overlaps(rule.where, selector)}
    for labels in WORLD:
        best = max(rule.where.specificity for rule in rules if rule.where.matches(labels))
        kinds = {rule.mode for rule in rules if rule.where.matches(labels) and rule.where.specificity == best}
        assert index.mode_of(labels) in kinds


def test_a_tie_is_what_some_labels_can_show_unless_a_third_decides() -> None:
    for one, other in product(WHERES, WHERES):
        rules = [mode(one, Mode.GUARD), mode(other, Mode.ENFORCE)]
        shown = any(
            len({r.mode for r in rules if r.where.matches(labels) and r.where.specificity == best}) > 1
            for labels in WORLD
            for best in [max((r.where.specificity for r in rules if r.where.matches(labels)), default=0)]
        )
        assert (ModeIndex(rules).tie(rules[1]) is not None) is shown


def modes(*pairs: tuple[str, str]) -> str:
    return "modes:\n" + "".join(f'  - {{where: "{where}", mode: {kind}}}\n' for where, kind in pairs)


def test_a_tie_is_refused_and_says_how_to_settle_it() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy([("m.yaml", modes(("app=shop", "enforce"), ("env=dev", "observe")))])
    assert str(caught.value) == (
        "m.yaml:3:13: `env=dev` (observe) and `app=shop` (enforce, m.yaml:2:13) can match the same workload and "
        "neither is more specific; add a mode for `app=shop,env=dev`"
    )


def test_the_same_selector_in_two_modes_is_refused() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy([("m.yaml", modes(("", "enforce"))), ("n.yaml", modes(("any", "observe")))])
    assert str(caught.value) == (
        "n.yaml:2:13: `any` (observe) and `any` (enforce, m.yaml:2:13) can match the same workload and neither is "
        "more specific"
    )


def test_a_third_mode_above_both_settles_a_tie() -> None:
    text = modes(("app=shop", "enforce"), ("env=dev", "observe"), ("app=shop,env=dev", "guard"))
    assert parse_policy([("m.yaml", text)]).mode_of(Labels({"app": "shop", "env": "dev"})) is Mode.GUARD


def test_the_same_mode_twice_is_no_tie() -> None:
    parse_policy([("m.yaml", modes(("app=shop", "enforce"), ("env=dev", "enforce")))])


def test_ten_thousand_apps_may_each_have_a_mode() -> None:
    kinds = ("observe", "enforce")
    text = modes(("env=dev", "observe"), *((f"app=a{n}", kinds[n % 2]) for n in range(10_000)))
    text += "".join(f'  - {{where: "app=a{n},env=dev", mode: guard}}\n' for n in range(1, 10_000, 2))
    started = time.process_time()
    policy = parse_policy([("m.yaml", text)])
    labels = [Labels({"app": f"a{n}", "env": "dev"}) for n in range(10_000)]
    assert {policy.mode_of(one) for one in labels} == {Mode.GUARD, Mode.OBSERVE}
    assert time.process_time() - started < 20
