"""Which of millions of distinct flows fare otherwise, found by columns; those few are then looked at one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import numpy as np
from numpy.typing import NDArray

from cellwall.analysis.table.columns import Columns
from cellwall.analysis.table.table import Table
from cellwall.flows import FlowKey
from cellwall.traffic import Address, point

MAPPED = np.frombuffer(b"\0" * 10 + b"\xff\xff", np.uint8)
"""How an IPv4 address begins as 16 bytes (RFC 4291 §2.5.5.2)."""
Rows = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Keys:
    """Distinct keys of flows as columns of one length: addresses as rows of 16 bytes (IPv4 mapped), points of the line
    of ports; how many flows (by process) and connections were seen of each."""

    sources: Rows
    destinations: Rows
    points: NDArray[np.uint32]
    flows: NDArray[np.uint64]
    connections: NDArray[np.uint64]

    @staticmethod
    def of(sources: bytes, destinations: bytes, points: bytes, flows: bytes, connections: bytes) -> Keys:
        """Read columns of little-endian numbers."""
        return Keys(
            np.frombuffer(sources, np.uint8).reshape(-1, 16),
            np.frombuffer(destinations, np.uint8).reshape(-1, 16),
            np.frombuffer(points, "<u4").astype(np.uint32, copy=False),
            np.frombuffer(flows, "<u8").astype(np.uint64, copy=False),
            np.frombuffer(connections, "<u8").astype(np.uint64, copy=False),
        )

    @staticmethod
    def from_counts(counts: Mapping[FlowKey, tuple[int, int]]) -> Keys:
        """Make columns of keys, each with its flows and connections."""
        return Keys.of(
            b"".join(_sixteen(key.source) for key in counts),
            b"".join(_sixteen(key.destination) for key in counts),
            np.array([point(key.protocol, key.port) for key in counts], "<u4").tobytes(),
            np.array([flows for flows, _ in counts.values()], "<u8").tobytes(),
            np.array([connections for _, connections in counts.values()], "<u8").tobytes(),
        )

    def __len__(self) -> int:
        return len(self.points)

    def key(self, at: int) -> FlowKey:
        """Give one key."""
        where = int(self.points[at])
        return FlowKey(_address(self.sources[at]), _address(self.destinations[at]), where >> 16, where & 0xFFFF)


@dataclass(frozen=True, eq=False)
class Sifted:
    """What a sift of `Keys` found: the flows and connections in all, those with no point at either end, and the places
    of the keys that may fare otherwise: all that do, and those of which a rule asks who the process is."""

    flows: int
    connections: int
    unknown: int
    doubtful: NDArray[np.intp]


def sift(before: Table, after: Table, keys: Keys) -> Sifted:
    """Find the keys that fare otherwise by `after` than by `before`. What a workload sends itself may be among them."""
    judged: list[NDArray[np.bool_]] = []
    asked = np.zeros(len(keys), np.bool_)
    unknown = 0
    for table in (before, after):
        columns = Columns(table, len(keys))
        sources, destinations = (_locate(table, columns, ends) for ends in (keys.sources, keys.destinations))
        judged.append(columns.judge(sources, destinations, keys.points))
        several, agents = table.several(), table.agents()
        asked |= several[sources] | several[destinations]
        unknown = int(keys.flows[~(agents[sources] | agents[destinations])].sum())
    doubtful = np.flatnonzero((judged[0] != judged[1]) | asked)
    return Sifted(int(keys.flows.sum()), int(keys.connections.sum()), unknown, doubtful)


def _locate(table: Table, columns: Columns, ends: Rows) -> NDArray[np.int32]:
    kinds = np.empty(len(ends), np.int32)
    four = (ends[:, :12] == MAPPED).all(axis=1)
    kinds[four] = columns.locate(np.ascontiguousarray(ends[four, 12:]).view(">u4").reshape(-1).astype(np.uint32))
    six = np.ascontiguousarray(ends[~four])
    if len(six):
        # Far fewer addresses than flows.
        distinct, places = np.unique(six.view("V16").reshape(-1), return_inverse=True)
        found = [table.kind_at(IPv6Address(bytes(one))) for one in distinct]
        kinds[~four] = np.array(found, np.int32)[places]
    return kinds


def _sixteen(address: Address) -> bytes:
    return MAPPED.tobytes() + address.packed if address.version == 4 else address.packed


def _address(row: Rows) -> Address:
    packed = row.tobytes()
    return IPv4Address(packed[12:]) if packed[:12] == MAPPED.tobytes() else IPv6Address(packed)
