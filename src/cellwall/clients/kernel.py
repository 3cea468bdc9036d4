"""The netlink socket: requests, dumps, transactions and notices, with the standard library alone."""

from __future__ import annotations

import errno
import os
import socket
import struct
from array import array
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from cellwall.clients.netlink import (
    DONE,
    ERROR,
    F_ACK,
    F_DUMP,
    F_INTERRUPTED,
    F_REQUEST,
    HEADER,
    BatchRefused,
    Changed,
    KernelError,
    Message,
    Protocol,
    be32,
    failure,
    messages,
    refused_offset,
)

_BATCH_BEGIN, _BATCH_END, _BATCH_GENERATION = 0x10, 0x11, 1
_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _DROP_MEMBERSHIP, _CAP_ACK, _EXT_ACK = 1, 2, 10, 11
# Not in the socket module (asm-generic/socket.h).
_SO_RCVTIMEO, _SO_ATTACH_FILTER, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 20, 26, 32, 33
_ROOM = 1 << 16
_PATIENCE_S = 10
_DUMP_ATTEMPTS = 10


class Netlink:
    """A netlink socket, living in the network namespace that its maker was in.

    Requests block; the kernel answers at once. `lost` counts how often notices were dropped because nobody
    read them (ENOBUFS). Not for use by two threads at once.
    """

    def __init__(self, protocol: Protocol, receive_buffer: int = 0) -> None:
        """Open a socket; `receive_buffer` is in bytes, for notices (over the limit it needs CAP_NET_ADMIN)."""
        self.lost = 0
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise KernelError(
                f"cannot open netlink {protocol.name.lower()}: {_said(error)}", error.errno or 0
            ) from None
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        # A kernel that does not answer must not hang the agent.
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVTIMEO, struct.pack("@ll", _PATIENCE_S, 0))
        if receive_buffer:
            self._grow(_SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer)
        self._socket.bind((0, 0))
        self.port: int = self._socket.getsockname()[0]
        """The port id that the kernel knows this socket by: notices of what it changes carry it."""
        self._send_room = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    def fileno(self) -> int:
        """Give the descriptor, to wait for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; a table that it owns without `persist` goes with it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _grow(self, forced: int, option: int, size: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, forced, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, option, size)

    def join(self, group: int) -> None:
        """Subscribe to a multicast group. Raises `KernelError` without the right to."""
        try:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:
            raise KernelError(f"cannot subscribe to netlink group {group}: {_said(error)}", error.errno or 0) from None

    def leave(self, group: int) -> None:
        """Give up a multicast group; what was announced before stays to be read."""
        self._socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, group)

    def ignore(self, *ports: int) -> None:
        """Have the kernel drop the notices that these port ids caused, before they cost anything here."""
        # Classic BPF: load the header's port (offset 12), go to the last line if it is one of them; else keep all.
        program = [(0x20, 0, 0, 12)]
        for left, port in zip(range(len(ports), 0, -1), ports, strict=True):
            program.append((0x15, left, 0, int.from_bytes(struct.pack("=I", port), "big")))
        program += [(0x06, 0, 0, 0x7FFFFFFF), (0x06, 0, 0, 0)]
        lines = array("B", b"".join(struct.pack("=HBBI", *line) for line in program))
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), lines.buffer_info()[0])
        )

    def ask(self, kind: int, body: bytes, flags: int = 0, doing: str = "netlink request") -> list[Message]:
        """Send one request and give what came before its acknowledgement. Raises `KernelError`."""
        sequence = self._send(kind, flags | F_REQUEST | F_ACK, body, doing)
        answer: list[Message] = []
        while True:
            for message in messages(self._receive(doing)):
                if message.sequence != sequence:
                    continue
                if message.kind == ERROR:
                    if error := failure(message, doing):
                        raise error
                    return answer
                answer.append(message)

    def stream(self, kind: int, body: bytes, flags: int = 0, doing: str = "netlink dump") -> Iterator[bytes]:
        """Dump: give the body of each message as it comes.

        Raises `Changed` at the end when the kernel says that it changed meanwhile, so what was seen may be
        inconsistent. A stream left early is emptied.
        """
        sequence = self._send(kind, flags | F_REQUEST | F_DUMP, body, doing)
        read = HEADER.unpack_from
        torn = finished = False
        try:
            while not finished:
                datagram = self._receive(doing)
                start, stop = 0, len(datagram)
                # As `messages`, without a value for each: dumps are long.
                while start + 16 <= stop and not finished:
                    size, kind, flags, number, port = read(datagram, start)
                    if size < 16 or start + size > stop:
                        raise KernelError("netlink message is cut short")
                    if number == sequence:
                        torn = torn or bool(flags & F_INTERRUPTED)
                        finished = kind in (ERROR, DONE)
                        part = datagram[start + 16 : start + size]
                        if not finished:
                            yield part
                        elif error := failure(Message(kind, flags, number, port, part), doing):
                            raise error
                    start += size + 3 & ~3
            if torn:
                raise Changed(f"{doing}: it changed while it was read", errno.EINTR)
        finally:
            while not finished:
                finished = any(
                    message.sequence == sequence and message.kind in (ERROR, DONE)
                    for message in messages(self._receive(doing))
                )

    def dump(self, kind: int, body: bytes, flags: int = 0, doing: str = "netlink dump") -> list[bytes]:
        """Dump: give the bodies of all messages, of one consistent state; starts again when interrupted."""
        for _ in range(_DUMP_ATTEMPTS):
            try:
                return list(self.stream(kind, body, flags, doing))
            except Changed:
                continue
        raise Changed(f"{doing}: it changed {_DUMP_ATTEMPTS} times while it was read", errno.EINTR)

    def batch(
        self,
        subsystem: int,
        requests: Iterable[tuple[int, int, bytes]],
        generation: int | None = None,
        doing: str = "netlink transaction",
    ) -> None:
        """Send (type, flags, body) requests as one transaction of a netfilter subsystem: all of it or none.

        With `generation` the kernel refuses unless that is still its own. Raises `BatchRefused`, or `Changed`
        when the generation has moved on; either way nothing was written.
        """
        guard = b"" if generation is None else be32(_BATCH_GENERATION, generation)
        mark = struct.pack(">BBH", 0, 0, subsystem)
        first = self._sequence % 0x7FFFFFFF + 1
        parts = [HEADER.pack(20 + len(guard), _BATCH_BEGIN, F_REQUEST, first, 0), mark, guard]
        sequence = first
        last = -1
        for kind, flags, body in requests:
            sequence += 1
            last = len(parts)
            parts += (HEADER.pack(16 + len(body), kind, flags | F_REQUEST, sequence, 0), body)
        if last < 0:
            return
        # One acknowledgement tells that all is done: errors come unasked, of every message that has one.
        size, kind, flags, _, _ = HEADER.unpack(parts[last])
        parts[last] = HEADER.pack(size, kind, flags | F_ACK, sequence, 0)
        parts += (HEADER.pack(20, _BATCH_END, F_REQUEST, sequence + 1, 0), mark)
        self._sequence = sequence + 1
        whole = b"".join(parts)
        # A transaction has to be one datagram, and the send buffer bounds a datagram.
        if len(whole) + 64 > self._send_room:
            self._grow(_SO_SNDBUFFORCE, socket.SO_SNDBUF, len(whole))
            self._send_room = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._write(whole, doing)
        self._settle(first, sequence, doing)

    def _settle(self, first: int, last: int, doing: str) -> None:
        """Read what a transaction from sequence `first` to `last` gave; raise the first refusal."""
        refused: KernelError | None = None
        done = False
        flag = 0
        while True:
            # The kernel has answered before send returned: after the first answer, take what is there.
            try:
                datagram = self._receive(doing, flag)
            except BlockingIOError:
                break
            flag = socket.MSG_DONTWAIT
            for message in messages(datagram):
                if not first <= message.sequence <= last or message.kind != ERROR:
                    continue
                error = failure(message, doing)
                if error is None:
                    done = done or message.sequence == last
                elif refused is None and isinstance(error, Changed):
                    refused = error
                elif refused is None:
                    index = message.sequence - first - 1
                    refused = BatchRefused(
                        str(error), error.code, index if index >= 0 else None, refused_offset(message)
                    )
        if refused is not None:
            raise refused
        if not done:
            raise KernelError(f"{doing}: the kernel did not acknowledge it", errno.ENOBUFS)

    def drain(self, most: int = 256) -> list[bytes]:
        """Give at most `most` datagrams that wait, without waiting for more; losses are added to `lost`."""
        waiting: list[bytes] = []
        while len(waiting) < most:
            try:
                waiting.append(self._socket.recv(_ROOM, socket.MSG_DONTWAIT))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelError(f"netlink notices: {_said(error)}", error.errno or 0) from None
                self.lost += 1
        return waiting

    def _send(self, kind: int, flags: int, body: bytes, doing: str) -> int:
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        self._write(HEADER.pack(16 + len(body), kind, flags, self._sequence, 0) + body, doing)
        return self._sequence

    def _write(self, whole: bytes, doing: str) -> None:
        try:
            self._socket.send(whole)
        except OSError as error:
            raise KernelError(f"{doing}: {_said(error)}", error.errno or 0) from None

    def _receive(self, doing: str, flags: int = 0) -> bytes:
        while True:
            try:
                return self._socket.recv(_ROOM, flags)
            except BlockingIOError:
                if flags & socket.MSG_DONTWAIT:
                    raise
                raise KernelError(
                    f"{doing}: the kernel did not answer within {_PATIENCE_S} s", errno.ETIMEDOUT
                ) from None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelError(f"{doing}: {_said(error)}", error.errno or 0) from None
                self.lost += 1


def _said(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error).lower()
