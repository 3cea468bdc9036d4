"""A database of every released schema is taken over with all that it holds, where it is and into PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, select

from cellwall.controller.store.backup import OF_THE_MOMENT, restore_backup, take_backup
from cellwall.controller.store.migrate import newest
from cellwall.controller.store.orders import OrderStore
from cellwall.controller.store.people import PeopleStore
from cellwall.controller.store.rollouts import RolloutStore
from cellwall.controller.store.sql import SqlState, open_state
from cellwall.controller.store.state import WorkloadRow, broken_link
from cellwall.labels import Labels
from cellwall.policy import OrderKind
from cellwall.traffic import parse_address, parse_ports
from cellwall.wire import Holding, PointState

SCHEMAS = Path(__file__).parent / "schemas"
RELEASED = sorted(path.stem for path in SCHEMAS.glob("*.sql"))
Rows = dict[str, list[dict[str, Any]]]


def old(folder: Path, schema: str) -> tuple[Path, Rows]:
    """Make a database of a released schema, and give all that is in it."""
    path = folder / "state.db"
    folder.mkdir()
    with sqlite3.connect(path) as database:
        database.executescript((SCHEMAS / f"{schema}.sql").read_text("utf-8"))
        database.row_factory = sqlite3.Row
        tables = [row["name"] for row in database.execute("select name from sqlite_master where type = 'table'")]
        rows = {name: _read(database, name) for name in tables if name != "alembic_version"}
    database.close()
    return path, rows


def _read(database: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    in_json = {row["name"] for row in database.execute(f"pragma table_info({table})") if row["type"] == "JSON"}
    return [
        {name: json.loads(value) if name in in_json else value for name, value in dict(row).items()}
        for row in database.execute(f"select * from {table}")
    ]


def lost(before: Rows, store: SqlState) -> list[tuple[str, dict[str, Any]]]:
    """Give the rows that were there before and are not any more, column by column."""
    known = MetaData()
    with store.transaction():
        known.reflect(store.database.connection)
    gone: list[tuple[str, dict[str, Any]]] = []
    for table, rows in before.items():
        with store.transaction():
            there = store.database.connection.execute(select(known.tables[table])).mappings().all()
        gone += [
            (table, row)
            for row in rows
            if not any(all(one.get(name, ...) == value for name, value in row.items()) for one in there)
        ]
    return gone


def test_the_released_schemas_are_here() -> None:
    assert RELEASED[:3] == ["0001", "0002", "0006"]
    assert RELEASED[-1] <= newest()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize("schema", RELEASED)
def test_a_released_schema_is_taken_over_and_nothing_is_lost(
    schema: str, engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path, before = old(tmp_path / "old", schema)
    assert all(before.values()), "every table of a released schema has rows to lose"
    url = ""
    if engine == "postgresql":
        url = request.getfixturevalue("server").make()
        take_backup(tmp_path / "backup", path.parent, "", None, "1", 9.0, keys=False)
        restore_backup(tmp_path / "backup", tmp_path / "new", url, None)
        before = {table: rows for table, rows in before.items() if table not in OF_THE_MOMENT}
    store = open_state(path, url)
    assert lost(before, store) == []
    # And it means the same.
    addresses = (parse_address("10.0.0.1"), parse_address("2001:db8::2"))
    assert store.workload("web-1") == WorkloadRow("web-1", True, addresses, 5.0, 6.0, "0.1.0")
    assert {one.name: one.labels for one in store.inventory()} == {
        "plc-7": Labels({"role": "plc"}),
        "web-1": Labels({"app": "shop"}),
    }
    assert [one.at for one in store.history("web-1")] == [8.0]
    (standing,) = store.standings()
    assert (standing.issued.generation, standing.state) == (4, PointState.REVERTED)
    assert standing.holding == Holding(generation=3, revision=1, digest="bb")
    assert store.certificate("1f") is not None and store.certificate("1e") is None
    course = RolloutStore(store.database).newest()
    assert course is not None and (course.revision, course.last) == (2, True)
    if schema >= "0006":
        (order,) = OrderStore(store.database).standing()
        assert (order.order.kind, order.order.ports, order.over) == (OrderKind.CONTAIN, parse_ports("tcp/445"), None)
        assert [one.name for one in PeopleStore(store.database).accounts()] == ["eve"]
    store.record(99.0, "ann", "label", "web-1")
    assert broken_link(reversed(store.audit(100))) is None
    assert len(store.audit(100)) == len(before["audit"]) + 1
    store.close()
    open_state(path, url).close()
