"""The table in memory: runs packets through a program as the kernel would, for tests and for questions."""

from __future__ import annotations

from collections import Counter as Tally
from contextlib import suppress
from dataclasses import dataclass, field
from typing import assert_never

from cellwall.enforce.nft.program import (
    FAMILIES,
    FAMILY_NUMBERS,
    ICMP_FIELDS,
    Accept,
    Chain,
    Count,
    Counter,
    Data,
    Drop,
    Field,
    Goto,
    HasUser,
    In,
    Jump,
    Key,
    Known,
    Lookup,
    LookupUnit,
    Loopback,
    MarkFrom,
    Midstream,
    New,
    Program,
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
from cellwall.traffic import ICMPS, PORTED, TCP, Address


@dataclass(frozen=True)
class Packet:
    """A packet at a hook. `port` is as in `cellwall.traffic.ports`; `state` is conntrack's: `new`,
    `established`, `invalid`, `untracked`.

    `user` is a user id, None for packets that the kernel makes; `cgroups` are the ids of the socket's control
    group and its parents, by level; `connection_mark` is that of its tracked connection.
    """

    source: Address
    destination: Address
    protocol: int
    port: int
    source_port: int = 40000
    state: str = "new"
    reply: bool = False
    opens: bool = True
    resets: bool = False
    loopback: bool = False
    user: int | None = 0
    cgroups: dict[int, int] = field(default_factory=dict[int, int])
    connection_mark: int = 0


@dataclass(frozen=True)
class Fate:
    """What became of a packet: passed or not, and the counted tuple keys, by set."""

    passed: bool
    counted: tuple[tuple[str, tuple[int, ...]], ...]
    mark: int


class _Ended(Exception):
    def __init__(self, passed: bool) -> None:
        self.passed = passed


class _Returned(Exception):
    pass


class FakeKernel:
    """Runs packets through a `Program`, statement by statement."""

    def __init__(self, program: Program, now: float = 0.0) -> None:
        self._program = program
        self.now = now
        """Elements that end by this moment are gone."""
        self.hits: Tally[str] = Tally()

    def run(self, hook: str, packet: Packet) -> Fate:
        """Give the fate of `packet` at the `input` or the `output` hook."""
        chain = self._program.chains[hook]
        run = _Run(self._program, packet, self.hits, self.now)
        try:
            run.chain(chain)
        except _Ended as end:
            return Fate(end.passed, tuple(run.counted), run.mark)
        except _Returned:
            pass
        return Fate(not chain.drops, tuple(run.counted), run.mark)


class _Run:
    def __init__(self, program: Program, packet: Packet, hits: Tally[str], now: float) -> None:
        self._program = program
        self._now = now
        self._packet = packet
        self._hits = hits
        self.mark = 0
        self.counted: list[tuple[str, tuple[int, ...]]] = []

    def chain(self, chain: Chain) -> None:
        for line in chain.lines:
            goto = self._line(line.statements, line.comment)
            if goto is not None:
                self.chain(self._program.chains[goto])
                raise _Returned

    def _line(self, statements: tuple[Statement, ...], comment: str) -> str | None:
        """Run a rule; give the chain to go to for good, if any."""
        packet = self._packet
        for statement in statements:
            match statement:
                case Loopback():
                    matched = packet.loopback
                case Reply():
                    matched = packet.reply
                case New():
                    matched = packet.state in {"new", "invalid", "untracked"}
                case Stray():
                    matched = packet.state == "invalid"
                case Known():
                    matched = packet.state == "established"
                case Midstream():
                    matched = packet.protocol == TCP and packet.state == "new" and not packet.opens
                case Reset():
                    matched = packet.protocol == TCP and packet.state in {"established", "related"} and packet.resets
                case Version(version):
                    matched = packet.source.version == version
                case In(name, _, ranges):
                    value = self._read(name)
                    matched = value is not None and any(low <= value <= high for low, high in ranges)
                case HasUser():
                    matched = packet.user is not None
                case SetMark(value):
                    self.mark, matched = value, True
                case MarkFrom(name, held):
                    data = self._find(held, (self._read(name),))
                    matched = data is not None
                    if isinstance(data, int):
                        self.mark = data
                case Lookup(fields, held):
                    data = self._find(held, tuple(self._read(name) for name in fields))
                    if isinstance(data, Goto):
                        return data.chain
                    if isinstance(data, Jump):
                        self._jump(data.chain)
                    matched = False
                case LookupUnit(level, held):
                    data = self._find(held, (packet.cgroups.get(level),))
                    if isinstance(data, Goto):
                        return data.chain
                    matched = False
                case Count(held, fields):
                    read = [self._read(name) for name in fields]
                    matched = None not in read
                    if matched:
                        self.counted.append((held, tuple(value for value in read if value is not None)))
                case Counter():
                    self._hits[comment] += 1
                    matched = True
                case Sample():
                    matched = True
                case Jump(name):
                    matched = True
                    self._jump(name)
                case Goto(name):
                    return name
                case Return():
                    raise _Returned
                case Accept():
                    raise _Ended(True)
                case Drop():
                    raise _Ended(False)
                case Refuse(tcp):
                    matched = False
                    if not tcp or packet.protocol == TCP:
                        raise _Ended(False)
                case _:
                    assert_never(statement)
            if not matched:
                return None
        return None

    def _jump(self, name: str) -> None:
        with suppress(_Returned):
            self.chain(self._program.chains[name])

    def _read(self, name: Field) -> int | None:
        packet = self._packet
        source, destination, _, icmp = FAMILIES[packet.source.version]
        values: dict[Field, int | None] = {
            Field.MARK: self.mark,
            source: int(packet.source),
            destination: int(packet.destination),
            Field.PROTOCOL: packet.protocol,
            Field.USER: packet.user,
            Field.FAMILY: FAMILY_NUMBERS[packet.source.version],
            Field.CONNECTION_MARK: packet.connection_mark,
        }
        if packet.protocol in PORTED:
            values[Field.SOURCE_PORT], values[Field.DESTINATION_PORT] = packet.source_port, packet.port
        elif packet.protocol in ICMPS:
            # What stands where a port would: the checksum.
            values[Field.SOURCE_PORT], values[Field.DESTINATION_PORT] = packet.port, 0xABCD
            if packet.protocol == icmp:
                kind, code = ICMP_FIELDS[icmp]
                values[kind], values[code] = packet.port >> 8, packet.port & 0xFF
        return values.get(name)

    def _find(self, held: str, key: tuple[int | None, ...]) -> Data | None:
        until = self._program.shapes[held].until
        if None in key or (until is not None and until <= self._now):
            return None
        elements = self._program.elements[held]
        exact: Key = tuple((value, value) for value in key if value is not None)
        found = elements.get(exact)
        if found is None and self._program.shapes[held].interval:
            for ranges, data in elements.items():
                if all(low <= value <= high for (low, high), (value, _) in zip(ranges, exact, strict=True)):
                    return data
        return found
