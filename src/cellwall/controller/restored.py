"""A controller whose state is older than what its agents hold, as it was restored from a backup: nothing is sent then.

    an agent says that it holds what we never sent ──▶ held ── accepted by a person ──▶ what is here goes to the agents

What agents hold stays in force till then: they get no policy, but orders and answers as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from cellwall.controller.core import Standing
from cellwall.controller.errors import Conflict
from cellwall.controller.store.cluster import ClusterStore
from cellwall.controller.store.database import Database
from cellwall.controller.testing import CONTROLLER
from cellwall.wire import Hello

HELD, FLOOR = "held", "revision floor"
"""Settings: why nothing is sent, and the highest revision that any agent was seen to hold."""


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
        self.refresh()

    def refresh(self) -> None:
        """Read it again. Raises `StateError`."""
        found: Mapping[str, object] | None = self._store.setting(HELD)
        self.held = Held(**found) if found else None  # pyright: ignore[reportArgumentType] - as it was written

    def check(self) -> None:
        """Raise `Conflict` where a policy would come into force over a newer one."""
        if self.held is not None:
            raise Conflict(f"{self.held.why}; see to it with `cellwall controller accept-restore`")

    def notice(self, standing: Standing, hello: Hello, known: int, now: float) -> bool:
        """Take note of an agent that holds what we never sent; whether that is so. Raises `StateError`."""
        if not knows_more(standing, hello, known):
            return False
        seen = hello.holding.revision
        what = f"revision {seen}, and {known} is the newest here" if seen > known else "what was never sent from here"
        self._hold(
            f"the state is older than what agents hold, as from a backup: `{hello.name}` holds {what}", known, seen, now
        )
        return True

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

    def accept(self, author: str, now: float) -> Held:
        """Let what is here go to the agents. Raises `Conflict` where nothing is held."""
        held = self.held
        if held is None:
            raise Conflict("nothing is held back: no agent holds more than what is known here")
        with self._store.database.transaction():
            self._store.drop_setting(HELD)
            self._record(now, author, "accept restore", "policy", {"was": held.why})
        self.held = None
        return held


def highest_seen(database: Database) -> int:
    """Give the highest revision that any agent was seen to hold and we did not know: new ones are numbered above it."""
    return int(ClusterStore(database).setting(FLOOR) or 0)


def knows_more(standing: Standing, hello: Hello, known: int) -> bool:
    """Say whether an agent holds what a controller never sent that knows this standing and revisions to `known`.

    A number is on disk before it is sent: a higher one means that the disk is an older one. A point that we never
    sent anything may be a host that was enrolled anew, and its numbers from before."""
    highest = max(hello.highest, hello.holding.generation)
    return hello.holding.revision > known or 0 < standing.issued.generation < highest
