"""A host's firewall as read, and what it comes to: order-free sentences for both sides, and what is not carried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cellwall.flows import Side
from cellwall.inventory import check_name
from cellwall.labels import check_value
from cellwall.policy import BUILT_IN, Place
from cellwall.traffic import TCP, UDP, Address, point
from cellwall.translate.firewalls.boxes import Box, less_all
from cellwall.translate.firewalls.first_match import Chains, Situation
from cellwall.translate.firewalls.intervals import (
    ADDRESSES,
    LOOPBACK,
    SHARED,
    Intervals,
    join,
    less,
    of_ports,
    ports_of,
)
from cellwall.translate.firewalls.order_free import Effect, Remark, Sentence, refusal, sentences
from cellwall.translate.firewalls.rule import HostFacts

OWN: Intervals = less(less(ADDRESSES, LOOPBACK), SHARED)
"""What can be an address of a host's own."""
UNIVERSE = Box(local=OWN)
EPHEMERAL: Intervals = tuple((point(protocol, 32768), point(protocol, 60999)) for protocol in (TCP, UDP))
"""Where answers arrive (ip-sysctl, ip_local_port_range)."""
_HOOKS = {Side.INGRESS: "input", Side.EGRESS: "output"}


@dataclass(frozen=True, slots=True)
class Host:
    """One host's firewall: the base chains that its packets are asked by, on each side.

    `addresses` are its own, as far as known; `names` is what the original calls sets of addresses."""

    name: str
    bases: Mapping[Side, tuple[Chains, ...]]
    files: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    remarks: tuple[Remark, ...] = ()
    names: Mapping[Intervals, str] = field(default_factory=dict[Intervals, str])

    @property
    def place(self) -> Place:
        """Where the firewall as a whole stands."""
        return Place(self.files[0] if self.files else self.name)


@dataclass(frozen=True, slots=True)
class Part:
    """What one file says of a host."""

    host: str
    file: str
    bases: Mapping[Side, tuple[Chains, ...]] = field(default_factory=dict[Side, tuple[Chains, ...]])
    remarks: tuple[Remark, ...] = ()
    names: Mapping[Intervals, str] = field(default_factory=dict[Intervals, str])


def assemble(parts: Sequence[Part], known: HostFacts) -> list[Host]:
    """Put together the files of each host. Raises `LabelError` where its name cannot be the value of a label."""
    hosts: list[Host] = []
    for name in dict.fromkeys(part.host for part in parts):
        check_value(check_name(name))
        mine = [part for part in parts if part.host == name]
        hosts.append(
            Host(
                name,
                {side: tuple(chains for part in mine for chains in part.bases.get(side, ())) for side in Side},
                tuple(dict.fromkeys(part.file for part in mine)),
                known.addresses.get(name, ()),
                tuple(remark for part in mine for remark in part.remarks),
                {addresses: word for part in reversed(mine) for addresses, word in part.names.items()},
            )
        )
    return hosts


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a host's firewall comes to, without order."""

    host: Host
    sides: Mapping[Side, tuple[Sentence, ...]]
    remarks: tuple[Remark, ...]


def meaning(host: Host) -> Meaning:
    """Say without order what a host's firewall accepts, and what of it cannot be said."""
    sides: dict[Side, tuple[Sentence, ...]] = {}
    remarks = list(host.remarks)
    for side in (Side.INGRESS, Side.EGRESS):
        sides[side], found = sentences(host.bases[side], UNIVERSE)
        remarks.extend(found)
    remarks.extend(_always_open(host, sides))
    remarks.extend(_replies(host, sides))
    return Meaning(host, sides, tuple(dict.fromkeys(remarks)))


def accepted(said: tuple[Sentence, ...], box: Box) -> tuple[Box, ...]:
    """Give what the sentences accept of a box; those of one user count for nobody else."""
    found: list[Box] = []
    for one in said:
        if one.allows:
            found.extend(both for own in one.boxes if (both := own.meet(box)) is not None and both.user == box.user)
    return less_all(found, (own for one in said if not one.allows for own in one.boxes))


def _always_open(host: Host, sides: Mapping[Side, tuple[Sentence, ...]]) -> Iterator[Remark]:
    for side, said in sides.items():
        closed: dict[str, Intervals] = {}
        for line in BUILT_IN:
            box = Box(ports=of_ports(line.ports), local=OWN)
            left = less_all((box,), accepted(said, box)) if side in line.sides else ()
            if left:
                closed[line.id] = join(part for one in left for part in one.ports)
        if closed:
            ports = ports_of(join(part for some in closed.values() for part in some))
            told = f"Cellwall lets `{ports}` through on {_HOOKS[side]} whatever is written ({', '.join(closed)})"
            yield Remark(host.place, Effect.CHECK, told)
    for side, bases in host.bases.items():
        lo = Box(remote=LOOPBACK, local=LOOPBACK)
        step = refusal(bases, Situation.LOOPBACK, lo)
        if step is not None:
            told = f"Cellwall always lets loopback through; here {_HOOKS[side]} over it may be dropped"
            yield Remark(step.place, Effect.CHECK, told, step.text)


def _replies(host: Host, sides: Mapping[Side, tuple[Sentence, ...]]) -> Iterator[Remark]:
    """Open connections that the original would stop midway: Cellwall lets an allowed connection's packets pass."""
    for side, other in ((Side.INGRESS, Side.EGRESS), (Side.EGRESS, Side.INGRESS)):
        # Answers come from where connections may go, and go to where they may come from.
        far = join(part for one in sides[other] if one.allows for box in one.boxes for part in box.remote)
        step = refusal(host.bases[side], Situation.OPEN, Box(far, EPHEMERAL, OWN)) if far else None
        if step is None:
            continue
        which = "its policy" if step.policy else "this"
        told = f"{which} drops answers on {_HOOKS[side]}; Cellwall lets the answers of allowed connections pass"
        yield Remark(step.place, Effect.OPENS, told, step.text)
