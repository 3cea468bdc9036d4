"""What everything the controller decides stands on: the fleet and the policy at one moment, as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cellwall.compile import compile_fleet
from cellwall.controller.core import Wanted, want
from cellwall.controller.store.state import LabelRow, WorkloadRow
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels
from cellwall.policy import Policy, parse_policy
from cellwall.traffic import Address


@dataclass(frozen=True)
class Ground:
    """A policy, the revision it is, and the fleet that it is for."""

    revision: int
    policy: Policy
    fleet: Fleet


def read_policy(documents: Mapping[str, str]) -> Policy:
    """Read documents by file name. Raises `PolicyError`."""
    return parse_policy(sorted(documents.items()))


def effective_labels(rows: Iterable[LabelRow]) -> dict[str, Labels]:
    """Give the labels that hold, by workload. `rows` are in order of precedence, as the store gives them."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row.workload, {}).setdefault(row.key, row.value)
    return {name: Labels(labels) for name, labels in found.items()}


def make_fleet(
    workloads: Iterable[WorkloadRow],
    labels: Iterable[LabelRow],
    policy: Policy,
    controllers: tuple[Listener, ...],
) -> Fleet:
    """Give the fleet: what is in the inventory, and what the policy's own documents declare.

    Where both name a workload, the documents' labels win, and its agent says which addresses it has. An address that
    the documents give to another workload is not an agent's to claim: it would take that one's place in the rules.
    """
    held = effective_labels(labels)
    found = {
        row.name: Workload(row.name, held.get(row.name, Labels()), row.addresses, row.agent, row.epoch)
        for row in workloads
    }
    for declared in policy.workloads:
        known = found.get(declared.name)
        if known is None:
            found[declared.name] = Workload(declared.name, declared.labels, declared.addresses, agent=False)
        else:
            addresses = known.addresses if known.agent else (*known.addresses, *declared.addresses)
            found[declared.name] = replace(known, labels=known.labels.updated(declared.labels), addresses=addresses)
    given = {address: one.name for one in policy.workloads for address in one.addresses}
    for workload in tuple(found.values()):
        if workload.agent and any(given.get(address, workload.name) != workload.name for address in workload.addresses):
            own = (address for address in workload.addresses if given.get(address, workload.name) == workload.name)
            found[workload.name] = replace(workload, addresses=tuple(own))
    return Fleet(tuple(found.values()), controllers)


def compile_ground(ground: Ground, now: float) -> dict[str, Wanted]:
    """Say what every point is to hold at `now`. May take long for a large fleet: it touches nothing but its values."""
    return want(compile_fleet(ground.policy, ground.fleet, ground.revision, now).points)


def owners(workloads: Iterable[WorkloadRow]) -> dict[Address, str]:
    """Give who has each address: the later epoch, where two rows have it."""
    return {
        address: row.name
        for row in sorted(workloads, key=lambda one: (one.epoch, one.name))
        for address in row.addresses
    }
