"""How wide the columns of a table are, so that what people copy stays in one piece."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

_SIGNS = "✔◌✘·"
_JOINTS = "-/.:,=_"
NARROW, FIRST_PART = 8, 4
"""In cells: a column of long words gives room down to here before others do. The first one keeps a fourth of it all."""


def fit(columns: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Give each column a width, in cells, where the whole is wider than `room`; None where it is not.

    Words stay whole where that is possible, and what is left over goes to all that could use it. Where even the words
    are too many, the columns with the longest words break theirs, one column after the other; the first one last,
    as it holds what other commands ask for, where it does not take more than its part."""
    wanted = [max((cell_len(text) for text in texts), default=1) for texts in columns]
    if sum(wanted) <= room:
        return None
    words = [max((_longest_word(text) for text in texts), default=1) for texts in columns]
    widths = list(words)
    while sum(widths) > room:
        keep = widths[0] <= room // FIRST_PART and max(widths[1:], default=0) > room // len(widths)
        others = range(1 if keep else 0, len(widths))
        widest = max(others, key=lambda at: (words[at] if widths[at] > NARROW else 0, widths[at]))
        if widths[widest] <= 1:
            return None
        widths[widest] -= 1
    left = room - sum(widths)
    while left:
        short = [at for at, width in enumerate(widths) if width < wanted[at]]
        for at in short[:left]:
            widths[at] += 1
        left -= min(len(short), left)
    return widths


def broken(text: str, width: int) -> str:
    """Break the words of `text` that are longer than `width` cells into lines, where they have joints (`-`, `/`, …)
    behind them."""
    return " ".join(_broken(word, width) if cell_len(word) > width else word for word in text.split(" "))


def _broken(word: str, width: int) -> str:
    lines, rest = list[str](), word
    while len(rest) > width:
        at = max((rest.rfind(joint, 0, width) for joint in _JOINTS), default=-1) + 1 or width
        lines.append(rest[:at])
        rest = rest[at:]
    return "\n".join((*lines, rest))


def _longest_word(text: str) -> int:
    if text[:1] in _SIGNS:
        # A sign is one word with the first of its verdict.
        sign, _, rest = text.partition(" ")
        text = f"{sign}_{rest}"
    return max((cell_len(word) for word in text.split()), default=1)
