"""A backup of the controller's state in one file, and the way back, from either kind of database into either.

    tables, as they are at one moment ──▶ FILE: a tar of  cellwall-backup.json   what is in it: format 1, the schema,
    keys, sealed with a passphrase   ──┘                                         and every part's SHA-256
                                                          manifest.sha256
                                                          tables/NAME.jsonl.gz   one row a line
                                                          keys.sealed
    FILE ──▶ all parts looked at ──▶ a database of the backup's schema ──▶ migrated ──▶ put in its place, or copied

What controllers tell each other while they run is not in it, nor are flows.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from sqlalchemy import Connection, Engine, Integer, LargeBinary, MetaData, Table, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from cellwall.controller.errors import ControllerError, StateError
from cellwall.controller.store.database import Database, said
from cellwall.controller.store.engines import LARGE_STATEMENT_MS, open_postgresql, open_sqlite
from cellwall.controller.store.migrate import migrate, newest

FORMAT = 1
MANIFEST, MANIFEST_SUM, KEYS = "cellwall-backup.json", "manifest.sha256", "keys.sealed"
OF_THE_MOMENT = frozenset({"alembic_version", "changes", "questions", "presence", "controllers"}) | {
    # A session that was ended after the backup does not come back with it.
    "sessions",
    "oidc_sign_ins",
    "failed_sign_ins",
}
KEY_FILES = ("ca.key", "ca.pem", "bundle.key")
MOST_MANIFEST, ROWS_AT_ONCE = 1 << 20, 1000
_SEALED_FOR = b"cellwall keys 1"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a backup: its name in the tar, its SHA-256 as hexadecimal, its bytes and, of a table, its rows."""

    name: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself: the newest migration of its tables, when it was taken (seconds since the epoch).

    `revision` is the newest one of the policy, `authority` the fingerprint of the keys that belong to it."""

    format: int
    schema: str
    taken: float
    version: str
    engine: str
    revision: int
    authority: str
    parts: tuple[Part, ...]

    @property
    def has_keys(self) -> bool:
        """Whether the keys are in it."""
        return any(part.name == KEYS for part in self.parts)

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        return {part.name[7:-9]: part.rows for part in self.parts if part.name.startswith("tables/")}


# --- to the file ---


def take_backup(
    file: Path, data: Path, url: str, passphrase: str | None, version: str, now: float, *, keys: bool = True
) -> Manifest:
    """Write a backup of the controller's state, which may be running, to `file`: all of it, or nothing.

    `data` is its folder, `url` its PostgreSQL database where it has one. `passphrase` seals the keys. Raises
    `ControllerError`, `StateError` and `OSError`."""
    if keys and not passphrase:
        raise ControllerError("the keys need a passphrase: give --passphrase-file, or leave them out by --without-keys")
    if not url and not (data / "state.db").exists():
        raise ControllerError(f"`{data}` holds no state; wanted the folder of a controller")
    engine = open_postgresql(url, LARGE_STATEMENT_MS) if url else open_sqlite(data / "state.db")
    with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=".backup-") as work:
        try:
            parts = _write_parts(engine, Path(work))
        finally:
            engine.dispose()
        if keys:
            sealed = seal({name: (data / "keys" / name).read_bytes() for name in KEY_FILES}, passphrase or "")
            parts.found.append(_part(Path(work), KEYS, sealed, 0))
        manifest = Manifest(
            FORMAT, parts.schema, now, version, engine.dialect.name, parts.revision, parts.authority, tuple(parts.found)
        )
        _write_tar(file, Path(work), manifest)
    return manifest


@dataclass(slots=True)
class _Parts:
    found: list[Part]
    schema: str
    revision: int
    authority: str


def _write_parts(engine: Engine, work: Path) -> _Parts:
    # One snapshot: on SQLite the first read makes it, in WAL mode; on PostgreSQL the isolation level does.
    level = "REPEATABLE READ" if engine.dialect.name == "postgresql" else None
    with engine.connect() as connection:
        if level is not None:
            connection = connection.execution_options(isolation_level=level)
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("begin")
        schema = connection.execute(text("select version_num from alembic_version")).scalar_one()
        known = MetaData()
        known.reflect(connection)
        parts = _Parts([], str(schema), 0, "")
        (work / "tables").mkdir()
        for table in known.sorted_tables:
            if table.name in OF_THE_MOMENT:
                continue
            data, count = gzip_lines(_rows(connection, table))
            parts.found.append(_part(work, f"tables/{table.name}.jsonl.gz", data, count))
        parts.revision = int(connection.execute(text("select max(number) from revisions")).scalar() or 0)
        if "settings" in known.tables:
            row = connection.execute(select(known.tables["settings"]).where(text("name = 'authority'"))).first()
            parts.authority = str(row.value["authority"]) if row is not None else ""
        connection.rollback()
    return parts


def _rows(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    order = [*table.primary_key.columns] or [*table.columns]
    found = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table).order_by(*order))
    for row in found.mappings():
        yield {str(name): _plain(value) for name, value in row.items()}


def gzip_lines(rows: Iterator[Mapping[str, Any]]) -> tuple[bytes, int]:
    """Give rows as gzipped lines of JSON, and how many they are."""
    buffer, count = io.BytesIO(), 0
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed:
        for row in rows:
            packed.write(json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
            count += 1
    return buffer.getvalue(), count


def _part(work: Path, name: str, data: bytes, rows: int) -> Part:
    (work / name).write_bytes(data)
    return Part(name, sha256(data).hexdigest(), len(data), rows)


def _write_tar(file: Path, work: Path, manifest: Manifest) -> None:
    told = {**{name: getattr(manifest, name) for name in Manifest.__slots__}, "parts": None}
    told["parts"] = [{name: getattr(part, name) for name in Part.__slots__} for part in manifest.parts]
    head = json.dumps(told, indent=1).encode()
    handle, temporary = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for name, data in ((MANIFEST, head), (MANIFEST_SUM, sha256(head).hexdigest().encode())):
                    _add(tar, name, data, manifest.taken)
                for part in manifest.parts:
                    _add(tar, part.name, (work / part.name).read_bytes(), manifest.taken)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync(file.absolute().parent)


def _add(tar: tarfile.TarFile, name: str, data: bytes, at: float) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(data), int(at), 0o600
    tar.addfile(member, io.BytesIO(data))


# --- from the file ---


def read_manifest(file: Path) -> Manifest:
    """Read what a backup says of itself, and look at every part of it. Raises `ControllerError`."""
    with _opened(file) as tar:
        manifest = _manifest(tar, file)
        for part in manifest.parts:
            data = _member(tar, part.name, file)
            if len(data) != part.bytes or sha256(data).hexdigest() != part.sha256:
                raise ControllerError(f"`{file}` is damaged: its part `{part.name}` is not what was written")
    return manifest


def restore_backup(file: Path, data: Path, url: str, passphrase: str | None, *, keys: bool = True) -> Manifest:
    """Make the state of a backup that of a controller that has none: all of it, or nothing.

    Raises `ControllerError`, `StateError` and `OSError`."""
    manifest = check_restore(file, data, url)
    opened: dict[str, bytes] = {}
    if keys and manifest.has_keys:
        if not passphrase:
            raise ControllerError("the keys are sealed: give --passphrase-file, or leave them out by --without-keys")
        with _opened(file) as tar:
            opened = unseal(_member(tar, KEYS, file), passphrase)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = data.stat()
    with tempfile.TemporaryDirectory(dir=data, prefix=".restore-") as work:
        # First a database of the backup's own schema, so that the migrations see what they were written for.
        path = Path(work) / "state.db"
        _load(file, manifest, path)
        if url:
            _copy(path, url)
        else:
            os.replace(path, data / "state.db")
            _sync(data)
    for name, content in opened.items():
        _write_key(data / "keys", name, content)
    # It is of a log that went on from here, and is not this one.
    (data / "keys" / "audit.head").unlink(missing_ok=True)
    if os.geteuid() == 0:
        # A person restores as root; the controller runs as whoever its folder belongs to, and has to open this.
        for path in (data / "state.db", data / "keys", *(data / "keys").glob("*")):
            if path.exists():
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    return manifest


def check_restore(file: Path, data: Path, url: str) -> Manifest:
    """Say what a restore would bring, or raise `ControllerError` where it cannot be."""
    manifest = read_manifest(file)
    if manifest.schema > newest():
        raise ControllerError(
            f"`{file}` is of schema `{manifest.schema}`, made by version `{manifest.version}`; "
            f"this version knows schemas to `{newest()}`"
        )
    if not url and (data / "state.db").exists():
        raise ControllerError(f"`{data}` holds a state already; restore into another folder, or move `state.db` away")
    if url:
        engine = open_postgresql(url)
        try:
            with engine.connect() as connection:
                known = MetaData()
                known.reflect(connection)
                held = [table.name for table in known.sorted_tables if _holds(connection, table)]
        except SQLAlchemyError as error:
            raise StateError(f"the database cannot be read: {said(error)}") from None
        else:
            if held:
                raise ControllerError(f"the database holds a state already, in `{held[0]}`; restore into an empty one")
        finally:
            engine.dispose()
    return manifest


def _holds(connection: Connection, table: Table) -> bool:
    return table.name not in OF_THE_MOMENT and connection.execute(select(table).limit(1)).first() is not None


def _load(file: Path, manifest: Manifest, path: Path) -> None:
    engine = open_sqlite(path)
    try:
        with engine.begin() as connection:
            migrate(connection, manifest.schema)
            known = MetaData()
            known.reflect(connection)
            with _opened(file) as tar:
                for name in manifest.rows:
                    if name not in known.tables:
                        raise ControllerError(f"`{file}` holds a table `{name}` that its schema has not")
                    columns = known.tables[name].columns
                    binary = frozenset(one.name for one in columns if isinstance(one.type, LargeBinary))
                    lines = gzip.decompress(_member(tar, f"tables/{name}.jsonl.gz", file)).splitlines()
                    for start in range(0, len(lines), ROWS_AT_ONCE):
                        rows = [_read(line, binary) for line in lines[start : start + ROWS_AT_ONCE]]
                        connection.execute(insert(known.tables[name]), rows)
            migrate(connection)
        with engine.connect() as connection:
            connection.exec_driver_sql("pragma wal_checkpoint(truncate)")
            connection.exec_driver_sql("pragma journal_mode=delete")
    finally:
        engine.dispose()


def _copy(path: Path, url: str) -> None:
    source, target = open_sqlite(path), Database(open_postgresql(url, LARGE_STATEMENT_MS))
    try:
        with source.connect() as reading, target.transaction():
            reading.exec_driver_sql("begin")
            migrate(target.connection)
            known = MetaData()
            known.reflect(target.connection)
            for table in known.sorted_tables:
                if table.name in OF_THE_MOMENT:
                    continue
                there = MetaData()
                there.reflect(reading, only=[table.name])
                # The same columns: both are of the newest schema.
                rows = [dict(row) for row in reading.execute(select(there.tables[table.name])).mappings()]
                for start in range(0, len(rows), ROWS_AT_ONCE):
                    target.add(table, *rows[start : start + ROWS_AT_ONCE])
                _count_on(target.connection, table)
    finally:
        source.dispose()
        target.close()


def _count_on(connection: Connection, table: Table) -> None:
    """Let PostgreSQL's own numbers go on after those that were copied."""
    for column in table.primary_key.columns:
        if isinstance(column.type, Integer) and column.server_default is not None:
            connection.execute(
                text(
                    f"select setval(pg_get_serial_sequence('\"{table.name}\"', '{column.name}'), "  # noqa: S608
                    f'(select coalesce(max("{column.name}"), 0) + 1 from "{table.name}"), false)'
                )
            )


# --- the keys ---


def seal(files: Mapping[str, bytes], passphrase: str) -> bytes:
    """Encrypt files with a passphrase: scrypt (RFC 7914, N 2^15), then AES-256-GCM."""
    salt, nonce = os.urandom(16), os.urandom(12)
    plain = json.dumps({name: b64encode(content).decode() for name, content in files.items()}).encode()
    return salt + nonce + AESGCM(_derive(passphrase, salt)).encrypt(nonce, plain, _SEALED_FOR)


def unseal(data: bytes, passphrase: str) -> dict[str, bytes]:
    """Give the files that `seal` encrypted. Raises `ControllerError`."""
    salt, nonce, sealed = data[:16], data[16:28], data[28:]
    try:
        plain = AESGCM(_derive(passphrase, salt)).decrypt(nonce, sealed, _SEALED_FOR)
    except (InvalidTag, ValueError):
        raise ControllerError("the keys cannot be unsealed: the passphrase is another one") from None
    found = cast("dict[str, str]", json.loads(plain))
    return {name: b64decode(found[name]) for name in KEY_FILES if name in found}


def _derive(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(passphrase.encode())


def _write_key(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / name)
    _sync(folder)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- reading a tar that anybody may have written ---


def _opened(file: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(file, mode="r:")
    except (OSError, tarfile.TarError) as error:
        why = getattr(error, "strerror", None) or "it is no backup"
        raise ControllerError(f"`{file}` cannot be read: {str(why).lower()}") from None


def _member(tar: tarfile.TarFile, name: str, file: Path, most: int | None = None) -> bytes:
    try:
        member = tar.getmember(name)
        held = tar.extractfile(member) if member.isfile() and (most is None or member.size <= most) else None
        if held is not None:
            return held.read()
    except (KeyError, OSError, tarfile.TarError):
        pass
    raise ControllerError(f"`{file}` is no backup, or a damaged one: it has no part `{name}`")


def _manifest(tar: tarfile.TarFile, file: Path) -> Manifest:
    head = _member(tar, MANIFEST, file, MOST_MANIFEST)
    if sha256(head).hexdigest().encode() != _member(tar, MANIFEST_SUM, file, 64):
        raise ControllerError(f"`{file}` is damaged: its manifest is not what was written")
    try:
        told = json.loads(head)
        if told["format"] != FORMAT:
            raise ControllerError(f"`{file}` is a backup of format `{told['format']}`; wanted {FORMAT}")
        parts = tuple(Part(**part) for part in cast("Sequence[dict[str, Any]]", told.pop("parts")))
        return Manifest(**told, parts=parts)
    except (ValueError, KeyError, TypeError):
        raise ControllerError(f"`{file}` is no backup, or a damaged one: its manifest cannot be read") from None


def _plain(value: Any) -> Any:
    return {"$bytes": b64encode(value).decode()} if isinstance(value, bytes) else value


def _read(line: bytes, binary: frozenset[str]) -> dict[str, Any]:
    return {
        name: b64decode(value["$bytes"]) if name in binary and value is not None else value
        for name, value in json.loads(line).items()
    }
