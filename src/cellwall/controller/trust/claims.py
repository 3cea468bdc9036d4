"""Which addresses a host's own word gives it: not those of an operator's, nor of one that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from cellwall.controller.core import Standing
from cellwall.controller.store.state import StateStore, WorkloadRow
from cellwall.traffic import Address


def believed(
    store: StateStore, standings: Mapping[str, Standing], name: str, claimed: set[Address], log: Callable[..., None]
) -> tuple[Address, ...]:
    """Give those of the addresses that `name` claims which nobody else has who defends them; others are logged."""
    found: list[Address] = []
    for address in sorted(claimed, key=lambda one: (one.version, int(one))):
        owners = [one for one in store.having(address) if one.name != name and _defends(one, standings)]
        if owners:
            owner = max(owners, key=lambda one: (one.epoch, one.name)).name
            log("contested address", level="warning", workload=name, address=str(address), owner=owner)
        else:
            found.append(address)
    return tuple(found)


def release(store: StateStore, name: str, addresses: tuple[Address, ...], now: float) -> None:
    """Take addresses that `name` has from whoever had them and is away."""
    for other in {one.name: one for address in addresses for one in store.having(address)}.values():
        if other.name != name and other.agent:
            left = tuple(one for one in other.addresses if one not in addresses)
            store.put_workload(replace(other, addresses=left), now)


def _defends(row: WorkloadRow, standings: Mapping[str, Standing]) -> bool:
    standing = standings.get(row.name)
    return not row.agent or (standing is not None and standing.connected)
