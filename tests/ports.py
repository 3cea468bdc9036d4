"""Ports for servers of tests that are told their port before they start."""

from __future__ import annotations

import random
import socket

# Below what Linux gives to connections that go out (ip(7), `ip_local_port_range`): none of them takes it meanwhile.
_FROM, _TO = 20_000, 30_000


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Give a port that nobody has at this moment, of either family."""
    while True:
        port = random.randrange(_FROM, _TO)
        with socket.socket(socket.AF_INET6, kind) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            try:
                probe.bind(("::", port))
            except OSError:
                continue
        return port
