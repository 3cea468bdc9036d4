"""An enforcement point in memory, which passes the contract that the real one passes."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cellwall.compile import Members, OrderCard, Ruleset
from cellwall.enforce.nft.fake import FakeKernel, Fate, Packet
from cellwall.enforce.nft.keys import OUTCOMES
from cellwall.enforce.nft.render import RULE_MASK, Local, render
from cellwall.enforce.point import Drift, Held, Leave, Receipt, Refused, Seen, digest_of
from cellwall.policy import Mode


class FakePoint:
    """Holds a rendered program and runs packets through it."""

    def __init__(self, local: Local | None = None) -> None:
        self._local = local or Local()
        self._applied: tuple[Ruleset, dict[bytes, int]] | None = None
        self._kernel: FakeKernel | None = None
        self._seen: Tally[Seen] = Tally()

    def prepare(self, ruleset: Ruleset, members: Members) -> None:
        """Render, and keep nothing."""
        render(ruleset, members, self._local)

    def apply(self, ruleset: Ruleset, members: Members) -> Receipt:
        """Hold exactly this."""
        before, self._applied = self._applied, (ruleset, dict(members))
        how = "none" if before == self._applied else "refill"
        if before is not None and before[0] == ruleset and how != "none":
            how = "elements"
        if how != "none":
            self._render()
        return Receipt(digest_of(ruleset), how)

    def apply_members(self, added: Mapping[bytes, int], removed: Iterable[bytes]) -> None:
        """Change who is where."""
        if self._applied is None:
            raise Refused("members change before anything was applied")
        for packed in removed:
            self._applied[1].pop(packed, None)
        self._applied[1].update(added)
        self._render()

    def apply_orders(self, orders: tuple[OrderCard, ...]) -> None:
        """Change the orders."""
        if self._applied is None:
            raise Refused("orders change before anything was applied")
        self.apply(replace(self._applied[0], orders=orders), self._applied[1])

    def read_back(self) -> Held | None:
        """Say what is held."""
        if self._applied is None:
            return None
        ruleset = self._applied[0]
        return Held(ruleset.revision, ruleset.mode, digest_of(ruleset), ruleset.workload)

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
        known = self._applied[0].id_by_number.values()
        found = dict.fromkeys(known, (0, 0)) | {"default": (0, 0)}
        for comment, times in self._kernel.hits.items():
            words = comment.split()
            found["default" if words[0] == "no" else words[1]] = times, 0
        return found

    def remove(self, leave: Leave) -> None:
        """Keep, hold nothing, or let only lifelines pass."""
        if leave is Leave.OPEN:
            self._applied = self._kernel = None
        elif leave is Leave.CLOSE:
            lifelines = self._applied[0].lifelines if self._applied else ()
            self.apply(Ruleset("closed", 0, Mode.ENFORCE, lifelines=lifelines), {})

    def pass_packet(self, hook: str, packet: Packet) -> bool:
        """Run a packet through the `input` or `output` hook; say whether it passes, and count it."""
        if self._kernel is None:
            return True
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
            self._kernel = FakeKernel(render(*self._applied, self._local))
            if hits:
                self._kernel.hits.update(hits)
