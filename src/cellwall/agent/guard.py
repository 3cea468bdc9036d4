"""Takes back what was for a while when the agent died: a copy of it that waits for the end of a trial or suspension.

Who started the agent starts it again, as a rule, and what it finds in the journal it judges as before. The guard is for
when nobody does: a kill without a service manager, a start that fails again and again.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

from cellwall.agent.boot import load_boot
from cellwall.agent.folder import locked
from cellwall.agent.options import AgentOptions
from cellwall.traffic import CellwallError

GRACE_S = 2.0
"""So much later than that end the guard acts: an agent that lives has done it by then."""


class Guard:
    """At most one process that stands by; it ends with the agent's process group, but not with the agent."""

    def __init__(self, options: AgentOptions) -> None:
        """Nobody stands by yet."""
        self._options = options
        self._pid = 0
        self._until = 0.0

    def stand(self, until: float, now: float) -> None:
        """Have what ends at `until` taken back, in seconds as `now` is, if no agent lives then; 0 is nothing."""
        if until == self._until:
            return
        self.dismiss()
        if until:
            sys.stderr.flush()
            try:
                self._pid, self._until = os.fork(), until
            except OSError:  # no room for a process: then whoever starts the agent again is what there is
                return
            if self._pid == 0:
                self._wait(until - now + GRACE_S)

    def dismiss(self) -> None:
        """Let it go: there is nothing on trial any more."""
        if self._pid:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
        self._pid, self._until = 0, 0.0

    def _wait(self, seconds: float) -> None:
        """Be the guard. Nothing of the agent's may be used: not its loop, its sockets or its lock."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            time.sleep(max(0.0, seconds))
            # Who holds the folder is alive, and has judged it or will.
            with locked(self._options.state):
                # Its end has come, whatever the clock of the host was set to meanwhile.
                load_boot(self._options, max(time.time(), self._until + GRACE_S))
                print("cellwall agent: the agent is gone; what was for a while was taken back", file=sys.stderr)
        except CellwallError as error:
            print(f"cellwall agent: guard: {error}", file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(0)
