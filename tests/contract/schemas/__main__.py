"""Write a database of the newest schema, with rows in it, beside the ones of earlier versions: once for a release.

It is the last one that was written, migrated; whoever adds a table adds a row to it by hand, in the file."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from sqlalchemy import create_engine

from cellwall.controller.store.migrate import migrate, newest

FOLDER = Path(__file__).parent


def main() -> None:
    """Write it, unless it is there."""
    target = FOLDER / f"{newest()}.sql"
    if target.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        with sqlite3.connect(path) as database:
            database.executescript(max(FOLDER.glob("*.sql")).read_text("utf-8"))
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            migrate(connection)
        engine.dispose()
        with sqlite3.connect(path) as database:
            target.write_text("\n".join(database.iterdump()) + "\n", "utf-8")


if __name__ == "__main__":
    main()
