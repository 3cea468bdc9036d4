"""An SQL database in which either all of a write happens or none of it: SQLite, or PostgreSQL.

    transaction ── witnesses: begun ── run, put, rows ── witnesses: ending ── commit ── witnesses: kept
                                                                └── or undone, by all of them, and by the database

INVARIANT: one write at a time, by whoever it is: SQLite has one writer, and on PostgreSQL every write holds one lock
until it is committed. So what a write reads holds until it ends, and what is counted up is committed in order.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from json import dumps
from math import inf
from time import monotonic
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Insert, LargeBinary, Row, Table, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.sql import Executable

from cellwall.controller.errors import StateError

WRITE_LOCK = 0x63656C6C
"""The advisory lock of PostgreSQL that every write holds: `cell`."""
AGAIN_S = 1.0
"""A database that could not be reached is not tried again for so long, unless somebody says that it is back."""
_GONE = ("08", "57P", "53")
"""SQLSTATE classes of PostgreSQL: no connection, the server is going or starting, it has no room for us."""


class Witness(Protocol):
    """Who holds in memory what the database holds, and keeps in step with its writes."""

    def begun(self) -> None:
        """A write has begun: what others wrote before it may be read."""
        ...

    def ending(self) -> None:
        """A write is about to be committed: more may be written."""
        ...

    def kept(self) -> None:
        """The write is committed."""
        ...

    def undone(self) -> None:
        """The write never was."""
        ...


class Database:
    """A database, used by one thread. Every call raises `StateError` when it cannot be used.

    `watched` says that somebody else finds out when a database that was gone is `back`; till then nothing waits for it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: Connection | None = None
        self._writing = False
        self._witnesses: list[Witness] = []
        self._inserts: dict[tuple[Table, tuple[str, ...], bool], Insert] = {}
        self._noted: dict[tuple[str, str], None] = {}
        self._trouble, self._again = "", 0.0
        self.watched = False
        self.errors = 0
        """How many statements it did not carry out."""
        self.dialect = engine.dialect.name
        event.listen(engine, "begin", self._begun)

    @property
    def trouble(self) -> str:
        """Why the database cannot be used at this moment, in words; empty where it can."""
        return self._trouble

    def gone(self, why: str) -> None:
        """Take note that the database cannot be reached: calls fail at once until it is `back`."""
        self._trouble, self._again = why, inf

    def back(self) -> None:
        """Take note that the database can be reached: the next call tries it."""
        self._trouble, self._again = "", 0.0

    def add_witness(self, witness: Witness) -> None:
        """Tell `witness` of every write from here on; those that came first are told first."""
        self._witnesses.append(witness)

    def note(self, topic: str, *subjects: str) -> None:
        """Say, inside a write, what it changes: other controllers of the same database then read that again.

        `inventory`, say, and the names of workloads; a topic that needs none has the subject ``""``. That a table was
        written is noted by itself, as the topic `table:NAME`."""
        self._noted.update(dict.fromkeys((topic, subject) for subject in subjects or ("",)))

    @property
    def noted(self) -> tuple[tuple[str, str], ...]:
        """What the present write was said to change: topics and subjects."""
        return tuple(self._noted)

    @property
    def connection(self) -> Connection:
        """The connection of the write that is going on."""
        assert self._open is not None and self._writing
        return self._open

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Make the calls inside one write: all of them happen, or none; one inside another joins it."""
        if self._open is not None:
            yield
            return
        self._noted.clear()
        try:
            with self._session(writing=True):
                for one in self._witnesses:
                    one.begun()
                yield
                for one in self._witnesses:
                    one.ending()
        except BaseException:
            for one in self._witnesses:
                one.undone()
            raise
        for one in self._witnesses:
            one.kept()

    def rows(self, statement: Executable) -> Sequence[Row[Any]]:
        """Give all rows of a statement: of a query, or, inside a write, of any statement that returns some."""
        if self._open is not None:
            with self._talking():
                return self._open.execute(statement).all()
        with self._session(writing=False) as connection, self._talking(), self._at_once(connection):
            return connection.execute(statement).all()

    def run(self, statement: Executable, values: Sequence[Mapping[str, Any]] | None = None) -> int:
        """Run a statement that writes, once for each of `values` where those are given; how many rows it changed."""
        with self.transaction():
            table: Any = getattr(statement, "table", None)
            if isinstance(table, Table):
                self.note(f"table:{table.name}")
            with self._talking():
                return self.connection.execute(statement, values).rowcount

    def add(self, table: Table, *rows: Mapping[str, Any]) -> None:
        """Add rows that all have the same columns."""
        if rows:
            self._insert(table, rows, replaces=False)

    def put(self, table: Table, *rows: Mapping[str, Any]) -> None:
        """Add rows that all have the same columns, or replace those with the same primary keys."""
        if rows:
            self._insert(table, rows, replaces=True)

    def close(self) -> None:
        """Let go of the database. May be called twice."""
        self._engine.dispose()

    # --- within ---

    def _insert(self, table: Table, rows: Sequence[Mapping[str, Any]], *, replaces: bool) -> None:
        if self.dialect == "postgresql" and len(rows) > 1:
            self._insert_at_once(table, rows, replaces=replaces)
            return
        # A statement is dear to make, and there are few.
        key = table, tuple(rows[0]), replaces
        if key not in self._inserts:
            self._inserts[key] = self._insertion(table, rows[0], replaces=replaces)
        statement = self._inserts[key]
        self.run(statement, rows)

    def _insertion(self, table: Table, row: Mapping[str, Any], *, replaces: bool) -> Insert:
        statement = (postgresql if self.dialect == "postgresql" else sqlite).insert(table)
        if not replaces:
            return statement
        keys, rest = _columns(table, row)
        if not rest:
            return statement.on_conflict_do_nothing(index_elements=keys)
        return statement.on_conflict_do_update(
            index_elements=keys, set_={name: statement.excluded[name] for name in rest}
        )

    def _insert_at_once(self, table: Table, rows: Sequence[Mapping[str, Any]], *, replaces: bool) -> None:
        """Send many rows as one value: the driver takes a round trip for each row otherwise."""
        keys, rest = _columns(table, rows[0])
        if replaces:
            # One statement may not change a row twice: the last one given counts.
            rows = tuple({tuple(row[key] for key in keys): row for row in rows}.values())
        names = ", ".join(f'"{name}"' for name in rows[0])
        statement = (
            f'insert into "{table.name}" ({names}) select {names} '  # noqa: S608 - names of our own tables
            f'from json_populate_recordset(null::"{table.name}", cast(:rows as json))'
        )
        if replaces:
            change = ", ".join(f'"{name}" = excluded."{name}"' for name in rest)
            statement += f" on conflict ({', '.join(keys)}) do " + (f"update set {change}" if rest else "nothing")
        binary = {column.name for column in table.columns if isinstance(column.type, LargeBinary)}
        plain = [
            {name: _hexadecimal(value) if name in binary else value for name, value in row.items()} for row in rows
        ]
        with self.transaction():
            self.note(f"table:{table.name}")
            self.run(text(statement), [{"rows": dumps(plain)}])

    @contextmanager
    def _session(self, *, writing: bool) -> Generator[Connection]:
        if monotonic() < self._again:
            raise StateError(f"the store of the state: {self._trouble}")
        self._writing = writing
        with self._talking():
            # Of one query there is nothing to commit: PostgreSQL is not even asked to begin.
            begun = self._engine.begin() if writing or self.dialect == "sqlite" else self._engine.connect()
            self._open = begun.__enter__()
        try:
            yield self._open
        except BaseException as error:
            # Whatever becomes of the way back: what the database was not told to keep, it does not.
            with suppress(SQLAlchemyError, OSError):
                begun.__exit__(type(error), error, error.__traceback__)
            raise
        else:
            with self._talking():
                begun.__exit__(None, None, None)
            if self._trouble:
                self.back()
        finally:
            self._open = None

    @contextmanager
    def _at_once(self, connection: Connection) -> Generator[None]:
        """Let one query be all that a transaction has: PostgreSQL then takes one round trip for it, not three."""
        raw: Any = connection.connection.dbapi_connection
        if self.dialect == "sqlite" or raw is None:
            yield
            return
        raw.autocommit = True
        try:
            yield
        finally:
            raw.autocommit = False

    @contextmanager
    def _talking(self) -> Generator[None]:
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            raise self._state_error(error) from None

    def _begun(self, connection: Connection) -> None:
        if self.dialect == "sqlite":
            # The driver's own transactions begin too late; see SQLAlchemy, "Serializable isolation / Savepoints".
            connection.exec_driver_sql("begin immediate" if self._writing else "begin")
        elif self._writing:
            connection.exec_driver_sql(f"select pg_advisory_xact_lock({WRITE_LOCK})")

    def _state_error(self, error: SQLAlchemyError | OSError) -> StateError:
        self.errors += 1
        why = said(error)
        if self.dialect == "postgresql" and is_gone(error.orig if isinstance(error, DBAPIError) else error):
            self._trouble, self._again = why, inf if self.watched else monotonic() + AGAIN_S
            self._engine.dispose()
        return StateError(f"the store of the state: {why}")


def batched(names: Iterable[str], most: int = 1000) -> Iterator[list[str]]:
    """Give names in lists that one statement can take (PostgreSQL's protocol counts its values in 16 bits)."""
    left = list(names)
    for start in range(0, len(left), most):
        yield left[start : start + most]


def said(error: BaseException) -> str:
    """Give what a database said of what went wrong: one line without its own decoration."""
    found: Any = getattr(error, "orig", None) or error
    first: Any = found.args[0] if found.args else found
    if isinstance(first, dict):
        # How pg8000 hands on PostgreSQL's fields (PostgreSQL 15, 55.8): M is the message.
        words: str = str(dict[str, Any](first).get("M", first))  # pyright: ignore[reportUnknownArgumentType]
    else:
        words = str(first)
    return " ".join(words.split())[:200]


def is_gone(error: BaseException | None) -> bool:
    """Say whether an error of the driver of PostgreSQL means that the server or the way to it is gone."""
    first: Any = error.args[0] if error is not None and error.args else error
    if isinstance(first, dict):
        return str(dict[str, Any](first).get("C", "")).startswith(_GONE)  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(error, OSError) or type(error).__name__ == "InterfaceError"


def _columns(table: Table, row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    keys = [column.name for column in table.primary_key.columns]
    return keys, [name for name in row if name not in keys]


def _hexadecimal(value: bytes | None) -> str | None:
    # How PostgreSQL writes bytes as text (8.4.1).
    return None if value is None else f"\\x{value.hex()}"
