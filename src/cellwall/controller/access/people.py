"""People and programs: their accounts, how they sign in, and who a secret belongs to.

name and password ─┬─ begin_sign_in ── too often? wait ──┐
                   └─ is_password (in a thread) ─────────┴─ sign_in ──▶ session `cws_…`
identity provider ─── sign_in ──▶ session      people token create ──▶ `cwp_…`
`cws_…` or `cwp_…` ── person_of ──▶ Person
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from ipaddress import ip_address, ip_network

from cellwall.controller.access.person import Binding, Person, Way, parse_binding
from cellwall.controller.access.throttle import FORGOTTEN_AFTER_S, FREE_BY_ADDRESS, FREE_BY_NAME, wait_s
from cellwall.controller.errors import Conflict, ControllerError, NotFound, NotSignedIn, TooOften
from cellwall.controller.store.people import Account, ApiToken, Failures, PeopleStore, SessionRow
from cellwall.controller.store.state import StateStore
from cellwall.traffic import canonical

SESSION, TOKEN = "cws_", "cwp_"
"""How secrets of sessions and of tokens begin, so that people and scanners of leaks know them."""
IDLE_S, LONGEST_S = 4 * 3600.0, 12 * 3600.0
"""A session ends when it is not used for so long, and in any case after so long."""
DAY_S, MOST_DAYS = 86_400.0, 366.0
NOTED_EVERY_S = 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
OURS = frozenset({"controller", "nobody"})
"""Who else stands in the audit log."""
WRONG = "the name or the password is wrong, or the account is closed"
Grants = Callable[[Sequence[str]], tuple[Binding, ...]]


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new session: its secret, which is shown once, whose it is and when it ends at the latest."""

    secret: str
    name: str
    ends: float


class People:
    """The people of one controller. `grants` says what the groups of an identity provider give."""

    def __init__(
        self, store: PeopleStore, state: StateStore, clock: Callable[[], float], grants: Grants | None = None
    ) -> None:
        self.store = store
        self._state = state
        self._clock = clock
        self._grants = grants or _nothing

    # --- accounts ---

    def add(self, name: str, roles: Sequence[str], kept: str, author: str) -> Account:
        """Make an account; without a password it is for whom an identity provider calls so. Raises `Conflict`.

        `kept` is what `new_password` gives, or empty."""
        account = self.draft(name, roles, kept, author)
        with self._state.transaction():
            self.store.put_account(account)
            self._record(author, "add person", name, {"roles": list(account.roles), "password": bool(kept)})
        return account

    def draft(self, name: str, roles: Sequence[str], kept: str, author: str) -> Account:
        """Give an account that could be made. Raises `Conflict` and `ControllerError`."""
        _check_name(name)
        if self.store.account(name) is not None:
            raise Conflict(f"there is an account `{name}` already")
        return Account(name, kept, _roles(roles), False, self._clock(), author)

    def change(
        self,
        name: str,
        author: str,
        *,
        roles: Sequence[str] | None = None,
        kept: str | None = None,
        disabled: bool | None = None,
        dry_run: bool = False,
    ) -> Account:
        """Change what is not None of an account. Whoever loses a password or is disabled is signed out."""
        before = self.find(name)
        after = replace(
            before,
            roles=before.roles if roles is None else _roles(roles),
            password=before.password if kept is None else kept,
            disabled=before.disabled if disabled is None else disabled,
        )
        if dry_run:
            return after
        changed: dict[str, object] = {"roles": list(after.roles)} if roles is not None else {}
        changed |= {"password": True} if kept is not None else {}
        changed |= {"disabled": disabled} if disabled is not None else {}
        with self._state.transaction():
            self.store.put_account(after)
            if kept is not None or after.disabled:
                self.store.drop_sessions_of(name)
            self._record(author, "change person", name, changed)
        return after

    def remove(self, name: str, author: str) -> None:
        """Forget an account, and end its sessions. Raises `NotFound`."""
        self.find(name)
        with self._state.transaction():
            self.store.drop_account(name)
            self._record(author, "remove person", name)

    def set_own_password(self, person: Person, kept: str, origin: str) -> None:
        """Give the person who asks another password, and end their other sessions. Raises `NotFound`."""
        account = self.find(person.name)
        with self._state.transaction():
            self._forgive(account.name, origin)
            self.store.put_account(replace(account, password=kept))
            self.store.drop_sessions_of(account.name, but=person.key)
            self._record(person.name, "change password", person.name)

    def find(self, name: str) -> Account:
        """Give an account. Raises `NotFound`."""
        account = self.store.account(name)
        if account is None:
            raise NotFound(f"there is no account `{name}`")
        return account

    # --- signing in ---

    def begin_sign_in(self, name: str, origin: str) -> str:
        """Count an attempt, and give what is kept of the password, empty where there is none. Raises `TooOften`.

        It counts as failed until `sign_in`: who asks many times at once gets no more tries than one after the other."""
        now = self._clock()
        with self._state.transaction():
            for key, free in _keys(name, origin):
                known = self.store.failures(key) or Failures(key, 0, now)
                if (wait := wait_s(known.count, now - known.at, free)) > 0:
                    raise TooOften(math.ceil(wait))
                count = known.count if now - known.at < FORGOTTEN_AFTER_S else 0
                self.store.put_failures(Failures(key, count + 1, now))
        account = self.store.account(name) if _NAME.fullmatch(name) else None
        return "" if account is None or account.disabled else account.password

    def refused(self, name: str) -> NotSignedIn:
        """Write down that signing in failed, and give the error that says so."""
        known = bool(_NAME.fullmatch(name)) and self.store.account(name) is not None
        # What is no account's name may be a password typed in the wrong place.
        self._record("nobody", "sign in refused", name if known else "unknown account")
        return NotSignedIn(WRONG)

    def sign_in(self, name: str, way: Way, origin: str, groups: Sequence[str] = ()) -> SignedIn:
        """Begin a session of somebody who has proved who they are. Raises `NotSignedIn` where they are nobody here."""
        now = self._clock()
        account = self.store.account(name)
        row = SessionRow("", name, way.value, tuple(groups), now, now, now + LONGEST_S, origin)
        if way is Way.OIDC and (not _NAME.fullmatch(name) or name in OURS):
            raise NotSignedIn(
                f"`{name[:128]}` cannot be a name here; wanted letters, digits, and `._@+-` behind the first"
            )
        if way is Way.OIDC and account is not None and account.password:
            raise NotSignedIn(f"`{name}` is an account of this controller: sign in with its password")
        if not self.bindings_of(row):
            self._record("nobody", "sign in refused", name, {"why": "no role", "way": way.value})
            raise NotSignedIn(f"`{name}` has no role here; an administrator can give one: `cellwall people add`")
        secret = SESSION + secrets.token_urlsafe(32)
        with self._state.transaction():
            if way is Way.PASSWORD:
                self._forgive(name, origin)
            self.store.put_session(replace(row, digest=digest_of(secret)))
            self._record(name, "sign in", name, {"way": way.value})
        return SignedIn(secret, name, row.ends)

    def sign_out(self, person: Person) -> None:
        """End the session by which somebody asks."""
        with self._state.transaction():
            self.store.drop_session(person.key)
            self._record(person.name, "sign out", person.name)

    def sign_out_all(self, name: str, author: str) -> int:
        """End all sessions of a person; how many there were."""
        with self._state.transaction():
            count = self.store.drop_sessions_of(name)
            self._record(author, "end sessions", name, {"count": count})
        return count

    def person_of(self, secret: str, origin: str) -> Person | None:
        """Say who a session or a token belongs to; None where it is nobody's, or no longer."""
        if secret.startswith(TOKEN):
            return self._of_token(digest_of(secret), origin)
        if secret.startswith(SESSION):
            return self._of_session(digest_of(secret), origin)
        return None

    # --- tokens ---

    def mint(
        self, name: str, roles: Sequence[str], days: float, author: str, *, dry_run: bool = False
    ) -> tuple[str, ApiToken]:
        """Make a token for a program; its secret is given here and nowhere ever again. Raises `Conflict`."""
        _check_name(name)
        if not 0 < days <= MOST_DAYS:
            raise ControllerError(f"`{days:g}` days; wanted over 0 and at most {MOST_DAYS:g}")
        if any(one.name == name for one in self.store.tokens()):
            raise Conflict(f"there is a token `{name}` already; revoke it, or choose another name")
        secret, now = TOKEN + secrets.token_urlsafe(32), self._clock()
        token = ApiToken(name, digest_of(secret), _roles(roles), now, now + days * DAY_S, author)
        if dry_run:
            return "", token
        with self._state.transaction():
            self.store.put_token(token)
            self._record(author, "make api token", name, {"roles": list(token.roles), "ends": token.ends})
        return secret, token

    def revoke(self, name: str, author: str, *, dry_run: bool = False) -> None:
        """Take a token away. Raises `NotFound`."""
        if all(one.name != name for one in self.store.tokens()):
            raise NotFound(f"there is no token `{name}`")
        if dry_run:
            return
        with self._state.transaction():
            self.store.drop_token(name)
            self._record(author, "revoke api token", name)

    def prune(self) -> None:
        """Forget sessions that ended, and failures from long ago."""
        now = self._clock()
        self.store.prune(now, now - IDLE_S, now - FORGOTTEN_AFTER_S)

    # --- within ---

    def _of_session(self, digest: str, origin: str) -> Person | None:
        row, now = self.store.session(digest), self._clock()
        if row is None or now >= row.ends or now - row.used > IDLE_S:
            return None
        bindings = self.bindings_of(row)
        if not bindings:
            return None
        if now - row.used > NOTED_EVERY_S:
            self.store.use_session(digest, now)
        return Person(row.person, bindings, Way(row.way), origin, digest)

    def _of_token(self, digest: str, origin: str) -> Person | None:
        token, now = self.store.token(digest), self._clock()
        if token is None or now >= token.ends:
            return None
        if now - token.used > NOTED_EVERY_S:
            self.store.use_token(digest, now)
        bindings = tuple(parse_binding(text) for text in token.roles)
        return Person(f"token:{token.name}", bindings, Way.TOKEN, origin, digest, token.author)

    def bindings_of(self, row: SessionRow) -> tuple[Binding, ...]:
        """Give what somebody may at this moment: what their account, and the groups they came with, give."""
        account = self.store.account(row.person)
        if (account is None and row.way != Way.OIDC) or (account is not None and account.disabled):
            return ()
        own = tuple(parse_binding(text) for text in account.roles) if account else ()
        return (*own, *(self._grants(row.groups) if row.way == Way.OIDC else ()))

    def _forgive(self, name: str, origin: str) -> None:
        """Take back that this attempt was counted as failed; others from the same address stay counted."""
        (by_name, _), (by_address, _) = _keys(name, origin)
        self.store.drop_failures(by_name)
        known = self.store.failures(by_address)
        if known is not None:
            self.store.put_failures(replace(known, count=max(known.count - 1, 0)))

    def _record(self, author: str, action: str, subject: str, details: Mapping[str, object] | None = None) -> None:
        self._state.record(self._clock(), author, action, subject, details)


def digest_of(secret: str) -> str:
    """Give what is kept of a secret. It has 256 random bits, so that a plain hash cannot be searched."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _keys(name: str, origin: str) -> tuple[tuple[str, int], ...]:
    named = f"name {name}" if _NAME.fullmatch(name) else "name"
    return ((named, FREE_BY_NAME), (f"from {subnet(origin)}", FREE_BY_ADDRESS))


def subnet(origin: str) -> str:
    """Give what one asker has of addresses: an IPv4 address, or a /64 of IPv6 (RFC 4291, 2.5.1)."""
    try:
        address = canonical(ip_address(origin.partition("%")[0]))
    except ValueError:
        return origin
    return str(address) if address.version == 4 else str(ip_network((address, 64), strict=False))


def _nothing(_groups: Sequence[str]) -> tuple[Binding, ...]:
    return ()


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name in OURS:
        raise ControllerError(f"`{name[:128]}` is no name; wanted letters, digits, and `._@+-` behind the first")


def _roles(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(parse_binding(text)) for text in texts))
