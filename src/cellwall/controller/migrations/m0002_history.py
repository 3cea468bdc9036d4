"""What workloads were, from when on; and how the tests of the policy stood last."""

from __future__ import annotations

import json
from collections import defaultdict

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PRECEDENCE = ("declared", "imported", "accepted")
_CHANGES = ("enrol", "declare", "label", "addresses")


def upgrade() -> None:
    """Make the tables, and begin each workload's history with what it is since it last changed."""
    history = op.create_table(
        "history",
        sa.Column("place", sa.Integer, primary_key=True),
        sa.Column("workload", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("there", sa.Boolean, nullable=False),
        sa.Column("agent", sa.Boolean, nullable=False),
        sa.Column("epoch", sa.Float, nullable=False),
        sa.Column("addresses", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
    )
    op.create_index("history_by_workload", "history", ["workload", "at"])
    op.create_table(
        "test_outcomes",
        sa.Column("test", sa.Text, primary_key=True),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("counterexample", sa.Text, nullable=False),
    )
    connection = op.get_bind()
    rows = _histories(connection)
    if rows:
        op.bulk_insert(history, rows)
    if connection.dialect.name == "sqlite":
        for act in ("update", "delete"):
            op.execute(
                f"create trigger history_no_{act} before {act} on history "
                f"begin select raise(abort, 'history is for ever'); end"
            )


def _histories(connection: sa.Connection) -> list[dict[str, object]]:
    labels: dict[str, list[tuple[int, str, str, float]]] = defaultdict(list)
    for one in connection.execute(sa.text("select workload, key, source, value, at from labels")):
        labels[one.workload].append((_PRECEDENCE.index(one.source), one.key, one.value, one.at))
    acts = sa.text("select subject, max(at) as at from audit where action in :acts group by subject")
    acts = acts.bindparams(sa.bindparam("acts", _CHANGES, expanding=True))
    changed = {one.subject: one.at for one in connection.execute(acts)}
    found: list[dict[str, object]] = []
    for one in connection.execute(sa.text("select name, agent, epoch, addresses from workloads order by name")):
        own = sorted(labels[one.name], reverse=True)
        found.append(
            {
                "workload": one.name,
                "at": max(one.epoch, changed.get(one.name, 0.0), *(at for *_, at in own), 0.0),
                "there": True,
                "agent": bool(one.agent),
                "epoch": one.epoch,
                "addresses": json.loads(one.addresses),
                "labels": {key: value for _, key, value, _ in own},
            }
        )
    return found


def downgrade() -> None:
    """Refuse: a history is not thrown away."""
    raise NotImplementedError
