"""A `Ruleset` and its `Members` as bytes, and the digest by which both ends know that they hold the same.

A ruleset is msgpack of arrays, in the order of the fields below: a later version may add fields at the end, with a
default. Members are four byte strings: the IPv4 addresses, their classes, the IPv6 addresses, their classes.

The digest is over content: it leaves out the revision number and the places in documents, so a point whose rules a
new revision does not change is not touched. It is a sum over members, so that a change of members costs by the size
of the change. It guards against accident; against malice there is the signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from struct import iter_unpack, pack
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.msgpack import Decoder, Encoder

from cellwall.compile import (
    Canary,
    Carried,
    ClassCard,
    Entry,
    Face,
    LifelineCard,
    Members,
    NetworkSpan,
    Part,
    RuleCard,
    Ruleset,
)
from cellwall.flows import Side
from cellwall.policy import Action, Identity, Mode
from cellwall.traffic import LAST_POINT, Address
from cellwall.wire.codec import MOST_FROM_CONTROLLER, decode
from cellwall.wire.errors import WireError
from cellwall.wire.messages import U16, U32, Packed
from cellwall.wire.orders import decode_orders, encode_orders

Point = Annotated[int, Meta(ge=0, le=LAST_POINT)]
RuleNumber = Annotated[int, Meta(ge=1, lt=1 << 28)]
MOST_SUM = 1 << 256
T = TypeVar("T")


class _Row(Struct, frozen=True, array_like=True, gc=False):
    """A value as an array of its fields."""


class _Entry(_Row, frozen=True):
    peer: U32
    first: Point
    last: Point
    action: Action
    rules: tuple[RuleNumber, ...]


class _Face(_Row, frozen=True):
    addresses: tuple[Packed, ...]
    identity: tuple[str | None, str | None, str | None]
    ingress: tuple[_Entry, ...]
    egress: tuple[_Entry, ...]


class _Rule(_Row, frozen=True):
    number: RuleNumber
    id: str
    action: Action
    log: bool
    expires: float | None
    place: str
    services: str


class _Class(_Row, frozen=True):
    number: U32
    title: str


class _Network(_Row, frozen=True):
    first: Packed
    last: Packed
    peer: U32


class _Lifeline(_Row, frozen=True):
    id: str
    spans: tuple[tuple[Point, Point], ...]
    sides: tuple[Side, ...]
    to: tuple[Packed, ...]


class _Canary(_Row, frozen=True):
    id: str
    addresses: tuple[Packed, ...]
    port: U16


class _Ruleset(_Row, frozen=True):
    workload: str
    revision: int
    mode: Mode
    rules: tuple[_Rule, ...]
    classes: tuple[_Class, ...]
    faces: tuple[_Face, ...]
    networks: tuple[_Network, ...]
    lifelines: tuple[_Lifeline, ...]
    canaries: tuple[_Canary, ...]


class _Ordered(_Ruleset, frozen=True):
    """A ruleset with the orders of an emergency, of which protocol 1 knows nothing."""

    orders: bytes = b""


class _Members(_Row, frozen=True):
    four: bytes
    four_classes: bytes
    six: bytes
    six_classes: bytes


_ruleset: Decoder[_Ordered] = Decoder(_Ordered)
_members: Decoder[_Members] = Decoder(_Members)
_encode = Encoder().encode


class Scribe:
    """Writes rulesets; a part that several of them share, the same object, is written once.

    It keeps what it wrote, and the parts, for as long as it is there."""

    def __init__(self) -> None:
        self._parts: dict[tuple[object, int], tuple[object, Raw]] = {}

    def ruleset(self, ruleset: Ruleset) -> bytes:
        """Write a ruleset; equal rulesets give equal bytes."""
        row = self._row(ruleset, ruleset.revision, _rules)
        return _encode([*row, encode_orders(ruleset.orders)] if ruleset.orders else row)

    def content_hash(self, ruleset: Ruleset) -> bytes:
        """Do as `content_hash` does."""
        return sha256(_encode(self._row(ruleset, 0, _rules_without_places))).digest()

    def _row(self, ruleset: Ruleset, revision: int, rules: Callable[[tuple[RuleCard, ...]], object]) -> list[object]:
        # In the order of the fields of `_Ruleset`.
        return [
            ruleset.workload,
            revision,
            ruleset.mode,
            self._part(rules, ruleset.rules),
            self._part(_classes, ruleset.classes),
            [
                [
                    _packed(face.addresses),
                    (face.identity.user, face.identity.unit, face.identity.exe),
                    self._part(_entry_rows, face.ingress),
                    self._part(_entry_rows, face.egress),
                ]
                for face in ruleset.faces
            ],
            self._part(_networks, ruleset.networks),
            self._part(_lifelines, ruleset.lifelines),
            self._part(_canaries, ruleset.canaries),
        ]

    def _part(self, write: Callable[[T], object], part: T) -> Raw:
        # The part is kept beside what was written of it: so no other can have its identity.
        key = write, id(part)
        if key not in self._parts:
            self._parts[key] = part, Raw(_encode(write(part)))
        return self._parts[key][1]


def encode_ruleset(ruleset: Ruleset) -> bytes:
    """Write a ruleset; equal rulesets give equal bytes."""
    return Scribe().ruleset(ruleset)


def decode_ruleset(data: bytes) -> Ruleset:
    """Read a ruleset; raises `WireError`."""
    row = decode(_ruleset, data, MOST_FROM_CONTROLLER)
    return Ruleset(
        row.workload,
        row.revision,
        row.mode,
        tuple(RuleCard(r.number, r.id, r.action, r.log, r.expires, r.place, r.services) for r in row.rules),
        tuple(ClassCard(c.number, c.title) for c in row.classes),
        tuple(
            Face(_addresses(f.addresses), Identity(*f.identity), _entries(f.ingress), _entries(f.egress))
            for f in row.faces
        ),
        tuple(_network(n) for n in row.networks),
        tuple(LifelineCard(c.id, c.spans, c.sides, _addresses(c.to)) for c in row.lifelines),
        tuple(Canary(c.id, _addresses(c.addresses), c.port) for c in row.canaries),
        decode_orders(row.orders),
    )


def encode_members(members: Members) -> bytes:
    """Write members; equal members give equal bytes."""
    columns: list[bytes] = []
    flat = dict(members.items())
    for width in (4, 16):
        keys = sorted(key for key in flat if len(key) == width)
        columns += [b"".join(keys), pack(f">{len(keys)}I", *(flat[key] for key in keys))]
    return msgspec.msgpack.encode(columns)


def decode_members(data: bytes) -> dict[bytes, int]:
    """Read members; raises `WireError`."""
    row = decode(_members, data, MOST_FROM_CONTROLLER)
    members: dict[bytes, int] = {}
    rows = 0
    for width, keys, classes in ((4, row.four, row.four_classes), (16, row.six, row.six_classes)):
        if len(keys) % width or len(classes) % 4 or len(keys) // width != len(classes) // 4:
            raise WireError("not members: as many addresses as classes are wanted")
        rows += len(classes) // 4
        numbers = (number for (number,) in iter_unpack(">I", classes))
        members.update(zip((key for (key,) in iter_unpack(f"{width}s", keys)), numbers, strict=True))
    if len(members) != rows:
        raise WireError("not members: an address is there twice")
    if 0 in members.values():
        raise WireError("not members: class 0 is everyone and has none")
    return members


def sum_members(members: Members) -> int:
    """Give a number that stands for the members, whatever their order.

    It adds up: the sum of a union of disjoint members is the sum of their sums, modulo 2**256. So a change costs by
    its size: add what is added, take away what is removed (with the class it had).
    """
    if isinstance(members, Carried):
        return sum(map(_sum_part, members.parts)) % MOST_SUM
    return sum(_sum_member(key, number) for key, number in members.items()) % MOST_SUM


def _sum_part(part: Part) -> int:
    if part.sum is None:
        part.sum = sum(_remembered(key, number) for key, number in part.items())
    return part.sum


def _sum_member(key: bytes, number: int) -> int:
    return int.from_bytes(sha256(key + b"/" + number.to_bytes(4, "big")).digest(), "big")


_remembered = lru_cache(maxsize=1 << 18)(_sum_member)
"""For a controller, whose parts change by one member of thousands; an agent has no parts."""


def content_hash(ruleset: Ruleset) -> bytes:
    """Give the SHA-256 of what a ruleset says, apart from its revision, the places of its rules, and orders."""
    return Scribe().content_hash(ruleset)


def digest(ruleset: Ruleset, members: Members) -> str:
    """Give the digest, 64 hexadecimal digits, of all that a point is to hold."""
    return digest_of(content_hash(ruleset), sum_members(members), encode_orders(ruleset.orders))


def digest_of(content: bytes, members_sum: int, orders: bytes = b"") -> str:
    """Give the digest from `content_hash`, `sum_members` and `encode_orders`."""
    return sha256(content + members_sum.to_bytes(32, "big") + orders).hexdigest()


def apply_change(members: Members, added: Mapping[bytes, int], removed: tuple[bytes, ...]) -> dict[bytes, int]:
    """Give the members after a change: what is removed goes, what is added comes or changes its class.

    Raises `WireError` where something removed is not there: the change was made for other members.
    """
    after = dict(members)
    for key in removed:
        if after.pop(key, None) is None:
            raise WireError(f"`{_address(key)}` is to leave and is no member")
    after.update(added)
    return after


def change_between(before: Members, after: Members) -> tuple[dict[bytes, int], tuple[bytes, ...]]:
    """Give what `apply_change` needs to come from `before` to `after`: added and removed."""
    if before is after:
        return {}, ()
    if isinstance(before, Carried) and isinstance(after, Carried):
        before, after = before.apart(after)
    added = {key: number for key, number in after.items() if before.get(key) != number}
    return added, tuple(sorted(key for key in before if key not in after))


def _rules(rules: tuple[RuleCard, ...]) -> list[_Rule]:
    return [_Rule(r.number, r.id, r.action, r.log, r.expires, r.place, r.services) for r in rules]


def _rules_without_places(rules: tuple[RuleCard, ...]) -> list[_Rule]:
    return [_Rule(r.number, r.id, r.action, r.log, r.expires, "", r.services) for r in rules]


def _classes(classes: tuple[ClassCard, ...]) -> list[_Class]:
    return [_Class(c.number, c.title) for c in classes]


def _entry_rows(entries: tuple[Entry, ...]) -> list[_Entry]:
    return [_Entry(e.peer, e.first, e.last, e.action, e.rules) for e in entries]


def _networks(networks: tuple[NetworkSpan, ...]) -> list[_Network]:
    return [
        _Network(n.first.to_bytes(_WIDTH[n.version], "big"), n.last.to_bytes(_WIDTH[n.version], "big"), n.peer)
        for n in networks
    ]


def _lifelines(lifelines: tuple[LifelineCard, ...]) -> list[_Lifeline]:
    return [_Lifeline(c.id, c.spans, c.sides, _packed(c.to)) for c in lifelines]


def _canaries(canaries: tuple[Canary, ...]) -> list[_Canary]:
    return [_Canary(c.id, _packed(c.addresses), c.port) for c in canaries]


_WIDTH = {4: 4, 6: 16}
_VERSION = {4: 4, 16: 6}


def _packed(addresses: tuple[Address, ...]) -> tuple[bytes, ...]:
    return tuple(address.packed for address in addresses)


def _address(packed: bytes) -> Address:
    if len(packed) not in _VERSION:
        raise WireError(f"an address of {len(packed)} bytes; wanted 4 or 16")
    return ip_address(packed)


def _addresses(packed: tuple[bytes, ...]) -> tuple[Address, ...]:
    return tuple(_address(one) for one in packed)


def _entries(rows: tuple[_Entry, ...]) -> tuple[Entry, ...]:
    for row in rows:
        if row.first > row.last:
            raise WireError(f"an entry from `{row.first}` to `{row.last}` runs backwards")
    return tuple(Entry(row.peer, row.first, row.last, row.action, row.rules) for row in rows)


def _network(row: _Network) -> NetworkSpan:
    if len(row.first) != len(row.last) or row.first > row.last:
        raise WireError("a network whose ends do not belong together")
    first, last = _address(row.first), _address(row.last)
    return NetworkSpan(first.version, int(first), int(last), row.peer)
