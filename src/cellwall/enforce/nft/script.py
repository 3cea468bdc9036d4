"""Programs and changes as nft(8) text."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import assert_never

from cellwall.enforce.nft.interim import OF_ORDERS, Layer
from cellwall.enforce.nft.orders import ORDERS
from cellwall.enforce.nft.program import (
    FAMILY_NUMBERS,
    TABLE,
    Accept,
    Chain,
    Count,
    Counter,
    Data,
    Drop,
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
    Reset,
    Return,
    Sample,
    SetMark,
    Statement,
    Stray,
    Version,
)
from cellwall.enforce.nft.steps import Names, Steps, plan_steps

LOG_GROUP = 5
MOST_COMMENT = 127
ELEMENTS_A_LINE = 2000
FAMILY_NAMES = {number: f"ipv{version}" for version, number in FAMILY_NUMBERS.items()}


def transaction(held: Program | Names | None, wanted: Program, layers: Sequence[Layer] = ()) -> str:
    """Write the whole change from `held` to `wanted`, its transactions one after the other, for a person to read."""
    parts = scripts(plan_steps(held, wanted, layers))
    return "".join(f"# {name}\n{text}" for name, text in zip(("build", "switch", "sweep"), parts, strict=True) if text)


def scripts(steps: Steps) -> tuple[str, str, str]:
    """Write the three steps, each as one transaction; an empty text where there is nothing to do."""
    return build_script(steps), switch_script(steps), sweep_script(steps)


def build_script(steps: Steps, leave_out: Container[str] = ()) -> str:
    """Write what is to stand beside what is there, without the elements of the maps to `leave_out`."""
    program = steps.program
    out = [_declare(shape) for shape in steps.new_maps]
    # Those of orders stay where they are, and are called by what is built before they are written.
    asked = OF_ORDERS if program.spare else (ORDERS,)
    called = [name for name in asked if name in program.chains and steps.new_chains]
    out += [f"add chain inet {TABLE} {name}" for name in (*called, *steps.new_chains)]
    for name, elements in steps.come.items():
        if name not in leave_out:
            out.extend(_elements("add", program.shapes[name], elements, program.cgroups))
    for name in steps.new_chains:
        out.extend(_rules(name, program.chains[name]))
    return _join([f"add table inet {TABLE}", *out] if out else [])


def switch_script(steps: Steps) -> str:
    """Write the base chains anew, so that packets are led to what was built."""
    out: list[str] = []
    for name in steps.rewritten:
        chain = steps.program.chains[name]
        out += [_declare_chain(name, chain), f"flush chain inet {TABLE} {name}", *_rules(name, chain)]
    return _join([f"add table inet {TABLE}", *out] if out else [])


def sweep_script(steps: Steps) -> str:
    """Write what goes away."""
    out: list[str] = []
    for name, keys in steps.gone.items():
        shape = steps.program.shapes[name]
        out.extend(_elements("delete", shape, ((key, None) for key in keys), steps.program.cgroups))
    out += [f"flush chain inet {TABLE} {name}" for name in steps.old_chains]
    kinds = [("map" if is_map else "set", name) for name, is_map in steps.old_maps.items()]
    out += [f"flush {kind} inet {TABLE} {name}" for kind, name in kinds]
    out += [f"delete chain inet {TABLE} {name}" for name in steps.old_chains]
    out += [f"delete {kind} inet {TABLE} {name}" for kind, name in kinds]
    return _join(out)


def _rules(name: str, chain: Chain) -> Iterable[str]:
    return (f"add rule inet {TABLE} {name} {write_line(line)}" for line in chain.lines)


def _join(lines: list[str]) -> str:
    return "\n".join(lines) + "\n" if lines else ""


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
    return f"{data:#010x}" if isinstance(data, int) else write(data)


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
        case Kind.FAMILY:
            return FAMILY_NAMES[value]
        case _:
            return str(value)


def _declare(shape: MapShape) -> str:
    name = f"inet {TABLE} {shape.name}"
    kinds = " . ".join(shape.key)
    if shape.data:
        flags = " flags interval ;" if shape.interval else " flags timeout ;" if shape.until is not None else ""
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
            return "ct state invalid,new,untracked"
        case Known():
            return "ct state established"
        case Stray():
            return "ct state invalid"
        case Midstream():
            return "meta l4proto tcp ct state new tcp flags & (syn | ack) != syn"
        case Reset():
            return "meta l4proto tcp ct state established,related tcp flags & rst == rst"
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
        case Drop():
            return "drop"
        case Refuse(tcp):
            return "meta l4proto tcp reject with tcp reset" if tcp else "reject with icmpx admin-prohibited"
        case _:
            assert_never(statement)
