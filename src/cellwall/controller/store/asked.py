"""By what request something is written to the audit log: who asks, from where and by what way."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

ASKED: ContextVar[Mapping[str, object]] = ContextVar("asked", default={})  # noqa: B039 - nobody can change a Mapping
"""What goes into the details of each entry under `asked`, while a request is answered; empty where none is."""


def with_asked(details: Mapping[str, object] | None) -> dict[str, object]:
    """Give the details of an entry, with the request that it is for."""
    asked = ASKED.get()
    return {**(details or {}), **({"asked": dict(asked)} if asked else {})}
