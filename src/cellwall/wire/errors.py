"""The one error of the room."""

from __future__ import annotations

from cellwall.traffic import CellwallError


class WireError(CellwallError):
    """Bytes from the other side that are no message, or a message that cannot be true."""
