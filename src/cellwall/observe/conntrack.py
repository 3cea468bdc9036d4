"""Read, watch and correct the kernel's table of tracked connections, over ctnetlink."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from socket import AF_INET, AF_INET6
from types import TracebackType
from typing import Self

from cellwall.clients import (
    F_CREATE,
    F_EXCLUSIVE,
    KernelError,
    Netlink,
    Protocol,
    attribute,
    attributes,
    be32,
    messages,
    nested,
    to_number,
)
from cellwall.observe.connections import Connection, Ends, Status, TcpState, parse_connection, write_ends
from cellwall.traffic import TCP

_NEW, _GET, _DELETE, _STATS = 1 << 8, 1 << 8 | 1, 1 << 8 | 2, 1 << 8 | 5
_GROUP_NEW, _GROUP_UPDATE, _GROUP_DESTROY = 1, 2, 3
_BE_LIBERAL = 0x08
_RECEIVE_BUFFER = 16 << 20
# How long the kernel itself keeps an established TCP connection, and a UDP stream (nf_conntrack-sysctl).
_ESTABLISHED_S, _STREAM_S = 432_000, 120


class Happening(StrEnum):
    """What happened to a tracked connection."""

    NEW = "new"
    UPDATE = "update"
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """A connection that began, changed or ended; the counts of one that ended are its final ones."""

    happening: Happening
    connection: Connection


@dataclass(frozen=True, slots=True)
class Adoption:
    """What came of adopting connections: entries made, entries that were there, and those that the kernel refused."""

    made: int
    present: int
    refused: tuple[tuple[Ends, str], ...]


def open_conntrack() -> Netlink:
    """Open a link to ctnetlink in this network namespace, to be used for many calls."""
    return Netlink(Protocol.NETFILTER)


def _use(link: Netlink | None) -> AbstractContextManager[Netlink]:
    return open_conntrack() if link is None else nullcontext(link)


def _family(family: int) -> bytes:
    return bytes((family, 0, 0, 0))


def walk_connections(family: int = 0, link: Netlink | None = None) -> Iterator[Connection]:
    """Give the tracked connections one by one, as the kernel goes through its table: nothing is held in memory.

    `family` is AF_INET, AF_INET6, or 0 for both. One that moves meanwhile may come twice or not at all.
    """
    with _use(link) as use:
        for body in use.stream(_GET, _family(family), doing="cannot read tracked connections"):
            yield parse_connection(body)


def tracked_connections(family: int = 0, link: Netlink | None = None) -> list[Connection]:
    """List the tracked connections; see `walk_connections`."""
    return list(walk_connections(family, link))


def conntrack_fill(link: Netlink | None = None) -> tuple[int, int]:
    """Say how many connections are tracked in this namespace, and how many may be. Raises `KernelError`."""
    with _use(link) as use:
        answers = use.ask(_STATS, _family(0), doing="cannot read the fill of conntrack")
    told = attributes(answers[0].body, 4) if answers else {}
    return to_number(told.get(1, b"")), to_number(told.get(2, b""))


def enable_accounting() -> None:
    """Have the kernel count packets and bytes, and stamp times, of connections that begin from here on.

    For this network namespace. Raises `KernelError` when the kernel does not let us.
    """
    for setting in ("acct", "timestamp"):
        path = Path(f"/proc/sys/net/netfilter/nf_conntrack_{setting}")
        try:
            # A write, even of the same value, would show in audit logs.
            if path.read_text().strip() != "1":
                path.write_text("1")
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise KernelError(f"cannot enable conntrack {setting}: {reason}", error.errno or 0) from None


def create_connection(
    original: Ends, *, timeout_s: int | None = None, mark: int = 0, link: Netlink | None = None
) -> None:
    """Have the kernel track a connection that is open already, begun by `original.source`.

    TCP enters as established, with windows taken as they come, both ways: the kernel has not seen them. Without
    `timeout_s` it is kept for as long as the kernel keeps such a connection by itself. Raises `KernelError`, with
    code EEXIST when either direction is tracked already.
    """
    if timeout_s is None:
        timeout_s = _ESTABLISHED_S if original.protocol == TCP else _STREAM_S
    parts = [
        _family(AF_INET if len(original.source) == 4 else AF_INET6),
        write_ends(1, original),
        write_ends(2, original.reversed()),
        be32(3, Status.SEEN_REPLY | Status.ASSURED | Status.CONFIRMED),
        be32(7, timeout_s),
    ]
    if mark:
        parts.append(be32(8, mark))
    if original.protocol == TCP:
        liberal = struct.pack("BB", _BE_LIBERAL, _BE_LIBERAL)
        state = attribute(1, bytes((TcpState.ESTABLISHED,)))
        parts.append(nested(4, nested(1, state, attribute(4, liberal), attribute(5, liberal))))
    with _use(link) as use:
        use.ask(_NEW, b"".join(parts), F_CREATE | F_EXCLUSIVE, doing="cannot track a connection")


def delete_connection(original: Ends, link: Netlink | None = None) -> bool:
    """Have the kernel forget a tracked connection; False when there is none with these ends."""
    family = _family(AF_INET if len(original.source) == 4 else AF_INET6)
    with _use(link) as use:
        try:
            use.ask(_DELETE, family + write_ends(1, original), doing="cannot forget a connection")
        except KernelError as error:
            if error.code == errno.ENOENT:
                return False
            raise
    return True


def mark_connection(original: Ends, mark: int, link: Netlink | None = None) -> bool:
    """Set the mark of a tracked connection; False when there is none with these ends."""
    family = _family(AF_INET if len(original.source) == 4 else AF_INET6)
    with _use(link) as use:
        try:
            use.ask(_NEW, family + write_ends(1, original) + be32(8, mark), doing="cannot mark a connection")
        except KernelError as error:
            if error.code == errno.ENOENT:
                return False
            raise
    return True


def adopt(begun: Iterable[Ends], link: Netlink | None = None) -> Adoption:
    """Have the kernel track these open connections, each begun by its source.

    To be called before anything tracks connections in this namespace: tracking that begins by itself takes who
    speaks first for the client. One that is tracked already is left as it is; one that is refused stops no other.
    """
    made = present = 0
    refused: list[tuple[Ends, str]] = []
    with _use(link) as use:
        for original in begun:
            try:
                create_connection(original, link=use)
                made += 1
            except KernelError as error:
                if error.code == errno.EEXIST:
                    present += 1
                else:
                    refused.append((original, str(error)))
    return Adoption(made, present, tuple(refused))


def repair(wrong: Iterable[Connection], link: Netlink | None = None) -> Adoption:
    """Turn round the roles of these tracked connections, keeping their marks.

    A packet between forgetting and tracking anew may have the kernel make the wrong entry again: then once more.
    """
    made = 0
    refused: list[tuple[Ends, str]] = []
    with _use(link) as use:
        for one in wrong:
            right = one.original.reversed()
            for attempt in range(5):
                delete_connection(one.original, use)
                try:
                    create_connection(right, timeout_s=max(one.timeout_s, 1), mark=one.mark, link=use)
                    made += 1
                    break
                except KernelError as error:
                    if error.code != errno.EEXIST or attempt == 4:
                        refused.append((right, str(error)))
                        break
    return Adoption(made, 0, tuple(refused))


class ConnectionEvents:
    """Notices of connections that begin and end in the network namespace that it was opened in.

    Wait a little (20 ms), then `read` all: one call for each notice would not keep up. `lost` counts how often the
    kernel had to drop some. The kernel tells of a connection's end only if somebody listened when it began.
    """

    def __init__(
        self, *, new: bool = True, destroy: bool = True, update: bool = False, receive_buffer: int = _RECEIVE_BUFFER
    ) -> None:
        """Subscribe. Raises `KernelError`."""
        self._link = Netlink(Protocol.NETFILTER, receive_buffer)
        for wanted, group in ((new, _GROUP_NEW), (update, _GROUP_UPDATE), (destroy, _GROUP_DESTROY)):
            if wanted:
                self._link.join(group)

    @property
    def lost(self) -> int:
        """How often notices were dropped because they were not read in time."""
        return self._link.lost

    def fileno(self) -> int:
        """Give the descriptor to wait for."""
        return self._link.fileno()

    def read(self, most: int = 16384) -> list[ConnectionEvent]:
        """Give what happened since the last call, oldest first, at most `most` of it; does not wait."""
        return [event for datagram in self._link.drain(most) for event in parse_events(datagram)]

    def close(self) -> None:
        """Stop listening."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parse_events(datagram: bytes) -> Iterator[ConnectionEvent]:
    """Read the notices of one datagram. Raises `KernelError` when one is cut short."""
    for message in messages(datagram):
        if message.kind == _NEW:
            happening = Happening.NEW if message.flags & F_CREATE else Happening.UPDATE
        elif message.kind == _DELETE:
            happening = Happening.DESTROY
        else:
            continue
        yield ConnectionEvent(happening, parse_connection(message.body))
