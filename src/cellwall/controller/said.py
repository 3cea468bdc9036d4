"""What agents say, as values of ours."""

from __future__ import annotations

from ipaddress import ip_address

from cellwall.controller.store.state import DenialRow
from cellwall.traffic import Address, canonical
from cellwall.wire import Denials, WireError


def read_packed(packed: bytes) -> Address:
    """Read an address of 4 or 16 bytes. Raises `WireError`."""
    if len(packed) not in (4, 16):
        raise WireError(f"an address of {len(packed)} bytes; wanted 4 or 16")
    return canonical(ip_address(packed))


def denial_rows(name: str, denials: Denials) -> list[DenialRow]:
    """Give the samples of denied packets that the agent of a workload sends. Raises `WireError`."""
    return [
        DenialRow(
            one.at,
            name,
            read_packed(one.source),
            read_packed(one.destination),
            one.protocol,
            one.port,
            one.side,
            one.outcome,
            one.rule,
            one.revision,
            one.owner.name,
        )
        for one in denials.samples
    ]
