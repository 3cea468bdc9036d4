"""One rule of an ordered firewall while it is read from one side: what it matches so far, and what is in doubt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from cellwall.flows import Side
from cellwall.policy import Place
from cellwall.traffic import PORTED, Address, Network, point
from cellwall.translate.firewalls.boxes import Box, less_all, meet_all
from cellwall.translate.firewalls.first_match import ALWAYS, Doubt, Situation
from cellwall.translate.firewalls.intervals import Intervals, join, less, of_networks, of_range, place_of

LOOPBACK_ONLY = frozenset({Situation.LOOPBACK})
_DIGITS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class SavedRules:
    """A file of a host's firewall: its name, its text, and the host."""

    file: str
    text: str
    host: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the texts of a firewall do not say.

    `addresses` are those of each host; `interfaces` the networks that are reached by way of each interface; `users`
    the names of numeric users."""

    addresses: Mapping[str, tuple[Address, ...]] = field(default_factory=dict[str, tuple[Address, ...]])
    interfaces: Mapping[str, tuple[Network, ...]] = field(default_factory=dict[str, tuple[Network, ...]])
    users: Mapping[str, str] = field(default_factory=dict[str, str])


class Unread(Exception):
    """A part of a rule that cannot be carried over; the message says why. Never leaves the room."""


class Reading:
    """What a rule matches, narrowed option by option. `source` and `destination` are as on the packet."""

    def __init__(self, side: Side, text: str = "") -> None:
        self.side = side
        self.text = text
        self.boxes: tuple[Box, ...] = (Box(),)
        self.when = ALWAYS
        self.doubts: list[Doubt] = []

    def copy(self) -> Reading:
        """Give another that is as far, to be narrowed apart."""
        other = Reading(self.side, self.text)
        other.boxes, other.when, other.doubts = self.boxes, self.when, list(self.doubts)
        return other

    def doubt(self, place: Place, reason: str) -> None:
        """Take note that the rule matches less than its boxes, and why."""
        self.doubts.append(Doubt(place, reason, self.text))

    def narrow(self, boxes: tuple[Box, ...], *, but: bool = False) -> None:
        """Match only what is in `boxes`, or what is not."""
        self.boxes = less_all(self.boxes, boxes) if but else meet_all(self.boxes, boxes)

    def end(self, source: bool, addresses: Intervals) -> Box:
        """Give the box of packets from, or to, some addresses."""
        remote = source is (self.side is Side.INGRESS)
        return Box(remote=addresses) if remote else Box(local=addresses)

    def situations(self, some: frozenset[Situation], *, but: bool = False) -> None:
        """Match only in some situations, or in the others."""
        self.when &= (ALWAYS - some) if but else some

    def interface(self, known: HostFacts, name: str, incoming: bool, *, but: bool = False) -> None:
        """Match what comes in, or leaves, by an interface. Raises `Unread` where it is not known what is behind it."""
        if incoming is not (self.side is Side.INGRESS):
            # A packet that comes in has no outgoing interface yet; one that leaves has no incoming one.
            if not but:
                self.boxes = ()
            return
        if name == "lo":
            self.situations(LOOPBACK_ONLY, but=but)
            return
        if not but:
            self.situations(LOOPBACK_ONLY, but=True)
        behind = known.interfaces.get(name)
        if behind is None:
            raise Unread(f"interface `{name}` is no address; say what is behind it with --interface {name}=NETWORK")
        self.narrow((Box(remote=of_networks(behind)),), but=but)

    def user(self, known: HostFacts, number: str) -> None:
        """Match what processes of a user send. Raises `Unread` where the user's name is not known."""
        if self.side is Side.INGRESS:
            raise Unread("the user of a process is known for what it sends only")
        name = known.users.get(number) or {"0": "root"}.get(number) or (None if number.isdecimal() else number)
        if not name:
            raise Unread(f"user `{number}` has no name; give the host's users with --passwd FILE")
        self.narrow((Box(user=name),))


def port_points(protocols: frozenset[int], first: int, last: int) -> Intervals:
    """Give destination ports `first` to `last` of protocols that have ports."""
    return join((point(one, first), point(one, last)) for one in protocols & PORTED)


def but_of(points: Intervals, protocols: frozenset[int]) -> Intervals:
    """Give the ports of `protocols` that are not in `points`."""
    return less(port_points(protocols, 0, 0xFFFF), points)


def port_number(word: str) -> int:
    """Read a port. Raises `Unread`."""
    if _DIGITS.fullmatch(word) and int(word) <= 0xFFFF:
        return int(word)
    raise Unread(f"`{word}` is not a port")


def prefix(word: str, version: int) -> Intervals:
    """Read an address, perhaps with a length or a mask. Raises `Unread`."""
    text, slash, mask = word.partition("/")
    address = single(text, version)
    width = 32 if version == 4 else 128
    ones = (1 << width) - 1
    bits = ones
    if slash:
        if _DIGITS.fullmatch(mask):
            if int(mask) > width:
                raise Unread(f"`{word}` has more than {width} bits")
            bits = ones ^ (ones >> int(mask))
        else:
            bits = int(single(mask, version))
            if (bits ^ ones) & ((bits ^ ones) + 1):
                raise Unread(f"the mask of `{word}` has holes, so it is no network")
    start = place_of(address) - (int(address) & (bits ^ ones))
    return ((start, start + (bits ^ ones)),)


def single(text: str, version: int) -> Address:
    """Read one address of a family. Raises `Unread`."""
    try:
        address = ip_address(text)
    except ValueError:
        raise Unread(f"`{text}` is not an address") from None
    if address.version != version or (isinstance(address, IPv6Address) and address.scope_id is not None):
        raise Unread(f"`{text}` is not an IPv{version} address")
    return address


def address_range(word: str, version: int) -> Intervals:
    """Read `10.0.0.1-10.0.0.9`, or an address or a prefix. Raises `Unread`."""
    first, dash, last = word.partition("-")
    if not dash:
        return prefix(word, version)
    ends = single(first, version), single(last, version)
    if int(ends[0]) > int(ends[1]):
        raise Unread(f"`{word}` runs backwards")
    return of_range(*ends)
