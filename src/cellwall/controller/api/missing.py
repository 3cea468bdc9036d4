"""Every answer to which a controller did not contribute says so: in `missing_controllers`, and in a header.

A question about flows asks all controllers. One that is gone, or does not answer in time, is left out: what it has seen
is not in the answer, and whoever asked must know.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cellwall.controller.store.missing import MISSING

FIELD, HEADER = "missing_controllers", "cellwall-missing-controllers"


class Telling:
    """Adds to the answers of an application who was missing, where anybody was."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        missing: dict[str, str] = {}
        mark = MISSING.set(missing)
        try:
            await self._app(scope, receive, _telling(send, missing))
        finally:
            MISSING.reset(mark)


def _telling(send: Send, missing: dict[str, str]) -> Send:
    start: Message | None = None
    body = b""

    async def telling(message: Message) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start" and missing:
            start = message
            return
        if start is None or message["type"] != "http.response.body":
            await send(message)
            return
        body += message.get("body", b"")
        if message.get("more_body"):
            return
        headers = MutableHeaders(scope=start)
        told = _told(body, missing) if "json" in headers.get("content-type", "") else body
        headers["content-length"] = str(len(told))
        headers[HEADER] = ",".join(sorted(name.encode("ascii", "replace").decode() for name in missing))
        await send(start)
        await send({"type": "http.response.body", "body": told})

    return telling


def _told(body: bytes, missing: dict[str, str]) -> bytes:
    answer: Any = json.loads(body)
    if not isinstance(answer, dict):
        return body
    who = [{"name": name, "why": why} for name, why in sorted(missing.items())]
    return json.dumps({**answer, FIELD: who}, ensure_ascii=False).encode()  # pyright: ignore[reportUnknownArgumentType]
