"""What is backed up comes back, in either kind of database; what is damaged is refused, and changes nothing."""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, select
from tests.postgresql import Server

from cellwall.cli.app import run
from cellwall.cli.exits import Stop
from cellwall.controller.core import Standing
from cellwall.controller.errors import ControllerError
from cellwall.controller.store.backup import (
    MANIFEST,
    OF_THE_MOMENT,
    read_manifest,
    restore_backup,
    seal,
    take_backup,
    unseal,
)
from cellwall.controller.store.sql import SqlState, open_state
from cellwall.controller.store.state import (
    DenialRow,
    LabelRow,
    LabelSource,
    Progress,
    Revision,
    RevisionState,
    WorkloadRow,
    broken_link,
)
from cellwall.controller.trust.ca import open_authority
from cellwall.wire import Facts, Holding, PointState, Receipt

WEB = WorkloadRow("web-1", True, (ip_address("10.0.0.1"), ip_address("2001:db8::2")), 5.0, 6.0, "0.1.0")
Place = tuple[Path, str]


def place(kind: str, folder: Path, request: pytest.FixtureRequest) -> Place:
    return folder, request.getfixturevalue("server").make() if kind == "postgresql" else ""


def fill(store: SqlState) -> None:
    store.put_workload(WEB, 1.0)
    store.put_workload(replace(WEB, addresses=()), 2.0)
    store.put_label(LabelRow("web-1", "app", "shop", LabelSource.DECLARED, "é 'x' \\ \n", 3.0))
    store.put_facts("web-1", Facts(hostname="web-1"), 1.0)
    store.put_standings([Standing("web-1", issued=Holding(generation=2**40), state=PointState.ENFORCED)])
    store.add_receipts([("web-1", Receipt(generation=1, state=PointState.ENFORCED), 0.1)])
    store.add_denials(
        [DenialRow(0.1, "web-1", ip_address("10.0.0.1"), ip_address("::1"), 6, 22, "ingress", "denied", "", 1, "x")]
    )
    store.add_revision(Revision(1, "ann", "start", 3.0, {"a.yaml": "rules: []\n"}, {"n": 0.1, "none": None}, 30.0))
    store.put_progress(Progress(1, RevisionState.GOOD, "", 1.0))
    for number in range(5):
        store.record(number + 0.1, "ann", "label", "web-1", {"n": number / 3, "of": [None, {"é": True}]})


def contents(store: SqlState) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    known = MetaData()
    with store.transaction():
        known.reflect(store.database.connection)
        for table in known.sorted_tables:
            if table.name not in OF_THE_MOMENT:
                rows = store.database.rows(select(table))
                found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return found


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
@pytest.mark.parametrize("source", ["sqlite", "postgresql"])
def test_what_is_backed_up_comes_back(source: str, target: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    data, url = place(source, tmp_path / "a", request)
    store = open_state(data / "state.db", url)
    fill(store)
    authority = open_authority(data / "keys", 0.0)
    # While the controller runs.
    told = take_backup(tmp_path / "backup", data, url, "secret", "1", 9.0)
    before = contents(store)
    store.record(99.0, "ann", "later", "x")
    store.close()
    assert told == read_manifest(tmp_path / "backup")
    assert (told.revision, told.rows["audit"], told.engine) == (1, 5, source)

    data, url = place(target, tmp_path / "b", request)
    restore_backup(tmp_path / "backup", data, url, "secret")
    again = open_state(data / "state.db", url)
    assert contents(again) == before
    assert broken_link(reversed(again.audit(100))) is None
    assert again.workload("web-1") == replace(WEB, addresses=())
    # What is counted goes on after what is there.
    again.add_receipts([("web-1", Receipt(generation=2, state=PointState.ENFORCED), 2.0)])
    assert [one.generation for one, _ in again.receipts("web-1", 9)] == [2, 1]
    again.put_workload(WEB, 9.0)
    assert [one.at for one in again.history("web-1")] == [1.0, 2.0, 3.0, 9.0]
    again.close()
    restored = open_authority(data / "keys", 0.0)
    assert (restored.fingerprint, restored.verify_key) == (authority.fingerprint, authority.verify_key)
    assert {path.stat().st_mode & 0o777 for path in (data / "keys").iterdir()} == {0o600}
    assert not [path for path in data.iterdir() if path.name.startswith(".")]


def a_backup(folder: Path, schema: str | None = None) -> Path:
    store = open_state(folder / "source" / "state.db")
    fill(store)
    store.close()
    open_authority(folder / "source" / "keys", 0.0)
    if schema is not None:
        with sqlite3.connect(folder / "source" / "state.db") as by_hand:
            by_hand.execute("update alembic_version set version_num = ?", (schema,))
    take_backup(folder / "backup", folder / "source", "", "secret", "1", 9.0)
    return folder / "backup"


def test_keys_may_be_left_out(tmp_path: Path) -> None:
    open_state(tmp_path / "a" / "state.db").close()
    told = take_backup(tmp_path / "backup", tmp_path / "a", "", None, "1", 9.0, keys=False)
    assert not told.has_keys
    restore_backup(tmp_path / "backup", tmp_path / "b", "", None)
    assert not (tmp_path / "b" / "keys").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_restores_belongs_to_whom_the_folder_belongs_to(tmp_path: Path) -> None:
    file = a_backup(tmp_path)
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, 65534, 65534)
    restore_backup(file, data, "", "secret")
    made = [data / "state.db", data / "keys", *(data / "keys").iterdir()]
    assert len(made) > 3
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(65534, 65534)}


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def act(file: Path) -> None:
        with tarfile.open(file) as tar:
            parts = {one.name: tar.extractfile(one).read() for one in tar.getmembers()}  # pyright: ignore[reportOptionalMemberAccess]
        parts[name] = change(parts[name])
        with tarfile.open(file, "w") as tar:
            for part, content in parts.items():
                member = tarfile.TarInfo(part)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    return act


def halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwritten(file: Path) -> None:
    file.write_bytes(b"no tar at all")


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (halved, "damaged"),
        (overwritten, "it is no backup|not a tar|file header"),
        (rewritten("tables/audit.jsonl.gz", lambda data: data[:-1] + b"x"), "its part `tables/audit.jsonl.gz`"),
        (rewritten("keys.sealed", lambda data: b"x" + data[1:]), "its part `keys.sealed`"),
        (rewritten(MANIFEST, lambda data: data.replace(b"9.0", b"8.0")), "its manifest is not what was written"),
    ],
)
def test_a_damaged_backup_is_refused_and_nothing_is_made(
    tmp_path: Path, harm: Callable[[Path], None], why: str
) -> None:
    file = a_backup(tmp_path)
    harm(file)
    with pytest.raises(ControllerError, match=why):
        restore_backup(file, tmp_path / "b", "", "secret")
    assert not (tmp_path / "b").exists()


def test_a_wrong_passphrase_makes_nothing(tmp_path: Path) -> None:
    file = a_backup(tmp_path)
    with pytest.raises(ControllerError, match="the passphrase is another one"):
        restore_backup(file, tmp_path / "b", "", "other")
    assert not (tmp_path / "b").exists()
    assert unseal(seal({"ca.key": b"x"}, "a"), "a") == {"ca.key": b"x"}


def test_a_backup_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    file = a_backup(tmp_path, "9999")
    with pytest.raises(ControllerError, match="is of schema `9999`"):
        restore_backup(file, tmp_path / "b", "", "secret")


def test_what_is_there_is_not_overwritten(tmp_path: Path, server: Server) -> None:
    file = a_backup(tmp_path)
    with pytest.raises(ControllerError, match="holds a state already"):
        restore_backup(file, tmp_path / "source", "", "secret")
    url = server.make()
    restore_backup(file, tmp_path / "b", url, "secret")
    with pytest.raises(ControllerError, match="holds a state already"):
        restore_backup(file, tmp_path / "c", url, "secret")


def test_a_backup_that_fails_half_way_leaves_the_one_before_as_it_was(tmp_path: Path) -> None:
    file = a_backup(tmp_path)
    before = file.read_bytes()
    # The tables are written by then, the keys are not.
    (tmp_path / "source" / "keys" / "bundle.key").unlink()
    with pytest.raises(OSError, match=r"bundle\.key"):
        take_backup(file, tmp_path / "source", "", "secret", "1", 9.0)
    assert file.read_bytes() == before and file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "source"]


def test_the_command_replaces_a_backup_only_where_it_may(tmp_path: Path) -> None:
    file, source = a_backup(tmp_path), tmp_path / "source"
    before = file.read_bytes()
    line = ["controller", "backup", str(file), "--data", str(source), "--without-keys", "-o", "json"]
    with pytest.raises(Stop, match="would be replaced"):
        run(line)
    assert file.read_bytes() == before
    assert run([*line, "--force"]) == 0
    assert not read_manifest(file).has_keys and file.stat().st_mode & 0o777 == 0o600


def test_a_backup_without_a_passphrase_or_a_state_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(ControllerError, match="need a passphrase"):
        take_backup(tmp_path / "backup", tmp_path, "", None, "1", 9.0)
    with pytest.raises(ControllerError, match="holds no state"):
        take_backup(tmp_path / "backup", tmp_path, "", "x", "1", 9.0)
    assert [*tmp_path.iterdir()] == []
