"""Somebody else changed our table behind our back: the next change puts it right, and does not get stuck."""

from __future__ import annotations

from tests.kernel.namespaces import needs_namespaces, pair
from tests.kernel.test_open_connections import database

from cellwall.enforce import NftPoint

pytestmark = needs_namespaces


def test_an_element_that_is_gone_does_not_hold_up_the_next_policy() -> None:
    with pair() as (a, b), b.inside():
        point = NftPoint()
        first, second = database(a, b, "enforce", 5432), database(a, b, "enforce", 5433)
        point.apply(first.ruleset, first.members)
        b.nft(f"delete element inet cellwall peer4 {{ {a.v4} }}\n")
        point.apply(second.ruleset, {})
        assert point.verify() == ()
        point.apply(first.ruleset, first.members)
        assert point.verify() == ()


def test_an_element_that_is_gone_does_not_hold_up_members() -> None:
    with pair() as (a, b), b.inside():
        point = NftPoint()
        wanted = database(a, b, "enforce", 5432)
        point.apply(wanted.ruleset, wanted.members)
        b.nft(f"delete element inet cellwall peer4 {{ {a.v4} }}\n")
        point.apply_members({}, [a.v4.packed])
        assert point.verify() == ()


def test_a_flushed_map_is_noticed_and_written_again() -> None:
    with pair() as (a, b), b.inside():
        point = NftPoint()
        wanted = database(a, b, "enforce", 5432)
        point.apply(wanted.ruleset, wanted.members)
        b.nft("flush map inet cellwall peer4\n")
        assert [drift.where for drift in point.verify()] == ["peer4"]
        point.forget()
        point.apply(wanted.ruleset, wanted.members)
        assert point.verify() == ()
