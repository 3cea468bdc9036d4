"""The audit log as evidence: its head signed every so often, and all of it checked.

entry 1 ◀─ entry 2 ◀─ … ◀─ entry n        each one's hash covers the one before it
                              ▲
                 head: number, hash, time, signed with the key of bundles
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cellwall.controller.store.heads import Head, HeadStore
from cellwall.controller.store.state import FIRST_HASH, AuditEntry, StateStore, audit_entry

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What checking the audit log found: how many entries, how far a signed head reaches, and the first that is wrong.

    `broken_at` is None where all are as they were written; `reason` says what is wrong otherwise."""

    entries: int
    heads: int
    signed_to: int
    broken_at: int | None = None
    reason: str = ""


def sign_head(store: StateStore, heads: HeadStore, key: Ed25519PrivateKey, now: float) -> Head | None:
    """Sign the last entry, where no head reaches so far; the new head."""
    last, known = store.audit(1), heads.newest()
    if not last or (known is not None and known.number >= last[0].number):
        return None
    number, digest = last[0].number, last[0].hash
    head = Head(number, digest, now, key.sign(_signed(number, digest, now)).hex())
    heads.put(head)
    return head


def is_signed(head: Head, key: Ed25519PublicKey) -> bool:
    """Say whether a head is by `key`."""
    try:
        key.verify(bytes.fromhex(head.signature), _signed(head.number, head.hash, head.at))
    except (ValueError, InvalidSignature):
        return False
    return True


def _signed(number: int, digest: str, at: float) -> bytes:
    return f"cellwall audit head 1\n{number}\n{digest}\n{at!r}\n".encode()


class Check:
    """Checks the audit log page by page, the newest entries first: `take` them, then ask for the `verdict`."""

    def __init__(self, heads: Sequence[Head], key: Ed25519PublicKey) -> None:
        self._heads = {head.number: head for head in heads}
        self._signed = {head.number for head in heads if is_signed(head, key)}
        self._next: AuditEntry | None = None
        self._count = self._newest = 0
        self._broken: dict[int, str] = {
            number: "its signature is not by this controller's key"
            for number in self._heads
            if number not in self._signed
        }
        self._unmet = set(self._signed)

    def take(self, entries: Sequence[AuditEntry]) -> None:
        """Check entries, each older than those before it."""
        for entry in entries:
            self._newest = self._newest or entry.number
            self._count += 1
            if why := self._fault(entry):
                self._broken[entry.number] = why
            self._next = entry
            self._unmet.discard(entry.number)

    def _fault(self, entry: AuditEntry) -> str:
        follower, head = self._next, self._heads.get(entry.number)
        before = AuditEntry(entry.number - 1, 0.0, "", "", "", {}, "", entry.previous)
        made = audit_entry(before, entry.at, entry.author, entry.action, entry.subject, entry.details)
        if made.hash != entry.hash:
            return "its hash is not that of what it says"
        if follower is not None and (follower.previous, follower.number) != (entry.hash, entry.number + 1):
            self._broken[follower.number] = f"it does not follow from entry {entry.number}"
        if head is not None and entry.number in self._signed and head.hash != entry.hash:
            return "it is not the entry that was signed"
        return ""

    def verdict(self) -> Verdict:
        """Say what was found, once all entries have been taken."""
        first = self._next
        if first is not None and (first.number, first.previous) != (1, FIRST_HASH):
            self._broken[first.number] = "what was before it is missing"
        broken = dict(self._broken)
        for number in self._unmet:
            broken[number] = f"it was signed and is missing: the log ends at {self._newest}"
        found = self._count, len(self._heads), max(self._signed, default=0)
        return Verdict(*found, min(broken), broken[min(broken)]) if broken else Verdict(*found)


def pages(store: StateStore) -> Iterator[Sequence[AuditEntry]]:
    """Give the whole audit log, page by page, the newest entries first."""
    before: int | None = None
    while found := store.audit(PAGE, before):
        yield found
        before = found[-1].number
