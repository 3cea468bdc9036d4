"""The one HTTP POST of the agents' port: an enrolment, as bytes (RFC 9112)."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from cellwall.wire import MOST_ENROLMENT

MOST_HEAD = 16_384
"""The most bytes of a request before its body."""


def posted(
    data: bytes, path: str, answer: Callable[[bytes], tuple[HTTPStatus, bytes]]
) -> tuple[HTTPStatus, bytes] | None:
    """Answer a request to `path` with what `answer` gives for its body, or give None while it is not all there."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"") if len(data) > MOST_HEAD else None
    first, *fields = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if words[:2] != ["POST", path]:
        return HTTPStatus.NOT_FOUND, b""
    headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal() and len(length) < 10):
        return HTTPStatus.LENGTH_REQUIRED, b""
    if int(length) > MOST_ENROLMENT:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b""
    return answer(body[: int(length)]) if len(body) >= int(length) else None


def answered(status: HTTPStatus, body: bytes) -> bytes:
    """Write the answer, after which the connection ends."""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/msgpack\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
