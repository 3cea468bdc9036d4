"""Where in a document something stands, and what is wrong there."""

from __future__ import annotations

from dataclasses import dataclass

from cellwall.traffic import CellwallError


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a document; line and column count from 1."""

    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class PolicyError(CellwallError):
    """What is wrong with a document, and where; the author's move."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place
        self.message = message
