"""The state folder of a lab: where things are in it, and the lock that lets one change happen at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path

from cellwall.traffic import CellwallError

ROOT_VARIABLE = "CELLWALL_LAB_DIR"
_ROOT = "/run/cellwall-lab"
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done and how much there is."""


class LabError(CellwallError):
    """A lab that cannot be brought up, found or taken down."""


def root() -> Path:
    """Give the folder that holds the state of all labs: `CELLWALL_LAB_DIR`, or `/run/cellwall-lab`."""
    return Path(os.environ.get(ROOT_VARIABLE) or _ROOT).absolute()


def folder_of(lab: str) -> Path:
    """Give the state folder of a lab, there or not."""
    return root() / lab


def names() -> list[str]:
    """Give the names of the labs that have a state folder."""
    return sorted(place.name for place in root().iterdir() if place.is_dir()) if root().is_dir() else []


def scenario_path(folder: Path) -> Path:
    """Give where the scenario that the lab was built from is kept."""
    return folder / "scenario.yaml"


def log_path(folder: Path, key: str) -> Path:
    """Give where a process writes what it has to say."""
    return folder / "log" / (key.replace("/", ".") + ".log")


def report_path(folder: Path, key: str) -> Path:
    """Give where a unit's process reports its traffic; the folder it stands in belongs to the unit's user."""
    return folder / "apps" / key.replace("/", ".") / "report.json"


def socket_path(folder: Path) -> Path:
    """Give the controller's unix socket: who may open it is an administrator of the lab."""
    return folder / "controller.sock"


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file, whole or not at all."""
    fresh = path.with_name(f"{path.name}.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(fresh, path)


def last_line(log: Path) -> str:
    """Give the last line that a process wrote, for an error message."""
    try:
        lines = log.read_text("utf-8", "replace").split("\n")
    except OSError:
        lines = []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it left no word")


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the lab in `folder` for a change, making the folder if need be. Raises `LabError` when it is held."""
    # A program that a killed `up` was just starting keeps the lock for the instant until it is under way.
    deadline = time.monotonic() + 0.5
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise LabError(f"cannot use state folder `{folder}`: {(error.strerror or '').lower()}") from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                raise LabError(f"lab `{folder.name}` is busy: another `up` or `down` is at work on it") from None
            # A `down` may have removed the folder between our opening and locking it.
            if _same(folder, handle):
                yield
                return
        finally:
            os.close(handle)


def _same(folder: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(handle))
    except OSError:
        return False
