"""What concerns one point alone: its canaries, the rules that it cannot express, and the lifelines that all have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cellwall.compile.rulebook import inexpressible
from cellwall.compile.ruleset import Canary, LifelineCard, Misfit
from cellwall.flows import Side
from cellwall.inventory import Listener, Workload
from cellwall.policy import BUILT_IN, Claim, Rule, Test, Who, controller_channel
from cellwall.traffic import TCP, Address

MOST_CANARY_ADDRESSES = 8


def holds(who: Who, workload: Workload) -> bool:
    """Say whether `who`, apart from any identity, names a workload."""
    if who.selector is not None:
        return who.selector.matches(workload.labels)
    return who.network is None or any(address in who.network for address in workload.addresses)


class CanaryBook:
    """The connections that points try before they confirm a change: the tests that are canaries."""

    def __init__(self, tests: Iterable[Test]) -> None:
        self._tests: list[tuple[Test, int]] = []
        for test in tests:
            port = next((low for span in test.ports.spans for p, low, _ in span.by_protocol() if p == TCP), None)
            if test.canary and test.claim is Claim.CAN and port is not None:
                self._tests.append((test, port))
        self._targets: dict[str, list[tuple[str, Address]]] | None = None

    def __bool__(self) -> bool:
        return bool(self._tests)

    def at(self, workload: Workload, fleet: Mapping[str, Workload]) -> tuple[Canary, ...]:
        """Give the canaries of one point."""
        found: list[Canary] = []
        for test, port in self._tests:
            if any(holds(who, workload) for who in test.source):
                others = (address for name, address in self._of(fleet)[test.id] if name != workload.name)
                addresses = tuple(address for address, _ in zip(others, range(MOST_CANARY_ADDRESSES), strict=False))
                if addresses:
                    found.append(Canary(test.id, addresses, port))
        return tuple(found)

    def swapped(self, before: Workload | None, after: Workload | None, fleet: Mapping[str, Workload]) -> set[str]:
        """Take note that a workload is otherwise, came or went; gives the workloads whose canaries may change."""
        found: set[str] = set()
        for test, _ in self._tests:
            if self._served(test, before) != self._served(test, after):
                self._targets = None
                found |= {name for name, one in fleet.items() if any(holds(who, one) for who in test.source)}
        return found

    def _of(self, fleet: Mapping[str, Workload]) -> dict[str, list[tuple[str, Address]]]:
        if self._targets is None:
            everyone = sorted(fleet.values(), key=lambda one: one.name)
            self._targets = {
                test.id: [(one.name, address) for one in everyone for address in self._served(test, one)]
                for test, _ in self._tests
            }
        return self._targets

    @staticmethod
    def _served(test: Test, workload: Workload | None) -> list[Address]:
        if workload is None:
            return []
        named = [who for who in test.destination if holds(who, workload)]
        return [
            address
            for address in workload.addresses
            if any(who.network is None or address in who.network for who in named)
        ]


def misfits_at(workload: Workload, doubtful: Iterable[Rule]) -> tuple[Misfit, ...]:
    """Say what a point cannot express of the rules that speak of its workload; `doubtful` are those that may be so."""
    found: list[Misfit] = []
    for rule in doubtful:
        for side, ends in ((Side.EGRESS, rule.source), (Side.INGRESS, rule.destination)):
            mine = [who for who in ends if holds(who, workload)]
            reasons = [reason for who in mine if (reason := inexpressible(who, side))]
            if mine and rule.refused:
                reasons = [rule.refused]
            if reasons:
                found.append(Misfit(rule.id, reasons[0]))
                break
    return tuple(found)


def lifeline_cards(controllers: tuple[Listener, ...]) -> tuple[LifelineCard, ...]:
    """Give the lifelines that every point has: those built in, and the way to the controllers."""
    cards = [
        LifelineCard(rule.id, tuple((span.first, span.last) for span in rule.ports.spans), tuple(sorted(rule.sides)))
        for rule in BUILT_IN
    ]
    channel = controller_channel(controllers)
    if channel.ports:
        spans = tuple((span.first, span.last) for span in channel.ports.spans)
        addresses = sorted({one.address for one in controllers}, key=lambda a: (a.version, int(a)))
        cards.append(LifelineCard(channel.id, spans, tuple(sorted(channel.sides)), tuple(addresses)))
    return tuple(cards)
