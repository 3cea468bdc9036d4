"""An enforcement point in memory, which passes the contract that the real one passes."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cellwall.compile import Members, OrderCard, Ruleset
from cellwall.enforce.nft.applied import Applied, make_applied
from cellwall.enforce.nft.fake import FakeKernel, Fate, Packet
from cellwall.enforce.nft.keys import OUTCOMES
from cellwall.enforce.nft.render import RULE_MASK, Local
from cellwall.enforce.nft.steps import plan_steps
from cellwall.enforce.point import Drift, Held, Interim, Leave, Receipt, Refused, Seen
from cellwall.policy import Mode


class FakePoint:
    """Holds a rendered program and runs packets through it."""

    def __init__(self, local: Local | None = None) -> None:
        self._local = local or Local()
        self._applied: Applied | None = None
        self._kernel: FakeKernel | None = None
        self._seen: Tally[Seen] = Tally()
        self.now = 0.0
        """What ends by this moment, in seconds since the epoch, has ended."""

    def prepare(self, ruleset: Ruleset, members: Members) -> None:
        """Render, and keep nothing."""
        make_applied(ruleset, members, (), self._local, None)

    def apply(self, ruleset: Ruleset | None, members: Members, interims: tuple[Interim, ...] = ()) -> Receipt:
        """Hold exactly this."""
        before, self._applied = self._applied, make_applied(ruleset, members, interims, self._local, None)
        how = _difference(before, self._applied)
        if how != "none":
            self._render()
        return Receipt(self._applied.top.digest, how)

    def apply_members(self, added: Mapping[bytes, int], removed: Iterable[bytes]) -> None:
        """Change who is where."""
        if self._applied is None:
            raise Refused("members change before anything was applied")
        top, lasting = self._applied.top, self._applied.parts[0]
        wanted = {packed: number for packed, number in top.members.items() if packed not in set(removed)} | dict(added)
        given = [wanted if one.members is top.members else one.members for one in self._applied.parts]
        interims = [replace(one, members=of) for one, of in zip(self._applied.interims, given[1:], strict=True)]
        self.apply(lasting.ruleset, given[0], tuple(interims))

    def apply_orders(self, orders: tuple[OrderCard, ...]) -> None:
        """Change the orders."""
        if self._applied is None:
            raise Refused("orders change before anything was applied")
        self._applied = self._applied.with_orders(orders)
        self._render()

    def read_back(self) -> Held | None:
        """Say what is held."""
        if self._applied is None:
            return None
        parts = self._applied.parts
        part = next((one for one in reversed(parts) if one.why and one.until > self.now), parts[0])
        ruleset = part.ruleset
        if ruleset is None:
            return Held(0, Mode.OBSERVE, "", "")
        return Held(ruleset.revision, ruleset.mode, part.digest, ruleset.workload)

    def verify(self) -> tuple[Drift, ...]:
        """Nobody else touches this memory."""
        return () if self._applied else (Drift("table", "nothing was applied yet"),)

    def collect(self) -> tuple[Seen, ...]:
        """Give what packets counted since the last call."""
        found = tuple(
            Seen(s.source, s.destination, s.protocol, s.port, s.outcome, s.would, s.rule, times)
            for s, times in self._seen.items()
        )
        self._seen.clear()
        return found

    def counters(self) -> dict[str, tuple[int, int]]:
        """Give packets by rule id; bytes are not known here."""
        if self._kernel is None or self._applied is None:
            return {}
        ruleset = self._applied.top.ruleset
        known = ruleset.id_by_number.values() if ruleset else ()
        found = dict.fromkeys(known, (0, 0)) | {"default": (0, 0)}
        for comment, times in self._kernel.hits.items():
            words = comment.split()
            name = "default" if words[0] == "no" else words[1]
            if name in found:
                found[name] = times, 0
        return found

    def remove(self, leave: Leave) -> None:
        """Keep, hold nothing, or let only lifelines pass."""
        if leave is Leave.OPEN:
            self._applied = self._kernel = None
        elif leave is Leave.CLOSE:
            held = self._applied.top.ruleset if self._applied else None
            lifelines = held.lifelines if held else ()
            self.apply(Ruleset("closed", 0, Mode.ENFORCE, lifelines=lifelines), {})

    def pass_packet(self, hook: str, packet: Packet) -> bool:
        """Run a packet through the `input` or `output` hook; say whether it passes, and count it."""
        if self._kernel is None:
            return True
        self._kernel.now = self.now
        fate = self._kernel.run(hook, packet)
        self._count(packet, fate)
        return fate.passed

    def _count(self, packet: Packet, fate: Fate) -> None:
        for _, key in fate.counted:
            mark = key[-1]
            outcome, would = OUTCOMES[mark & ~RULE_MASK]
            self._seen[
                Seen(
                    packet.source,
                    packet.destination,
                    packet.protocol,
                    packet.port,
                    outcome,
                    would,
                    mark & RULE_MASK,
                    1,
                )
            ] += 1

    def _render(self) -> None:
        if self._applied is not None:
            hits = self._kernel.hits if self._kernel else None
            steps = plan_steps(None, self._applied.parts[0].program, self._applied.layers)
            self._kernel = FakeKernel(steps.program, self.now)
            if hits:
                self._kernel.hits.update(hits)


def _difference(before: Applied | None, after: Applied) -> str:
    """Say how a point gets there: not at all, by elements, or by other rules."""
    if before is None or len(before.parts) != len(after.parts):
        return "refill"
    pairs = list(zip(before.parts, after.parts, strict=True))
    if any((one.ruleset, one.why, one.until) != (other.ruleset, other.why, other.until) for one, other in pairs):
        return "refill"
    return "none" if all(one.members == other.members for one, other in pairs) else "elements"
