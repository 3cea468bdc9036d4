"""How revisions come into force and who agreed to them, in the state's database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Float, Integer, PrimaryKeyConstraint, Row, Table, Text, select, text

from cellwall.controller.store.database import Database
from cellwall.controller.store.tables import METADATA
from cellwall.controller.tolerance import Behind
from cellwall.policy import OnFailure, Wave, parse_waves


@dataclass(frozen=True, slots=True)
class Course:
    """The course that a revision takes: through `waves`, of which those to number `wave` are open.

    Points in no open wave hold revision `base`. `released` is when it began to come into force, `opened` when its
    last wave was opened, and `well` since when that is in force at all its points; 0 where it is not yet. Points that
    are `behind` are in an open wave and hold the base all the same: they did not take the revision."""

    revision: int
    base: int
    waves: tuple[Wave, ...]
    settle_s: float
    unexpected_denials: int
    on_failure: OnFailure
    wave: int
    released: float
    opened: float
    well: float = 0.0
    behind: tuple[Behind, ...] = ()

    @property
    def last(self) -> bool:
        """Whether all waves are open."""
        return self.wave >= len(self.waves) - 1


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person said to a proposed revision."""

    revision: int
    person: str
    agrees: bool
    note: str
    at: float


courses = Table(
    "courses",
    METADATA,
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("base", Integer, nullable=False),
    Column("waves", JSON, nullable=False),
    Column("settle_s", Float, nullable=False),
    Column("unexpected_denials", Integer, nullable=False),
    Column("on_failure", Text, nullable=False),
    Column("wave", Integer, nullable=False),
    Column("released", Float, nullable=False),
    Column("opened", Float, nullable=False),
    Column("well", Float, nullable=False),
    Column("behind", JSON, nullable=False, server_default=text("'[]'")),
)
consents = Table(
    "consents",
    METADATA,
    Column("revision", Integer, nullable=False),
    Column("person", Text, nullable=False),
    Column("agrees", Boolean, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", Float, nullable=False),
    PrimaryKeyConstraint("revision", "person"),
)


class RolloutStore:
    """Keeps courses and consents. Every call raises `StateError` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def course(self, revision: int) -> Course | None:
        """Give the course of a revision; None where it never began to come into force."""
        rows = self._database.rows(select(courses).where(courses.c.revision == revision))
        return _course(rows[0]) if rows else None

    def newest(self) -> Course | None:
        """Give the course of the revision that began to come into force last."""
        rows = self._database.rows(select(courses).order_by(courses.c.revision.desc()).limit(1))
        return _course(rows[0]) if rows else None

    def released(self, until: float) -> int:
        """Give the revision that began to come into force last, at `until` at the latest; 0 where none did."""
        query = select(courses.c.revision).where(courses.c.released <= until)
        rows = self._database.rows(query.order_by(courses.c.revision.desc()).limit(1))
        return rows[0].revision if rows else 0

    def put_course(self, course: Course) -> None:
        """Keep how far a revision has come on its course."""
        self._database.put(
            courses,
            {
                "revision": course.revision,
                "base": course.base,
                "waves": [wave.name for wave in course.waves],
                "settle_s": course.settle_s,
                "unexpected_denials": course.unexpected_denials,
                "on_failure": course.on_failure.value,
                "wave": course.wave,
                "released": course.released,
                "opened": course.opened,
                "well": course.well,
                "behind": [[one.workload, one.state, one.reason, one.epoch] for one in course.behind],
            },
        )

    def consents(self, revision: int) -> tuple[Consent, ...]:
        """Give what was said to a proposed revision, in order of time."""
        query = select(consents).where(consents.c.revision == revision).order_by(consents.c.at, consents.c.person)
        return tuple(
            Consent(row.revision, row.person, row.agrees, row.note, row.at) for row in self._database.rows(query)
        )

    def put_consent(self, consent: Consent) -> None:
        """Keep what a person says, in place of what they said before."""
        self._database.put(
            consents,
            {
                "revision": consent.revision,
                "person": consent.person,
                "agrees": consent.agrees,
                "note": consent.note,
                "at": consent.at,
            },
        )


def _course(row: Row[Any]) -> Course:
    return Course(
        row.revision,
        row.base,
        parse_waves(row.waves),
        row.settle_s,
        row.unexpected_denials,
        OnFailure(row.on_failure),
        row.wave,
        row.released,
        row.opened,
        row.well,
        tuple(Behind(*one) for one in row.behind),
    )
