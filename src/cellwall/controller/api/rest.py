"""The people's API: REST over a Unix socket that only its owner may open."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from cellwall.controller.api import answers, explain, grounds, inventory, policies, seen
from cellwall.controller.api.desk import Desk
from cellwall.controller.errors import ControllerError
from cellwall.controller.store.flows import FlowStoreError
from cellwall.controller.store.state import StateError
from cellwall.policy import PolicyError
from cellwall.traffic import CellwallError

ROOT = "/api/v1"
PROBLEM = "application/problem+json"


def create_app(desk: Desk) -> FastAPI:
    """Make the application that answers people."""
    app = FastAPI(title="Cellwall", version="1", docs_url=None, redoc_url=None, openapi_url=f"{ROOT}/openapi.json")
    app.state.desk = desk
    for room in (inventory, policies, seen, answers, explain, grounds):
        app.include_router(room.router, prefix=ROOT)
    app.add_exception_handler(CellwallError, _cellwall)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    return app


def problem(status: int, title: str, detail: str, **more: object) -> JSONResponse:
    """Give the answer that says what is wrong (RFC 9457)."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, media_type=PROBLEM)


async def _cellwall(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, PolicyError):
        at = error.place
        return problem(
            422, "the policy is wrong", str(error), file=at.file, line=at.line, column=at.column, message=error.message
        )
    status = error.status if isinstance(error, ControllerError) else 400
    if isinstance(error, FlowStoreError | StateError):
        status = 503
    titles = {400: "bad request", 403: "not allowed", 404: "not found", 409: "conflict", 503: "try later"}
    return problem(status, titles.get(status, "error"), str(error), **_more(error))


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


class _Peer(H11Protocol):
    """HTTP whose client is the user at the other end of the Unix socket (unix(7), SO_PEERCRED)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        peer: socket.socket | None = transport.get_extra_info("socket")
        if peer is not None and peer.family == socket.AF_UNIX:
            pid, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            self.client = (_user(uid), pid)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


class _Server(uvicorn.Server):
    """A server that leaves signals to the loop that it runs in."""

    def install_signal_handlers(self) -> None:
        """Install none."""

    def capture_signals(self) -> Any:
        """Capture none."""
        return nullcontext()


@asynccontextmanager
async def serve_people(desk: Desk, path: Path) -> AsyncGenerator[FastAPI]:
    """Serve the API on a Unix socket at `path`, with mode 0600, until the block ends. Raises `ControllerError`."""
    app = create_app(desk)
    listener = _bind(path)
    config = uvicorn.Config(
        app, http=_Peer, ws="none", lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield app
    finally:
        server.should_exit = True
        await running
        listener.close()
        _remove(path)


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
