"""The people's API: REST over a Unix socket that only its owner may open, and over TLS for whoever signs in.

socket ─ at_socket ─┐
TLS ────────────────┴─ Traced ─ Door ─ application ─ guard ─ route
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from cellwall.controller.access.kept_head import NAME, sign_and_keep
from cellwall.controller.api import (
    answers,
    audit,
    controllers,
    explain,
    grounds,
    health,
    inventory,
    orders,
    people,
    policies,
    seen,
    sign_in,
    support,
)
from cellwall.controller.api.crowd import Crowd, Peer
from cellwall.controller.api.desk import Desk
from cellwall.controller.api.door import ROOT, Door, at_socket, guard
from cellwall.controller.api.missing import Telling
from cellwall.controller.api.schema import PROBLEM, describe
from cellwall.controller.api.trace import Traced, broke
from cellwall.controller.errors import ControllerError, StateError, TooOften
from cellwall.controller.listening import listen
from cellwall.controller.options import ControllerOptions, parse_endpoint
from cellwall.controller.store.flows import FlowStoreError
from cellwall.controller.trust.ca import SERVER_DAYS
from cellwall.policy import PolicyError
from cellwall.traffic import CellwallError

_TITLES = {
    400: "bad request",
    401: "not signed in",
    403: "not allowed",
    404: "not found",
    409: "conflict",
    429: "too often",
    503: "try later",
}
KEEP_HOUSE_S, MOST_AT_ONCE, DAY_S = 60.0, 500, 86_400.0


def create_app(desk: Desk) -> FastAPI:
    """Make the application that answers people."""
    app = FastAPI(
        title="Cellwall",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{ROOT}/openapi.json",
        dependencies=[Depends(guard)],
    )
    app.state.desk = desk
    rooms = (controllers, inventory, policies, seen, answers, explain, grounds, orders, sign_in, people, audit, support)
    for room in rooms:
        app.include_router(room.router, prefix=ROOT)
    app.include_router(health.router)
    app.add_middleware(Telling)
    app.add_middleware(Door, desk=desk)
    app.add_exception_handler(CellwallError, _cellwall)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, broke)
    describe(app)
    return app


def problem(status: int, title: str, detail: str, **more: object) -> JSONResponse:
    """Give the answer that says what is wrong (RFC 9457)."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, media_type=PROBLEM)


async def _cellwall(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, PolicyError):
        at = error.place
        told = {"file": at.file, "line": at.line, "column": at.column, "message": error.message}
        others = [str(one) for one in error.others]
        return problem(422, "the policy is wrong", str(error), **told, others=others)
    status = error.status if isinstance(error, ControllerError) else 400
    if isinstance(error, FlowStoreError | StateError):
        status = 503
    answer = problem(status, _TITLES.get(status, "error"), str(error), **_more(error))
    if isinstance(error, TooOften):
        answer.headers["Retry-After"] = str(error.wait_s)
    return answer


def _more(error: Exception) -> dict[str, object]:
    found = getattr(error, "details", None)
    return {"details": found} if found else {}


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults: list[dict[str, Any]] = [
        {"where": ".".join(str(part) for part in one["loc"]), "message": str(one["msg"]).lower()}
        for one in error.errors()
    ]
    first = faults[0] if faults else {"where": "", "message": "unreadable"}
    return problem(422, "bad request", f"`{first['where']}`: {first['message']}", faults=faults)


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail).lower(), str(error.detail).lower())


class _Server(uvicorn.Server):
    """A server that leaves signals to the loop that it runs in."""

    def install_signal_handlers(self) -> None:
        """Install none."""

    def capture_signals(self) -> Any:
        """Capture none."""
        return nullcontext()


@asynccontextmanager
async def serve_people(desk: Desk, path: Path) -> AsyncGenerator[FastAPI]:
    """Serve the API on a Unix socket at `path`, with mode 0600, and over TLS where that is asked for.

    Until the block ends. Raises `ControllerError`."""
    app, options = create_app(desk), desk.control.options
    traced = Traced(app, desk.control.log)
    async with AsyncExitStack() as stack:
        keeping = asyncio.create_task(_keep_house(desk))
        stack.push_async_callback(_end, keeping, desk)
        if options.people:
            listener = listen(parse_endpoint(options.people))
            stack.callback(listener.close)
            context, hosts = _context(options), _hosts(options)
            if options.people_cert is None:
                desk.control.authority.renew_server(context, hosts, desk.clock())
                renewing = asyncio.create_task(_renew(desk, context, hosts))
                stack.callback(renewing.cancel)
            crowd = Crowd(listener)
            stack.callback(crowd.close)
            await stack.enter_async_context(_serving(_config(traced, context, crowd), crowd))
            desk.control.log("people listen", port=crowd.getsockname()[1], oidc=bool(desk.provider))
        listener = _bind(path)
        stack.callback(_remove, path)
        stack.callback(listener.close)
        await stack.enter_async_context(_serving(_config(at_socket(traced)), listener))
        yield app


def _config(app: ASGIApp, context: ssl.SSLContext | None = None, crowd: Crowd | None = None) -> uvicorn.Config:
    def given(_config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        assert context is not None
        return context

    return uvicorn.Config(
        app,
        http=partial(Peer, crowd),  # pyright: ignore[reportArgumentType] - whatever makes a protocol will do
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_AT_ONCE if context else None,
        timeout_graceful_shutdown=2,
        ssl_context_factory=given if context else None,
    )


@asynccontextmanager
async def _serving(config: uvicorn.Config, listener: socket.socket) -> AsyncGenerator[None]:
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await running


def _context(options: ControllerOptions) -> ssl.SSLContext:
    """Make the TLS side of the people's face; without a certificate of its own it gets one of our CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.people_cert is not None:
        try:
            context.load_cert_chain(options.people_cert, options.people_key)
        except (OSError, ssl.SSLError) as error:
            raise ControllerError(f"`{options.people_cert}` and its key cannot be used: {error}") from None
    return context


def _hosts(options: ControllerOptions) -> tuple[str, ...]:
    """Give the names by which people may reach us: those that agents know, this machine's own, and where we listen."""
    bound = parse_endpoint(options.people).host
    named = [one.host for one in options.advertised]
    return (*named, socket.gethostname(), *(() if bound in ("::", "0.0.0.0") else (bound,)))  # noqa: S104 - compared


async def _renew(desk: Desk, context: ssl.SSLContext, hosts: tuple[str, ...]) -> None:
    while True:
        await asyncio.sleep(SERVER_DAYS * DAY_S / 3)
        desk.control.authority.renew_server(context, hosts, desk.clock())


async def _keep_house(desk: Desk) -> None:
    """Sign the head of the audit log, and forget sessions that ended, every minute."""
    while True:
        await asyncio.sleep(KEEP_HOUSE_S)
        with suppress(StateError, OSError):
            _sign(desk)
            desk.people.prune()


async def _end(keeping: asyncio.Task[None], desk: Desk) -> None:
    keeping.cancel()
    with suppress(StateError, OSError):
        _sign(desk)


def _sign(desk: Desk) -> None:
    authority = desk.control.authority
    _, whole = sign_and_keep(desk.control.store, desk.heads, authority.bundle_key, authority.folder, desk.clock())
    if not whole:
        desk.control.log("the audit log was cut", level="error", signed=str(authority.folder / NAME))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _bind(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # INVARIANT: there is no moment at which others may open the socket.
    before = os.umask(0o177)
    try:
        if path.is_socket():
            if _answers(path):
                raise ControllerError(f"another controller listens on `{path}`")
            path.unlink()
        listener.bind(str(path))
        # Who comes before the server takes connections waits for it, and is not refused.
        listener.listen()
    except OSError as error:
        listener.close()
        raise ControllerError(f"cannot listen on `{path}`: {error.strerror or error}") from None
    except ControllerError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
