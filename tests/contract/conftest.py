"""What the contracts of several stores share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwall.controller.store.sql import SqlState, open_state


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlState]:
    """Give an empty state, in SQLite and in PostgreSQL."""
    if request.param == "sqlite":
        made = open_state(tmp_path / "state.db")
    else:
        made = open_state(None, request.getfixturevalue("server").make())
    yield made
    made.close()
