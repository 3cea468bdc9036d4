"""Watch who changes nftables: transactions by us and by others, as the kernel announces them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from cellwall.clients import Message, Netlink, Protocol, attributes, messages, to_number, to_text
from cellwall.enforce.nft.elements import generation_id, open_link

_GROUP_NFTABLES = 7
_RECEIVE_BUFFER = 8 << 20
_NEWGEN = 15


class Thing(StrEnum):
    """What can be made and deleted in nftables."""

    TABLE = "table"
    CHAIN = "chain"
    RULE = "rule"
    SET = "set"
    ELEMENT = "element"
    OBJECT = "object"
    FLOWTABLE = "flowtable"


# Message type → what was made (True) or deleted, and the attribute that names it within its table. A rule is named
# by its chain, an element by its set (linux/netfilter/nf_tables.h, enum nf_tables_msg_types).
_KINDS: dict[int, tuple[bool, Thing, int]] = {
    first + step: (step == 0, thing, named)
    for first, thing, named in (
        (0, Thing.TABLE, 1),
        (3, Thing.CHAIN, 3),
        (6, Thing.RULE, 2),
        (9, Thing.SET, 2),
        (12, Thing.ELEMENT, 2),
        (18, Thing.OBJECT, 2),
        (22, Thing.FLOWTABLE, 2),
    )
    for step in (0, 2)
}


@dataclass(frozen=True, slots=True)
class Touched:
    """Things of one kind in one place that a transaction made or deleted.

    `family` is the kernel's number (1 inet, 2 ip, 10 ip6 …), `name` that of the table, chain or set, the chain of
    rules, the set of elements; `count` how many there were.
    """

    made: bool
    thing: Thing
    family: int
    table: str
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction that went through, and who made it.

    `port` is the netlink port id of the socket that sent it: that of `Netlink.port` when it was ours. `pid` and
    `process` are the kernel's view of the sender: the pid is that of the initial pid namespace.
    """

    generation: int
    port: int
    pid: int
    process: str
    touched: tuple[Touched, ...]

    def touches(self, family: int, table: str) -> bool:
        """Say whether it changed anything of a table."""
        return any(one.family == family and one.table == table for one in self.touched)


class Watch:
    """Notices of all changes to nftables in the network namespace that it was opened in.

    Wait for `fileno` to be readable, then `read`. When `lost` grows, something was not heard: look at the ruleset
    itself. Make large changes within `deaf`.
    """

    def __init__(self, *ignored_ports: int, receive_buffer: int = _RECEIVE_BUFFER) -> None:
        """Subscribe; what `ignored_ports` change is not heard at all. Raises `KernelError`."""
        self._link = Netlink(Protocol.NETFILTER, receive_buffer)
        self._pending: Counter[tuple[int, int, str, str]] = Counter()
        self._missed = 0
        if ignored_ports:
            self._link.ignore(*ignored_ports)
        self._link.join(_GROUP_NFTABLES)

    @property
    def lost(self) -> int:
        """How often notices were dropped because they were not read in time, or missed while deaf."""
        return self._link.lost + self._missed

    @contextmanager
    def deaf(self, made: Callable[[], int] | None = None) -> Generator[None]:
        """Hear nothing while this process changes thousands of elements.

        While anybody listens, the kernel makes a notice for each element before it drops those that are ignored:
        at 200,000 it held 1.3 GiB for them. `made` says how many transactions this process has made so far; without,
        it is one unless an error is raised out of here. When anyone else changed something meanwhile, `lost` grows.
        """
        with open_link() as own:
            before, counted = generation_id(link=own), made() if made else 0
            self._link.leave(_GROUP_NFTABLES)
            ours = 0
            try:
                yield
                ours = 1
            finally:
                self._link.join(_GROUP_NFTABLES)
                ours = made() - counted if made else ours
                self._missed += generation_id(link=own) != before + ours

    def fileno(self) -> int:
        """Give the descriptor to wait for."""
        return self._link.fileno()

    def read(self) -> list[Transaction]:
        """Give the transactions that were announced completely since the last call; does not wait."""
        done: list[Transaction] = []
        while True:
            before = self._link.lost
            datagrams = self._link.drain()
            if self._link.lost != before:
                self._pending.clear()
            for datagram in datagrams:
                done += digest(messages(datagram), self._pending)
            if not datagrams:
                return done

    def close(self) -> None:
        """Stop watching."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def digest(notices: Iterable[Message], pending: Counter[tuple[int, int, str, str]]) -> list[Transaction]:
    """Add notices to `pending` until the one that ends a transaction, and give the transactions that ended.

    The kernel announces what a transaction did, then its generation (NEWGEN), one transaction after the other.
    Raises `KernelError` for a notice that is cut short.
    """
    done: list[Transaction] = []
    for notice in notices:
        number = notice.kind & 0xFF
        told = attributes(notice.body, 4)
        if number == _NEWGEN:
            touched = tuple(
                Touched(*_KINDS[kind][:2], family, table, name, count)
                for (kind, family, table, name), count in pending.items()
            )
            pending.clear()
            pid, process = to_number(told.get(2, b"")), to_text(told.get(3, b""))
            done.append(Transaction(to_number(told.get(1, b"")), notice.port, pid, process, touched))
        elif number in _KINDS and notice.body:
            table, name = to_text(told.get(1, b"")), to_text(told.get(_KINDS[number][2], b""))
            pending[number, notice.body[0], table, name] += 1
    return done
