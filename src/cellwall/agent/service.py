"""What the agent tells the service manager that started it (sd_notify(3)); without one, nothing."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

READY = "READY=1"
"""What is on disk is in force."""
ALIVE = "WATCHDOG=1"
"""The agent's loop turns."""


def tell_manager(word: str) -> None:
    """Say `word` to the service manager; one that does not listen is passed over."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    # A name that begins with @ is in the abstract namespace (unix(7)).
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.sendto(word.encode(), address)
