"""The central program: it holds inventory and policy, tells agents what to enforce, and keeps what they report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellwall.controller.errors import ControllerError
from cellwall.controller.options import ControllerOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from cellwall.controller.loop import Controller

__all__ = ["ControllerError", "ControllerOptions", "run_controller"]


def run_controller(options: ControllerOptions, ready: Callable[[Controller], None] | None = None) -> None:
    """Run a controller until SIGTERM or SIGINT; see `cellwall.controller.loop`. Raises `CellwallError`."""
    # Here and not above: the web framework and the database are large, and whoever asks for options needs neither.
    from cellwall.controller.loop import run_controller as run

    run(options, ready)
