"""A socket that listens where it was told to."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from cellwall.controller.errors import ControllerError
from cellwall.controller.options import Endpoint


def listen(at: Endpoint) -> socket.socket:
    """Listen on TCP at an address and port; `::` is both families. Raises `ControllerError`."""
    host = at.host
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    if family == socket.AF_INET6 and host == "::" and not socket.has_dualstack_ipv6():
        family, host = socket.AF_INET, "0.0.0.0"  # noqa: S104 - what `[::]` means there
    # With its protocol named: asyncio turns off Nagle's algorithm only then, which else costs 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        listener.bind((host, at.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ControllerError(f"cannot listen on `{_text(at)}`: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def _text(at: Endpoint) -> str:
    return f"[{at.host}]:{at.port}" if ":" in at.host else f"{at.host}:{at.port}"
