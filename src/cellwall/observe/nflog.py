"""Listen to the packets that `log group` rules sample (NFLOG)."""

from __future__ import annotations

import errno
import os
import struct
from types import TracebackType
from typing import Self

from cellwall.clients import KernelError, Netlink, Protocol, attribute, be16, be32, messages
from cellwall.observe.routes import interface_names, open_routes
from cellwall.observe.samples import Sample, parse_sample

_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1
_CFG_COMMAND, _CFG_MODE, _CFG_BUFFER, _CFG_TIMEOUT, _CFG_THRESHOLD, _CFG_FLAGS = 1, 2, 3, 4, 5, 6
_BIND, _COPY_PACKET, _FLAG_SEQUENCE = 1, 2, 1
_RECEIVE_BUFFER, _MESSAGE_BUFFER = 4 << 20, 32 << 10


class Nflog:
    """The samples of one log group, in the network namespace that it was opened in.

    Wait for `fileno` to be readable, or a little longer, then `read`. The kernel hands samples over when it has
    `threshold` of them or the first is a tenth of a second old. `lost` counts the samples that were dropped, as far
    as later ones tell.
    """

    def __init__(self, group: int, *, copy_range: int = 96, threshold: int = 50) -> None:
        """Listen to `group` (0 to 65535), taking the first `copy_range` bytes of each packet.

        Raises `KernelError`, also when another process listens to the group already.
        """
        self.lost = 0
        self._expected: int | None = None
        self._routes = open_routes()
        self._link = Netlink(Protocol.NETFILTER, _RECEIVE_BUFFER)
        to = bytes((0, 0)) + struct.pack(">H", group)
        doing = f"cannot listen to log group {group}"
        settings = (
            attribute(_CFG_COMMAND, bytes((_BIND,))),
            attribute(_CFG_MODE, struct.pack(">IBx", copy_range, _COPY_PACKET)),
            be32(_CFG_BUFFER, _MESSAGE_BUFFER),
            be32(_CFG_TIMEOUT, 10),
            be32(_CFG_THRESHOLD, threshold),
            be16(_CFG_FLAGS, _FLAG_SEQUENCE),
        )
        try:
            for setting in settings:
                self._link.ask(_CONFIG, to + setting, doing=doing)
        except KernelError as error:
            self.close()
            if error.code in (errno.EPERM, errno.EBUSY) and os.geteuid() == 0:
                raise KernelError(f"{error}; another process listens to it", error.code) from None
            raise

    @property
    def overruns(self) -> int:
        """How often the receive buffer was full."""
        return self._link.lost

    def fileno(self) -> int:
        """Give the descriptor to wait for."""
        return self._link.fileno()

    def read(self, most: int = 4096) -> list[Sample]:
        """Give the samples since the last call, from at most `most` messages; does not wait."""
        datagrams = self._link.drain(most)
        if not datagrams:
            return []
        # Interfaces are named anew each time: early in the life of a host they are renamed.
        names = interface_names(self._routes)
        samples: list[Sample] = []
        for datagram in datagrams:
            for message in messages(datagram):
                if message.kind == _PACKET:
                    sample = parse_sample(message.body, names)
                    self._count(sample.sequence)
                    samples.append(sample)
        return samples

    def _count(self, sequence: int | None) -> None:
        if sequence is None:
            return
        if self._expected is not None:
            self.lost += (sequence - self._expected) & 0xFFFFFFFF
        self._expected = sequence + 1 & 0xFFFFFFFF

    def close(self) -> None:
        """Stop listening."""
        self._link.close()
        self._routes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
