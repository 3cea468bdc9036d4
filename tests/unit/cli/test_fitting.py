"""Tables fit a terminal of 80 columns without breaking what people copy."""

import pytest

from cellwall.cli.fitting import broken, fit

ORDERS = [
    ["ORDER", "contain-9ed15a"],
    ["WHAT", "contain tcp/80 from any to any"],
    ["UNTIL", "2026-11-22 22:14:16"],
    ["IN FORCE AT", "4 of 4"],
]


def test_what_fits_is_left_alone() -> None:
    assert fit(ORDERS, 100) is None


def test_words_stay_whole_and_what_is_left_is_shared() -> None:
    widths = fit(ORDERS, 60)
    assert widths is not None and sum(widths) == 60
    assert widths[0] == len("contain-9ed15a") and widths[2] >= len("2026-11-22")


def test_a_verdict_is_one_word_with_its_sign() -> None:
    assert fit([["STATE", "✔ enforced"], ["WHY", "so it is, and so it stays"]], 20) == [10, 10]


def test_a_verdict_gives_way_behind_its_first_word() -> None:
    assert fit([["OUTCOME", "◌ would be denied"], ["SERVICE", "tcp/443"]], 16) == [9, 7]


def test_the_column_of_the_longest_words_gives_room_before_others_break_theirs() -> None:
    columns = [["SOURCE", "web-1"], ["DESTINATION", "monitoring-1"], ["RULES", "shop-prod-db-to-infra-prod-storage"]]
    assert fit(columns, 30) == [6, 12, 12]
    addresses = [["SOURCE", "fe80::3c63:7aff:fee6:bc6b"], *columns[1:]]
    assert fit(addresses, 40) == [20, 12, 8]


def test_long_words_are_broken_behind_their_joints() -> None:
    assert broken("shop-prod-db-to-infra", 10).splitlines() == ["shop-prod-", "db-to-", "infra"]
    assert broken("a monitoring-1", 12) == "a monitoring-1"
    assert broken("aaaaaaaa b", 3).splitlines() == ["aaa", "aaa", "aa b"]


def test_the_first_column_is_broken_last() -> None:
    assert fit([["NAME", "web-1"], ["DIGEST", "a" * 64]], 20) == [5, 15]
    assert fit([["a" * 64], ["b" * 8]], 20) == [12, 8]


@pytest.mark.parametrize("columns", [[["a" * 9], ["b" * 9]], [[""], ["b"], ["c"]]])
def test_where_there_is_no_room_at_all_nothing_is_promised(columns: list[list[str]]) -> None:
    assert fit(columns, 1) is None
