"""Many changes are several transactions, and none is lost or made twice."""

from __future__ import annotations

from cellwall.enforce.nft.element import Add, Delete, Fill
from cellwall.enforce.nft.portions import MOST_AT_ONCE, portions, undone


def marks(count: int) -> dict[bytes, int]:
    return {number.to_bytes(4, "big"): number for number in range(count)}


def test_a_large_filling_is_cut_and_its_parts_are_all_of_it() -> None:
    found = list(portions([Fill("peer4", marks(2 * MOST_AT_ONCE + 5))]))
    sizes = [len(one.marks) for (one,) in found if isinstance(one, Fill)]
    assert sizes == [MOST_AT_ONCE, MOST_AT_ONCE, 5]
    together = {key: mark for (one,) in found if isinstance(one, Fill) for key, mark in one.marks.items()}
    assert together == marks(2 * MOST_AT_ONCE + 5)


def test_single_changes_are_gathered_and_keep_their_order() -> None:
    adds = [Add("m", number.to_bytes(4, "big"), number) for number in range(MOST_AT_ONCE + 1)]
    found = list(portions([*adds, Fill("peer4", marks(2)), adds[0]]))
    assert [one for portion in found for one in portion] == [*adds, Fill("peer4", marks(2)), adds[0]]
    assert [len(portion) for portion in found] == [MOST_AT_ONCE, 1, 1, 1]
    assert list(portions([])) == []


def test_what_was_put_in_is_taken_out_again() -> None:
    found = list(undone([Fill("peer4", marks(2)), Add("m", b"key", 1, b"end"), Delete("m", b"other")]))
    keys = [(0).to_bytes(4, "big"), (1).to_bytes(4, "big")]
    assert found == [Delete("peer4", keys[0]), Delete("peer4", keys[1]), Delete("m", b"key", b"end")]
