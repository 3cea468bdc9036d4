"""Every request has an id, which is in the answer, in the log and in the audit of what it did; and is counted.

request ── X-Request-Id (theirs, or one of ours) ──▶ application ──▶ answer with the id ──▶ log("request", …)
                                                          └── a mistake of ours ──▶ 500, problem+json, logged whole
"""

from __future__ import annotations

import re
import secrets
import time
import traceback
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cellwall.clients import REQUEST

HEADER = "X-Request-Id"
_GIVEN = re.compile(r"[A-Za-z0-9._-]{8,64}")


class Traced:
    """The outermost application: gives ids, logs and counts requests, and answers where ours broke."""

    def __init__(self, app: ASGIApp, log: Callable[..., None]) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _given(scope) or secrets.token_hex(8)
        began, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER.lower().encode(), request.encode())]
            await send(message)

        mark = REQUEST.set(request)
        try:
            await self._app(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - the outermost turn of a request: one that fails must not end others
            where = traceback.format_exception(error)
            # The application has answered by `broke`, and says so by raising it again.
            self._log("request failed", level="error", why=repr(error), where="".join(where)[-4000:])
        finally:
            self._log(
                "request",
                level="debug" if status < 500 else "warning",
                method=scope["method"],
                route=_route(scope),
                status=status,
                seconds=round(time.perf_counter() - began, 4),
            )
            REQUEST.reset(mark)


def _given(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == HEADER.lower().encode() and _GIVEN.fullmatch(text := value.decode("latin-1")):
            return text
    return ""


def _route(scope: Scope) -> str:
    # The pattern, not the path: there are as many as routes, whatever people ask for.
    route: Any = scope.get("route")
    return str(getattr(route, "path", "none"))


async def broke(_request: Request, _error: Exception) -> JSONResponse:
    """Answer where a mistake of ours ended a request; what it was stands in the log."""
    request = REQUEST.get()
    detail = f"this is a mistake in cellwall; the controller's log has it under request `{request}`"
    body = {"type": "about:blank", "title": "our mistake", "status": 500, "detail": detail, "request": request}
    return JSONResponse(body, 500, media_type="application/problem+json")
