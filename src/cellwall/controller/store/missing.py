"""Which controllers did not tell what they have seen, while a question is answered: whoever asked is told of them."""

from __future__ import annotations

from contextvars import ContextVar

MISSING: ContextVar[dict[str, str] | None] = ContextVar("missing", default=None)
"""By name of the controller why, for the one question that is answered; None where nobody wants to know."""


def note_missing(name: str, why: str) -> None:
    """Say that the flows of a controller are not in the answer."""
    found = MISSING.get()
    if found is not None:
        found.setdefault(name, why)


def missing() -> frozenset[str]:
    """Give the names of those that were missing in this question already: they are not asked again."""
    return frozenset(MISSING.get() or ())
