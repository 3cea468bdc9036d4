"""Text of others on a terminal: what would steer the terminal, or turn what is read around, is shown, not obeyed.

A process names itself as it likes, and so does whoever writes a note: ESC ] 0 ; … in it would be a command to the
terminal of whoever lists it (ECMA-48), and U+202E would turn a name around (UAX #9).
"""

from __future__ import annotations

_STEERS = (
    *(one for one in range(0x20) if chr(one) not in "\n\t"),
    *range(0x7F, 0xA0),
    *(0x61C, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)
_SHOWN = {one: f"\\x{one:02x}" if one < 0x100 else f"\\u{one:04x}" for one in _STEERS}
_IN_JSON = {one: f"\\u{one:04x}" for one in _STEERS if one > 0x20}


def visible(text: str) -> str:
    """Give `text` with every character that steers shown as its number; lines and tabs stay."""
    return text if text.isprintable() else text.translate(_SHOWN)


def visible_json(text: str) -> str:
    """Give JSON that means the same, with the characters escaped that steer."""
    return text if text.isascii() else text.translate(_IN_JSON)
