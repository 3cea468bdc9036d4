"""What is spoken over TCP: for each kind how to serve it, and how to ask and verify."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from .turn import Stream, Task, connect

IDLE_S = 3600.0
"""How long a server keeps a silent connection."""
_TALK_S = 10.0


class WrongAnswer(OSError):
    """The other side answered, but not what was asked."""


class Protocol(NamedTuple):
    """`serve` a connection for ever; `greet` opens a caller's; `ask` sends a token and checks that it comes back."""

    serve: Callable[[Stream], Task[None]]
    greet: Callable[[Stream], Task[None]]
    ask: Callable[[Stream, str], Task[None]]


def expect(found: bytes, wanted: bytes) -> None:
    """Raise `WrongAnswer` unless the two are the same."""
    if found != wanted:
        raise WrongAnswer(f"wrong answer {found[:40]!r}")


def _next_request(stream: Stream) -> None:
    stream.deadline = time.monotonic() + IDLE_S


def _no_greeting(stream: Stream) -> Task[None]:
    del stream
    yield from ()


def _serve_http(stream: Stream) -> Task[None]:
    while True:
        _next_request(stream)
        head = yield from stream.until(b"\r\n\r\n")
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0]
        known = method in (b"GET", b"HEAD", b"POST") and path.startswith(b"/")
        status = b"200 OK" if known else b"400 Bad Request"
        body = path.rpartition(b"/")[2] if known else b"bad request"
        if path == b"/metrics":
            body = b"# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.3f\n" % time.process_time()
        fields = b"Server: lab\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n" % len(body)
        yield from stream.send(
            b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n" + (body if method != b"HEAD" else b"")
        )


def _get(stream: Stream, path: str) -> Task[bytes]:
    request = f"GET {path} HTTP/1.1\r\nHost: lab\r\nUser-Agent: lab\r\nAccept: */*\r\n\r\n"
    yield from stream.send(request.encode())
    head = yield from stream.until(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise WrongAnswer(f"wrong answer {head[:40]!r}")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
    if not length.isdigit():
        raise WrongAnswer(f"wrong answer {head[:40]!r}")
    return (yield from stream.exactly(int(length)))


def _ask_http(stream: Stream, token: str) -> Task[None]:
    expect((yield from _get(stream, f"/v1/{token}")), token.encode())


def _ask_metrics(stream: Stream, token: str) -> Task[None]:
    del token
    expect((yield from _get(stream, "/metrics"))[:6], b"# TYPE")


def _serve_line(stream: Stream) -> Task[None]:
    while True:
        _next_request(stream)
        yield from stream.send(b"OK " + (yield from stream.until(b"\n")) + b"\n")


def _ask_line(stream: Stream, token: str) -> Task[None]:
    yield from stream.send(token.encode() + b"\n")
    expect((yield from stream.until(b"\n")), b"OK " + token.encode())


_SSH = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"


def _serve_ssh(stream: Stream) -> Task[None]:
    yield from stream.send(_SSH)
    _next_request(stream)
    expect((yield from stream.until(b"\r\n"))[:8], b"SSH-2.0-")
    yield from _serve_line(stream)


def _greet_ssh(stream: Stream) -> Task[None]:
    expect((yield from stream.until(b"\r\n"))[:8], b"SSH-2.0-")
    yield from stream.send(_SSH)


def _serve_redis(stream: Stream) -> Task[None]:
    while True:
        _next_request(stream)
        parts = yield from stream.until(b"\r\n")
        words: list[bytes] = []
        for _ in range(int(parts[1:]) if parts[:1] == b"*" and parts[1:].isdigit() else 0):
            length = (yield from stream.until(b"\r\n"))[1:]
            expect(b"" if length.isdigit() and len(length) < 6 else length, b"")
            words.append((yield from stream.exactly(int(length) + 2))[:-2])
        if len(words) == 2 and words[0].upper() == b"ECHO":
            yield from stream.send(b"$%d\r\n%s\r\n" % (len(words[1]), words[1]))
        else:
            yield from stream.send(b"-ERR unknown command\r\n")


def _ask_redis(stream: Stream, token: str) -> Task[None]:
    text = token.encode()
    yield from stream.send(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(text), text))
    length = yield from stream.until(b"\r\n")
    expect(length, b"$%d" % len(text))
    expect((yield from stream.until(b"\r\n")), text)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


_READY = _message(b"Z", b"I")
_AUTHENTICATED = _message(b"R", bytes(4))
_PROTOCOL_3 = (196608).to_bytes(4, "big")


def _receive_message(stream: Stream) -> Task[tuple[bytes, bytes]]:
    head = yield from stream.exactly(5)
    body = yield from stream.exactly(max(0, int.from_bytes(head[1:], "big") - 4))
    return head[:1], body


def _serve_postgres(stream: Stream) -> Task[None]:
    """Speak the part of the PostgreSQL protocol 3.0 (PostgreSQL documentation, chapter 55) that an echo needs."""
    _next_request(stream)
    length = int.from_bytes((yield from stream.exactly(4)), "big")
    expect((yield from stream.exactly(min(length, 10_000) - 4))[:4], _PROTOCOL_3)
    yield from stream.send(_AUTHENTICATED + _READY)
    while True:
        _next_request(stream)
        kind, query = yield from _receive_message(stream)
        if kind == b"X":
            return
        expect(kind, b"Q")
        value = query.rstrip(b"\0").rpartition(b" ")[2].strip(b"'")
        column = b"echo\0" + bytes(6) + b"\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"
        row = b"\0\x01" + len(value).to_bytes(4, "big") + value
        answer = _message(b"T", b"\0\x01" + column) + _message(b"D", row) + _message(b"C", b"SELECT 1\0")
        yield from stream.send(answer + _READY)


def _greet_postgres(stream: Stream) -> Task[None]:
    startup = _PROTOCOL_3 + b"user\0app\0database\0app\0\0"
    yield from stream.send((len(startup) + 4).to_bytes(4, "big") + startup)
    while (yield from _receive_message(stream))[0] != b"Z":
        pass


def _ask_postgres(stream: Stream, token: str) -> Task[None]:
    yield from stream.send(_message(b"Q", f"SELECT '{token}'".encode() + b"\0"))
    rows: list[bytes] = []
    while True:
        kind, body = yield from _receive_message(stream)
        if kind == b"D":
            rows.append(body[6:])
        if kind == b"Z":
            break
    expect(b"|".join(rows), token.encode())


def _ask_rpc(stream: Stream, token: str) -> Task[None]:
    """Ask the mapper for a port, and then that port the question itself."""
    yield from stream.send(b"PORT " + token.encode() + b"\n")
    port = (yield from stream.until(b"\n")).partition(b"PORT ")[2]
    if not port.isdigit():
        raise WrongAnswer(f"wrong answer {port[:40]!r}")
    host = str(stream.sock.getpeername()[0])
    inner = yield from connect(host, int(port), min(stream.deadline, time.monotonic() + _TALK_S))
    try:
        yield from _ask_line(inner, token)
    finally:
        inner.close()


def rpc(first: int, last: int, hand_out: Callable[[socket.socket], None]) -> Callable[[Stream], Task[None]]:
    """Make the mapper of a dynamic range: each request opens a free port between `first` and `last` for one caller."""
    place = first + time.monotonic_ns() % (last - first + 1)

    def serve(stream: Stream) -> Task[None]:
        nonlocal place
        while True:
            _next_request(stream)
            asked = yield from stream.until(b"\n")
            expect(asked[:5], b"PORT ")
            for _ in range(first, last + 1):
                place = place + 1 if place < last else first
                try:
                    hand_out(socket.create_server(("::", place), family=socket.AF_INET6, dualstack_ipv6=True))
                except OSError:
                    continue
                yield from stream.send(b"PORT %d\n" % place)
                break
            else:
                yield from stream.send(b"NONE\n")

    return serve


STREAMS: dict[str, Protocol] = {
    "http": Protocol(_serve_http, _no_greeting, _ask_http),
    "metrics": Protocol(_serve_http, _no_greeting, _ask_metrics),
    "line": Protocol(_serve_line, _no_greeting, _ask_line),
    "ssh": Protocol(_serve_ssh, _greet_ssh, _ask_line),
    "redis": Protocol(_serve_redis, _no_greeting, _ask_redis),
    "postgres": Protocol(_serve_postgres, _greet_postgres, _ask_postgres),
    "rpc": Protocol(_serve_line, _no_greeting, _ask_rpc),
}
"""By kind. The server of `rpc` is made with `rpc`, for its range; what it hands out speaks `line`."""
