"""A ruleset of nftables as read, from text or from JSON: tables, chains, sets, and rules as statements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cellwall.policy import Place
from cellwall.translate.firewalls.first_match import Does

Element = tuple[str, ...]
"""An element of a set: its parts as `nft list` writes them, such as `10.0.0.0/8` and `80-90`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule decides; `word` is how it was written."""

    does: Does
    target: str = ""
    word: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """A rule goes on where the fields (more than one: joined by dots) stand in relation `how` to what is at the right:
    elements, or the set of that name."""

    place: Place
    fields: tuple[str, ...]
    how: str
    right: tuple[Element, ...] | str


@dataclass(frozen=True, slots=True)
class Flags:
    """A rule goes on where, of the TCP flags `mask`, just those in `wanted` are set, or are not."""

    place: Place
    mask: tuple[str, ...]
    wanted: tuple[str, ...]
    but: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """A verdict map: the verdict is that of the element that the fields have, if any."""

    place: Place
    fields: tuple[str, ...]
    right: tuple[tuple[Element, Verdict], ...] | str


@dataclass(frozen=True, slots=True)
class Riddle:
    """A statement that is not carried over, on which it depends whether the rule goes on."""

    place: Place
    reason: str


Statement = Match | Flags | Branch | Riddle | Verdict


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its statements without those that decide nothing, its comment, and how it was written.

    `aside` names statements that decide nothing here and are not carried over."""

    place: Place
    statements: tuple[Statement, ...]
    text: str
    comment: str = ""
    aside: tuple[str, ...] = ()


@dataclass(slots=True)
class Chain:
    """A chain; one with a `hook` is a base chain."""

    name: str
    place: Place
    kind: str = ""
    hook: str = ""
    policy: Does = Does.ACCEPT
    rules: list[Rule] = field(default_factory=list[Rule])


@dataclass(slots=True)
class NamedSet:
    """A set, or a map to verdicts. `temporary` says that elements of it come and go."""

    name: str
    place: Place
    elements: list[Element] = field(default_factory=list[Element])
    verdicts: list[tuple[Element, Verdict]] = field(default_factory=list[tuple[Element, Verdict]])
    temporary: bool = False
    unread: str = ""


@dataclass(slots=True)
class Table:
    """A table."""

    family: str
    name: str
    place: Place
    chains: dict[str, Chain] = field(default_factory=dict[str, Chain])
    sets: dict[str, NamedSet] = field(default_factory=dict[str, NamedSet])


UNKNOWN = "unknown"
"""The word of a verdict that is not known: a program decides, or a map that is not understood."""

VERDICTS = {
    "accept": Does.ACCEPT,
    "drop": Does.DROP,
    "return": Does.RETURN,
    "continue": Does.NOTHING,
    "jump": Does.JUMP,
    "goto": Does.GOTO,
    "reject": Does.DROP,
}

FIELDS = frozenset(
    {"ip saddr", "ip daddr", "ip protocol", "ip6 saddr", "ip6 daddr", "ip6 nexthdr", "meta l4proto", "meta nfproto",
     "meta protocol", "meta iif", "meta iifname", "meta oif", "meta oifname", "meta skuid", "meta pkttype",
     "icmp type", "icmp code", "icmpv6 type", "icmpv6 code", "ct state", "fib daddr type", "fib saddr type",
     *(f"{protocol} {port}" for protocol in ("tcp", "udp", "udplite", "sctp", "dccp", "th") for port in
       ("dport", "sport"))}
)  # fmt: skip
"""The fields that are understood."""


def temporary(options: Iterable[str]) -> bool:
    """Say whether the flags of a set let elements come and go."""
    return not {"timeout", "dynamic"}.isdisjoint(options)
