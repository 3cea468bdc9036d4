"""`ipset save` text: the sets that rules of iptables name, as addresses, ports, or pairs of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cellwall.policy import Place, PolicyError
from cellwall.traffic import ICMPS, PORTED, TCP, point
from cellwall.translate.firewalls.intervals import NONE, PORTS, Intervals, join, less
from cellwall.translate.firewalls.rule import Unread, address_range, port_number, prefix
from cellwall.translate.firewalls.words import icmp_points, protocol_number, whole

TYPES = {
    "hash:ip": ("ip",),
    "hash:net": ("ip",),
    "bitmap:ip": ("ip",),
    "bitmap:port": ("port",),
    "hash:ip,port": ("ip", "port"),
    "hash:net,port": ("ip", "port"),
}
_ARGUMENTS = frozenset({"timeout", "packets", "bytes", "comment", "skbmark", "skbprio", "skbqueue"})


@dataclass(slots=True)
class IpSet:
    """A set: what its elements are made of, and the elements as pairs of addresses and points.

    `unread` says why the set cannot be carried over; `temporary` that elements of it come and go."""

    name: str
    place: Place
    kinds: tuple[str, ...] = ()
    version: int = 4
    unread: str = ""
    temporary: bool = False
    pairs: list[tuple[int, Intervals, Intervals]] = field(default_factory=list[tuple[int, Intervals, Intervals]])

    def elements(self) -> tuple[tuple[Intervals, Intervals], ...]:
        """Give the elements. Raises `Unread` where the set, or one of them, cannot be carried over."""
        if self.unread:
            raise Unread(self.unread)
        if self.kinds == ("port",):
            return ((NONE, join(part for _, _, points in self.pairs for part in points)),)
        # The longest prefix decides between an element and one that is marked `nomatch`.
        by_points: dict[Intervals, Intervals] = {}
        for length, addresses, points in sorted(self.pairs, key=lambda pair: (abs(pair[0]), pair[0] < 0)):
            held = by_points.get(points, ())
            by_points[points] = less(held, addresses) if length < 0 else join((*held, *addresses))
        return tuple((addresses, points) for points, addresses in by_points.items() if addresses)


def is_ipset(text: str) -> bool:
    """Say whether a text looks like `ipset save`."""
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    return first.split()[0] in ("create", "add") if first else False


def read_ipset(file: str, text: str) -> Iterable[IpSet]:
    """Read what `ipset save` writes. Raises `PolicyError` where it is not that."""
    sets: dict[str, IpSet] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        place = Place(file, number, 1)
        if len(words) < 3 or words[0] not in ("create", "add"):
            raise PolicyError(place, f"`{line.strip()}` is no line of `ipset save`; wanted `create` or `add`")
        name = words[1]
        if words[0] == "create":
            if name in sets:
                raise PolicyError(place, f"set `{name}` is created twice, first on line {sets[name].place.line}")
            sets[name] = _created(name, place, words[2], words[3:])
        elif name not in sets:
            raise PolicyError(place, f"set `{name}` has not been created")
        else:
            _add(sets[name], place, words[2], words[3:])
    return sets.values()


def _created(name: str, place: Place, kind: str, options: list[str]) -> IpSet:
    made = IpSet(name, place, TYPES.get(kind, ()), 6 if "inet6" in options else 4)
    made.temporary = "timeout" in options
    if not made.kinds:
        made.unread = f"sets of type `{kind}` are not carried over"
    return made


def _add(one: IpSet, place: Place, element: str, options: list[str]) -> None:
    if one.unread:
        return
    try:
        one.pairs.append(_element(one, element, nomatch="nomatch" in options))
    except Unread as reason:
        one.unread = f"{reason} ({place})"


def _element(one: IpSet, element: str, *, nomatch: bool) -> tuple[int, Intervals, Intervals]:
    if one.kinds == ("port",):
        first, dash, last = element.partition("-")
        low, high = port_number(first), port_number(last if dash else first)
        # A port set says nothing of the protocol.
        return 0, NONE, join((point(protocol, low), point(protocol, max(low, high))) for protocol in PORTED)
    word, comma, rest = element.partition(",")
    if bool(comma) is not (len(one.kinds) == 2):
        raise Unread(f"`{element}` is no element of its set")
    addresses = address_range(word, one.version) if "-" in word else prefix(word, one.version)
    width = word.partition("/")[2]
    if width and not width.isdecimal():
        raise Unread(f"`{element}` has a mask; wanted a length")
    length = int(width) if width else 128
    return -length if nomatch else length, addresses, _points(rest) if comma else PORTS


def _points(text: str) -> Intervals:
    name, colon, port = text.rpartition(":")
    protocol = protocol_number(name) if colon else TCP
    if protocol is None:
        raise Unread(f"`{name}` is not a protocol")
    if protocol in ICMPS:
        points = icmp_points(protocol, port)
        if points is None:
            raise Unread(f"`{port}` is no ICMP type")
        return points
    if protocol not in PORTED:
        return whole(protocol)
    first, dash, last = port.partition("-")
    low = port_number(first)
    return ((point(protocol, low), point(protocol, max(low, port_number(last if dash else first)))),)
