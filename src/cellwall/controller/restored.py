"""A controller whose state is older than what its agents hold, as it was restored from a backup: nothing is sent then.

    an agent says that it holds what we never sent ─┬─▶ nothing is sent to it
                                                    └─ several say so ──▶ held: nothing is sent to anybody, till a
                                                                          person accepts that what is here goes out
What agents hold stays in force till then. One agent alone holds up only itself: its word may be a lie, or its machine
a copy of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import cast

from cellwall.controller.core import Standing
from cellwall.controller.errors import Conflict
from cellwall.controller.store.cluster import ClusterStore
from cellwall.controller.store.database import Database
from cellwall.controller.testing import CONTROLLER
from cellwall.wire import Hello

HELD, FLOOR, AHEAD = "held", "revision floor", "ahead"
"""Settings: why nothing is sent, the highest revision that enough agents were seen to hold, and which agents say that
they hold more than is known here: the revision of each."""
ENOUGH, SHARE = 2, 20
"""So many agents have to say it, or one in so many where that is more, before nothing is sent to anybody."""


@dataclass(frozen=True, slots=True)
class Held:
    """Why nothing is sent, in words, and since when.

    `known` is the newest revision of the state when that was noticed, `seen` the newest that was in force somewhere."""

    why: str
    at: float
    known: int
    seen: int


class Hold:
    """Whether the state is older than what agents hold, and what a person said to that."""

    def __init__(self, store: ClusterStore, record: Callable[..., None], log: Callable[..., None]) -> None:
        self._store, self._record, self._log = store, record, log
        self.held: Held | None = None
        self.ahead: Mapping[str, int] = {}
        """Who says that it holds more than is known here, and the revision that it says."""
        self.refresh()

    def refresh(self) -> None:
        """Read it again. Raises `StateError`."""
        found: Mapping[str, object] | None = self._store.setting(HELD)
        self.held = Held(**found) if found else None  # pyright: ignore[reportArgumentType] - as it was written
        self.ahead = cast("Mapping[str, int]", self._store.setting(AHEAD) or {})

    def holds_back(self, name: str) -> bool:
        """Say whether nothing is sent to a point."""
        return self.held is not None or name in self.ahead

    def check(self) -> None:
        """Raise `Conflict` where a policy would come into force over a newer one."""
        if self.held is not None:
            raise Conflict(f"{self.held.why}; see to it with `cellwall controller accept-restore`")

    def notice(self, standing: Standing, hello: Hello, known: int, now: float, agents: int) -> bool:
        """Take note of an agent that holds what we never sent; whether that is so. Raises `StateError`.

        `agents` is how many there are."""
        if not knows_more(standing, hello, known):
            return False
        name, seen = hello.name, hello.holding.revision
        what = f"revision {seen}, and {known} is the newest here" if seen > known else "what was never sent from here"
        if name not in self.ahead or seen > self.ahead[name]:
            ahead = {**self.ahead, name: seen}
            with self._store.database.transaction():
                self._store.put_setting(AHEAD, ahead)
                if name not in self.ahead:
                    self._record(now, CONTROLLER, "hold", name, {"why": f"it holds {what}", "revision": seen})
            self.ahead = ahead
            self._log("nothing is sent to it", level="error", workload=name, why=f"it holds {what}")
        enough = min(agents, max(ENOUGH, agents // SHARE))
        if len(self.ahead) >= enough:
            # The highest that so many hold: no number that one alone says counts.
            agreed = sorted(self.ahead.values(), reverse=True)[max(enough - 1, 0)]
            why = f"the state is older than what agents hold, as from a backup: `{name}` holds {what}"
            self._hold(why, known, agreed, now)
        return True

    def forget(self, name: str) -> None:
        """Take note that a point is gone, or begins anew. Raises `StateError`."""
        if name in self.ahead:
            ahead = {one: seen for one, seen in self.ahead.items() if one != name}
            self._store.put_setting(AHEAD, ahead)
            self.ahead = ahead

    def went_back(self, newest: int, known: int, now: float) -> bool:
        """Take note that the database holds an older policy than it held before; whether that is so.

        As after a failover to a replica that had not heard everything. Raises `StateError`."""
        if newest >= known:
            return False
        self._hold(f"the database went back to revision {newest}, and {known} was in force", newest, known, now)
        return True

    def _hold(self, why: str, known: int, seen: int, now: float) -> None:
        before = self.held
        if before is not None and seen <= max(before.seen, before.known):
            return
        held = Held(why, now if before is None else before.at, known, seen)
        with self._store.database.transaction():
            self._store.put_setting(HELD, asdict(held))
            self._store.put_setting(FLOOR, max(highest_seen(self._store.database), seen))
            if before is None:
                self._record(now, CONTROLLER, "hold", "policy", {"why": why, "revision": seen})
        self.held = held
        self._log("nothing is sent to agents", level="error", why=why)

    @property
    def why(self) -> str:
        """Why something is held back, in words. Raises `Conflict` where nothing is."""
        if self.held is not None:
            return self.held.why
        if self.ahead:
            return f"`{min(self.ahead)}` holds more than what is known here"
        raise Conflict("nothing is held back: no agent holds more than what is known here")

    def accept(self, author: str, now: float) -> None:
        """Let what is here go to the agents. Raises `Conflict` where nothing is held."""
        why = self.why
        with self._store.database.transaction():
            self._store.drop_setting(HELD)
            self._store.drop_setting(AHEAD)
            self._record(now, author, "accept restore", "policy", {"was": why})
        self.held, self.ahead = None, {}


def highest_seen(database: Database) -> int:
    """Give the highest revision that any agent was seen to hold and we did not know: new ones are numbered above it."""
    return int(ClusterStore(database).setting(FLOOR) or 0)


def knows_more(standing: Standing, hello: Hello, known: int) -> bool:
    """Say whether an agent holds what a controller never sent that knows this standing and revisions to `known`.

    A number is on disk before it is sent: a higher one means that the disk is an older one. A point that we never
    sent anything may be a host that was enrolled anew, and its numbers from before."""
    highest = max(hello.highest, hello.holding.generation)
    return hello.holding.revision > known or 0 < standing.issued.generation < highest
