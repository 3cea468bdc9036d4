"""What is spoken over UDP: echo, DNS and syslog."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from .streams import WrongAnswer, expect
from .turn import Task, exchange

A, AAAA = 1, 28


def question(name: str, kind: int, number: int) -> bytes:
    """Write a DNS query (RFC 1035 §4) with recursion desired."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return (
        number.to_bytes(2, "big") + b"\x01\0\0\x01\0\0\0\0\0\0" + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\x01"
    )


def answer(query: bytes, zone: Mapping[str, list[str]]) -> bytes | None:
    """Answer a DNS query for `zone`, names to addresses: A, AAAA, NODATA or NXDOMAIN; None for what is no query."""
    if len(query) < 17 or query[2] & 0x80 or query[4:6] != b"\0\x01":
        return None
    at, parts = 12, list[str]()
    while at < len(query) and query[at]:
        parts.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace").lower())
        at += 1 + query[at]
    at += 5
    if at > len(query) or any(len(part) > 63 for part in parts):
        return None
    kind = int.from_bytes(query[at - 4 : at - 2], "big")
    name = ".".join(parts)
    family = {A: socket.AF_INET, AAAA: socket.AF_INET6}.get(kind)
    found = [address for address in zone.get(name, []) if (":" in address) == (kind == AAAA)] if family else []
    records = b""
    for address in found:
        data = socket.inet_pton(socket.AF_INET6 if kind == AAAA else socket.AF_INET, address)
        records += b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\x01\0\0\0\x3c" + len(data).to_bytes(2, "big") + data
    flags = b"\x85\x80" if name in zone else b"\x85\x83"
    return query[:2] + flags + b"\0\x01" + len(found).to_bytes(2, "big") + bytes(4) + query[12:at] + records


def ask_dns(host: str, port: int, name: str, address: str, number: int, deadline: float) -> Task[None]:
    """Resolve `name` at the server and check that the answer is `address`. `number` (0 to 65535) is the query id."""
    kind = AAAA if ":" in address else A
    query = question(name, kind, number)
    found = yield from exchange(host, port, query, deadline)
    expect(found[:2], query[:2])
    data = socket.inet_pton(socket.AF_INET6 if kind == AAAA else socket.AF_INET, address)
    if not found.endswith(data):
        raise WrongAnswer(f"wrong answer for {name}")


def ask_echo(host: str, port: int, token: str, deadline: float) -> Task[None]:
    """Send `token` and check that it comes back."""
    expect((yield from exchange(host, port, token.encode(), deadline)), token.encode())


def log_line(call: str, number: int) -> bytes:
    """Write a syslog message (RFC 5424) that carries the name of its call and its number in the row."""
    return f"<134>1 - - lab - - - {call} {number}".encode()


def read_log_line(message: bytes) -> tuple[str, int] | None:
    """Give call and number of a message of `log_line`; None for any other."""
    words = message.decode("utf-8", "replace").split(" ")
    if len(words) != 9 or words[0] != "<134>1" or not words[8].isdecimal():
        return None
    return words[7], int(words[8])
