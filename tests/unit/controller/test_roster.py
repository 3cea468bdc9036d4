"""The inventory in memory is what the tables hold, and changes only where it is changed."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from cellwall.controller.store.roster import Roster
from cellwall.controller.store.state import LabelRow, LabelSource, WorkloadRow
from cellwall.labels import Labels
from cellwall.traffic import Address

HERE, THERE = ip_address("10.0.0.1"), ip_address("10.0.0.2")
NAMES, ADDRESSES = ("a", "b", "c"), (HERE, THERE)


def row(name: str, *addresses: object, seen: float = 0.0) -> WorkloadRow:
    return WorkloadRow(name, True, tuple(ip_address(str(one)) for one in addresses), 1.0, seen)


def label(name: str, key: str, value: str, source: LabelSource = LabelSource.DECLARED) -> LabelRow:
    return LabelRow(name, key, value, source, "ann", 1.0)


def test_of_several_labels_for_one_key_the_declared_one_holds() -> None:
    roster = Roster([row("a")], [label("a", "role", "api", LabelSource.ACCEPTED), label("a", "role", "web")])
    (found,) = roster.inventory()
    assert found.labels == Labels({"role": "web"})
    assert [one.value for one in roster.labels("a")] == ["web", "api"]


def test_what_is_written_as_it_was_is_the_same_object() -> None:
    roster = Roster([row("a", HERE), row("b")], [label("a", "role", "web")])
    before = roster.inventory()
    roster.put(row("a", HERE, seen=9.0))
    roster.put_label(label("a", "role", "web"))
    assert roster.inventory() is before
    assert roster.changed() == ()
    roster.put_label(label("a", "role", "db"))
    roster.put_label(label("a", "role", "web"))
    assert roster.inventory()[0] is before[0]
    assert roster.changed() == ()


def test_who_has_an_address_is_known() -> None:
    roster = Roster([row("a", HERE), row("b", HERE, THERE)], [])
    assert [one.name for one in roster.having(HERE)] == ["a", "b"]
    roster.drop("b")
    assert [one.name for one in roster.having(HERE)] == ["a"]
    assert roster.having(THERE) == ()


def row_of(name: str, addresses: set[Address]) -> WorkloadRow:
    return row(name, *addresses)


ROWS = st.builds(row_of, st.sampled_from(NAMES), st.sets(st.sampled_from(ADDRESSES)))
LABELS = st.builds(
    label, st.sampled_from(NAMES), st.sampled_from("xy"), st.sampled_from("12"), st.sampled_from(LabelSource)
)
ACTS = st.one_of(
    st.tuples(st.just("put"), ROWS),
    st.tuples(st.just("put_label"), LABELS),
    st.tuples(st.just("drop"), st.sampled_from(NAMES)),
    st.tuples(st.just("drop_label"), st.sampled_from(NAMES), st.sampled_from("xy")),
    st.tuples(st.just("keep")),
    st.tuples(st.just("undo")),
)


def state(roster: Roster) -> tuple[object, ...]:
    return (
        roster.rows(),
        roster.labels(),
        roster.inventory(),
        [roster.having(address) for address in ADDRESSES],
    )


@given(st.lists(ACTS, max_size=25))
def test_after_any_writes_and_undone_ones_it_is_as_if_read_anew(acts: list[tuple[object, ...]]) -> None:
    roster = Roster([row("a", HERE)], [])
    kept = state(roster)
    for act, *arguments in acts:
        before = {one.name: one for one in roster.inventory()}
        getattr(roster, str(act))(*arguments)
        if act == "undo":
            assert state(roster) == kept
        elif act == "keep":
            kept = state(roster)
        assert state(roster) == state(Roster(roster.rows(), roster.labels()))
        for one in roster.inventory():
            if before.get(one.name) == one:
                assert before[one.name] is one
