"""The one family of errors."""

from __future__ import annotations


class CellwallError(Exception):
    """What every error of Cellwall derives from: one line, lower case, in the user's words."""

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """Give `message` with line breaks and control characters written out: the words of others may hold some."""
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
