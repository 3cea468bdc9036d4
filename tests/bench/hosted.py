"""A real agent in a namespace, and a stand-in for its controller in another, joined by a wire."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from cellwall.compile import Point
from cellwall.wire import Bundle, MemberChange, PointState, Receipt
from tests.fleet.agent_world import Puppet, puppet, start_agent
from tests.kernel.namespaces import Child, Namespace, pair

PATIENCE_S = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Hosted:
    """The agent in `far`; its controller is in `near`."""

    near: Namespace
    far: Namespace
    control: Puppet
    child: Child
    state: Path
    _read: int = field(default=0)

    def hold(self, point: Point) -> float:
        """Have it hold `point`; give the seconds until it says so."""
        return self.send(self.control.bundle(point))

    def send(self, message: Bundle | MemberChange) -> float:
        """Send, and give the seconds until the agent says that it is in force."""
        began = time.perf_counter()
        self.control.send(message)
        while (taken := time.perf_counter() - began) < PATIENCE_S:
            heard = self.control.heard
            while self._read < len(heard):
                one = heard[self._read]
                self._read += 1
                if isinstance(one, Receipt) and one.generation == message.generation:
                    if one.state is not PointState.ENFORCED:
                        raise AssertionError(one)
                    return taken
            time.sleep(0.0001)
        raise AssertionError(f"no receipt of generation {message.generation}: {self._log()}")

    def cpu_s(self) -> float:
        """The seconds of processor that the agent has used so far, and the programs that it ran."""
        total = 0.0
        for task in Path(f"/proc/{self.child.pid}/task").iterdir():
            with suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return total + (int(fields[13]) + int(fields[14])) / _TICKS

    def memory(self) -> dict[str, float]:
        """What it holds of memory, in MiB: `VmRSS` all, `VmHWM` at its peak, `RssAnon` without pages of files."""
        lines = Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        told = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        return {key: int(told[key][0]) / 1024 for key in ("VmRSS", "VmHWM", "RssAnon")}

    def _log(self) -> str:
        return (self.state / "log").read_text()[-500:]

    def await_connection(self) -> None:
        """Wait until it has come."""
        until = time.monotonic() + PATIENCE_S
        while not self.control.connections:
            if not self.child.alive() or time.monotonic() > until:
                raise AssertionError(f"the agent does not come: {self._log()}")
            time.sleep(0.02)
        # Its connection is told apart from its first words only after the welcome.
        time.sleep(0.2)


@contextmanager
def hosted(interval_s: float = 2.0) -> Generator[Hosted]:
    """Start an agent that is enrolled and connected and holds nothing yet."""
    with TemporaryDirectory() as name, pair() as (near, far):
        folder = Path(name)
        with puppet(near, folder / "ca") as control:
            control.interval_s = interval_s
            state = folder / "agent"
            state.mkdir()
            control.enrol(state)
            child = start_agent(far, state, interval_s=interval_s, python=as_installed(folder / "python"))
            one = Hosted(near, far, control, child, state)
            one.await_connection()
            yield one
            child.stop()


def as_installed(folder: Path) -> tuple[str, ...]:
    """Give the words that run Python as on a host: with the agent's packages alone, compiled, as the unit starts it."""
    site = folder / "site"
    site.mkdir(parents=True)
    for name in ("cellwall", "msgspec", "websockets", "cryptography", "_cffi_backend"):
        found = find_spec(name)
        assert found and found.origin
        place = Path(found.origin)
        place = place.parent if place.name == "__init__.py" else place
        (site / place.name).symlink_to(place)
    told = {
        "PYTHONPATH": site,
        "PYTHONPYCACHEPREFIX": folder / "compiled",
        "PYTHONDONTWRITEBYTECODE": "",
        "MALLOC_ARENA_MAX": 1,
    }
    words = ("env", *(f"{key}={value}" for key, value in told.items()), sys.executable, "-S")
    subprocess.run([*words, "-c", "import cellwall.cli.host, cellwall.agent.loop"], check=True)
    return words
