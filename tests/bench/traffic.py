"""What moves packets between two namespaces, and times it.

Client and server are one process, with a socket in either namespace: on a veth pair the kernel carries a packet to the
other end within the call that sends it, so nothing ever waits and no scheduler takes part. What is timed is the work
of both ends and of the kernel between them, in short pieces, of which the median counts: what else the machine does
meanwhile lengthens some of them.

Each function runs in a forked child inside the client's namespace, and is given the server's.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.measure import quantile
from tests.kernel.namespaces import Namespace

CORE = max(os.sched_getaffinity(0))
"""The core that all runs on: the last, as others prefer the first."""
PORTION = 1 << 16
"""One large packet, with segmentation offload; of more, the kernel's allocator of pages is what is timed."""
ROOM = 1 << 20
BATCH = 32
"""So many packets go with one system call."""
_SNDBUFFORCE, _RCVBUFFORCE = 32, 33  # not in the socket module (asm-generic/socket.h)
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Delays:
    """How long something took, in microseconds: half of them at most `p50`, 99 of 100 at most `p99`."""

    p50: float
    p99: float


def connections(server: Namespace, port: int, seconds: float) -> float:
    """Open and close TCP connections one after the other; give how many a second."""
    taken: list[float] = []
    with _listener(server, port) as listener:
        ends = time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends:
            with socket.socket() as near:
                near.connect((str(server.v4), port))
                far, _ = listener.accept()
                # The server closes first: no port of the client stays taken.
                far.close()
                near.recv(1)
            taken.append(time.perf_counter() - began)
    return 1 / median(taken)


def requests(server: Namespace, port: int, seconds: float) -> Delays:
    """Time a connection with one request and its answer, over and over."""
    taken: list[float] = []
    with _listener(server, port) as listener:
        ends = time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends:
            with socket.socket() as near:
                near.connect((str(server.v4), port))
                far, _ = listener.accept()
                _exchange(near, far)
                taken.append(time.perf_counter() - began)
                far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                far.close()
    return _delays(taken)


def round_trips(server: Namespace, port: int, seconds: float) -> Delays:
    """Time a request and its answer on one open connection, over and over."""
    taken: list[float] = []
    with _connected(server, port) as (near, far):
        ends = time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends:
            _exchange(near, far)
            taken.append(time.perf_counter() - began)
    return _delays(taken)


def throughput(server: Namespace, port: int, seconds: float) -> float:
    """Send and receive portions on one TCP connection; give bits a second."""
    portion, buffer, taken = memoryview(bytes(PORTION)), bytearray(PORTION), list[float]()
    with _connected(server, port) as (near, far):
        near.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, ROOM)
        # The default may be one that paces itself.
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        for one in (near, far):
            one.setblocking(False)
        ends = time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends:
            sent = received = 0
            while received < PORTION:
                with suppress(BlockingIOError):
                    sent += near.send(portion[sent:])
                with suppress(BlockingIOError):
                    received += far.recv_into(buffer, PORTION, socket.MSG_TRUNC)
            taken.append(time.perf_counter() - began)
    return PORTION * 8 / median(taken)


def packets(server: Namespace, port: int, seconds: float) -> float:
    """Send tiny UDP packets of one answered flow as fast as it goes; give microseconds for each.

    The server's buffer is the smallest there is, so that most packets end there, as fast as they come. Raises
    AssertionError unless they come that far.
    """
    _settle()
    with server.inside():
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        far.bind(("", port))
        near.connect((str(server.v4), port))
        # An answer makes the flow an established one for conntrack.
        near.send(b"hello")
        data, sender = far.recvfrom(64)
        far.sendto(data, sender)
        near.recv(64)
        before = _delivered(server)
        sent, each = _flood(near, seconds)
        came = _delivered(server) - before
    assert came >= 0.98 * sent, f"of {sent} packets {came} came to {server.name}"
    return each


# ---- how


def _settle() -> None:
    os.sched_setaffinity(0, {CORE})


@contextmanager
def _listener(server: Namespace, port: int) -> Generator[socket.socket]:
    _settle()
    with server.inside():
        made = socket.socket()
    with made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, ROOM)
        made.bind(("", port))
        made.listen(16)
        yield made


@contextmanager
def _connected(server: Namespace, port: int) -> Generator[tuple[socket.socket, socket.socket]]:
    with _listener(server, port) as listener, socket.create_connection((str(server.v4), port)) as near:
        far, _ = listener.accept()
        with far:
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield near, far


def _exchange(near: socket.socket, far: socket.socket) -> None:
    near.send(b"a request of some length, as short ones are")
    far.send(far.recv(4096))
    near.recv(4096)


def _delays(taken: Sequence[float]) -> Delays:
    return Delays(quantile(taken, 0.5) * 1e6, quantile(taken, 0.99) * 1e6)


def _delivered(server: Namespace) -> int:
    """How many UDP packets came as far as a socket of the server, full or not."""
    with server.inside():
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    told = dict(zip(names[1:], values[1:], strict=True))
    return int(told["InDatagrams"]) + int(told["RcvbufErrors"])


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


# ---- for a host with an agent


def accept_and_close(port: int) -> None:
    """Take connections and close them, for ever."""
    with socket.create_server(("", port), backlog=4096) as server:
        while True:
            server.accept()[0].close()


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
