"""First match becomes order-free: what ordered chains accept, said by allows and denies that need no order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from cellwall.policy import Place
from cellwall.translate.firewalls.boxes import Box, Overlaps, gather, less_all
from cellwall.translate.firewalls.first_match import Chains, Does, Leaf, Situation, Step, leaves, without_idle_doubts
from cellwall.translate.firewalls.intervals import Intervals, join, less, touch

MOST_PIECES, MOST_COVER = 64, 256


class Effect(StrEnum):
    """What it does to the meaning that something is not carried over as it was."""

    OPENS = "opens"
    """More may be allowed than the original allows."""
    CLOSES = "closes"
    """Less is allowed than the original may allow."""
    CHECK = "check"
    """It depends on what the texts do not say."""
    SAME = "same"
    """Nothing: it is carried in another way, or another rule decides."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that is not carried over as it was: where, with what effect, and why."""

    place: Place
    effect: Effect
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Sentence:
    """What one rule of the original comes to: it allows, or denies, the connections of its boxes."""

    step: Step
    allows: bool
    boxes: tuple[Box, ...]


_ORDER = {effect: number for number, effect in enumerate(Effect)}
_NOT_NEW = {
    True: "speaks of loopback alone, which always passes",
    False: "speaks of no first packet of a connection; what belongs to one passes or not with it",
}
_LEFT_OUT = {
    (True, Effect.CLOSES): "left out, so what it alone accepts is denied",
    (True, Effect.SAME): "left out; other rules accept the same",
    (False, Effect.OPENS): "left out, so what it drops may be allowed by later rules",
    (False, Effect.SAME): "left out; no later rule accepts what it drops",
}


def sentences(bases: Sequence[Chains], universe: Box) -> tuple[tuple[Sentence, ...], tuple[Remark, ...]]:
    """Say without order what `bases`, all asked, accept of the new connections in `universe`.

    A connection is accepted when an allow has it and no deny does. A rule in doubt is left out, and what that does to
    the meaning is remarked."""
    settled = [without_idle_doubts(chains) for chains in bases]
    bases = [chains for chains, _ in settled]
    found = compose(bases, Situation.NEW)
    found = [replace(one, boxes=_within(one.boxes, universe), wide=_within(one.wide, universe)) for one in found]
    said, remarks = _settle([leaf for leaf in found if leaf.boxes])
    remarks.extend(
        Remark(
            one.place, Effect.SAME, f"{one.reason}: left out; the rule after it goes to `{step.target}` too", step.text
        )
        for _, idle in settled
        for step in idle
        for one in step.doubts
    )
    spoken = {id(one.step) for one in said}
    reached = {id(one.step) for one in found}
    for step in _steps(bases):
        if step.does is Does.ACCEPT and Situation.NEW in step.when and step.boxes and not step.doubts:
            if id(step) not in reached:
                remarks.append(_remark(step, Effect.SAME, "never reached: earlier rules decide all that it matches"))
            elif id(step) not in spoken and not any(_within(step.boxes, universe)):
                reason = "multicast, broadcast or loopback addresses are no workload's, so it is denied"
                remarks.append(_remark(step, Effect.CLOSES, reason))
            elif id(step) not in spoken:
                remarks.append(_remark(step, Effect.SAME, "never reached: earlier rules drop all that it matches"))
        if Situation.NEW not in step.when and step.does in (Does.ACCEPT, Does.DROP):
            remarks.append(_remark(step, Effect.SAME, _NOT_NEW[Situation.LOOPBACK in step.when]))
        leaves_chain = step.does in (Does.RETURN, Does.GOTO) and Situation.NEW in step.when
        if leaves_chain and not step.doubts and any(box.user is not None for box in step.boxes):
            told = "one user's connections cannot be taken out of a chain alone: all users' are"
            remarks.append(_remark(step, Effect.CLOSES, told))
        if leaves_chain and step.doubts:
            told = "what it may take out of the chain is accepted by none of the rules after it there"
            # In front: of two remarks of one effect the first is kept, and this says more than that a rule is left out.
            remarks[:0] = [Remark(one.place, Effect.CLOSES, f"{one.reason}: {told}", step.text) for one in step.doubts]
        elif step.doubts and Situation.NEW in step.when and step.does is not Does.NOTHING:
            remarks.extend(
                Remark(one.place, Effect.SAME, f"{one.reason}: left out; no new connection depends on it", step.text)
                for one in step.doubts
            )
    return said, _worst(remarks)


def compose(bases: Sequence[Chains], situation: Situation) -> list[Leaf]:
    """Give what accepts and drops when several base chains are asked, one after the other; each must accept.

    The chain that accepts with the most rules keeps its words, one whose policy drops before others; of the others only
    what they drop is kept."""
    walked = sorted(
        ((chains, leaves(chains, situation)) for chains in bases),
        key=lambda one: (one[0].policy.does is Does.ACCEPT, -sum(leaf.accepts for leaf in one[1])),
    )
    main: list[Leaf] = []
    before: list[Leaf] = []
    covered: Intervals = ()
    for chains, found in walked:
        if touch(chains.family.remote, covered):
            before.extend(_drops(found))
        else:
            main.extend(found)
            covered = join((*covered, *chains.family.remote))
    for chains, _ in walked:
        missed = less(chains.family.remote, covered)
        if missed:
            covered = join((*covered, *missed))
            everyone = (Box(remote=missed, local=missed),)
            main.append(Leaf(chains.policy, True, everyone, everyone))
    return before + main


def _drops(found: Sequence[Leaf]) -> Iterator[Leaf]:
    """Give what a chain drops by first match; its accepts in doubt stay, to be remarked."""
    accepts = Overlaps(
        (n, box) for n, leaf in enumerate(found) if leaf.accepts and not leaf.doubts for box in leaf.boxes
    )
    for number, leaf in enumerate(found):
        if leaf.accepts:
            if leaf.doubts:
                yield leaf
            continue
        earlier = [cut for box in leaf.boxes for n, cut in accepts.of(box) if n < number]
        yield replace(leaf, boxes=less_all(leaf.boxes, earlier))


def _settle(found: Sequence[Leaf]) -> tuple[tuple[Sentence, ...], list[Remark]]:
    remarks: list[Remark] = []
    certain = [(number, leaf) for number, leaf in enumerate(found) if not leaf.doubts]
    # Where in the order a box is accepted first, and where last.
    extents: dict[Box, tuple[int, int]] = {}
    for number, leaf in certain:
        for box in leaf.boxes if leaf.accepts else ():
            extents[box] = (extents[box][0] if box in extents else number, number)
    ends = list(extents.values())
    accepts = Overlaps(enumerate(extents))
    denied: list[tuple[Step, tuple[Box, ...]]] = []
    cuts: dict[Box, int] = {}
    for number, leaf in certain:
        if leaf.accepts:
            continue
        met = [(ends[at], own, box) for own in leaf.boxes for at, box in accepts.of(own)]
        if not any(last > number for (_, last), _, _ in met):
            continue
        if all(first > number for (first, _), _, _ in met):
            denied.append((leaf.step, leaf.boxes))
            continue
        for box in leaf.boxes:
            cuts.setdefault(box, number)
        if any(last > number and own.user not in (None, box.user) for (_, last), own, box in met):
            reason = "one user's connections cannot be taken out of a rule for all users: left out"
            remarks.append(_remark(leaf.step, Effect.OPENS, reason))
    cut_by = Overlaps((number, box) for box, number in cuts.items())
    allowed: list[tuple[int, Step, tuple[Box, ...]]] = []
    for number, leaf in certain:
        if leaf.accepts:
            earlier = [cut for box in leaf.boxes for n, cut in cut_by.of(box) if n < number]
            left = less_all(leaf.boxes, earlier) if earlier else leaf.boxes
            allowed.append((number, leaf.step, left))
    allowed = _widened(found, allowed, denied)
    remarks.extend(_doubtful(found, allowed, denied))
    said = [Sentence(step, True, boxes) for step, boxes in _by_step((step, boxes) for _, step, boxes in allowed)]
    said += [Sentence(step, False, boxes) for step, boxes in _by_step(denied)]
    return tuple(said), remarks


def _widened(
    found: Sequence[Leaf],
    allowed: Sequence[tuple[int, Step, tuple[Box, ...]]],
    denied: Sequence[tuple[Step, tuple[Box, ...]]],
) -> list[tuple[int, Step, tuple[Box, ...]]]:
    """Give rules back what was taken from them, where other allows have it, or denies take it, anyway: so a rule looks
    as it was written."""
    spoken = Overlaps((0, box) for boxes in ([some for _, _, some in allowed], [some for _, some in denied])
                      for some in boxes for box in some)  # fmt: skip
    wider: list[tuple[int, Step, tuple[Box, ...]]] = []
    for number, step, boxes in allowed:
        wide = found[number].wide
        if boxes and gather(boxes) != gather(wide):
            cover = [other for box in wide for _, other in spoken.of(box)]
            if len(cover) <= MOST_COVER and not less_all(wide, cover):
                boxes = wide
        wider.append((number, step, boxes))
    return wider


def _doubtful(
    found: Sequence[Leaf],
    allowed: Sequence[tuple[int, Step, tuple[Box, ...]]],
    denied: Sequence[tuple[Step, tuple[Box, ...]]],
) -> Iterator[Remark]:
    """Say of each rule in doubt what it does to the meaning that it is left out."""
    if not any(leaf.doubts for leaf in found):
        return
    spoken = Overlaps((number, box) for number, _, boxes in allowed for box in boxes)
    closed = Overlaps((0, box) for _, boxes in denied for box in boxes)
    for number, leaf in enumerate(found):
        if not leaf.doubts:
            continue
        effect = Effect.SAME
        if leaf.accepts:
            for box in leaf.boxes:
                if closed.of(box) or not any(not less_all((box,), (other,)) for _, other in spoken.of(box)):
                    effect = Effect.CLOSES
        elif any(n > number for box in leaf.boxes for n, _ in spoken.of(box)):
            effect = Effect.OPENS
        for doubt in leaf.doubts:
            told = _LEFT_OUT[leaf.accepts, effect]
            yield Remark(doubt.place, effect, f"{doubt.reason}: {told}", doubt.text)


def refusal(bases: Sequence[Chains], situation: Situation, box: Box) -> Step | None:
    """Give a rule, or a policy, that drops some packets of `box` in a situation; None where there is none for certain.

    A rule that accepts in doubt counts as accepting."""
    for chains in bases:
        left: tuple[Box, ...] = _within((box,), chains.family)
        for leaf in leaves(chains, situation):
            if not left:
                break
            if leaf.accepts:
                left = less_all(left, leaf.boxes)
            elif not leaf.doubts and any(one.touches(other) for one in left for other in leaf.boxes):
                return leaf.step
            if len(left) > MOST_PIECES:
                # Accepted bit by bit: then the policy is what decides for the rest.
                if chains.policy.does is Does.DROP:
                    return chains.policy
                break
    return None


def _steps(bases: Sequence[Chains]) -> Iterator[Step]:
    for chains in bases:
        seen, todo = {chains.base}, [chains.base]
        while todo:
            for step in chains.steps[todo.pop()]:
                yield step
                if step.target in chains.steps and step.target not in seen:
                    seen.add(step.target)
                    todo.append(step.target)


def _within(boxes: Iterable[Box], universe: Box) -> tuple[Box, ...]:
    return tuple(inside for box in boxes if (inside := box.meet(universe)) is not None)


def _by_step(pairs: Iterable[tuple[Step, tuple[Box, ...]]]) -> Iterator[tuple[Step, tuple[Box, ...]]]:
    """Put together what one rule came to on several ways to it."""
    by_step: dict[int, tuple[Step, list[Box]]] = {}
    for step, boxes in pairs:
        by_step.setdefault(id(step), (step, []))[1].extend(boxes)
    for step, boxes in by_step.values():
        if boxes:
            yield step, gather(boxes)


def _remark(step: Step, effect: Effect, reason: str) -> Remark:
    return Remark(step.place, effect, reason, step.text)


def _worst(remarks: Iterable[Remark]) -> tuple[Remark, ...]:
    """Keep of several remarks at one place on one text the one of the worst effect; what opens may close too, as a jump
    in doubt does to a chain that accepts some and drops others."""
    kept: dict[tuple[Place, str], dict[Effect, Remark]] = {}
    for one in sorted(remarks, key=lambda remark: (_ORDER[remark.effect], remark.place)):
        told = kept.setdefault((one.place, one.text), {})
        if not told or one.effect is Effect.CLOSES:
            told.setdefault(one.effect, one)
    return tuple(one for told in kept.values() for one in told.values())
