"""Keeps our table in the kernel: writes it, reads it back, and notices when somebody else touches it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from cellwall.agent.bundle import Bundle
from cellwall.agent.clock import Clock
from cellwall.agent.cuts import mark_shut
from cellwall.agent.events import Applied, Apply, ApplyMembers, ForeignChange, Repair, Restore, Result, Verified
from cellwall.agent.facts import weight_of
from cellwall.clients import KernelError, Netlink, Protocol
from cellwall.compile import Members, OrderCard, Ruleset, judge, unpack, without_expired
from cellwall.enforce import (
    TABLE,
    Held,
    Interim,
    Leave,
    NftPoint,
    Refused,
    Seen,
    Spell,
    Watch,
    digest_of,
    generation_id,
)
from cellwall.flows import Outcome, Side
from cellwall.observe import (
    Room,
    adopt,
    cgroup_mount,
    connected_sockets,
    free_memory,
    host_addresses,
    kernel_room,
    listening_sockets,
    open_connections,
    repair,
    swapped,
    walk_connections,
)
from cellwall.policy import Identity, Mode, Tier
from cellwall.wire import Counters, HeldVerdict, Holds, ShowCounters, ShowTable, TableText, Trouble

_INET = 1
_MOST_TEXT = 4 << 20
_MOST_COMPARED = 20_000
"""So many members are read back right after a write; of more, that would take longer than the write."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """What the kernel goes back to at `until`, by the steady clock: the host's may be set meanwhile."""

    back: Bundle | None
    until: float


class Keeper:
    """The table of this network namespace, as the agent sees it. With `observe_only` it never drops a packet.

    INVARIANT: `_generation` is the number of the kernel's ruleset when we last knew our table to be whole, else None.
    """

    def __init__(
        self,
        cgroup_root: Path | None = None,
        *,
        observe_only: bool = False,
        most_memory: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Open the kernel's doors; nothing is written. A write may take `most_memory` bytes. Raises `KernelError`."""
        self._clock = clock or Clock()
        self.point = NftPoint(cgroup_mount(), cgroup_root, self._clock.steady)
        self.held: Bundle | None = None
        """What the kernel took last from here."""
        self._observe_only, self._most_memory = observe_only, most_memory
        self._trial: _Trial | None = None
        self._suspended_until = 0.0  # by the steady clock
        self._expiry = inf  # when the next rule expires, with or without a controller
        self._link = Netlink(Protocol.NETFILTER)
        self._watch = Watch()
        self._generation: int | None = self._read_generation()

    def suspend(self, left_s: float) -> None:
        """Drop nothing for so many seconds, from the next write on; 0 ends that. Nothing is written by this.

        The kernel has what it goes back to, and does so by itself.
        """
        self._suspended_until = self._clock.steady() + left_s

    def fileno(self) -> int:
        """Give the descriptor that is readable when somebody changes a table."""
        return self._watch.fileno()

    # --- write ---

    def write(self, command: Apply | Restore | Repair | ApplyMembers) -> list[Applied | ForeignChange]:
        """Do it, and give what came of it: the answer, and what others did to our table meanwhile."""
        wanted, trial = command.bundle, self._trial
        generation = wanted.generation if wanted else None
        try:
            if isinstance(command, ApplyMembers) and len(command.added) + len(command.removed) > _MOST_COMPARED:
                noticed = self.notices() + self._in_bulk(lambda: self._change(command))
            elif isinstance(command, ApplyMembers):
                noticed, before = self.notices(), self.point.transactions
                self._change(command)
                noticed += self._settled(None, self.point.transactions - before)
            else:
                held = self.held
                if isinstance(command, Apply) and held and held.generation != command.bundle.generation:
                    _check_room(command.bundle, self._most_memory)
                # What is written by difference is right only where nobody else has written.
                if isinstance(command, Repair) or self.notices():
                    self.point.forget()
                trial = self._trial_of(command)
                noticed = self._whole(wanted, trial)
        except Refused as error:
            # What was prepared for nothing is no news of others.
            self._watch.read()
            self._generation = None
            return [Applied(generation, Result.REFUSED, str(error))]
        except (KernelError, OSError) as error:
            self.point.forget()
            self._generation = None
            return [Applied(generation, Result.FAILED, str(error))]
        self.held, self._trial = wanted, trial
        return [Applied(generation, Result.DONE, self._lacking(wanted)), *noticed]

    def _change(self, command: ApplyMembers) -> None:
        if command.added or command.removed:
            self.point.apply_members(command.added, command.removed)
        if command.orders:
            ruleset = self._lasting(command.bundle)
            self.point.apply_orders(ruleset.orders)
            mark_shut(ruleset, command.bundle.members)
            self._expiry = _next_end(command.bundle.ruleset, self._clock.now())

    def _whole(self, wanted: Bundle | None, trial: _Trial | None) -> list[ForeignChange]:
        if wanted is None:
            self.point.remove(Leave.OPEN)
            self._watch.read()
            self._generation = self._read_generation()
            return []
        if self.point.read_back() is None:
            _adopt_open_connections()
        return self._rewrite(wanted, trial)

    def _rewrite(self, wanted: Bundle, trial: _Trial | None) -> list[ForeignChange]:
        if len(wanted.members) <= _MOST_COMPARED:
            self._apply(wanted, trial)
            return self._settled(len(wanted.members))
        return self._in_bulk(lambda: self._apply(wanted, trial))

    def _in_bulk(self, work: Callable[[], None]) -> list[ForeignChange]:
        """Write very much, of which the notices would cost the kernel a gigabyte: that nobody else wrote meanwhile is
        seen by how many transactions there were."""
        lost = self._watch.lost
        with self._watch.deaf(lambda: self.point.transactions):
            work()
        self._generation = self._read_generation()
        return [] if self._watch.lost == lost else self._compared()

    def _settled(self, members: int | None, own: int = 1) -> list[ForeignChange]:
        """After a write of our own: tell what others did meanwhile, by reading back what the kernel holds.

        With `members` None few transactions were made, so `own` notices are ours. Else there may be many: what is not
        too large is compared, and what is, when it is verified next.
        """
        touched = [one for one in self._watch.read() if one.touches(_INET, TABLE)]
        self._generation = self._read_generation()
        if members is None and len(touched) <= own:
            return []
        if members is not None and members > _MOST_COMPARED:
            self._generation = None
            return []
        return self._compared()

    def _compared(self) -> list[ForeignChange]:
        return [ForeignChange("somebody, while we wrote")] if self.point.verify() else []

    def _apply(self, wanted: Bundle, trial: _Trial | None) -> None:
        ruleset, members = self._lasting(wanted), wanted.members
        lasting: tuple[Ruleset | None, Members] = (ruleset, members)
        interims: list[Interim] = []
        if trial is not None:
            interims.append(Interim(Spell.TRIAL, ruleset, members, trial.until))
            # Orders are never on trial: what is gone back to has the same.
            back = trial.back
            lasting = (replace(self._lasting(back), orders=ruleset.orders), back.members) if back else (None, {})
        if self._is_suspended():
            interims.append(Interim(Spell.SUSPENSION, _observing(ruleset), members, self._suspended_until))
        self.point.apply(*lasting, tuple(interims))
        mark_shut(ruleset, members)
        ends = [wanted.ruleset, *([trial.back.ruleset] if trial and trial.back else [])]
        self._expiry = min(_next_end(one, self._clock.now()) for one in ends)

    def _lasting(self, wanted: Bundle) -> Ruleset:
        ruleset = without_expired(wanted.ruleset, self._clock.now())
        if self._observe_only:
            return _observing(ruleset)
        return replace(ruleset, orders=tuple(map(self._here, ruleset.orders)))

    def _here(self, card: OrderCard) -> OrderCard:
        """Give an order with its end by the clock that the point counts on, which nobody sets."""
        return card if card.expires is None else replace(card, expires=card.expires - self._clock.ahead)

    def _lacking(self, wanted: Bundle | None) -> str:
        """Say which orders were left out, as they are over."""
        ends = [(one.id, one.expires) for one in wanted.ruleset.orders if one.expires is not None] if wanted else []
        over = [f"`{name}`" for name, end in ends if end <= self._clock.now()]
        return f"over by the clock that this host goes by: {', '.join(over)}" if over else ""

    def _deciding(self, wanted: Bundle) -> Ruleset:
        ruleset = self._lasting(wanted)
        return _observing(ruleset) if self._is_suspended() else ruleset

    def _is_suspended(self) -> bool:
        return self._suspended_until > self._clock.steady()

    def _trial_of(self, command: Apply | Restore | Repair) -> _Trial | None:
        if isinstance(command, Restore) or command.left_s is None:
            return None
        return _Trial(command.back, self._clock.steady() + command.left_s)

    def refresh(self) -> list[ForeignChange]:
        """Look again at what changes by itself: users and units come and go, allows expire. Raises `Refused`."""
        if self.held is None:
            return []
        if self._clock.now() >= self._expiry:
            noticed = self.notices()
            return noticed + self._rewrite(self.held, self._trial)
        if not any(face.identity for face in self.held.ruleset.faces):
            return []
        noticed = self.notices()
        return noticed + (self._settled(len(self.held.members)) if self.point.refresh_local() else [])

    # --- look ---

    def room(self) -> Room:
        """Say how much room the kernel has, and how much memory a write may take."""
        return kernel_room(self._most_memory)

    def notices(self) -> list[ForeignChange]:
        """Give what others did to our table since the last look; does not wait."""
        lost = self._watch.lost
        touched = [one for one in self._watch.read() if one.touches(_INET, TABLE)]
        found = [ForeignChange(one.process) for one in touched[-1:]]
        if self._watch.lost != lost:
            found.append(ForeignChange("somebody, too much at once to read"))
        return found

    def verify(self, wanted: Bundle) -> Verified:
        """Compare the kernel with `wanted`; costs nothing while no table of anybody has changed."""
        generation = self._read_generation()
        if generation == self._generation:
            return Verified(wanted.generation, ())
        drifts = tuple(f"{one.where}: {one.what}" for one in self.point.verify())
        if not drifts:
            self._generation = generation
        return Verified(wanted.generation, drifts)

    def collect(self) -> tuple[tuple[Seen, ...], int]:
        """Give the tuples counted since the last call, and how many times counting had stopped."""
        before = self.point.losses()
        seen = self.point.collect()
        return seen, self.point.losses() - before

    def answer(self, question: Holds | ShowTable | ShowCounters) -> HeldVerdict | TableText | Counters | Trouble:
        """Answer a live question from the kernel."""
        try:
            match question:
                case Holds():
                    return self._holds(question)
                case ShowTable():
                    text = self.point.listing()
                    return TableText(text=text[:_MOST_TEXT], cut=len(text) > _MOST_TEXT)
                case ShowCounters():
                    return Counters(rules={"" if k == "default" else k: v for k, v in self.point.counters().items()})
        except (Refused, KernelError, OSError) as error:
            return Trouble(reason=str(error)[:1024])

    def _holds(self, asked: Holds) -> HeldVerdict | Trouble:
        """Say what the kernel does with a tuple: the whole table is read back and compared before a word is said."""
        held = self.point.read_back()
        if held is None:
            return HeldVerdict(
                side=asked.side, outcome=Outcome.ALLOWED, would=Outcome.ALLOWED, tier=Tier.DEFAULT, revision=0
            )
        if self.held is None:
            return Trouble(reason=f"the kernel holds revision {held.revision}, which this agent did not write")
        ruleset = self._deciding(self.held)
        if trouble := self._differs(held, digest_of(ruleset)):
            return Trouble(reason=trouble[:1024])
        source, destination = unpack(asked.source), unpack(asked.destination)
        local, peer = (source, destination) if asked.side is Side.EGRESS else (destination, source)
        identity = Identity(asked.user or None, asked.unit or None, asked.exe or None)
        found = judge(ruleset, self.held.members, asked.side, local, peer, asked.protocol, asked.port, identity)
        return HeldVerdict(
            side=asked.side,
            outcome=found.outcome,
            would=found.would,
            tier=found.tier,
            rules=found.rules,
            mode=held.mode,
            revision=self.held.revision,
        )

    def _differs(self, held: Held, digest: str) -> str:
        if held.digest != digest:
            return f"the kernel holds revision {held.revision} with other rules than were written"
        drifts = self.point.verify()
        return f"the kernel holds something else: {drifts[0].where}: {drifts[0].what}" if drifts else ""

    # --- the end ---

    def remove(self, leave: Leave) -> None:
        """Leave the host. Raises `Refused`."""
        self.point.remove(leave)

    def close(self) -> None:
        """Let go of the kernel; the table stays."""
        self._watch.close()
        self._link.close()
        self.point.close()

    def _read_generation(self) -> int:
        return generation_id(link=self._link)


def _observing(ruleset: Ruleset) -> Ruleset:
    return replace(ruleset, mode=Mode.OBSERVE, orders=())


def _check_room(wanted: Bundle, most_memory: int | None) -> None:
    """Raise `Refused` where there is not the memory to write it: to try would be to risk what is in force."""
    needed, free = weight_of(wanted).peak, free_memory(most_memory)
    if free is not None and needed > free:
        raise Refused(f"to write it takes about {-(-needed >> 20)} MiB of memory, and {free >> 20} MiB can be had")


def _next_end(ruleset: Ruleset, now: float) -> float:
    """Give the next moment at which a rule or an order ends of itself."""
    moments = (card.expires for card in (*ruleset.rules, *ruleset.orders))
    return min((moment for moment in moments if moment is not None and moment > now), default=inf)


def _adopt_open_connections() -> None:
    """Tell the kernel who began the connections that are open, before it judges their packets.

    Where nothing tracked connections so far, whoever speaks first would pass for the client.
    """
    with suppress(KernelError):
        listening = listening_sockets()
        adopt(open_connections(connected_sockets(), listening))
        here = {one.address.packed for one in host_addresses().reachable}
        repair(swapped(walk_connections(), listening, here))
