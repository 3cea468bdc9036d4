"""What a controller knows of the others on its database, kept in step with it by difference.

    their write ── changes ──▶ begun, at our next write ──┐
                     └─ NOTIFY ──▶ catch_up, at once ─────┴──▶ handlers, by topic: read again what changed
    our write ──▶ ending: what was noted is a change for them

INVARIANT: inside a write everything that this controller holds in memory is what the database holds: what others had
written was read when the write began, and nobody else writes until it ends.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import time

from cellwall.controller.errors import ControllerError
from cellwall.controller.store.cluster import ClusterStore, Peer
from cellwall.controller.trust.ca import Authority
from cellwall.inventory import Listener

LEADER = "leader"
GONE_S = 10.0
"""A controller whose heart was not heard for so long is gone: others take over what it did."""
FORGOTTEN_S = 7 * 86_400.0
"""Until then the addresses of a controller that is gone stay among the lifelines: it may come back."""
WATCH_S = 1.0
"""Who does not lead looks so often who is gone."""
KEPT_S = 3600.0
"""So long changes are kept; who was away for longer reads everything again."""

Subjects = frozenset[str] | None
"""What of a topic changed; None is everything."""
Handler = Callable[[Subjects], None]
Log = Callable[..., None]


class Peers:
    """The other controllers, what they changed, and which agents are theirs; a witness of the database's writes.

    `alone` where the database is this controller's own: then it always leads, and has nobody to tell."""

    def __init__(self, store: ClusterStore, me: Peer, log: Log, clock: Callable[[], float] = time) -> None:
        self._store, self._log, self._clock = store, log, clock
        self.me = me
        self.alone = store.database.dialect != "postgresql"
        self.leads = self.alone
        self.others: tuple[Peer, ...] = ()
        self.gone: frozenset[str] = frozenset()
        """Whose heart was not heard for long, as of the last `watch`; any thread may read both."""
        self._watched = -math.inf
        self.elsewhere: dict[str, str] = {}
        self._handlers: dict[str, list[Handler]] = defaultdict(list)
        self._place = 0
        self._here: set[str] = set()
        self._moved: dict[str, bool] = {}
        self._reading = False
        if not self.alone:
            self.on("controllers", lambda _: self._meet())
            self.on("presence", self._move)

    def on(self, topic: str, handler: Handler) -> None:
        """Call `handler` with what others changed of a topic; it may read, and must not write."""
        self._handlers[topic].append(handler)

    def join(self) -> None:
        """Come among the others: from here on nothing that they change is missed. Raises `StateError`."""
        with self._store.database.transaction():
            # What we had when we were killed is nobody's.
            moved = self._store.abandon([self.me.name])
            self._store.put_peer(replace(self.me, seen=self._now()))
            if self.alone:
                return
            noted = [("controllers", ""), *(("presence", name) for name in moved)]
            self._store.add_changes(self.me.name, noted, self._clock())
            self._place = self._store.last_change()
        self._handle(dict.fromkeys(self._handlers))
        self._store.database.add_witness(self)

    def leave(self) -> None:
        """Say that our agents are nobody's any more. Raises `StateError`."""
        if not self.alone:
            with self._store.database.transaction():
                gone = self._store.abandon([self.me.name])
                self._store.database.note("presence", *gone)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Where agents reach controllers, ours first."""
        theirs = (listener for one in self.others for listener in one.listeners)
        return tuple(dict.fromkeys((*self.me.listeners, *theirs)))

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of all controllers as agents are told them, ours first."""
        return tuple(dict.fromkeys((*self.me.urls, *(url for one in self.others for url in one.urls))))

    # --- agents ---

    def arrived(self, workload: str) -> None:
        """Note that an agent is connected here; `tell` writes it."""
        self._here.add(workload)
        self._moved[workload] = True
        self.elsewhere.pop(workload, None)

    def parted(self, workload: str) -> None:
        """Note that an agent's connection ended; `tell` writes it."""
        if workload in self._here:
            self._here.discard(workload)
            self._moved[workload] = False

    def has(self, workload: str) -> bool:
        """Whether an agent is connected here."""
        return workload in self._here

    @property
    def untold(self) -> bool:
        """Whether agents came or went of which the others do not know."""
        return bool(self._moved) and not self.alone

    def tell(self) -> None:
        """Write, inside a write, which agents came and which left."""
        if self._moved and not self.alone:
            self._store.arrive([name for name, here in self._moved.items() if here], self.me.name)
            self._store.leave([name for name, here in self._moved.items() if not here], self.me.name)
            self._store.database.note("presence", *self._moved)

    def told(self) -> None:
        """Take note that what `tell` wrote is committed."""
        self._moved.clear()

    # --- what a witness does ---

    def begun(self) -> None:
        """Read what others wrote before this write."""
        self.catch_up()

    def ending(self) -> None:
        """Tell the others what this write changes."""
        noted = [(topic, subject) for topic, subject in self._store.database.noted if topic in self._handlers]
        if noted:
            self._store.add_changes(self.me.name, noted, self._clock())

    def kept(self) -> None:
        """Nothing: what others wrote holds whatever becomes of this write."""

    def undone(self) -> None:
        """Nothing: what others wrote holds whatever becomes of this write."""

    # --- what others change ---

    def catch_up(self) -> bool:
        """Read what others changed; whether they changed anything. Raises `StateError`."""
        if self.alone or self._reading:
            return False
        self._reading = True
        try:
            return self._catch_up()
        finally:
            self._reading = False

    def _catch_up(self) -> bool:
        last, found, whole = self._store.changes_after(self._place, self.me.name)
        if whole:
            theirs: dict[str, set[str]] = defaultdict(set)
            for one in found:
                theirs[one.topic].add(one.subject)
            changed = {topic: frozenset(subjects) for topic, subjects in theirs.items()}
            self._handle(changed)
        else:
            self._log("reading everything again", why="changes in between were forgotten", place=self._place)
            changed = dict.fromkeys(self._handlers)
            self._handle(changed)
        # Only here: what could not be read is read again.
        self._place = last
        return bool(changed)

    def _handle(self, changed: Mapping[str, Subjects]) -> None:
        # In the order in which handlers were registered: what later ones look at is then there.
        for topic, handlers in self._handlers.items():
            if topic in changed:
                for handler in handlers:
                    handler(changed[topic])

    def _meet(self) -> None:
        known = {one.name for one in self.others}
        self.others = tuple(one for one in self._store.peers() if one.name != self.me.name)
        for one in self.others:
            if one.name not in known:
                self._log("another controller", name=one.name, urls=list(one.urls), version=one.version)

    def _move(self, workloads: Subjects) -> None:
        there = self._store.present(workloads)
        for name in [*self.elsewhere] if workloads is None else workloads:
            self.elsewhere.pop(name, None)
        self.elsewhere |= {name: at for name, at in there.items() if at != self.me.name}
        self._here -= self.elsewhere.keys()

    # --- what the one that leads does ---

    @property
    def leader(self) -> str:
        """The name of the controller that began to lead last. Raises `StateError`."""
        return self.me.name if self.leads else str(self._store.setting(LEADER) or "")

    def lead(self, *, leads: bool) -> None:
        """Begin to lead, or end it. Raises `StateError` where it cannot be written down; then it leads all the same."""
        self.leads = leads
        if leads:
            self._store.put_setting(LEADER, self.me.name)

    def watch(self) -> None:
        """See who is gone. Who leads takes away their agents, and forgets who is gone for good. Raises `StateError`."""
        if self.alone or (not self.leads and 0 <= self._clock() - self._watched < WATCH_S):
            return
        self._watched = self._clock()
        now, alive = self._now(), frozenset(one.name for one in self.alive())
        peers = self.others
        self.gone = frozenset(one.name for one in peers) - alive
        if not self.leads:
            return
        gone = sorted(self.gone)
        if gone and not set(gone).isdisjoint(self.elsewhere.values()):
            with self._store.database.transaction():
                moved = self._store.abandon(gone)
                self._store.database.note("presence", *moved)
            self._move(frozenset(moved))
            self._log("controllers are gone", level="warning", names=gone, agents=len(moved))
        for name in (one.name for one in peers if now - one.seen > FORGOTTEN_S):
            self.forget(name)

    def forget(self, name: str) -> bool:
        """Forget a controller that is gone for good; whether it was known. Raises `StateError`."""
        with self._store.database.transaction():
            moved = self._store.abandon([name])
            known = self._store.drop_peer(name)
            self._store.database.note("controllers")
            self._store.database.note("presence", *moved)
        self._move(frozenset(moved))
        self._meet()
        return known

    def prune(self) -> None:
        """Forget changes that everybody has read, or that who has not will not find anyway."""
        self._store.prune(self._clock() - KEPT_S)

    def alive(self) -> tuple[Peer, ...]:
        """Give the other controllers whose hearts beat. Raises `StateError`."""
        if self.alone:
            return ()
        now = self._now()
        self.others = tuple(one for one in self._store.peers() if one.name != self.me.name)
        return tuple(one for one in self.others if now - one.seen <= GONE_S)

    def _now(self) -> float:
        return self._store.clock() or self._clock()


def check_authority(store: ClusterStore, keys_are_there: bool, authority: Callable[[], Authority]) -> Authority:
    """Give this controller's keys, once it is sure that they are those of the database's other controllers.

    Raises `ControllerError`: agents believe one authority, and bundles signed by one key."""
    with store.database.transaction():
        known = store.setting("authority")
        whose = f"the database belongs to controllers with the authority `{known['authority'][:16]}…`" if known else ""
        copy = "copy `keys/` from the data folder of one of them into this one's"
        if known is not None and not keys_are_there:
            raise ControllerError(f"{whose}, and there are no keys here; {copy}")
        found = authority()
        ours = {"authority": found.fingerprint, "bundle_key": found.verify_key.hex()}
        if known is None:
            store.put_setting("authority", ours)
        elif known != ours:
            raise ControllerError(f"{whose}, and the keys here are of `{found.fingerprint[:16]}…`; {copy}")
    return found
