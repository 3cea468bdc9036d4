"""Interfaces, addresses and default routes of this network namespace, over rtnetlink (rtnetlink(7))."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, AF_UNSPEC
from types import TracebackType
from typing import Self

from cellwall.clients import KernelError, Message, Netlink, Protocol, attributes, messages, to_text
from cellwall.observe.packed import unpack_address
from cellwall.traffic import Address

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _GETROUTE = 24, 26
_GROUP_LINK, _GROUP_IPV4_ADDRESS, _GROUP_IPV6_ADDRESS = 1, 5, 9
_ADDRESS, _LOCAL, _FLAGS = 1, 2, 8
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_TEMPORARY, _FAILED = 0x01, 0x08
_TABLE_MAIN, _UNICAST = 254, 1
_ADDRESS_HEAD = struct.Struct("=BBBBI")
_LINK_HEAD = struct.Struct("=BxHiII")
_ROUTE_HEAD = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address of an interface; `prefix` is the length of its network's prefix.

    `temporary` marks the changing addresses of IPv6 privacy (RFC 8981).
    """

    address: Address
    prefix: int
    device: str
    temporary: bool


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """The addresses of all interfaces: those that others reach, and the link-local ones apart; no loopback ones."""

    reachable: tuple[HostAddress, ...]
    link_local: tuple[HostAddress, ...]


@dataclass(frozen=True, slots=True)
class AddressChange:
    """An address that came or went, link-local ones included."""

    came: bool
    address: HostAddress


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A default route of the main table; `gateway` is None when the network is right behind `device`."""

    family: int
    gateway: Address | None
    device: str
    metric: int


def open_routes() -> Netlink:
    """Open a link to rtnetlink in this network namespace, to be used for many calls."""
    return Netlink(Protocol.ROUTE)


def _use(link: Netlink | None) -> AbstractContextManager[Netlink]:
    return open_routes() if link is None else nullcontext(link)


def interface_names(link: Netlink | None = None) -> dict[int, str]:
    """Name the interfaces of this network namespace by their number."""
    with _use(link) as use:
        bodies = use.dump(_GETLINK, _LINK_HEAD.pack(AF_UNSPEC, 0, 0, 0, 0), doing="cannot list interfaces")
    return dict(filter(None, map(parse_interface, bodies)))


def host_addresses(link: Netlink | None = None) -> HostAddresses:
    """List the addresses that this host has."""
    with _use(link) as use:
        names = interface_names(use)
        bodies = use.dump(_GETADDR, _ADDRESS_HEAD.pack(AF_UNSPEC, 0, 0, 0, 0), doing="cannot list addresses")
    found = [one for one in (parse_host_address(body, names) for body in bodies) if one is not None]
    return HostAddresses(
        tuple(one for one in found if not one.address.is_link_local),
        tuple(one for one in found if one.address.is_link_local),
    )


def default_routes(link: Netlink | None = None) -> tuple[DefaultRoute, ...]:
    """List the default routes of both families, those preferred first."""
    found: list[DefaultRoute] = []
    with _use(link) as use:
        names = interface_names(use)
        for family in (AF_INET, AF_INET6):
            body = _ROUTE_HEAD.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            for answer in use.dump(_GETROUTE, body, doing="cannot list routes"):
                found += parse_default_routes(answer, names)
    return tuple(sorted(found, key=lambda route: (route.family, route.metric)))


class AddressWatch:
    """Notices of addresses that come and go in the network namespace that it was opened in.

    Wait for `fileno` to be readable, then `read`. When `lost` grows, notices were dropped: list the addresses anew.
    """

    def __init__(self) -> None:
        """Subscribe. Raises `KernelError`."""
        self._link = Netlink(Protocol.ROUTE, 1 << 20)
        for group in (_GROUP_LINK, _GROUP_IPV4_ADDRESS, _GROUP_IPV6_ADDRESS):
            self._link.join(group)
        self._names = interface_names()

    @property
    def lost(self) -> int:
        """How often notices were dropped because they were not read in time."""
        return self._link.lost

    def fileno(self) -> int:
        """Give the descriptor to wait for."""
        return self._link.fileno()

    def read(self) -> list[AddressChange]:
        """Give what changed since the last call; does not wait."""
        notices = (notice for datagram in self._link.drain() for notice in messages(datagram))
        return list(address_changes(notices, self._names))

    def close(self) -> None:
        """Stop watching."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def address_changes(notices: Iterable[Message], names: dict[int, str]) -> Iterator[AddressChange]:
    """Read notices; `names` of interfaces is kept up to date with those among them."""
    for notice in notices:
        if notice.kind == _NEWLINK and (named := parse_interface(notice.body)) is not None:
            names[named[0]] = named[1]
        elif notice.kind in (_NEWADDR, _DELADDR):
            address = parse_host_address(notice.body, names)
            if address is not None:
                yield AddressChange(notice.kind == _NEWADDR, address)


def parse_interface(body: bytes) -> tuple[int, str] | None:
    """Read the number and name of an interface; None when it has no name. Raises `KernelError`."""
    if len(body) < _LINK_HEAD.size:
        raise KernelError("answer about an interface is cut short")
    told = attributes(body, _LINK_HEAD.size).get(3)
    return None if told is None else (_LINK_HEAD.unpack_from(body)[2], to_text(told))


def parse_host_address(body: bytes, names: dict[int, str]) -> HostAddress | None:
    """Read an address; None for loopback ones and for those that turned out to be a duplicate's.

    Raises `KernelError` when the message is cut short.
    """
    if len(body) < _ADDRESS_HEAD.size:
        raise KernelError("answer about an address is cut short")
    _, prefix, flags, scope, index = _ADDRESS_HEAD.unpack_from(body)
    told = attributes(body, _ADDRESS_HEAD.size)
    if len(told.get(_FLAGS, b"")) == 4:
        flags = _U32.unpack(told[_FLAGS])[0]
    # On a point-to-point link _ADDRESS is the other end.
    packed = told.get(_LOCAL) or told.get(_ADDRESS)
    if packed is None or scope == _SCOPE_HOST or flags & _FAILED:
        return None
    address = unpack_address(packed)
    if address.is_loopback:
        return None
    temporary = bool(flags & _TEMPORARY) and address.version == 6
    return HostAddress(address, prefix, names.get(index, ""), temporary)


def parse_default_routes(body: bytes, names: dict[int, str]) -> Iterator[DefaultRoute]:
    """Read a route: one value for each next hop of a default route of the main table, none for any other.

    Raises `KernelError` when the message is cut short.
    """
    if len(body) < _ROUTE_HEAD.size:
        raise KernelError("answer about a route is cut short")
    family, target, _, _, table, _, _, kind, _ = _ROUTE_HEAD.unpack_from(body)
    if target or table != _TABLE_MAIN or kind != _UNICAST:
        return
    told = attributes(body, _ROUTE_HEAD.size)
    metric = _U32.unpack(told[6])[0] if len(told.get(6, b"")) == 4 else 0
    version = 4 if family == AF_INET else 6
    hops = [(_U32.unpack(told[4])[0], told)] if len(told.get(4, b"")) == 4 else []
    hops += list(_hops(told.get(9, b"")))
    for index, hop in hops:
        # A gateway of the other family (RFC 8950) comes as its family, then its address.
        gateway = hop.get(5) or hop.get(18, b"")[2:]
        yield DefaultRoute(version, unpack_address(gateway) if gateway else None, names.get(index, ""), metric)


def _hops(multipath: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    # struct rtnexthop: length, flags, hops, interface; then attributes.
    start = 0
    while start + 8 <= len(multipath):
        size, _, _, index = struct.unpack_from("=HBBi", multipath, start)
        if size < 8 or start + size > len(multipath):
            raise KernelError("answer about a route is cut short")
        yield index, attributes(multipath[start + 8 : start + size])
        start += size + 3 & ~3
