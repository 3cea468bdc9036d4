"""Open the databases that the state may be in: an SQLite file, or PostgreSQL by URL."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pg8000.dbapi
from pg8000.exceptions import InterfaceError
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from cellwall.controller.errors import StateError
from cellwall.controller.store.database import said

CONNECT_S = 1.5
"""A database that has not let us in after so long is gone."""
STATEMENT_MS, LOCK_MS, IDLE_MS = 3000, 2500, 5000
"""PostgreSQL ends what takes longer: a statement, the wait for a lock, a write in which nothing happens."""
LARGE_STATEMENT_MS = 600_000
"""For what reads or writes all there is: a migration, a backup, a restore."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a PostgreSQL database is, and who we are there. `folder` is that of its Unix socket; else `host`, `port`.

    `tls` is as libpq's `sslmode`: `disable`, `require` (encrypted, whoever it is), `verify-full`."""

    database: str
    user: str
    password: str
    host: str
    port: int
    folder: str
    tls: str
    authority: str

    def __str__(self) -> str:
        """Name the database without its password."""
        return f"postgresql://{self.user}@{self.folder or self.host}:{self.port}/{self.database}"


def parse_place(url: str) -> Place:
    """Read `postgresql://user:password@host:5432/database?sslmode=verify-full&sslrootcert=FILE`. Raises `StateError`.

    `host=/run/postgresql` among the options is the folder of a Unix socket."""
    refused = StateError(
        f"`{_without_password(url)}` is no database; wanted `postgresql://user@host:5432/database`, with `host`, "
        "`sslmode` (disable, require, verify-full) or `sslrootcert` after a `?`"
    )
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        port = parts.port or int(options.pop("port", "5432"))
    except ValueError:
        raise refused from None
    host, authority = options.pop("host", ""), options.pop("sslrootcert", "")
    mode = options.pop("sslmode", "disable" if host.startswith("/") else "require")
    good = parts.scheme in ("postgresql", "postgres") and parts.path.count("/") == 1 and parts.path != "/"
    if not good or options or mode not in ("disable", "require", "verify-full"):
        raise refused
    folder = host if host.startswith("/") else ""
    return Place(
        database=unquote(parts.path[1:]),
        user=unquote(parts.username or "cellwall"),
        password=unquote(parts.password or ""),
        host=host or parts.hostname or "localhost",
        port=port,
        folder=folder,
        tls=mode,
        authority=authority,
    )


def connect(place: Place, application: str, statement_ms: int = STATEMENT_MS) -> tuple[Any, socket.socket]:
    """Open one connection (DB-API, pg8000), and the socket that it is made of.

    Raises `OSError` and what the driver raises. Both times out: what does not answer is gone."""
    pg8000_connect: Any = getattr(pg8000.dbapi, "connect")  # noqa: B009 - its types are half there

    line = _dial(place)
    try:
        line = _wrapped(line, place)
        given: Any = pg8000_connect(
            user=place.user,
            database=place.database,
            password=place.password or None,
            sock=line,
            application_name=application,
            startup_params={
                "statement_timeout": str(statement_ms),
                # What was committed is not lost when the server crashes, whatever its default.
                "synchronous_commit": "on",
                "lock_timeout": str(LOCK_MS),
                "idle_in_transaction_session_timeout": str(IDLE_MS),
            },
        )
    except BaseException:
        line.close()
        raise
    # What PostgreSQL itself does not end in time, it ends no more.
    line.settimeout(statement_ms / 1000 + 0.5)
    return given, line


def open_postgresql(url: str, statement_ms: int = STATEMENT_MS) -> Engine:
    """Give the engine of the database at `url`; nothing is connected before it is used. Raises `StateError`."""
    place = parse_place(url)

    def dial() -> Any:
        try:
            return connect(place, "cellwall", statement_ms)[0]
        except OSError as error:
            # As the driver's own errors are, so that whoever uses the engine hears of it alike.
            why = (error.strerror or str(error)).lower()
            raise InterfaceError(f"`{place}` cannot be reached: {why}") from None

    # A connection that cannot be closed any more is no news.
    quiet = logging.getLogger("sqlalchemy.pool")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    return create_engine(
        "postgresql+pg8000://",
        creator=dial,
        pool_size=1,
        max_overflow=1,
        # A connection that died while nobody used it is replaced unseen.
        pool_pre_ping=True,
        pool_timeout=CONNECT_S,
    )


def open_sqlite(path: Path | None) -> Engine:
    """Give the engine of the SQLite file at `path`, made where it is not there; None is one in memory.

    Raises `StateError`."""
    if path is not None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as error:
            raise StateError(f"`{path}` cannot be opened: {(error.strerror or str(error)).lower()}") from None
    engine = create_engine(f"sqlite:///{path}" if path else "sqlite://", connect_args={"check_same_thread": False})

    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=wal", "synchronous=full", "busy_timeout=10000", "foreign_keys=on"):
            connection.execute(f"pragma {pragma}")

    event.listen(engine, "connect", connected)
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        raise StateError(f"`{path}` cannot be opened: {said(error)}") from None
    return engine


def _dial(place: Place) -> socket.socket:
    if place.folder:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(CONNECT_S)
        try:
            line.connect(f"{place.folder}/.s.PGSQL.{place.port}")
        except OSError:
            line.close()
            raise
    else:
        line = socket.create_connection((place.host, place.port), CONNECT_S)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # tcp(7): what was sent and is not acknowledged within so many milliseconds ends the connection.
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STATEMENT_MS)
    return line


def _wrapped(line: socket.socket, place: Place) -> socket.socket:
    """Begin TLS as PostgreSQL wants it (15, 55.2.10)."""
    if place.tls == "disable":
        return line
    context = ssl.create_default_context(cafile=place.authority or None)
    if place.tls == "require":
        # libpq's meaning: encrypted, and nobody looks who it is.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    line.sendall(struct.pack(">ii", 8, 80877103))
    if line.recv(1) != b"S":
        raise OSError(f"`{place}` speaks no TLS; add `?sslmode=disable` to do without")
    return context.wrap_socket(line, server_hostname=place.host)


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://…{at}{tail}" if at else url
