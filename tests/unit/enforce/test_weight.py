"""What a table takes, counted; `tests/kernel/test_weight.py` holds it against the kernel."""

from __future__ import annotations

from cellwall.compile import Entry, Face, NetworkSpan, RuleCard, Ruleset
from cellwall.enforce import Scales, weigh
from cellwall.policy import Action, Mode
from cellwall.traffic import LAST_POINT

TCP, ICMP = 6 << 16, 1 << 16


def ruleset(*entries: Entry) -> Ruleset:
    return Ruleset("w", 1, Mode.ENFORCE, faces=(Face((), ingress=entries),))


def entry(first: int, last: int) -> Entry:
    return Entry(1, first, last, Action.ALLOW, (1,))


def test_elements_are_counted_by_what_an_entry_becomes() -> None:
    one_each = [entry(TCP + 80, TCP + 80), entry(TCP + 80, TCP + 90)]
    assert [weigh(ruleset(one), 0).elements for one in one_each] == [1, 1]
    # Types of ICMP, and a range that stands for its protocol, may need an element for what remains.
    two_each = [entry(ICMP, ICMP + 300), entry(TCP, TCP + 0x7000), entry(0, LAST_POINT)]
    assert [weigh(ruleset(one), 0).elements for one in two_each] == [2, 2, 2]
    assert weigh(ruleset(entry(TCP, (8 << 16) + 5)), 7).elements == 7 + 6


def test_what_everyone_may_within_a_range_cuts_the_range_of_a_class() -> None:
    all_may, class_may_not = Entry(0, TCP + 85, TCP + 85, Action.ALLOW, (1,)), entry(TCP + 80, TCP + 90)
    assert weigh(ruleset(all_may, class_may_not), 0).elements == 1 + 3
    beside = Entry(0, TCP + 91, TCP + 91, Action.ALLOW, (1,))
    assert weigh(ruleset(beside, class_may_not), 0).elements == 1 + 1


def test_everything_that_is_added_adds_to_both_sums() -> None:
    bare = weigh(ruleset(), 0)
    for more in (
        weigh(ruleset(), 1),
        weigh(ruleset(entry(TCP, TCP)), 0),
        weigh(Ruleset("w", 1, Mode.ENFORCE, networks=(NetworkSpan(4, 1, 9, 1),)), 0),
        weigh(Ruleset("w", 1, Mode.ENFORCE, (RuleCard(1, "r", Action.ALLOW),)), 0),
    ):
        assert more.held > bare.held and more.peak > bare.peak


def test_entries_that_rulesets_share_are_counted_once_and_weigh_the_same() -> None:
    shared = tuple(entry(TCP + port, TCP + port) for port in range(50))
    scales, one = Scales(), Ruleset("w", 1, Mode.ENFORCE, faces=(Face((), ingress=shared, egress=shared),))
    assert scales.weigh(one, 3) == scales.weigh(one, 3) == weigh(one, 3)
    assert weigh(one, 3).elements == 103
