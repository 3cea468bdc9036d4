"""The flows of the last while on disk, for whoever looks while the controller is away: JSON lines in two files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cellwall.flows import FlowRecord
from cellwall.traffic import point, port_name

MOST_BYTES = 4 << 20


class Ring:
    """Keeps at most twice `most_bytes` of records in `folder`; a full disk costs records, never the agent."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._path = folder / "flows.jsonl"
        self._most = most_bytes

    def add(self, records: Iterable[FlowRecord]) -> None:
        """Append records, oldest first."""
        lines = "".join(json.dumps(_row(record), separators=(",", ":")) + "\n" for record in records)
        if not lines:
            return
        with suppress(OSError):
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with open(handle, "a", encoding="utf-8") as file:
                file.write(lines)
                full = file.tell() >= self._most
            if full:
                os.replace(self._path, self._path.with_suffix(".old.jsonl"))


def recent_flows(folder: Path, most: int = 1000) -> list[dict[str, Any]]:
    """Read the last `most` records that the agent of `folder` collected, oldest first; the agent need not run."""
    rows: list[dict[str, Any]] = []
    for name in ("flows.old.jsonl", "flows.jsonl"):
        rows += _rows(folder / name)
        rows = rows[-most:]
    return rows


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                # The last line may be half written.
                with suppress(ValueError):
                    yield json.loads(line)
    except FileNotFoundError:
        return


def _row(record: FlowRecord) -> dict[str, Any]:
    key = record.key
    row: dict[str, Any] = {
        "first_seen": round(record.first_seen, 3),
        "last_seen": round(record.last_seen, 3),
        "source": str(key.source),
        "destination": str(key.destination),
        "port": port_name(point(key.protocol, key.port)),
        "side": record.side.value,
        "outcome": record.outcome.value,
        "would": record.would.value,
        "rules": list(record.rules),
        "revision": record.revision,
        "connections": record.connections,
        "packets": record.packets,
        "bytes": record.bytes,
    }
    owner = {part: value for part in ("name", "user", "unit", "exe") if (value := getattr(record.process, part))}
    return row | ({"process": owner} if owner else {}) | ({"standing": True} if record.standing else {})
