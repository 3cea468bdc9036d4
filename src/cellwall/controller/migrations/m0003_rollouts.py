"""How revisions come into force, wave by wave, and who agreed to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; what came into force before went everywhere at once."""
    courses = op.create_table(
        "courses",
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("base", sa.Integer, nullable=False),
        sa.Column("waves", sa.JSON, nullable=False),
        sa.Column("settle_s", sa.Float, nullable=False),
        sa.Column("unexpected_denials", sa.Integer, nullable=False),
        sa.Column("on_failure", sa.Text, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("released", sa.Float, nullable=False),
        sa.Column("opened", sa.Float, nullable=False),
        sa.Column("well", sa.Float, nullable=False),
    )
    op.create_table(
        "consents",
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("agrees", sa.Boolean, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("revision", "person"),
    )
    made = op.get_bind().execute(sa.text("SELECT number, created FROM revisions")).all()
    op.bulk_insert(
        courses,
        [
            {
                "revision": number,
                "base": number - 1,
                "waves": ["all"],
                "settle_s": 0.0,
                "unexpected_denials": 0,
                "on_failure": "revert",
                "wave": 0,
                "released": created,
                "opened": created,
                "well": created,
            }
            for number, created in made
        ],
    )
