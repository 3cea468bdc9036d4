"""Three controllers on one PostgreSQL, as they are started in earnest, and a crowd of agents that knows all of them."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from cellwall.controller.store.sql import open_state
from tests.bench.control_world import Boss, Problem, Sim, controller, crowd
from tests.bench.fleet_sim_keys import KEPT, fill, make_fleet
from tests.postgresql import Server, programs, running

NAMES = ("one", "two", "three")


@dataclass
class Trio:
    """The controllers, their database and their agents."""

    server: Server
    database: str
    bosses: dict[str, Boss]
    sim: Sim

    @property
    def alive(self) -> list[Boss]:
        """Those that run."""
        return [boss for boss in self.bosses.values() if boss.process.poll() is None]

    def leader(self) -> Boss | None:
        """Give the one that leads, if one does and says so."""
        for boss in self.alive:
            if boss.ask("GET", "/controllers")["items"][0]["state"] == "leads":
                return boss
        return None

    def cpu_s(self) -> float:
        """Seconds of processor that the controllers have used so far; PostgreSQL is not in it."""
        return sum(boss.cpu_s() for boss in self.alive)

    def rows(self, statement: str, *values: object) -> list[Any]:
        """Ask the database."""
        connection = self.server.connect(urlsplit(self.database).path.strip("/"))
        try:
            cursor = connection.cursor()
            cursor.execute(statement, values)
            return list(cursor.fetchall())
        finally:
            connection.close()

    def kill(self, boss: Boss) -> None:
        """End one as `kill -9` does."""
        boss.process.kill()
        boss.process.wait()


@contextmanager
def trio(agents: int) -> Generator[Trio]:
    """Start them; the controllers know `agents` agents, who are away. Raises `Problem` without PostgreSQL."""
    if programs() is None:
        raise Problem("PostgreSQL is not installed; scripts/setup.sh does it")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fleet = make_fleet(agents)
    with ExitStack() as stack:
        server = stack.enter_context(running())
        # The tests' server writes nothing to the disk when told to; this one does, as in earnest.
        connection = server.connect("postgres")
        connection.autocommit = True
        for setting in ("fsync = on", "full_page_writes = on", "autovacuum = on"):
            connection.cursor().execute(f"alter system set {setting}")
        connection.cursor().execute("select pg_reload_conf()")
        connection.close()
        database = server.make()
        store = open_state(None, database)
        try:
            fill(store, fleet, time.time())
        finally:
            store.close()
        place = Path(stack.enter_context(TemporaryDirectory(prefix="cwbench-")))
        bosses: dict[str, Boss] = {}
        for name in NAMES:
            (place / name / "data").mkdir(parents=True, mode=0o700)
            shutil.copytree(KEPT / "keys", place / name / "data" / "keys")
            started = controller(place / name, "--database", database, "--name", name)
            bosses[name] = stack.enter_context(started)
        sim = stack.enter_context(crowd(place, 0, agents, *(boss.port for boss in bosses.values())))
        yield Trio(server, database, bosses, sim)


def within(seconds: float, there: Callable[[], object], what: str, every_s: float = 0.05) -> float:
    """Wait until something is so, and say how long that took. Raises `Problem` where it takes too long."""
    began = time.monotonic()
    while not there():
        if time.monotonic() - began > seconds:
            raise Problem(f"after {seconds:g} s: not {what}")
        time.sleep(every_s)
    return time.monotonic() - began
