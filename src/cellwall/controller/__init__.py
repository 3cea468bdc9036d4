"""The central program: it holds inventory and policy, tells agents what to enforce, and keeps what they report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellwall.controller.errors import ControllerError
from cellwall.controller.options import ControllerOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cellwall.controller.loop import Controller
    from cellwall.controller.store.backup import Manifest

__all__ = [
    "ControllerError",
    "ControllerOptions",
    "Manifest",
    "check_restore",
    "restore_backup",
    "run_controller",
    "take_backup",
]


def run_controller(options: ControllerOptions, ready: Callable[[Controller], None] | None = None) -> None:
    """Run a controller until SIGTERM or SIGINT; see `cellwall.controller.loop`. Raises `CellwallError`."""
    # Here and not above: the web framework and the database are large, and whoever asks for options needs neither.
    from cellwall.controller.loop import run_controller as run

    run(options, ready)


def take_backup(
    file: Path, data: Path, url: str, passphrase: str | None, version: str, now: float, *, keys: bool = True
) -> Manifest:
    """Write a backup of a controller's state; see `cellwall.controller.store.backup`. Raises `CellwallError`."""
    from cellwall.controller.store.backup import take_backup as take

    return take(file, data, url, passphrase, version, now, keys=keys)


def check_restore(file: Path, data: Path, url: str) -> Manifest:
    """Say what a restore would bring; see `cellwall.controller.store.backup`. Raises `CellwallError`."""
    from cellwall.controller.store.backup import check_restore as check

    return check(file, data, url)


def restore_backup(file: Path, data: Path, url: str, passphrase: str | None, *, keys: bool = True) -> Manifest:
    """Restore a backup; see `cellwall.controller.store.backup`. Raises `CellwallError`."""
    from cellwall.controller.store.backup import restore_backup as restore

    return restore(file, data, url, passphrase, keys=keys)
