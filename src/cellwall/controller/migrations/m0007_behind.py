"""Which points stay behind a revision, as it is tolerated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column: until here nobody was let stay behind."""
    op.add_column("courses", sa.Column("behind", sa.JSON, nullable=False, server_default=sa.text("'[]'")))
