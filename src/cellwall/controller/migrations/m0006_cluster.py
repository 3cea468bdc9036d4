"""Several controllers on one database; and PostgreSQL, too, keeps for ever what is for ever."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_FOR_EVER = ("audit", "revisions", "history")


def upgrade() -> None:
    """Make the tables; and the triggers that the first migrations made on SQLite only."""
    op.create_table(
        "controllers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("urls", sa.JSON, nullable=False),
        sa.Column("listeners", sa.JSON, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("began", sa.Float, nullable=False),
        sa.Column("seen", sa.Float, nullable=False),
    )
    op.create_table(
        "presence",
        sa.Column("workload", sa.Text, primary_key=True),
        sa.Column("controller", sa.Text, nullable=False, index=True),
    )
    op.create_table(
        "changes",
        sa.Column("place", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("at", sa.Float, nullable=False, index=True),
        sa.Column("controller", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
    )
    op.create_table(
        "questions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("asker", sa.Text, nullable=False),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("workload", sa.Text, nullable=False),
        sa.Column("question", sa.LargeBinary, nullable=False),
        sa.Column("answer", sa.LargeBinary),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.JSON, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "create function cellwall_for_ever() returns trigger language plpgsql as "
            "$$ begin raise exception '% is for ever', tg_table_name; end $$"
        )
        for table in _FOR_EVER:
            op.execute(
                f"create trigger {table}_for_ever before update or delete or truncate on {table} "
                f"for each statement execute function cellwall_for_ever()"
            )


def downgrade() -> None:
    """Refuse: other controllers may use them."""
    raise NotImplementedError
