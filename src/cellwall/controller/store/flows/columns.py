"""Flow records as columns of plain values, which is how they travel to the flow worker and lie in its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Annotated, Any

from msgspec import Meta
from msgspec.msgpack import Decoder

from cellwall.flows import UNKNOWN, FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.traffic import Address, canonical

_MAPPED = b"\0" * 10 + b"\xff\xff"
OUTCOMES = (Outcome.ALLOWED, Outcome.DENIED)
SIDES = (Side.EGRESS, Side.INGRESS)

KEY = ("source", "destination", "protocol", "port")
PROCESS = ("name", "user", "unit", "exe")
COLUMNS = (
    *KEY,
    "side",
    "reporter",
    "outcome",
    "would",
    "rules",
    *PROCESS,
    "revision",
    "connections",
    "packets",
    "bytes",
    "first_seen",
    "last_seen",
    "standing",
)
"""The columns in order: addresses as 16 bytes (IPv4 mapped), `side`, `outcome` and `would` as places in the above."""

_Packed = list[Annotated[bytes, Meta(min_length=16, max_length=16)]]
_Bit = list[Annotated[int, Meta(ge=0, le=1)]]
_U8, _U16 = list[Annotated[int, Meta(ge=0, le=0xFF)]], list[Annotated[int, Meta(ge=0, le=0xFFFF)]]
_U63 = list[Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]]
_Times = list[Annotated[float, Meta(ge=0, le=1e11)]]
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("source", "destination"), _Packed),
    **dict.fromkeys(("side", "outcome", "would", "standing"), _Bit),
    **dict.fromkeys(("reporter", *PROCESS), list[str]),
    **dict.fromkeys(("revision", "connections", "packets", "bytes"), _U63),
    **dict.fromkeys(("first_seen", "last_seen"), _Times),
    "protocol": _U8,
    "port": _U16,
    "rules": list[list[str]],
}
_SHAPE: Any = tuple[tuple(_TYPES[name] for name in COLUMNS)]
_decode: Callable[[bytes], tuple[list[Any], ...]] = Decoder(_SHAPE).decode


def read_columns(data: bytes) -> tuple[list[Any], ...]:
    """Read the msgpack of columns that the tables can hold. Raises `ValueError` when they cannot."""
    columns = _decode(data)
    if len({len(column) for column in columns}) != 1:
        raise ValueError("columns of several lengths")
    return columns


@lru_cache(maxsize=262_144)
def pack16(address: Address) -> bytes:
    """Give an address as the 16 bytes of its IPv6 form; IPv4 is mapped (RFC 4291 §2.5.5.2)."""
    return _MAPPED + address.packed if address.version == 4 else address.packed


@lru_cache(maxsize=262_144)
def unpack16(packed: bytes) -> Address:
    """Give the address of 16 bytes."""
    return canonical(IPv6Address(packed))


def to_columns(records: Iterable[FlowRecord]) -> list[list[Any]]:
    """Give `records` as one list for each of `COLUMNS`."""
    rows = [
        (
            pack16(one.key.source),
            pack16(one.key.destination),
            one.key.protocol,
            one.key.port,
            SIDES.index(one.side),
            one.reporter,
            OUTCOMES.index(one.outcome),
            OUTCOMES.index(one.would),
            list(one.rules),
            one.process.name,
            one.process.user,
            one.process.unit,
            one.process.exe,
            one.revision,
            one.connections,
            one.packets,
            one.bytes,
            one.first_seen,
            one.last_seen,
            int(one.standing),
        )
        for one in records
    ]
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in COLUMNS]


def from_columns(columns: Sequence[Sequence[Any]]) -> tuple[FlowRecord, ...]:
    """Give the records of `columns`, in the order of `COLUMNS`."""
    processes: dict[tuple[str, str, str, str], Process] = {("", "", "", ""): UNKNOWN}
    records: list[FlowRecord] = []
    row: tuple[Any, ...]
    for row in zip(*columns, strict=True):
        source, destination, protocol, port, side, reporter, outcome, would, rules = row[:9]
        named: tuple[str, str, str, str] = row[9:13]
        process = processes.get(named) or processes.setdefault(named, Process(*named))
        revision, connections, packets, octets, first_seen, last_seen, standing = row[13:]
        records.append(
            FlowRecord(
                FlowKey(unpack16(source), unpack16(destination), protocol, port),
                reporter,
                SIDES[int(side)],
                OUTCOMES[int(outcome)],
                OUTCOMES[int(would)],
                tuple(rules),
                revision,
                connections,
                first_seen,
                last_seen,
                packets,
                octets,
                process,
                bool(standing),
            )
        )
    return tuple(records)
