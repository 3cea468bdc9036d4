"""The lab's callers and servers on loopback: answers are verified, and what goes wrong is counted under its name."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest
from tests.ports import free_port

from cellwall.lab.apps.call import keep_calling
from cellwall.lab.apps.serve import offer
from cellwall.lab.apps.spec import CallCount, CallSpec, ServeSpec
from cellwall.lab.apps.streams import STREAMS
from cellwall.lab.apps.turn import READ, Stream, Task, Turn, connect, sleep_until, wait_for


def call_spec(kind: str, port: int, lifetime: str = "short", host: str = "127.0.0.1") -> CallSpec:
    names = [["web.lab.internal", "10.0.0.1"]] if kind == "dns" else []
    return CallSpec(
        id=f"a/b>c/{kind}/4/{lifetime}", kind=kind, lifetime=lifetime, host=host, port=port,
        every_s=0.02, start_s=0.0, names=names,
    )  # fmt: skip


def after(seconds: float, act: Callable[[], None]) -> Task[None]:
    yield from sleep_until(time.monotonic() + seconds)
    act()


def called(turn: Turn, spec: CallSpec, seconds: float = 0.5) -> CallCount:
    """Make a call over and over for a while and give its count."""
    count = CallCount(attempts=0, failed=0, connects=0, slowest_ms=0.0, total_ms=0.0, failures=[])
    turn.start(keep_calling(spec, count))
    turn.start(after(seconds, turn.stop))
    turn.run()
    return count


@pytest.mark.parametrize("lifetime", ["short", "keepalive", "long-lived"])
@pytest.mark.parametrize("kind", sorted(STREAMS))
def test_every_stream_kind_is_served_as_it_is_asked(kind: str, lifetime: str) -> None:
    turn, port = Turn(), free_port()
    offer(turn, ServeSpec(kind=kind, port=port, dynamic=[42000, 42007], zone={}), {})
    count = called(turn, call_spec(kind, port, lifetime))
    assert count["attempts"] > 5 and count["failed"] == 0, count
    if lifetime == "long-lived":
        assert count["connects"] == 1
    if lifetime == "short":
        assert count["connects"] >= count["attempts"]


@pytest.mark.parametrize(("kind", "host"), [("dns", "127.0.0.1"), ("dns", "::1"), ("udp-echo", "::1")])
def test_every_datagram_kind_is_served_as_it_is_asked(kind: str, host: str) -> None:
    turn, port = Turn(), free_port(socket.SOCK_DGRAM)
    offer(turn, ServeSpec(kind=kind, port=port, dynamic=[], zone={"web.lab.internal": ["10.0.0.1"]}), {})
    count = called(turn, call_spec(kind, port, "udp", host))
    assert count["attempts"] > 5 and count["failed"] == 0, count


def answering(turn: Turn, port: int, answer: bytes) -> Task[None]:
    """Serve a liar: whatever is asked, `answer` comes back, and then the end."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)
        while True:
            yield from wait_for(listener, READ, float("inf"))
            stream = Stream(listener.accept()[0])
            stream.deadline = time.monotonic() + 5
            turn.start(_answer_one(stream, answer))


def _answer_one(stream: Stream, answer: bytes) -> Task[None]:
    try:
        yield from stream.until(b"\n")
        yield from stream.send(answer)
    finally:
        stream.close()


@pytest.mark.parametrize(
    ("kind", "answer", "reason"),
    [
        ("line", b"OK something else\n", "wrong answer"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno!", "wrong answer"),
        ("http", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "wrong answer"),
        ("http", b"HTTP/1.1 200 OK\r\n\r\n", "wrong answer"),
        ("rpc", b"NONE\n", "wrong answer"),
        ("redis", b"-ERR no\r\n", "wrong answer"),
        ("line", b"", "closed by the other side"),
    ],
)
def test_a_wrong_answer_is_a_failure(kind: str, answer: bytes, reason: str) -> None:
    turn, port = Turn(), free_port()
    turn.start(answering(turn, port, answer))
    count = called(turn, call_spec(kind, port))
    assert count["attempts"] == count["failed"] > 2
    # What the liar leaves unread when it closes may make the kernel answer with a reset instead.
    assert all(why.startswith((reason, "reset")) for _, why in count["failures"])


def test_a_closed_port_is_a_failure_by_name() -> None:
    assert {why for _, why in called(Turn(), call_spec("http", free_port()))["failures"]} == {"refused"}
    port = free_port(socket.SOCK_DGRAM)
    assert {why for _, why in called(Turn(), call_spec("dns", port, "udp"))["failures"]} == {"refused"}


def test_a_long_lived_connection_that_breaks_is_a_failure_and_is_made_anew() -> None:
    turn, port = Turn(), free_port()
    turn.start(answering(turn, port, b"OK t0\n"))
    count = called(turn, call_spec("line", port, "long-lived"))
    assert count["attempts"] == count["failed"] > 2
    assert count["connects"] >= count["attempts"]


def test_nonsense_ends_a_conversation_and_not_the_server() -> None:
    turn, port = Turn(), free_port()
    offer(turn, ServeSpec(kind="redis", port=port, dynamic=[], zone={}), {})

    def talk(data: bytes) -> Task[None]:
        stream = yield from connect("127.0.0.1", port, time.monotonic() + 2)
        yield from stream.send(data)
        stream.close()

    for data in (b"", b"*1\r\n$x\r\n", b"*9999999\r\n", b"\0" * 4096, b"*1\r\n$99999\r\nabc"):
        turn.start(talk(data))
    count = called(turn, call_spec("redis", port))
    assert count["attempts"] > 5 and count["failed"] == 0


def test_waits_that_end_early_leave_no_timers_behind() -> None:
    turn, port = Turn(), free_port()
    offer(turn, ServeSpec(kind="line", port=port, dynamic=[], zone={}), {})
    spec = call_spec("line", port, "keepalive")
    spec["every_s"] = 0.0005
    count = called(turn, spec)
    assert count["attempts"] > 100
    assert len(turn._timers) < 100  # pyright: ignore[reportPrivateUsage]
