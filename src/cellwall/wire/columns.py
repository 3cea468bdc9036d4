"""Flow records to the columns of a `Flows` message and back.

A column is as many little-endian numbers as there are rows, in one byte string. Addresses, tuples of rule ids and
processes stand once in a table, and columns hold their places in it; place 0 of `rules` and `owners` is not special.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from ipaddress import ip_address
from struct import calcsize, pack, unpack
from typing import Generic, TypeVar, cast

from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.traffic import Address, canonical
from cellwall.wire.errors import WireError
from cellwall.wire.messages import Flows, Owner

T = TypeVar("T", bound=Hashable)

MOST_ROWS = 1_000_000
INGRESS, DENIED, WOULD_DENY, STANDING = 1, 2, 4, 8
_KINDS = {
    "source": "I",
    "destination": "I",
    "protocol": "B",
    "port": "H",
    "flags": "B",
    "rule": "I",
    "owner": "I",
    "revision": "Q",
    "connections": "Q",
    "packets": "Q",
    "octets": "Q",
    "first": "d",
    "last": "d",
}
FLOW_COLUMNS = tuple(_KINDS)
"""The fields of `Flows` that are columns."""
_LARGE, _LATE = 1 << 48, 100_000_000_000
"""What one record can count: so large that it never is, so small that a sum of many is right in 64 bits."""
_MOST = {
    "revision": _LARGE,
    "connections": _LARGE,
    "packets": _LARGE,
    "octets": _LARGE,
    "first": _LATE,
    "last": _LATE,
}


class _Table(Generic[T]):
    """Values, each once, and their places."""

    def __init__(self) -> None:
        self.places: dict[T, int] = {}

    def place(self, value: T) -> int:
        return self.places.setdefault(value, len(self.places))


def pack_flows(
    records: Sequence[FlowRecord],
    *,
    batch: str,
    start: float,
    end: float,
    lost: int = 0,
    dropped: int = 0,
) -> Flows:
    """Write records of the window `start` to `end` (seconds since the epoch) as one message.

    Their `reporter` is left out: the controller knows it from the certificate.
    """
    addresses, rules, owners = _Table[Address](), _Table[tuple[str, ...]](), _Table[Process]()
    columns: dict[str, list[int] | list[float]] = {
        "source": [addresses.place(one.key.source) for one in records],
        "destination": [addresses.place(one.key.destination) for one in records],
        "protocol": [one.key.protocol for one in records],
        "port": [one.key.port for one in records],
        "flags": [_flags(one) for one in records],
        "rule": [rules.place(one.rules) for one in records],
        "owner": [owners.place(one.process) for one in records],
        "revision": [one.revision for one in records],
        "connections": [one.connections for one in records],
        "packets": [one.packets for one in records],
        "octets": [one.bytes for one in records],
        "first": [one.first_seen for one in records],
        "last": [one.last_seen for one in records],
    }
    return Flows(
        batch=batch,
        start=start,
        end=end,
        rows=len(records),
        addresses=tuple(address.packed for address in addresses.places),
        rules=tuple(rules.places),
        owners=tuple(Owner(name=o.name, user=o.user, unit=o.unit, exe=o.exe) for o in owners.places),
        lost=lost,
        dropped=dropped,
        **{name: _column(_KINDS[name], values) for name, values in columns.items()},
    )


def unpack_flows(flows: Flows, reporter: str) -> tuple[FlowRecord, ...]:
    """Read the records of a message that `reporter` sent; raises `WireError`."""
    if flows.rows > MOST_ROWS:
        raise WireError(f"{flows.rows} flows in one batch; at most {MOST_ROWS} are read")
    columns = {name: _numbers(name, kind, getattr(flows, name), flows.rows) for name, kind in _KINDS.items()}
    addresses = [_address(packed) for packed in flows.addresses]
    owners = [Process(owner.name, owner.user, owner.unit, owner.exe) for owner in flows.owners]
    for name, table in (
        ("source", addresses),
        ("destination", addresses),
        ("rule", flows.rules),
        ("owner", owners),
    ):
        if flows.rows and max(columns[name]) >= len(table):
            raise WireError(f"not flows: column `{name}` points past the end of its table")
    for name, most in _MOST.items():
        # NaN fails both comparisons.
        if not all(0 <= number <= most for number in columns[name]):
            raise WireError(f"not flows: column `{name}` holds a number out of range")
    rows = cast("Iterable[tuple[int, ...]]", zip(*columns.values(), strict=True))
    records: list[FlowRecord] = []
    for row in rows:
        source, destination, protocol, port, flags, rule, owner, revision, connections, packets, octets, *times = row
        records.append(
            FlowRecord(
                FlowKey(addresses[source], addresses[destination], protocol, port),
                reporter,
                Side.INGRESS if flags & INGRESS else Side.EGRESS,
                Outcome.DENIED if flags & DENIED else Outcome.ALLOWED,
                Outcome.DENIED if flags & WOULD_DENY else Outcome.ALLOWED,
                flows.rules[rule],
                revision,
                connections,
                times[0],
                times[1],
                packets,
                octets,
                owners[owner],
                bool(flags & STANDING),
            )
        )
    return tuple(records)


def _flags(record: FlowRecord) -> int:
    return (
        (INGRESS if record.side is Side.INGRESS else 0)
        | (DENIED if record.outcome is Outcome.DENIED else 0)
        | (WOULD_DENY if record.would is Outcome.DENIED else 0)
        | (STANDING if record.standing else 0)
    )


def _column(kind: str, values: list[int] | list[float]) -> bytes:
    return pack(f"<{len(values)}{kind}", *values)


def _numbers(name: str, kind: str, data: bytes, rows: int) -> tuple[int, ...]:
    if len(data) != rows * calcsize(f"<{kind}"):
        raise WireError(f"not flows: column `{name}` has {len(data)} bytes for {rows} rows")
    return unpack(f"<{rows}{kind}", data)


def _address(packed: bytes) -> Address:
    if len(packed) not in (4, 16):
        raise WireError(f"an address of {len(packed)} bytes; wanted 4 or 16")
    return canonical(ip_address(packed))
