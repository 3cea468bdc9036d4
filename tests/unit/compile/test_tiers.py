"""Overlapping rules become disjoint spans, and what one more rule changes is exact."""

from __future__ import annotations

from cellwall.compile.tiers import Resolved, difference, resolve
from cellwall.policy import Action, Rule, Who
from cellwall.traffic import PortSet, Span

ALLOW, DENY, WALL, LINE = Action.ALLOW, Action.DENY, Action.WALL, Action.LIFELINE


def rule(rule_id: str, action: Action, *spans: tuple[int, int]) -> Rule:
    return Rule(rule_id, action, PortSet.of(Span(*span) for span in spans), (Who(),), (Who(),))


def test_no_rules_say_nothing() -> None:
    assert resolve([]) == ()


def test_a_rule_says_its_action_on_each_of_its_spans() -> None:
    assert resolve([rule("a", ALLOW, (1, 5), (10, 20))]) == (
        Resolved(1, 5, ALLOW, ("a",)),
        Resolved(10, 20, ALLOW, ("a",)),
    )


def test_rules_of_one_action_are_all_named_where_they_meet() -> None:
    assert resolve([rule("b", ALLOW, (1, 10)), rule("a", ALLOW, (5, 20))]) == (
        Resolved(1, 4, ALLOW, ("b",)),
        Resolved(5, 10, ALLOW, ("a", "b")),
        Resolved(11, 20, ALLOW, ("a",)),
    )


def test_lifeline_deny_allow_and_wall_decide_in_this_order() -> None:
    rules = [rule("w", WALL, (0, 9)), rule("a", ALLOW, (0, 6)), rule("d", DENY, (0, 3)), rule("l", LINE, (0, 0))]
    assert resolve(rules) == (
        Resolved(0, 0, LINE, ("l",)),
        Resolved(1, 3, DENY, ("d",)),
        Resolved(4, 6, ALLOW, ("a",)),
        Resolved(7, 9, WALL, ("w",)),
    )


def test_a_rule_hidden_by_a_higher_one_does_not_cut_its_span() -> None:
    assert resolve([rule("d", DENY, (0, 9)), rule("a", ALLOW, (3, 5))]) == (Resolved(0, 9, DENY, ("d",)),)


def test_a_rule_that_ends_where_another_begins_leaves_no_gap() -> None:
    assert resolve([rule("a", ALLOW, (0, 4)), rule("b", ALLOW, (5, 9))]) == (
        Resolved(0, 4, ALLOW, ("a",)),
        Resolved(5, 9, ALLOW, ("b",)),
    )


def test_what_is_the_same_for_everyone_is_no_difference() -> None:
    common = resolve([rule("a", ALLOW, (0, 9))])
    assert difference(common, common) == ()


def test_the_difference_is_what_has_another_action_or_other_rules() -> None:
    everyone = [rule("a", ALLOW, (10, 19)), rule("d", DENY, (30, 39))]
    whole = resolve([*everyone, rule("b", ALLOW, (5, 12)), rule("x", DENY, (18, 34))])
    assert difference(whole, resolve(everyone)) == (
        Resolved(5, 9, ALLOW, ("b",)),
        Resolved(10, 12, ALLOW, ("a", "b")),
        Resolved(18, 29, DENY, ("x",)),
        Resolved(30, 34, DENY, ("d", "x")),
    )


def test_a_span_that_differs_on_both_sides_of_a_common_one_is_cut_around_it() -> None:
    whole = (Resolved(0, 9, ALLOW, ("a",)),)
    assert difference(whole, (Resolved(3, 5, ALLOW, ("a",)),)) == (
        Resolved(0, 2, ALLOW, ("a",)),
        Resolved(6, 9, ALLOW, ("a",)),
    )
    assert difference(whole, (Resolved(20, 30, ALLOW, ("a",)),)) == whole
