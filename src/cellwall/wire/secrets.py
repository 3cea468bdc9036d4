"""What no log, answer or bundle of ours may show: secrets are known by their form, and by the name they stand under."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

HIDDEN = "[hidden]"

_FORMS = re.compile(
    r"(?P<enrolment>cw1\.[0-9a-fA-F]{8,64}\.)[A-Za-z0-9_-]+"
    # Tokens of people and of their sessions: a short word of ours, then many random characters.
    r"|(?P<people>\bcw[a-z]{1,4}_)[A-Za-z0-9_.-]{16,}"
    r"|(?P<begin>-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----)(?:[^-]|-(?!----END))*(?:-----END [A-Z0-9 ]*PRIVATE KEY-----)?"
    r"|(?P<header>(?i:\b(?:bearer|basic) ))[A-Za-z0-9._~+/=-]{8,}"
    # The password in a URL: `postgresql://user:password@host`.
    r"|(?P<url>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)"
)
_NAMES = re.compile(
    r"(?i)(?:^|[_-])(?:secret|secrets|password|passwd|passphrase|token|tokens|cookie|authorization|credential|"
    r"credentials|private|verifier|assertion)(?:$|[_-](?:key|pem|value|hash|text)$)|(?:^|_)(?:csrf|signing|private)_key$"
)


def redact(text: str) -> str:
    """Give `text` with every secret in it hidden: tokens, private keys, authorization, passwords in URLs."""
    return _FORMS.sub(_hide, text)


def redacted(value: object, name: str = "") -> object:
    """Give a value as JSON would hold it, with secrets hidden: by form in texts, by name in mappings.

    A number, a boolean and null under such a name stay: `tokens: 3` is no secret. What is of no kind of JSON becomes
    its text."""
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value)
        return {redact(str(key)): redacted(one, str(key)) for key, one in pairs.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(one, name) for one in cast("tuple[object, ...]", tuple(value))]  # pyright: ignore[reportUnknownArgumentType]
    return HIDDEN if value and _NAMES.search(name) else redact(str(value))


def _hide(found: re.Match[str]) -> str:
    kept = next(one for one in found.groups() if one is not None)
    return f"{kept}{HIDDEN}"
