"""The rows of a table rule by rule, so that what passes without some of the rules is known without making it anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import pairwise

from cellwall.analysis.table.blocks import Shared
from cellwall.analysis.table.reach import Assume
from cellwall.analysis.table.rows import touch
from cellwall.analysis.table.ways import Ways
from cellwall.analysis.table.words import bits_of, places_of
from cellwall.flows import Side
from cellwall.policy import Action, Identity, Mode, Rule, Who
from cellwall.traffic import EVERYTHING, LAST_POINT, PortSet, Span

NONE = frozenset[int]()
Support = tuple[frozenset[int] | None, frozenset[int] | None]
"""The rules by any of which something passes at the source and at the destination; None where it needs none."""


class Grid:
    """What each rule does for each kind of end; rules are known by their place in `rules`."""

    def __init__(self, ways: Ways) -> None:
        self.ways, self.rules = ways, ways.rules
        kinds = ways.kinds
        identities = dict.fromkeys(kind.identity for kind in kinds)
        self._being = {one: bits_of(at for at, kind in enumerate(kinds) if kind.identity == one) for one in identities}
        self._ends = {
            side: [self._bits(rule, side) if side in rule.sides else (0, 0) for rule in self.rules] for side in Side
        }
        self._about: list[list[int]] = [[] for _ in kinds]
        for at in range(len(self.rules)):
            for destination in places_of(self._ends[Side.EGRESS][at][1] | self._ends[Side.INGRESS][at][1]):
                self._about[destination].append(at)
        self._shared = Shared([kind.example.labels for kind in kinds])
        self._version = {v: bits_of(at for at, kind in enumerate(kinds) if kind.version == v) for v in (4, 6)}
        enforced = ways.assume is Assume.ENFORCE
        self._lax = bits_of(
            at
            for at, kind in enumerate(kinds)
            if not kind.example.agent or (kind.mode is Mode.OBSERVE and not enforced)
        )
        self._guarded = 0 if enforced else bits_of(at for at, kind in enumerate(kinds) if kind.mode is Mode.GUARD)
        self._stretches: dict[int, tuple[tuple[tuple[int, ...], PortSet], ...]] = {}
        self._rows: dict[tuple[int, PortSet], int] = {}

    def _bits(self, rule: Rule, side: Side) -> tuple[int, int]:
        """Give the kinds of sources and of destinations of which a rule speaks, as one side sees it."""
        near, far = (rule.source, rule.destination) if side is Side.EGRESS else (rule.destination, rule.source)
        asked = self._named((who, who.identity) for who in near)
        # The far point checks the identity that an allow asks for; to a deny, it is not known.
        others = self._named((who, Identity()) for who in far if not who.identity or rule.action is Action.ALLOW)
        return (asked, others) if side is Side.EGRESS else (others, asked)

    def _named(self, whos: Iterable[tuple[Who, Identity]]) -> int:
        found = 0
        for who, identity in whos:
            bits = self.ways.ends.met(who)
            if identity:
                bits &= reduce(lambda a, b: a | b, (own for one, own in self._being.items() if identity.covers(one)), 0)
            found |= bits
        return found

    def stretches(self, destination: int) -> tuple[tuple[tuple[int, ...], PortSet], ...]:
        """Give the sets of rules that speak of a kind of destination, each with the ports on which it is these."""
        found = self._stretches.get(destination)
        if found is None:
            about = self._about[destination]
            spans: dict[tuple[int, ...], list[Span]] = {}
            edges: dict[int, list[tuple[int, bool]]] = {0: [], LAST_POINT + 1: []}
            for at in about:
                for span in self.rules[at].ports.spans:
                    edges.setdefault(span.first, []).append((at, True))
                    edges.setdefault(span.last + 1, []).append((at, False))
            there: set[int] = set()
            cuts = sorted(edges)
            for first, after in pairwise(cuts):
                there -= {at for at, begins in edges[first] if not begins}
                there |= {at for at, begins in edges[first] if begins}
                spans.setdefault(tuple(sorted(there)), []).append(Span(first, after - 1))
            found = tuple((rules, PortSet.of(some)) for rules, some in spans.items())
            self._stretches[destination] = found
        return found

    def into(self, destination: int, ports: PortSet, removed: frozenset[int] = NONE) -> int:
        """Give the kinds of sources that pass to a kind of destination on some of `ports`, without some rules."""
        at = destination, ports
        if not removed or all(not self.speaks(rule, destination) for rule in removed):
            if at not in self._rows:
                self._rows[at] = self._into(destination, ports, NONE)
            return self._rows[at]
        return self._into(destination, ports, removed)

    def speaks(self, rule: int, destination: int) -> bool:
        """Say whether a rule speaks of a kind of destination."""
        return any(self._ends[side][rule][1] >> destination & 1 for side in Side)

    def _into(self, destination: int, ports: PortSet, removed: frozenset[int]) -> int:
        found = 0
        for rules, stretch in self.stretches(destination):
            if ports is EVERYTHING or touch(stretch, ports):
                left = [at for at in rules if at not in removed] if removed else rules
                found |= self._side(Side.EGRESS, destination, left) & self._side(Side.INGRESS, destination, left)
        return found & self._counted(destination)

    def _counted(self, destination: int) -> int:
        outside = self.ways.places if self.ways.places >> destination & 1 else 0
        return self._version[self.ways.kinds[destination].version] & ~outside

    def _side(self, side: Side, destination: int, rules: Sequence[int]) -> int:
        everybody = self.ways.ends.all
        if self._open(side, destination):
            return everybody
        found = dict.fromkeys(Action, 0)
        for at, bits in self._speaking(side, destination, rules):
            found[self.rules[at].action] |= bits
        guarded = self._of(side, self._guarded, destination)
        allowed = found[Action.ALLOW] | (guarded & ~found[Action.WALL])
        lax = self._lax if side is Side.EGRESS else 0
        return found[Action.LIFELINE] | (allowed & ~found[Action.DENY]) | lax

    def _open(self, side: Side, destination: int) -> bool:
        """Say whether the side lets everything pass to a kind of destination."""
        if self.ways.kinds[destination].example.address.is_loopback:
            return True
        return side is Side.INGRESS and bool(self._lax >> destination & 1)

    def _of(self, side: Side, kinds: int, destination: int) -> int:
        """Give the sources whose near end is of `kinds`."""
        if side is Side.EGRESS:
            return kinds
        return self.ways.ends.all if kinds >> destination & 1 else 0

    def _speaking(self, side: Side, destination: int, rules: Sequence[int]) -> Iterator[tuple[int, int]]:
        for at in rules:
            sources, destinations = self._ends[side][at]
            if destinations >> destination & 1:
                shared = self._shared.with_end(destination, self.rules[at].same)
                yield at, sources if shared is None else sources & shared

    def supports(self, source: int, destination: int, ports: PortSet, removed: frozenset[int]) -> list[Support]:
        """Say by which rules each stretch of `ports` passes from one kind to another."""
        found: list[Support] = []
        for rules, stretch in self.stretches(destination):
            if ports is EVERYTHING or touch(stretch, ports):
                left = [at for at in rules if at not in removed]
                sides = [self._support(side, source, destination, left) for side in (Side.EGRESS, Side.INGRESS)]
                if all(one is None or one for one in sides):
                    found.append((sides[0], sides[1]))
        return list(dict.fromkeys(found))

    def _support(self, side: Side, source: int, destination: int, rules: Sequence[int]) -> frozenset[int] | None:
        """Give the rules by any of which it passes at one side: none where it does not, None where it needs none."""
        if self._open(side, destination) or (side is Side.EGRESS and self._lax >> source & 1):
            return None
        found: dict[Action, set[int]] = {action: set() for action in Action}
        for at, bits in self._speaking(side, destination, rules):
            if bits >> source & 1:
                found[self.rules[at].action].add(at)
        written = self.ways.policy.by_id
        if any(self.rules[at].id not in written for at in found[Action.LIFELINE]):
            return None
        if found[Action.DENY]:
            return frozenset(found[Action.LIFELINE])
        if not found[Action.WALL] and self._of(side, self._guarded, destination) >> source & 1:
            return None
        return frozenset(found[Action.LIFELINE] | found[Action.ALLOW])
