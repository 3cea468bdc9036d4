"""Policy × fleet → one ruleset per point."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from cellwall.compile.classes import NOTHING_SPECIAL, Atlas, Class, build_atlas, stable_number
from cellwall.compile.ruleset import (
    EVERYONE,
    Canary,
    ClassCard,
    Entry,
    Face,
    LifelineCard,
    Misfit,
    NetworkSpan,
    RuleCard,
    Ruleset,
)
from cellwall.compile.tiers import Resolved, difference, resolve
from cellwall.flows import Side
from cellwall.inventory import Fleet, Workload
from cellwall.policy import (
    BUILT_IN,
    NOBODY,
    Action,
    Claim,
    Identity,
    Policy,
    Rule,
    Who,
    controller_channel,
)
from cellwall.traffic import TCP, Address

MOST_CANARY_ADDRESSES = 8
RULE_BITS = 28


@dataclass(frozen=True)
class Point:
    """What one workload's point is to hold, and the rules that it cannot express."""

    ruleset: Ruleset
    members: dict[bytes, int]
    misfits: tuple[Misfit, ...] = ()


@dataclass(frozen=True)
class Compiled:
    """What every point of a fleet is to hold, by name of workload."""

    points: dict[str, Point]
    atlas: Atlas


@dataclass(frozen=True)
class _Side:
    """The rules that touch one local class at one side: for every peer, and more by peer class."""

    everyone: tuple[int, ...]
    classes: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class _Used:
    """What the entries of some faces speak of."""

    rules: tuple[RuleCard, ...]
    classes: tuple[ClassCard, ...]
    networks: tuple[NetworkSpan, ...]
    members: dict[bytes, int]


@dataclass
class _Compiler:
    policy: Policy
    fleet: Fleet
    revision: int
    doubtful: tuple[Rule, ...]
    rules: tuple[Rule, ...]
    atlas: Atlas
    numbers: dict[str, int]
    lifelines: tuple[LifelineCard, ...]
    used: dict[frozenset[int], _Used] = field(default_factory=dict[frozenset[int], _Used])
    speaking: dict[Side, _Side] = field(default_factory=dict[Side, _Side])
    faces: dict[Class, tuple[Face, ...]] = field(default_factory=dict[Class, tuple[Face, ...]])
    carried: dict[frozenset[int], dict[bytes, int]] = field(default_factory=dict[frozenset[int], dict[bytes, int]])
    resolved: dict[tuple[int, ...], tuple[Resolved, ...]] = field(
        default_factory=dict[tuple[int, ...], tuple[Resolved, ...]]
    )

    # --- one side of one local class ---

    def _near(self, who: Who, local: Class, persona: Identity) -> bool:
        return local.matches(who) and (not who.identity or who.identity.covers(persona))

    def _speaking(self, side: Side) -> _Side:
        """Give the rules whose own end at `side` may be anyone, and those that name a class, whoever asks there."""
        known = self.speaking.get(side)
        if known is None:
            everyone: list[int] = []
            classes: defaultdict[int, list[int]] = defaultdict(list)
            for index, rule in enumerate(self.rules):
                if side not in rule.sides:
                    continue
                near = [
                    who
                    for who in (rule.source if side is Side.EGRESS else rule.destination)
                    if not _inexpressible(who, side)
                ]
                if any(who.selector is None and who.network is None for who in near):
                    everyone.append(index)
                    continue
                for number in frozenset[int]().union(*map(self.atlas.matching, near)):
                    classes[number].append(index)
            known = self.speaking[side] = _Side(tuple(everyone), {n: tuple(indexes) for n, indexes in classes.items()})
        return known

    def _indexes(self, local: Class, side: Side) -> list[int]:
        """Give the rules that `local` is the own end of, for some process there, in order."""
        speaking = self._speaking(side)
        return sorted((*speaking.everyone, *speaking.classes.get(self.atlas.numbers[local], ())))

    def _rules_at(self, local: Class, side: Side, persona: Identity) -> _Side:
        everyone: list[int] = []
        classes: defaultdict[int, list[int]] = defaultdict(list)
        for index in self._indexes(local, side):
            rule = self.rules[index]
            near, far = (rule.source, rule.destination) if side is Side.EGRESS else (rule.destination, rule.source)
            if not any(self._near(who, local, persona) for who in near if not _inexpressible(who, side)):
                continue
            # The far point checks an identity there: an allow lets it through to be checked, a deny leaves it.
            seen = [who for who in far if not who.identity or rule.action is Action.ALLOW]
            shared = self._sharing(rule, local)
            if shared is None and any(who.selector is None and who.network is None for who in seen):
                everyone.append(index)
                continue
            peers: set[int] = set()
            for who in seen:
                peers |= self.atlas.matching(who)
            for number in peers if shared is None else peers & shared:
                classes[number].append(index)
        return _Side(tuple(everyone), {number: tuple(indexes) for number, indexes in classes.items()})

    def _sharing(self, rule: Rule, local: Class) -> frozenset[int] | None:
        """Give the classes that share the values that `rule` wants shared; None where it wants none."""
        if not rule.same:
            return None
        wanted = [(key, value) for key, value in local.shared if key in rule.same]
        return self.atlas.sharing(wanted) if len(wanted) == len(set(rule.same)) else frozenset()

    def _resolve(self, indexes: tuple[int, ...]) -> tuple[Resolved, ...]:
        found = self.resolved.get(indexes)
        if found is None:
            found = self.resolved[indexes] = resolve([self.rules[index] for index in indexes])
        return found

    def entries(self, local: Class, side: Side, persona: Identity) -> tuple[Entry, ...]:
        at = self._rules_at(local, side, persona)
        common = self._resolve(at.everyone)
        entries = [self._entry(EVERYONE, one) for one in common]
        differences: dict[tuple[int, ...], tuple[Resolved, ...]] = {}
        for number, indexes in at.classes.items():
            if indexes not in differences:
                whole = self._resolve(tuple(sorted((*at.everyone, *indexes))))
                differences[indexes] = difference(whole, common)
            entries.extend(self._entry(number, one) for one in differences[indexes])
        return tuple(sorted(entries))

    def _entry(self, peer: int, one: Resolved) -> Entry:
        return Entry(peer, one.first, one.last, one.action, tuple(self.numbers[rule] for rule in one.rules))

    # --- one point ---

    def _personas(self, local: Class) -> tuple[Identity, ...]:
        asked = {
            who.identity
            for index in self._indexes(local, Side.EGRESS)
            for who in self.rules[index].source
            if who.identity and not _inexpressible(who, Side.EGRESS) and local.matches(who)
        }
        users: list[str | None] = [*sorted({one.user for one in asked if one.user is not None}), None]
        units: list[str | None] = [*sorted({one.unit for one in asked if one.unit is not None}), None]
        return tuple(Identity(user=user, unit=unit) for user in users for unit in units if user or unit)

    def _faces_of(self, local: Class) -> tuple[Face, ...]:
        known = self.faces.get(local)
        if known is None:
            plain = Face(
                (), NOBODY, self.entries(local, Side.INGRESS, NOBODY), self.entries(local, Side.EGRESS, NOBODY)
            )
            personas = (
                Face((), persona, (), self.entries(local, Side.EGRESS, persona)) for persona in self._personas(local)
            )
            known = self.faces[local] = (plain, *personas)
        return known

    def point(self, workload: Workload) -> Point:
        own: defaultdict[int, list[Address]] = defaultdict(list)
        for address in workload.addresses:
            if self.fleet.by_address.get(address) is workload:
                own[self.atlas.addresses[address]].append(address)
        faces = [
            Face(tuple(addresses), face.identity, face.ingress, face.egress)
            for number, addresses in sorted(own.items())
            for face in self._faces_of(self.atlas.classes.get(number, NOTHING_SPECIAL))
        ]
        # What else arrives or leaves here (multicast, an address just given): only rules for anyone speak of it.
        faces.extend(self._faces_of(NOTHING_SPECIAL))
        used = self._used_by(frozenset(own), faces)
        ruleset = Ruleset(
            workload=workload.name,
            revision=self.revision,
            mode=self.policy.mode_of(workload.labels),
            rules=used.rules,
            classes=used.classes,
            faces=tuple(faces),
            networks=used.networks,
            lifelines=self.lifelines,
            canaries=self._canaries(workload),
        )
        return Point(ruleset, used.members, self._misfits(workload))

    def _used_by(self, own: frozenset[int], faces: list[Face]) -> _Used:
        """Give what the entries of `faces` speak of; points of the same `own` classes have the same entries."""
        known = self.used.get(own)
        if known is None:
            entries = [entry for face in faces for entry in (*face.ingress, *face.egress)]
            rules = {number for entry in entries for number in entry.rules}
            classes = frozenset(entry.peer for entry in entries) - {EVERYONE}
            known = self.used[own] = _Used(
                rules=tuple(sorted(self._card(rule) for rule in self.rules if self.numbers[rule.id] in rules)),
                classes=tuple(sorted(self.atlas.card(number) for number in classes)),
                networks=tuple(span for span in self.atlas.networks if span.peer in classes),
                members=self._members(classes),
            )
        return known

    def _members(self, classes: frozenset[int]) -> dict[bytes, int]:
        known = self.carried.get(classes)
        if known is None:
            known = {packed: number for number in sorted(classes) for packed in self.atlas.members[number]}
            self.carried[classes] = known
        return known

    def _card(self, rule: Rule) -> RuleCard:
        return RuleCard(
            number=self.numbers[rule.id],
            id=rule.id,
            action=rule.action,
            log=rule.log,
            expires=rule.expires,
            place=str(rule.place),
            services=", ".join(rule.services),
        )

    def _canaries(self, workload: Workload) -> tuple[Canary, ...]:
        found: list[Canary] = []
        for test in self.policy.tests:
            port = next((low for span in test.ports.spans for p, low, _ in span.by_protocol() if p == TCP), None)
            if not test.canary or test.claim is not Claim.CAN or port is None:
                continue
            if not any(_holds(who, workload) for who in test.source):
                continue
            addresses = [
                address
                for other in self.fleet.workloads
                for address in other.addresses
                if other is not workload
                and any(
                    _holds(who, other) and (who.network is None or address in who.network) for who in test.destination
                )
            ]
            if addresses:
                found.append(Canary(test.id, tuple(addresses[:MOST_CANARY_ADDRESSES]), port))
        return tuple(found)

    def _misfits(self, workload: Workload) -> tuple[Misfit, ...]:
        """What this point cannot express of rules that speak of its workload."""
        found: list[Misfit] = []
        for rule in self.doubtful:
            for side, near in ((Side.EGRESS, rule.source), (Side.INGRESS, rule.destination)):
                mine = [who for who in near if _holds(who, workload)]
                if mine and rule.refused:
                    found.append(Misfit(rule.id, rule.refused))
                    break
                reasons = [reason for who in mine if (reason := _inexpressible(who, side))]
                if reasons:
                    found.append(Misfit(rule.id, reasons[0]))
                    break
        return tuple(found)


def _inexpressible(who: Who, side: Side) -> str:
    """Say why the host point cannot check the identity of its own end; empty where it can."""
    if not who.identity:
        return ""
    if side is Side.INGRESS:
        return "the host point cannot tell the local process of a connection that arrives"
    if who.identity.exe is not None:
        return "the host point cannot tell programs by path; use `user` or `unit`"
    return ""


def _partly_inexpressible(rule: Rule) -> bool:
    return any(_inexpressible(who, Side.EGRESS) for who in rule.source) or any(
        _inexpressible(who, Side.INGRESS) for who in rule.destination
    )


def _holds(who: Who, workload: Workload) -> bool:
    if who.selector is not None:
        return who.selector.matches(workload.labels)
    return who.network is None or any(address in who.network for address in workload.addresses)


def _lifeline_cards(fleet: Fleet) -> tuple[LifelineCard, ...]:
    cards = [
        LifelineCard(rule.id, tuple((span.first, span.last) for span in rule.ports.spans), tuple(sorted(rule.sides)))
        for rule in BUILT_IN
    ]
    channel = controller_channel(fleet.controllers)
    if channel.ports:
        spans = tuple((span.first, span.last) for span in channel.ports.spans)
        addresses = sorted({one.address for one in fleet.controllers}, key=lambda a: (a.version, int(a)))
        cards.append(LifelineCard(channel.id, spans, tuple(sorted(channel.sides)), tuple(addresses)))
    return tuple(cards)


def rules_in_force(policy: Policy, now: float) -> tuple[Rule, ...]:
    """Give the lifelines and rules that points enforce at `now`: in time, not staged, not refused."""
    return tuple(rule for rule in _spoken(policy, now) if not rule.refused)


def _spoken(policy: Policy, now: float) -> tuple[Rule, ...]:
    rules = (*policy.lifelines, *policy.rules)
    return tuple(rule for rule in rules if rule.in_time(now) and not rule.staged)


def rule_numbers(policy: Policy) -> dict[str, int]:
    """Give every rule and lifeline a number from its id, the same for as long as no two ids collide."""
    numbers: dict[str, int] = {}
    taken: set[int] = set()
    for rule_id in sorted(policy.by_id):
        numbers[rule_id] = stable_number(rule_id, RULE_BITS, taken)
        taken.add(numbers[rule_id])
    return numbers


def compile_fleet(policy: Policy, fleet: Fleet, revision: int, now: float) -> Compiled:
    """Say what every point of `fleet` is to hold for `policy` at `now` (seconds since the epoch, UTC)."""
    rules = rules_in_force(policy, now)
    atlas = build_atlas(policy, rules, fleet)
    doubtful = tuple(rule for rule in _spoken(policy, now) if rule.refused or _partly_inexpressible(rule))
    numbers, lifelines = rule_numbers(policy), _lifeline_cards(fleet)
    compiler = _Compiler(policy, fleet, revision, doubtful, rules, atlas, numbers, lifelines)
    points = {workload.name: compiler.point(workload) for workload in fleet.workloads if workload.agent}
    return Compiled(points, atlas)


def next_change(policy: Policy, now: float) -> float | None:
    """Give the next moment after `now` at which a rule starts or expires; None where there is none."""
    moments = (moment for rule in policy.rules for moment in (rule.starts, rule.expires))
    return min((moment for moment in moments if moment is not None and moment > now), default=None)
