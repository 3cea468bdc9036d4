"""Batches of flows that are safe on disk and not yet in the tables, and the names of those that are.

    batches ──take──▶ waiting ──cut──▶ portion ──(one insert into the tables)──▶ done: only the names are kept

A part of the tables costs the same for ten rows as for ten thousand, so that many batches go in at once. A portion,
once cut, is always the same batches under the same name, which the tables know it by: whoever dies between the insert
and `done` repeats it, and it counts once. A batch is known by its own name, in the spool and for long after it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

PORTION_ROWS = 200_000
"""So many rows at most go into the tables at once, unless one batch alone has more."""
REMEMBERED, REMEMBERED_EACH = 10_000, 64
"""Of so many batches the names are kept whoever sent them, and of so many of each sender however long ago."""
TIDY_EVERY = 10_000

_SCHEMA = (
    "create table if not exists spool (id text not null)",
    "create table if not exists portions (number integer primary key autoincrement)",
    """create table if not exists waiting (place integer primary key, batch text not null unique, rows integer not null,
        portion integer, columns blob not null)""",
    """create table if not exists done (place integer primary key, batch text not null unique, sender text not null)""",
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as one writer sent them: their name, how many they are, and their columns as msgpack."""

    name: str
    rows: int
    columns: bytes


@dataclass(frozen=True, slots=True)
class Portion:
    """Batches that go into the tables together. `token` is the name by which the tables know an insert again."""

    number: int
    token: str
    columns: tuple[bytes, ...]


class Spool:
    """The spool in the file at `path`; whoever uses it from several threads lets in one at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=wal", "synchronous=full"):
            self._db.execute(f"pragma {pragma}")
        for statement in _SCHEMA:
            self._db.execute(statement)
        self._db.execute("insert into spool select ? where not exists (select 1 from spool)", (token_hex(8),))
        self._id = str(self._db.execute("select id from spool").fetchone()[0])
        self.rows = int(self._db.execute("select coalesce(sum(rows), 0) from waiting").fetchone()[0])
        self._untidy = 0

    def take(self, batches: Iterable[Batch]) -> None:
        """Keep batches, but those that were kept before; they are on disk when this returns."""
        fresh = 0
        with self._write():
            for one in batches:
                if self._db.execute("select 1 from done where batch = ?", (one.name,)).fetchone() is None:
                    added = self._db.execute(
                        "insert into waiting (batch, rows, columns) values (?, ?, ?) on conflict do nothing",
                        (one.name, one.rows, one.columns),
                    )
                    fresh += one.rows if added.rowcount > 0 else 0
        self.rows += fresh

    def cut(self) -> Portion | None:
        """Give the next portion that is to go into the tables, an unfinished one first; None where nothing waits."""
        found = self._db.execute("select number from portions order by number limit 1").fetchone()
        if found is None:
            if not self.rows:
                return None
            with self._write():
                found = self._db.execute("insert into portions default values returning number").fetchone()
                self._db.execute(
                    """update waiting set portion = ? where place in (select place from
                    (select place, sum(rows) over (order by place) - rows as before from waiting) where before < ?)""",
                    (found[0], PORTION_ROWS),
                )
        number = int(found[0])
        rows = self._db.execute("select columns from waiting where portion = ? order by place", (number,)).fetchall()
        return Portion(number, f"{self._id}/{number}", tuple(row[0] for row in rows))

    def done(self, portion: Portion) -> None:
        """Note that a portion is in the tables: of its batches only the names are kept."""
        with self._write():
            self._db.execute(
                """insert into done (batch, sender)
                select batch, substr(batch, 1, instr(batch || '/', '/') - 1) from waiting where portion = ?
                order by place""",
                (portion.number,),
            )
            gone = self._db.execute(
                "delete from waiting where portion = ? returning rows", (portion.number,)
            ).fetchall()
            self._db.execute("delete from portions where number = ?", (portion.number,))
            self._untidy += len(gone)
            if self._untidy >= TIDY_EVERY:
                self._untidy = 0
                self._tidy()
        self.rows -= sum(row[0] for row in gone)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _tidy(self) -> None:
        self._db.execute(
            """delete from done where place <= (select max(place) from done) - ? and place not in (select place from
            (select place, row_number() over (partition by sender order by place desc) as age from done) where age <= ?)
            """,
            (REMEMBERED, REMEMBERED_EACH),
        )

    def _write(self) -> _Write:
        return _Write(self._db)


class _Write:
    """One write: all of it, or nothing when an exception leaves the block."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("begin immediate")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("commit" if kind is None else "rollback")
