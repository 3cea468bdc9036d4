"""Which addresses a host's own word gives it: not those of an operator's, nor of one that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from cellwall.controller.core import Standing
from cellwall.controller.store.state import StateStore, WorkloadRow
from cellwall.traffic import Address, parse_address

EVERYBODY = parse_address("255.255.255.255")


def believed(
    store: StateStore,
    standings: Mapping[str, Standing],
    name: str,
    claimed: set[Address],
    log: Callable[..., None],
    came_from: Address | None = None,
) -> tuple[Address, ...]:
    """Give those of the addresses that `name` claims which nobody else has who defends them; others are logged.

    Who was away while another took its address gets it back by coming from there (`came_from`): whoever only says
    that it has an address cannot do that. No address that means many hosts, or each its own, is anybody's.
    """
    found: list[Address] = []
    for address in sorted(claimed, key=lambda one: (one.version, int(one))):
        if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
            continue
        if address == EVERYBODY:
            continue
        owners = [one for one in store.having(address) if one.name != name and _defends(one, standings)]
        if owners and address == came_from and all(one.agent for one in owners) and _had(store, name, address):
            log("address given back", level="warning", workload=name, address=str(address), taker=owners[0].name)
            found.append(address)
        elif owners:
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


def _had(store: StateStore, name: str, address: Address) -> bool:
    return any(address in one.workload.addresses for one in store.history(name))


def _defends(row: WorkloadRow, standings: Mapping[str, Standing]) -> bool:
    standing = standings.get(row.name)
    return not row.agent or (standing is not None and standing.connected)
