"""The inventory in memory: what was written stands here too, so that nobody reads all of it for one change.

    put, drop ──▶ rows, labels ──▶ Workload (made anew for what was written; all others are the same objects)

The store reads it once, when it is opened, and writes here and to its tables in one go; a write that fails is undone
in both.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from cellwall.controller.store.state import LabelRow, LabelSource, WorkloadRow
from cellwall.inventory import Workload
from cellwall.labels import Labels
from cellwall.traffic import Address

_PRECEDENCE = {source: place for place, source in enumerate(LabelSource)}
_Labels = Mapping[tuple[str, LabelSource], LabelRow]
_NAME = attrgetter("name")


@dataclass(frozen=True, slots=True)
class _Held:
    """All that is known of one name; values only, so that what was before can be put back."""

    row: WorkloadRow | None
    labels: _Labels
    workload: Workload | None


_NOTHING = _Held(None, {}, None)


class Roster:
    """Workloads and their labels, as the tables hold them."""

    def __init__(self, rows: Iterable[WorkloadRow], labels: Iterable[LabelRow]) -> None:
        self._held: dict[str, _Held] = {}
        self._ordered: list[Workload] = []
        self._inventory: tuple[Workload, ...] | None = ()
        self._having: dict[Address, set[str]] = defaultdict(set)
        self._before: dict[str, _Held] = {}
        by_name: dict[str, dict[tuple[str, LabelSource], LabelRow]] = defaultdict(dict)
        for one in labels:
            by_name[one.workload][one.key, one.source] = one
        for row in rows:
            self._set(row.name, row, by_name.pop(row.name, {}))
        for name, of_nobody in by_name.items():
            self._set(name, None, of_nobody)
        self.keep()

    # --- reading ---

    def rows(self) -> tuple[WorkloadRow, ...]:
        """Give all rows, in order of name."""
        return tuple(row for name in sorted(self._held) if (row := self._held[name].row) is not None)

    def row(self, name: str) -> WorkloadRow | None:
        """Give one row."""
        return self._held.get(name, _NOTHING).row

    def labels(self, name: str | None = None) -> tuple[LabelRow, ...]:
        """Give all labels, or those of one workload, in order of workload, key and precedence."""
        found = (
            [self._held.get(name, _NOTHING)] if name is not None else [self._held[one] for one in sorted(self._held)]
        )
        return tuple(label for held in found for label in _in_order(held.labels))

    def inventory(self) -> tuple[Workload, ...]:
        """Give all workloads with the labels that hold, in order of name: the same tuple while nothing changes."""
        if self._inventory is None:
            self._inventory = tuple(self._ordered)
        return self._inventory

    def having(self, address: Address) -> tuple[WorkloadRow, ...]:
        """Give the workloads that have an address, in order of name."""
        return tuple(row for name in sorted(self._having.get(address, ())) if (row := self._held[name].row) is not None)

    # --- writing ---

    def put(self, row: WorkloadRow) -> None:
        """Add a workload, or replace it."""
        self._set(row.name, row, self._held.get(row.name, _NOTHING).labels)

    def drop(self, name: str) -> None:
        """Forget a workload and its labels."""
        self._set(name, None, {})

    def put_label(self, label: LabelRow) -> None:
        """Set a label from one source."""
        held = self._held.get(label.workload, _NOTHING)
        self._set(label.workload, held.row, {**held.labels, (label.key, label.source): label})

    def drop_label(self, name: str, key: str) -> None:
        """Remove a label, whatever its sources."""
        held = self._held.get(name, _NOTHING)
        self._set(name, held.row, {at: label for at, label in held.labels.items() if label.key != key})

    def changed(self) -> tuple[tuple[str, Workload | None], ...]:
        """Give the workloads that are others than when the present write began; None where one is no more."""
        return tuple(
            (name, after)
            for name, before in self._before.items()
            if (after := self._held.get(name, _NOTHING).workload) is not before.workload
        )

    def touched(self) -> tuple[str, ...]:
        """Give the names that the present write set anything of."""
        return tuple(self._before)

    def take(self, name: str, row: WorkloadRow | None, labels: Iterable[LabelRow]) -> None:
        """Hold what another controller wrote of one name, before anything is written of it here."""
        self._set(name, row, {(one.key, one.source): one for one in labels})
        self._before.pop(name)

    def keep(self) -> None:
        """End a write: what was before is forgotten."""
        self._before.clear()

    def undo(self) -> None:
        """End a write: what was before is put back."""
        for name, held in self._before.items():
            self._put_back(name, held)
        self._before.clear()

    # --- within ---

    def _set(self, name: str, row: WorkloadRow | None, labels: _Labels) -> None:
        held = self._held.get(name, _NOTHING)
        before = self._before.setdefault(name, held)
        made = None if row is None else Workload(name, effective(labels), row.addresses, row.agent, row.epoch)
        # Whatever led there: what is as before is the same object.
        made = next((one for one in (held.workload, before.workload) if one == made), made)
        self._put_back(name, _Held(row, labels, made))

    def _put_back(self, name: str, held: _Held) -> None:
        old = self._held.get(name, _NOTHING).workload
        if held.row is None and not held.labels:
            self._held.pop(name, None)
        else:
            self._held[name] = held
        if held.workload is old:
            return
        self._inventory = None
        at = bisect_left(self._ordered, name, key=_NAME)
        self._ordered[at : at + (old is not None)] = [] if held.workload is None else [held.workload]
        for address in old.addresses if old else ():
            self._having[address].discard(name)
            if not self._having[address]:
                del self._having[address]
        for address in held.workload.addresses if held.workload else ():
            self._having[address].add(name)


def effective(labels: _Labels) -> Labels:
    """Give the labels that hold: of several for one key, that of the source that comes first."""
    found: dict[str, str] = {}
    for label in _in_order(labels):
        found.setdefault(label.key, label.value)
    return Labels(found)


def _in_order(labels: _Labels) -> list[LabelRow]:
    return sorted(labels.values(), key=lambda one: (one.key, _PRECEDENCE[one.source]))
