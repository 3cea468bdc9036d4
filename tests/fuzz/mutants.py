"""Bytes and texts that are almost right: what a parser is given by a broken or a hostile peer."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

NUMBERS = tuple(
    struct.pack(form, number & mask)
    for form, mask in ((">H", 0xFFFF), ("<H", 0xFFFF), (">I", 0xFFFFFFFF), ("<I", 0xFFFFFFFF), ("B", 0xFF))
    for number in (0, 1, 2, 3, 4, 15, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
)
"""Lengths and counts that parsers trip over."""
PIECES = (
    b"", b"\0", b"\n", b"\r\n", b" ", b"'", b'"', b"`", b"{", b"}", b"[", b"]", b":", b",", b"-", b"!", b"%",
    b"&a", b"*a",
    b"null", b"true", b"~", b"0", b"-1", b"1e999", b"nan", b"99999999999999999999", b"\xff\xfe", b"\xed\xa0\x80",
    "é".encode(), "\u2028".encode(), b"0.0.0.0/0", b"::/0", b"::ffff:1.2.3.4", b"65536", b"0x10",
    b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\x91" * 200,     b"[" * 200, b"{a: " * 60, b"a" * 3000,
)  # fmt: skip


def mutants(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Give seeds, changed at one to four places; and now and then bytes that resemble nothing."""

    @st.composite
    def mutant(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(data)))
            match draw(st.sampled_from(["flip", "number", "cut", "splice", "insert", "double", "drop", "other"])):
                case "flip" if at < len(data):
                    data[at] ^= 1 << draw(st.integers(0, 7))
                case "number":
                    number = draw(st.sampled_from(NUMBERS))
                    data[at : at + len(number)] = number
                case "cut":
                    del data[at:]
                case "splice":
                    other = draw(st.sampled_from(seeds))
                    data[at:] = other[draw(st.integers(0, len(other))) :]
                case "insert":
                    data[at:at] = draw(st.sampled_from(PIECES))
                case "double":
                    part = data[at : at + draw(st.integers(1, 64))]
                    data[at:at] = part * draw(st.integers(1, 20))
                case "drop":
                    del data[at : at + draw(st.integers(1, 8))]
                case _:
                    data[at:at] = draw(st.binary(max_size=8))
        return bytes(data)

    return mutant() | st.binary(max_size=120)
