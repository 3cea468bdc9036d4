"""Frames of flow workers and their askers: a length (8 bytes, big end first) and as many bytes of msgpack."""

from __future__ import annotations

import socket
from time import monotonic

MOST_FRAME = 1 << 31
PIECE = 1 << 20


def send_frame(connection: socket.socket, body: bytes) -> None:
    """Send a frame. Raises `OSError`."""
    connection.sendall(len(body).to_bytes(8, "big"))
    with memoryview(body) as view:
        for first in range(0, len(body), PIECE):
            # Piece by piece: the socket's timeout is one for each.
            connection.sendall(view[first : first + PIECE])


def receive_frame(
    connection: socket.socket, first: bytes = b"", until: float | None = None, most: int = MOST_FRAME
) -> bytes:
    """Receive a frame, of which `first` has come. Raises `OSError`, and `EOFError` where the other end is gone.

    It must be there by the moment `until` (of the monotonic clock), where that is given."""
    size = int.from_bytes(_exactly(connection, 8, first, until), "big")
    if size > most:
        raise EOFError
    return _exactly(connection, size, b"", until)


def _exactly(connection: socket.socket, size: int, first: bytes, until: float | None) -> bytes:
    got = bytearray(first)
    while len(got) < size:
        if until is not None:
            left = until - monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
        part = connection.recv(min(size - len(got), PIECE))
        if not part:
            raise EOFError
        got += part
    return bytes(got)
