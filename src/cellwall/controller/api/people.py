"""Routes of people: accounts, and tokens for programs."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from cellwall.controller.access.passwords import new_password
from cellwall.controller.api.desk import Author, Body, TheDesk, listed
from cellwall.controller.api.sign_in import Word, hashed
from cellwall.controller.store.people import Account, ApiToken, SessionRow

router = APIRouter()


class NewPerson(Body):
    """An account; without a password it is for whom the identity provider calls so."""

    name: Word
    roles: list[str] = Field(min_length=1)
    password: Word | None = None
    dry_run: bool = False


class ChangedPerson(Body):
    """What changes of an account; what is null stays."""

    roles: list[str] | None = Field(None, min_length=1)
    password: Word | None = None
    disabled: bool | None = None
    dry_run: bool = False


class NewApiToken(Body):
    """A token for a program."""

    name: Word
    roles: list[str] = Field(min_length=1)
    days: float = 90.0
    dry_run: bool = False


# --- accounts ---


@router.get("/people")
async def people(desk: TheDesk) -> dict[str, Any]:
    """List accounts, and who else is signed in."""
    sessions = desk.people.store.sessions()
    accounts = desk.people.store.accounts()
    known = {one.name for one in accounts}
    found = [_account(one, [row for row in sessions if row.person == one.name]) for one in accounts]
    for name in sorted({row.person for row in sessions} - known):
        rows = [row for row in sessions if row.person == name]
        roles = sorted({str(one) for row in rows for one in desk.people.bindings_of(row)})
        guest = Account(name, "", tuple(roles), False, min(row.created for row in rows), "identity provider")
        found.append(_account(guest, rows))
    return listed(found)


@router.post("/people", status_code=201)
async def add_person(desk: TheDesk, author: Author, body: NewPerson) -> dict[str, Any]:
    """Make an account."""
    kept = "" if body.password is None else await hashed(desk, partial(new_password, body.password, body.name))
    if body.dry_run:
        account = desk.people.draft(body.name, body.roles, kept, author)
    else:
        account = desk.people.add(body.name, body.roles, kept, author)
    return _account(account, [])


@router.put("/people/{name}")
async def change_person(desk: TheDesk, author: Author, name: str, body: ChangedPerson) -> dict[str, Any]:
    """Change an account's roles or password, or close it; what is null stays."""
    kept = None if body.password is None else await hashed(desk, partial(new_password, body.password, name))
    account = desk.people.change(
        name, author, roles=body.roles, kept=kept, disabled=body.disabled, dry_run=body.dry_run
    )
    return _account(account, [])


@router.delete("/people/{name}")
async def remove_person(desk: TheDesk, author: Author, name: str, dry_run: bool = False) -> dict[str, Any]:
    """Forget an account, and end its sessions."""
    desk.people.find(name)
    if not dry_run:
        desk.people.remove(name, author)
    return {"name": name}


@router.delete("/people/{name}/sessions")
async def end_sessions(desk: TheDesk, author: Author, name: str) -> dict[str, Any]:
    """End all sessions of a person, who may sign in again."""
    return {"name": name, "ended": desk.people.sign_out_all(name, author)}


# --- tokens ---


@router.get("/api-tokens")
async def api_tokens(desk: TheDesk) -> dict[str, Any]:
    """List tokens of programs, without their secrets."""
    return listed([_token(one) for one in desk.people.store.tokens()])


@router.post("/api-tokens", status_code=201)
async def make_api_token(desk: TheDesk, author: Author, body: NewApiToken) -> dict[str, Any]:
    """Make a token for a program; it is shown here and nowhere ever again."""
    secret, token = desk.people.mint(body.name, body.roles, body.days, author, dry_run=body.dry_run)
    return {**_token(token), "token": None if body.dry_run else secret}


@router.delete("/api-tokens/{id}")
async def revoke_api_token(desk: TheDesk, author: Author, id: str, dry_run: bool = False) -> dict[str, Any]:
    """Take a token away, by its name."""
    desk.people.revoke(id, author, dry_run=dry_run)
    return {"name": id}


# --- within ---


def _account(one: Account, sessions: list[SessionRow]) -> dict[str, Any]:
    return {
        "name": one.name,
        "roles": list(one.roles),
        "password": bool(one.password),
        "disabled": one.disabled,
        "created": one.created,
        "author": one.author,
        "sessions": [
            {"way": row.way, "from": row.origin, "created": row.created, "used": row.used, "ends": row.ends}
            for row in sessions
        ],
    }


def _token(one: ApiToken) -> dict[str, Any]:
    return {
        "name": one.name,
        "roles": list(one.roles),
        "created": one.created,
        "ends": one.ends,
        "author": one.author,
        "used": one.used or None,
    }
