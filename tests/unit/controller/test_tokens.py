"""A token lets in whom it was made for, as long as it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cellwall.controller.errors import Denied
from cellwall.controller.store.state import TokenRow
from cellwall.controller.trust.tokens import check_token, make_secret, make_token_row, secret_digest
from cellwall.labels import Labels

SECRET = make_secret()
ROW = make_token_row(SECRET, Labels({"app": "shop"}), 3, 60.0, None, "ann", 100.0)


def test_the_secret_is_not_kept() -> None:
    assert SECRET not in str(ROW)
    assert ROW.digest == secret_digest(SECRET)
    assert make_secret() != SECRET


def test_a_free_token_lets_in_any_name() -> None:
    assert check_token(ROW, SECRET, "web-1", 100.0) == "web-1"


def test_a_bound_token_names_the_workload() -> None:
    bound = make_token_row(SECRET, Labels(), 1, 60.0, "web-1", "ann", 100.0)
    assert check_token(bound, SECRET, "", 100.0) == "web-1"
    with pytest.raises(Denied, match="for another workload than `db-1`"):
        check_token(bound, SECRET, "db-1", 100.0)


@pytest.mark.parametrize(
    ("row", "secret", "now"),
    [
        (None, SECRET, 100.0),
        (ROW, "another", 100.0),
        (ROW, SECRET, 160.0),
        (replace(ROW, digest="0" * 64), SECRET, 100.0),
    ],
    ids=["unknown", "another secret", "expired", "another digest"],
)
def test_whatever_is_wrong_with_a_secret_the_answer_is_the_same(row: TokenRow | None, secret: str, now: float) -> None:
    with pytest.raises(Denied, match="the token is unknown, used up or expired; ask for a new one"):
        check_token(row, secret, "web-1", now)


def test_a_name_is_needed() -> None:
    with pytest.raises(Denied, match="names no workload"):
        check_token(ROW, SECRET, "", 100.0)


@pytest.mark.parametrize(
    ("uses", "ttl_s", "workload", "why"),
    [(0, 60.0, None, "uses"), (1, 0.0, None, "seconds"), (1, 1e9, None, "seconds"), (2, 60.0, "web-1", "one use")],
)
def test_a_token_that_makes_no_sense_is_not_made(uses: int, ttl_s: float, workload: str | None, why: str) -> None:
    with pytest.raises(Denied, match=why):
        make_token_row(SECRET, Labels(), uses, ttl_s, workload, "ann", 1.0)
