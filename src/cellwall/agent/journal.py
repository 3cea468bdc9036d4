"""What must survive the agent: the last good bundle, the provisional one with its end, and changes of members since.

The file is a line of magic, then records: four bytes of length, one of kind, sixteen of checksum, the payload. A
checksum covers the one before it, so records cannot be mixed up. `save` writes the whole file beside the old one and
renames it over; `append` adds one record at its end. Whatever the moment of a crash, what can be read is a state that
was saved: the old or the new one; an append that was cut short counts as not made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import IntEnum
from hashlib import blake2b
from pathlib import Path
from struct import Struct, error

import msgspec

from cellwall.agent.bundle import Bundle, amend, open_bundle
from cellwall.agent.events import SaveJournal, Started
from cellwall.traffic import CellwallError
from cellwall.wire import (
    Bundle as BundleMessage,
)
from cellwall.wire import (
    MemberChange,
    WireError,
    decode_from_controller,
    decode_members,
    decode_orders,
    encode_members,
    encode_orders,
    sum_members,
    verify,
)

_MAGIC = b"cellwall journal 1\n"
_HEAD = Struct(">IB16s")
_GROWN = 1 << 20


class _Kind(IntEnum):
    STATUS = 1
    GOOD = 2
    TRIAL = 3
    MEMBERS = 4
    WHOLE = 5
    CHANGE = 6


class JournalError(CellwallError):
    """The journal could not be written; the file is as it was before."""


class _Status(msgspec.Struct, array_like=True, frozen=True):
    highest: int
    until: float
    issued: float = 0.0


class _Snapshot(msgspec.Struct, array_like=True, frozen=True):
    generation: int
    revision: int
    members: bytes
    orders: bytes | None = None


@dataclass
class _Read:
    """What has been read so far; `ends` is where the last good record ends, `chain` its checksum."""

    status: _Status | None = None
    good: Bundle | None = None
    trial: Bundle | None = None
    whole: bool = False
    changes: list[MemberChange] = field(default_factory=list[MemberChange])
    ends: int = 0
    chain: bytes = b""


class Journal:
    """The journal in `folder`, of `workload`, whose controller signs with `key` (raw Ed25519, 32 bytes)."""

    def __init__(self, folder: Path, workload: str, key: bytes) -> None:
        """Touch nothing yet."""
        self.path = folder / "journal"
        self._workload = workload
        self._key = key
        self._chain = b""
        self._ends = 0
        self._base = 0

    @property
    def grown(self) -> bool:
        """Whether so much was appended that it is time to `save`."""
        return self._ends - self._base > max(_GROWN, self._base)

    def load(self) -> Started:
        """Read it, as far as it can be read. What is damaged is set aside as `journal.damaged` and said, not raised."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Started()
        except OSError as failed:
            return Started(damage=f"`{self.path}`: {_said(failed)}")
        read = _Read()
        damage = ""
        try:
            for kind, payload in _records(data, read):
                self._take(read, kind, payload)
            if not read.whole:
                damage = "it ends too early"
        except (CellwallError, msgspec.MsgspecError) as failed:
            damage = str(failed)
        try:
            if read.trial is not None:
                read.trial = amend(read.trial, read.changes)
            elif read.good is not None:
                read.good = amend(read.good, read.changes)
        except WireError as failed:
            damage = damage or str(failed)
        status = read.status or _Status(0, 0.0)
        if damage:
            self._set_aside(data)
        self._chain, self._ends, self._base = read.chain, read.ends, read.ends
        if damage or len(data) > read.ends:
            with suppress(JournalError):
                self.save(SaveJournal(read.good, read.trial, status.until, status.highest))
        highest = max([status.highest, *(change.generation for change in read.changes)])
        issued = max([status.issued, *(one.issued_at for one in (read.good, read.trial) if one is not None)])
        return Started(read.good, read.trial, status.until, highest, damage, issued)

    def save(self, snapshot: SaveJournal) -> None:
        """Write it anew, all or nothing. Raises `JournalError`."""
        parts = [_MAGIC]
        chain = _MAGIC
        for kind, payload in _layout(snapshot):
            chain = _checksum(chain, kind, payload)
            parts += (_HEAD.pack(len(payload), kind, chain), payload)
        beside = self.path.with_name("journal.new")
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, self.path)
            _sync_folder(self.path.parent)
        except OSError as failed:
            raise JournalError(f"`{self.path}`: {_said(failed)}") from None
        self._chain, self._ends = chain, sum(map(len, parts))
        self._base = self._ends

    def append(self, signed: bytes) -> None:
        """Add one change of members, as it was signed. Raises `JournalError`."""
        chain = _checksum(self._chain, _Kind.CHANGE, signed)
        record = _HEAD.pack(len(signed), _Kind.CHANGE, chain) + signed
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                # What an earlier append left half done goes first.
                os.ftruncate(file, self._ends)
                if os.pwrite(file, record, self._ends) != len(record):
                    raise JournalError(f"`{self.path}`: no room")
                os.fdatasync(file)
            finally:
                os.close(file)
        except OSError as failed:
            raise JournalError(f"`{self.path}`: {_said(failed)}") from None
        self._chain, self._ends = chain, self._ends + len(record)

    def erase(self) -> None:
        """Forget everything. Raises `JournalError`."""
        try:
            self.path.unlink(missing_ok=True)
            _sync_folder(self.path.parent)
        except OSError as failed:
            raise JournalError(f"`{self.path}`: {_said(failed)}") from None
        self._chain, self._ends, self._base = b"", 0, 0

    def _take(self, read: _Read, kind: int, payload: bytes) -> None:
        match kind:
            case _ if kind != _Kind.CHANGE and read.whole:
                raise JournalError("a record where only changes of members may be")
            case _Kind.STATUS:
                read.status = msgspec.msgpack.decode(payload, type=_Status)
            case _Kind.GOOD:
                read.good = self._bundle(payload)
            case _Kind.TRIAL:
                read.trial = self._bundle(payload)
            case _Kind.MEMBERS:
                if read.trial is not None:
                    read.trial = _with_members(read.trial, payload)
                elif read.good is not None:
                    read.good = _with_members(read.good, payload)
            case _Kind.WHOLE:
                read.whole = True
            case _Kind.CHANGE:
                message = decode_from_controller(payload)
                if not isinstance(message, MemberChange):
                    raise JournalError("a record that is no change of members")
                read.changes.append(verify(message, self._key, self._workload))
            case _:
                raise JournalError(f"a record of unknown kind {kind}")

    def _bundle(self, signed: bytes) -> Bundle:
        message = decode_from_controller(signed)
        if not isinstance(message, BundleMessage):
            raise JournalError("a record that is no bundle")
        return open_bundle(verify(message, self._key, self._workload), signed)

    def _set_aside(self, data: bytes) -> None:
        with (
            suppress(OSError),
            open(
                os.open(
                    self.path.with_name("journal.damaged"),
                    os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC,
                    0o600,
                ),
                "wb",
            ) as file,
        ):
            file.write(data)


def _layout(snapshot: SaveJournal) -> Iterator[tuple[int, bytes]]:
    issued = max((one.issued_at for one in (snapshot.good, snapshot.trial) if one is not None), default=0.0)
    yield _Kind.STATUS, msgspec.msgpack.encode(_Status(snapshot.highest, snapshot.until, issued))
    for kind, bundle in ((_Kind.GOOD, snapshot.good), (_Kind.TRIAL, snapshot.trial)):
        if bundle is not None:
            yield kind, bundle.signed
            if bundle.amended:
                orders = encode_orders(bundle.ruleset.orders)
                members = _Snapshot(bundle.generation, bundle.revision, encode_members(bundle.members), orders)
                yield _Kind.MEMBERS, msgspec.msgpack.encode(members)
    yield _Kind.WHOLE, b""


def _with_members(bundle: Bundle, payload: bytes) -> Bundle:
    told = msgspec.msgpack.decode(payload, type=_Snapshot)
    members = decode_members(told.members)
    return replace(
        bundle if told.orders is None else bundle.with_orders(decode_orders(told.orders)),
        generation=told.generation,
        revision=told.revision,
        members=members,
        members_sum=sum_members(members),
        amended=True,
    )


def _records(data: bytes, read: _Read) -> Iterator[tuple[int, bytes]]:
    """Give the records one by one; `read.ends` and `read.chain` follow once one was taken without complaint."""
    if not data.startswith(_MAGIC):
        raise JournalError("it does not begin as a journal does")
    at, chain = len(_MAGIC), _MAGIC
    read.ends, read.chain = at, chain
    while at < len(data):
        try:
            size, kind, checksum = _HEAD.unpack_from(data, at)
        except error:
            return
        start = at + _HEAD.size
        if start + size > len(data):
            return
        payload = data[start : start + size]
        chain = _checksum(chain, kind, payload)
        if chain != checksum:
            if read.whole and start + size == len(data):
                return
            raise JournalError("a record whose checksum is wrong")
        yield kind, payload
        at = start + size
        read.ends, read.chain = at, chain


def _checksum(chain: bytes, kind: int, payload: bytes) -> bytes:
    return blake2b(chain + bytes((kind,)) + payload, digest_size=16).digest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _said(failed: OSError) -> str:
    return os.strerror(failed.errno).lower() if failed.errno else str(failed).lower()
