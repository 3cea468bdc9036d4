"""What a table takes: its elements, the kernel's memory for it, and all the memory that writing it takes.

The one definition of the kernel's budget: the agent refuses by it, and the controller plans with it. The figures were
measured (`docs/design/enforce-nft.md`, kernel 6.18, nft 1.0.6; again by `python -m tests.kernel.test_weight`) and
rounded up. Most of what writing takes is gone right after: nft(8)'s words, and the notices of `portions.py`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from cellwall.compile import EVERYONE, Entry, Ruleset
from cellwall.enforce.nft.portions import MOST_AT_ONCE
from cellwall.traffic import ICMPS

HELD_BASE, HELD_MEMBER, HELD_EXACT, HELD_WIDE, HELD_NETWORK, HELD_RULE, HELD_CLASS = (
    512 << 10,
    128,
    192,
    640,
    256,
    1536,
    256,
)
"""Bytes in the kernel for a table and for each of its parts, once it is written. A wide element is one of ranges."""
PEAK_BASE, PEAK_MEMBER, PEAK_EXACT, PEAK_WIDE, PEAK_NETWORK, PEAK_RULE, PEAK_CLASS = (
    8 << 20,
    1400,
    1536,
    12 << 10,
    24 << 10,
    60 << 10,
    12 << 10,
)
"""Bytes while it is written, by kernel, agent and nft(8) together; of members and exact elements without notices."""
NOTICE = 8704
"""Bytes of a notice: the kernel makes one for each element of a transaction while anybody listens."""
LARGE_RANGE, MOST_PROTOCOLS = 0x4000, 128
"""As `place.py` has it: a larger range stands for its protocol, and what spans more protocols for all of them."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What one point's table takes: about so many `elements` of maps; `held` bytes of the kernel's memory while it is
    in force; and `peak` bytes, of kernel, agent and nft(8) together, that must be there to write it."""

    elements: int
    held: int
    peak: int


class Scales:
    """Weighs rulesets; entries that several of them share, the same object, are counted once.

    It keeps the entries that it counted for as long as it is there."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[tuple[Entry, ...], int, int]] = {}

    def weigh(self, ruleset: Ruleset, members: int) -> Weight:
        """Estimate what a table of `ruleset` with so many members takes, beside one that is there already."""
        exact = wide = 0
        for face in ruleset.faces:
            for entries in (face.ingress, face.egress):
                if entries:
                    known = self._counted.get(id(entries)) or self._count(entries)
                    exact, wide = exact + known[1], wide + known[2]
        networks, rules, classes = len(ruleset.networks), len(ruleset.rules), len(ruleset.classes)
        held = HELD_MEMBER * members + HELD_EXACT * exact + HELD_WIDE * wide
        held += HELD_NETWORK * networks + HELD_RULE * rules + HELD_CLASS * classes
        peak = PEAK_MEMBER * members + PEAK_EXACT * exact + NOTICE * min(members + exact, MOST_AT_ONCE)
        peak += PEAK_WIDE * wide + PEAK_NETWORK * networks + PEAK_RULE * rules + PEAK_CLASS * classes
        return Weight(members + exact + wide + networks, HELD_BASE + held, PEAK_BASE + peak)

    def _count(self, entries: tuple[Entry, ...]) -> tuple[tuple[Entry, ...], int, int]:
        exact = wide = 0
        firsts = sorted(entry.first for entry in entries if entry.peer == EVERYONE)
        lasts = sorted(entry.last for entry in entries if entry.peer == EVERYONE)
        for entry in entries:
            first, last = entry.first >> 16, entry.last >> 16
            if entry.first == entry.last and first not in ICMPS:
                exact += 1
            elif entry.last - entry.first < LARGE_RANGE and first == last and first not in ICMPS:
                wide += 1
            else:
                # What remains beside it may need elements of its own; of many protocols one stands for all.
                wide += 2 if last - first >= MOST_PROTOCOLS else 2 * (last - first + 1)
            if entry.first != entry.last and entry.peer != EVERYONE:
                # What is said of everyone within a range cuts it in three.
                wide += 2 * (bisect_right(firsts, entry.last) - bisect_left(lasts, entry.first))
        # The entries are kept beside what was counted: so no others can have their identity.
        self._counted[id(entries)] = found = entries, exact, wide
        return found


def weigh(ruleset: Ruleset, members: int) -> Weight:
    """Estimate what a table of `ruleset` with so many members takes, beside one that is there already."""
    return Scales().weigh(ruleset, members)
