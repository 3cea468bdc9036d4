"""Many changes of elements as several transactions.

While anybody on the machine listens to changes of nftables, in whatever network namespace, the kernel makes a notice of
8 KiB for each element and holds all of them until the transaction ends: 850 MiB for 100,000 elements (6.18).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from cellwall.enforce.nft.element import Add, Delete, ElementChange, Fill

MOST_AT_ONCE = 1024
"""So many elements are changed in one transaction, where it need not be one: notices of 9 MiB."""


def portions(changes: Iterable[ElementChange]) -> Iterator[list[ElementChange]]:
    """Give the same changes as lists of at most `MOST_AT_ONCE` elements; their order is kept."""
    portion: list[ElementChange] = []
    for one in changes:
        if isinstance(one, Fill):
            marks = iter(one.marks.items())
            while part := dict(islice(marks, MOST_AT_ONCE)):
                if portion:
                    yield portion
                portion = [Fill(one.into, part)]
        elif len(portion) < MOST_AT_ONCE and not any(isinstance(last, Fill) for last in portion[-1:]):
            portion.append(one)
        else:
            yield portion
            portion = [one]
    if portion:
        yield portion


def undone(changes: Iterable[ElementChange]) -> Iterator[Delete]:
    """Give what takes out again the elements that `changes` put in."""
    for one in changes:
        if isinstance(one, Fill):
            yield from (Delete(one.into, key) for key in one.marks)
        elif isinstance(one, Add):
            yield Delete(one.into, one.key, one.key_end, one.end)
