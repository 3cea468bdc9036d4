"""What the rules say at one class: the entries of its points, for every peer and more by class of peers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from operator import attrgetter

from pyroaring import BitMap

from cellwall.compile.cut import Class, Cut
from cellwall.compile.rulebook import RuleBook, far, name_of, near
from cellwall.compile.ruleset import EVERYONE, Entry, Face
from cellwall.compile.tiers import Resolved, difference, resolve
from cellwall.flows import Side
from cellwall.policy import NOBODY, Action, Identity, Rule, Who

MOST_ENTRIES = 2_000_000
"""Of faces that are kept, some 80 bytes each; beyond, they are made again when they are asked for."""
Numbered = tuple[int, int, Action, tuple[int, ...]]
"""An entry without its peer: first and last point, action, numbers of rules."""
NO_CLASS = -1
"""In place of the slot of a class: the addresses of which rules can tell nothing."""


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of one class, without addresses, and what their entries speak of."""

    faces: tuple[Face, ...]
    rules: frozenset[str]
    peers: BitMap


@dataclass(frozen=True, slots=True)
class Near:
    """Points, by the slots of their own classes; or all."""

    slots: BitMap
    everywhere: bool = False

    def __or__(self, other: Near) -> Near:
        return Near(self.slots | other.slots, self.everywhere or other.everywhere)


class FaceMaker:
    """Makes the faces of classes, and keeps them until they are said to be stale."""

    def __init__(self, cut: Cut, book: RuleBook, numbers: dict[str, int]) -> None:
        self.cut, self.book, self.numbers = cut, book, numbers
        self._made: dict[int, Faces] = {}
        self._entries_kept = 0
        self.turn = 0
        """How often all faces were let go for want of room: who holds some lets go too."""
        self._resolved: dict[tuple[str, ...], tuple[Resolved, ...]] = {}
        self._near_of: dict[Side, dict[str, Near]] = {side: {} for side in Side}
        self._near_to: dict[Class, Near] = {}

    def of(self, one: Class | None) -> Faces:
        """Give the faces of a class; None is that of the addresses of which rules can tell nothing."""
        slot = NO_CLASS if one is None else one.slot
        found = self._made.get(slot)
        if found is None:
            found = self._make(one)
            self._entries_kept += sum(len(face.ingress) + len(face.egress) for face in found.faces)
            if self._entries_kept > MOST_ENTRIES:
                self._made.clear()
                self._entries_kept = 0
                self.turn += 1
            self._made[slot] = found
        return found

    def forget(self, stale: Near) -> None:
        """Let go of faces that may be otherwise by now."""
        if stale.everywhere:
            self._made.clear()
            self._entries_kept = 0
        else:
            for slot in stale.slots:
                self._made.pop(slot, None)

    def rules_changed(self, numbers: dict[str, int]) -> None:
        """Let go of what was worked out of rules that are no more, or are otherwise; they may have other numbers."""
        self.numbers = numbers
        self._resolved.clear()
        self._near_of = {side: {} for side in Side}
        self._near_to.clear()

    def near_to(self, classes: Iterable[Class]) -> Near:
        """Give the points whose entries speak of any of `classes`, or would."""
        all_of = list(map(self._near_to_one, classes))
        slots = BitMap.union(*(one.slots for one in all_of)) if all_of else BitMap()
        return Near(slots, any(one.everywhere for one in all_of))

    def _near_to_one(self, one: Class) -> Near:
        known = self._near_to.get(one)
        if known is not None:
            return known
        found: list[BitMap] = []
        everywhere = False
        for side in Side:
            for rule in self.book.far(one, side):
                here = self.near_of(rule, side)
                if rule.same:
                    shared = self._sharing(rule, one)
                    found.append(shared if here.everywhere else here.slots & shared)
                else:
                    found.append(here.slots)
                    everywhere = everywhere or here.everywhere
        known = self._near_to[one] = Near(BitMap.union(*found) if found else BitMap(), everywhere)
        return known

    def near_of(self, rule: Rule, side: Side) -> Near:
        """Give the points that are the own end of `rule`."""
        found = self._near_of[side].get(rule.id)
        if found is None:
            names = list(near(rule, side))
            everywhere = any(name_of(who) is None for who in names)
            slots = BitMap() if everywhere or not names else _union([self.cut.matching(who) for who in names])
            found = self._near_of[side][rule.id] = Near(slots, everywhere)
        return found

    def classes_changed(self, classes: Collection[Class]) -> None:
        """Take note that classes came or went."""
        if classes:
            self._near_to.clear()
        for side, known in self._near_of.items():
            for one in classes:
                for rule in self.book.near(one, side):
                    known.pop(rule.id, None)

    def _sharing(self, rule: Rule, one: Class) -> BitMap:
        """Give the classes that share the values that `rule` wants shared."""
        wanted = [pair for pair in one.shared if pair[0] in rule.same]
        return self.cut.sharing(wanted) if len(wanted) == len(set(rule.same)) else BitMap()

    def _make(self, one: Class | None) -> Faces:
        egress = self.book.near(one, Side.EGRESS)
        ingress = self._entries(one, self.book.near(one, Side.INGRESS), Side.INGRESS, NOBODY)
        faces = [Face((), NOBODY, ingress, self._entries(one, egress, Side.EGRESS, NOBODY))]
        faces += [
            Face((), persona, (), self._entries(one, egress, Side.EGRESS, persona))
            for persona in _personas(one, egress)
        ]
        by_number = {self.numbers[rule.id]: rule.id for rule in (*egress, *self.book.near(one, Side.INGRESS))}
        entries = [entry for face in faces for entry in (*face.ingress, *face.egress)]
        rules = frozenset(by_number[number] for some in set(map(attrgetter("rules"), entries)) for number in some)
        peers = BitMap(set(map(attrgetter("peer"), entries)) - {EVERYONE})
        return Faces(tuple(faces), rules, peers)

    def _entries(self, one: Class | None, rules: Iterable[Rule], side: Side, persona: Identity) -> tuple[Entry, ...]:
        everyone: list[str] = []
        by_slot: defaultdict[int, list[str]] = defaultdict(list)
        for rule in rules:
            own = (who for who in near(rule, side) if _is(who, one))
            if not any(not who.identity or who.identity.covers(persona) for who in own):
                continue
            seen = list(far(rule, side))
            anyone = any(name_of(who) is None for who in seen)
            if not rule.same and anyone:
                everyone.append(rule.id)
                continue
            if not seen or (rule.same and one is None):
                continue
            peers = self.cut.present if anyone else _union([self.cut.matching(who) for who in seen])
            if rule.same and one is not None:
                peers = peers & self._sharing(rule, one)
            for slot in peers:
                by_slot[slot].append(rule.id)
        common = self._resolve(tuple(everyone))
        found = [Entry(EVERYONE, *part) for part in self._numbered(common)]
        parts: dict[tuple[str, ...], list[Numbered]] = {}
        # In order of peer, and of a peer's points: `EVERYONE` is the least number.
        for number, ids in sorted([(self.cut.at(slot).number, ids) for slot, ids in by_slot.items()]):
            key = tuple(ids)
            differing = parts.get(key)
            if differing is None:
                whole = self._resolve(tuple(sorted((*everyone, *ids))))
                differing = parts[key] = self._numbered(difference(whole, common))
            found.extend([Entry(number, *part) for part in differing])
        return tuple(found)

    def _numbered(self, parts: Iterable[Resolved]) -> list[Numbered]:
        """Give parts with the numbers of their rules, of which the entries of all peers share one tuple."""
        numbers = self.numbers
        return [(part.first, part.last, part.action, tuple([numbers[rule] for rule in part.rules])) for part in parts]

    def _resolve(self, ids: tuple[str, ...]) -> tuple[Resolved, ...]:
        found = self._resolved.get(ids)
        if found is None:
            found = self._resolved[ids] = resolve([self.book.rules[rule_id] for rule_id in ids])
        return found


def _union(found: list[BitMap]) -> BitMap:
    return found[0] if len(found) == 1 else BitMap.union(*found)


def _is(who: Who, one: Class | None) -> bool:
    return name_of(who) is None if one is None else one.meets(who)


def _personas(one: Class | None, rules: Iterable[Rule]) -> tuple[Identity, ...]:
    asked = {who.identity for rule in rules for who in near(rule, Side.EGRESS) if who.identity and _is(who, one)}
    if not asked:
        return ()
    users: list[str | None] = [*sorted({it.user for it in asked if it.user is not None}), None]
    units: list[str | None] = [*sorted({it.unit for it in asked if it.unit is not None}), None]
    return tuple(Identity(user=user, unit=unit) for user in users for unit in units if user or unit)
