"""What a support bundle wants to know of a controller, without secrets; for administrators."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter

from cellwall import __version__
from cellwall.clients import exposition
from cellwall.controller.api.desk import Desk, TheDesk, jsonable
from cellwall.controller.api.health import probe, standings
from cellwall.controller.errors import StateError
from cellwall.wire import redacted

router = APIRouter(tags=["operations"])
PACKAGES = ("chdb", "cryptography", "fastapi", "msgspec", "pg8000", "sqlalchemy", "starlette", "uvicorn", "websockets")
AUDITED = 200
"""So many of the last entries of the audit log are given, without their details."""


@router.get("/support")
async def support(desk: TheDesk) -> dict[str, Any]:
    """Give what helps to find a fault: versions, options, health, metrics, the last log lines, the audit log's end."""
    parts = await probe(desk)
    families = desk.metrics.families(_or_none(desk), {one.name: one.well for one in parts})
    told: dict[str, Any] = {
        "versions": {"cellwall": __version__, "python": platform.python_version(), **_versions(PACKAGES)},
        "options": jsonable(asdict(desk.control.options)),
        "health": {one.name: one.why or "well" for one in parts},
        "database": {"kind": desk.control.store.database.dialect, "errors": desk.control.store.database.errors},
        "pressure": desk.channel.pressure(),
        "threads": sorted(one.name for one in threading.enumerate()),
        "metrics": exposition(families),
        "log": list(desk.log_lines()),
        "audit": _audit(desk),
    }
    found = redacted(told)
    assert isinstance(found, dict)
    return found  # pyright: ignore[reportUnknownVariableType]


def _or_none(desk: Desk) -> Any:
    try:
        return standings(desk)
    except StateError:
        return None


def _audit(desk: Desk) -> list[dict[str, Any]]:
    try:
        found = desk.control.store.audit(AUDITED)
    except StateError:
        return []
    return [
        {"number": one.number, "at": one.at, "author": one.author, "action": one.action, "hash": one.hash}
        for one in found
    ]


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in packages:
        try:
            found[one] = version(one)
        except PackageNotFoundError:
            continue
    return found
