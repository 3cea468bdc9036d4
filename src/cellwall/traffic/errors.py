"""The one family of errors."""

from __future__ import annotations


class CellwallError(Exception):
    """What every error of Cellwall derives from: one line, lower case, in the user's words."""
