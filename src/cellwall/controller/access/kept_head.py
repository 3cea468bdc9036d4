"""The newest signed head of the audit log, beside the keys: who owns the database alone cannot cut behind it."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwall.controller.access.trail import sign_head
from cellwall.controller.store.heads import Head, HeadStore
from cellwall.controller.store.state import StateStore

NAME = "audit.head"


def kept_head(folder: Path) -> Head | None:
    """Give the head that is kept in `folder`; None where none is, or none that can be read."""
    try:
        return Head(**json.loads((folder / NAME).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _keep(folder: Path, head: Head) -> None:
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{NAME}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(head), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / NAME)


def sign_and_keep(
    store: StateStore, heads: HeadStore, key: Ed25519PrivateKey, folder: Path, now: float
) -> tuple[Head | None, bool]:
    """Sign the last entry where no head reaches so far, and keep that head; the head, and whether it could be kept.

    It could not where the entry that was signed last is not there any more, or another: somebody cut the log, and the
    head that tells so stays. Raises `StateError` and `OSError`."""
    before = kept_head(folder)
    entry = next(iter(store.audit(1, before.number + 1)), None) if before is not None else None
    cut = before is not None and (entry is None or (entry.number, entry.hash) != (before.number, before.hash))
    head = sign_head(store, heads, key, now)
    newest = head or heads.newest()
    if newest is not None and newest != before and not cut:
        _keep(folder, newest)
    return head, not cut
