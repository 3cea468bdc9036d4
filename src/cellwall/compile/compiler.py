"""Policy × fleet → one ruleset per point, kept by difference: what comes and goes costs by its own size.

    workloads ──▶ Cut (labels → classes) ──┐
                                           ├──▶ FaceMaker (rules at a class → entries) ──▶ Point, when it is asked for
    rules ──────▶ RuleBook (who → rules) ──┘

INVARIANT: whatever came before, what is here is what a new compiler of the same policy and fleet would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter, is_not

from pyroaring import BitMap

from cellwall.compile.carried import Carried
from cellwall.compile.faces import MOST_ENTRIES, NO_CLASS, FaceMaker, Faces, Near
from cellwall.compile.local import CanaryBook, lifeline_cards, misfits_at
from cellwall.compile.orders import OrderBook
from cellwall.compile.rulebook import RuleBook, asks_identity, in_force, is_doubtful, rule_numbers, rules_in_force
from cellwall.compile.ruleset import EVERYONE, ClassCard, Face, Members, Misfit, NetworkSpan, RuleCard, Ruleset
from cellwall.inventory import Fleet, InventoryError, Listener, Workload
from cellwall.policy import Order, Policy, Rule
from cellwall.traffic import Address


@dataclass(frozen=True)
class Point:
    """What one workload's point is to hold, and the rules that it cannot express."""

    ruleset: Ruleset
    members: Members
    misfits: tuple[Misfit, ...] = ()


@dataclass(frozen=True)
class Difference:
    """What a change changed: `moved` addresses, packed, with the number of the class that they had and have.

    `stale` are the points whose entries may be otherwise, by the slots of their own classes; `workloads` are points
    that changed of themselves; `everyone` says that all may have. Who carries addresses that moved is worked out when
    it is asked for, before the next change: see `Compiler.touched`."""

    moved: Mapping[bytes, tuple[int, int]]
    stale: Near
    workloads: frozenset[str]
    everyone: bool


@dataclass(frozen=True, slots=True)
class _Used:
    """What the entries at some classes speak of, for as long as their faces are these."""

    made: tuple[Faces, ...]
    rules: tuple[RuleCard, ...]
    classes: tuple[ClassCard, ...]
    networks: tuple[NetworkSpan, ...]
    peers: tuple[int, ...]


@dataclass
class _Batch:
    """What has changed since the last difference, apart from what the cut knows."""

    stale: Near = field(default_factory=lambda: Near(BitMap()))
    workloads: set[str] = field(default_factory=set[str])
    everyone: bool = False


class Compiler:
    """What every point of a fleet is to hold, at one moment; `put`, `drop` and `update` change it.

    Points are made when they are asked for; what points have in common is made once."""

    def __init__(self, policy: Policy, fleet: Fleet, revision: int, now: float) -> None:
        self.policy, self.revision, self.now = policy, revision, now
        self.controllers: tuple[Listener, ...] = fleet.controllers
        self.workloads: dict[str, Workload] = {}
        self._owners: dict[bytes, Workload] = {}
        self._rivals: dict[bytes, set[str]] = {}
        self._book = RuleBook.of(rules_in_force(policy, now))
        self._special: dict[str, Rule] = {}
        for rule in policy.by_id.values():
            self._note_special(rule)
        self._doubtful = self._find_doubtful()
        self._numbers = rule_numbers(policy.by_id)
        self._lifelines = lifeline_cards(fleet.controllers)
        self._canaries = CanaryBook(policy.tests)
        self._used: dict[frozenset[int], _Used] = {}
        self._carried: dict[tuple[int, ...], tuple[int, Carried]] = {}
        self._used_turn = self._used_kept = 0
        self._batch = _Batch()
        self._cut_anew()
        # Nothing was made yet that could be stale.
        self.cut.noting = False
        for workload in fleet.workloads:
            self.put(workload)
        self.cut.take_moves()
        self.cut.noting = True
        self._batch = _Batch()

    # --- asked ---

    def point(self, name: str) -> Point:
        """Give what the point of a workload is to hold. Raises KeyError where there is no such workload."""
        workload = self.workloads[name]
        own: dict[int, list[Address]] = {}
        for address in workload.addresses:
            packed = address.packed
            if self._owners.get(packed) is workload:
                one = self.cut.places[packed]
                own.setdefault(one.slot if one.number != EVERYONE else NO_CLASS, []).append(address)
        faces: list[Face] = []
        made = {slot: self._faces.of(None if slot < 0 else self.cut.at(slot)) for slot in own}
        for slot in sorted(own, key=lambda it: EVERYONE if it < 0 else self.cut.at(it).number):
            addresses = tuple(own[slot])
            faces += [Face(addresses, face.identity, face.ingress, face.egress) for face in made[slot].faces]
        # What else arrives or leaves here (multicast, an address just given): only rules for anyone speak of it.
        faces += self._faces.of(None).faces
        used = self._used_at(frozenset(own))
        ruleset = Ruleset(
            workload=name,
            revision=self.revision,
            mode=self.policy.mode_of(workload.labels),
            rules=used.rules,
            classes=used.classes,
            faces=tuple(faces),
            networks=used.networks,
            lifelines=self._lifelines,
            canaries=self._canaries.at(workload, self.workloads),
        )
        return Point(ruleset, self._members(used.peers), misfits_at(workload, self._doubtful))

    def points(self) -> Iterator[tuple[str, Point]]:
        """Give all points, with the names of their workloads, in no order; each is made as it is asked for."""
        return ((name, self.point(name)) for name, workload in self.workloads.items() if workload.agent)

    def touched(self, change: Difference) -> set[str]:
        """Give the workloads whose points a difference may have changed; no others have."""
        reached = change.stale | self._carriers(change.moved)
        if change.everyone or reached.everywhere:
            return {name for name, workload in self.workloads.items() if workload.agent}
        found = {name for name in change.workloads if name in self.workloads and self.workloads[name].agent}
        slots = self.cut.slots
        return found.union(*[one.agents for slot in reached.slots if (one := slots[slot]) is not None])

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.cut.present)

    # --- changed ---

    def put(self, workload: Workload) -> None:
        """Let a workload come, or be otherwise than before: by its labels, its addresses, its agent."""
        before = self.workloads.get(workload.name)
        self.workloads[workload.name] = workload
        if self._canaries:
            self._batch.workloads |= self._canaries.swapped(before, workload, self.workloads)
        if before is not None:
            for address in before.addresses:
                if address not in workload.addresses:
                    self._release(address.packed, before)
        for address in workload.addresses:
            packed = address.packed
            if packed in self._owners or packed in self._rivals:
                self._claim(packed, workload)
            else:
                self._owners[packed] = workload
                self.cut.put(packed, workload)
        self._batch.workloads.add(workload.name)

    def drop(self, name: str) -> None:
        """Let a workload go. Raises `InventoryError` where there is none of this name."""
        workload = self.workloads.pop(name, None)
        if workload is None:
            raise InventoryError(f"there is no workload `{name}`")
        self._batch.workloads |= self._canaries.swapped(workload, None, self.workloads)
        for address in workload.addresses:
            self._release(address.packed, workload)

    def update(self, policy: Policy, fleet: Fleet, revision: int, now: float) -> Difference:
        """Come to another policy, fleet and moment; what is the same object as before costs a look, no more."""
        if fleet.controllers != self.controllers:
            self.controllers = fleet.controllers
            self._lifelines = lifeline_cards(fleet.controllers)
            self._batch.everyone = True
        self.set_policy(policy, revision, now)
        # First all that go: an address may be given on.
        for name in [name for name in self.workloads if name not in fleet.by_name]:
            self.drop(name)
        for workload in fleet.workloads:
            if self.workloads.get(workload.name) is not workload:
                self.put(workload)
        return self.settle()

    def set_policy(self, policy: Policy, revision: int, now: float) -> None:
        """Come to another policy, or another moment of the same."""
        before, doubtful = self.policy, self._doubtful
        old, rules = before.by_id, policy.by_id
        self.policy, self.revision, self.now = policy, revision, now
        changed = [rule for rule in rules.values() if old.get(rule.id) is not rule]
        gone = old.keys() - rules.keys()
        for rule_id in gone:
            self._special.pop(rule_id, None)
        for rule in changed:
            self._note_special(rule)
        timed = [rule for rule in self._special.values() if rule.starts is not None or rule.expires is not None]
        moved = [rule for rule in timed if (rule.id in self._book.rules) is not in_force(rule, now)]
        asked = dict.fromkeys((*changed, *moved))
        new = [rule for rule in asked if in_force(rule, now) and not _same(self._book.rules.get(rule.id), rule)]
        ended = (rule.id for rule in asked if not in_force(rule, now))
        left = {one for one in (*gone, *ended, *(rule.id for rule in new)) if one in self._book.rules}
        self._doubtful = self._find_doubtful()
        if before.tests != policy.tests:
            self._canaries = CanaryBook(policy.tests)
        if (before.modes, before.tests, doubtful) != (policy.modes, policy.tests, self._doubtful):
            self._batch.everyone = True
        if left or new or gone or old.keys() != rules.keys():
            self._change_rules(left, new)

    def _note_special(self, rule: Rule) -> None:
        """Keep apart the few rules that are not simply in force, at all points that they name, at all times."""
        if rule.starts is not None or rule.expires is not None or rule.refused or asks_identity(rule):
            self._special[rule.id] = rule
        else:
            self._special.pop(rule.id, None)

    def _find_doubtful(self) -> tuple[Rule, ...]:
        return tuple(sorted(filter(partial(is_doubtful, now=self.now), self._special.values()), key=attrgetter("id")))

    def _change_rules(self, gone: Iterable[str], new: Iterable[Rule]) -> None:
        left = [self._book.rules[rule_id] for rule_id in gone]
        for rule in left:
            self._batch.stale |= self._at(rule)
        ignored = [selector for rule in left for selector in self._book.drop(rule.id)]
        watched = [selector for rule in new for selector in self._book.add(rule)]
        both = set(ignored) & set(watched)
        if self._book.shared_keys != self.cut.shared_keys or not self._book.label_keys <= set(self.cut.keys):
            # A key that nothing looked at: who can be told apart is another question, asked of all.
            self._cut_anew()
        else:
            self.cut.watch([one for one in watched if one not in both])
            self.cut.ignore([one for one in ignored if one not in both])
            if self._book.books != self.cut.books:
                self.cut.lay(self._book.books)
        numbers = rule_numbers(self.policy.by_id)
        if any(self._numbers.get(rule_id, number) != number for rule_id, number in numbers.items()):
            self._batch.stale = Near(BitMap(), everywhere=True)
        self._numbers = numbers
        self._faces.rules_changed(numbers)
        for rule in new:
            self._batch.stale |= self._at(rule)

    def settle(self) -> Difference:
        """Say what has changed since this was last asked."""
        moves, batch = self.cut.take_moves(), self._batch
        self._batch = _Batch()
        self._faces.classes_changed((*moves.came.values(), *moves.went))
        stale = batch.stale | self._faces.near_to((*moves.came.values(), *moves.went, *moves.renumbered.values()))
        if moves.cuts:
            stale = Near(stale.slots, everywhere=True)
        for slot in (*moves.came, *(one.slot for one in moves.went), *moves.renumbered):
            stale.slots.add(slot)
        self._faces.forget(stale)
        if stale.everywhere:
            self._forget_used()
        # Who is in another class has that one's entries, whether or not they are new.
        movers = {owner.name for packed in moves.addresses if (owner := self._owners.get(packed)) is not None}
        return Difference(moves.addresses, stale, frozenset(batch.workloads | movers), batch.everyone)

    def _carriers(self, moved: Mapping[bytes, tuple[int, int]]) -> Near:
        """Give the points that carry addresses that moved between classes that stay as they are."""
        if not moved:
            return Near(BitMap())
        numbers = {number for pair in moved.values() for number in pair if number != EVERYONE}
        return self._faces.near_to([one for number in numbers if (one := self.cut.numbered(number)) is not None])

    def _at(self, rule: Rule) -> Near:
        found = Near(BitMap())
        for side in rule.sides:
            found |= self._faces.near_of(rule, side)
        return found

    def _cut_anew(self) -> None:
        """Begin again with who is told apart, by all rules of the book."""
        before = {packed: one.number for packed, one in self.cut.places.items()} if self._owners else {}
        self.cut = self._book.cut(self._owners)
        self._faces = FaceMaker(self.cut, self._book, self._numbers)
        self._forget_used()
        self._batch.stale = Near(BitMap(), everywhere=True)
        moved = self.cut.moves.addresses
        for packed, was in before.items():
            self.cut.moves.addresses.pop(packed, None)
            if was != (number := self.cut.places[packed].number):
                moved[packed] = was, number
        self.cut.noting = True

    # --- who has which address ---

    def _claim(self, packed: bytes, workload: Workload) -> None:
        held = self._owners.get(packed)
        if held is not None and held.name != workload.name:
            self._rivals.setdefault(packed, {held.name}).add(workload.name)
        elif packed not in self._rivals:
            self._own(packed, workload)
            return
        self._arbitrate(packed)

    def _release(self, packed: bytes, workload: Workload) -> None:
        if packed in self._rivals:
            self._rivals[packed].discard(workload.name)
            self._arbitrate(packed)
        else:
            del self._owners[packed]
            self.cut.drop(packed)

    def _arbitrate(self, packed: bytes) -> None:
        """Give an address that several claim to the one that enrolled later."""
        rivals = [self.workloads[name] for name in self._rivals[packed]]
        if len(rivals) == 1:
            del self._rivals[packed]
        self._own(packed, max(rivals, key=lambda one: (one.epoch, one.name)))

    def _own(self, packed: bytes, workload: Workload) -> None:
        before = self._owners.get(packed)
        if before is not None and before.name != workload.name:
            self._batch.workloads |= {before.name, workload.name}
        self._owners[packed] = workload
        self.cut.put(packed, workload)

    # --- what points have in common ---

    def _used_at(self, own: frozenset[int]) -> _Used:
        made = tuple([self._faces.of(None if slot < 0 else self.cut.at(slot)) for slot in (*own, NO_CLASS)])
        found = self._used.get(own)
        if found is None or len(found.made) != len(made) or any(map(is_not, found.made, made)):
            peers = BitMap.union(*(one.peers for one in made))
            rules = frozenset[str]().union(*(one.rules for one in made))
            classes = [one for number in peers if (one := self.cut.numbered(number)) is not None]
            # INVARIANT: nothing here outlives the faces that it is of, so that their bound is one of memory.
            if self._used_turn != self._faces.turn or self._used_kept > MOST_ENTRIES:
                self._forget_used()
            self._used_kept += 1 + len(classes)
            found = self._used[own] = _Used(
                made=made,
                rules=tuple(sorted(self._card(self._book.rules[rule_id]) for rule_id in rules)),
                classes=tuple([one.card for one in classes]),
                networks=tuple([span for span in self.cut.spans if span.peer in peers]),
                peers=tuple([one.number for one in classes]),
            )
        return found

    def _forget_used(self) -> None:
        self._used.clear()
        self._carried.clear()
        self._used_turn, self._used_kept = self._faces.turn, 0

    def _members(self, peers: tuple[int, ...]) -> Carried:
        turn, found = self._carried.get(peers, (-1, None))
        if found is None or turn != self.cut.turn:
            there = [one for number in peers if (one := self.cut.numbered(number)) is not None and one.members]
            parts = tuple([one.part for one in there])
            if found is None or len(found.parts) != len(parts) or any(map(is_not, found.parts, parts)):
                found = Carried(parts)
            self._carried[peers] = self.cut.turn, found
        return found

    def _card(self, rule: Rule) -> RuleCard:
        return RuleCard(
            number=self._numbers[rule.id],
            id=rule.id,
            action=rule.action,
            log=rule.log,
            expires=rule.expires,
            place=str(rule.place),
            services=", ".join(rule.services),
        )


def _same(one: Rule | None, other: Rule) -> bool:
    return one is not None and one == other and one.place == other.place


@dataclass(frozen=True)
class Compiled:
    """What every point of a fleet is to hold, by name of workload."""

    points: dict[str, Point]


def compile_fleet(policy: Policy, fleet: Fleet, revision: int, now: float, orders: Iterable[Order] = ()) -> Compiled:
    """Say what every point of `fleet` is to hold for `policy` and `orders` at `now` (seconds since the epoch, UTC)."""
    compiler, book = Compiler(policy, fleet, revision, now), OrderBook(orders, fleet, now)
    points: dict[str, Point] = {}
    for one in fleet.workloads:
        if one.agent:
            point, cards = compiler.point(one.name), book.at(one)
            points[one.name] = replace(point, ruleset=replace(point.ruleset, orders=cards)) if cards else point
    return Compiled(points)
