"""What a policy means. Everything else in Cellwall agrees with this file.

A flow is decided at two ends: by the source's point on egress and by the destination's on ingress. Each point sees
the addresses, the protocol and the port, and the local identity of *its own* process only. So an allow that asks for
an identity at the far end matches whatever the identity, because the far point checks it; a deny or a wall that does
so leaves the matter to the far point.

Orders of an emergency stand between the lifelines and the policy, and a seal even over most lifelines. They speak of
addresses and of workloads, never of processes, so both points say the same of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cellwall.flows import Outcome, Side
from cellwall.inventory import Fleet
from cellwall.labels import Labels
from cellwall.policy.lifelines import BUILT_IN, ESSENTIAL, controller_channel
from cellwall.policy.modes import Mode
from cellwall.policy.orders import Order
from cellwall.policy.types import NOBODY, Action, Identity, Policy, Rule, Who
from cellwall.traffic import Address, point, port_name

NO_LABELS = Labels()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a flow: an address, the workload that owns it (if any), and the local process as far as known."""

    address: Address
    workload: str | None = None
    labels: Labels = NO_LABELS
    agent: bool = False
    identity: Identity = NOBODY


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection, seen from who opened it. `port` is as in `cellwall.traffic.ports`: 0 to 65535."""

    source: Endpoint
    destination: Endpoint
    protocol: int
    port: int

    def __str__(self) -> str:
        source, destination = (end.workload or str(end.address) for end in (self.source, self.destination))
        return f"{source} → {destination} {port_name(point(self.protocol, self.port))}"


class Tier(StrEnum):
    """Which step of the meaning decided."""

    LIFELINE = "lifeline"
    ORDER = "order"
    DENY = "deny"
    ALLOW = "allow"
    WALL = "wall"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one point says: `outcome` in its mode, `would` under full enforcement, and the ids of the rules or orders
    that decided. `staged` are the staged rules that match, in force nowhere."""

    outcome: Outcome
    would: Outcome
    tier: Tier
    because: tuple[str, ...]
    mode: Mode
    staged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdicts of both points; None where an end has no point."""

    egress: Verdict | None
    ingress: Verdict | None

    @property
    def outcome(self) -> Outcome:
        """Denied when either point denies."""
        return _worse([verdict.outcome for verdict in (self.egress, self.ingress) if verdict])

    @property
    def would(self) -> Outcome:
        """What full enforcement at both ends would give."""
        return _worse([verdict.would for verdict in (self.egress, self.ingress) if verdict])


def _worse(outcomes: Iterable[Outcome]) -> Outcome:
    return Outcome.DENIED if Outcome.DENIED in outcomes else Outcome.ALLOWED


def endpoint(fleet: Fleet, address: Address, identity: Identity = NOBODY) -> Endpoint:
    """Give the end of a flow at `address`, with what the fleet knows of it."""
    workload = fleet.by_address.get(address)
    if workload is None:
        return Endpoint(address, identity=identity)
    return Endpoint(address, workload.name, workload.labels, workload.agent, identity)


def decide(policy: Policy, fleet: Fleet, flow: Flow, now: float, orders: Iterable[Order] = ()) -> Decision:
    """Say what `policy` and `orders` mean for `flow` at `now` (seconds since the epoch), at both of its ends."""
    given = tuple(orders)
    return Decision(
        egress=decide_at(Side.EGRESS, policy, fleet, flow, now, given) if flow.source.agent else None,
        ingress=decide_at(Side.INGRESS, policy, fleet, flow, now, given) if flow.destination.agent else None,
    )


def decide_at(
    side: Side, policy: Policy, fleet: Fleet, flow: Flow, now: float, orders: Iterable[Order] = ()
) -> Verdict:
    """Say what the point at one side decides: lifeline, order, deny, allow, the default; in each step order-free."""
    own = flow.source if side is Side.EGRESS else flow.destination
    mode = policy.mode_of(own.labels)
    built_in = [rule for rule in (*BUILT_IN, controller_channel(fleet.controllers)) if matches(rule, flow, side)]
    written = (*policy.lifelines, *policy.rules)
    hits = [rule for rule in written if rule.in_time(now) and matches(rule, flow, side)]
    staged = tuple(rule.id for rule in hits if rule.staged)
    found = {action: _ids(hits, action) for action in Action}

    essential = _is_loopback(flow) or any(rule.id in ESSENTIAL for rule in built_in)
    lifelines = ("loopback",) if _is_loopback(flow) else _ids(built_in, Action.LIFELINE) or found[Action.LIFELINE]
    given = [order for order in orders if order.in_time(now) and speaks_of(order, flow)]
    sealed = _order_ids(order for order in given if order.over_lifelines)
    if sealed and not essential:
        return Verdict(Outcome.DENIED, Outcome.DENIED, Tier.ORDER, sealed, mode, staged)
    if lifelines:
        return Verdict(Outcome.ALLOWED, Outcome.ALLOWED, Tier.LIFELINE, lifelines, mode, staged)
    if opened := _order_ids(order for order in given if not order.shuts):
        return Verdict(Outcome.ALLOWED, Outcome.ALLOWED, Tier.ORDER, opened, mode, staged)
    if shut := _order_ids(order for order in given if order.shuts):
        return Verdict(Outcome.DENIED, Outcome.DENIED, Tier.ORDER, shut, mode, staged)
    if found[Action.DENY]:
        outcome = Outcome.ALLOWED if mode is Mode.OBSERVE else Outcome.DENIED
        return Verdict(outcome, Outcome.DENIED, Tier.DENY, found[Action.DENY], mode, staged)
    if found[Action.ALLOW]:
        return Verdict(Outcome.ALLOWED, Outcome.ALLOWED, Tier.ALLOW, found[Action.ALLOW], mode, staged)
    if found[Action.WALL]:
        outcome = Outcome.ALLOWED if mode is Mode.OBSERVE else Outcome.DENIED
        return Verdict(outcome, Outcome.DENIED, Tier.WALL, found[Action.WALL], mode, staged)
    outcome = Outcome.DENIED if mode is Mode.ENFORCE else Outcome.ALLOWED
    return Verdict(outcome, Outcome.DENIED, Tier.DEFAULT, (), mode, staged)


def matches(rule: Rule, flow: Flow, side: Side) -> bool:
    """Say whether `rule` speaks of `flow` as the point at `side` sees it; time and staging are not looked at."""
    if rule.refused or side not in rule.sides or point(flow.protocol, flow.port) not in rule.ports:
        return False
    if any(
        flow.source.labels.get(key) is None or flow.source.labels.get(key) != flow.destination.labels.get(key)
        for key in rule.same
    ):
        return False
    return any(_is(who, flow.source, rule.action, near=side is Side.EGRESS) for who in rule.source) and any(
        _is(who, flow.destination, rule.action, near=side is Side.INGRESS) for who in rule.destination
    )


def speaks_of(order: Order, flow: Flow) -> bool:
    """Say whether `order` speaks of `flow`, at both its points alike; time is not looked at."""
    source, destination = flow.source, flow.destination
    if point(flow.protocol, flow.port) not in order.ports or (source.address, destination.address) in order.exempt:
        return False
    return any(
        one.has(source.address, source.workload, source.labels)
        and other.has(destination.address, destination.workload, destination.labels)
        for one, other in order.ways
    )


def _is(who: Who, end: Endpoint, action: Action, *, near: bool) -> bool:
    if who.selector is not None and (end.workload is None or not who.selector.matches(end.labels)):
        return False
    if who.network is not None and end.address not in who.network:
        return False
    if not who.identity:
        return True
    return who.identity.covers(end.identity) if near else action is Action.ALLOW


def _ids(hits: list[Rule], action: Action) -> tuple[str, ...]:
    return tuple(sorted(rule.id for rule in hits if rule.action is action and not rule.staged))


def _order_ids(orders: Iterable[Order]) -> tuple[str, ...]:
    return tuple(sorted(order.id for order in orders))


def _is_loopback(flow: Flow) -> bool:
    own = flow.source.workload is not None and flow.source.workload == flow.destination.workload
    return own or flow.destination.address.is_loopback
