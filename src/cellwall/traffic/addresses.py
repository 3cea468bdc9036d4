"""Addresses and networks in one spelling each."""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from cellwall.traffic.errors import CellwallError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


_PREFIX = re.compile(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?")


class AddressError(CellwallError):
    """A text that is not an address or a network."""


def parse_address(text: str) -> Address:
    """Read one IPv4 or IPv6 address; an IPv4-mapped one (RFC 4291 §2.5.5.2) becomes IPv4.

    Raises `AddressError` for anything else, scoped addresses (`fe80::1%eth0`) included.
    """
    try:
        address = ip_address(text)
    except ValueError:
        raise AddressError(f"`{text}` is not an IPv4 or IPv6 address") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise AddressError(f"`{text}` has an interface scope; write the address alone")
    return canonical(address)


def canonical(address: Address) -> Address:
    """Give the one spelling of an address: IPv4-mapped IPv6 is IPv4."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_network(text: str) -> Network:
    """Read an address or a prefix such as `10.20.0.0/16`; host bits must be zero.

    An IPv4-mapped prefix becomes the IPv4 prefix. Raises `AddressError`, also for a netmask in place of a length.
    """
    try:
        if not _PREFIX.fullmatch(text):
            raise ValueError
        network = ip_network(text)
    except ValueError:
        try:
            hint = f"; did you mean `{ip_network(text.partition('%')[0], strict=False)}`?"
        except ValueError:
            hint = "; wanted an address or a prefix such as `10.20.0.0/16`"
        raise AddressError(f"`{text}` is not a network{hint}") from None
    if isinstance(network, IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network


def family_of(address: Address | Network) -> int:
    """Give 4 or 6."""
    return address.version
