"""Chains of an ordered firewall, and what a packet meets on its way through them: jumps followed, returns kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cellwall.policy import Place, PolicyError
from cellwall.translate.firewalls.boxes import Box, less_all, meet_all

MOST_LEAVES = 200_000
MOST_DEPTH = 64


class Does(StrEnum):
    """What a rule does with what it matches; `NOTHING` goes on to the next rule."""

    ACCEPT = "accept"
    DROP = "drop"
    JUMP = "jump"
    GOTO = "goto"
    RETURN = "return"
    NOTHING = "nothing"


class Situation(StrEnum):
    """The packets that are followed: the first of a connection, the same over loopback, one of an open connection."""

    NEW = "new"
    LOOPBACK = "loopback"
    OPEN = "open"


ALWAYS = frozenset(Situation)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A part of a rule that is not carried over, and why: its rule, `text`, matches less than its boxes say."""

    place: Place
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A rule as read, seen from one side: it matches the packets of `boxes` in the situations `when`.

    With doubts it matches some of them. `name` tells the rule within its host, `text` is how it was written."""

    place: Place
    name: str
    text: str
    does: Does
    boxes: tuple[Box, ...] = (Box(),)
    when: frozenset[Situation] = ALWAYS
    target: str = ""
    comment: str = ""
    doubts: tuple[Doubt, ...] = ()
    policy: bool = False
    """Whether it is no rule but what becomes of packets at the end of a base chain."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A rule that accepts or drops, with what reaches it through the jumps before it; drops before it are not
    taken away. `wide` holds also what has returned before it. `doubts` are those of the rule and of the jumps to it."""

    step: Step
    accepts: bool
    boxes: tuple[Box, ...]
    wide: tuple[Box, ...]
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class Chains:
    """The chains that start where packets come in or leave: one base chain and those that it jumps to.

    `policy` is the rule for what reaches the end; `family` holds the packets that are asked at all."""

    base: str
    steps: Mapping[str, tuple[Step, ...]]
    policy: Step
    family: Box = field(default_factory=Box)


def leaves(chains: Chains, situation: Situation) -> list[Leaf]:
    """Follow all packets of a situation: the rules that accept or drop them, in order, the policy last.

    Raises `PolicyError` where chains jump in a circle, to nowhere, or so often that following them has no end."""
    found = list(_Walk(chains, situation).run())
    policy = chains.policy
    found.append(Leaf(policy, policy.does is Does.ACCEPT, (chains.family,), (chains.family,)))
    return found


def without_idle_doubts(chains: Chains) -> tuple[Chains, tuple[Step, ...]]:
    """Take away jumps in doubt that the next rule in the chain makes anyway, and give them too.

    `iifname "eth0" goto public; goto public` leads to one chain whatever the interface: so firewalld says which zone an
    interface is of, beside the zone of all others."""
    idle: list[Step] = []
    steps: dict[str, tuple[Step, ...]] = {}
    for name, some in chains.steps.items():
        kept: list[Step] = []
        after: Step | None = None
        for step in reversed(some):
            if step.does is Does.NOTHING:
                kept.append(step)
            elif after is not None and step.doubts and _makes_anyway(after, step):
                idle.append(step)
            else:
                kept.append(step)
                after = step if step.does in (Does.JUMP, Does.GOTO) and not step.doubts else None
        steps[name] = tuple(reversed(kept))
    return replace(chains, steps=steps), tuple(reversed(idle))


def _makes_anyway(sure: Step, doubted: Step) -> bool:
    """Say whether what `doubted` may send to its chain is sent there by `sure`, and goes on from there alike."""
    return (
        (doubted.does, doubted.target) in ((sure.does, sure.target), (Does.JUMP, sure.target))
        and doubted.when <= sure.when
        and not less_all(doubted.boxes, sure.boxes)
    )


class _Walk:
    def __init__(self, chains: Chains, situation: Situation) -> None:
        self._chains = chains
        self._situation = situation
        self._left = MOST_LEAVES

    def run(self) -> Iterator[Leaf]:
        everyone = (self._chains.family,)
        return self._through(self._chains.base, everyone, everyone, everyone, (), ())

    def _through(
        self,
        name: str,
        sure: tuple[Box, ...],
        perhaps: tuple[Box, ...],
        path_wide: tuple[Box, ...],
        doubts: tuple[Doubt, ...],
        path: tuple[str, ...],
    ) -> Iterator[Leaf]:
        """Follow what is in a chain: `sure` is in it for certain, `perhaps` may be.

        They part at a return in doubt: what it may have taken out is accepted by no later rule of the chain, and
        dropped by all, so that the outcome is never more open than the original."""
        for step in self._chains.steps[name]:
            if self._situation not in step.when or step.does is Does.NOTHING:
                continue
            self._left -= 1
            if self._left < 0:
                raise PolicyError(step.place, f"following the jumps of `{self._chains.base}` has no end in sight")
            may = meet_all(perhaps, step.boxes)
            if not may:
                continue
            surely = meet_all(sure, step.boxes) if sure != perhaps else may
            seen = (*doubts, *step.doubts)
            wide = meet_all(path_wide, step.boxes) if path_wide != perhaps else may
            if step.does in (Does.ACCEPT, Does.DROP):
                yield Leaf(step, step.does is Does.ACCEPT, surely if step.does is Does.ACCEPT else may, wide, seen)
            elif step.does is not Does.RETURN:
                self._check(step, (*path, name))
                yield from self._through(step.target, surely, may, wide, seen, (*path, name))
            if step.does is Does.JUMP:
                continue
            # What is decided, has returned, or goes on elsewhere is here no more.
            if not step.doubts:
                if step.does in (Does.ACCEPT, Does.DROP):
                    if may != perhaps:
                        continue
                    return
                sure, perhaps = less_all(sure, _of_everyone(step.boxes)), less_all(perhaps, step.boxes)
            elif step.does not in (Does.ACCEPT, Does.DROP):
                sure = less_all(sure, _of_everyone(step.boxes))
            if not perhaps:
                return

    def _check(self, step: Step, path: tuple[str, ...]) -> None:
        if step.target not in self._chains.steps:
            raise PolicyError(step.place, f"there is no chain `{step.target}` to {step.does} to")
        if step.target in path:
            raise PolicyError(step.place, f"chain `{step.target}` leads back to itself")
        if len(path) >= MOST_DEPTH:
            raise PolicyError(step.place, f"jumps more than {MOST_DEPTH} deep")


def _of_everyone(boxes: tuple[Box, ...]) -> tuple[Box, ...]:
    """Give boxes for all users: more than what a return of one user takes out, which keeps accepts on the safe side."""
    return tuple(Box(box.remote, box.ports, box.local) for box in boxes)
