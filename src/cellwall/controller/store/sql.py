"""The controller's state in an SQL database."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Row, delete, func, select, update

from cellwall.compile import Misfit
from cellwall.controller.core import Standing
from cellwall.controller.store import tables as t
from cellwall.controller.store.asked import with_asked
from cellwall.controller.store.database import Database, batched
from cellwall.controller.store.engines import open_postgresql, open_sqlite
from cellwall.controller.store.migrate import migrate
from cellwall.controller.store.roster import Roster
from cellwall.controller.store.state import (
    AuditEntry,
    CertificateRow,
    DenialRow,
    LabelRow,
    LabelSource,
    PastRow,
    Progress,
    Revision,
    RevisionState,
    TestOutcome,
    TokenRow,
    WorkloadRow,
    audit_entry,
)
from cellwall.inventory import Workload
from cellwall.labels import Labels
from cellwall.traffic import Address, parse_address
from cellwall.wire import Facts, Holding, PointState, Receipt


class _Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a `Standing`."""

    issued: Holding
    holding: Holding
    state: PointState | None
    reason: str
    misfits: tuple[tuple[str, str], ...]
    at: float
    spurned: Holding
    seen: float


class SqlState:
    """The state in an SQL database; see `StateStore` for what each call does."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._roster = Roster((), ())
        self._at = 0.0
        with database.transaction():
            migrate(database.connection)
        self._read_roster()
        database.add_witness(self)

    def transaction(self) -> AbstractContextManager[None]:
        """Make the calls inside one write; one inside another joins it."""
        return self.database.transaction()

    def _read_roster(self) -> None:
        rows = [_workload(row) for row in self.database.rows(select(t.workloads))]
        self._roster = Roster(rows, [_label(row) for row in self.database.rows(select(t.labels))])

    # --- what a witness of the database does: the roster holds what the tables hold ---

    def begun(self) -> None:
        """Begin to gather what changes."""
        self._at = 0.0

    def ending(self) -> None:
        """Append to the history what is other than before this write."""
        changed = [(self._at, name, workload) for name, workload in self._roster.changed()]
        self.database.add(t.history, *(_history(*one) for one in changed))
        if touched := self._roster.touched():
            self.database.note("inventory", *touched)

    def kept(self) -> None:
        """Keep the roster as it is."""
        self._roster.keep()

    def undone(self) -> None:
        """Put back what was before."""
        self._roster.undo()

    def refresh(self, names: Iterable[str] | None) -> None:
        """Read workloads again that another controller wrote; None is all of them."""
        if names is None:
            self._read_roster()
            return
        for some in batched(names):
            w, c = t.workloads.c, t.labels.c
            rows = {row.name: _workload(row) for row in self.database.rows(select(t.workloads).where(w.name.in_(some)))}
            labels: dict[str, list[LabelRow]] = {name: [] for name in some}
            for row in self.database.rows(select(t.labels).where(c.workload.in_(some))):
                labels[row.workload].append(_label(row))
            for name in some:
                self._roster.take(name, rows.get(name), labels[name])

    # --- workloads ---

    def workloads(self) -> tuple[WorkloadRow, ...]:
        """Give all workloads."""
        return self._roster.rows()

    def workload(self, name: str) -> WorkloadRow | None:
        """Give one workload."""
        return self._roster.row(name)

    def having(self, address: Address) -> tuple[WorkloadRow, ...]:
        """Give the workloads that have an address."""
        return self._roster.having(address)

    def inventory(self) -> tuple[Workload, ...]:
        """Give all workloads with the labels that hold."""
        return self._roster.inventory()

    def put_workload(self, row: WorkloadRow, at: float) -> None:
        """Add or replace a workload."""
        with self._changing(at):
            self.database.put(
                t.workloads,
                {
                    "name": row.name,
                    "agent": row.agent,
                    "addresses": [str(address) for address in row.addresses],
                    "epoch": row.epoch,
                    "seen": row.seen,
                    "version": row.version,
                },
            )
            self._roster.put(row)

    def drop_workload(self, name: str, at: float) -> None:
        """Forget a workload."""
        with self._changing(at):
            self.database.run(delete(t.workloads).where(t.workloads.c.name == name))
            for table in t.OF_WORKLOAD:
                self.database.run(delete(table).where(table.c.workload == name))
            self.revoke(name)
            self._roster.drop(name)

    def labels(self, workload: str | None = None) -> tuple[LabelRow, ...]:
        """Give all labels, or those of one workload."""
        return self._roster.labels(workload)

    def put_label(self, row: LabelRow) -> None:
        """Set a label."""
        with self._changing(row.at):
            self.database.put(
                t.labels,
                {
                    "workload": row.workload,
                    "key": row.key,
                    "source": row.source.value,
                    "value": row.value,
                    "author": row.author,
                    "at": row.at,
                },
            )
            self._roster.put_label(row)

    def drop_label(self, workload: str, key: str, at: float) -> None:
        """Remove a label."""
        with self._changing(at):
            self.database.run(delete(t.labels).where(t.labels.c.workload == workload, t.labels.c.key == key))
            self._roster.drop_label(workload, key)

    def past(self, moment: float) -> tuple[PastRow, ...]:
        """Give what every workload was at a moment."""
        h = t.history.c
        last = select(func.max(h.place)).where(h.at <= moment).group_by(h.workload)
        # Sorted here: databases have orders of text of their own.
        found = [_past(row) for row in self.database.rows(select(t.history).where(h.place.in_(last)))]
        return tuple(sorted(found, key=lambda one: one.workload.name))

    def history(self, workload: str) -> tuple[PastRow, ...]:
        """Give all that a workload ever was."""
        h = t.history.c
        return tuple(
            _past(row) for row in self.database.rows(select(t.history).where(h.workload == workload).order_by(h.place))
        )

    def put_facts(self, workload: str, facts: Facts, at: float) -> None:
        """Keep facts."""
        self.database.put(t.facts, {"workload": workload, "facts": msgspec.msgpack.encode(facts), "at": at})

    def facts(self) -> Mapping[str, tuple[Facts, float]]:
        """Give all facts."""
        return {
            row.workload: (msgspec.msgpack.decode(row.facts, type=Facts), row.at)
            for row in self.database.rows(select(t.facts))
        }

    def facts_of(self, workload: str) -> tuple[Facts, float] | None:
        """Give the facts of one workload."""
        rows = self.database.rows(select(t.facts).where(t.facts.c.workload == workload))
        return (msgspec.msgpack.decode(rows[0].facts, type=Facts), rows[0].at) if rows else None

    # --- enrolment ---

    def add_token(self, row: TokenRow) -> None:
        """Keep a token."""
        self.database.add(
            t.tokens,
            {
                "id": row.id,
                "digest": row.digest,
                "labels": dict(row.labels),
                "workload": row.workload,
                "uses": row.uses,
                "used": row.used,
                "expires": row.expires,
                "created": row.created,
                "author": row.author,
            },
        )

    def tokens(self) -> tuple[TokenRow, ...]:
        """Give all tokens."""
        return tuple(_token(row) for row in self.database.rows(select(t.tokens).order_by(t.tokens.c.created.desc())))

    def token(self, digest: str) -> TokenRow | None:
        """Give a token."""
        rows = self.database.rows(select(t.tokens).where(t.tokens.c.digest == digest))
        return _token(rows[0]) if rows else None

    def use_token(self, token: str, key: str, workload: str, at: float) -> bool:
        """Use a token up by one."""
        with self.transaction():
            uses = t.token_uses.c
            if self.database.rows(
                select(uses.at).where(uses.token == token, uses.key == key, uses.workload == workload)
            ):
                return True
            free = (t.tokens.c.id == token) & (t.tokens.c.used < t.tokens.c.uses)
            if not self.database.rows(
                update(t.tokens).where(free).values(used=t.tokens.c.used + 1).returning(t.tokens.c.id)
            ):
                return False
            self.database.add(t.token_uses, {"token": token, "key": key, "workload": workload, "at": at})
            return True

    def end_token(self, token: str, at: float) -> bool:
        """Let a token end."""
        lasting = (t.tokens.c.id == token) & (t.tokens.c.expires > at)
        return self.database.run(update(t.tokens).where(lasting).values(expires=at)) > 0

    def add_certificate(self, row: CertificateRow) -> None:
        """Keep a certificate."""
        self.database.add(t.certificates, {**asdict(row), "revoked": False})

    def certificate(self, serial: str) -> CertificateRow | None:
        """Give a certificate that holds."""
        c = t.certificates.c
        rows = self.database.rows(select(t.certificates).where(c.serial == serial, c.revoked.is_(False)))
        return (
            CertificateRow(rows[0].serial, rows[0].workload, rows[0].key, rows[0].issued, rows[0].ends)
            if rows
            else None
        )

    def certified(self) -> Mapping[str, str]:
        """Give the workload of every certificate that holds."""
        c = t.certificates.c
        rows = self.database.rows(select(c.serial, c.workload).where(c.revoked.is_(False)))
        return {str(row.serial): str(row.workload) for row in rows}

    def revoke(self, workload: str) -> None:
        """Revoke all certificates of a workload."""
        with self.transaction():
            self.database.run(update(t.certificates).where(t.certificates.c.workload == workload).values(revoked=True))
            self.database.note("revoked", workload)

    # --- policy ---

    def revisions(self) -> tuple[Revision, ...]:
        """Give all revisions in short."""
        c = t.revisions.c
        short = select(c.number, c.author, c.note, c.created, c.confirm_s, c.reverts_to).order_by(c.number.desc())
        return tuple(
            Revision(row.number, row.author, row.note, row.created, {}, {}, row.confirm_s, row.reverts_to)
            for row in self.database.rows(short)
        )

    def revision(self, number: int) -> Revision | None:
        """Give one revision."""
        rows = self.database.rows(select(t.revisions).where(t.revisions.c.number == number))
        if not rows:
            return None
        row = rows[0]
        return Revision(
            row.number, row.author, row.note, row.created, row.documents, row.plan, row.confirm_s, row.reverts_to
        )

    def add_revision(self, revision: Revision) -> None:
        """Keep a new revision."""
        # Not `asdict`: it copies a plan of thousands of points leaf by leaf.
        row = {one.name: getattr(revision, one.name) for one in fields(revision)}
        self.database.add(t.revisions, {**row, "documents": dict(revision.documents)})

    def progress(self) -> Mapping[int, Progress]:
        """Give how far every revision has come."""
        return {
            row.revision: Progress(row.revision, RevisionState(row.state), row.reason, row.at)
            for row in self.database.rows(select(t.progress))
        }

    def put_progress(self, progress: Progress) -> None:
        """Keep how far a revision has come."""
        self.database.put(t.progress, {**asdict(progress), "state": progress.state.value})

    def test_outcomes(self) -> Mapping[str, TestOutcome]:
        """Give how the tests stood last."""
        return {
            row.test: TestOutcome(row.test, row.passed, row.since, row.revision, row.counterexample)
            for row in self.database.rows(select(t.test_outcomes))
        }

    def put_test_outcomes(self, outcomes: Sequence[TestOutcome]) -> None:
        """Keep how the tests stand."""
        with self.transaction():
            self.database.run(delete(t.test_outcomes))
            self.database.add(t.test_outcomes, *(asdict(one) for one in outcomes))

    # --- points ---

    def standings(self, names: Iterable[str] | None = None) -> tuple[Standing, ...]:
        """Give how every point stands, or those of some workloads."""
        queries = (
            [select(t.points)]
            if names is None
            else [select(t.points).where(t.points.c.workload.in_(some)) for some in batched(names)]
        )
        found = [
            _standing(row.workload, msgspec.msgpack.decode(row.standing, type=_Point))
            for query in queries
            for row in self.database.rows(query)
        ]
        return tuple(sorted(found, key=lambda one: one.workload))

    def put_standings(self, standings: Sequence[Standing]) -> None:
        """Keep how points stand."""
        rows = [
            {
                "workload": one.workload,
                "standing": msgspec.msgpack.encode(
                    _Point(
                        one.issued,
                        one.holding,
                        one.state,
                        one.reason,
                        tuple((misfit.rule, misfit.reason) for misfit in one.misfits),
                        one.at,
                        one.spurned,
                        one.seen,
                    )
                ),
            }
            for one in standings
        ]
        with self.transaction():
            self.database.put(t.points, *rows)
            if rows:
                self.database.note("standing", *(one.workload for one in standings))

    def add_receipts(self, rows: Sequence[tuple[str, Receipt, float]]) -> None:
        """Keep receipts."""
        values = [
            {"workload": name, "at": at, "receipt": msgspec.msgpack.encode(receipt)} for name, receipt, at in rows
        ]
        self.database.add(t.receipts, *values)

    def receipts(self, workload: str, limit: int) -> tuple[tuple[Receipt, float], ...]:
        """Give the last receipts."""
        c = t.receipts.c
        rows = self.database.rows(select(t.receipts).where(c.workload == workload).order_by(c.id.desc()).limit(limit))
        return tuple((msgspec.msgpack.decode(row.receipt, type=Receipt), row.at) for row in rows)

    # --- what happened ---

    def add_denials(self, rows: Sequence[DenialRow]) -> None:
        """Keep samples."""
        # PostgreSQL's text holds no NUL, and a process may be called so.
        values = [
            {
                **asdict(row),
                "source": str(row.source),
                "destination": str(row.destination),
                "process": row.process.replace("\0", "�"),
            }
            for row in rows
        ]
        self.database.add(t.denials, *values)

    def denials(self, since: float, limit: int) -> tuple[DenialRow, ...]:
        """Give samples."""
        c = t.denials.c
        rows = self.database.rows(
            select(t.denials).where(c.at >= since).order_by(c.at.desc(), c.id.desc()).limit(limit)
        )
        return tuple(
            DenialRow(
                row.at,
                row.reporter,
                parse_address(row.source),
                parse_address(row.destination),
                row.protocol,
                row.port,
                row.side,
                row.outcome,
                row.rule,
                row.revision,
                row.process,
            )
            for row in rows
        )

    def record(
        self, at: float, author: str, action: str, subject: str, details: Mapping[str, object] | None = None
    ) -> None:
        """Append to the audit log."""
        with self.transaction():
            last = next(iter(self.audit(1)), None)
            entry = audit_entry(last, at, author, action, subject, with_asked(details))
            self.database.add(t.audit, asdict(entry))

    def audit(self, limit: int, before: int | None = None) -> tuple[AuditEntry, ...]:
        """Give entries of the audit log."""
        query = select(t.audit).order_by(t.audit.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(t.audit.c.number < before)
        return tuple(_audit(row) for row in self.database.rows(query))

    def prune(self, before: float) -> None:
        """Forget what is old."""
        with self.transaction():
            newest = select(func.max(t.receipts.c.id)).group_by(t.receipts.c.workload)
            self.database.run(delete(t.receipts).where(t.receipts.c.at < before, t.receipts.c.id.not_in(newest)))
            self.database.run(delete(t.denials).where(t.denials.c.at < before))
            gone = select(t.tokens.c.id).where(t.tokens.c.expires < before)
            self.database.run(delete(t.token_uses).where(t.token_uses.c.token.in_(gone)))
            self.database.run(delete(t.tokens).where(t.tokens.c.expires < before))
            self.database.run(delete(t.certificates).where(t.certificates.c.ends < before))

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    # --- the inventory's history ---

    @contextmanager
    def _changing(self, at: float) -> Generator[None]:
        with self.transaction():
            self._at = max(self._at, at)
            yield


def open_state(path: Path | None, url: str = "") -> SqlState:
    """Open the state in the SQLite file at `path`, made and brought up to date; None keeps it in memory.

    Where `url` names a PostgreSQL database, the state is there instead. Raises `StateError`.
    """
    return SqlState(Database(open_postgresql(url) if url else open_sqlite(path)))


def _workload(row: Row[Any]) -> WorkloadRow:
    addresses = tuple(parse_address(text) for text in row.addresses)
    return WorkloadRow(row.name, row.agent, addresses, row.epoch, row.seen, row.version)


def _label(row: Row[Any]) -> LabelRow:
    return LabelRow(row.workload, row.key, row.value, LabelSource(row.source), row.author, row.at)


def _history(at: float, name: str, workload: Workload | None) -> dict[str, Any]:
    return {
        "workload": name,
        "at": at,
        "there": workload is not None,
        "agent": workload.agent if workload else False,
        "epoch": workload.epoch if workload else 0.0,
        "addresses": [str(address) for address in workload.addresses] if workload else [],
        "labels": dict(workload.labels) if workload else {},
    }


def _past(row: Row[Any]) -> PastRow:
    addresses = tuple(parse_address(text) for text in row.addresses)
    return PastRow(row.at, Workload(row.workload, Labels(row.labels), addresses, row.agent, row.epoch), row.there)


def _token(row: Row[Any]) -> TokenRow:
    return TokenRow(
        row.id,
        row.digest,
        Labels(row.labels),
        row.workload,
        row.uses,
        row.used,
        row.expires,
        row.created,
        row.author,
    )


def _standing(workload: str, kept: _Point) -> Standing:
    return replace(
        Standing(workload),
        issued=kept.issued,
        holding=kept.holding,
        state=kept.state,
        reason=kept.reason,
        misfits=tuple(Misfit(rule, reason) for rule, reason in kept.misfits),
        at=kept.at,
        spurned=kept.spurned,
        seen=kept.seen,
    )


def _audit(row: Row[Any]) -> AuditEntry:
    return AuditEntry(row.number, row.at, row.author, row.action, row.subject, row.details, row.previous, row.hash)
