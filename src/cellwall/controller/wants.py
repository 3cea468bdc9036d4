"""What every point is to hold, kept by difference: a change of policy or fleet costs by the points that it touches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cellwall.compile import Compiler, OrderBook
from cellwall.controller.core import Wanted, ordered, want
from cellwall.controller.ground import Ground
from cellwall.policy import Policy
from cellwall.wire import encode_orders


class Wants:
    """Turns one ground after another into what is wanted; whoever has it asks from one thread at a time.

    Orders come last: one that comes or goes compiles nothing anew."""

    def __init__(self) -> None:
        self._compiler: Compiler | None = None
        self._wanted: dict[str, Wanted] = {}
        self._ordered: dict[str, tuple[Wanted, Wanted]] = {}

    @property
    def policy(self) -> Policy | None:
        """What was compiled last; None where nothing is there."""
        return None if self._compiler is None else self._compiler.policy

    def of(self, ground: Ground, now: float) -> Mapping[str, Wanted]:
        """Say what every point is to hold on `ground` at `now` (seconds since the epoch, UTC), by name of workload."""
        compiler, before = self._compiler, self._wanted
        # INVARIANT: if this fails halfway, the next time begins from nothing.
        self._compiler, self._wanted = None, {}
        if compiler is None:
            compiler = Compiler(ground.policy, ground.fleet, ground.revision, now)
            wanted = want(dict(compiler.points()))
        else:
            touched = compiler.touched(compiler.update(ground.policy, ground.fleet, ground.revision, now))
            fresh = want({name: compiler.point(name) for name in touched})
            agents = (one.name for one in ground.fleet.workloads if one.agent)
            wanted = {name: fresh.get(name) or _numbered(before[name], ground.revision) for name in agents}
        self._compiler, self._wanted = compiler, wanted
        return self._with_orders(ground, now)

    def _with_orders(self, ground: Ground, now: float) -> Mapping[str, Wanted]:
        before, self._ordered = self._ordered, {}
        if not any(order.in_time(now) for order in ground.orders):
            return self._wanted
        book, made = OrderBook(ground.orders, ground.fleet, now), dict[str, tuple[Wanted, Wanted]]()
        # Most points have the same orders, as one object.
        written: dict[int, tuple[object, bytes]] = {}
        for name, plain in self._wanted.items():
            cards = book.at(ground.fleet.by_name[name])
            known = before.get(name)
            if known is None or known[0] is not plain or known[1].ruleset.orders != cards:
                if id(cards) not in written:
                    written[id(cards)] = cards, encode_orders(cards)
                known = plain, ordered(plain, cards, written[id(cards)][1])
            made[name] = known
        self._ordered = made
        return {name: one for name, (_, one) in made.items()}


def _numbered(wanted: Wanted, revision: int) -> Wanted:
    if wanted.revision == revision:
        return wanted
    return replace(wanted, revision=revision, ruleset=replace(wanted.ruleset, revision=revision))
