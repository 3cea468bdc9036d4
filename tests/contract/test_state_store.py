"""Every store of the controller's state keeps what it is given, and only what it is given."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from cellwall.compile import Misfit
from cellwall.controller.core import Standing
from cellwall.controller.store.sql import open_state
from cellwall.controller.store.state import (
    AuditEntry,
    CertificateRow,
    DenialRow,
    LabelRow,
    LabelSource,
    Progress,
    Revision,
    RevisionState,
    StateError,
    StateStore,
    TokenRow,
    WorkloadRow,
    broken_link,
)
from cellwall.controller.store.tables import METADATA
from cellwall.labels import Labels
from cellwall.wire import Facts, Holding, Listening, PointState, Receipt

Opener = Callable[[], StateStore]

HERE, THERE = ip_address("10.0.0.1"), ip_address("2001:db8::2")
WEB = WorkloadRow("web-1", True, (HERE, THERE), 5.0, 6.0, "0.1.0")
TOKEN = TokenRow("t1", "d" * 64, Labels({"app": "shop"}), None, 2, 0, 100.0, 1.0, "ann")
STANDING = Standing(
    "web-1",
    issued=Holding(generation=4, revision=2, digest="aa"),
    holding=Holding(generation=3, revision=1, digest="bb"),
    state=PointState.REVERTED,
    reason="no canary answers",
    misfits=(Misfit("r", "no cgroups"),),
    at=7.0,
    spurned=Holding(generation=4, revision=2, digest="aa"),
    seen=8.0,
)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    opened = open_state(tmp_path / "state.db" if request.param == "file" else None)
    yield opened
    opened.close()


def test_a_workload_is_kept_replaced_and_forgotten(store: StateStore) -> None:
    store.put_workload(WEB)
    store.put_workload(WorkloadRow("db-1", False, (), 1.0))
    assert [row.name for row in store.workloads()] == ["db-1", "web-1"]
    assert store.workload("web-1") == WEB
    store.put_workload(replace(WEB, addresses=(HERE,), version="0.2.0"))
    assert store.workload("web-1") == replace(WEB, addresses=(HERE,), version="0.2.0")
    store.drop_workload("web-1")
    assert store.workload("web-1") is None
    assert store.workload("nobody") is None


def test_what_belongs_to_a_workload_goes_with_it(store: StateStore) -> None:
    store.put_workload(WEB)
    store.put_label(LabelRow("web-1", "app", "shop", LabelSource.DECLARED, "ann", 1.0))
    store.put_facts("web-1", Facts(hostname="web-1"), 1.0)
    store.put_standings([STANDING])
    store.add_certificate(CertificateRow("1f", "web-1", "k", 1.0, 2.0))
    store.drop_workload("web-1")
    assert (store.labels(), store.facts(), store.standings()) == ((), {}, ())
    assert store.certificate("1f") is None


def test_labels_come_in_order_of_precedence(store: StateStore) -> None:
    accepted = LabelRow("web-1", "app", "web", LabelSource.ACCEPTED, "ann", 1.0)
    declared = LabelRow("web-1", "app", "shop", LabelSource.DECLARED, "bob", 2.0)
    other = LabelRow("db-1", "app", "", LabelSource.IMPORTED, "ann", 1.0)
    for row in (accepted, declared, other):
        store.put_label(row)
    assert store.labels() == (other, declared, accepted)
    store.put_label(replace(declared, value="till"))
    assert store.labels()[1].value == "till"
    store.drop_label("web-1", "app")
    assert store.labels() == (other,)


def test_the_last_facts_are_kept(store: StateStore) -> None:
    facts = Facts(addresses=(HERE.packed,), listening=(Listening(protocol=6, port=80, process="nginx"),))
    store.put_facts("web-1", Facts(hostname="old"), 1.0)
    store.put_facts("web-1", facts, 2.0)
    assert store.facts() == {"web-1": (facts, 2.0)}


def test_a_token_is_used_up(store: StateStore) -> None:
    store.add_token(TOKEN)
    assert store.token(TOKEN.digest) == TOKEN
    assert store.use_token("t1", "key-1", "web-1", 2.0)
    assert store.use_token("t1", "key-2", "web-2", 2.0)
    assert not store.use_token("t1", "key-3", "web-3", 2.0)
    assert store.tokens() == (replace(TOKEN, used=2),)
    assert not store.use_token("unknown", "key-1", "web-1", 2.0)


def test_the_same_key_uses_a_token_once(store: StateStore) -> None:
    store.add_token(replace(TOKEN, uses=1))
    assert store.use_token("t1", "key-1", "web-1", 2.0)
    assert store.use_token("t1", "key-1", "web-1", 3.0)
    assert not store.use_token("t1", "key-1", "web-2", 3.0)


def test_a_revoked_certificate_is_not_found(store: StateStore) -> None:
    row = CertificateRow("1f", "web-1", "k", 1.0, 2.0)
    store.add_certificate(row)
    assert store.certificate("1f") == row
    store.revoke("web-1")
    assert store.certificate("1f") is None
    assert store.certificate("2f") is None


def test_a_revision_is_kept_as_it_was(store: StateStore) -> None:
    first = Revision(1, "ann", "start", 3.0, {"a.yaml": "rules: []\n"}, {"summary": {"none": 1}}, 30.0)
    second = Revision(2, "bob", "back", 4.0, {}, {}, 0.0, reverts_to=1)
    store.add_revision(first)
    store.add_revision(second)
    assert store.revision(1) == first
    assert store.revision(3) is None
    assert [one.number for one in store.revisions()] == [2, 1]
    assert store.revisions()[1].documents == {}
    with pytest.raises(StateError):
        store.add_revision(first)


def test_progress_is_kept_by_revision(store: StateStore) -> None:
    store.put_progress(Progress(1, RevisionState.ROLLING, "", 1.0))
    store.put_progress(Progress(1, RevisionState.FAILED, "`web-1` took it back", 2.0))
    assert store.progress() == {1: Progress(1, RevisionState.FAILED, "`web-1` took it back", 2.0)}


def test_a_standing_comes_back_without_its_connection(store: StateStore) -> None:
    store.put_standings([replace(STANDING, connected=True, awaiting=True), Standing("db-1")])
    assert store.standings() == (Standing("db-1"), STANDING)
    assert not store.standings()[1].connected


def test_receipts_come_newest_first(store: StateStore) -> None:
    for generation in (1, 2, 3):
        store.add_receipts([("web-1", Receipt(generation=generation, state=PointState.ENFORCED), float(generation))])
    assert [receipt.generation for receipt, _ in store.receipts("web-1", 2)] == [3, 2]
    store.add_receipts([])
    assert store.receipts("db-1", 2) == ()


def denial(at: float) -> DenialRow:
    return DenialRow(at, "web-1", HERE, THERE, 6, 22, "ingress", "denied", "", 3, "sshd")


def test_denials_come_newest_first(store: StateStore) -> None:
    store.add_denials([denial(1.0), denial(3.0), denial(2.0)])
    store.add_denials([])
    assert store.denials(1.5, 10) == (denial(3.0), denial(2.0))
    assert store.denials(0.0, 1) == (denial(3.0),)


def test_the_audit_log_is_a_chain(store: StateStore) -> None:
    for number in range(4):
        store.record(float(number), "ann", "label", "web-1", {"labels": {"app": None, "n": number}})
    entries = store.audit(10)
    assert [entry.number for entry in entries] == [4, 3, 2, 1]
    assert broken_link(reversed(entries)) is None
    assert [entry.number for entry in store.audit(1, before=4)] == [3]


def test_a_changed_audit_entry_breaks_the_chain(store: StateStore) -> None:
    for number in range(3):
        store.record(float(number), "ann", "label", "web-1")
    first, second, third = reversed(store.audit(10))
    assert broken_link([first, replace(second, author="bob"), third]) == 2
    assert broken_link([first, third]) == 3
    forged: AuditEntry = replace(third, details={"x": 1})
    assert broken_link([third, forged], after=second) == 3


def test_a_transaction_happens_wholly_or_not_at_all(store: StateStore) -> None:
    def half() -> None:
        with store.transaction():
            store.put_workload(WEB)
            store.record(1.0, "ann", "declare", "web-1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert store.workloads() == ()
    assert store.audit(10) == ()
    store.record(2.0, "ann", "declare", "web-1")
    assert broken_link(reversed(store.audit(10))) is None


def test_transactions_join(store: StateStore) -> None:
    def joined() -> None:
        with store.transaction():
            with store.transaction():
                store.put_workload(WEB)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        joined()
    assert store.workloads() == ()


def test_pruning_keeps_the_last_receipt_the_revisions_and_the_audit_log(store: StateStore) -> None:
    store.add_revision(Revision(1, "ann", "", 1.0, {}))
    store.record(1.0, "ann", "apply", "revision 1")
    store.add_denials([denial(1.0), denial(9.0)])
    store.add_token(replace(TOKEN, expires=2.0))
    for at in (1.0, 2.0):
        store.add_receipts([("web-1", Receipt(generation=int(at), state=PointState.ENFORCED), at)])
    store.prune(5.0)
    assert [receipt.generation for receipt, _ in store.receipts("web-1", 5)] == [2]
    assert store.denials(0.0, 5) == (denial(9.0),)
    assert store.tokens() == ()
    assert len(store.revisions()) == 1
    assert len(store.audit(5)) == 1


def test_all_of_it_is_there_after_opening_again(tmp_path: Path) -> None:
    store = open_state(tmp_path / "state.db")
    store.put_workload(WEB)
    store.put_standings([STANDING])
    store.record(1.0, "ann", "declare", "web-1", {"n": 1})
    store.close()
    again = open_state(tmp_path / "state.db")
    again.record(2.0, "ann", "label", "web-1")
    assert again.workloads() == (WEB,)
    assert again.standings() == (STANDING,)
    assert broken_link(reversed(again.audit(10))) is None
    again.close()
    again.close()


@pytest.mark.parametrize("statement", ["delete from audit", "update audit set author = 'eve'", "delete from revisions"])
def test_what_is_for_ever_cannot_be_changed_even_by_hand(tmp_path: Path, statement: str) -> None:
    store = open_state(tmp_path / "state.db")
    store.record(1.0, "ann", "apply", "revision 1")
    store.add_revision(Revision(1, "ann", "", 1.0, {}))
    store.close()
    with sqlite3.connect(tmp_path / "state.db") as by_hand, pytest.raises(sqlite3.IntegrityError, match="for ever"):
        by_hand.execute(statement)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StateError):
        open_state(tmp_path / "state.db")


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    open_state(tmp_path / "state.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'state.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()
