"""What an agent is sent follows from what is wanted and what it holds, whatever happens on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from cellwall.compile import Misfit, Point, RuleCard, Ruleset
from cellwall.controller.core import (
    AGAIN_FACTOR,
    AGAIN_FIRST_S,
    MOST_AGAIN,
    Change,
    Outlook,
    Shown,
    Standing,
    Wanted,
    Whole,
    advance,
    greeted,
    holds,
    is_silent,
    offer_again,
    outlook,
    parted,
    received,
    show,
    undecided,
    want,
)
from cellwall.policy import Action, Mode
from cellwall.wire import Hello, Holding, MisfitNote, PointState, Receipt, apply_change, digest

A, B, C = b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02", b"\x0a\x00\x00\x03"
MANY = {bytes([10, 0, 1, last]): 1 for last in range(50)}


def wanted(
    revision: int = 1,
    mode: Mode = Mode.ENFORCE,
    members: dict[bytes, int] | None = None,
    misfits: tuple[Misfit, ...] = (),
) -> Wanted:
    held = MANY if members is None else members
    return want({"w": Point(Ruleset("w", revision, mode), held, misfits)})["w"]


def hello(holding: Holding | None = None, highest: int = 0) -> Hello:
    return Hello(name="w", version="1", holding=holding or Holding(), highest=highest)


def holding(generation: int, of: Wanted) -> Holding:
    return Holding(generation=generation, revision=of.revision, digest=of.digest)


def receipt(
    generation: int,
    state: PointState,
    held: Holding | None = None,
    reason: str = "",
    misfits: tuple[MisfitNote, ...] = (),
) -> Receipt:
    return Receipt(generation=generation, state=state, reason=reason, misfits=misfits, holding=held or Holding())


def enforcing(one: Wanted, generation: int = 1) -> Standing:
    """A point that was sent `one` and enforces it."""
    standing, sent = advance(greeted(Standing("w"), hello(), 1.0), one)
    assert isinstance(sent, Whole)
    assert sent.generation == generation
    return received(standing, receipt(generation, PointState.ENFORCED, holding(generation, one)), 2.0)


def test_a_new_agent_is_sent_the_whole() -> None:
    one = wanted()
    standing, sent = advance(greeted(Standing("w"), hello(), 1.0), one)
    assert sent == Whole(1, one)
    assert standing.awaiting
    assert advance(standing, one)[1] is None


def test_an_absent_agent_is_sent_nothing() -> None:
    assert advance(Standing("w"), wanted())[1] is None


def test_a_point_that_holds_what_is_wanted_is_left_alone() -> None:
    one = wanted()
    assert advance(enforcing(one), one)[1] is None
    # The number of the revision alone changes nothing.
    assert advance(enforcing(one), wanted(revision=2))[1] is None


def test_other_members_are_sent_as_a_change() -> None:
    one, other = wanted(), wanted(members={**MANY, A: 2})
    standing, sent = advance(enforcing(one), other)
    assert sent == Change(1, 2, other, {A: 2}, ())
    assert not standing.whole
    standing = received(standing, receipt(2, PointState.ENFORCED, holding(2, other)), 3.0)
    assert advance(standing, one)[1] == Change(2, 3, one, {}, (A,))


def test_many_other_members_are_sent_as_the_whole() -> None:
    other = wanted(members={bytes([10, 0, 2, last]): 1 for last in range(50)})
    assert isinstance(advance(enforcing(wanted()), other)[1], Whole)


def test_another_ruleset_is_sent_as_the_whole() -> None:
    assert isinstance(advance(enforcing(wanted()), wanted(mode=Mode.OBSERVE))[1], Whole)


def test_what_changes_while_a_message_is_under_way_waits_for_its_receipt() -> None:
    one, other, last = wanted(), wanted(mode=Mode.GUARD), wanted(mode=Mode.OBSERVE)
    standing, sent = advance(enforcing(one), other)
    assert sent is not None
    assert advance(standing, last)[1] is None
    standing = received(standing, receipt(2, PointState.ENFORCED, holding(2, other)), 3.0)
    assert advance(standing, last)[1] == Whole(3, last)


def test_an_older_receipt_does_not_answer() -> None:
    one, other = wanted(), wanted(mode=Mode.GUARD)
    standing, _ = advance(enforcing(one), other)
    standing = received(standing, receipt(1, PointState.ENFORCED, holding(1, one)), 3.0)
    assert standing.awaiting


def test_what_was_refused_is_not_sent_again() -> None:
    one = wanted()
    standing, _ = advance(greeted(Standing("w"), hello(), 1.0), one)
    standing = received(standing, receipt(1, PointState.REFUSED, reason="no"), 2.0)
    assert advance(standing, one)[1] is None
    assert isinstance(advance(standing, wanted(mode=Mode.GUARD))[1], Whole)


def test_what_was_taken_back_is_sent_again_by_a_later_revision_only() -> None:
    good, bad = wanted(), wanted(revision=2, mode=Mode.GUARD)
    standing, _ = advance(enforcing(good), bad)
    standing = received(standing, receipt(2, PointState.PROVISIONAL, holding(2, bad)), 3.0)
    standing = received(standing, receipt(2, PointState.REVERTED, holding(1, good), "no canary"), 4.0)
    assert standing.spurned.revision == 2
    assert advance(standing, bad)[1] is None
    # Back to the good content: it holds that already.
    assert advance(standing, wanted(revision=3))[1] is None
    assert isinstance(advance(standing, wanted(revision=4, mode=Mode.GUARD))[1], Whole)


def test_an_agent_that_went_astray_gets_the_whole() -> None:
    one, other = wanted(), wanted(members={**MANY, A: 2})
    standing, sent = advance(enforcing(one), other)
    assert isinstance(sent, Change)
    standing = received(standing, receipt(2, PointState.FAILED, holding(1, one), "astray"), 3.0)
    assert advance(standing, other)[1] == Whole(3, other)


def test_a_point_that_cannot_write_is_not_flooded() -> None:
    one = wanted()
    standing, _ = advance(greeted(Standing("w"), hello(), 1.0), one)
    standing = received(standing, receipt(1, PointState.FAILED, reason="disk full"), 2.0)
    assert advance(standing, one)[1] is None


def test_a_drifting_point_repairs_itself() -> None:
    one = wanted()
    standing = received(enforcing(one), receipt(1, PointState.DRIFTED, Holding()), 3.0)
    assert advance(standing, one)[1] is None
    assert show(standing, one, 3.0, 15.0).state is Shown.DRIFTED


def test_what_was_lost_on_the_way_is_sent_again_under_a_new_number() -> None:
    one = wanted()
    standing, _ = advance(greeted(Standing("w"), hello(), 1.0), one)
    standing = greeted(parted(standing, 2.0), hello(), 3.0)
    assert advance(standing, one)[1] == Whole(2, one)


def test_what_an_agent_took_before_it_reconnected_is_not_sent_again() -> None:
    one = wanted()
    standing, _ = advance(greeted(Standing("w"), hello(), 1.0), one)
    standing = greeted(parted(standing, 2.0), hello(Holding(), highest=1), 3.0)
    assert advance(standing, one)[1] is None


def test_a_controller_that_forgot_counts_on_from_what_the_agent_knows() -> None:
    one = wanted()
    standing = greeted(Standing("w"), hello(Holding(generation=40, revision=9, digest="x"), highest=41), 1.0)
    assert advance(standing, one)[1] == Whole(42, one)


def test_a_higher_number_in_a_receipt_is_counted_on_from() -> None:
    one = wanted()
    standing, _ = advance(greeted(Standing("w"), hello(), 1.0), one)
    standing = received(standing, receipt(7, PointState.ENFORCED, Holding(generation=7, digest="x")), 2.0)
    assert advance(standing, one)[1] == Whole(8, one)


def test_after_a_restart_of_the_controller_members_change_by_difference_again() -> None:
    one, other = wanted(), wanted(members={**MANY, A: 2})
    standing = greeted(Standing("w", issued=holding(5, one)), hello(holding(5, one), highest=5), 1.0)
    standing, sent = advance(standing, one)
    assert sent is None
    assert advance(standing, other)[1] == Change(5, 6, other, {A: 2}, ())


def test_a_point_is_shown_as_it_says() -> None:
    one = wanted()
    standing = enforcing(one)
    row = show(standing, one, 2.0, 15.0)
    assert (row.state, row.revision_wanted, row.revision_held, row.generation_wanted) == (Shown.ENFORCED, 1, 1, 1)
    assert show(standing, wanted(revision=2), 2.0, 15.0).revision_held == 2
    row = show(standing, wanted(revision=2, mode=Mode.GUARD), 2.0, 15.0)
    assert (row.state, row.revision_held) == (Shown.PENDING, 1)


def test_a_rule_that_does_not_fit_is_shown_as_relaxed() -> None:
    one = wanted(misfits=(Misfit("r", "no cgroups"),))
    assert show(enforcing(one), one, 2.0, 15.0).state is Shown.RELAXED
    plain = wanted()
    standing = received(
        enforcing(plain),
        receipt(1, PointState.RELAXED, holding(1, plain), misfits=(MisfitNote(rule="r", reason="x"),)),
        3.0,
    )
    assert show(standing, plain, 3.0, 15.0).misfits == (Misfit("r", "x"),)


def test_a_point_is_silent_only_after_a_while() -> None:
    one = wanted()
    gone = parted(enforcing(one), 10.0)
    assert show(gone, one, 12.0, 15.0).state is Shown.ENFORCED
    row = show(gone, one, 30.0, 15.0)
    assert row.state is Shown.SILENT
    assert "enforced" in row.reason
    assert is_silent(gone, 30.0, 15.0)


def test_a_revision_fails_when_one_point_takes_it_back() -> None:
    good, bad = wanted(), wanted(revision=2, mode=Mode.GUARD)
    standing, _ = advance(enforcing(good), bad)
    rows = {"w": show(standing, bad, 3.0, 15.0)}
    assert outlook(rows, {"w": standing}, 2) == (Outlook.GOES_ON, "")
    assert undecided([standing], 2) and not undecided([parted(standing, 3.0)], 2)
    other = standing
    standing = received(standing, receipt(2, PointState.REVERTED, holding(1, good), "no canary"), 4.0)
    verdict, why = outlook({"w": show(standing, bad, 4.0, 15.0)}, {"w": standing}, 2)
    assert (verdict, why) == (Outlook.FAILED, "`w` took it back: no canary")
    # It is not waited for what others say.
    assert not undecided([other, standing], 2) and undecided([other, standing], 3)


def test_a_revision_is_done_without_the_silent() -> None:
    one = wanted()
    rows = {"w": show(enforcing(one), one, 2.0, 15.0), "x": show(Standing("x"), one, 99.0, 15.0)}
    assert rows["x"].state is Shown.SILENT
    assert outlook(rows, {}, 1) == (Outlook.DONE, "")
    assert outlook({}, {}, 1) == (Outlook.DONE, "")


def test_a_revision_that_a_point_refuses_is_partial() -> None:
    good, bad = wanted(), wanted(revision=2, mode=Mode.GUARD)
    standing, _ = advance(enforcing(good), bad)
    standing = received(standing, receipt(2, PointState.REFUSED, holding(1, good), "nft says no"), 3.0)
    rows = {"w": show(standing, bad, 3.0, 15.0)}
    assert outlook(rows, {"w": standing}, 2) == (Outlook.PARTIAL, "`w` refused it: nft says no")
    both = {**rows, "x": replace(rows["w"], workload="x")}
    assert outlook(both, {}, 2)[1].endswith(", and 1 more")


@dataclass
class Twin:
    """A dumb agent: it takes what is new, holds it, and says so."""

    generation: int = 0
    revision: int = 0
    ruleset: Ruleset | None = None
    members: dict[bytes, int] | None = None
    highest: int = 0

    def holding(self) -> Holding:
        if self.ruleset is None or self.members is None:
            return Holding()
        return Holding(generation=self.generation, revision=self.revision, digest=digest(self.ruleset, self.members))

    def take(self, sent: Whole | Change) -> Receipt:
        assert sent.generation > self.highest, "a number is used once"
        if isinstance(sent, Change):
            if self.members is None or sent.base != self.generation:
                return Receipt(generation=sent.generation, state=PointState.FAILED, holding=self.holding())
            self.members = apply_change(self.members, sent.added, sent.removed)
        else:
            self.ruleset, self.members = sent.wanted.ruleset, dict(sent.wanted.members)
        self.generation = self.highest = sent.generation
        self.revision = sent.wanted.revision
        return Receipt(generation=sent.generation, state=PointState.ENFORCED, holding=self.holding())


@st.composite
def wants(draw: st.DrawFn) -> tuple[Ruleset, dict[bytes, int]]:
    rules = (RuleCard(draw(st.integers(1, 3)), "r", Action.ALLOW),)
    members = draw(st.dictionaries(st.sampled_from([A, B, C, *MANY]), st.integers(1, 2)))
    return Ruleset("w", 1, draw(st.sampled_from(Mode)), rules), members


events = st.lists(
    st.one_of(wants(), st.sampled_from(["lose", "answer", "part", "forget the agent", "forget the controller"])),
    max_size=25,
)


@given(events)
def test_whatever_happens_the_point_comes_to_hold_what_is_wanted(
    happened: list[str | tuple[Ruleset, dict[bytes, int]]],
) -> None:
    twin, standing = Twin(), greeted(Standing("w"), hello(), 0.0)
    goal = wanted()
    under_way: Whole | Change | None = None
    for now, event in enumerate(happened):
        match event:
            case "lose" | "part":
                if event == "part" and under_way is not None:
                    twin.take(under_way)
                under_way = None
                standing = greeted(parted(standing, now), hello(twin.holding(), twin.highest), now)
            case "answer":
                if under_way is not None:
                    standing = received(standing, twin.take(under_way), now)
                    under_way = None
            case "forget the agent":
                twin, under_way = Twin(), None
                standing = greeted(standing, hello(), now)
            case "forget the controller":
                under_way = None
                standing = greeted(Standing("w"), hello(twin.holding(), twin.highest), now)
            case (ruleset, members):
                goal = want({"w": Point(replace(ruleset, revision=now + 2), members)})["w"]
            case _:
                pass
        if under_way is None:
            standing, under_way = advance(standing, goal)
    for now in range(100, 110):
        if under_way is not None:
            standing = received(standing, twin.take(under_way), now)
        standing, under_way = advance(standing, goal)
    assert under_way is None
    assert twin.holding().digest == goal.digest
    assert holds(standing, goal)
    assert show(standing, goal, 110.0, 15.0).state is Shown.ENFORCED


# --- what was taken back, and is in force elsewhere ---


def taken_back(standing: Standing, back_to: Wanted, now: float) -> Standing:
    """The point answers what it was sent by taking it back."""
    said = receipt(standing.issued.generation, PointState.REVERTED, holding(1, back_to), "killed")
    return received(standing, said, now)


def test_what_was_taken_back_is_offered_again_later_and_later_and_not_for_ever() -> None:
    one, other, now = wanted(), wanted(2, Mode.GUARD), 100.0
    standing, _ = advance(enforcing(one), other)
    for attempt in range(MOST_AGAIN):
        standing = taken_back(standing, one, now)
        assert advance(standing, other)[1] is None
        wait = AGAIN_FIRST_S * AGAIN_FACTOR**attempt
        assert offer_again(standing, other, now + wait - 0.1) is standing
        # Said again, on another connection say, it is the same one.
        again = received(standing, receipt(standing.issued.generation, PointState.REVERTED, holding(1, one)), now + 1)
        assert offer_again(again, other, now + wait - 0.1) is again
        now += wait
        generation = standing.issued.generation
        standing = offer_again(standing, other, now)
        assert show(standing, other, now, 15.0).state is Shown.PENDING
        standing, sent = advance(standing, other)
        assert sent == Whole(generation + 1, other)
    standing = taken_back(standing, one, now)
    assert offer_again(standing, other, now + 1e9) is standing
    # Another revision begins anew, though it is the same content.
    third = wanted(3, Mode.GUARD)
    standing, sent = advance(standing, third)
    assert sent is not None
    standing = taken_back(standing, one, now)
    assert offer_again(standing, third, now + AGAIN_FIRST_S) is not standing


def test_what_was_refused_or_is_held_or_cannot_be_sent_is_not_offered_again() -> None:
    one, other = wanted(), wanted(2, Mode.GUARD)
    sent, _ = advance(enforcing(one), other)
    refused = received(sent, receipt(2, PointState.REFUSED, holding(1, one)), 5.0)
    reverted = taken_back(sent, one, 5.0)
    for standing in (refused, parted(reverted, 6.0), received(sent, receipt(2, PointState.ENFORCED), 5.0)):
        assert offer_again(standing, other, 1e9) is standing
    assert offer_again(reverted, wanted(3, Mode.OBSERVE), 1e9) is reverted
    assert offer_again(reverted, one, 1e9) is reverted
