"""Routes of the audit log: what was done, whether the log is whole, and the signatures of its head."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from cellwall.controller.access.kept_head import kept_head, sign_and_keep
from cellwall.controller.access.trail import Check, pages
from cellwall.controller.api.desk import MOST_ITEMS, TheDesk, listed, moment
from cellwall.controller.api.shapes import audit_shape
from cellwall.controller.store.state import AuditEntry

router = APIRouter(prefix="/audit")
LOOKED_AT = 100_000
"""So many entries are looked at for one answer; the next goes on from there."""


@router.get("")
async def audit(
    desk: TheDesk,
    limit: Annotated[int, Query(ge=1, le=MOST_ITEMS)] = 100,
    cursor: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    since: str | None = None,
    by: str | None = None,
    action: str | None = None,
) -> dict[str, Any]:
    """List what was done, the newest first; each entry's hash covers the one before it."""
    start, found, looked = moment(since, desk.clock(), 0.0), list[AuditEntry](), 0
    while len(found) < limit and looked < LOOKED_AT:
        some = desk.control.store.audit(min(1000, limit if by is action is None else 1000), cursor)
        for entry in some:
            cursor, looked = entry.number, looked + 1
            if entry.at < start:
                return listed([audit_shape(one) for one in found])
            if by in (None, entry.author) and action in (None, entry.action):
                found.append(entry)
                if len(found) == limit:
                    break
        if not some:
            break
        await asyncio.sleep(0)
    more = cursor is not None and cursor > 1 and (len(found) == limit or looked >= LOOKED_AT)
    return listed([audit_shape(one) for one in found], str(cursor) if more else None)


@router.get("/verify")
async def verify(desk: TheDesk) -> dict[str, Any]:
    """Check the whole log against its hashes and the signatures of its head, and sign it as far as it goes."""
    authority, store = desk.control.authority, desk.control.store
    key, kept = authority.bundle_key, kept_head(authority.folder)
    # What is kept beside the keys tells of a log that was cut with the heads in its own database.
    checked = Check((*desk.heads.heads(), *((kept,) if kept is not None else ())), key.public_key())
    for some in pages(store):
        checked.take(some)
        await asyncio.sleep(0)
    found = checked.verdict()
    if found.broken_at is None:
        sign_and_keep(store, desk.heads, key, authority.folder, desk.clock())
    return {"whole": found.broken_at is None, **asdict(found)}


@router.get("/checkpoints")
async def checkpoints(desk: TheDesk) -> dict[str, Any]:
    """List the signatures of the log's head, the newest first: keep one elsewhere, and the log cannot be cut behind it.

    Each is Ed25519 by the key of bundles over `cellwall audit head 1`, number, hash and time, one a line."""
    return {**listed([asdict(one) for one in desk.heads.heads()]), "key": desk.control.authority.verify_key.hex()}
