"""The way in to the people's API: who asks is found out before anything of the request is read.

socket ── the kernel says who ─────────────┐
TLS ───── `Authorization` or cookie ───────┼─▶ Person ─▶ right of the route? ─▶ application ─▶ the same again,
          nobody: only open routes ────────┘                 └─ 403, audited                  by the route itself
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cellwall.clients import REQUEST
from cellwall.controller.access.people import OURS, digest_of
from cellwall.controller.access.person import ADMIN, Person, Way
from cellwall.controller.access.rights import ROUTES, Need, Right, need_of
from cellwall.controller.access.throttle import Bucket
from cellwall.controller.api.desk import Desk, the_person
from cellwall.controller.errors import Denied, NotSignedIn, StateError
from cellwall.controller.store.asked import ASKED

ROOT = "/api/v1"
COOKIE, CSRF = "__Host-cellwall", "x-csrf-token"
MOST_BODY, MOST_OPEN_BODY = 32 << 20, 64 << 10
"""How many bytes a request may have: of somebody who has signed in, and of anybody."""
READING_S = 60.0
"""How long a request may take to come."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
FACE = "cellwall.face"
HEADERS = (
    (b"strict-transport-security", b"max-age=31536000"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_TEMPLATES = tuple((method, tuple(path.strip("/").split("/")), path) for method, path in ROUTES)


def at_socket(app: ASGIApp) -> ASGIApp:
    """Give the application as it is at the Unix socket: who may open that administers the fleet."""

    async def opened(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, FACE: Way.SOCKET}, receive, send)

    return opened


class Door:
    """Lets requests in, or answers them itself; see above."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app = app
        self._desk = desk
        self._written = Bucket(60, 0.2)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        socket = scope.get(FACE) is Way.SOCKET
        answer = send if socket else _guarding(send)
        headers = _headers(scope)
        template, need = matched(scope["method"], scope["path"])
        try:
            person = _at_socket(scope) if socket else self._person(scope, headers)
        except (Denied, NotSignedIn, StateError) as error:
            if not isinstance(error, StateError):
                self._write_down("nobody", scope, template, error.status)
            await _refuse(answer, getattr(error, "status", 503), str(error))
            return
        opened = need is not None and need.right is Right.OPEN
        if person is None and not opened:
            await _refuse(answer, 401, "nobody knows who asks; sign in with `cellwall login`, or give a token")
            return
        most = MOST_BODY if person is not None else MOST_OPEN_BODY
        if _length(headers) > most:
            await _refuse(answer, 413, f"the request is longer than {most} bytes")
            return
        asked = _asked(scope, person)
        mark = ASKED.set(asked)
        try:
            if person is not None and need is not None and not opened and not person.meets(need):
                self._write_down(person.name, scope, template, 403)
                await _refuse(answer, 403, _lacks(person, need))
                return
            state = {**scope.get("state", {}), "person": person, "template": template}
            await self._app({**scope, "state": state}, _limited(receive, most), answer)
        finally:
            ASKED.reset(mark)

    def _person(self, scope: Scope, headers: Mapping[str, str]) -> Person | None:
        """Say who asks over the network; None is nobody. Raises `Denied` and `NotSignedIn`."""
        people, origin = self._desk.people, _origin(scope)
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind:
            person = people.person_of(secret.strip(), origin) if kind.lower() == "bearer" else None
            if person is None:
                raise NotSignedIn("the session or token is unknown, or ended; sign in again")
            return person
        if scope["method"] not in SAFE:
            _check_origin(headers)
        secret = cookie_of(headers, COOKIE)
        person = people.person_of(secret, origin) if secret else None
        if person is not None and scope["method"] not in SAFE:
            _check_same_site(headers, secret)
        return person

    def _write_down(self, name: str, scope: Scope, template: str, status: int) -> None:
        now = self._desk.clock()
        if not self._written.admits(now):
            return
        details: dict[str, object] = {"method": scope["method"], "status": status}
        if not ASKED.get():
            details["from"] = _origin(scope)
        if held := self._written.take_held_back():
            details["unwritten"] = held
        with suppress(StateError):
            self._desk.control.store.record(now, name, "refused", template, details)


def matched(method: str, path: str) -> tuple[str, Need | None]:
    """Give the entry of the table of rights that a request falls under: its path, and what it asks for.

    An entry without parameters goes before one that has some."""
    below = path.removeprefix(ROOT) if path.startswith(f"{ROOT}/") else path
    if (need := need_of(method, below)) is not None:
        return below, need
    words = below.strip("/").split("/")
    for other, template, text in _TEMPLATES:
        same = other == ("GET" if method == "HEAD" else method) and len(template) == len(words)
        if same and all(one == word or one[:1] == "{" for one, word in zip(template, words, strict=True)):
            return text, need_of(method, text)
    return "", None


async def guard(request: Request) -> None:
    """Ask for the right of the route that answers, whatever the door made of the path. Raises `Denied`."""
    template = str(getattr(request.scope.get("route"), "path", "")).removeprefix(ROOT)
    need = need_of(request.method, template)
    if need is None:
        raise Denied(f"`{request.method} {template}` has no entry in the table of rights, so nobody may use it")
    if need.right is not Right.OPEN and not (person := the_person(request)).meets(need):
        raise Denied(_lacks(person, need))


def csrf_of(secret: str) -> str:
    """Give the token that a browser must send beside its cookie."""
    return digest_of(f"csrf {secret}")


def cookie_of(headers: Mapping[str, str], name: str) -> str:
    """Give a cookie of a request; empty where there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _check_origin(headers: Mapping[str, str]) -> None:
    """Raise `Denied` where another site sends the request: it is not to sign anybody in, either."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise Denied("the request comes from another site")


def _check_same_site(headers: Mapping[str, str], secret: str) -> None:
    # Three walls: SameSite=Strict of the cookie, where the request comes from, a token that other sites cannot read.
    if not secrets.compare_digest(headers.get(CSRF, "").encode(), csrf_of(secret).encode()):
        raise Denied("the request lacks its `X-CSRF-Token`; it is in the answer of `GET /api/v1/session`")


def _at_socket(scope: Scope) -> Person:
    client = scope.get("client")
    name = str(client[0]) if client and client[0] else "local"
    # A user who is called as the controller itself is in the log is not to be taken for it.
    return Person(f"user {name}" if name in OURS else name, ADMIN, Way.SOCKET)


def _origin(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _asked(scope: Scope, person: Person | None) -> dict[str, object]:
    asked: dict[str, object] = {"request": REQUEST.get()} if REQUEST.get() else {}
    asked["way"] = person.way.value if person else "none"
    if origin := person.origin if person else _origin(scope):
        asked["from"] = origin
    if person is not None and person.made_by:
        asked["made_by"] = person.made_by
    return asked


def _lacks(person: Person, need: Need) -> str:
    where = " everywhere" if need.everywhere and person.may_somewhere(need.right) else ""
    roles = ", ".join(f"`{one}`" for one in person.bindings)
    return f"`{person.name}` may not {need.right}{where}; their roles are {roles}"


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() else 0


def _limited(receive: Receive, most: int) -> Receive:
    """Read no more than `most` bytes, however long the request said it is, and not for ever."""
    read, more, until = 0, True, asyncio.get_running_loop().time() + READING_S

    async def limited() -> Message:
        nonlocal read, more
        try:
            async with asyncio.timeout_at(until if more else None):
                message = await receive()
        except TimeoutError:
            raise Denied(f"the request did not come within {READING_S:g} s") from None
        read += len(message.get("body", b""))
        more = bool(message.get("more_body"))
        if read > most:
            raise Denied(f"the request is longer than {most} bytes")
        return message

    return limited


def _guarding(send: Send) -> Send:
    async def guarding(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            named = {name.lower() for name, _ in given}
            message["headers"] = [*given, *((name, value) for name, value in HEADERS if name not in named)]
        await send(message)

    return guarding


async def _refuse(send: Send, status: int, detail: str) -> None:
    titles = {401: "not signed in", 403: "not allowed", 413: "too long", 503: "try later"}
    body = {"type": "about:blank", "title": titles.get(status, "error"), "status": status, "detail": detail}
    headers = [(b"content-type", b"application/problem+json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
