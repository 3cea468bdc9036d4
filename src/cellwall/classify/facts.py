"""What is known of a workload from its agent, and what is proposed from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Listening:
    """A port that a workload answers on, and the program behind it; what is not known is empty."""

    protocol: int
    port: int
    process: str = ""
    user: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a workload's agent says of its host: `system` is the operating system in words."""

    services: tuple[Listening, ...] = ()
    hostname: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Proposal:
    """A label that a workload seems to deserve. `id` is made of the other parts, so it stays the same.

    `confidence` is 0 to 1: how strongly the reasons point there, not a probability. `by_hand` proposals must be
    accepted one by one, as a mistake in them widens or narrows an audit's scope."""

    workload: str
    key: str
    value: str
    confidence: float
    reasons: tuple[str, ...]
    by_hand: bool = False

    @property
    def id(self) -> str:
        """The proposal's name: `web-1:role=web`."""
        return f"{self.workload}:{self.key}={self.value}"
