"""Change and read the elements of nftables sets and maps over netlink, at a thousandth of the cost of `nft`."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from cellwall.clients import BatchRefused, Changed, KernelError, Netlink, Protocol, attributes, text, to_number, to_text
from cellwall.enforce.nft.element import (
    ACCEPT,
    DROP,
    Act,
    Add,
    Branch,
    Data,
    Delete,
    Element,
    ElementChange,
    Family,
    Fill,
    Flush,
    SetShape,
    add_range,
    concat,
    delete_range,
    goto,
    jump,
    key_at,
    mark,
    paired,
    parse_comment,
    parse_elements,
    parse_shape,
    prologue,
    requests,
)

__all__ = [
    "ACCEPT",
    "DROP",
    "Act",
    "Add",
    "Branch",
    "Data",
    "Delete",
    "Element",
    "ElementChange",
    "Family",
    "Fill",
    "Flush",
    "SetShape",
    "add_range",
    "change",
    "comments",
    "concat",
    "delete_range",
    "describe",
    "dump",
    "generation_id",
    "goto",
    "jump",
    "mark",
    "open_link",
    "table_exists",
]

SUBSYSTEM = 10
"""The netfilter subsystem number of nf_tables."""

_READ_ATTEMPTS, _READ_PAUSE_S = 10, 0.01
_GETTABLE, _GETRULE, _GETSET = 10 << 8 | 1, 10 << 8 | 7, 10 << 8 | 10
_GETSETELEM, _GETGEN = 10 << 8 | 13, 10 << 8 | 16


def open_link() -> Netlink:
    """Open a socket to nf_tables in this network namespace, to be used for many calls."""
    return Netlink(Protocol.NETFILTER)


def _use(link: Netlink | None) -> AbstractContextManager[Netlink]:
    return open_link() if link is None else nullcontext(link)


def change(
    table: str,
    changes: Iterable[ElementChange],
    *,
    family: Family = Family.INET,
    generation: int | None = None,
    link: Netlink | None = None,
) -> None:
    """Make all `changes` to sets and maps of `table`, in their order, in one transaction: all of them or none.

    `generation` guards against changes by anyone since it was read: then it raises `Changed`. `link` is the socket
    to use, needed when it owns the table; else one is opened. Raises `BatchRefused`, naming the element. After
    either nothing was changed.
    """
    batch = list(requests(table, changes, family))
    with _use(link) as use:
        try:
            use.batch(SUBSYSTEM, batch, generation, f"cannot change table `{table}`")
        except BatchRefused as refused:
            raise _named(refused, batch) from None


def _named(refused: BatchRefused, batch: list[tuple[int, int, bytes]]) -> BatchRefused:
    if refused.index is None or refused.index >= len(batch):
        return refused
    body = batch[refused.index][2]
    where = f" in `{to_text(attributes(body, 4)[2])}`"
    # The kernel counts from the header of the message.
    if refused.offset is not None and (key := key_at(body, refused.offset - 16)) is not None:
        where = f" at element `{key.hex()}`" + where
    return BatchRefused(f"{refused}{where}", refused.code, refused.index, refused.offset)


def dump(table: str, of: str, *, family: Family = Family.INET, link: Netlink | None = None) -> list[Element]:
    """Read all elements of a set or map, as they were at one moment, in no order.

    A hash that the kernel is resizing, as it does for a while after many changes, is walked wrongly: it shows some
    elements twice and as many not at all, and does not say so. Then it is read again. Raises `KernelError`, with
    code ENOENT when there is no such set, and `Changed` when it cannot be read in one piece for half a second.
    """
    doing = f"cannot read `{of}` of table `{table}`"
    with _use(link) as use:
        shape = describe(table, of, family=family, link=use)
        for attempt in range(_READ_ATTEMPTS):
            time.sleep(_READ_PAUSE_S * attempt)
            answers = use.dump(_GETSETELEM, prologue(family, table, of), doing=doing)
            found = [pair for answer in answers for pair in parse_elements(answer)]
            if len({(element.key, element.key_end, ends) for element, ends in found}) == len(found):
                if shape.interval and not shape.concatenated:
                    return paired(found)
                return [element for element, _ in found]
    raise Changed(f"{doing}: it was being rearranged all the while", errno.EINTR)


def describe(table: str, of: str, *, family: Family = Family.INET, link: Netlink | None = None) -> SetShape:
    """Say what a set or map is and how many elements it takes. Raises `KernelError`; ENOENT when there is none."""
    with _use(link) as use:
        answers = use.ask(_GETSET, prologue(family, table, of), doing=f"cannot read `{of}` of table `{table}`")
    if not answers:
        raise KernelError(f"cannot read `{of}` of table `{table}`: the kernel said nothing")
    return parse_shape(answers[0].body)


def comments(table: str, chain: str, *, family: Family = Family.INET, link: Netlink | None = None) -> list[str]:
    """Read the comments of a chain's rules, in their order, empty where a rule has none; [] when there is no chain."""
    with _use(link) as use:
        answers = use.dump(_GETRULE, prologue(family, table, chain), doing=f"cannot read chain `{chain}`")
    return [parse_comment(attributes(answer, 4).get(7, b"")) for answer in answers]


def table_exists(table: str, *, family: Family = Family.INET, link: Netlink | None = None) -> bool:
    """Say whether there is such a table in this network namespace."""
    with _use(link) as use:
        try:
            use.ask(_GETTABLE, bytes((family, 0, 0, 0)) + text(1, table), doing=f"cannot see table `{table}`")
        except KernelError as error:
            if error.code == errno.ENOENT:
                return False
            raise
    return True


def generation_id(*, link: Netlink | None = None) -> int:
    """Give the number of the ruleset of this network namespace: any transaction by anyone makes it another."""
    with _use(link) as use:
        answers = use.ask(_GETGEN, bytes(4), doing="cannot read the nftables generation")
    if not answers:
        raise KernelError("cannot read the nftables generation: the kernel said nothing")
    return to_number(attributes(answers[0].body, 4).get(1, b""))
