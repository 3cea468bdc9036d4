"""What a compiled ruleset says of one packet: the twin, at one point, of `policy.decide`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cellwall.compile.ruleset import EVERYONE, Entry, Face, Members, OrderCard, Ruleset, class_of
from cellwall.flows import Outcome, Side
from cellwall.policy import ESSENTIAL, NOBODY, Action, Identity, Mode, Tier
from cellwall.traffic import Address, point


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict with the ids of the rules that decided, as `cellwall.policy.Verdict` has it."""

    outcome: Outcome
    would: Outcome
    tier: Tier
    rules: tuple[str, ...]


def judge(
    ruleset: Ruleset,
    members: Members,
    side: Side,
    local: Address,
    peer: Address,
    protocol: int,
    port: int,
    identity: Identity = NOBODY,
) -> Judged:
    """Say what the point does with a connection between `local` (its own end) and `peer`."""
    at = point(protocol, port)
    remote = local if side is Side.INGRESS else peer
    # What a host sends to itself takes the loopback interface, whichever of its addresses it uses.
    if remote.is_loopback or all(any(one in face.addresses for face in ruleset.faces) for one in (local, peer)):
        return Judged(Outcome.ALLOWED, Outcome.ALLOWED, Tier.LIFELINE, ("loopback",))
    lines = [
        card.id
        for card in ruleset.lifelines
        if side in card.sides
        and any(first <= at <= last for first, last in card.spans)
        and (not card.to or remote in card.to)
    ]
    source, destination = (peer, local) if side is Side.INGRESS else (local, peer)
    orders = [card for card in ruleset.orders if card.speaks_of(source, destination, at)]
    if not ESSENTIAL.intersection(lines) and any(card.over_lifelines for card in orders):
        return _ordered(Outcome.DENIED, (card for card in orders if card.over_lifelines))
    if lines:
        return Judged(Outcome.ALLOWED, Outcome.ALLOWED, Tier.LIFELINE, (lines[0],))
    entries = find_face(ruleset.faces, local, identity, side).entries(side)
    entry = _find(entries, class_of(ruleset.networks, members, peer), at) or _find(entries, EVERYONE, at)
    if orders and (entry is None or entry.action is not Action.LIFELINE):
        opened = [card for card in orders if not card.shuts]
        return _ordered(Outcome.ALLOWED if opened else Outcome.DENIED, opened or orders)
    if entry is None:
        denied = ruleset.mode is Mode.ENFORCE
        return Judged(Outcome.DENIED if denied else Outcome.ALLOWED, Outcome.DENIED, Tier.DEFAULT, ())
    ids = tuple(sorted(ruleset.rule_by_number[number].id for number in entry.rules))
    outcome = outcome_of(entry.action, ruleset.mode)
    would = Outcome.ALLOWED if entry.action in {Action.LIFELINE, Action.ALLOW} else Outcome.DENIED
    return Judged(outcome, would, Tier(entry.action.value), ids)


def _ordered(outcome: Outcome, cards: Iterable[OrderCard]) -> Judged:
    return Judged(outcome, outcome, Tier.ORDER, tuple(sorted(card.id for card in cards)))


def outcome_of(action: Action, mode: Mode) -> Outcome:
    """Say what happens, in `mode`, to what a rule of `action` decides."""
    if action in {Action.LIFELINE, Action.ALLOW} or mode is Mode.OBSERVE:
        return Outcome.ALLOWED
    return Outcome.DENIED


def find_face(faces: tuple[Face, ...], local: Address, identity: Identity, side: Side) -> Face:
    """Give the face of a local address, for egress the one of the process's identity."""
    known = any(local in face.addresses for face in faces)
    candidates = [face for face in faces if (local in face.addresses if known else not face.addresses)]
    if side is Side.EGRESS and identity:
        users = {face.identity.user for face in candidates}
        units = {face.identity.unit for face in candidates}
        persona = Identity(
            user=identity.user if identity.user in users else None,
            unit=identity.unit if identity.unit in units else None,
        )
        for face in candidates:
            if face.identity == persona:
                return face
    return next(face for face in candidates if not face.identity)


def _find(entries: tuple[Entry, ...], peer: int, at: int) -> Entry | None:
    index = bisect_right(entries, (peer, at), key=lambda entry: (entry.peer, entry.first)) - 1
    if index >= 0 and entries[index].peer == peer and entries[index].last >= at:
        return entries[index]
    return None


def without_expired(ruleset: Ruleset, now: float) -> Ruleset:
    """Give `ruleset` without the allows and the orders that have expired at `now` (seconds since the epoch, UTC).

    For a point whose controller is away: what an expired allow let through meets what stands behind it, everyone's
    entry or the default. Denies and walls stay until the controller takes them back, so no rule's end opens anything.
    An order ends when it was said to, whichever it is.
    """
    left_orders = tuple(card for card in ruleset.orders if card.expires is None or now < card.expires)
    if left_orders != ruleset.orders:
        ruleset = replace(ruleset, orders=left_orders)
    gone = {
        card.number
        for card in ruleset.rules
        if card.action is Action.ALLOW and card.expires is not None and card.expires <= now
    }
    if not gone:
        return ruleset

    def left(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        kept = (replace(one, rules=tuple(number for number in one.rules if number not in gone)) for one in entries)
        return tuple(one for one in kept if one.rules)

    faces = tuple(replace(face, ingress=left(face.ingress), egress=left(face.egress)) for face in ruleset.faces)
    return replace(ruleset, faces=faces)
