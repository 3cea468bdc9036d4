"""Elements of nftables sets and maps: values, and how the kernel lays them out. Pure; `elements.py` speaks.

Keys are the bytes that the kernel compares: addresses and ports in network byte order, marks as `mark` gives them,
and each field of a concatenation padded to four bytes (`concat`). What is written here stays readable for nft(8).
The numbers are those of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from functools import lru_cache

from cellwall.clients import (
    F_CREATE,
    NESTED,
    KernelError,
    attribute,
    attributes,
    be32,
    be64,
    every_attribute,
    nested,
    text,
    to_number,
    to_text,
)

NEWSETELEM, DELSETELEM = 10 << 8 | 12, 10 << 8 | 14
_KEY, _DATA, _FLAGS, _TIMEOUT, _EXPIRATION, _USERDATA = 1, 2, 3, 4, 5, 6
_EXPR, _KEY_END, _EXPRESSIONS = 7, 10, 11
_INTERVAL_END, _CATCHALL = 1, 2
_SET_INTERVAL, _SET_CONCAT = 0x4, 0x80
_SET_FLAGS, _SET_KEY_LEN, _SET_DESC, _SET_COUNT = 3, 5, 9, 20
_ROOM = 60_000  # of elements in a message: the length of an attribute has 16 bits
_PAIR = struct.Struct("=HHHH")
_MARK = struct.Struct("=HHHHI")
_HEAD = struct.Struct("=HH")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Family(IntEnum):
    """The family of a table (linux/netfilter.h, NFPROTO)."""

    INET = 1
    IP = 2
    ARP = 3
    NETDEV = 5
    BRIDGE = 7
    IP6 = 10


class Act(StrEnum):
    """What an element of a verdict map has the packet do."""

    ACCEPT = "accept"
    DROP = "drop"
    CONTINUE = "continue"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"


_CODES = {Act.DROP: 0, Act.ACCEPT: 1, Act.CONTINUE: -1, Act.JUMP: -3, Act.GOTO: -4, Act.RETURN: -5}
_ACTS = {code & 0xFFFFFFFF: act for act, code in _CODES.items()}


@dataclass(frozen=True, slots=True)
class Branch:
    """The data of an element of a verdict map; `chain` is named for jump and goto alone."""

    act: Act
    chain: str = ""

    def __post_init__(self) -> None:
        if bool(self.chain) != (self.act in (Act.JUMP, Act.GOTO)):
            raise KernelError(f"verdict `{self.act} {self.chain}`: wanted a chain with jump and goto, and only there")


ACCEPT, DROP = Branch(Act.ACCEPT), Branch(Act.DROP)


def jump(chain: str) -> Branch:
    """Have the packet go through `chain` and come back."""
    return Branch(Act.JUMP, chain)


def goto(chain: str) -> Branch:
    """Have the packet go to `chain` for good."""
    return Branch(Act.GOTO, chain)


Data = int | Branch | bytes
"""The data of a map's element: an int is a mark (four bytes in host order), bytes are any other value as it is."""


@dataclass(frozen=True, slots=True)
class Add:
    """Put an element into the set or map `into`; the very same one being there already is fine.

    `key_end` closes a concatenated range, inclusive, field by field. `timeout_ms` needs a set with timeouts.
    `end` marks the first key after an interval of a single-key interval set: use `add_range`, which makes both.
    """

    into: str
    key: bytes
    data: Data | None = None
    key_end: bytes | None = None
    timeout_ms: int | None = None
    comment: str = ""
    end: bool = False


@dataclass(frozen=True, slots=True)
class Fill:
    """Put many elements, keys of one size with their marks, into the map `into`: as an `Add` of each does, sooner."""

    into: str
    marks: Mapping[bytes, int]


@dataclass(frozen=True, slots=True)
class Delete:
    """Take an element out of the set or map `out_of`; refused when it is not there. See `delete_range`."""

    out_of: str
    key: bytes
    key_end: bytes | None = None
    end: bool = False


@dataclass(frozen=True, slots=True)
class Flush:
    """Take all elements out of the set or map `of`."""

    of: str


ElementChange = Add | Fill | Delete | Flush


@dataclass(frozen=True, slots=True)
class Element:
    """An element as the kernel holds it.

    `key_end` is the last key of a range, inclusive, in either style of interval. `packets` and `octets` are there
    when the set counts, `timeout_ms` and `expires_ms` (from now) when the element ages.
    """

    key: bytes
    key_end: bytes | None = None
    data: Data | None = None
    packets: int | None = None
    octets: int | None = None
    timeout_ms: int | None = None
    expires_ms: int | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class SetShape:
    """What a set or map is: `key_size` in bytes, the most elements it takes (None: no bound), how its keys range.

    `held` is how many elements it holds, None where the kernel does not say.
    """

    key_size: int
    size: int | None
    interval: bool
    concatenated: bool
    held: int | None


def mark(value: int, *, ranges: bool = False) -> bytes:
    """Write a packet mark as (a field of) a key; `ranges` when the set has `flags interval`.

    The mark is compared as the packet holds it, in host byte order; but to look it up in an interval set nft turns
    it to network byte order first (`byteorder … hton` in `nft --debug=netlink`), also where the range is another
    field's.
    """
    return value.to_bytes(4, "big" if ranges else sys.byteorder)


def concat(*fields: bytes) -> bytes:
    """Join the fields of a concatenated key, each padded to four bytes, as in the kernel's registers."""
    return b"".join(field + _PADDING[len(field) & 3] for field in fields)


def add_range(into: str, first: bytes, last: bytes, data: Data | None = None) -> tuple[Add, ...]:
    """Put the interval from `first` to `last`, inclusive, into a single-key interval set."""
    after = _after(last)
    return (Add(into, first, data), *([] if after is None else [Add(into, after, end=True)]))


def delete_range(out_of: str, first: bytes, last: bytes) -> tuple[Delete, ...]:
    """Take the interval from `first` to `last`, inclusive, out of a single-key interval set."""
    after = _after(last)
    return (Delete(out_of, first), *([] if after is None else [Delete(out_of, after, end=True)]))


def _after(last: bytes) -> bytes | None:
    """The key after `last`; None when there is none: then an interval has no end marker."""
    value = int.from_bytes(last, "big") + 1
    return None if value >> 8 * len(last) else value.to_bytes(len(last), "big")


def prologue(family: Family, table: str, of: str) -> bytes:
    """Lay out what opens a message about a set: family, table and set name."""
    return bytes((family, 0, 0, 0)) + text(1, table) + text(2, of)


def requests(table: str, changes: Iterable[ElementChange], family: Family) -> Iterator[tuple[int, int, bytes]]:
    """Lay `changes` out as (message type, flags, body), in their order; neighbours of a kind share a message."""
    open_for: tuple[int, str] | None = None
    parts: list[bytes] = []
    room = 0
    for step in changes:
        if isinstance(step, Fill):
            if open_for is not None:
                yield _request(table, open_for, parts, family)
                open_for, parts = None, []
            yield from (_request(table, (NEWSETELEM, step.into), [some], family) for some in _filling(step.marks))
            continue
        match step:
            case Add():
                wanted, element = (NEWSETELEM, step.into), _element(step, step.data, step.timeout_ms, step.comment)
            case Delete():
                wanted, element = (DELSETELEM, step.out_of), _element(step, None, None, "")
            case Flush():
                wanted, element = (DELSETELEM, step.of), b""
        if open_for is not None and (wanted != open_for or not element or len(element) > room):
            yield _request(table, open_for, parts, family)
            open_for, parts = None, []
        if not element:
            # A deletion that names no element means all of them.
            yield DELSETELEM, 0, prologue(family, table, wanted[1])
            continue
        if open_for is None:
            open_for, room = wanted, _ROOM
        parts.append(element)
        room -= len(element)
    if open_for is not None:
        yield _request(table, open_for, parts, family)


def _request(table: str, kind: tuple[int, str], parts: list[bytes], family: Family) -> tuple[int, int, bytes]:
    body = prologue(family, table, kind[1]) + nested(3, *parts)
    return kind[0], F_CREATE if kind[0] == NEWSETELEM else 0, body


def _filling(marks: Mapping[bytes, int]) -> Iterator[bytes]:
    """Lay out elements, as many together as a message takes. But for key and mark, all are the same bytes."""
    if not marks:
        return
    key, number = next(iter(marks.items()))
    one = _element(Add("", key), number, None, "")
    ends = {number: _PADDING[len(key) & 3] + _mark(number) for number in set(marks.values())}
    begin = one[: len(one) - len(key) - len(ends[number])]
    laid = [begin + key + ends[number] for key, number in marks.items()]
    most = _ROOM // len(one)
    for start in range(0, len(laid), most):
        yield b"".join(laid[start : start + most])


def _element(step: Add | Delete, data: Data | None, timeout_ms: int | None, comment: str) -> bytes:
    body = _key(_KEY, step.key)
    if step.key_end is not None:
        body += _key(_KEY_END, step.key_end)
    if data is not None:
        body += _mark(data) if isinstance(data, int) else _data(data)
    if step.end:
        body += be32(_FLAGS, _INTERVAL_END)
    if timeout_ms is not None:
        body += be64(_TIMEOUT, timeout_ms)
    if comment:
        # libnftnl's user data: type 0 is a comment, then its length with the closing zero.
        words = comment.encode() + b"\0"
        body += attribute(_USERDATA, bytes((0, len(words))) + words)
    return _HEAD.pack(len(body) + 4, 1 | NESTED) + body


def _mark(number: int) -> bytes:
    return _MARK.pack(12, _DATA | NESTED, 8, 1, number)


def _key(kind: int, key: bytes) -> bytes:
    size = len(key)
    padding = _PADDING[size & 3]
    return _PAIR.pack(size + len(padding) + 8, kind | NESTED, size + 4, 1) + key + padding


@lru_cache(maxsize=4096)
def _data(data: Branch | bytes) -> bytes:
    if isinstance(data, bytes):
        return nested(_DATA, attribute(1, data))
    chain = text(2, data.chain) if data.chain else b""
    return nested(_DATA, nested(2, be32(1, _CODES[data.act]), chain))


def key_at(body: bytes, offset: int) -> bytes | None:
    """Give the key of the element whose attribute starts at `offset` of a request's body; None if there is none."""
    try:
        size = _HEAD.unpack_from(body, offset)[0]
        return attributes(attributes(body[offset : offset + size], 4)[_KEY])[1]
    except (KernelError, KeyError, struct.error):
        return None


def parse_shape(body: bytes) -> SetShape:
    """Read the answer about a set. Raises `KernelError` when it cannot be read."""
    told = attributes(body, 4)
    if _SET_KEY_LEN not in told:
        raise KernelError("answer about a set without the size of its key")
    flags = to_number(told.get(_SET_FLAGS, b""))
    size = attributes(told.get(_SET_DESC, b"")).get(1)
    held = told.get(_SET_COUNT)
    return SetShape(
        to_number(told[_SET_KEY_LEN]),
        None if size is None else to_number(size),
        bool(flags & _SET_INTERVAL),
        bool(flags & _SET_CONCAT),
        None if held is None else to_number(held),
    )


def parse_elements(body: bytes) -> Iterator[tuple[Element, bool]]:
    """Read the elements in one message of a dump, each with whether it only marks the end of an interval.

    Raises `KernelError` when the message is cut short.
    """
    for _, raw in every_attribute(attributes(body, 4).get(3, b"")):
        told = attributes(raw)
        key = told.get(_KEY)
        key_end = told.get(_KEY_END)
        data = told.get(_DATA)
        packets, octets = _counter(told) if _EXPR in told or _EXPRESSIONS in told else (None, None)
        timeout, expires = told.get(_TIMEOUT), told.get(_EXPIRATION)
        yield (
            Element(
                _value(key) if key else b"",
                None if key_end is None else _value(key_end),
                None if data is None else _parse_data(data),
                packets,
                octets,
                None if timeout is None else to_number(timeout),
                None if expires is None else to_number(expires),
                parse_comment(told[_USERDATA]) if _USERDATA in told else "",
            ),
            _FLAGS in told and bool(to_number(told[_FLAGS]) & _INTERVAL_END),
        )


def paired(found: Iterable[tuple[Element, bool]]) -> list[Element]:
    """Join the starts and end marks of a single-key interval set into elements with an inclusive `key_end`."""
    whole: list[Element] = []
    start: Element | None = None
    # Where one interval ends and the next begins at the same key, the end mark comes first.
    for element, ends in sorted(found, key=lambda pair: (pair[0].key, not pair[1])):
        if start is not None:
            last = int.from_bytes(element.key, "big") - 1
            if last < 0:
                raise KernelError("interval that ends before it begins")
            whole.append(replace(start, key_end=last.to_bytes(len(element.key), "big")))
        start = None if ends else element
    if start is not None:
        whole.append(replace(start, key_end=b"\xff" * len(start.key)))
    return whole


def _value(data: bytes) -> bytes:
    # A nested value alone: skip its header.
    if len(data) < 4:
        raise KernelError("element is cut short")
    return data[4 : _HEAD.unpack_from(data)[0]]


def _parse_data(data: bytes) -> Data:
    told = attributes(data)
    if (verdict := told.get(2)) is not None:
        parts = attributes(verdict)
        act = _ACTS.get(to_number(parts.get(1, b"")))
        if act is None:
            raise KernelError("element with an unknown verdict")
        chain = to_text(parts.get(2, b""))
        return Branch(act, chain)
    value = told.get(1, b"")
    return int.from_bytes(value, sys.byteorder) if len(value) == 4 else value


def _counter(told: dict[int, bytes]) -> tuple[int | None, int | None]:
    expressions = [told[_EXPR]] if _EXPR in told else [e for _, e in every_attribute(told[_EXPRESSIONS])]
    for expression in expressions:
        parts = attributes(expression)
        if to_text(parts.get(1, b"")) == "counter":
            counts = attributes(parts.get(2, b""))
            return to_number(counts.get(2, b"")), to_number(counts.get(1, b""))
    return None, None


def parse_comment(userdata: bytes) -> str:
    """Read the comment in the user data of an element or a rule, empty when there is none (libnftnl: type 0)."""
    place = 0
    while place + 2 <= len(userdata):
        kind, size = userdata[place], userdata[place + 1]
        if kind == 0:
            return to_text(userdata[place + 2 : place + 2 + size])
        place += 2 + size
    return ""
