"""Labels: one value per key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from cellwall.traffic import CellwallError

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class LabelError(CellwallError):
    """A label or a selector that cannot be read."""


def check_key(key: str) -> str:
    """Return `key` if it is a Kubernetes label key (optional DNS prefix and `/`, name of 1 to 63); else raise."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix)):
        raise LabelError(f"`{key}` is not a label key: its prefix is not a DNS name")
    if len(name) > 63 or not _NAME.fullmatch(name):
        raise LabelError(f"`{key}` is not a label key: letters, digits, `-`, `_`, `.`, at most 63")
    return key


def check_value(value: str) -> str:
    """Return `value` if it is a Kubernetes label value (empty, or a name of at most 63); else raise."""
    if len(value) > 63 or (value and not _NAME.fullmatch(value)):
        raise LabelError(f"`{value}` is not a label value: letters, digits, `-`, `_`, `.`, at most 63")
    return value


class Labels(Mapping[str, str]):
    """An immutable, hashable mapping of label keys to values, in order of keys."""

    __slots__ = ("_hash", "_map", "pairs")

    pairs: tuple[tuple[str, str], ...]

    def __init__(self, labels: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = tuple(sorted(dict(labels).items()))
        self._map: dict[str, str] = dict(self.pairs)
        for key, value in self.pairs:
            check_key(key)
            check_value(value)
        self._hash = hash(self.pairs)

    def __getitem__(self, key: str) -> str:
        return self._map[key]

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """Give the value of `key`, or `default`; as the mapping's own, and faster."""
        return self._map.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._map)

    def __len__(self) -> int:
        return len(self._map)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self.pairs == other.pairs if isinstance(other, Labels) else NotImplemented

    def __repr__(self) -> str:
        return f"Labels({str(self)!r})"

    def __str__(self) -> str:
        return ",".join(f"{key}={value}" for key, value in self.pairs)

    def but(self, **changes: str | None) -> Labels:
        """Give these labels with some set, or removed where the value is None."""
        return self.updated(changes)

    def updated(self, changes: Mapping[str, str | None]) -> Labels:
        """Give these labels with some set, or removed where the value is None."""
        merged: dict[str, str | None] = {**self._map, **changes}
        return Labels({key: value for key, value in merged.items() if value is not None})

    def only(self, keys: Iterable[str]) -> Labels:
        """Give these labels reduced to `keys`."""
        return Labels({key: self._map[key] for key in keys if key in self._map})


def parse_labels(text: str) -> Labels:
    """Read `app=shop,env=prod`; raises `LabelError`."""
    pairs: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise LabelError(f"`{part}` is not a label; wanted `key=value`")
        if key in pairs:
            raise LabelError(f"`{key}` is given twice")
        pairs[key] = value
    return Labels(pairs)
