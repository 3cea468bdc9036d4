"""What everything the controller decides stands on: the fleet and the policy at one moment, as values."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter

from cellwall.inventory import Fleet, Listener, Workload
from cellwall.policy import DeclaredWorkload, Order, Policy, parse_policy
from cellwall.traffic import Address

_NAME = attrgetter("name")


@dataclass(frozen=True)
class Ground:
    """A policy, the revision it is, the fleet that it is for, and the orders of an emergency that stand over it.

    Orders are no policy: what is asked about documents alone (plans, replays, tests) does not look at them."""

    revision: int
    policy: Policy
    fleet: Fleet
    orders: tuple[Order, ...] = ()


def read_policy(documents: Mapping[str, str]) -> Policy:
    """Read documents by file name. Raises `PolicyError`. What was read lately is not read again."""
    return _read(tuple(sorted(documents.items())))


@lru_cache(maxsize=4)
def _read(documents: tuple[tuple[str, str], ...]) -> Policy:
    return parse_policy(documents)


Overlay = dict[str, Workload]
"""What documents made of workloads, by name."""


def make_fleet(
    inventory: Sequence[Workload],
    policy: Policy,
    controllers: tuple[Listener, ...],
    having: Callable[[Address], Iterable[str]] | None = None,
    overlay: Overlay | None = None,
) -> Fleet:
    """Give the fleet: what is in the inventory (in order of name), and what the policy's own documents declare.

    Where both name a workload, the documents' labels win, and its agent says which addresses it has. An address that
    the documents give to another workload is not an agent's to claim: it would take that one's place in the rules.

    Whom the documents do not touch is in the fleet as the same object; and whom they do, too, while neither the
    inventory's nor theirs changes and `overlay` is the same dict, which this function fills. `having` says who has an
    address; without it all are looked at.
    """
    if not policy.workloads:
        return Fleet(tuple(inventory), controllers)
    given = {address: one.name for one in policy.workloads for address in one.addresses}
    declared = {one.name: one for one in policy.workloads}
    touched = {*declared, *_claiming(inventory, given, having)}
    overlay = {} if overlay is None else overlay
    found = list(inventory)
    for name in sorted(touched):
        at = bisect_left(found, name, key=_NAME)
        held = found[at] if at < len(found) and found[at].name == name else None
        made = _overlaid(name, held, declared.get(name), given)
        # Made anew, and mostly equal to what was made before: then that stays.
        if overlay.get(name) != made:
            overlay[name] = made
        made = overlay[name]
        found[at : at + (held is not None)] = [made]
    return Fleet(tuple(found), controllers)


def _claiming(
    inventory: Sequence[Workload], given: Mapping[Address, str], having: Callable[[Address], Iterable[str]] | None
) -> Iterator[str]:
    if having is not None:
        yield from (name for address in given for name in having(address))
    else:
        yield from (one.name for one in inventory if not given.keys().isdisjoint(one.addresses))


def _overlaid(
    name: str, held: Workload | None, declared: DeclaredWorkload | None, given: Mapping[Address, str]
) -> Workload:
    if held is None:
        assert declared is not None
        return Workload(name, declared.labels, declared.addresses, agent=False)
    labels, addresses = held.labels, held.addresses
    if declared is not None:
        labels = labels.updated(declared.labels)
        addresses = addresses if held.agent else (*addresses, *declared.addresses)
    if held.agent:
        addresses = tuple(one for one in addresses if given.get(one, name) == name)
    if (labels, addresses) == (held.labels, held.addresses):
        return held
    return replace(held, labels=labels, addresses=addresses)


def relabel(ground: Ground, changes: Mapping[str, Mapping[str, str | None]]) -> Ground:
    """Give `ground` with some labels of workloads set, or removed where the value is None. Raises `LabelError`."""
    changed = (
        replace(one, labels=one.labels.updated(changes[one.name])) if one.name in changes else one
        for one in ground.fleet.workloads
    )
    return replace(ground, fleet=Fleet(tuple(changed), ground.fleet.controllers))
