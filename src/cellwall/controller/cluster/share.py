"""What a controller reads again when another one has changed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cellwall.controller.cluster.peers import Subjects
from cellwall.controller.control import Control
from cellwall.controller.core import Standing, parted


def share(
    control: Control, hang_up: Callable[[str], None], changed: Callable[[], None], clock: Callable[[], float]
) -> None:
    """Keep `control` in step with the other controllers of its database.

    `hang_up` ends the connection of an agent here, `changed` is called when something must be compiled anew."""
    peers, store = control.peers, control.store

    def inventory(names: Subjects) -> None:
        store.refresh(names)
        for name in [*control.standings] if names is None else names:
            if store.workload(name) is None:
                control.standings.pop(name, None)
        control.stale = True
        changed()

    def courses(_: Subjects) -> None:
        # What was in force, and agents hold, is not undone by a database that lost it.
        control.hold.went_back(control.rollouts.newest(), control.revision.number, clock())
        if control.hold.held is None and control.rollouts.refresh():
            control.stale = True
            changed()

    def orders(_: Subjects) -> None:
        if control.orders.refresh():
            control.stale = True
            changed()

    def controllers(_: Subjects) -> None:
        if control.controllers != peers.listeners:
            control.meet(peers.listeners)
            changed()

    def presence(names: Subjects) -> None:
        for name in [*control.standings] if names is None else names:
            standing = control.standings.get(name)
            if name in peers.elsewhere:
                hang_up(name)
                if standing is not None:
                    control.yield_to(_of_another(standing))
            elif standing is not None and standing.connected and not peers.has(name):
                control.yield_to(parted(standing, clock()))

    def standings(names: Subjects) -> None:
        for kept in store.standings(names):
            known = control.standings.get(kept.workload)
            if not peers.has(kept.workload):
                there = kept.workload in peers.elsewhere
                control.yield_to(_of_another(kept) if there else kept)
            elif known is not None and kept.issued.generation > known.issued.generation:
                # What was sent last was sent by whom it was connected to before: that number is used.
                control.standings[kept.workload] = replace(known, issued=kept.issued)

    def revoked(names: Subjects) -> None:
        control.enrolment.forget()
        for name in names or ():
            hang_up(name)

    peers.on("inventory", inventory)
    peers.on("table:courses", courses)
    peers.on("table:orders", orders)
    peers.on("controllers", controllers)
    peers.on("presence", presence)
    peers.on("standing", standings)
    peers.on("revoked", revoked)
    peers.on("table:settings", lambda _: control.hold.refresh())
    peers.on("table:test_outcomes", lambda _: control.tests.refresh())


def _of_another(standing: Standing) -> Standing:
    return replace(standing, connected=True, awaiting=False, base=None, under_way=None)
