"""How wide the columns of a table are, so that what people copy stays in one piece."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

_SIGNS = "✔◌✘·"


def fit(columns: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Give each column a width, in cells, where the whole is wider than `room`; None where it is not.

    Words stay whole where that is possible, and what is left over goes to all that could use it. Where even the words
    are too many, the widest columns break theirs; the first one last, as it holds what other commands ask for."""
    wanted = [max((cell_len(text) for text in texts), default=1) for texts in columns]
    if sum(wanted) <= room:
        return None
    widths = [max((_longest_word(text) for text in texts), default=1) for texts in columns]
    while sum(widths) > room:
        others = range(1, len(widths)) if max(widths[1:], default=0) > room // len(widths) else range(len(widths))
        widest = max(others, key=lambda at: widths[at])
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


def _longest_word(text: str) -> int:
    # A verdict is one word with its sign.
    if text[:1] in _SIGNS:
        return cell_len(text)
    return max((cell_len(word) for word in text.split()), default=1)
