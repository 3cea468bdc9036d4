"""Turns what the kernel counts, tracks and samples into flow records and denials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from cellwall.agent.bundle import Bundle
from cellwall.agent.facts import others
from cellwall.agent.owners import Owners
from cellwall.agent.strangers import Strangers
from cellwall.agent.tally import Samples, judged, side_of
from cellwall.clients import KernelError
from cellwall.enforce import LOG_GROUP, Seen
from cellwall.flows import UNKNOWN, FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.observe import (
    Connection,
    ConnectionEvents,
    Ends,
    Happening,
    HostFacts,
    Nflog,
    TcpState,
    enable_accounting,
    firewall_tables,
    host_addresses,
    unpack_address,
    walk_connections,
)
from cellwall.traffic import PORTED, TCP, Address
from cellwall.wire import Denial, Holds, Owner

_HOOKS = {1: Side.INGRESS, 3: Side.EGRESS}
MOST_STANDING = 100_000
MOST_VERDICTS = 20_000

T = TypeVar("T")
_Flow = tuple[Side, FlowKey]


class Observer:
    """Sees what goes on in this network namespace, for workload `name`. What it cannot see is in `blind`, in words."""

    def __init__(self, name: str) -> None:
        """Subscribe to what the kernel tells; what it does not tell makes us blind to it, and nothing fails."""
        self.blind: list[str] = []
        self.samples = Samples()
        self.denials: list[Denial] = []
        self.strangers = Strangers()
        self._name = name
        self._owners = Owners()
        self._local: frozenset[Address] = frozenset()
        self._verdicts: dict[_Flow, FlowRecord] = {}
        self._octets: dict[_Flow, tuple[int, int]] = {}
        self._lost = 0
        try:
            enable_accounting()
        except KernelError as error:
            self.blind.append(f"bytes of connections: {error}")
        self.connections = self._open(ConnectionEvents, "bytes, and the owners of short connections")
        self.packets = self._open(lambda: Nflog(LOG_GROUP), "samples of denials")
        self.look_for_addresses()
        with suppress(KernelError):
            self.strangers.watching = bool(others(firewall_tables()))

    def _open(self, opener: Callable[[], T], what: str) -> T | None:
        try:
            return opener()
        except KernelError as error:
            self.blind.append(f"{what}: {error}")
            return None

    def facts(self, now: float) -> HostFacts:
        """Collect the facts of this host. Raises `KernelError`."""
        facts = self._owners.facts(now)
        self.strangers.watching = bool(others(facts.tables))
        return facts

    def look_for_addresses(self) -> None:
        """Learn which addresses are ours."""
        with suppress(KernelError):
            found = host_addresses()
            self._local = frozenset(one.address for one in (*found.reachable, *found.link_local))

    # --- flows ---

    def records(self, seen: Iterable[Seen], held: Bundle, since: float, now: float) -> list[FlowRecord]:
        """Make records of what was counted under `held` from `since` to `now`, with the bytes of what has ended."""
        told: list[tuple[_Flow, Seen]] = []
        for one in seen:
            key = FlowKey(one.source, one.destination, one.protocol, one.port)
            if not self._inside(key):
                told.append(((side_of(one.source, self._local), key), one))
        octets, self._octets = self._octets, {}
        owners = self._name_owners([*(flow for flow, _ in told), *octets], now)
        found: list[FlowRecord] = []
        for flow, one in told:
            side, key = flow
            rule = held.ruleset.id_by_number.get(one.rule)
            packets, size = octets.pop(flow, (0, 0))
            found.append(
                FlowRecord(
                    key, self._name, side, one.outcome, one.would, (rule,) if rule else (), held.revision,
                    one.count, since, now, packets, size, owners.get(flow, UNKNOWN),
                )
            )  # fmt: skip
            self._remember(flow, found[-1])
        for flow, counts in octets.items():
            found.append(self._ended(flow, counts, held, since, now, owners.get(flow, UNKNOWN)))
        return found

    def standing(self, held: Bundle, now: float) -> list[FlowRecord]:
        """Make records of the connections that are open, which began before anybody counted. Raises `KernelError`."""
        found: dict[_Flow, list[int]] = {}
        for one in islice(walk_connections(), MOST_STANDING):
            flow = self._flow(one)
            gone = one.original.protocol == TCP and one.tcp_state != TcpState.ESTABLISHED
            if flow is None or gone or not one.answered:
                continue
            counts = found.setdefault(flow, [0, 0, 0])
            counts[0] += 1
            counts[1] += (one.original_packets or 0) + (one.reply_packets or 0)
            counts[2] += (one.original_octets or 0) + (one.reply_octets or 0)
        owners = self._name_owners(found, now)
        records: list[FlowRecord] = []
        for (side, key), (count, packets, size) in found.items():
            process = owners.get((side, key), UNKNOWN)
            outcome, would, rules = judged(held.ruleset, held.members, key, side, process)
            records.append(
                FlowRecord(
                    key, self._name, side, outcome, would, rules, held.revision, count, now, now, packets, size,
                    process, standing=True,
                )
            )  # fmt: skip
        return records

    def read_connections(self, now: float) -> None:
        """Take in which connections began and ended since the last call."""
        if self.connections is None:
            return
        begun: list[Ends] = []
        with suppress(KernelError):
            for event in self.connections.read():
                one = event.connection
                if event.happening is Happening.NEW:
                    begun.append(one.original)
                    if self.strangers.watching and (flow := self._flow(one)) is not None:
                        self.strangers.confirmed(flow, now)
                elif (flow := self._flow(one)) is not None and one.original_packets:
                    packets, size = self._octets.get(flow, (0, 0))
                    if len(self._octets) < MOST_VERDICTS:
                        packets += one.original_packets + (one.reply_packets or 0)
                        self._octets[flow] = packets, size + (one.original_octets or 0) + (one.reply_octets or 0)
        local = {address.packed for address in self._local}
        self._owners.catch((ends for ends in begun if ends.source in local), now)

    def suspect(self, records: Iterable[FlowRecord], now: float) -> tuple[Side, FlowKey] | None:
        """Give a flow that we let pass, by `records` of now or before, and that another firewall may have dropped."""
        for one in records:
            if one.connections and one.outcome is Outcome.ALLOWED and not one.standing:
                self.strangers.counted((one.side, one.key), now)
        return self.strangers.suspect(now)

    def dropped_by(self, asked: Holds, now: float) -> str:
        """Say which other firewall was seen to drop such packets, "" for none."""
        key = FlowKey(unpack_address(asked.source), unpack_address(asked.destination), asked.protocol, asked.port)
        return self.strangers.by((asked.side, key), now)

    def losses(self) -> int:
        """Say how often, since the last call, the kernel had to drop what it had to tell."""
        total = (self.connections.lost if self.connections else 0) + (self.packets.overruns if self.packets else 0)
        more, self._lost = total - self._lost, total
        return more

    def _ended(
        self, flow: _Flow, counts: tuple[int, int], held: Bundle, since: float, now: float, process: Process
    ) -> FlowRecord:
        """Make a record that only adds bytes to connections that were counted before, as of when they were.

        The kernel tells of an end up to minutes after the last packet: a later verdict must stay the latest."""
        side, key = flow
        known = self._verdicts.get(flow)
        if known is not None:
            verdict, revision, process = (known.outcome, known.would, known.rules), known.revision, known.process
            since, now = known.first_seen, known.last_seen
        else:
            verdict, revision = judged(held.ruleset, held.members, key, side, process), held.revision
        return FlowRecord(key, self._name, side, *verdict, revision, 0, since, now, *counts, process)

    def _remember(self, flow: _Flow, record: FlowRecord) -> None:
        self._verdicts.pop(flow, None)
        if len(self._verdicts) >= MOST_VERDICTS:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[flow] = record

    def _name_owners(self, flows: Iterable[_Flow], now: float) -> dict[_Flow, Process]:
        wanted = list(flows)
        try:
            return self._owners.name(wanted, now) if wanted else {}
        except KernelError:
            return {}

    def _flow(self, one: Connection) -> _Flow | None:
        """Give the flow of a connection as our table sees it: after its target and before its source is translated."""
        source = unpack_address(one.original.source)
        port = one.reply.sport if one.original.protocol in PORTED else one.original.dport
        key = FlowKey(source, unpack_address(one.reply.source), one.original.protocol, port)
        if self._inside(key) or not (key.source in self._local or key.destination in self._local):
            return None
        return side_of(source, self._local), key

    def _inside(self, key: FlowKey) -> bool:
        return key.destination.is_loopback or (key.source in self._local and key.destination in self._local)

    # --- denials ---

    def read_packets(self, revision: int, now: float) -> None:
        """Take in the samples since the last call, of policy `revision`; the many alike are only counted."""
        if self.packets is None:
            return
        with suppress(KernelError):
            for one in self.packets.read():
                mark, _, rest = one.prefix.partition(":")
                outcome, _, rule = rest.partition(":")
                if mark != "cw" or one.header is None or outcome not in ("allowed", "denied"):
                    continue
                ends = one.header.ends
                if not self.samples.wanted((ends.source, ends.target, ends.protocol, ends.dport, rule), now):
                    continue
                user = self._owners.user(one.uid) if one.uid is not None else ""
                self.denials.append(
                    Denial(
                        at=one.at_ns / 1e9 if one.at_ns else now,
                        source=ends.source,
                        destination=ends.target,
                        protocol=ends.protocol,
                        port=ends.dport,
                        side=_HOOKS.get(one.hook, Side.INGRESS),
                        outcome=Outcome(outcome),
                        rule="" if rule == "default" else rule,
                        revision=revision,
                        owner=Owner(user=user),
                    )
                )

    def take_denials(self, now: float) -> tuple[Sequence[Denial], int]:
        """Give the samples since the last call and how many more there were, and make room for others."""
        taken, self.denials = self.denials, []
        skipped, self.samples.skipped = self.samples.skipped, 0
        self.samples.refill(now)
        return taken, skipped

    def close(self) -> None:
        """Stop listening."""
        for one in (self.connections, self.packets):
            if one is not None:
                one.close()
