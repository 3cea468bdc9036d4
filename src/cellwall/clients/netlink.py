"""How netlink messages are laid out: headers, attributes, acknowledgements. Pure.

Messages are laid out as in linux/netlink.h: a 16-byte header in host byte order, then the protocol's own
fixed part, then attributes of (length, type, payload), each padded to four bytes. Netfilter writes numbers
inside attributes in network byte order, rtnetlink and sock_diag in host byte order: hence `be32` and friends
here, and plain `struct` formats there. `kernel.py` holds the socket.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from cellwall.traffic import CellwallError


class Protocol(IntEnum):
    """The netlink protocols that we speak (linux/netlink.h)."""

    ROUTE = 0
    SOCK_DIAG = 4
    NETFILTER = 12


class KernelError(CellwallError):
    """The kernel refused a request, or said something that we cannot read.

    `code` is the errno that it gave, 0 when there is none.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Changed(KernelError):
    """What was being read or written changed meanwhile; nothing was written, and trying again makes sense."""


class Message(NamedTuple):
    """One netlink message: its type, flags, sequence number, the port that caused it, and what follows."""

    kind: int
    flags: int
    sequence: int
    port: int
    body: bytes


F_REQUEST, F_ACK, F_DUMP = 0x1, 0x4, 0x300
F_REPLACE, F_EXCLUSIVE, F_CREATE, F_APPEND = 0x100, 0x200, 0x400, 0x800
NESTED = 0x8000
"""The flag on the type of an attribute that holds attributes."""

ERROR, DONE = 2, 3
F_INTERRUPTED = 0x10
_F_CAPPED, _F_ACK_TLVS = 0x100, 0x200

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def attribute(kind: int, payload: bytes) -> bytes:
    """Lay out one attribute; `payload` is at most 65531 bytes."""
    size = len(payload) + 4
    if size > 0xFFFF:
        raise KernelError(f"an attribute of {len(payload)} bytes does not fit; wanted at most 65531")
    return _ATTRIBUTE.pack(size, kind) + payload + _PADDING[size & 3]


def nested(kind: int, *attributes_: bytes) -> bytes:
    """Lay out an attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(attributes_))


def text(kind: int, value: str) -> bytes:
    """Lay out a string attribute, with its closing zero."""
    return attribute(kind, value.encode() + b"\0")


def be16(kind: int, value: int) -> bytes:
    """Lay out a 16-bit number in network byte order."""
    return attribute(kind, value.to_bytes(2, "big"))


def be32(kind: int, value: int) -> bytes:
    """Lay out a 32-bit number in network byte order; negative numbers as two's complement."""
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def be64(kind: int, value: int) -> bytes:
    """Lay out a 64-bit number in network byte order."""
    return attribute(kind, value.to_bytes(8, "big"))


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Read the attributes in `data` from `start` on as type → payload.

    Types come without their flag bits; of equal types the last is given. Raises `KernelError` when one is
    cut short.
    """
    found: dict[int, bytes] = {}
    read, stop = _ATTRIBUTE.unpack_from, len(data)
    # Less than a header at the end is padding.
    while start + 4 <= stop:
        size, kind = read(data, start)
        if size < 4 or start + size > stop:
            raise KernelError("netlink attribute is cut short")
        found[kind & 0x3FFF] = data[start + 4 : start + size]
        start += size + 3 & ~3
    return found


def every_attribute(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Read the attributes in `data` from `start` on in their order, for lists, whose members share a type."""
    read, stop = _ATTRIBUTE.unpack_from, len(data)
    while start + 4 <= stop:
        size, kind = read(data, start)
        if size < 4 or start + size > stop:
            raise KernelError("netlink attribute is cut short")
        yield kind & 0x3FFF, data[start + 4 : start + size]
        start += size + 3 & ~3


def to_number(payload: bytes) -> int:
    """Read a number in network byte order, of any width."""
    return int.from_bytes(payload, "big")


def to_text(payload: bytes) -> str:
    """Read a string, up to its closing zero; bytes that are not UTF-8 are kept as escapes."""
    return payload.split(b"\0", 1)[0].decode(errors="backslashreplace")


def messages(datagram: bytes) -> Iterator[Message]:
    """Read the messages of one datagram. Raises `KernelError` when one is cut short."""
    read, start, stop = HEADER.unpack_from, 0, len(datagram)
    while start + 16 <= stop:
        size, kind, flags, sequence, port = read(datagram, start)
        if size < 16 or start + size > stop:
            raise KernelError("netlink message is cut short")
        yield Message(kind, flags, sequence, port, datagram[start + 16 : start + size])
        start += size + 3 & ~3


def failure(message: Message, doing: str) -> KernelError | None:
    """Read an NLMSG_ERROR: None when it is an acknowledgement, else the error with the kernel's own words.

    With extended acknowledgements (linux/netlink.h, `nlmsgerr_attrs`) the kernel says what it disliked.
    """
    if len(message.body) < 4:
        return KernelError(f"{doing}: netlink answer is cut short")
    code = -int.from_bytes(message.body[:4], sys.byteorder, signed=True)
    if code == 0:
        return None
    said = ""
    if message.kind == ERROR and message.flags & _F_ACK_TLVS and len(message.body) >= 20:
        # The original message follows the code: its header alone when capped.
        size = 16 if message.flags & _F_CAPPED else HEADER.unpack_from(message.body, 4)[0] + 3 & ~3
        said = to_text(attributes(message.body, 4 + size).get(1, b""))
    words = os.strerror(code).lower() if 0 < code < 4096 else f"error {code}"
    reason = words + (f" ({said.rstrip('.').lower()})" if said else "")
    kind = Changed if code in (errno.ERESTART, errno.EINTR) else KernelError
    return kind(f"{doing}: {reason}", code)


def refused_offset(message: Message) -> int | None:
    """Say where in the refused message the kernel points at, counted from the start of its header."""
    if not message.flags & _F_ACK_TLVS or not message.flags & _F_CAPPED:
        return None
    offset = attributes(message.body, 20).get(2)
    return None if offset is None else int.from_bytes(offset, sys.byteorder)


class BatchRefused(KernelError):
    """The kernel refused a transaction; it is as it was.

    `index` is the place of the first refused message, `offset` that of the refused attribute in it, counted
    from the start of the message's header; either is None when the kernel does not say.
    """

    def __init__(self, message: str, code: int, index: int | None = None, offset: int | None = None) -> None:
        super().__init__(message, code)
        self.index = index
        self.offset = offset
