"""Orders of an emergency."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, empty."""
    op.create_table(
        "orders",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("source", sa.JSON, nullable=False),
        sa.Column("destination", sa.JSON, nullable=False),
        sa.Column("spans", sa.JSON, nullable=False),
        sa.Column("exempt", sa.JSON, nullable=False),
        sa.Column("begins", sa.Float, nullable=False),
        sa.Column("expires", sa.Float),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("given", sa.Float, nullable=False),
        sa.Column("over", sa.Float),
        sa.Column("ended_by", sa.Text, nullable=False),
    )
    op.create_index("orders_by_end", "orders", ["over"])
