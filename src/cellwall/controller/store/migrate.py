"""Bring the tables of a database to the newest migration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from cellwall.controller import migrations


def migrate(connection: Connection, to: str = "head") -> None:
    """Run the migrations up to `to` that `connection` has not seen, inside its transaction.

    Alembic's own environment file is not used: this function is all there is to it, and it runs at every start.
    """
    script = _script()

    def steps(revision: Any, context: MigrationContext) -> Any:
        # Alembic keeps this function behind an underscore, for its own environment file to call.
        return script._upgrade_revs(to, revision)  # pyright: ignore[reportPrivateUsage]

    context = MigrationContext.configure(connection, opts={"fn": steps, "script": script})
    with Operations.context(context):
        context.run_migrations()


def newest() -> str:
    """Give the newest migration that there is."""
    return str(_script().get_current_head())


def _script() -> ScriptDirectory:
    folder = Path(migrations.__path__[0])
    return ScriptDirectory(str(folder), version_locations=[str(folder)], messaging_opts=Config().messaging_opts)
