"""Imported firewalls written down: a policy document for each host, its networks, and what is not carried over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cellwall.flows import Side
from cellwall.translate.firewalls.boxes import Box
from cellwall.translate.firewalls.first_match import Step
from cellwall.translate.firewalls.host import OWN, Host, Meaning, meaning
from cellwall.translate.firewalls.intervals import (
    ADDRESSES,
    IPV4,
    IPV6,
    Intervals,
    join,
    less,
    meet,
    networks_of,
    of_addresses,
    ports_of,
    touch,
)
from cellwall.translate.firewalls.names import Names
from cellwall.translate.firewalls.order_free import Effect, Remark

MOST_QUOTED = 200
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.=:/-]*")
_WORDS = frozenset({"true", "false", "null"})


@dataclass(frozen=True, slots=True)
class ImportedHosts:
    """Policy documents by name, how many rules they have, and what was not carried over as it was."""

    documents: Mapping[str, str]
    rules: int
    remarks: tuple[Remark, ...]

    @property
    def opens(self) -> bool:
        """Whether the documents may allow what the originals do not."""
        return any(one.effect is Effect.OPENS for one in self.remarks)


@dataclass(frozen=True, slots=True)
class _Line:
    """A rule of a document to be."""

    id: str
    side: Side
    allows: bool
    ports: list[str]
    source: str
    destination: str
    reason: str
    user: str | None = None


def write_hosts(hosts: Sequence[Host]) -> ImportedHosts:
    """Write the firewalls of hosts, each with a name of its own, as policy documents that mean the same.

    A host is the workloads that carry its label `host=NAME`, in mode `enforce`. Equal hosts give equal texts."""
    writer = _Writer([meaning(host) for host in hosts])
    lines: dict[str, list[_Line]] = {}
    while_written: dict[str, list[Remark]] = {}
    for said in writer.said:
        before = len(writer.remarks)
        lines[said.host.name] = list(writer.lines(said))
        while_written[said.host.name] = writer.remarks[before:]
    texts: dict[str, str] = {}
    for said in writer.said:
        mine = [*_head(said, while_written[said.host.name]), *_rules(lines[said.host.name])]
        alone = len(hosts) == 1
        mine += [*_networks(writer.names.networks), *_services(writer.names.services)] if alone else []
        texts[f"{said.host.name}.yaml"] = "\n".join(mine) + "\n"
    if len(hosts) > 1:
        head = "# The networks and services of the imported hosts."
        shared = [head, *_networks(writer.names.networks), *_services(writer.names.services)]
        texts["imported-networks.yaml"] = "\n".join(shared) + "\n"
    remarks = sorted(
        dict.fromkeys([*(remark for said in writer.said for remark in said.remarks), *writer.remarks]),
        key=lambda one: (one.place, tuple(Effect).index(one.effect), one.reason),
    )
    return ImportedHosts(texts, sum(len(some) for some in lines.values()), tuple(remarks))


class _Writer:
    def __init__(self, said: list[Meaning]) -> None:
        self.said = said
        self.names = Names(said[0].host.name if len(said) == 1 else "")
        self.remarks: list[Remark] = []
        for one in said:
            for addresses, name in one.host.names.items():
                self.names.hint(addresses, name)

    def lines(self, said: Meaning) -> Iterator[_Line]:
        """Give the rules of one host."""
        for side, found in said.sides.items():
            for allows in (True, False):
                parts = [(one.step, box) for one in found if one.allows is allows for box in one.boxes]
                for steps, box in _both_families(parts):
                    line = self._line(said.host, side, steps, allows, box)
                    if line is not None:
                        yield line

    def _line(self, host: Host, side: Side, steps: tuple[Step, ...], allows: bool, box: Box) -> _Line | None:
        if not networks_of(box.remote[:1]) and not networks_of(box.remote):
            return None
        name = self.names.rule(host.name, steps[0])
        near = self._near(host, steps[0], allows, box, name)
        if near is None:
            return None
        far = self.names.network(box.remote, f"{name}-{'from' if side is Side.INGRESS else 'to'}")
        source, destination = (far, near) if side is Side.INGRESS else (near, far)
        reason = "; ".join(_quoted(step) for step in steps)
        return _Line(name, side, allows, self.names.ports(box.ports, name), source, destination, reason, box.user)

    def _near(self, host: Host, step: Step, allows: bool, box: Box, name: str) -> str | None:
        """Write the own end: the host, or some of its addresses; None where the rule is of addresses not its own."""
        if _whole(box):
            return f"host={host.name}"
        inside = box.local
        if host.addresses:
            mine = meet(of_addresses(host.addresses), _own_of(box))
            inside = meet(box.local, mine)
            if not inside:
                self.remarks.append(
                    Remark(step.place, Effect.SAME, "about addresses that are not the host's", step.text)
                )
                return None
            if inside == mine:
                return f"host={host.name}"
        elif any(first != last for first, last in inside):
            effect = Effect.OPENS if allows else Effect.CLOSES
            told = "the rule speaks of all workloads within these addresses; give the host's own with --address"
            self.remarks.append(Remark(step.place, effect, told, step.text))
        return self.names.network(inside, f"{name}-own")


def _both_families(parts: Sequence[tuple[Step, Box]]) -> Iterator[tuple[tuple[Step, ...], Box]]:
    """Make one rule for anyone of two, for all of IPv4 and for all of IPv6, that are the same otherwise."""
    made: list[tuple[tuple[Step, ...], Box] | None] = [((step,), box) for step, box in parts]
    waiting: dict[tuple[Intervals, str | None, Intervals], list[int]] = {}
    for at, (step, box) in enumerate(parts):
        if box.remote not in (IPV4, IPV6) or not _whole(box):
            continue
        mates = waiting.get((box.ports, box.user, IPV6 if box.remote == IPV4 else IPV4))
        if mates:
            first = mates.pop(0)
            made[first] = ((parts[first][0], step), replace(box, remote=ADDRESSES, local=OWN))
            made[at] = None
        else:
            waiting.setdefault((box.ports, box.user, box.remote), []).append(at)
    return (one for one in made if one is not None)


def _own_of(box: Box) -> Intervals:
    return join(part for family in (IPV4, IPV6) if touch(box.remote, family) for part in meet(OWN, family))


def _whole(box: Box) -> bool:
    return not less(_own_of(box), box.local)


def _quoted(step: Step) -> str:
    text = step.text if len(step.text) <= MOST_QUOTED else f"{step.text[:MOST_QUOTED]} …"
    return f"{step.place.file}:{step.place.line}: {text}" if step.place.line else f"{step.place.file}: {text}"


def _head(said: Meaning, while_written: list[Remark]) -> Iterator[str]:
    host = said.host
    yield f"# The firewall of {host.name}, imported from {_shown(', '.join(host.files))}."
    told = [one for one in (*said.remarks, *while_written) if one.effect is not Effect.SAME]
    listed = sorted(dict.fromkeys(told), key=lambda one: (tuple(Effect).index(one.effect), one.place, one.reason))
    if listed:
        yield "# Not carried over as it was:"
    for one in listed:
        text = f": {one.text[:MOST_QUOTED]}" if one.text else ""
        yield f"#   {one.effect}: {_shown(f'{one.place}: {one.reason}{text}')}"
    yield "modes:"
    yield f"  - {{where: host={host.name}, mode: enforce}}"


def _rules(lines: Iterable[_Line]) -> Iterator[str]:
    head = ["rules:"]
    for one in lines:
        yield from head
        head = []
        yield f"  - id: {_text(one.id)}"
        ports = ", ".join(_text(port) for port in one.ports)
        yield f"    {'allow' if one.allows else 'deny'}: {ports if len(one.ports) == 1 else f'[{ports}]'}"
        source = _text(one.source)
        yield (
            f"    from: {{workloads: {source}, as: {{user: {_text(one.user)}}}}}" if one.user else f"    from: {source}"
        )
        yield f"    to: {_text(one.destination)}"
        yield f"    side: {one.side}"
        yield f"    reason: {_text(one.reason)}"


def _networks(networks: Mapping[str, Intervals]) -> Iterator[str]:
    if networks:
        yield "networks:"
    for name in sorted(networks):
        listed = ", ".join(
            f'"{prefix}"' if prefix.version == 6 else str(prefix) for prefix in networks_of(networks[name])
        )
        yield f"  {_text(name)}: [{listed}]"


def _services(services: Mapping[str, Intervals]) -> Iterator[str]:
    if services:
        yield "services:"
    for name in sorted(services):
        yield f"  {_text(name)}: [{', '.join(_text(port) for port in str(ports_of(services[name])).split(', '))}]"


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text not in _WORDS:
        return text
    return json.dumps("".join(c if c.isprintable() else "\ufffd" for c in text), ensure_ascii=False)


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
