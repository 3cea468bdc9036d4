"""What may pass between two ends, as a set of ports: the algebra under all other analyses; its twin is `decide`."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from itertools import product

from cellwall.flows import Side
from cellwall.inventory import Fleet
from cellwall.labels import LabelIndex
from cellwall.policy import (
    BUILT_IN,
    NOBODY,
    Action,
    AddressBook,
    Decision,
    Endpoint,
    Flow,
    Identity,
    Mode,
    Policy,
    Rule,
    Verdict,
    Who,
    controller_channel,
    decide_at,
    endpoint,
)
from cellwall.traffic import EVERYTHING, NOTHING, Address, PortSet


class Assume(StrEnum):
    """Which modes count: those of the policy, or `enforce` everywhere."""

    MODES = "modes"
    ENFORCE = "enforce"


@dataclass(frozen=True, eq=False)
class Kind:
    """All that a policy can tell of one end of a flow: ends of one kind get the same verdicts. One object each.

    `example` is one of them. `source` and `destination` are the rules (a bit each) whose `from` or `to` it meets, as
    the point at each side sees it; `shared` its values of the keys that rules want shared."""

    example: Endpoint
    shared: Mapping[str, str]
    mode: Mode
    source: Mapping[Side, int]
    destination: Mapping[Side, int]


class Reach:
    """A policy over a fleet at one moment, cut into kinds of ends; its answers are remembered.

    The rules that concern a pair of ends are those of both kinds' bits, less those whose `same` keys differ; what
    passes depends on these and on the mode alone, and there are few such sets."""

    def __init__(self, policy: Policy, fleet: Fleet, now: float) -> None:
        self.policy, self.fleet, self.now = policy, fleet, now
        rules = (*BUILT_IN, controller_channel(fleet.controllers), *policy.lifelines, *policy.rules)
        self.rules = tuple(rule for rule in rules if rule.in_time(now) and not rule.refused)
        self._index = _Index(self.rules)
        self._live = sum(1 << at for at, rule in enumerate(self.rules) if not rule.staged)
        same: defaultdict[tuple[str, ...], int] = defaultdict(int)
        for at, rule in enumerate(self.rules):
            if rule.same:
                same[rule.same] |= 1 << at
        self._same = tuple(same.items())
        self._shared = tuple(sorted({key for keys in same for key in keys}))
        self._mode_keys = frozenset(key for rule in policy.modes for key in rule.where.keys)
        self._kinds: dict[object, Kind] = {}
        self._by_address: dict[Address, dict[Identity, Kind]] = {}
        self._passing: dict[tuple[int, Mode], PortSet] = {}
        self._verdicts: dict[tuple[int, Mode, int, bool], Verdict] = {}
        self._policies: dict[int, Policy] = {}

    def identities(self, side: Side) -> tuple[Identity, ...]:
        """Give the identities that some rule asks of the process at `side`, and nobody; sorted."""
        return (NOBODY, *sorted(self._index.asked[side], key=_identity_order))

    def kind(self, address: Address, identity: Identity = NOBODY) -> Kind:
        """Give the kind of the end at `address`."""
        known = self._by_address.setdefault(address, {})
        found = known.get(identity)
        if found is None:
            found = known[identity] = self.kind_of(endpoint(self.fleet, address, identity))
        return found

    def kind_of(self, end: Endpoint) -> Kind:
        """Give the kind of `end`."""
        met = self._index.met(end)
        shared = tuple((key, end.labels[key]) for key in self._shared if key in end.labels)
        mode = self.policy.mode_of(end.labels.only(self._mode_keys))
        at = met, shared, mode, end.workload is None, end.agent, end.address.is_loopback, end.identity
        found = self._kinds.get(at)
        if found is None:
            source = {side: self._index.bits(met, side, end.identity, "source") for side in Side}
            destination = {side: self._index.bits(met, side, end.identity, "destination") for side in Side}
            found = self._kinds[at] = Kind(end, dict(shared), mode, source, destination)
        return found

    def concerned(self, side: Side, source: Kind, destination: Kind) -> int:
        """Give the rules (a bit each, by place in `rules`) that speak of these ends at one side, on some port."""
        bits = source.source[side] & destination.destination[side]
        for keys, rules in self._same:
            if bits & rules and any(
                key not in source.shared or source.shared[key] != destination.shared.get(key) for key in keys
            ):
                bits &= ~rules
        return bits

    def passing(self, source: Kind, destination: Kind, assume: Assume, *, own: bool = False) -> PortSet:
        """Give the points that both ends' points let through; `own` when both ends are one workload."""
        first = self.passing_at(Side.EGRESS, source, destination, assume, own=own)
        second = self.passing_at(Side.INGRESS, source, destination, assume, own=own)
        return first if first is second or second is EVERYTHING else second if first is EVERYTHING else first & second

    def lets(self, source: Kind, destination: Kind, at: int, assume: Assume, *, own: bool = False) -> bool:
        """Say whether both ends' points let the point `at` of the line of ports through."""
        return all(holds(self.passing_at(side, source, destination, assume, own=own), at) for side in Side)

    def passing_at(self, side: Side, source: Kind, destination: Kind, assume: Assume, *, own: bool = False) -> PortSet:
        """Give the points that the point at one side lets through; everything where there is none."""
        near = source if side is Side.EGRESS else destination
        mode = Mode.ENFORCE if assume is Assume.ENFORCE else near.mode
        if mode is Mode.OBSERVE or not near.example.agent or own or destination.example.address.is_loopback:
            return EVERYTHING
        at = self.concerned(side, source, destination) & self._live, mode
        found = self._passing.get(at)
        if found is None:
            found = self._passing[at] = self._compute(*at)
        return found

    def verdict_at(
        self, side: Side, source: Kind, destination: Kind, protocol: int, port: int, *, own: bool = False
    ) -> Verdict | None:
        """Say what the point at one side decides, and why, as `policy.decide_at` does; None where there is none."""
        near = source if side is Side.EGRESS else destination
        if not near.example.agent:
            return None
        flow = Flow(source.example, destination.example, protocol, port)
        name, other = source.example.workload, destination.example.workload
        if own:
            flow = replace(flow, destination=replace(destination.example, workload=name))
        elif name is not None and name == other:
            # Two ends of one kind have one example, which must not be taken for talking with itself.
            flow = replace(flow, source=replace(source.example, workload=f"another-{name}"))
        loops = own or destination.example.address.is_loopback
        at = self.concerned(side, source, destination), near.mode, protocol << 16 | port, loops
        found = self._verdicts.get(at)
        if found is None:
            found = self._verdicts[at] = decide_at(side, self._speaking(at[0]), self.fleet, flow, self.now)
        return found

    def _speaking(self, bits: int) -> Policy:
        """Give the policy with these rules alone: of ends that no other rule speaks of, it says the same."""
        found = self._policies.get(bits)
        if found is None:
            # What is built in comes first, and `decide_at` knows it.
            written = [self.rules[at] for at in places(bits) if at > len(BUILT_IN)]
            found = self._policies[bits] = replace(
                self.policy,
                rules=tuple([rule for rule in written if rule.action is not Action.LIFELINE]),
                lifelines=tuple([rule for rule in written if rule.action is Action.LIFELINE]),
            )
        return found

    def decide(self, source: Kind, destination: Kind, protocol: int, port: int, *, own: bool = False) -> Decision:
        """Say what both points decide: `policy.decide`."""
        egress, ingress = (
            self.verdict_at(side, source, destination, protocol, port, own=own) for side in (Side.EGRESS, Side.INGRESS)
        )
        return Decision(egress, ingress)

    def _compute(self, bits: int, mode: Mode) -> PortSet:
        found = dict.fromkeys(Action, NOTHING)
        for at in places(bits):
            found[self.rules[at].action] |= self.rules[at].ports
        allowed = found[Action.ALLOW]
        if mode is Mode.GUARD:
            allowed |= EVERYTHING - found[Action.WALL]
        return found[Action.LIFELINE] | (allowed - found[Action.DENY])


class _Index:
    """Which rules (a bit each) name which ends: by the end without its identity, and apart those that ask for one."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._plain: defaultdict[tuple[Who, Side, str], int] = defaultdict(int)
        self._asking: defaultdict[tuple[Who, Side, str], list[tuple[Identity, int]]] = defaultdict(list)
        self.asked: dict[Side, set[Identity]] = {side: set() for side in Side}
        for at, rule in enumerate(rules):
            for side, (word, near) in product(rule.sides, (("source", Side.EGRESS), ("destination", Side.INGRESS))):
                for who in rule.source if word == "source" else rule.destination:
                    whom = replace(who, identity=NOBODY)
                    if not who.identity or (side is not near and rule.action is Action.ALLOW):
                        # The far point checks the identity that an allow asks for, so the near one lets it be.
                        self._plain[whom, side, word] |= 1 << at
                    elif side is near:
                        self._asking[whom, side, word].append((who.identity, 1 << at))
                        self.asked[side].add(who.identity)
        whos = {who for who, _, _ in (*self._plain, *self._asking)}
        self._selectors = tuple(sorted({who.selector for who in whos if who.selector is not None}))
        self._books = tuple(who for who in whos if who.network is not None)
        self._labels = LabelIndex(sorted({key for selector in self._selectors for key in selector.keys}))
        for selector in self._selectors:
            self._labels.watch(selector)
        self._by_labels: dict[tuple[str | None, ...], frozenset[Who]] = {}

    def met(self, end: Endpoint) -> frozenset[Who]:
        """Give the ends of rules that `end` meets, apart from identities."""
        found = frozenset({Who()})
        if self._books:
            found |= {who for who in self._books if who.network is not None and end.address in who.network}
        if end.workload is None:
            return found
        told = self._labels.values(end.labels)
        matched = self._by_labels.get(told)
        if matched is None:
            matched = frozenset(Who(selector=one) for match in self._labels.matching(told) for one in match.selectors)
            self._by_labels[told] = matched
        return found | matched

    def bits(self, met: frozenset[Who], side: Side, identity: Identity, word: str) -> int:
        """Give the rules whose `word` end is among `met`."""
        bits = 0
        for who in met:
            bits |= self._plain.get((who, side, word), 0)
            for asked, bit in self._asking.get((who, side, word), ()):
                bits |= bit if asked.covers(identity) else 0
        return bits


def places(bits: int) -> Iterator[int]:
    """Give the places of the bits that are set, the lowest first."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def holds(ports: PortSet, at: int) -> bool:
    """Say whether `ports` hold the point `at`; as `in`, by bisection."""
    spans = ports.spans
    index = bisect_right(_firsts(ports), at) - 1
    return index >= 0 and at <= spans[index].last


@lru_cache(maxsize=65536)
def _firsts(ports: PortSet) -> tuple[int, ...]:
    return tuple(span.first for span in ports.spans)


def places_outside(books: Iterable[AddressBook], fleet: Fleet) -> Iterator[tuple[str, Endpoint]]:
    """Give one address for each thing that `books` can tell of addresses that no workload owns, with a name for it.

    That is every combination of the networks, and the rest of the world, for IPv4 and IPv6.
    """
    listed = tuple(dict.fromkeys(sorted(books, key=lambda book: book.name)))
    for version, make in ((4, IPv4Address), (6, IPv6Address)):
        most = (1 << (32 if version == 4 else 128)) - 1
        edges = {0}
        for book in listed:
            for prefix in book.prefixes:
                if prefix.version == version:
                    edges |= {int(prefix.network_address), min(int(prefix.broadcast_address) + 1, most)}
        starts = sorted(edges)
        # Books, not names: two policies may mean different networks by one name.
        seen: dict[tuple[AddressBook, ...], Endpoint] = {}
        for first, last in zip(starts, [*(start - 1 for start in starts[1:]), most], strict=True):
            # The first addresses of the world are `this network` and loopback: no one's.
            at = max(first, (1 << 24) if version == 4 else (0x2000 << 112))
            while at <= last and ((own := make(at).is_loopback) or make(at) in fleet.by_address):
                # Loopback is a network of 2**24 addresses, or one (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3).
                at = (at | 0xFFFFFF) + 1 if own and version == 4 else at + 1
            held = tuple(book for book in listed if at <= last and make(at) in book)
            if at <= last and held not in seen:
                seen[held] = Endpoint(make(at))
        for title, end in zip(_titles(tuple(seen)), seen.values(), strict=True):
            yield f"{title} (IPv{version})", end


def _titles(places: tuple[tuple[AddressBook, ...], ...]) -> Iterator[str]:
    """Name places by the networks that hold them, without those that hold one of these too: `network:bastion`, and
    `other network:office` for what of it no network within it has."""
    having: dict[AddressBook, int] = {}
    called: dict[frozenset[str], int] = {}
    for at, held in enumerate(places):
        for book in held:
            having[book] = having.get(book, 0) | 1 << at
        names = frozenset(book.name for book in held)
        called[names] = called.get(names, 0) | 1 << at
    for held in places:
        inner = [one for one in held if not any(_within(having[other], having[one]) for other in held)]
        named = " ".join(dict.fromkeys(f"network:{one.name}" for one in inner))
        narrower = ~called[frozenset(book.name for book in held)] if inner else 0
        for one in inner:
            narrower &= having[one]
        yield f"other {named}" if narrower else named or "elsewhere"


def _within(some: int, others: int) -> bool:
    return some != others and some & ~others == 0


def all_identities(identities: Iterable[Identity]) -> tuple[Identity, ...]:
    """Give every identity that a process can have as far as `identities` tell: nobody, each, and two at once."""
    asked = {NOBODY, *identities}
    for one in sorted(asked, key=_identity_order):
        for other in sorted(asked, key=_identity_order):
            pairs = ((one.user, other.user), (one.unit, other.unit), (one.exe, other.exe))
            if all(mine is None or theirs is None or mine == theirs for mine, theirs in pairs):
                asked.add(Identity(*(mine or theirs for mine, theirs in pairs)))
    return tuple(sorted(asked, key=_identity_order))


def _identity_order(one: Identity) -> tuple[str, str, str]:
    return one.user or "", one.unit or "", one.exe or ""
