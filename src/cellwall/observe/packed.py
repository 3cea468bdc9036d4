"""Addresses as the kernel packs them, four bytes or sixteen; made into values only where somebody looks."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from cellwall.clients import KernelError
from cellwall.traffic import Address

_MAPPED = bytes(10) + b"\xff\xff"


@lru_cache(maxsize=4096)
def unpack_address(packed: bytes) -> Address:
    """Make the address of four bytes (IPv4) or sixteen (IPv6). Raises `KernelError` for other lengths."""
    if len(packed) == 4:
        return IPv4Address(packed)
    if len(packed) == 16:
        return IPv6Address(packed)
    raise KernelError(f"an address of {len(packed)} bytes: wanted 4 or 16")


def unmapped(packed: bytes) -> bytes:
    """Give the four bytes of an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2), anything else as it is."""
    return packed[12:] if packed.startswith(_MAPPED) and len(packed) == 16 else packed
