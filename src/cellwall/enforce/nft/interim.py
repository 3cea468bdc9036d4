"""What holds only for a while, in nftables' words: the kernel itself goes back when its time is over.

    input ─ family → input_suspended   from a map whose elements the kernel takes out at the end
            family → input_trial       the same
            what lasts

While an element is there, packets go through the chains of what is for a while; from the packet on that finds none,
through those of what lasts. Both are whole in the table meanwhile, so nobody needs to be alive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cellwall.enforce.nft.orders import ANSWERS, ORDERS, SEALS, with_orders
from cellwall.enforce.nft.program import (
    FAMILY_NUMBERS,
    Chain,
    Data,
    Goto,
    Jump,
    Key,
    Kind,
    MapShape,
    Program,
)

OF_ORDERS = (SEALS, ORDERS, ANSWERS)
"""The chains that lead to the orders of an emergency, which stay where they are and are called by everything."""
HOOKS = {"input": "in", "output": "out"}
"""The base chains, and what a map that leads away from one is named after it."""


@dataclass(frozen=True)
class Layer:
    """A program that decides until `until` (seconds since the epoch, UTC) in place of what is below it."""

    name: str
    program: Program
    until: float

    def entry(self, hook: str) -> Chain:
        """Give the chain to which packets of a hook are led: what the base chain would be."""
        return Chain(self.program.chains[hook].lines)

    def lead(self, hook: str, chain: str) -> tuple[MapShape, dict[Key, Data]]:
        """Give the map that leads packets of a hook to `chain`, and its elements."""
        shape = MapShape(f"{self.name}_{HOOKS[hook]}", (Kind.FAMILY,), "verdict", until=self.until)
        return shape, {((number, number),): Goto(chain) for number in FAMILY_NUMBERS.values()}


def nothing() -> Program:
    """Give what a host holds that lets everything pass, for something to be above it."""
    return Program(chains={hook: Chain((), hook) for hook in HOOKS} | {"about": Chain(())})


def without_orders(program: Program) -> Program:
    """Give `program`, as `render` makes it, without any way to the orders of an emergency."""
    after = with_orders(program, ())
    led = {Jump(name) for name in OF_ORDERS}
    chains = {
        name: replace(chain, lines=tuple(line for line in chain.lines if led.isdisjoint(line.statements)))
        for name, chain in after.chains.items()
        if name not in OF_ORDERS
    }
    return replace(after, chains=chains)
