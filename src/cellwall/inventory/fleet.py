"""Workloads, and the fleet at one moment."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from cellwall.labels import Labels
from cellwall.traffic import Address, CellwallError

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")


class InventoryError(CellwallError):
    """A workload that cannot be in the inventory as it is described."""


def check_name(name: str) -> str:
    """Return `name` if it can name a workload: 1 to 253 letters, digits, `-`, `_`, `.`; else raise."""
    if not _NAME.fullmatch(name):
        raise InventoryError(f"`{name}` cannot name a workload: letters, digits, `-`, `_`, `.`, at most 253")
    return name


@dataclass(frozen=True, slots=True)
class Workload:
    """Something with addresses and labels. `agent` says whether its own host point enforces for it.

    `epoch` is the moment it enrolled, seconds since the epoch, UTC: the later one owns an address that two claim.
    """

    name: str
    labels: Labels = field(default_factory=Labels)
    addresses: tuple[Address, ...] = ()
    agent: bool = True
    epoch: float = 0.0

    def __post_init__(self) -> None:
        check_name(self.name)
        unique = sorted(set(self.addresses), key=lambda a: (a.version, int(a)))
        object.__setattr__(self, "addresses", tuple(unique))


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a controller listens for agents: the flow to it is a lifeline."""

    address: Address
    port: int


@dataclass(frozen=True)
class Fleet:
    """A snapshot: the workloads, in order of name, and where the controllers listen."""

    workloads: tuple[Workload, ...] = ()
    controllers: tuple[Listener, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "workloads", tuple(sorted(self.workloads, key=lambda w: w.name)))
        if len(self.by_name) != len(self.workloads):
            names = [workload.name for workload in self.workloads]
            twice = next(name for name in names if names.count(name) > 1)
            raise InventoryError(f"workload `{twice}` is there twice")

    @cached_property
    def by_name(self) -> dict[str, Workload]:
        """Workloads by name."""
        return {workload.name: workload for workload in self.workloads}

    @cached_property
    def by_address(self) -> dict[Address, Workload]:
        """The one workload that owns each address: of two that claim it, the one that enrolled later."""
        owner: dict[Address, Workload] = {}
        for workload in sorted(self.workloads, key=lambda w: (w.epoch, w.name)):
            for address in workload.addresses:
                owner[address] = workload
        return owner

    @cached_property
    def conflicts(self) -> tuple[tuple[Address, tuple[str, ...]], ...]:
        """Addresses that more than one workload claims, with the names of all of them."""
        claims: dict[Address, list[str]] = {}
        for workload in self.workloads:
            for address in workload.addresses:
                claims.setdefault(address, []).append(workload.name)
        return tuple((address, tuple(names)) for address, names in claims.items() if len(names) > 1)
