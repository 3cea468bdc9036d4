"""A program as one nft(8) transaction: from what the table holds to what it is to hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import assert_never

from cellwall.enforce.nft.program import (
    TABLE,
    Accept,
    Chain,
    Count,
    Counter,
    Data,
    Goto,
    HasUser,
    In,
    Jump,
    Key,
    Kind,
    Known,
    Line,
    Lookup,
    LookupUnit,
    Loopback,
    MapShape,
    MarkFrom,
    Midstream,
    New,
    Program,
    Range,
    Refuse,
    Reply,
    Return,
    Sample,
    SetMark,
    Statement,
    Version,
)

LOG_GROUP = 5
MOST_COMMENT = 127
ELEMENTS_A_LINE = 2000
REFILL_SHARE = 0.5
"""From this share of changed elements on, a map is flushed and refilled in the same transaction."""


@dataclass(frozen=True)
class Held:
    """Names of what the table holds where the content is not known, after a restart."""

    maps: Mapping[str, bool]
    """By name, whether it is a map that we fill (and not a set that packets fill)."""
    chains: frozenset[str]


def transaction(held: Program | Held | None, wanted: Program) -> str:
    """Write the change from `held` to `wanted`: all of it or none, and never a moment without a table.

    None is no table. What is held but not wanted goes last; what packets filled stays.
    """
    out: list[str] = [f"add table inet {TABLE}"]
    if held is None:
        held = Program()
    known = held if isinstance(held, Program) else None
    old_maps = set(known.shapes) if known else set(held.maps)  # type: ignore[union-attr]
    old_chains = set(held.chains)

    for name, shape in wanted.shapes.items():
        if name not in old_maps:
            out.append(_declare(shape))
    for name, chain in wanted.chains.items():
        if known is not None and known.chains.get(name) == chain:
            continue
        out.append(_declare_chain(name, chain))
        if name in old_chains:
            out.append(f"flush chain inet {TABLE} {name}")
    out.extend(f"flush chain inet {TABLE} {name}" for name in sorted(old_chains - set(wanted.chains)))
    for name, shape in wanted.shapes.items():
        if shape.data:
            before = known.elements.get(name) if known is not None else None
            after = wanted.elements[name]
            out.extend(_fill(shape, before, after, wanted.cgroups, fresh=name not in old_maps))
    stale = [(name, "map" if _is_map(held, name) else "set") for name in sorted(old_maps - set(wanted.shapes))]
    out.extend(f"flush {kind} inet {TABLE} {name}" for name, kind in stale)
    for name, chain in wanted.chains.items():
        if known is None or known.chains.get(name) != chain:
            out.extend(f"add rule inet {TABLE} {name} {write_line(line)}" for line in chain.lines)
    out.extend(f"delete chain inet {TABLE} {name}" for name in sorted(old_chains - set(wanted.chains)))
    out.extend(f"delete {kind} inet {TABLE} {name}" for name, kind in stale)
    return "\n".join(out) + "\n"


def _is_map(held: Program | Held, name: str) -> bool:
    return bool(held.shapes[name].data) if isinstance(held, Program) else held.maps[name]


def only_elements(held: Program, wanted: Program) -> bool:
    """Say whether nothing but elements of hash maps differs: then netlink is the quicker way."""
    if held.shapes != wanted.shapes or held.chains != wanted.chains:
        return False
    return all(
        held.elements[name] == wanted.elements[name]
        for name, shape in wanted.shapes.items()
        if shape.interval and shape.data
    )


def element_changes(before: Mapping[Key, Data], after: Mapping[Key, Data]) -> tuple[list[Key], list[tuple[Key, Data]]]:
    """Give what to delete and then what to add; an element whose data changes is in both."""
    gone = [key for key, data in before.items() if after.get(key) != data]
    come = [(key, data) for key, data in after.items() if before.get(key) != data]
    return gone, come


def _fill(
    shape: MapShape,
    before: Mapping[Key, Data] | None,
    after: Mapping[Key, Data],
    cgroups: Mapping[int, str],
    *,
    fresh: bool,
) -> Iterable[str]:
    name = f"inet {TABLE} {shape.name}"
    if fresh or before is None:
        if not fresh:
            yield f"flush map {name}"
        yield from _elements("add", shape, after.items(), cgroups)
        return
    gone, come = element_changes(before, after)
    if not gone and not come:
        return
    # nft 1.0.6 reads a whole interval map back before it changes one element of it.
    # A control group that is gone has no path by which nft could name it.
    if shape.interval or Kind.CGROUP in shape.key or len(gone) > REFILL_SHARE * len(before):
        yield f"flush map {name}"
        yield from _elements("add", shape, after.items(), cgroups)
        return
    yield from _elements("delete", shape, ((key, None) for key in gone), cgroups)
    yield from _elements("add", shape, come, cgroups)


def _elements(
    verb: str, shape: MapShape, elements: Iterable[tuple[Key, Data | None]], cgroups: Mapping[int, str]
) -> Iterable[str]:
    # In order of key: easier to review, and the same text for the same content.
    written = [
        _key(shape.key, key, cgroups) + ("" if data is None else f" : {_data(data)}")
        for key, data in sorted(elements, key=lambda pair: pair[0])
    ]
    for start in range(0, len(written), ELEMENTS_A_LINE):
        body = ", ".join(written[start : start + ELEMENTS_A_LINE])
        yield f"{verb} element inet {TABLE} {shape.name} {{ {body} }}"


def _data(data: Data) -> str:
    return f"{data:#010x}" if isinstance(data, int) else f"goto {data.chain}"


def _key(kinds: tuple[Kind, ...], key: Key, cgroups: Mapping[int, str]) -> str:
    if kinds == (Kind.CGROUP,):
        return f'"{cgroups[key[0][0]]}"'
    return " . ".join(_range(kind, one) for kind, one in zip(kinds, key, strict=True))


def _range(kind: Kind, one: Range) -> str:
    low, high = one
    if low == high:
        return _value(kind, low)
    return f"{_value(kind, low)}-{_value(kind, high)}"


def _value(kind: Kind, value: int) -> str:
    match kind:
        case Kind.MARK:
            return f"{value:#010x}"
        case Kind.IPV4:
            return str(IPv4Address(value))
        case Kind.IPV6:
            return str(IPv6Address(value))
        case _:
            return str(value)


def _declare(shape: MapShape) -> str:
    name = f"inet {TABLE} {shape.name}"
    kinds = " . ".join(shape.key)
    if shape.data:
        flags = " flags interval ;" if shape.interval else ""
        return f"add map {name} {{ type {kinds} : {shape.data} ;{flags} }}"
    return (
        f"add set {name} {{ type {kinds} ; flags dynamic,timeout ; size {shape.size} ; timeout {shape.timeout_s}s ; }}"
    )


def _declare_chain(name: str, chain: Chain) -> str:
    if not chain.hook:
        return f"add chain inet {TABLE} {name}"
    policy = "drop" if chain.drops else "accept"
    return f"add chain inet {TABLE} {name} {{ type filter hook {chain.hook} priority filter ; policy {policy} ; }}"


def write_line(line: Line) -> str:
    """Write a rule."""
    text = " ".join(write(statement) for statement in line.statements)
    if not line.comment:
        return text
    comment = line.comment.replace('"', "'").replace("\n", " ")
    while len(comment.encode()) > MOST_COMMENT:
        comment = comment[:-1]
    return f'{text} comment "{comment}"'


def write(statement: Statement) -> str:
    """Write a statement."""
    match statement:
        case Loopback(arriving):
            return 'iif "lo"' if arriving else 'oif "lo"'
        case Reply():
            return "ct direction reply ct state established,related"
        case New():
            return "ct state new"
        case Known():
            return "ct state established"
        case Midstream():
            return "meta l4proto tcp ct state new tcp flags & (syn | ack) != syn"
        case Version(version):
            return f"meta nfproto ipv{version}"
        case In(field, kind, ranges):
            written = [_range(kind, one) for one in ranges]
            return f"{field} {written[0]}" if len(written) == 1 else f"{field} {{ {', '.join(written)} }}"
        case HasUser():
            return "meta skuid 0-4294967295"
        case SetMark(value):
            return f"meta mark set {value:#010x}"
        case MarkFrom(field, name):
            return f"meta mark set {field} map @{name}"
        case Lookup(fields, name):
            return f"{' . '.join(fields)} vmap @{name}"
        case LookupUnit(level, name):
            return f"socket cgroupv2 level {level} vmap @{name}"
        case Count(name, fields):
            return f"update @{name} {{ {' . '.join(fields)} counter }}"
        case Counter():
            return "counter"
        case Sample(prefix, per_second):
            return (
                f'limit rate {per_second}/second burst {4 * per_second} packets log prefix "{prefix}" '
                f"group {LOG_GROUP} snaplen 128 queue-threshold 8"
            )
        case Jump(chain):
            return f"jump {chain}"
        case Goto(chain):
            return f"goto {chain}"
        case Return():
            return "return"
        case Accept():
            return "accept"
        case Refuse(tcp):
            return "meta l4proto tcp reject with tcp reset" if tcp else "reject with icmpx admin-prohibited"
        case _:
            assert_never(statement)
