"""A ruleset in nftables' words.

    input ─ loopback? reply? lifeline? ─ mark := class of the sender ─ face of the local address
      in1 ─ class . protocol . port → rule ─ the same for everyone (mark 0) → rule ─ default
    rule ─ orders of an emergency ─ counter ─ the first packet of a connection is counted by tuple ─ accept or refuse

Every packet of the original direction is looked up; only replies take conntrack's word. The mark carries the class
from one look-up to the next, and then, with the tuple, the verdict and the rule into the counting sets; it is 0
again when the packet leaves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cellwall.compile import EVERYONE, Entry, Face, Members, NetworkSpan, RuleCard, Ruleset
from cellwall.enforce.nft.orders import ALLOWED, ANSWERS, ORDERS, SEALS, WOULD_DENY, put_orders, refusing
from cellwall.enforce.nft.place import Cell, place
from cellwall.enforce.nft.program import (
    FAMILIES,
    ICMP_FIELDS,
    ICMP_KINDS,
    Accept,
    Chain,
    Count,
    Counter,
    Data,
    Drop,
    Field,
    Goto,
    HasUser,
    In,
    Jump,
    Key,
    Kind,
    Known,
    Line,
    Lookup,
    LookupUnit,
    Loopback,
    MapShape,
    MarkFrom,
    Midstream,
    New,
    Program,
    Refuse,
    Reply,
    Return,
    Sample,
    SetMark,
    Statement,
    Stray,
    Version,
)
from cellwall.flows import Side
from cellwall.policy import ESSENTIAL, Action, Mode
from cellwall.traffic import ICMP, ICMPS, ICMPV6, PORTED, Address

RULE_MASK = (1 << 28) - 1
SEEN_SIZE = 65536
SEEN_TIMEOUT_S = 600
MISS = "unmatched"
DEFAULT_RULE = 0


@dataclass(frozen=True, slots=True)
class Unit:
    """The control group of a systemd unit: its id, how deep it is below the root, and its path below the mount."""

    cgroup: int
    level: int
    path: str


@dataclass(frozen=True)
class Local:
    """What a host knows of its own: user ids and units by name.

    What is not there does not exist on this host, so no process of it can match.
    """

    users: Mapping[str, int] = field(default_factory=dict[str, int])
    units: Mapping[str, Unit] = field(default_factory=dict[str, Unit])


def render(ruleset: Ruleset, members: Members, local: Local | None = None, digest: str = "") -> Program:
    """Write `ruleset` and `members` as the content of the table. `digest` names them, for whoever reads it back."""
    return _Renderer(ruleset, local or Local()).program(members, digest)


class _Renderer:
    def __init__(self, ruleset: Ruleset, local: Local) -> None:
        self._ruleset = ruleset
        self._local = local
        self._out = Program()
        self._elements: defaultdict[str, dict[Key, Data]] = defaultdict(dict[Key, Data])
        self._chain_of = _chain_names(ruleset.rules)
        self._asked: set[tuple[str, bool]] = set()  # maps that have elements of a class, of everyone

    def program(self, members: Members, digest: str) -> Program:
        ruleset, out = self._ruleset, self._out
        self._seen()
        titles = {card.number: card.title for card in ruleset.classes}
        self._peers(members, ruleset.networks)
        groups = _by_addresses(ruleset.faces)
        for index, faces in enumerate(groups):
            self._faces(index, faces)
        for side in Side:
            self._base(side, groups)
        for card in ruleset.rules:
            out.chains[self._chain_of[card.number]] = Chain(tuple(self._rule(card)))
        out.chains[MISS] = Chain(tuple(self._default()))
        put_orders(out, ruleset.orders)
        # A late or repeated segment of an allowed connection is a stray; a reset would end the connection.
        stray = Line((Stray(), Drop()), "no answer to what may belong to an open connection")
        out.chains["refuse"] = Chain((stray, Line((Refuse(tcp=True),)), Line((Refuse(tcp=False),))))
        about = f"cellwall revision {ruleset.revision} mode {ruleset.mode} digest {digest} workload {ruleset.workload}"
        classes = (f"class {number:#010x} is {title}" for number, title in sorted(titles.items()))
        out.chains["about"] = Chain(tuple(Line((Counter(),), comment) for comment in (about, *classes)))
        for name in out.shapes:
            if out.shapes[name].data and name not in out.elements:
                out.elements[name] = self._elements[name]
        return out

    # --- maps ---

    def _shape(self, name: str, key: tuple[Kind, ...], data: str, *, interval: bool = False) -> None:
        self._out.shapes.setdefault(name, MapShape(name, key, data, interval))

    def _seen(self) -> None:
        for version, (_, _, kind, icmp) in FAMILIES.items():
            both, rest = (kind, kind), (Kind.MARK,)
            for name, key in (
                (f"seen{version}", (*both, Kind.PROTOCOL, Kind.PORT, *rest)),
                (f"seen_icmp{version}", (*both, *ICMP_KINDS[icmp], *rest)),
                (f"seen_other{version}", (*both, Kind.PROTOCOL, *rest)),
            ):
                self._out.shapes[name] = MapShape(name, key, "", size=SEEN_SIZE, timeout_s=SEEN_TIMEOUT_S)
        lines: list[Line] = []
        for version, (source, destination, _, icmp) in FAMILIES.items():
            ends = (source, destination)
            ported = In(Field.PROTOCOL, Kind.PROTOCOL, tuple((number, number) for number in sorted(PORTED)))
            only_icmp = In(Field.PROTOCOL, Kind.PROTOCOL, ((icmp, icmp),))
            for match, name, fields in (
                (ported, f"seen{version}", (*ends, Field.PROTOCOL, Field.DESTINATION_PORT)),
                (only_icmp, f"seen_icmp{version}", (*ends, *ICMP_FIELDS[icmp])),
                (None, f"seen_other{version}", (*ends, Field.PROTOCOL)),
            ):
                count: tuple[Statement, ...] = (Count(name, (*fields, Field.MARK)), Return())
                lines.append(Line((Version(version), *((match,) if match else ()), *count)))
        self._out.chains["see"] = Chain(tuple(lines))

    def _peers(self, members: Members, networks: tuple[NetworkSpan, ...]) -> None:
        for version, (_, _, kind, _) in FAMILIES.items():
            self._shape(f"peer{version}", (kind,), "mark")
            if any(span.version == version for span in networks):
                self._shape(f"net{version}", (kind,), "mark", interval=True)
        peer4, peer6 = self._elements["peer4"], self._elements["peer6"]
        for packed, number in members.items():
            value = int.from_bytes(packed, "big")
            (peer4 if len(packed) == 4 else peer6)[((value, value),)] = number
        for span in networks:
            self._elements[f"net{span.version}"][((span.first, span.last),)] = span.peer

    # --- chains ---

    def _base(self, side: Side, groups: list[tuple[Face, ...]]) -> None:
        arriving = side is Side.INGRESS
        lines = [Line((Loopback(arriving), Accept()), "lifeline loopback")]
        lines += [Line((Reply(), Jump(ANSWERS))), Line((Reply(), Accept()), "replies")]
        lines += self._lifelines(side, essential=True)
        lines.append(Line((Jump(SEALS),)))
        lines += self._lifelines(side, essential=False)
        lines.append(Line((SetMark(0),)))
        lines += self._classify(side)
        for version, (source, destination, kind, _) in FAMILIES.items():
            name = f"own{version}"
            for index, faces in enumerate(groups):
                for address in faces[0].addresses:
                    if address.version == version:
                        self._shape(name + "_" + DIRECTION[side], (kind,), "verdict")
                        goto = Goto(f"{DIRECTION[side]}{index}{'_who' if _has_personas(side, faces) else ''}")
                        self._elements[name + "_" + DIRECTION[side]][_exactly(address)] = goto
            if name + "_" + DIRECTION[side] in self._out.shapes:
                own = destination if arriving else source
                lines.append(Line((Lookup((own,), name + "_" + DIRECTION[side]),)))
        other = len(groups) - 1
        who = "_who" if _has_personas(side, groups[other]) else ""
        lines.append(Line((Goto(f"{DIRECTION[side]}{other}{who}"),), "an address that is not known to be ours"))
        hook = "input" if arriving else "output"
        self._out.chains[hook] = Chain(tuple(lines), hook, self._ruleset.mode is Mode.ENFORCE)

    def _classify(self, side: Side) -> Iterable[Line]:
        for version, (source, destination, _, _) in FAMILIES.items():
            peer = source if side is Side.INGRESS else destination
            if f"net{version}" in self._out.shapes:
                yield Line((MarkFrom(peer, f"net{version}"),))
            yield Line((MarkFrom(peer, f"peer{version}"),))

    def _lifelines(self, side: Side, *, essential: bool) -> Iterable[Line]:
        for card in self._ruleset.lifelines:
            if side not in card.sides or (card.id in ESSENTIAL) is not essential:
                continue
            for matches in _spans(card.spans):
                if not card.to:
                    yield Line((*matches, Accept()), f"lifeline {card.id}")
                for version, (_, destination, kind, _) in FAMILIES.items():
                    held = tuple((int(a), int(a)) for a in card.to if a.version == version)
                    if held:
                        yield Line((In(destination, kind, held), *matches, Accept()), f"lifeline {card.id}")

    def _faces(self, index: int, faces: tuple[Face, ...]) -> None:
        plain = next(face for face in faces if not face.identity)
        for side in Side:
            name = f"{DIRECTION[side]}{index}"
            self._out.chains[name] = Chain((*self._lookups(name, plain.entries(side)), *self._misses(name)))
        if self._ruleset.mode is Mode.GUARD:
            # A packet amid a connection that conntrack does not know may be a reply: then it is the other
            # direction's rules that speak of it, with its source port. Else a server could reopen what was cut.
            for side, other in ((Side.INGRESS, Side.EGRESS), (Side.EGRESS, Side.INGRESS)):
                opened = f"{DIRECTION[other]}{index}"
                lines = [*self._classify(side), *self._tiers(opened, Field.SOURCE_PORT)]
                self._out.chains[f"pick_{DIRECTION[side]}{index}"] = Chain((*lines, Line((SetMark(0),))))
        if _has_personas(Side.EGRESS, faces):
            self._personas(index, faces)

    def _misses(self, name: str, comment: str = "") -> Iterable[Line]:
        """Go to the default; in guard mode, where that lets pass, see first whether it is a reply."""
        if self._ruleset.mode is Mode.GUARD:
            yield Line((Midstream(), Jump(f"pick_{name}")), "a forgotten connection: who opened it?")
        yield Line((Goto(MISS),), comment)

    def _lookups(self, name: str, entries: tuple[Entry, ...]) -> Iterable[Line]:
        by_peer: defaultdict[int, list[Entry]] = defaultdict(list)
        for entry in entries:
            by_peer[entry.peer].append(entry)
        common = by_peer.pop(EVERYONE, [])
        # Many classes have the same entries.
        placed: dict[tuple[tuple[int, int, Action, tuple[int, ...]], ...], list[Cell]] = {}
        for peer, own in by_peer.items():
            alike = tuple((entry.first, entry.last, entry.action, entry.rules) for entry in own)
            if alike not in placed:
                placed[alike] = place(own, common)
            self._put(name, peer, placed[alike])
        self._put(name, EVERYONE, place(common, []))
        yield from self._tiers(name, Field.DESTINATION_PORT)

    def _tiers(self, name: str, port: Field) -> Iterable[Line]:
        """Look up the class, from the narrowest kind of key to the widest, then everyone the same way."""
        tiers: list[tuple[str, tuple[Field, ...]]] = []
        if port is Field.DESTINATION_PORT:
            tiers += [(f"{name}_icmp4", (Field.MARK, *ICMP_FIELDS[ICMP]))]
            tiers += [(f"{name}_icmp6", (Field.MARK, *ICMP_FIELDS[ICMPV6]))]
        tiers += [(f"{name}_port", (Field.MARK, Field.PROTOCOL, port))]
        tiers += [(f"{name}_range", (Field.MARK, Field.PROTOCOL, port))]
        tiers += [(f"{name}_proto", (Field.MARK, Field.PROTOCOL)), (f"{name}_all", (Field.MARK,))]
        everyone = [Line((Lookup(fields, held),)) for held, fields in tiers if (held, True) in self._asked]
        # INVARIANT: a peer of no class has mark 0 here already, and must not meet what is wide for everyone before
        # what is narrow for everyone. So this pass leaves out no map that stands before one of a class.
        last = max((place for place, (held, _) in enumerate(tiers) if (held, False) in self._asked), default=-1)
        found = [
            Line((Lookup(fields, held),))
            for held, fields in tiers[: last + 1]
            if (held, False) in self._asked or (held, True) in self._asked
        ]
        return [*found, Line((SetMark(EVERYONE),)), *everyone] if everyone else found

    def _put(self, name: str, peer: int, cells: Iterable[Cell]) -> None:
        for cell in cells:
            key: Key = ((peer, peer), *cell.key)
            kinds = TIER_KINDS[cell.tier]
            wide = cell.tier in {"range", "icmp4", "icmp6"}
            self._shape(f"{name}_{cell.tier}", (Kind.MARK, *kinds), "verdict", interval=wide)
            self._asked.add((f"{name}_{cell.tier}", peer == EVERYONE))
            chain = MISS if cell.entry is None else self._chain_of[cell.entry.rules[0]]
            self._elements[f"{name}_{cell.tier}"][key] = Goto(chain)

    def _personas(self, index: int, faces: tuple[Face, ...]) -> None:
        """Send a packet to the face of the process that sends it: its user's, its unit's, or both."""
        plain, named = f"out{index}", [face for face in faces if face.identity]
        chains = {face.identity: f"out{index}_as{number}" for number, face in enumerate(named, 1)}
        for face in named:
            found = self._lookups(chains[face.identity], face.egress)
            self._out.chains[chains[face.identity]] = Chain((*found, *self._misses(plain, f"as {face.identity}")))
        users = sorted({face.identity.user for face in named if face.identity.user is not None})
        known = [user for user in users if user in self._local.users]
        lines: list[Line] = []
        if known:
            self._shape(f"out{index}_users", (Kind.USER,), "verdict")
            lines.append(Line((Lookup((Field.USER,), f"out{index}_users"),)))
            for user in known:
                value = self._local.users[user]
                target = f"out{index}_user{value}"
                of_user = {face.identity.unit: chains[face.identity] for face in named if face.identity.user == user}
                self._units(target, of_user, default=of_user[None])
                self._elements[f"out{index}_users"][((value, value),)] = Goto(target)
        of_nobody = {face.identity.unit: chains[face.identity] for face in named if face.identity.user is None}
        self._units(f"out{index}_rest", of_nobody, default=plain)
        lines.append(Line((HasUser(), Goto(f"out{index}_rest"))))
        # What the kernel sends for a connection whose process is gone (its last acknowledgements) has no user.
        lines.append(Line((Known(), Jump(ORDERS))))
        lines.append(Line((Known(), Accept()), "the end of a connection whose process is gone"))
        self._out.chains[f"out{index}_who"] = Chain((*lines, Line((Goto(plain),))))

    def _units(self, chain: str, targets: Mapping[str | None, str], default: str) -> None:
        lines: list[Line] = []
        for unit, target in sorted((unit, target) for unit, target in targets.items() if unit is not None):
            if unit in self._local.units:
                own = self._local.units[unit]
                name = f"{chain}_units{own.level}"
                if name not in self._out.shapes:
                    self._shape(name, (Kind.CGROUP,), "verdict")
                    lines.append(Line((LookupUnit(own.level, name),)))
                self._elements[name][((own.cgroup, own.cgroup),)] = Goto(target)
                self._out.cgroups[own.cgroup] = own.path
        self._out.chains[chain] = Chain((*lines, Line((Goto(default),))))

    # --- what happens ---

    def _rule(self, card: RuleCard) -> Iterable[Line]:
        if card.action is not Action.LIFELINE:
            yield Line((Jump(ORDERS),))
        yield Line((Counter(),), f"{card.action} {card.id} {card.place}".strip())
        mode = self._ruleset.mode
        if card.action in {Action.ALLOW, Action.LIFELINE}:
            yield Line((New(), SetMark(ALLOWED | card.number), Jump("see")))
            if card.log:
                yield Line((New(), Sample(f"cw:allowed:{card.id}")))
            yield Line((SetMark(0), Accept()))
        elif mode is Mode.OBSERVE:
            yield Line((New(), SetMark(WOULD_DENY | card.number), Jump("see")))
            yield Line((SetMark(0), Accept()), "would be denied")
        else:
            yield from refusing(card.number, card.id)

    def _default(self) -> Iterable[Line]:
        mode = self._ruleset.mode
        yield Line((Jump(ORDERS),))
        yield Line((Counter(),), f"no rule matches, mode {mode}")
        if mode is Mode.ENFORCE:
            yield from refusing(DEFAULT_RULE, "default")
        else:
            yield Line((New(), SetMark(WOULD_DENY | DEFAULT_RULE), Jump("see")))
            yield Line((SetMark(0), Accept()), "unprotected")


DIRECTION = {Side.INGRESS: "in", Side.EGRESS: "out"}
TIER_KINDS = {
    "icmp4": ICMP_KINDS[ICMP],
    "icmp6": ICMP_KINDS[ICMPV6],
    "port": (Kind.PROTOCOL, Kind.PORT),
    "range": (Kind.PROTOCOL, Kind.PORT),
    "proto": (Kind.PROTOCOL,),
    "all": (),
}


def _spans(spans: Iterable[tuple[int, int]]) -> Iterable[tuple[Statement, ...]]:
    """Give, for a lifeline's points, the matches of each protocol."""
    for first, last in spans:
        for protocol in range(first >> 16, (last >> 16) + 1):
            low, high = max(first, protocol << 16) & 0xFFFF, min(last, protocol << 16 | 0xFFFF) & 0xFFFF
            only = In(Field.PROTOCOL, Kind.PROTOCOL, ((protocol, protocol),))
            if protocol in ICMPS:
                types, kinds = ICMP_FIELDS[protocol][0], ICMP_KINDS[protocol][0]
                yield (In(types, kinds, ((low >> 8, high >> 8),)),)
            elif (low, high) == (0, 0xFFFF):
                yield (only,)
            else:
                yield (only, In(Field.DESTINATION_PORT, Kind.PORT, ((low, high),)))


def _by_addresses(faces: tuple[Face, ...]) -> list[tuple[Face, ...]]:
    """Group the faces of the same local addresses; the last group is for all other addresses."""
    groups: dict[tuple[Address, ...], list[Face]] = {}
    for face in faces:
        groups.setdefault(face.addresses, []).append(face)
    rest = groups.pop((), [Face(())])
    return [*(tuple(group) for group in groups.values()), tuple(rest)]


def _has_personas(side: Side, faces: tuple[Face, ...]) -> bool:
    return side is Side.EGRESS and any(face.identity for face in faces)


def _exactly(address: Address) -> Key:
    return ((int(address), int(address)),)


def _chain_names(cards: tuple[RuleCard, ...]) -> dict[int, str]:
    """Name each rule's chain by its action and id, which may hold letters, digits, `-`, `_` and `.` as chains may."""
    return {card.number: f"{card.action}_{card.id}" for card in cards}
