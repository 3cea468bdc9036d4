"""What controllers that share a database tell each other through it: who is there, who has which agent, what changed.

    a write ── note(topic, subject) ──▶ changes: one row each, in order of commit ──▶ read by the others, from where
                                             └── NOTIFY: look now                      each has read last

INVARIANT: changes are numbered inside the one write that goes on, so that whoever has read up to a number has missed
none below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Integer,
    LargeBinary,
    Row,
    Table,
    Text,
    delete,
    func,
    select,
    text,
    update,
)

from cellwall.controller.store.database import Database, batched
from cellwall.controller.store.tables import METADATA
from cellwall.inventory import Listener
from cellwall.traffic import parse_address

CHANNEL = "cellwall"
"""PostgreSQL's channel on which a write says that there are changes to read."""

controllers = Table(
    "controllers",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("urls", JSON, nullable=False),
    Column("listeners", JSON, nullable=False),
    Column("version", Text, nullable=False),
    Column("began", Float, nullable=False),
    Column("seen", Float, nullable=False),
)
presence = Table(
    "presence",
    METADATA,
    Column("workload", Text, primary_key=True),
    Column("controller", Text, nullable=False, index=True),
)
changes = Table(
    "changes",
    METADATA,
    Column("place", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Float, nullable=False, index=True),
    Column("controller", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("subject", Text, nullable=False),
)
questions = Table(
    "questions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("at", Float, nullable=False),
    Column("asker", Text, nullable=False),
    Column("asked", Text, nullable=False),
    Column("workload", Text, nullable=False),
    Column("question", LargeBinary, nullable=False),
    Column("answer", LargeBinary),
)
settings = Table(
    "settings",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", JSON, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A controller of this database: where agents reach it, and when it was last seen (seconds since the epoch).

    `seen` is by the database's clock where that is PostgreSQL's."""

    name: str
    urls: tuple[str, ...]
    listeners: tuple[Listener, ...]
    version: str
    began: float
    seen: float


@dataclass(frozen=True, slots=True)
class Changed:
    """One change that a controller made, by its number."""

    place: int
    controller: str
    topic: str
    subject: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question to the agent of a workload, which is connected to the controller that is asked: both as msgpack."""

    id: str
    at: float
    asker: str
    asked: str
    workload: str
    question: bytes
    answer: bytes | None = None


class ClusterStore:
    """Keeps it. Every call raises `StateError` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # --- settings of them all ---

    def setting(self, name: str) -> Any:
        """Give a setting; None where it was never made."""
        rows = self.database.rows(select(settings.c.value).where(settings.c.name == name))
        return rows[0].value if rows else None

    def put_setting(self, name: str, value: object) -> None:
        """Make a setting."""
        self.database.put(settings, {"name": name, "value": value})

    def drop_setting(self, name: str) -> None:
        """Take a setting back."""
        self.database.run(delete(settings).where(settings.c.name == name))

    # --- controllers ---

    def peers(self) -> tuple[Peer, ...]:
        """Give all controllers, in order of name."""
        return tuple(sorted((_peer(row) for row in self.database.rows(select(controllers))), key=lambda one: one.name))

    def put_peer(self, peer: Peer) -> None:
        """Say who we are."""
        row = {
            "name": peer.name,
            "urls": list(peer.urls),
            "listeners": [[str(one.address), one.port] for one in peer.listeners],
            "version": peer.version,
            "began": peer.began,
            "seen": peer.seen,
        }
        self.database.put(controllers, row)

    def drop_peer(self, name: str) -> bool:
        """Forget a controller; whether it was known."""
        return self.database.run(delete(controllers).where(controllers.c.name == name)) > 0

    def clock(self) -> float | None:
        """Say what time the database has, in seconds since the epoch; None for SQLite, which has none of its own."""
        if self.database.dialect != "postgresql":
            return None
        found = self.database.rows(text("select extract(epoch from clock_timestamp())::double precision"))
        return float(found[0][0])

    # --- who has which agent ---

    def present(self, workloads: Iterable[str] | None = None) -> Mapping[str, str]:
        """Say to which controller the agents of workloads are connected; who is connected to none is left out."""
        whole = select(presence)
        queries = (
            [whole]
            if workloads is None
            else [whole.where(presence.c.workload.in_(some)) for some in batched(workloads)]
        )
        return {row.workload: row.controller for query in queries for row in self.database.rows(query)}

    def arrive(self, workloads: Iterable[str], controller: str) -> None:
        """Say that agents are connected to a controller: the newest connection counts."""
        self.database.put(presence, *({"workload": name, "controller": controller} for name in workloads))

    def leave(self, workloads: Iterable[str], controller: str) -> None:
        """Say that agents are connected to a controller no longer, unless they are to another already."""
        with self.database.transaction():
            for some in batched(workloads):
                there = presence.c.workload.in_(some) & (presence.c.controller == controller)
                self.database.run(delete(presence).where(there))

    def abandon(self, gone: Iterable[str]) -> tuple[str, ...]:
        """Take away all agents of controllers that are gone; whose those were."""
        there = presence.c.controller.in_(list(gone))
        with self.database.transaction():
            found = tuple(row[0] for row in self.database.rows(select(presence.c.workload).where(there)))
            if found:
                self.database.run(delete(presence).where(there))
        return found

    # --- changes ---

    def add_changes(self, controller: str, noted: Iterable[tuple[str, str]], at: float) -> None:
        """Keep what a write changed, and wake whoever listens."""
        rows = [{"at": at, "controller": controller, "topic": topic, "subject": subject} for topic, subject in noted]
        self.database.add(changes, *rows)
        if self.database.dialect == "postgresql":
            self.database.run(select(func.pg_notify(CHANNEL, controller)))

    def last_change(self) -> int:
        """Give the number of the last change; 0 where there is none."""
        return int(self.database.rows(select(func.max(changes.c.place)))[0][0] or 0)

    def changes_after(self, place: int, but: str) -> tuple[int, Sequence[Changed], bool]:
        """Give the number of the last change; those after `place`, in order, that are not one controller's own; and
        whether none in between was forgotten."""
        c = changes.c
        there = select(func.count()).where(c.place == place).scalar_subquery()
        row = self.database.rows(select(func.max(c.place).label("last"), there.label("known")))[0]
        last, whole = int(row.last or 0), place == 0 or bool(row.known)
        if last <= place:
            return last, (), whole
        query = select(c.place, c.controller, c.topic, c.subject).where(c.place > place, c.place <= last)
        found = self.database.rows(query.where(c.controller != but).order_by(c.place))
        return last, [Changed(*row) for row in found], whole

    def prune(self, before: float) -> None:
        """Forget changes from before a moment, but the last one; and questions that nobody waits for any longer."""
        with self.database.transaction():
            last = self.last_change()
            self.database.run(delete(changes).where(changes.c.at < before, changes.c.place < last))
            self.database.run(delete(questions).where(questions.c.at < before))

    # --- questions to agents of others ---

    def put_question(self, question: Question) -> None:
        """Ask."""
        row = {
            "id": question.id,
            "at": question.at,
            "asker": question.asker,
            "asked": question.asked,
            "workload": question.workload,
            "question": question.question,
            "answer": None,
        }
        self.database.add(questions, row)

    def questions_to(self, controller: str) -> tuple[Question, ...]:
        """Give the questions that a controller is asked and has not answered."""
        query = select(questions).where(questions.c.asked == controller, questions.c.answer.is_(None))
        return tuple(Question(*row) for row in self.database.rows(query))

    def answer(self, question: str, answer: bytes) -> None:
        """Answer a question, if it is there still."""
        self.database.run(update(questions).where(questions.c.id == question).values(answer=answer))

    def take_answers(self, ids: Iterable[str]) -> Mapping[str, bytes]:
        """Give the answers that are there to questions, which then are over."""
        there = questions.c.id.in_(list(ids)) & questions.c.answer.is_not(None)
        with self.database.transaction():
            found = {row.id: row.answer for row in self.database.rows(select(questions).where(there))}
            if found:
                self.database.run(delete(questions).where(questions.c.id.in_(list(found))))
        return found

    def drop_question(self, question: str) -> None:
        """Wait for an answer no longer."""
        self.database.run(delete(questions).where(questions.c.id == question))


def _peer(row: Row[Any]) -> Peer:
    listeners = tuple(Listener(parse_address(address), port) for address, port in row.listeners)
    return Peer(row.name, tuple(row.urls), listeners, row.version, row.began, row.seen)
