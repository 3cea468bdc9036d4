"""Accounts, sessions, tokens and signed heads are kept alike in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwall.controller.access.trail import Check, pages, sign_head
from cellwall.controller.store.heads import HeadStore
from cellwall.controller.store.people import Account, ApiToken, Failures, PendingSignIn, PeopleStore, SessionRow
from cellwall.controller.store.sql import SqlState, open_state

Opener = Callable[[], SqlState]
ANN = Account("ann", "kept", ("viewer", "author@app=shop"), False, 1.5, "root")
SESSION = SessionRow("d1", "ann", "oidc", ("shop", "ü"), 1.0, 2.0, 9.5, "10.0.0.9")
TOKEN = ApiToken("ci", "d2", ("viewer",), 1.0, 9.0, "root")
PENDING = PendingSignIn("s", "n", "v", "a", "http://127.0.0.1:9/callback", 9.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    if request.param == "postgresql":
        url = request.getfixturevalue("server").make()
        return lambda: open_state(None, url)
    return lambda: open_state(tmp_path / "state.db")


@pytest.fixture
def people(opener: Opener) -> Iterator[PeopleStore]:
    state = opener()
    yield PeopleStore(state.database)
    state.close()


def test_accounts_are_kept_replaced_and_forgotten(people: PeopleStore) -> None:
    people.put_account(ANN)
    people.put_account(replace(ANN, name="bob"))
    people.put_account(replace(ANN, disabled=True))
    assert people.accounts() == (replace(ANN, disabled=True), replace(ANN, name="bob"))
    people.put_session(SESSION)
    people.drop_account("ann")
    assert people.account("ann") is None
    assert people.session("d1") is None


def test_sessions_are_kept_until_they_end(people: PeopleStore) -> None:
    other = replace(SESSION, digest="d3", created=2.0)
    people.put_session(SESSION)
    people.put_session(other)
    assert people.sessions() == (other, SESSION)
    people.use_session("d1", 5.0)
    assert people.session("d1") == replace(SESSION, used=5.0)
    assert people.drop_sessions_of("ann", but="d1") == 1
    people.drop_session("d1")
    people.use_session("d1", 6.0)
    assert people.session("d1") is None, "what was ended does not come back"


def test_what_ended_or_was_not_used_is_forgotten(people: PeopleStore) -> None:
    for digest, used, ends in (("fresh", 8.0, 99.0), ("idle", 1.0, 99.0), ("over", 8.0, 9.0)):
        people.put_session(replace(SESSION, digest=digest, used=used, ends=ends))
    people.put_pending(PENDING)
    people.put_failures(Failures("name ann", 3, 1.0))
    people.put_failures(Failures("name bob", 3, 8.0))
    people.prune(9.0, 5.0, 5.0)
    assert [one.digest for one in people.sessions()] == ["fresh"]
    assert people.count_pending() == 0
    assert (people.failures("name ann"), people.failures("name bob")) == (None, Failures("name bob", 3, 8.0))
    people.drop_failures("name bob")
    assert people.failures("name bob") is None


def test_a_token_is_found_by_its_digest_until_it_is_revoked(people: PeopleStore) -> None:
    people.put_token(TOKEN)
    people.use_token("d2", 4.0)
    assert people.token("d2") == replace(TOKEN, used=4.0)
    assert people.tokens() == (replace(TOKEN, used=4.0),)
    assert people.drop_token("ci")
    assert not people.drop_token("ci")
    assert people.token("d2") is None


def test_who_comes_back_from_the_provider_comes_back_once(people: PeopleStore) -> None:
    people.put_pending(PENDING)
    assert people.count_pending() == 1
    assert people.take_pending("another") is None
    assert people.take_pending("s") == PENDING
    assert people.take_pending("s") is None


def test_many_who_write_at_once_leave_one_whole_signed_log(opener: Opener) -> None:
    key, first = Ed25519PrivateKey.generate(), opener()

    def write(name: str) -> None:
        state = opener()
        for number in range(20):
            state.record(1.0 / 3 + number, name, "label", "web-1", {"n": number, "of": 0.1, "text": "ü\u2028"})
            if number % 5 == 0:
                sign_head(state, HeadStore(state.database), key, 2.0 / 3)
        state.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, ("ann", "bob", "eva")))
    checked = Check(HeadStore(first.database).heads(), key.public_key())
    for page in pages(first):
        checked.take(page)
    found = checked.verdict()
    assert (found.entries, found.broken_at, found.reason) == (60, None, "")
    assert found.heads > 0
    first.close()
