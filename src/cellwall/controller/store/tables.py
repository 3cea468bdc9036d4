"""The tables of the controller's state, as the newest migration leaves them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

METADATA = MetaData()

workloads = Table(
    "workloads",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("agent", Boolean, nullable=False),
    Column("addresses", JSON, nullable=False),
    Column("epoch", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Column("version", Text, nullable=False),
)
labels = Table(
    "labels",
    METADATA,
    Column("workload", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("at", Float, nullable=False),
    PrimaryKeyConstraint("workload", "key", "source"),
)
facts = Table(
    "facts",
    METADATA,
    Column("workload", Text, primary_key=True),
    Column("facts", LargeBinary, nullable=False),
    Column("at", Float, nullable=False),
)
tokens = Table(
    "tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("labels", JSON, nullable=False),
    Column("workload", Text),
    Column("uses", Integer, nullable=False),
    Column("used", Integer, nullable=False),
    Column("expires", Float, nullable=False),
    Column("created", Float, nullable=False),
    Column("author", Text, nullable=False),
)
token_uses = Table(
    "token_uses",
    METADATA,
    Column("token", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("workload", Text, nullable=False),
    Column("at", Float, nullable=False),
    PrimaryKeyConstraint("token", "key", "workload"),
)
certificates = Table(
    "certificates",
    METADATA,
    Column("serial", Text, primary_key=True),
    Column("workload", Text, nullable=False, index=True),
    Column("key", Text, nullable=False),
    Column("issued", Float, nullable=False),
    Column("ends", Float, nullable=False),
    Column("revoked", Boolean, nullable=False),
)
revisions = Table(
    "revisions",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("author", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("documents", JSON, nullable=False),
    Column("plan", JSON, nullable=False),
    Column("confirm_s", Float, nullable=False),
    Column("reverts_to", Integer),
)
progress = Table(
    "progress",
    METADATA,
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
)
points = Table(
    "points",
    METADATA,
    Column("workload", Text, primary_key=True),
    Column("standing", LargeBinary, nullable=False),
)
receipts = Table(
    "receipts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("workload", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("receipt", LargeBinary, nullable=False),
    Index("receipts_by_workload", "workload", "at"),
)
denials = Table(
    "denials",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False, index=True),
    Column("reporter", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("protocol", Integer, nullable=False),
    Column("port", Integer, nullable=False),
    Column("side", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("process", Text, nullable=False),
)
audit = Table(
    "audit",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("author", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", JSON, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
)
history = Table(
    "history",
    METADATA,
    Column("place", Integer, primary_key=True),
    Column("workload", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("there", Boolean, nullable=False),
    Column("agent", Boolean, nullable=False),
    Column("epoch", Float, nullable=False),
    Column("addresses", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Index("history_by_workload", "workload", "at"),
)
test_outcomes = Table(
    "test_outcomes",
    METADATA,
    Column("test", Text, primary_key=True),
    Column("passed", Boolean, nullable=False),
    Column("since", Float, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("counterexample", Text, nullable=False),
)
OF_WORKLOAD = (labels, facts, points)
"""Tables whose rows go when their workload goes."""
