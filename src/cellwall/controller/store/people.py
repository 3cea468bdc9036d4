"""People with accounts, their sessions and tokens, in the state's database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Float, Integer, Row, Table, Text, delete, select, update

from cellwall.controller.store.database import Database
from cellwall.controller.store.tables import METADATA


@dataclass(frozen=True, slots=True)
class Account:
    """An account. `password` is its digest, empty where the person signs in elsewhere; `roles` as people write them."""

    name: str
    password: str
    roles: tuple[str, ...]
    disabled: bool
    created: float
    author: str


@dataclass(frozen=True, slots=True)
class SessionRow:
    """Somebody who has signed in, until `ends`. `digest` is of the session's secret, which is kept nowhere.

    `groups` are what the identity provider said that they belong to."""

    digest: str
    person: str
    way: str
    groups: tuple[str, ...]
    created: float
    used: float
    ends: float
    origin: str


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token for a program. `digest` is of its secret, which is kept nowhere; `used` is 0 where it never was."""

    name: str
    digest: str
    roles: tuple[str, ...]
    created: float
    ends: float
    author: str
    used: float = 0.0


@dataclass(frozen=True, slots=True)
class Failures:
    """How often signing in has failed for a key (an account or an address), and when last."""

    key: str
    count: int
    at: float


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """Somebody whom we sent to the identity provider. `state` and `asker` are digests."""

    state: str
    nonce: str
    verifier: str
    asker: str
    redirect: str
    ends: float


accounts = Table(
    "people",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("password", Text, nullable=False),
    Column("roles", JSON, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created", Float, nullable=False),
    Column("author", Text, nullable=False),
)
sessions = Table(
    "sessions",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("person", Text, nullable=False, index=True),
    Column("way", Text, nullable=False),
    Column("groups", JSON, nullable=False),
    Column("created", Float, nullable=False),
    Column("used", Float, nullable=False),
    Column("ends", Float, nullable=False),
    Column("origin", Text, nullable=False),
)
api_tokens = Table(
    "api_tokens",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("roles", JSON, nullable=False),
    Column("created", Float, nullable=False),
    Column("ends", Float, nullable=False),
    Column("author", Text, nullable=False),
    Column("used", Float, nullable=False),
)
failed_sign_ins = Table(
    "failed_sign_ins",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("at", Float, nullable=False),
)
oidc_sign_ins = Table(
    "oidc_sign_ins",
    METADATA,
    Column("state", Text, primary_key=True),
    Column("nonce", Text, nullable=False),
    Column("verifier", Text, nullable=False),
    Column("asker", Text, nullable=False),
    Column("redirect", Text, nullable=False),
    Column("ends", Float, nullable=False),
)


class PeopleStore:
    """Keeps accounts, sessions and tokens. Every call raises `StateError` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- accounts ---

    def accounts(self) -> tuple[Account, ...]:
        """Give all accounts, in order of name."""
        return tuple(_account(row) for row in self._database.rows(select(accounts).order_by(accounts.c.name)))

    def account(self, name: str) -> Account | None:
        """Give one account."""
        rows = self._database.rows(select(accounts).where(accounts.c.name == name))
        return _account(rows[0]) if rows else None

    def put_account(self, account: Account) -> None:
        """Add an account, or replace the one of that name."""
        self._database.put(accounts, {**asdict(account), "roles": list(account.roles)})

    def drop_account(self, name: str) -> None:
        """Forget an account, and end its sessions."""
        with self._database.transaction():
            self._database.run(delete(accounts).where(accounts.c.name == name))
            self.drop_sessions_of(name)

    # --- sessions ---

    def sessions(self) -> tuple[SessionRow, ...]:
        """Give all sessions, the newest first."""
        return tuple(_session(row) for row in self._database.rows(select(sessions).order_by(sessions.c.created.desc())))

    def session(self, digest: str) -> SessionRow | None:
        """Give a session by the digest of its secret."""
        rows = self._database.rows(select(sessions).where(sessions.c.digest == digest))
        return _session(rows[0]) if rows else None

    def put_session(self, row: SessionRow) -> None:
        """Keep a session."""
        self._database.put(sessions, {**asdict(row), "groups": list(row.groups)})

    def use_session(self, digest: str, at: float) -> None:
        """Note that a session was used; one that was ended meanwhile does not come back."""
        self._database.run(update(sessions).where(sessions.c.digest == digest).values(used=at))

    def drop_session(self, digest: str) -> None:
        """End a session."""
        self._database.run(delete(sessions).where(sessions.c.digest == digest))

    def drop_sessions_of(self, person: str, but: str = "") -> int:
        """End all sessions of a person but one; how many there were."""
        c = sessions.c
        return self._database.run(delete(sessions).where(c.person == person, c.digest != but))

    # --- tokens ---

    def tokens(self) -> tuple[ApiToken, ...]:
        """Give all tokens, in order of name."""
        return tuple(_token(row) for row in self._database.rows(select(api_tokens).order_by(api_tokens.c.name)))

    def token(self, digest: str) -> ApiToken | None:
        """Give a token by the digest of its secret."""
        rows = self._database.rows(select(api_tokens).where(api_tokens.c.digest == digest))
        return _token(rows[0]) if rows else None

    def put_token(self, token: ApiToken) -> None:
        """Keep a token."""
        self._database.put(api_tokens, {**asdict(token), "roles": list(token.roles)})

    def use_token(self, digest: str, at: float) -> None:
        """Note that a token was used; one that was revoked meanwhile does not come back."""
        self._database.run(update(api_tokens).where(api_tokens.c.digest == digest).values(used=at))

    def drop_token(self, name: str) -> bool:
        """Revoke a token; False where there is none of that name."""
        return self._database.run(delete(api_tokens).where(api_tokens.c.name == name)) > 0

    # --- signing in ---

    def failures(self, key: str) -> Failures | None:
        """Give how often signing in has failed for a key."""
        rows = self._database.rows(select(failed_sign_ins).where(failed_sign_ins.c.key == key))
        return Failures(*rows[0]) if rows else None

    def put_failures(self, row: Failures) -> None:
        """Keep how often signing in has failed for a key."""
        self._database.put(failed_sign_ins, asdict(row))

    def drop_failures(self, key: str) -> None:
        """Forget that signing in has failed."""
        self._database.run(delete(failed_sign_ins).where(failed_sign_ins.c.key == key))

    def put_pending(self, row: PendingSignIn) -> None:
        """Keep whom we sent to the identity provider."""
        self._database.put(oidc_sign_ins, asdict(row))

    def take_pending(self, state: str) -> PendingSignIn | None:
        """Give who comes back from the identity provider, once: the second time there is nobody."""
        rows = self._database.rows
        with self._database.transaction():
            found = rows(select(oidc_sign_ins).where(oidc_sign_ins.c.state == state))
            self._database.run(delete(oidc_sign_ins).where(oidc_sign_ins.c.state == state))
        return PendingSignIn(*found[0]) if found else None

    def count_pending(self) -> int:
        """Count who has been sent to the identity provider and has not come back."""
        return len(self._database.rows(select(oidc_sign_ins.c.state)))

    def prune(self, now: float, unused_since: float, failed_before: float) -> None:
        """Forget sessions that ended or were not used since, sign-ins that came to nothing, and old failures."""
        with self._database.transaction():
            self._database.run(delete(sessions).where((sessions.c.ends <= now) | (sessions.c.used < unused_since)))
            self._database.run(delete(oidc_sign_ins).where(oidc_sign_ins.c.ends <= now))
            self._database.run(delete(failed_sign_ins).where(failed_sign_ins.c.at < failed_before))


def _account(row: Row[Any]) -> Account:
    return Account(row.name, row.password, tuple(row.roles), row.disabled, row.created, row.author)


def _session(row: Row[Any]) -> SessionRow:
    return SessionRow(row.digest, row.person, row.way, tuple(row.groups), row.created, row.used, row.ends, row.origin)


def _token(row: Row[Any]) -> ApiToken:
    return ApiToken(row.name, row.digest, tuple(row.roles), row.created, row.ends, row.author, row.used)
