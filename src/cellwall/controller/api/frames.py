"""What an agent sends on its WebSocket, cut into messages (RFC 6455, 5): no task, no generator, few objects."""

from __future__ import annotations

from dataclasses import dataclass

from websockets.speedups import apply_mask  # pyright: ignore[reportMissingModuleSource]

CONTINUES, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MOST_CONTROL = 125
_KINDS = frozenset({CONTINUES, TEXT, BINARY, CLOSE, PING, PONG})


class Nonsense(Exception):
    """What came is no frame of a client; the connection is of no use any more. `code` is that of RFC 6455, 7.4.1."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Said:
    """A whole message (`TEXT` or `BINARY`) or a control frame."""

    kind: int
    data: bytes


class Frames:
    """Takes bytes as they come, and gives what is complete; `most` bytes is the longest message."""

    __slots__ = ("_kind", "_most", "_parts", "_rest")

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = bytearray()
        self._parts = bytearray()
        self._kind = 0

    def feed(self, data: bytes) -> list[Said]:
        """Take what came. Raises `Nonsense`."""
        if self._rest:
            self._rest += data
            data = bytes(self._rest) if self._complete() else b""
            if not data:
                return []
            self._rest.clear()
        said: list[Said] = []
        at = 0
        while (found := self._head(data, at)) is not None:
            first, start, end = found
            if end > len(data):
                break
            payload = apply_mask(data[start:end], data[start - 4 : start])
            one = self._whole(first, payload)
            if one is not None:
                said.append(one)
            at = end
        if at < len(data):
            self._rest += data[at:] if at else data
        return said

    def _complete(self) -> bool:
        """Whether the first frame of what is kept is all there: else it need not be looked at again."""
        found = self._head(self._rest, 0)
        return found is not None and found[2] <= len(self._rest)

    def _head(self, data: bytes | bytearray, at: int) -> tuple[int, int, int] | None:
        """Give the first byte of the frame at `at`, and where its payload begins and ends; None while that is open."""
        if len(data) < at + 2:
            return None
        first, size, start = data[at], data[at + 1] & 0x7F, at + 6
        if first & 0x70 or first & 0x0F not in _KINDS:
            raise Nonsense(1002, "a frame of no kind that was agreed on")
        if not data[at + 1] & 0x80:
            raise Nonsense(1002, "a frame of a client that is not masked")
        if first & 0x08 and (size > MOST_CONTROL or not first & 0x80):
            raise Nonsense(1002, "a control frame that is long or in pieces")
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(data) < at + 2 + width:
                return None
            size, start = int.from_bytes(data[at + 2 : at + 2 + width], "big"), start + width
        if size + len(self._parts) > self._most:
            raise Nonsense(1009, f"a message of more than {self._most} bytes")
        return first, start, start + size

    def _whole(self, first: int, payload: bytes) -> Said | None:
        kind = first & 0x0F
        if kind >= CLOSE:
            return Said(kind, payload)
        if (kind == CONTINUES) != bool(self._kind):
            raise Nonsense(1002, "pieces of a message that do not follow each other")
        if first & 0x80 and kind != CONTINUES:
            return Said(kind, payload)
        self._kind = self._kind or kind
        self._parts += payload
        if not first & 0x80:
            return None
        said = Said(self._kind, bytes(self._parts))
        self._parts.clear()
        self._kind = 0
        return said


def frame(kind: int, data: bytes) -> bytes:
    """Write a server's frame."""
    size = len(data)
    if size < 126:
        return bytes((0x80 | kind, size)) + data
    if size < 1 << 16:
        return bytes((0x80 | kind, 126)) + size.to_bytes(2, "big") + data
    return bytes((0x80 | kind, 127)) + size.to_bytes(8, "big") + data
