"""Parts of a rule as the YAML that a document has for them, on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from cellwall.policy import Who

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./=:-]*")
_NOT_PLAIN = frozenset({"null", "~"})


def scalar(text: str) -> str:
    """Write a text, in quotes where YAML would read something else."""
    plain = _PLAIN.fullmatch(text) and not text.endswith(":") and text not in _NOT_PLAIN
    return text if plain else json.dumps(text, ensure_ascii=False)


def one_or_list(texts: Iterable[str]) -> str:
    """Write one item as it is, several as a list; they are YAML already."""
    made = tuple(texts)
    return made[0] if len(made) == 1 else f"[{', '.join(made)}]"


def end_text(whos: Iterable[Who]) -> str:
    """Write an end of a rule, for `from` or `to`."""
    return one_or_list(_who(who) for who in whos)


def _who(who: Who) -> str:
    where = scalar(f"network:{who.network.name}" if who.network else str(who.selector) if who.selector else "any")
    if not who.identity:
        return where
    named = (("user", who.identity.user), ("unit", who.identity.unit), ("exe", who.identity.exe))
    asked = ", ".join(f"{key}: {scalar(value)}" for key, value in named if value is not None)
    return f"{{workloads: {where}, as: {{{asked}}}}}"
