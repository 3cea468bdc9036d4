"""Where in a document something stands, and what is wrong there."""

from __future__ import annotations

from dataclasses import dataclass

from cellwall.traffic import CellwallError, one_line

MOST_MESSAGE = 1000


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a document; line and column count from 1."""

    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class PolicyError(CellwallError):
    """What is wrong with a document, and where; the author's move. `others` is what else is wrong beside it."""

    def __init__(self, place: Place, message: str) -> None:
        message = _one_line(message)
        super().__init__(f"{place}: {message}")
        self.place = place
        self.message = message
        self.others: tuple[PolicyError, ...] = ()


def _one_line(message: str) -> str:
    # The user's words may hold line breaks, control characters and half a file.
    if len(message) > MOST_MESSAGE:
        message = f"{message[: MOST_MESSAGE // 2]} … {message[-MOST_MESSAGE // 4 :]}"
    return one_line(message)
