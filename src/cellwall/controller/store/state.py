"""The controller's state: the rows it is made of, and what every store of them can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from json import dumps
from typing import Protocol

from cellwall.controller.core import Standing
from cellwall.controller.store.database import Database
from cellwall.inventory import Workload
from cellwall.labels import Labels
from cellwall.traffic import Address
from cellwall.wire import Facts, Receipt


class LabelSource(StrEnum):
    """Where a label comes from; of several for one key the earliest in this list holds."""

    DECLARED = "declared"
    IMPORTED = "imported"
    ACCEPTED = "accepted"


class RevisionState(StrEnum):
    """How far a revision has come.

    Waiting for consent; refused it, or withdrawn; on its way; stopped on its way, until a person says what next; in
    force everywhere that can be reached; everywhere but where points refused it; taken back; overtaken by the next
    one."""

    PROPOSED = "proposed"
    REJECTED = "rejected"
    ROLLING = "rolling"
    HALTED = "halted"
    GOOD = "good"
    PARTIAL = "partial"
    FAILED = "failed"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class WorkloadRow:
    """A workload. `epoch` is when it enrolled or was declared, `seen` when its agent was last connected."""

    name: str
    agent: bool
    addresses: tuple[Address, ...]
    epoch: float
    seen: float = 0.0
    version: str = ""


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One label of one workload, with where it comes from, who said so and when."""

    workload: str
    key: str
    value: str
    source: LabelSource
    author: str
    at: float


@dataclass(frozen=True, slots=True)
class PastRow:
    """What a workload was from `at` on, with the labels that held; `there` is False from when it was removed."""

    at: float
    workload: Workload
    there: bool = True


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """How a test of the policy stood last: since when, under which revision, and what broke it, in words."""

    __test__ = False  # not for pytest

    test: str
    passed: bool
    since: float
    revision: int
    counterexample: str = ""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An enrolment token. `digest` is the SHA-256 of its secret, which is kept nowhere."""

    id: str
    digest: str
    labels: Labels
    workload: str | None
    uses: int
    used: int
    expires: float
    created: float
    author: str


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A certificate that we gave an agent. `key` is the SHA-256 of its public key."""

    serial: str
    workload: str
    key: str
    issued: float
    ends: float


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of the policy, for ever as it is. `documents` maps file names to text; `plan` is JSON."""

    number: int
    author: str
    note: str
    created: float
    documents: Mapping[str, str]
    plan: Mapping[str, object] = field(default_factory=dict[str, object])
    confirm_s: float = 0.0
    reverts_to: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a revision has come, and why it failed."""

    revision: int
    state: RevisionState
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class DenialRow:
    """A sample of a denied packet, as `reporter` saw it. `rule` is empty for the default."""

    at: float
    reporter: str
    source: Address
    destination: Address
    protocol: int
    port: int
    side: str
    outcome: str
    rule: str
    revision: int
    process: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that was done: who, what, to what. `hash` covers this entry and the one before it."""

    number: int
    at: float
    author: str
    action: str
    subject: str
    details: Mapping[str, object]
    previous: str
    hash: str


FIRST_HASH = "0" * 64


def audit_entry(
    last: AuditEntry | None, at: float, author: str, action: str, subject: str, details: Mapping[str, object]
) -> AuditEntry:
    """Give the entry that follows `last`."""
    number, previous = (last.number + 1, last.hash) if last else (1, FIRST_HASH)
    digest = _audit_hash(number, at, author, action, subject, details, previous)
    return AuditEntry(number, at, author, action, subject, details, previous, digest)


def broken_link(entries: Iterable[AuditEntry], after: AuditEntry | None = None) -> int | None:
    """Give the number of the first entry that does not follow from the one before it; None where all do."""
    for entry in entries:
        wanted = audit_entry(after, entry.at, entry.author, entry.action, entry.subject, entry.details)
        if entry != wanted:
            return entry.number
        after = entry
    return None


def _audit_hash(*fields: object) -> str:
    return sha256(dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class StateStore(Protocol):
    """Keeps the controller's state. All calls are synchronous, from one thread; a write is durable when it returns.

    Every call raises `StateError` when the store cannot be used.
    """

    @property
    def database(self) -> Database:
        """The database in which it is kept, where the stores of other areas keep theirs."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Make the calls inside one write: all of them happen, or none when an exception leaves the block."""
        ...

    # workloads, their labels and facts

    def workloads(self) -> tuple[WorkloadRow, ...]:
        """Give all workloads, in order of name."""
        ...

    def workload(self, name: str) -> WorkloadRow | None:
        """Give one workload."""
        ...

    def having(self, address: Address) -> tuple[WorkloadRow, ...]:
        """Give the workloads that have an address, in order of name."""
        ...

    def inventory(self) -> tuple[Workload, ...]:
        """Give all workloads with the labels that hold, in order of name.

        What did not change since an earlier call is the same object, and so is the tuple where nothing did."""
        ...

    def put_workload(self, row: WorkloadRow, at: float) -> None:
        """Add a workload, or replace the one of that name; `at` is from when on it is so."""
        ...

    def drop_workload(self, name: str, at: float) -> None:
        """Forget a workload, its labels, facts, certificates and standing; its history stays."""
        ...

    def labels(self, workload: str | None = None) -> tuple[LabelRow, ...]:
        """Give all labels, or those of one workload, from all sources, in order of workload, key and precedence."""
        ...

    def put_label(self, row: LabelRow) -> None:
        """Set a label from one source."""
        ...

    def drop_label(self, workload: str, key: str, at: float) -> None:
        """Remove a label, whatever its sources; `at` is from when on it is gone."""
        ...

    def past(self, moment: float) -> tuple[PastRow, ...]:
        """Give what every workload was at a moment, in order of name: those that were there, and those that had been.

        A workload whose history begins later is left out."""
        ...

    def history(self, workload: str) -> tuple[PastRow, ...]:
        """Give all that a workload ever was, the oldest first."""
        ...

    def put_facts(self, workload: str, facts: Facts, at: float) -> None:
        """Keep what an agent says of its host, in place of what it said before."""
        ...

    def facts(self) -> Mapping[str, tuple[Facts, float]]:
        """Give the facts of every workload that has some, and when they came."""
        ...

    def facts_of(self, workload: str) -> tuple[Facts, float] | None:
        """Give the facts of one workload, and when they came."""
        ...

    def refresh(self, names: Iterable[str] | None) -> None:
        """Read workloads again that another controller wrote; None is all of them."""
        ...

    # enrolment

    def add_token(self, row: TokenRow) -> None:
        """Keep a new token."""
        ...

    def tokens(self) -> tuple[TokenRow, ...]:
        """Give all tokens, the newest first."""
        ...

    def token(self, digest: str) -> TokenRow | None:
        """Give the token with this digest of its secret."""
        ...

    def use_token(self, token: str, key: str, workload: str, at: float) -> bool:
        """Use a token up by one for an agent's `key`; False where none is left.

        The same key for the same workload again costs nothing: an agent that lost our answer may ask again.
        """
        ...

    def end_token(self, token: str, at: float) -> bool:
        """Let a token end at `at`; False where it ended before, or where there is none."""
        ...

    def add_certificate(self, row: CertificateRow) -> None:
        """Keep that we gave a certificate."""
        ...

    def certificate(self, serial: str) -> CertificateRow | None:
        """Give a certificate that holds: one that we gave and did not revoke."""
        ...

    def certified(self) -> Mapping[str, str]:
        """Give the workload of every certificate that holds, by serial number."""
        ...

    def revoke(self, workload: str) -> None:
        """Revoke all certificates of a workload."""
        ...

    # policy

    def revisions(self) -> tuple[Revision, ...]:
        """Give all revisions without their documents and plans, the newest first."""
        ...

    def revision(self, number: int) -> Revision | None:
        """Give one whole revision."""
        ...

    def add_revision(self, revision: Revision) -> None:
        """Keep a new revision, which nothing changes ever after. Raises `StateError` where the number is taken."""
        ...

    def progress(self) -> Mapping[int, Progress]:
        """Give how far every revision has come."""
        ...

    def put_progress(self, progress: Progress) -> None:
        """Keep how far a revision has come."""
        ...

    def test_outcomes(self) -> Mapping[str, TestOutcome]:
        """Give how the tests stood last, by id."""
        ...

    def put_test_outcomes(self, outcomes: Sequence[TestOutcome]) -> None:
        """Keep how the tests stand, in place of all that was kept before."""
        ...

    # points

    def standings(self, names: Iterable[str] | None = None) -> tuple[Standing, ...]:
        """Give how every point stands, or those of some workloads, as far as it was kept: none is connected."""
        ...

    def put_standings(self, standings: Sequence[Standing]) -> None:
        """Keep how points stand."""
        ...

    def add_receipts(self, rows: Sequence[tuple[str, Receipt, float]]) -> None:
        """Keep receipts: workload, receipt, and when it came."""
        ...

    def receipts(self, workload: str, limit: int) -> tuple[tuple[Receipt, float], ...]:
        """Give the last receipts of a workload, the newest first."""
        ...

    # what happened

    def add_denials(self, rows: Sequence[DenialRow]) -> None:
        """Keep samples of denied packets."""
        ...

    def denials(self, since: float, limit: int) -> tuple[DenialRow, ...]:
        """Give the samples from `since` on, the newest first."""
        ...

    def record(
        self, at: float, author: str, action: str, subject: str, details: Mapping[str, object] | None = None
    ) -> None:
        """Append to the audit log."""
        ...

    def audit(self, limit: int, before: int | None = None) -> tuple[AuditEntry, ...]:
        """Give entries of the audit log, the newest first, those under number `before` where it is given."""
        ...

    def prune(self, before: float) -> None:
        """Forget receipts, denials and expired tokens from before; the audit log and the revisions stay whole."""
        ...

    def close(self) -> None:
        """Let go of the store. May be called twice."""
        ...
