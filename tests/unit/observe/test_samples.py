"""Samples of packets as bytes and values, without a kernel."""

from __future__ import annotations

import struct
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.clients import KernelError, attribute, be32, text
from cellwall.observe import Ends, Header, parse_packet
from cellwall.observe.samples import parse_sample

A4, B4 = IPv4Address("10.0.0.1").packed, IPv4Address("10.0.0.2").packed
A6, B6 = IPv6Address("fd00::1").packed, IPv6Address("fd00::2").packed
TCP_SYN = struct.pack(">HHIIBBHHH", 40000, 22, 1, 0, 5 << 4, 0x02, 1000, 0, 0)


# Hop-by-hop options, destination options, a first fragment, an authentication header, then TCP.
LEADING = b"\x3c\0" + bytes(6) + b"\x2c\1" + bytes(14) + b"\x33\0\0\1" + bytes(4) + b"\6\4" + bytes(22)


def ip4(protocol: int, payload: bytes, *, options: bytes = b"", fragment: int = 0) -> bytes:
    words = 5 + len(options) // 4
    size = words * 4 + len(payload)
    head = struct.pack(">BBHHHBBH", 4 << 4 | words, 0, size, 1, fragment, 64, protocol, 0)
    return head + A4 + B4 + options + payload


def ip6(protocol: int, payload: bytes) -> bytes:
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + A6 + B6 + payload


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (ip4(6, TCP_SYN), Header(Ends(A4, B4, 6, 40000, 22), True, 2, 40)),
        (ip4(6, TCP_SYN, options=bytes(8)), Header(Ends(A4, B4, 6, 40000, 22), True, 2, 48)),
        (ip4(17, b"\0\1\0\2" + bytes(4)), Header(Ends(A4, B4, 17, 1, 2), True, 0, 28)),
        (ip4(1, b"\x08\0\0\0\x12\x34\0\1"), Header(Ends(A4, B4, 1, 0x1234, 0x0800), True, 0, 28)),
        (ip4(1, b"\x03\x04\0\0\x12\x34\0\1"), Header(Ends(A4, B4, 1, 0, 0x0304), True, 0, 28)),
        (ip4(47, b"abc"), Header(Ends(A4, B4, 47, 0, 0), True, 0, 23)),
        # A later fragment and a cut packet have no ports.
        (ip4(17, b"\0\1\0\2", fragment=5), Header(Ends(A4, B4, 17, 0, 0), False, 0, 24)),
        (ip4(6, TCP_SYN)[:22], Header(Ends(A4, B4, 6, 0, 0), False, 0, 40)),
        # The first fragment has them.
        (ip4(17, b"\0\1\0\2", fragment=0x2000), Header(Ends(A4, B4, 17, 1, 2), True, 0, 24)),
        (ip6(6, TCP_SYN), Header(Ends(A6, B6, 6, 40000, 22), True, 2, 60)),
        (ip6(58, b"\x80\0\0\0\x12\x34"), Header(Ends(A6, B6, 58, 0x1234, 0x8000), True, 0, 46)),
        (
            ip6(0, LEADING + TCP_SYN),
            Header(Ends(A6, B6, 6, 40000, 22), True, 2, 116),
        ),
        (ip6(44, b"\6\0\0\x08" + bytes(4) + TCP_SYN), Header(Ends(A6, B6, 6, 0, 0), False, 0, 68)),
        (ip6(0, b"\6"), Header(Ends(A6, B6, 0, 0, 0), True, 0, 41)),
    ],
)  # fmt: skip
def test_headers_are_read(packet: bytes, wanted: Header) -> None:
    assert parse_packet(packet) == wanted


@pytest.mark.parametrize(
    "packet", [b"", b"\x45", ip4(6, b"")[:19], ip6(6, b"")[:39], b"\x42" + bytes(30), b"\x10" * 60]
)
def test_what_is_no_ip_packet_has_no_header(packet: bytes) -> None:
    assert parse_packet(packet) is None


@given(st.sampled_from([4, 6]), st.binary(max_size=120))
def test_no_packet_makes_the_parser_fail(version: int, rest: bytes) -> None:
    parse_packet(bytes((version << 4 | 5,)) + rest)
    for packet in (ip6(0, rest), ip6(44, rest), ip6(51, rest)):
        parse_packet(packet)


SAMPLE = (
    bytes(4)
    + attribute(1, b"\x08\0\1\0")
    + be32(2, 7)
    + attribute(3, struct.pack(">QQ", 3, 5))
    + be32(4, 2)
    + attribute(9, ip4(6, TCP_SYN))
    + text(10, "cw:ssh ")
    + be32(11, 1000)
    + be32(12, 9)
    + be32(14, 100)
)


def test_a_sample_is_read_with_its_interfaces_named() -> None:
    sample = parse_sample(SAMPLE, {2: "eth0"})
    assert (sample.prefix, sample.hook, sample.mark, sample.uid, sample.gid) == ("cw:ssh", 1, 7, 1000, 100)
    assert (sample.in_device, sample.out_device, sample.at_ns, sample.sequence) == ("eth0", "", 3_000_005_000, 9)
    assert sample.header is not None and sample.header.ends.dport == 22
    assert parse_sample(SAMPLE, {}).in_device == ""


def test_a_sample_without_its_header_is_an_error() -> None:
    with pytest.raises(KernelError):
        parse_sample(bytes(4) + be32(2, 7), {})


@given(st.integers(0, len(SAMPLE)), st.integers(0, len(SAMPLE) - 1), st.integers(0, 255))
def test_damaged_samples_raise_nothing_but_kernel_errors(cut: int, place: int, byte: int) -> None:
    damaged = bytearray(SAMPLE)
    damaged[place] = byte
    for one in (SAMPLE[:cut], bytes(damaged), bytes(damaged)[:cut]):
        with suppress(KernelError):
            parse_sample(one, {})
