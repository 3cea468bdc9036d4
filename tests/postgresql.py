"""A PostgreSQL server of a test's own: in a temporary folder, on a Unix socket and a loopback port, gone afterwards."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pg8000.dbapi  # pyright: ignore[reportMissingTypeStubs]

from tests.ports import free_port

_USER = "postgres"
_SETTINGS = """
listen_addresses = '127.0.0.1'
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 40
shared_buffers = 16MB
max_wal_senders = 0
autovacuum = off
"""


def programs() -> Path | None:
    """Give the folder of PostgreSQL's programs; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    other = shutil.which("initdb")
    return Path(other).resolve().parent if other else None


def _identity() -> tuple[int, int]:
    """Give the user and group that the server runs as: it refuses to run as root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    for name in (_USER, "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    return 65534, 65534


def _end_with_the_test() -> None:
    """Let the kernel stop the server where the tests are killed (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


@dataclass
class Server:
    """A running server; `folder` holds its data and its Unix socket."""

    bin: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    _count: int = 0

    def start(self) -> None:
        """Start it, and wait until it answers."""
        user, group = _identity()
        # A group of its own, so that whatever ends it ends its workers.
        self.process = subprocess.Popen(
            [self.bin / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder],
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
            user=user,
            group=group,
            extra_groups=[],
            start_new_session=True,
            preexec_fn=_end_with_the_test,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                self.connect("postgres").close()
                return
            except Exception:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL does not answer"
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once, as a crash would: connections end, nothing is shut down in order."""
        if self.process is not None:
            self.resume()
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(20)
            self.process = None

    def pause(self) -> None:
        """Let it hang: connections stay, nobody answers."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)
        self._tell_workers(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self._tell_workers(signal.SIGCONT)
        os.killpg(self.process.pid, signal.SIGCONT)

    def connect(self, database: str) -> Any:
        """Open a connection, as its superuser."""
        path = str(self.folder / f".s.PGSQL.{self.port}")
        connect: Any = getattr(pg8000.dbapi, "connect")  # noqa: B009 - its types are half there
        return connect(user=_USER, database=database, unix_sock=path, timeout=10)

    def make(self) -> str:
        """Make a fresh database, and give its URL."""
        self._count += 1
        name = f"test{os.getpid()}_{self._count}"
        connection = self.connect("postgres")
        connection.autocommit = True
        connection.cursor().execute(f"create database {name}")
        connection.close()
        return self.url(name)

    def url(self, name: str) -> str:
        """Give the URL of a database."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{name}?sslmode=disable"

    def _tell_workers(self, number: signal.Signals) -> None:
        # Its workers have process groups of their own; one whose connection was closed a moment ago may be gone by now.
        assert self.process is not None
        told = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for child in told.split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)


@contextmanager
def running() -> Generator[Server]:
    """Run a server until the block ends."""
    found = programs()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="cwpg-"))
    user, group = _identity()
    os.chown(folder, user, group)
    try:
        subprocess.run(
            [found / "initdb", "-D", folder / "data", "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
            check=True,
            capture_output=True,
            user=user,
            group=group,
            extra_groups=[],
            cwd=folder,
        )
        (folder / "data" / "postgresql.auto.conf").write_text(_SETTINGS)
        server = Server(found, folder, free_port())
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
