"""The members that a point carries, put together of its classes' parts: shared with all others, and never copied."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from itertools import chain


class Part(dict[bytes, int]):
    """The members of one class, which never change; `sum` is for who adds them up, and remembers it here."""

    __slots__ = ("sum",)

    def __init__(self, members: Mapping[bytes, int]) -> None:
        super().__init__(members)
        self.sum: int | None = None


class Carried(Mapping[bytes, int]):
    """Addresses, packed, with the numbers of their classes, as the union of disjoint `parts`, one for each class.

    A part is never changed: where its class's members change, another object takes its place. So two of these differ
    in the parts alone that are not the same object."""

    __slots__ = ("_flat", "_size", "parts")

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts
        self._size = sum(map(len, parts))
        self._flat: dict[bytes, int] | None = None

    def __getitem__(self, packed: bytes) -> int:
        # Who looks up one address mostly looks up many.
        if self._flat is None:
            self._flat = self.flat()
        return self._flat[packed]

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self.parts)

    def __len__(self) -> int:
        return self._size

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Carried) and self.parts == other.parts:
            return True
        return isinstance(other, Mapping) and self.flat() == dict(other)  # pyright: ignore[reportUnknownArgumentType]

    __hash__ = None  # type: ignore[assignment]

    def items(self) -> ItemsView[bytes, int]:
        """Give addresses with numbers."""
        return self.flat().items()

    def flat(self) -> dict[bytes, int]:
        """Give all of it as one dict."""
        found: dict[bytes, int] = {}
        for part in self.parts:
            found.update(part)
        return found

    def apart(self, other: Carried) -> tuple[Carried, Carried]:
        """Give what of this and of `other` is in parts that are not the same object: all that can differ."""
        mine, theirs = {id(part) for part in self.parts}, {id(part) for part in other.parts}
        return (
            Carried(tuple(part for part in self.parts if id(part) not in theirs)),
            Carried(tuple(part for part in other.parts if id(part) not in mine)),
        )
