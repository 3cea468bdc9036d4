"""What moves packets: servers that run until they are stopped, clients that run so long and give what they saw.

Client and server share one core, so that what is counted is the work of both ends and of the kernel between them, and
never the time it takes to wake another core. All is measured in short pieces, of which the median counts: what else
the machine does meanwhile lengthens some of them. Each function runs in a forked child in its own network namespace.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

from tests.bench.measure import quantile

CORE = max(os.sched_getaffinity(0))
"""The core that clients and servers share: the last, as others prefer the first."""
PORTION = 1 << 18
AT_ONCE = 8
"""So many connections are opened before they are waited for."""
BATCH = 32
"""So many packets go with one system call."""
_SNDBUFFORCE, _RCVBUFFORCE = 32, 33  # not in the socket module (asm-generic/socket.h)
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Delays:
    """How long something took, in microseconds: half of them at most `p50`, 99 of 100 at most `p99`."""

    p50: float
    p99: float


# ---- servers


def accept_and_close(port: int) -> None:
    """Take connections and close them, for ever."""
    _settle()
    with socket.create_server(("", port), backlog=4096) as server:
        while True:
            server.accept()[0].close()


def echo(port: int) -> None:
    """Answer whatever comes, one connection after the other, for ever."""
    _settle()
    with socket.create_server(("", port), backlog=4096) as server:
        while True:
            one = server.accept()[0]
            with one, suppress(OSError):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := one.recv(4096):
                    one.sendall(data)


def swallow(port: int) -> None:
    """Throw away what comes and say so after every `PORTION`, one connection after the other, for ever."""
    _settle()
    buffer = bytearray(PORTION)
    with socket.create_server(("", port), backlog=16) as server:
        # A whole portion fits in: the two ends take turns once a portion, not as often as the window fills.
        server.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 8 * PORTION)
        while True:
            one = server.accept()[0]
            with one, suppress(OSError):
                left = PORTION
                while got := one.recv_into(buffer, left, socket.MSG_TRUNC):
                    left -= got
                    if not left:
                        one.sendall(b".")
                        left = PORTION


def answer_once(port: int) -> None:
    """Answer each `hello` by UDP, and let everything else overflow the smallest buffer there is, for ever."""
    _settle()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        server.bind(("", port))
        while True:
            data, sender = server.recvfrom(64)
            if data == b"hello":
                server.sendto(data, sender)
            else:
                time.sleep(0.002)


# ---- clients


def connections(address: str, port: int, seconds: float) -> float:
    """Open some TCP connections one after the other and wait until the server has closed all; give how many a second
    that makes."""
    _settle()
    taken: list[float] = []
    ends = time.perf_counter() + seconds
    while (began := time.perf_counter()) < ends:
        batch = [socket.socket() for _ in range(AT_ONCE)]
        for one in batch:
            one.connect((address, port))
        for one in batch:
            one.recv(1)
            one.close()
        taken.append(time.perf_counter() - began)
    return AT_ONCE / median(taken)


def requests(address: str, port: int, seconds: float) -> Delays:
    """Time a connection with one request and its answer, over and over."""
    _settle()
    taken: list[float] = []
    ends = time.perf_counter() + seconds
    while (began := time.perf_counter()) < ends:
        with socket.socket() as one:
            one.connect((address, port))
            one.sendall(b"request")
            one.recv(64)
            taken.append(time.perf_counter() - began)
            # No socket is to linger here until its port is short.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return _delays(taken)


def round_trips(address: str, port: int, seconds: float) -> Delays:
    """Time a message and its answer on one open connection, over and over."""
    _settle()
    taken: list[float] = []
    with socket.create_connection((address, port)) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = bytes(64)
        ends = time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends:
            one.sendall(message)
            one.recv(4096)
            taken.append(time.perf_counter() - began)
    return _delays(taken)


def throughput(address: str, port: int, seconds: float) -> float:
    """Send portions on one TCP connection, each when the one before has arrived; give bits a second."""
    _settle()
    portion, taken = bytes(PORTION), list[float]()
    with socket.create_connection((address, port)) as one:
        one.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, 8 * PORTION)
        ends = time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends:
            one.sendall(portion)
            one.recv(1)
            taken.append(time.perf_counter() - began)
    return PORTION * 8 / median(taken)


def packets(address: str, port: int, seconds: float) -> tuple[int, float]:
    """Send tiny UDP packets of one answered flow as fast as it goes; give how many, and microseconds for each."""
    _settle()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((address, port))
        _greet(one)
        return _flood(one, seconds)


def _greet(one: socket.socket) -> None:
    """Get an answer, which makes the flow an established one for conntrack."""
    one.settimeout(0.05)
    for _ in range(100):
        one.send(b"hello")
        try:
            one.recv(64)
        except TimeoutError:
            continue
        one.settimeout(None)
        return
    raise TimeoutError("nobody answers by UDP")


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr (sendmmsg(2)) of a connected socket."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


def _flood(one: socket.socket, seconds: float) -> tuple[int, float]:
    libc = ctypes.CDLL(None, use_errno=True)
    vector = _Vector(b"x" * 8, 8)
    batch = (_Message * BATCH)()
    for message in batch:
        message.vectors, message.count = ctypes.pointer(vector), 1
    descriptor, sent, taken = one.fileno(), 0, list[float]()
    ends = time.perf_counter() + seconds
    while (began := time.perf_counter()) < ends:
        done: int = libc.sendmmsg(descriptor, batch, BATCH, 0)
        if done < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        sent += done
        taken.append((time.perf_counter() - began) / done)
    return sent, median(taken) * 1e6


def paced(address: str, port: int, a_second: float, seconds: float) -> int:
    """Open and close so many connections a second, evenly; give how many there were."""
    began, done = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < seconds:
        while done < now * a_second:
            with socket.socket() as one:
                one.connect((address, port))
            done += 1
        time.sleep(0.001)
    return done


def _settle() -> None:
    os.sched_setaffinity(0, {CORE})


def _delays(taken: Sequence[float]) -> Delays:
    return Delays(quantile(taken, 0.5) * 1e6, quantile(taken, 0.99) * 1e6)
