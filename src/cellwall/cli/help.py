"""How help is laid out: commands in groups, each with examples."""

from __future__ import annotations

SEE, FLEET, POLICY, PROGRAMS, LAB = "Look", "Fleet", "Policy", "Programs", "Try it"
EMERGENCY = "In an emergency"


def examples(*lines: str) -> str:
    """Give the epilogue of a command: its examples, one a line."""
    return "\n".join(("Examples:", *(f"  {line}" for line in lines))).replace("[", r"\[")
