"""Emergency orders: what people say in an incident, in force whatever the mode, and over by itself where it has an end.

An order is no rule of a document. It shuts or it opens, and stands between the lifelines and the policy; `decide` says
where. Orders have no order among themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from cellwall.labels import Labels, Selector
from cellwall.traffic import EVERYTHING, Address, CellwallError, Network, PortSet

_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")


class OrderError(CellwallError):
    """An order that cannot be given as it is described."""


class OrderKind(StrEnum):
    """What an order does.

    `CONTAIN`: nothing from source to destination on its ports. `LIMIT`: the source may begin nothing. `ISOLATE`:
    nothing into the source nor out of it. `SEAL`: the same, and most lifelines do not hold either. `OPEN`: from source
    to destination on its ports, whatever the policy says."""

    CONTAIN = "contain"
    LIMIT = "limit"
    ISOLATE = "isolate"
    SEAL = "seal"
    OPEN = "open"


QUARANTINES = (OrderKind.LIMIT, OrderKind.ISOLATE, OrderKind.SEAL)
"""The degrees of a quarantine, from the mildest."""


@dataclass(frozen=True, slots=True)
class Party:
    """One end of an order: workloads by name or by selector, and networks; anyone where nothing is named."""

    workloads: tuple[str, ...] = ()
    selectors: tuple[Selector, ...] = ()
    networks: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "workloads", tuple(sorted(set(self.workloads))))

    @property
    def anyone(self) -> bool:
        """Whether every address is meant."""
        return not (self.workloads or self.selectors or self.networks)

    def has(self, address: Address, workload: str | None, labels: Labels) -> bool:
        """Say whether an end of a flow is meant: an address, and the workload that owns it, if any, with its labels."""
        if self.anyone or any(address in network for network in self.networks):
            return True
        if workload is None:
            return False
        return workload in self.workloads or any(one.matches(labels) for one in self.selectors)

    def __str__(self) -> str:
        named = (*self.workloads, *(str(one) or "every workload" for one in self.selectors), *map(str, self.networks))
        return ", ".join(named) or "any"


ANYBODY = Party()


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `begins` and `expires` are seconds since the epoch, UTC: it is in force from the one until just before
    the other; None is until it is lifted.

    A quarantine is of its `source`. `exempt` are pairs of a source's and a destination's address that a containment
    leaves to the policy, on all its ports. Raises `OrderError` where it would shut off everyone or never end."""

    id: str
    kind: OrderKind
    source: Party = ANYBODY
    destination: Party = ANYBODY
    ports: PortSet = EVERYTHING
    exempt: frozenset[tuple[Address, Address]] = frozenset()
    begins: float = 0.0
    expires: float | None = None
    author: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise OrderError(f"`{self.id}` cannot name an order: letters, digits, `-`, `_`, `.`, at most 64")
        if not self.ports:
            raise OrderError(f"order `{self.id}` names no ports; wanted some, or `any`")
        if self.expires is not None and self.expires <= self.begins:
            raise OrderError(f"order `{self.id}` ends before it begins; wanted an end after its beginning")
        if self.kind in QUARANTINES and (self.source.anyone or not self.destination.anyone):
            raise OrderError(f"order `{self.id}`: a quarantine is of named workloads, selectors or networks")
        if self.kind is OrderKind.OPEN and self.expires is None:
            raise OrderError(f"order `{self.id}` opens without an end; say for how long, or write a rule")
        if self.exempt and self.kind is not OrderKind.CONTAIN:
            raise OrderError(f"order `{self.id}`: only a containment can exempt pairs")

    @property
    def shuts(self) -> bool:
        """Whether it denies; else it allows."""
        return self.kind is not OrderKind.OPEN

    @property
    def over_lifelines(self) -> bool:
        """Whether most lifelines do not hold against it."""
        return self.kind is OrderKind.SEAL

    @property
    def ways(self) -> tuple[tuple[Party, Party], ...]:
        """Who may be source and destination of the flows that it speaks of; one pair is enough."""
        if self.kind in (OrderKind.ISOLATE, OrderKind.SEAL):
            return (self.source, ANYBODY), (ANYBODY, self.source)
        return ((self.source, self.destination),)

    def in_time(self, now: float) -> bool:
        """Say whether it has begun and is not over at `now`."""
        return self.begins <= now and (self.expires is None or now < self.expires)

    def __str__(self) -> str:
        if self.kind in QUARANTINES:
            return f"{self.kind} {self.source}"
        return f"{self.kind} {self.ports} from {self.source} to {self.destination}"
