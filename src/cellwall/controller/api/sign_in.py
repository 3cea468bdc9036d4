"""Routes of signing in and out: with a password, and with an identity provider."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import StringConstraints

from cellwall.controller.access.oidc import ask, authorization_url, check_redirect
from cellwall.controller.access.passwords import LONGEST, is_password, new_password
from cellwall.controller.access.people import SignedIn, digest_of, subnet
from cellwall.controller.access.person import Way
from cellwall.controller.access.provider import Provider
from cellwall.controller.api.desk import Body, Desk, TheDesk, Who
from cellwall.controller.api.door import COOKIE, cookie_of, csrf_of
from cellwall.controller.errors import ControllerError, Denied, NotFound, NotReady, TooOften
from cellwall.controller.store.people import PendingSignIn

router = APIRouter()
T = TypeVar("T")
PENDING, PENDING_S, MOST_PENDING = "__Host-cellwall-oidc", 600.0, 10_000
Word = Annotated[str, StringConstraints(min_length=1, max_length=4 * LONGEST)]


class Credentials(Body):
    """A name and its password; with `cookie` the session is one of a browser."""

    name: Word
    password: Word
    cookie: bool = False


class OidcBegun(Body):
    """Where the browser is to be sent back to: loopback of who asks."""

    redirect: Word


class OidcFinished(Body):
    """What came back with the browser, and what `POST /session/oidc` said."""

    state: Word
    code: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    secret: Word
    iss: str | None = None


class NewPassword(Body):
    """The password that holds, and the one that is to."""

    old: Word
    new: Word


# --- signing in ---


@router.get("/authority")
async def authority(desk: TheDesk) -> dict[str, str]:
    """Give the certificate of our CA, for whoever knows its fingerprint."""
    return {"pem": desk.control.authority.pem, "fingerprint": desk.control.authority.fingerprint}


@router.get("/session/ways")
async def ways(desk: TheDesk) -> dict[str, Any]:
    """Say how one can sign in."""
    provider = desk.provider
    return {
        "controller": desk.control.options.name,
        "password": True,
        "oidc": provider.options.issuer if provider else None,
        "browser": bool(provider and provider.options.redirect),
    }


@router.post("/session", status_code=201)
async def sign_in(desk: TheDesk, request: Request, response: Response, body: Credentials) -> dict[str, Any]:
    """Sign in with name and password."""
    people, origin = desk.people, _origin(request)
    kept = people.begin_sign_in(body.name, origin)
    if not await hashed(desk, partial(is_password, body.password, kept)):
        raise people.refused(body.name)
    return _begun(people.sign_in(body.name, Way.PASSWORD, origin), response, cookie=body.cookie)


@router.post("/session/oidc", status_code=201)
async def begin_oidc(desk: TheDesk, request: Request, body: OidcBegun) -> dict[str, Any]:
    """Begin to sign in with the identity provider, for a program that can open a browser (RFC 8252)."""
    url, state, asker = await _begin_oidc(desk, body.redirect, _origin(request))
    return {"url": url, "state": state, "secret": asker}


@router.post("/session/oidc/finish", status_code=201)
async def finish_oidc(desk: TheDesk, request: Request, body: OidcFinished) -> dict[str, Any]:
    """Sign in with what the identity provider gave to the browser."""
    return _begun(await _finish_oidc(desk, request, body.state, body.secret, body.code, body.iss))


@router.get("/session/oidc/browser", response_class=RedirectResponse, status_code=302)
async def begin_in_browser(desk: TheDesk, request: Request) -> RedirectResponse:
    """Send a browser to the identity provider."""
    provider = _provider(desk)
    if not provider.options.redirect:
        raise NotFound("browsers cannot sign in this way: the file of `--oidc` names no `redirect`")
    url, _, asker = await _begin_oidc(desk, provider.options.redirect, _origin(request))
    answer = RedirectResponse(url, 302)
    # Lax: the browser comes back from another site, and must bring it.
    _set_cookie(answer, PENDING, asker, "lax", int(PENDING_S))
    return answer


@router.get("/session/oidc/callback", response_class=HTMLResponse)
async def come_back(
    desk: TheDesk, request: Request, state: str = "", code: str = "", iss: str | None = None, error: str = ""
) -> HTMLResponse:
    """Take a browser that comes back from the identity provider."""
    if error or not code:
        raise Denied(f"the identity provider refused: {error[:200] or 'it gave no code'}")
    asker = cookie_of({"cookie": request.headers.get("cookie", "")}, PENDING)
    begun = await _finish_oidc(desk, request, state, asker, code, iss)
    # A page and no redirect: a cookie that is SameSite=Strict is not sent on one that began at another site.
    page = f"<!doctype html><title>Cellwall</title><p>Signed in as {html.escape(begun.name)}. <a href='/'>Go on</a></p>"
    answer = HTMLResponse(page, headers={"Refresh": "0; url=/"})
    _set_cookie(answer, COOKIE, begun.secret, "strict", None)
    answer.delete_cookie(PENDING, path="/", secure=True, httponly=True, samesite="lax")
    return answer


@router.get("/session")
async def who_am_i(request: Request, who: Who) -> dict[str, Any]:
    """Say who asks, and what they may."""
    secret = "" if request.headers.get("authorization") else cookie_of(dict(request.headers), COOKIE)
    return {
        "name": who.name,
        "way": who.way,
        "roles": [str(one) for one in who.bindings],
        "owner": who.owner,
        "csrf": csrf_of(secret) if secret and who.way is not Way.SOCKET else None,
    }


@router.delete("/session")
async def sign_out(desk: TheDesk, who: Who, response: Response) -> dict[str, Any]:
    """End the session by which somebody asks."""
    if who.way not in (Way.PASSWORD, Way.OIDC):
        raise ControllerError(f"`{who.name}` has no session here")
    desk.people.sign_out(who)
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return {"name": who.name}


@router.post("/session/password")
async def change_password(desk: TheDesk, request: Request, who: Who, body: NewPassword) -> dict[str, Any]:
    """Change one's own password; other sessions end."""
    if who.way is not Way.PASSWORD:
        raise Denied(f"`{who.name}` has no password here")
    kept = desk.people.begin_sign_in(who.name, _origin(request))
    if not await hashed(desk, partial(is_password, body.old, kept)):
        raise desk.people.refused(who.name)
    desk.people.set_own_password(who, await hashed(desk, partial(new_password, body.new, who.name)), _origin(request))
    return {"name": who.name}


# --- within ---


async def hashed(desk: Desk, work: Callable[[], T]) -> T:
    """Do work on a password in another thread, not too much of it at once."""
    async with desk.hashing:
        return await asyncio.to_thread(work)


def _provider(desk: Desk) -> Provider:
    if desk.provider is None:
        raise NotFound("this controller has no identity provider; sign in with name and password")
    return desk.provider


async def _begin_oidc(desk: Desk, redirect: str, origin: str) -> tuple[str, str, str]:
    """Give where the browser goes, and the state and the secret that it has to come back with."""
    provider, store, now = _provider(desk), desk.people.store, desk.clock()
    check_redirect(provider.options, redirect)
    # Else one who begins sign-ins and ends none would leave no room for others.
    if not desk.beginning.admits(subnet(origin), now):
        raise TooOften(10)
    if store.count_pending() >= MOST_PENDING:
        raise NotReady("too many people are signing in at once; try again in some minutes")
    async with desk.asking:
        endpoint = await asyncio.to_thread(provider.endpoint, now)
    asked, asker = ask(), ask().state
    store.put_pending(
        PendingSignIn(digest_of(asked.state), asked.nonce, asked.verifier, digest_of(asker), redirect, now + PENDING_S)
    )
    return authorization_url(endpoint, provider.options, asked, redirect), asked.state, asker


async def _finish_oidc(desk: Desk, request: Request, state: str, asker: str, code: str, iss: str | None) -> SignedIn:
    provider, origin = _provider(desk), _origin(request)
    try:
        # RFC 9207: an answer of another provider is not for us.
        if iss is not None and iss != provider.options.issuer:
            raise Denied("the answer is another identity provider's")
        pending = desk.people.store.take_pending(digest_of(state))
        if pending is None or desk.clock() >= pending.ends or digest_of(asker) != pending.asker:
            raise Denied("this sign-in was not begun here, or is over; begin again")
        async with desk.asking:
            claimed = await asyncio.to_thread(provider.redeem, pending, code, desk.clock())
    except Denied as error:
        desk.control.store.record(desk.clock(), "nobody", "sign in refused", "identity provider", {"why": str(error)})
        raise
    return desk.people.sign_in(claimed.name, Way.OIDC, origin, claimed.groups)


def _begun(begun: SignedIn, response: Response | None = None, *, cookie: bool = False) -> dict[str, Any]:
    answer: dict[str, Any] = {"name": begun.name, "ends": begun.ends}
    if cookie and response is not None:
        _set_cookie(response, COOKIE, begun.secret, "strict", None)
        return {**answer, "csrf": csrf_of(begun.secret)}
    return {**answer, "session": begun.secret}


def _set_cookie(response: Response, name: str, value: str, same: Literal["strict", "lax"], seconds: int | None) -> None:
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite=same)


def _origin(request: Request) -> str:
    return request.client.host if request.client is not None else ""
