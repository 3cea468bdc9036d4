"""The part of nftables that Cellwall speaks, as values: a table of maps, elements and chains of statements.

One set of values, three readers: `script.py` writes them as nft(8) text, `fake.py` runs packets through them, and
`driver.py` turns single elements into netlink. So what the fake tests is what the kernel is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cellwall.traffic import ICMP, ICMPV6

TABLE = "cellwall"


class Kind(StrEnum):
    """The data type of a field of a key, by its name in nft(8)."""

    MARK = "mark"
    IPV4 = "ipv4_addr"
    IPV6 = "ipv6_addr"
    PROTOCOL = "inet_proto"
    PORT = "inet_service"
    ICMP_TYPE = "icmp_type"
    ICMP_CODE = "icmp_code"
    ICMPV6_TYPE = "icmpv6_type"
    ICMPV6_CODE = "icmpv6_code"
    USER = "uid"
    CGROUP = "cgroupsv2"
    FAMILY = "nf_proto"


class Field(StrEnum):
    """What of a packet a statement reads, as nft(8) spells it."""

    MARK = "meta mark"
    IP_SOURCE = "ip saddr"
    IP_DESTINATION = "ip daddr"
    IP6_SOURCE = "ip6 saddr"
    IP6_DESTINATION = "ip6 daddr"
    PROTOCOL = "meta l4proto"
    SOURCE_PORT = "th sport"
    DESTINATION_PORT = "th dport"
    ICMP_TYPE = "icmp type"
    ICMP_CODE = "icmp code"
    ICMPV6_TYPE = "icmpv6 type"
    ICMPV6_CODE = "icmpv6 code"
    USER = "meta skuid"
    FAMILY = "meta nfproto"
    CONNECTION_MARK = "ct mark"


FAMILIES = {
    4: (Field.IP_SOURCE, Field.IP_DESTINATION, Kind.IPV4, ICMP),
    6: (Field.IP6_SOURCE, Field.IP6_DESTINATION, Kind.IPV6, ICMPV6),
}
FAMILY_NUMBERS = {4: 2, 6: 10}
"""NFPROTO_IPV4 and NFPROTO_IPV6 of linux/netfilter.h."""
ICMP_FIELDS = {ICMP: (Field.ICMP_TYPE, Field.ICMP_CODE), ICMPV6: (Field.ICMPV6_TYPE, Field.ICMPV6_CODE)}
ICMP_KINDS = {ICMP: (Kind.ICMP_TYPE, Kind.ICMP_CODE), ICMPV6: (Kind.ICMPV6_TYPE, Kind.ICMPV6_CODE)}

Range = tuple[int, int]
Key = tuple[Range, ...]
"""A key field by field, each an inclusive range of integers; a single value has both ends the same."""


@dataclass(frozen=True, slots=True)
class Goto:
    """Element data: go to a chain for good."""

    chain: str


@dataclass(frozen=True, slots=True)
class Jump:
    """Go through a chain and come back."""

    chain: str


Data = int | Goto | Jump
"""The data of an element: a mark, or where to go."""


@dataclass(frozen=True, slots=True)
class MapShape:
    """How a map or set is declared. `data` is `mark`, `verdict`, or empty for a set that packets fill.

    With `until` (seconds since the epoch, UTC) the kernel itself takes the elements out at that moment."""

    name: str
    key: tuple[Kind, ...]
    data: str = ""
    interval: bool = False
    size: int = 0
    timeout_s: int = 0
    until: float | None = None


# --- statements ---


@dataclass(frozen=True, slots=True)
class Loopback:
    """Match packets on the loopback interface, arriving or leaving."""

    arriving: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """Match packets of a tracked connection that go back to who opened it, and errors about them."""


@dataclass(frozen=True, slots=True)
class New:
    """Match packets of connections in which nothing came back yet, and those that conntrack cannot place."""


@dataclass(frozen=True, slots=True)
class Known:
    """Match packets of a tracked connection in which something came back."""


@dataclass(frozen=True, slots=True)
class Stray:
    """Match packets that conntrack cannot place: out of a connection's window, or of none that they could begin."""


@dataclass(frozen=True, slots=True)
class Midstream:
    """Match TCP packets of no tracked connection that do not open one."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Match TCP packets that end a tracked connection at once, and those by which a refusal says so."""


@dataclass(frozen=True, slots=True)
class Version:
    """Match IPv4 or IPv6."""

    version: int


@dataclass(frozen=True, slots=True)
class In:
    """Match a field against inclusive ranges of integers; `kind` says how they are written."""

    field: Field
    kind: Kind
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class HasUser:
    """Match packets that a socket of some user sends, as against those that the kernel makes."""


@dataclass(frozen=True, slots=True)
class SetMark:
    """Set the packet's mark."""

    value: int


@dataclass(frozen=True, slots=True)
class MarkFrom:
    """Set the packet's mark to what a map says of a field; nothing further in the rule when it says nothing."""

    field: Field
    map: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """Go where a map says for these fields; on to the next rule when it says nothing."""

    fields: tuple[Field, ...]
    map: str


@dataclass(frozen=True, slots=True)
class LookupUnit:
    """Go where a map says for the control group of the packet's socket, `level` names below the root."""

    level: int
    map: str


@dataclass(frozen=True, slots=True)
class Count:
    """Count the packet in the element of these fields of a dynamic set, making it if need be."""

    set: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Counter:
    """Count packets and bytes of the rule."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Send some packets to the listener of the log group: at most `per_second` of a rule."""

    prefix: str
    per_second: int = 5


@dataclass(frozen=True, slots=True)
class Return:
    """Go back to where the chain was jumped to from."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Let the packet on."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Throw the packet away without a word."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Throw the packet away and tell the sender: a TCP reset, else an ICMP error."""

    tcp: bool


Statement = (
    Loopback
    | Reply
    | New
    | Known
    | Stray
    | Midstream
    | Reset
    | Version
    | In
    | HasUser
    | SetMark
    | MarkFrom
    | Lookup
    | LookupUnit
    | Count
    | Counter
    | Sample
    | Jump
    | Goto
    | Return
    | Accept
    | Drop
    | Refuse
)


@dataclass(frozen=True, slots=True)
class Line:
    """A rule of a chain: statements from left to right, until one does not match."""

    statements: tuple[Statement, ...]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; `hook` is `input` or `output` for a base chain, whose end accepts or drops."""

    lines: tuple[Line, ...]
    hook: str = ""
    drops: bool = False


@dataclass
class Program:
    """What the table holds. Maps of packets' making (`data` empty) have no elements here.

    `cgroups` gives the path, below /sys/fs/cgroup, of each control group that is a key. `names` is for a program as
    the table holds it: by the name that `render` gives a map or chain, the name that it has there; `spare` has the same
    of each further program that stands in the table, to which it goes back or that is above it for a while.
    """

    shapes: dict[str, MapShape] = field(default_factory=dict[str, MapShape])
    elements: dict[str, Mapping[Key, Data]] = field(default_factory=dict[str, Mapping[Key, Data]])
    chains: dict[str, Chain] = field(default_factory=dict[str, Chain])
    cgroups: dict[int, str] = field(default_factory=dict[int, str])
    names: dict[str, str] = field(default_factory=dict[str, str])
    spare: tuple[Mapping[str, str], ...] = ()
