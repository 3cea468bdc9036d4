"""The controller's folder: one controller at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cellwall.controller.errors import ControllerError


@contextmanager
def held(data: Path) -> Generator[None]:
    """Make the folder where there is none, and hold it for as long as the block runs.

    Raises `ControllerError` when another controller holds it, and changes nothing then. The lock ends with the
    process, however that ends (flock(2)); the flow store's process does not inherit it."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ControllerError(f"`{data}`: {(error.strerror or str(error)).lower()}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ControllerError(f"another controller runs on `{data}`; each wants a folder of its own") from None
        yield
    finally:
        os.close(handle)
