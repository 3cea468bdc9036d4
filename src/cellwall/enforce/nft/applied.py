"""What a point was asked to hold, and how each part of it is written: what lasts, and what is above it for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from cellwall.compile import Members, OrderCard, Ruleset
from cellwall.enforce.nft.interim import Layer, nothing, without_orders
from cellwall.enforce.nft.orders import with_orders
from cellwall.enforce.nft.program import Data, Key, Program
from cellwall.enforce.nft.render import Local, render
from cellwall.enforce.point import Interim, Spell, digest_of

PEERS = {4: "peer4", 16: "peer6"}
"""The map of an address, by its length in bytes."""


@dataclass(frozen=True, eq=False)
class Part:
    """A ruleset, None where everything passes, and the program that it is; for a while if there is a `why`.

    `members` are the point's own, and what decides shares them with what is the same in another mode."""

    ruleset: Ruleset | None
    members: dict[bytes, int]
    program: Program
    why: Spell | None = None
    until: float = 0.0

    @property
    def digest(self) -> str:
        """Name it as `digest_of` does."""
        return digest_of(self.ruleset) if self.ruleset else ""

    def peers(self, size: int) -> dict[Key, Data]:
        """Give the elements of the map of addresses of `size` bytes."""
        found = self.program.elements[PEERS[size]]
        assert isinstance(found, dict)
        return found

    def ordered(self, orders: tuple[OrderCard, ...]) -> Part:
        """Give it with other orders; none reach a suspended host."""
        if self.ruleset is None or self.why is Spell.SUSPENSION:
            return self
        ruleset = replace(self.ruleset, orders=orders)
        return replace(self, ruleset=ruleset, program=with_orders(self.program, orders))


@dataclass(frozen=True, eq=False)
class Applied:
    """What lasts first, then what is above it; the last part decides. `local` is what the host knew of itself."""

    parts: tuple[Part, ...]
    local: Local

    @property
    def top(self) -> Part:
        """What decides as long as nothing ends."""
        return self.parts[-1]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All but what lasts."""
        return tuple(Layer(one.why, one.program, one.until) for one in self.parts[1:] if one.why)

    @property
    def interims(self) -> tuple[Interim, ...]:
        """All but what lasts, as it was asked for."""
        return tuple(
            Interim(one.why, one.ruleset, one.members, one.until) for one in self.parts[1:] if one.why and one.ruleset
        )

    def with_orders(self, orders: tuple[OrderCard, ...]) -> Applied:
        """Give it with other orders: they are never on trial."""
        return replace(self, parts=tuple(one.ordered(orders) for one in self.parts))

    def sharing(self) -> Iterator[Part]:
        """Give the parts whose members are those of what decides."""
        return (one for one in self.parts if one.members is self.top.members)


def make_applied(
    ruleset: Ruleset | None, members: Members, interims: Iterable[Interim], local: Local, before: Applied | None
) -> Applied:
    """Render what is asked for; what is the same as a part of `before` is that part."""
    known = list(before.parts) if before is not None and before.local == local else []
    copies: list[tuple[Members, dict[bytes, int]]] = []
    parts: list[Part] = []
    asked = [(None, ruleset, members, 0.0), *((one.why, one.ruleset, one.members, one.until) for one in interims)]
    for why, wanted, given, until in asked:
        own = next((copy for source, copy in copies if source is given), None)
        apart = why is Spell.SUSPENSION
        for one in known:
            same = one.members is own or (own is None and one.members == given)
            if same and one.ruleset == wanted and (one.why is Spell.SUSPENSION) is apart:
                part = replace(one, why=why, until=until)
                break
        else:
            own = dict(given) if own is None else own
            part = Part(wanted, own, _write(wanted, own, local, apart, [*parts, *known]), why, until)
        copies.append((given, part.members))
        parts.append(part)
    return Applied(tuple(parts), local)


def _write(
    ruleset: Ruleset | None, members: Mapping[bytes, int], local: Local, apart: bool, others: Iterable[Part]
) -> Program:
    if ruleset is None:
        return nothing()
    program = render(ruleset, members, local, digest_of(ruleset))
    for one in others:
        if one.ruleset is not None and (one.members is members or one.members == members):
            # So many are not kept twice.
            for name in PEERS.values():
                program.elements[name] = one.program.elements[name]
            break
    return without_orders(program) if apart else program
