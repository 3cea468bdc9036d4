"""Offer services: listen, accept, and speak the kind's protocol."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from .datagrams import answer, read_log_line
from .spec import ServeSpec, SinkCount
from .streams import IDLE_S, STREAMS, rpc
from .turn import FOREVER, READ, Stream, Task, Turn, wait_for

_HANDED_OUT_S = 10.0
"""How long a dynamic port waits for the caller it was opened for."""


def offer(turn: Turn, spec: ServeSpec, sinks: dict[str, SinkCount]) -> None:
    """Listen on both families and answer for ever. Raises `OSError` when the port is taken.

    A syslog service counts what it gets in `sinks`, by call."""
    kind, port = spec["kind"], spec["port"]
    if kind in STREAMS:
        serve = STREAMS[kind].serve
        if kind == "rpc":
            first, last = spec["dynamic"]
            serve = rpc(first, last, lambda listener: turn.start(_accept_one(turn, listener)))
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
        turn.start(_accept(turn, listener, serve))
        return
    respond = _responder(spec, sinks)
    for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - a lab's server
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((any_address, port))
        sock.setblocking(False)
        turn.start(_respond(sock, respond))


def _accept(turn: Turn, listener: socket.socket, serve: Callable[[Stream], Task[None]]) -> Task[None]:
    listener.setblocking(False)
    while True:
        yield from wait_for(listener, READ, FOREVER)
        try:
            sock, _ = listener.accept()
        except OSError:  # gone again before we came
            continue
        turn.start(_converse(Stream(sock), serve))


def _accept_one(turn: Turn, listener: socket.socket) -> Task[None]:
    listener.setblocking(False)
    with listener:
        yield from wait_for(listener, READ, time.monotonic() + _HANDED_OUT_S)
        sock, _ = listener.accept()
    turn.start(_converse(Stream(sock), STREAMS["line"].serve))


def _converse(stream: Stream, serve: Callable[[Stream], Task[None]]) -> Task[None]:
    stream.deadline = time.monotonic() + IDLE_S
    try:
        yield from serve(stream)
    except OSError:  # the caller has gone, or talks nonsense
        pass
    finally:
        stream.close()


def _respond(sock: socket.socket, respond: Callable[[bytes], bytes | None]) -> Task[None]:
    while True:
        yield from wait_for(sock, READ, FOREVER)
        try:
            message, peer = sock.recvfrom(65536)
            reply = respond(message)
            if reply is not None:
                sock.sendto(reply, peer)
        except OSError:  # an ICMP error about an earlier reply
            continue


def _responder(spec: ServeSpec, sinks: dict[str, SinkCount]) -> Callable[[bytes], bytes | None]:
    if spec["kind"] == "dns":
        return lambda query: answer(query, spec["zone"])
    if spec["kind"] == "udp-echo":
        return lambda message: message
    return lambda message: _swallow(message, sinks)


def _swallow(message: bytes, sinks: dict[str, SinkCount]) -> None:
    if (found := read_log_line(message)) is None:
        return
    call, number = found
    count = sinks.setdefault(call, SinkCount(received=0, missed=0, last=number - 1))
    count["received"] += 1
    if number > count["last"]:
        count["missed"] += number - count["last"] - 1
        count["last"] = number
