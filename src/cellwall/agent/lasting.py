"""What outlives the agent: the journal and a suspension."""

from __future__ import annotations

import time

from cellwall.agent.core import Agent, snapshot
from cellwall.agent.enrolment import Enrolment
from cellwall.agent.events import Event, JournalFailed, SaveChange, SaveJournal, Started
from cellwall.agent.journal import Journal, JournalError
from cellwall.agent.options import AgentOptions
from cellwall.agent.suspension import Suspension, read_suspension

SAVE_AGAIN_S = 30.0


class Lasting:
    """Keeps on disk what an `Agent` says must last. `now` is in seconds, by the agent's clock."""

    def __init__(self, options: AgentOptions, enrolment: Enrolment) -> None:
        """Touch nothing yet."""
        self._folder = options.state
        self._journal = Journal(options.state, enrolment.name, enrolment.bundle_key)
        self._unsaved_since = 0.0
        self._suspension: Suspension | None = None
        self._suspended_until = 0.0

    def load(self) -> Started:
        """Read the journal."""
        return self._journal.load()

    def save(self, command: SaveJournal | SaveChange, agent: Agent, now: float) -> list[Event]:
        """Write it, and give what has to be heard of that."""
        try:
            if isinstance(command, SaveJournal):
                self._journal.save(command)
            elif self._unsaved_since:
                # What is on disk is not what this changes.
                self._journal.save(snapshot(agent))
            else:
                self._journal.append(command.signed)
                if self._journal.grown:
                    self._journal.save(snapshot(agent))
            self._unsaved_since = 0.0
        except JournalError as error:
            self._unsaved_since = now
            return [JournalFailed(str(error))]
        return []

    def save_again(self, agent: Agent, now: float) -> bool:
        """Try again to write what could not be written, every so often; say whether that trouble is over."""
        if not self._unsaved_since or now - self._unsaved_since < SAVE_AGAIN_S:
            return False
        self.save(snapshot(agent), agent, now)
        return not self._unsaved_since

    def suspended(self, now: float) -> tuple[str, float]:
        """Say why this host is suspended and for how many seconds more, "" where it is not: a file says so."""
        wall = time.time()
        found = read_suspension(self._folder, wall)
        if found != self._suspension:
            self._suspension = found
            self._suspended_until = now + found.left_s(wall) if found else 0.0
        if now >= self._suspended_until:
            self._suspended_until = 0.0
            return "", 0.0
        return str(found), self._suspended_until - now
