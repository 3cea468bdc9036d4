"""Orders of an emergency: given, lifted, over by themselves; each in the audit log, and in force within a second.

give ── store, audit ──▶ standing ──▶ ground ── compiled beside the policy ──▶ a small change to every agent
                            └── its end ── the kernels end it on their own; here it is noted and tidied up
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from secrets import token_hex

from cellwall.compile import next_order_change
from cellwall.controller.core import Standing, Wanted, holds
from cellwall.controller.errors import NotFound
from cellwall.controller.store.orders import OrderRow, OrderStore
from cellwall.controller.store.state import StateStore
from cellwall.controller.testing import CONTROLLER
from cellwall.policy import Order, OrderKind
from cellwall.wire import ORDERS, PointState

Log = Callable[..., None]
_ID_BYTES = 3
_STUCK = frozenset({PointState.REFUSED, PointState.FAILED, PointState.REVERTED})


@dataclass(frozen=True, slots=True)
class Reach:
    """How far an order has come: the points that are to enforce it, those that do, and why each of the others does not.

    A point whose agent is away is waited for by nobody: it gets it when it comes back."""

    points: int
    having: int
    waiting: tuple[str, ...]
    unable: tuple[tuple[str, str], ...]

    @property
    def everywhere(self) -> bool:
        """Whether every point that can be reached has it."""
        return not self.waiting


class Orders:
    """The orders that stand: in force, and to come."""

    def __init__(self, store: OrderStore, state: StateStore, log: Log) -> None:
        self._store, self._state, self._log = store, state, log
        self.standing: tuple[Order, ...] = ()
        """The same value while nothing changes."""
        self.compiled: tuple[Order, ...] = ()
        """Those of which it is known what every point is to hold."""
        self.refresh()

    def refresh(self) -> bool:
        """Take up what the store holds; whether that is something else."""
        before, self.standing = self.standing, tuple(row.order for row in self._store.standing())
        if before == self.standing:
            self.standing = before
            return False
        return True

    def new_id(self, kind: OrderKind) -> str:
        """Give a name that no order ever had."""
        while True:
            name = f"{kind}-{token_hex(_ID_BYTES)}"
            if self._store.find(name) is None:
                return name

    def give(self, order: Order, now: float) -> None:
        """Let an order stand."""
        details = {"order": str(order), "expires": order.expires, "reason": order.reason, "exempt": len(order.exempt)}
        with self._state.transaction():
            self._store.add(order, now)
            self._state.record(now, order.author, "order", order.id, details)
        self.refresh()
        self._log("order given", order=order.id, what=str(order), author=order.author, expires=order.expires)

    def find(self, name: str) -> OrderRow:
        """Give an order, of any time. Raises `NotFound`."""
        row = self._store.find(name)
        if row is None:
            raise NotFound(f"there is no order `{name}`")
        return row

    def recent(self, limit: int) -> tuple[OrderRow, ...]:
        """Give the orders of all times, the last given first."""
        return self._store.recent(limit)

    def lift(self, name: str, author: str, reason: str, now: float) -> OrderRow:
        """End an order before its time. Raises `NotFound` where none of this name stands."""
        if all(order.id != name for order in self.standing):
            raise NotFound(f"no order `{name}` stands")
        with self._state.transaction():
            self._store.end(name, author, now)
            self._state.record(now, author, "lift order", name, {"reason": reason})
        self.refresh()
        self._log("order lifted", order=name, author=author)
        return self.find(name)

    def expire(self, now: float) -> None:
        """Note the orders whose end has come; the kernels have ended them already."""
        ended = [order for order in self.standing if order.expires is not None and order.expires <= now]
        if not ended:
            return
        with self._state.transaction():
            for order in ended:
                assert order.expires is not None
                self._store.end(order.id, CONTROLLER, order.expires)
                self._state.record(now, CONTROLLER, "order expired", order.id)
        self.refresh()
        # What every point is to hold was compiled without them as they ended: nothing is left to compile.
        if tuple(order for order in self.compiled if order not in ended) == self.standing:
            self.compiled = self.standing
        self._log("orders expired", orders=[order.id for order in ended])

    def next_change(self, now: float) -> float | None:
        """Give the next moment at which an order begins or expires."""
        return next_order_change(self.standing, now)


def still_waiting(
    names: tuple[str, ...], wanted: Mapping[str, Wanted], standings: Mapping[str, Standing]
) -> tuple[str, ...]:
    """Give `names` from the first on from which a receipt may still come that it holds what it is to hold."""
    for at, name in enumerate(names):
        standing = standings.get(name)
        if (
            name in wanted
            and standing is not None
            and standing.protocol >= ORDERS
            and not holds(standing, wanted[name])
            and not _stuck(standing)
        ):
            return names[at:]
    return ()


def _stuck(standing: Standing) -> str:
    """Say why a point that does not hold what it is to hold is not waited for, "" where it is."""
    if not standing.connected:
        return "its agent is not connected"
    if standing.state is not None and standing.reason and not standing.awaiting and standing.state in _STUCK:
        return f"{standing.state}: {standing.reason}"
    return ""


def reach(
    order: str, wanted: Mapping[str, Wanted], standings: Mapping[str, Standing], *, lifted: bool, compiling: bool
) -> Reach:
    """Say how far an order has come, or, where it is `lifted`, how far it is gone.

    While it is `compiling` what every point is to hold, all are waited for."""
    if compiling:
        return Reach(len(wanted), 0, tuple(wanted), ())
    points = having = 0
    waiting: list[str] = []
    unable: list[tuple[str, str]] = []
    for name, one in wanted.items():
        standing = standings.get(name)
        if standing is None:
            continue
        too_old = standing.protocol < ORDERS
        if not lifted and not too_old and all(card.id != order for card in one.ruleset.orders):
            continue
        points += 1
        if too_old:
            unable.append((name, "its agent is too old for orders"))
        elif holds(standing, one) and standing.state is PointState.RELAXED and standing.reason:
            # It holds what it was told, and does not do it: a host that only observes.
            unable.append((name, standing.reason))
        elif holds(standing, one):
            having += 1
        elif why := _stuck(standing):
            unable.append((name, why))
        else:
            waiting.append(name)
    return Reach(points, having, tuple(waiting), tuple(unable))
