"""What the contracts of several stores share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgresql import programs, running

from cellwall.controller.store.sql import SqlState, open_state


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlState]:
    """Give an empty state, in SQLite and in PostgreSQL."""
    if request.param == "sqlite":
        made = open_state(tmp_path / "state.db")
        yield made
        made.close()
        return
    if programs() is None:
        pytest.skip("PostgreSQL is not installed; scripts/setup.sh does it")
    with running() as server:
        made = open_state(None, server.make())
        yield made
        made.close()
