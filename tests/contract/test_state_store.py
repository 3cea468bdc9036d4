"""Every store of the controller's state keeps what it is given, and only what it is given."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from ipaddress import ip_address
from pathlib import Path
from pkgutil import iter_modules

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from cellwall.compile import Misfit
from cellwall.controller import store as areas
from cellwall.controller.core import Standing
from cellwall.controller.errors import StateError
from cellwall.controller.store.migrate import migrate
from cellwall.controller.store.sql import SqlState, open_state
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
    broken_link,
)
from cellwall.controller.store.tables import METADATA
from cellwall.inventory import Workload
from cellwall.labels import Labels
from cellwall.wire import Facts, Holding, Listening, PointState, Receipt

Opener = Callable[[], SqlState]

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


@pytest.fixture(params=["sqlite", "memory", "postgresql"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens a store, the same one each time where it is not in memory."""
    if request.param == "postgresql":
        url = request.getfixturevalue("server").make()
        return lambda: open_state(None, url)
    return lambda: open_state(tmp_path / "state.db" if request.param == "sqlite" else None)


@pytest.fixture
def store(opener: Opener) -> Iterator[SqlState]:
    opened = opener()
    yield opened
    opened.close()


def test_a_workload_is_kept_replaced_and_forgotten(store: SqlState) -> None:
    store.put_workload(WEB, 1.0)
    store.put_workload(WorkloadRow("db-1", False, (), 1.0), 1.0)
    assert [row.name for row in store.workloads()] == ["db-1", "web-1"]
    assert store.workload("web-1") == WEB
    store.put_workload(replace(WEB, addresses=(HERE,), version="0.2.0"), 2.0)
    assert store.workload("web-1") == replace(WEB, addresses=(HERE,), version="0.2.0")
    store.drop_workload("web-1", 9.0)
    assert store.workload("web-1") is None
    assert store.workload("nobody") is None


def test_what_belongs_to_a_workload_goes_with_it(store: SqlState) -> None:
    store.put_workload(WEB, 1.0)
    store.put_label(LabelRow("web-1", "app", "shop", LabelSource.DECLARED, "ann", 1.0))
    store.put_facts("web-1", Facts(hostname="web-1"), 1.0)
    store.put_standings([STANDING])
    store.add_certificate(CertificateRow("1f", "web-1", "k", 1.0, 2.0))
    store.drop_workload("web-1", 9.0)
    assert (store.labels(), store.facts(), store.standings()) == ((), {}, ())
    assert store.certificate("1f") is None


def test_labels_come_in_order_of_precedence(store: SqlState) -> None:
    accepted = LabelRow("web-1", "app", "web", LabelSource.ACCEPTED, "ann", 1.0)
    declared = LabelRow("web-1", "app", "shop", LabelSource.DECLARED, "bob", 2.0)
    other = LabelRow("db-1", "app", "", LabelSource.IMPORTED, "ann", 1.0)
    for row in (accepted, declared, other):
        store.put_label(row)
    assert store.labels() == (other, declared, accepted)
    store.put_label(replace(declared, value="till"))
    assert store.labels()[1].value == "till"
    store.drop_label("web-1", "app", 3.0)
    assert store.labels() == (other,)


def test_the_inventory_has_the_labels_that_hold_and_changes_only_where_it_is_changed(store: SqlState) -> None:
    store.put_workload(WEB, 1.0)
    store.put_workload(WorkloadRow("db-1", False, (), 1.0), 1.0)
    store.put_label(LabelRow("web-1", "app", "shop", LabelSource.DECLARED, "bob", 2.0))
    store.put_label(LabelRow("web-1", "app", "web", LabelSource.ACCEPTED, "ann", 3.0))
    before = store.inventory()
    assert before == (
        Workload("db-1", Labels(), (), False, 1.0),
        Workload("web-1", Labels({"app": "shop"}), (HERE, THERE), True, 5.0),
    )
    store.put_workload(replace(WEB, seen=99.0, version="9"), 4.0)
    assert store.inventory() is before
    store.put_label(LabelRow("db-1", "app", "shop", LabelSource.DECLARED, "bob", 5.0))
    assert store.inventory()[1] is before[1]
    assert [row.name for row in store.having(HERE)] == ["web-1"]
    assert store.having(ip_address("10.0.0.9")) == ()


def test_the_past_is_what_was_written_at_the_time(store: SqlState) -> None:
    store.put_workload(WEB, 10.0)
    with store.transaction():
        store.put_label(LabelRow("web-1", "app", "shop", LabelSource.DECLARED, "ann", 20.0))
        store.put_label(LabelRow("web-1", "env", "prod", LabelSource.DECLARED, "ann", 20.0))
    store.put_workload(replace(WEB, version="9"), 25.0)
    store.put_workload(replace(WEB, addresses=(HERE,)), 30.0)
    store.drop_label("web-1", "env", 40.0)
    store.drop_workload("web-1", 50.0)

    def was(at: float) -> tuple[object, ...]:
        return tuple((one.there, str(one.workload.labels), len(one.workload.addresses)) for one in store.past(at))

    assert was(9.9) == ()
    assert was(10.0) == ((True, "", 2),)
    assert was(29.0) == ((True, "app=shop,env=prod", 2),)
    assert was(35.0) == ((True, "app=shop,env=prod", 1),)
    assert was(45.0) == ((True, "app=shop", 1),)
    assert was(50.0) == ((False, "", 0),)
    assert [one.at for one in store.history("web-1")] == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert store.history("nobody") == ()


def test_the_past_is_the_inventory_as_it_was_after_every_write(store: SqlState) -> None:
    chance = random.Random(3)
    snapshots: list[tuple[Workload, ...]] = []
    for at in range(120):
        name = chance.choice("abcd")
        with store.transaction():
            for _ in range(chance.randrange(1, 3)):
                match chance.randrange(5):
                    case 0:
                        store.drop_workload(name, float(at))
                    case 1:
                        store.drop_label(name, chance.choice("xy"), float(at))
                    case 2:
                        row = LabelRow(name, chance.choice("xy"), chance.choice("12"), LabelSource.DECLARED, "", at)
                        store.put_label(row)
                    case _:
                        addresses = tuple(chance.sample((HERE, THERE), chance.randrange(3)))
                        store.put_workload(WorkloadRow(name, True, addresses, 1.0, float(at)), float(at))
        snapshots.append(store.inventory())
    for at, snapshot in enumerate(snapshots):
        assert tuple(one.workload for one in store.past(at + 0.5) if one.there) == snapshot, at


def test_what_is_undone_was_never_so(store: SqlState) -> None:
    store.put_workload(WEB, 10.0)

    def half() -> None:
        with store.transaction():
            store.drop_workload("web-1", 20.0)
            assert store.inventory() == ()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert store.workload("web-1") == WEB
    assert [one.at for one in store.history("web-1")] == [10.0]


def test_how_the_tests_stood_last_is_kept(store: SqlState) -> None:
    failed = TestOutcome("cde", False, 5.0, 3, "web-1 → db-1 tcp/22")
    store.put_test_outcomes([failed, TestOutcome("works", True, 4.0, 2)])
    store.put_test_outcomes([failed])
    assert store.test_outcomes() == {"cde": failed}
    store.put_test_outcomes([])
    assert store.test_outcomes() == {}


def test_the_last_facts_are_kept(store: SqlState) -> None:
    facts = Facts(addresses=(HERE.packed,), listening=(Listening(protocol=6, port=80, process="nginx"),))
    store.put_facts("web-1", Facts(hostname="old"), 1.0)
    store.put_facts("web-1", facts, 2.0)
    assert store.facts() == {"web-1": (facts, 2.0)}
    assert store.facts_of("web-1") == (facts, 2.0)
    assert store.facts_of("db-1") is None


def test_a_token_is_used_up(store: SqlState) -> None:
    store.add_token(TOKEN)
    assert store.token(TOKEN.digest) == TOKEN
    assert store.use_token("t1", "key-1", "web-1", 2.0)
    assert store.use_token("t1", "key-2", "web-2", 2.0)
    assert not store.use_token("t1", "key-3", "web-3", 2.0)
    assert store.tokens() == (replace(TOKEN, used=2),)
    assert not store.use_token("unknown", "key-1", "web-1", 2.0)


def test_a_token_ends_when_it_is_said_to(store: SqlState) -> None:
    store.add_token(TOKEN)
    at = TOKEN.expires - 1
    assert store.end_token("t1", at)
    assert store.tokens() == (replace(TOKEN, expires=at),)
    assert not store.end_token("t1", at), "it has ended before"
    assert not store.end_token("unknown", at)


def test_the_same_key_uses_a_token_once(store: SqlState) -> None:
    store.add_token(replace(TOKEN, uses=1))
    assert store.use_token("t1", "key-1", "web-1", 2.0)
    assert store.use_token("t1", "key-1", "web-1", 3.0)
    assert not store.use_token("t1", "key-1", "web-2", 3.0)


def test_a_revoked_certificate_is_not_found(store: SqlState) -> None:
    row = CertificateRow("1f", "web-1", "k", 1.0, 2.0)
    store.add_certificate(row)
    assert store.certificate("1f") == row
    store.revoke("web-1")
    assert store.certificate("1f") is None
    assert store.certificate("2f") is None


def test_a_revision_is_kept_as_it_was(store: SqlState) -> None:
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


def test_progress_is_kept_by_revision(store: SqlState) -> None:
    store.put_progress(Progress(1, RevisionState.ROLLING, "", 1.0))
    store.put_progress(Progress(1, RevisionState.FAILED, "`web-1` took it back", 2.0))
    assert store.progress() == {1: Progress(1, RevisionState.FAILED, "`web-1` took it back", 2.0)}


def test_a_standing_comes_back_without_its_connection(store: SqlState) -> None:
    store.put_standings([replace(STANDING, connected=True, awaiting=True), Standing("db-1")])
    assert store.standings() == (Standing("db-1"), STANDING)
    assert not store.standings()[1].connected


def test_receipts_come_newest_first(store: SqlState) -> None:
    for generation in (1, 2, 3):
        store.add_receipts([("web-1", Receipt(generation=generation, state=PointState.ENFORCED), float(generation))])
    assert [receipt.generation for receipt, _ in store.receipts("web-1", 2)] == [3, 2]
    store.add_receipts([])
    assert store.receipts("db-1", 2) == ()


def denial(at: float) -> DenialRow:
    return DenialRow(at, "web-1", HERE, THERE, 6, 22, "ingress", "denied", "", 3, "sshd")


def test_denials_come_newest_first(store: SqlState) -> None:
    store.add_denials([denial(1.0), denial(3.0), denial(2.0)])
    store.add_denials([])
    assert store.denials(1.5, 10) == (denial(3.0), denial(2.0))
    assert store.denials(0.0, 1) == (denial(3.0),)


def test_the_audit_log_is_a_chain(store: SqlState) -> None:
    for number in range(4):
        store.record(float(number), "ann", "label", "web-1", {"labels": {"app": None, "n": number}})
    entries = store.audit(10)
    assert [entry.number for entry in entries] == [4, 3, 2, 1]
    assert broken_link(reversed(entries)) is None
    assert [entry.number for entry in store.audit(1, before=4)] == [3]


def test_a_changed_audit_entry_breaks_the_chain(store: SqlState) -> None:
    for number in range(3):
        store.record(float(number), "ann", "label", "web-1")
    first, second, third = reversed(store.audit(10))
    assert broken_link([first, replace(second, author="bob"), third]) == 2
    assert broken_link([first, third]) == 3
    forged: AuditEntry = replace(third, details={"x": 1})
    assert broken_link([third, forged], after=second) == 3


def test_a_transaction_happens_wholly_or_not_at_all(store: SqlState) -> None:
    def half() -> None:
        with store.transaction():
            store.put_workload(WEB, 1.0)
            store.record(1.0, "ann", "declare", "web-1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert store.workloads() == ()
    assert store.audit(10) == ()
    store.record(2.0, "ann", "declare", "web-1")
    assert broken_link(reversed(store.audit(10))) is None


def test_transactions_join(store: SqlState) -> None:
    def joined() -> None:
        with store.transaction():
            with store.transaction():
                store.put_workload(WEB, 1.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        joined()
    assert store.workloads() == ()


def test_pruning_keeps_the_last_receipt_the_revisions_and_the_audit_log(store: SqlState) -> None:
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


@pytest.mark.parametrize("opener", ["sqlite", "postgresql"], indirect=True)
def test_all_of_it_is_there_after_opening_again(opener: Opener) -> None:
    store = opener()
    store.put_workload(WEB, 1.0)
    store.put_standings([STANDING])
    store.record(1.0, "ann", "declare", "web-1", {"n": 1, "x": 0.1, "of": {"é": None}})
    store.close()
    again = opener()
    again.record(2.0, "ann", "label", "web-1")
    assert again.workloads() == (WEB,)
    assert again.past(9.0) == (PastRow(1.0, again.inventory()[0]),)
    assert again.standings() == (STANDING,)
    assert broken_link(reversed(again.audit(10))) is None
    again.close()
    again.close()


@pytest.mark.parametrize("opener", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize(
    "statement",
    [
        "delete from audit",
        "update audit set author = 'eve'",
        "delete from revisions",
        "update revisions set note = 'other'",
        "delete from history",
    ],
)
def test_what_is_for_ever_cannot_be_changed_even_by_hand(opener: Opener, statement: str) -> None:
    store = opener()
    store.record(1.0, "ann", "apply", "revision 1")
    store.add_revision(Revision(1, "ann", "", 1.0, {}))
    store.put_workload(WEB, 1.0)
    with pytest.raises(StateError, match="for ever"):
        store.database.run(text(statement))
    store.close()


def test_many_rows_at_once_are_as_many_rows_one_by_one(store: SqlState) -> None:
    many = [replace(STANDING, workload=f"w{number}", reason=f"{number} \0 é") for number in range(300)]
    store.put_standings([*many, replace(many[7], reason="later")])
    assert {one.workload: one for one in store.standings()} == {
        **{one.workload: one for one in many},
        "w7": replace(many[7], reason="later"),
    }
    store.add_denials([replace(denial(float(at)), process="a\0b") for at in range(300)])
    assert len(store.denials(0.0, 1000)) == 300


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StateError):
        open_state(tmp_path / "state.db")


@pytest.mark.parametrize("url", ["mysql://a/b", "postgresql://u:secret@h/", "postgresql://h/d?x=1", "nonsense"])
def test_what_is_no_url_of_a_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StateError, match="wanted `postgresql") as told:
        open_state(None, url)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("opener", ["sqlite", "postgresql"], indirect=True)
def test_the_migrations_make_the_tables_that_the_code_uses(opener: Opener) -> None:
    for module in iter_modules(areas.__path__):
        import_module(f"{areas.__name__}.{module.name}")
    store = opener()
    with store.transaction():
        assert compare_metadata(MigrationContext.configure(store.database.connection), METADATA) == []
    store.close()


def test_a_store_of_the_first_migration_is_taken_over_with_all_that_it_holds(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'state.db'}")
    with engine.begin() as connection:
        migrate(connection, "0001")
    engine.dispose()
    with sqlite3.connect(tmp_path / "state.db") as old:
        old.execute("insert into workloads values ('web-1', 1, '[\"10.0.0.1\", \"2001:db8::2\"]', 5.0, 6.0, '0.1.0')")
        old.execute("insert into workloads values ('db-1', 0, '[]', 1.0, 0.0, '')")
        old.execute("insert into labels values ('web-1', 'app', 'accepted', 'till', 'ann', 7.0)")
        old.execute("insert into labels values ('web-1', 'app', 'declared', 'shop', 'ann', 3.0)")
        for number, act, at in ((1, "addresses", 9.0), (2, "renew", 99.0)):
            old.execute("insert into audit values (?, ?, 'x', ?, 'web-1', '{}', '', '')", (number, at, act))
    store = open_state(tmp_path / "state.db")
    assert store.workload("web-1") == WEB
    web = Workload("web-1", Labels({"app": "shop"}), (HERE, THERE), True, 5.0)
    assert store.past(8.9) == (PastRow(1.0, Workload("db-1", agent=False, epoch=1.0)),)
    assert store.past(9.0)[1] == PastRow(9.0, web)
    assert store.test_outcomes() == {}
    store.put_workload(replace(WEB, addresses=(HERE,)), 20.0)
    assert [one.at for one in store.history("web-1")] == [9.0, 20.0]
    store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], check=True)
    try:
        store = open_state(disk / "state.db")
        store.put_workload(WEB, 1.0)
        (disk / "ballast").write_bytes(b"x" * 100_000)
        store.put_standings([])

        def all_of_it() -> None:
            with store.transaction():
                store.put_workload(replace(WEB, version="2"), 2.0)
                for number in range(20_000):
                    store.record(2.0, "ann", "label", f"web-{number}", {"text": "x" * 200})

        with pytest.raises(StateError, match="disk is full"):
            all_of_it()
        assert store.workload("web-1") == WEB
        assert store.audit(1) == ()
        # And it goes on when there is room.
        (disk / "ballast").unlink()
        store.record(3.0, "ann", "label", "web-1")
        assert [one.number for one in store.audit(9)] == [1]
        store.close()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
