"""The audit log as evidence: whatever is done to it is noticed."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from cellwall.controller.access.kept_head import kept_head, sign_and_keep
from cellwall.controller.access.trail import Check, Verdict, is_signed, pages, sign_head
from cellwall.controller.store.asked import ASKED
from cellwall.controller.store.heads import Head, HeadStore
from cellwall.controller.store.sql import SqlState, open_state
from cellwall.controller.store.state import AuditEntry, audit_entry

KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def state() -> Iterator[SqlState]:
    state = open_state(None)
    for number in range(10):
        state.record(float(number), "ann", "label", f"web-{number}", {"n": number})
    yield state
    state.close()


def check(entries: Sequence[AuditEntry], heads: Sequence[Head]) -> Verdict:
    checked = Check(heads, KEY.public_key())
    checked.take(entries[:4])
    checked.take(entries[4:])
    return checked.verdict()


def test_a_whole_log_is_whole(state: SqlState) -> None:
    heads = HeadStore(state.database)
    head = sign_head(state, heads, KEY, 99.0)
    assert head is not None
    assert is_signed(head, KEY.public_key())
    assert sign_head(state, heads, KEY, 100.0) is None, "nothing was done since"
    state.record(101.0, "ann", "label", "web-1")
    entries = [entry for page in pages(state) for entry in page]
    assert check(entries, heads.heads()) == Verdict(11, 1, 10)
    assert check([], []) == Verdict(0, 0, 0)


def rewritten(entries: list[AuditEntry]) -> list[AuditEntry]:
    """Give the log as a forger would: an entry changed, and the chain made anew from there."""
    forged: list[AuditEntry] = []
    last = None
    for one in reversed(entries):
        author = "eve" if one.number == 4 else one.author
        last = audit_entry(last, one.at, author, one.action, one.subject, one.details)
        forged.append(last)
    return forged[::-1]


FORGERIES: dict[str, tuple[Callable[[list[AuditEntry]], list[AuditEntry]], int]] = {
    "an entry says something else": (
        lambda all_: [replace(one, author="eve") if one.number == 4 else one for one in all_],
        4,
    ),
    "an entry is missing": (lambda all_: [one for one in all_ if one.number != 4], 5),
    "the first ones are missing": (lambda all_: all_[:-3], 4),
    "the last ones are missing": (lambda all_: all_[2:], 10),
    "all are missing": (lambda _: [], 10),
    "the chain was made anew": (rewritten, 10),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found_at_its_first_entry(state: SqlState, name: str) -> None:
    forge, at = FORGERIES[name]
    heads = HeadStore(state.database)
    sign_head(state, heads, KEY, 99.0)
    entries = [entry for page in pages(state) for entry in page]
    found = check(forge(entries), heads.heads())
    assert found.broken_at == at, found


def test_a_head_that_another_key_signed_counts_for_nothing(state: SqlState) -> None:
    heads = HeadStore(state.database)
    sign_head(state, heads, Ed25519PrivateKey.generate(), 99.0)
    entries = [entry for page in pages(state) for entry in page]
    found = check(entries, heads.heads())
    assert (found.broken_at, found.signed_to) == (10, 0)
    assert "key" in found.reason
    assert not is_signed(replace(heads.heads()[0], signature="zz"), KEY.public_key())


def test_an_entry_says_by_which_request_it_was_made(state: SqlState) -> None:
    mark = ASKED.set({"request": "abc", "way": "token"})
    try:
        state.record(50.0, "token:ci", "label", "web-1", {"n": 1})
    finally:
        ASKED.reset(mark)
    state.record(51.0, "ann", "label", "web-1", {"n": 1})
    after, with_request = state.audit(2)
    assert with_request.details == {"n": 1, "asked": {"request": "abc", "way": "token"}}
    assert after.details == {"n": 1}


# --- the head that is kept beside the keys ---


def test_who_owns_the_database_alone_cannot_cut_the_log_unnoticed(state: SqlState, tmp_path: Path) -> None:
    heads = HeadStore(state.database)
    assert sign_and_keep(state, heads, KEY, tmp_path, 99.0)[1]
    kept = kept_head(tmp_path)
    assert kept is not None and kept.number == 10
    assert stat.S_IMODE((tmp_path / "audit.head").stat().st_mode) == 0o600
    # The last three entries go, with every head that knew of them.
    for statement in (
        "drop trigger if exists audit_no_delete",
        "delete from audit where number > 7",
        "delete from audit_heads",
    ):
        state.database.run(text(statement))
    entries = [entry for page in pages(state) for entry in page]
    assert check(entries, heads.heads()).broken_at is None, "by itself the rest is a whole log"
    found = check(entries, (*heads.heads(), kept))
    assert (found.broken_at, found.reason) == (10, "it was signed and is missing: the log ends at 7")
    # Nor does it help to wait until the controller signs anew, nor until the log is longer than it was.
    assert not sign_and_keep(state, heads, KEY, tmp_path, 100.0)[1]
    for number in range(7):
        state.record(200.0 + number, "eve", "label", f"web-{number}")
    assert not sign_and_keep(state, heads, KEY, tmp_path, 300.0)[1]
    assert kept_head(tmp_path) == kept
    entries = [entry for page in pages(state) for entry in page]
    assert check(entries, (*heads.heads(), kept)).reason == "it is not the entry that was signed"


def test_the_kept_head_goes_on_with_the_log(state: SqlState, tmp_path: Path) -> None:
    heads = HeadStore(state.database)
    for number in (10, 11, 12):
        assert sign_and_keep(state, heads, KEY, tmp_path, 99.0)[1]
        kept = kept_head(tmp_path)
        assert kept is not None and kept.number == number
        state.record(101.0, "ann", "label", "web-1")
    (tmp_path / "audit.head").write_text("nonsense")
    assert kept_head(tmp_path) is None and sign_and_keep(state, heads, KEY, tmp_path, 99.0)[1]
