"""The controller itself: what agents say and people ask goes in, the store and the agents' messages come out.

One thread uses it. It waits for nothing: what takes long (compiling, flows) is done by whoever turns the loop, on the
values that this gives out, and handed back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from cellwall import __version__
from cellwall.compile import next_change
from cellwall.controller.cluster.peers import Peers
from cellwall.controller.core import (
    SETTLED,
    Change,
    Row,
    Shown,
    Standing,
    Wanted,
    Whole,
    advance,
    fitted,
    greeted,
    holds,
    offer_again,
    parted,
    received,
    undecided,
)
from cellwall.controller.errors import Conflict, ControllerError, NotFound, StateError
from cellwall.controller.ground import Ground, Overlay, make_fleet, read_policy
from cellwall.controller.options import ControllerOptions
from cellwall.controller.orders import Orders
from cellwall.controller.plan import first_of, refusals
from cellwall.controller.restored import Hold, knows_more
from cellwall.controller.rollout import EVERYWHERE, MOVING, Log, Rollouts
from cellwall.controller.rows import Rows
from cellwall.controller.said import denial_rows, read_packed
from cellwall.controller.store.cluster import ClusterStore, Peer
from cellwall.controller.store.orders import OrderStore
from cellwall.controller.store.rollouts import RolloutStore
from cellwall.controller.store.rooms import RoomStore
from cellwall.controller.store.state import LabelRow, LabelSource, Revision, RevisionState, StateStore, WorkloadRow
from cellwall.controller.testing import StandingTests
from cellwall.controller.trust.ca import Authority
from cellwall.controller.trust.claims import believed, release
from cellwall.controller.trust.enrolment import Enrolment
from cellwall.controller.trust.letters import Letters
from cellwall.controller.waves import describe, opened
from cellwall.inventory import Fleet, InventoryError, Listener, Workload, check_name
from cellwall.labels import Labels
from cellwall.policy import Order, Policy, PolicyError, Rollout
from cellwall.traffic import Address, parse_address
from cellwall.wire import (
    OLDEST,
    ORDERS,
    Confirmed,
    Denials,
    Facts,
    FromController,
    Hello,
    PointState,
    Receipt,
    Welcome,
    WireError,
    agree,
)

ORDINARY = frozenset({PointState.PROVISIONAL, PointState.ENFORCED})
HAVE_IT = frozenset({Shown.ENFORCED, Shown.RELAXED})

MOST_LATE = 100_000
"""So many receipts are kept for the database while it is gone."""


@dataclass
class Control:
    """The state of a running controller; see `open_control`."""

    options: ControllerOptions
    store: StateStore
    authority: Authority
    controllers: tuple[Listener, ...]
    log: Log
    began: float = 0.0
    standings: dict[str, Standing] = field(default_factory=dict[str, Standing])
    wanted: Mapping[str, Wanted] = field(default_factory=dict[str, Wanted])
    stale: bool = True
    """Whether policy or fleet changed since `wanted` was compiled."""
    tests: StandingTests = field(init=False)
    rollouts: Rollouts = field(init=False)
    orders: Orders = field(init=False)
    peers: Peers = field(init=False)
    hold: Hold = field(init=False)
    enrolment: Enrolment = field(init=False)
    _letters: Letters = field(init=False)
    rooms: RoomStore = field(init=False)
    _unsaved: dict[str, Standing] = field(default_factory=dict[str, Standing])
    _receipts: deque[tuple[str, Receipt, float]] = field(
        default_factory=lambda: deque[tuple[str, Receipt, float]](maxlen=MOST_LATE)
    )
    _overlay: Overlay = field(default_factory=Overlay)
    _base_overlay: Overlay = field(default_factory=Overlay)
    _targets: Mapping[str, Wanted] = field(default_factory=dict[str, Wanted])
    _based: Mapping[str, Wanted] = field(default_factory=dict[str, Wanted])
    _points: Mapping[str, Labels] = field(default_factory=dict[str, Labels])
    _having: frozenset[str] = frozenset()
    _compiled: int = 0
    _ground: tuple[Sequence[Workload], Ground] | None = None

    def __post_init__(self) -> None:
        self.tests = StandingTests(self.store, self.log)
        self.rollouts = Rollouts(self.store, RolloutStore(self.store.database), self.log)
        self.rooms = RoomStore(self.store.database)
        self.orders = Orders(OrderStore(self.store.database), self.store, self.log)
        cluster, options = ClusterStore(self.store.database), self.options
        me = Peer(options.name, options.advertise, self.controllers, __version__, self.began, self.began)
        self.peers = Peers(cluster, me, self.log)
        self.hold = Hold(cluster, self.store.record, self.log)
        days = self.options.certificate_days
        self.enrolment = Enrolment(self.store, self.authority, days, self._enrolled, self._declared)
        self._letters = Letters(self.authority.bundle_key)
        self._rows = Rows()

    @property
    def revision(self) -> Revision:
        """The revision in force, or on its way to be."""
        return self.rollouts.revision

    @property
    def policy(self) -> Policy:
        """The policy of that revision."""
        return self.rollouts.policy

    def _enrolled(self, name: str, now: float) -> None:
        # A new machine holds nothing, but must be given higher numbers than any before it.
        before = self.standings.get(name, Standing(name))
        self._keep(replace(Standing(name), issued=before.issued, seen=now))
        self.hold.forget(name)
        self.stale = True

    def _declared(self, name: str) -> bool:
        policies = (self.policy, self.rollouts.base_policy)
        return any(one.name == name for policy in policies for one in policy.workloads)

    # --- the channel ---

    def hello(self, name: str, hello: Hello, now: float) -> Welcome:
        """Begin to talk to an agent. Raises `WireError` when no protocol is shared."""
        protocol = agree(hello.oldest, hello.newest)
        if hello.name != name:
            raise WireError(f"the certificate is for `{name}` and the agent calls itself `{hello.name}`")
        row = self.find(name)
        self._suspect(name, hello, now)
        before = self.standings.get(name, Standing(name))
        self._keep(greeted(before, hello, now))
        if self.orders.standing and (before.protocol < ORDERS) is not (hello.newest < ORDERS):
            self._choose()
        self.peers.arrived(name)
        if row.version != hello.version:
            self.store.put_workload(replace(row, version=hello.version, seen=now), now)
        return Welcome(
            protocol=protocol,
            controller=self.options.name,
            interval_s=self.options.interval_s,
            renew_before_s=self.options.certificate_days * 86_400 / 3,
            now=now,
            controllers=self.peers.urls,
        )

    def _suspect(self, name: str, hello: Hello, now: float) -> None:
        """Notice an agent that holds what was never sent: then the state here is from a backup."""
        if knows_more(self.standings.get(name, Standing(name)), hello, self.revision.number):
            # Another controller may have sent it, a moment ago.
            self.peers.catch_up()
            agents = sum(one.agent for one in self.store.inventory())
            self.hold.notice(self.standings.get(name, Standing(name)), hello, self.revision.number, now, agents)

    def bye(self, name: str, now: float) -> None:
        """Note that an agent's connection is gone."""
        self.peers.parted(name)
        if name in self.standings:
            self._keep(parted(self.standings[name], now))

    def facts(self, name: str, facts: Facts, now: float, came_from: Address | None = None) -> None:
        """Take what an agent says of its host; the addresses that another workload has are not believed.

        Another's is an address that an operator declared, or that a connected agent had first; but an agent whose
        channel comes from an address that was its own before gets it back.
        """
        row = self.find(name)
        claimed = {read_packed(packed) for packed in facts.addresses}
        addresses = (
            row.addresses
            if claimed == set(row.addresses)
            else believed(self.store, self.standings, name, claimed, self.log, came_from)
        )
        with self.store.transaction():
            self.store.put_facts(name, facts, now)
            if addresses != row.addresses:
                release(self.store, name, addresses, now)
                self.store.put_workload(replace(row, addresses=addresses, seen=now), now)
                self.store.record(now, name, "addresses", name, {"addresses": [str(one) for one in addresses]})
                self.stale = True

    def denials(self, name: str, denials: Denials) -> None:
        """Keep an agent's samples of denied packets."""
        self.store.add_denials(denial_rows(name, denials))

    def receipt(self, name: str, receipt: Receipt, now: float) -> Confirmed | None:
        """Take a receipt; what is provisional is confirmed, unless its revision has failed meanwhile."""
        self._keep(received(self.standings.get(name, Standing(name)), receipt, now))
        self._receipts.append((name, receipt, now))
        told = {"level": "debug"} if receipt.state in ORDINARY else {"reason": receipt.reason}
        self.log("receipt", workload=name, generation=receipt.generation, state=receipt.state, **told)
        wanted = self.wanted.get(name)
        current = receipt.holding.revision == self.revision.number
        # A newer revision may want exactly what is provisional there: then that must not be taken back.
        if receipt.state is PointState.PROVISIONAL and (
            current or (wanted is not None and wanted.digest == receipt.holding.digest)
        ):
            return Confirmed(generation=receipt.generation)
        return None

    def issue(self, names: Iterable[str]) -> dict[str, Whole | Change]:
        """Give what agents are to be sent at this moment, with numbers that are in the store; who needs nothing is left
        out. Raises `StateError`: then nothing is issued."""
        if self.hold.held is not None:
            return {}
        ahead = self.hold.ahead
        known = [name for name in names if name in self.wanted and name in self.standings and name not in ahead]
        due = any(not holds(self.standings[name], self.wanted[name]) for name in known)
        # In one write where there are others: so the number after the last one is counted from what they wrote, too.
        with self.store.transaction() if due and not self.peers.alone else nullcontext():
            return self._issue(known)

    def letter(self, name: str, send: Whole | Change, now: float) -> FromController:
        """Write what was issued to an agent, and sign it."""
        kind, revision = type(send).__name__.lower(), send.wanted.revision
        self.log("send", level="debug", workload=name, generation=send.generation, revision=revision, kind=kind)
        return self._letters.write(name, send, now, self._confirm_s(name, revision), self.standings[name].protocol)

    def _issue(self, names: Iterable[str]) -> dict[str, Whole | Change]:
        before: dict[str, Standing] = {}
        sends: dict[str, Whole | Change] = {}
        for name in names:
            if name in self.peers.elsewhere:
                continue
            standing = self.standings[name]
            after, send = advance(standing, self.wanted[name])
            self.standings[name] = after
            if send is not None:
                before[name] = standing
                self._keep(after)
                sends[name] = send
        if sends:
            try:
                # INVARIANT: a number is on disk before it is used, so that no other content ever gets it.
                self.flush()
            except StateError:
                for standing in before.values():
                    self._keep(standing)
                raise
        return sends

    def flush(self) -> None:
        """Write what is only in memory: how points stand, and their receipts. Agents would say all of it again."""
        if not (self._unsaved or self._receipts or self.peers.untold):
            return
        with self.store.transaction():
            # Whom another controller has by now, that one knows best.
            ours = [one for name, one in self._unsaved.items() if name not in self.peers.elsewhere]
            self.store.put_standings(ours)
            self.store.add_receipts(tuple(self._receipts))
            self.peers.tell()
        self.peers.told()
        self._unsaved.clear()
        self._receipts.clear()

    def _confirm_s(self, name: str, number: int) -> float:
        # What a point has confirmed is not put on trial again there when a workload comes or moves.
        standing = self.standings[name]
        if standing.holding.revision == number and standing.state in SETTLED:
            return 0.0
        revision = self.revision if number == self.revision.number else self.rollouts.base
        return revision.confirm_s

    # --- workloads and labels ---

    def declare(self, name: str, addresses: Sequence[Address], labels: Labels, author: str, now: float) -> None:
        """Add a workload without an agent. Raises `Conflict` where the name is taken."""
        check_name(name)
        if self.store.workload(name) is not None:
            raise Conflict(f"workload `{name}` is there already")
        with self.store.transaction():
            self.store.put_workload(WorkloadRow(name, False, tuple(addresses), now), now)
            for key, value in labels.items():
                self.store.put_label(LabelRow(name, key, value, LabelSource.DECLARED, author, now))
            self.store.record(
                now, author, "declare", name, {"addresses": [str(one) for one in addresses], "labels": dict(labels)}
            )
        self.stale = True

    def remove(self, name: str, author: str, now: float) -> None:
        """Forget a workload; its agent's certificates hold no longer. Raises `NotFound`."""
        self.find(name)
        with self.store.transaction():
            self.store.drop_workload(name, now)
            self.store.record(now, author, "remove", name)
        self.enrolment.forget()
        self.standings.pop(name, None)
        self._unsaved.pop(name, None)
        self.hold.forget(name)
        self.stale = True

    def label(
        self, changes: Mapping[str, Mapping[str, str | None]], source: LabelSource, author: str, now: float
    ) -> None:
        """Set labels of workloads, or remove them where the value is None. Raises `NotFound` and `LabelError`."""
        for name, pairs in changes.items():
            self.find(name)
            Labels({key: value or "" for key, value in pairs.items()})
        with self.store.transaction():
            for name, pairs in changes.items():
                for key, value in pairs.items():
                    if value is None:
                        self.store.drop_label(name, key, now)
                    else:
                        self.store.put_label(LabelRow(name, key, value, source, author, now))
                self.store.record(now, author, "label", name, {"labels": dict(pairs), "source": source.value})
        self.stale = True

    # --- policy ---

    def ground(self, documents: Mapping[str, str] | None = None, number: int | None = None) -> Ground:
        """Give the fleet with the policy in force, or with that of `documents`. Raises `PolicyError`.

        What is in force is the same value while neither fleet nor policy changes, and a workload that did not change
        is the same object in all that this ever gives."""
        inventory = self.store.inventory()
        if documents is not None:
            number = self.revision.number if number is None else number
            fleet = self._fleet(inventory, policy := read_policy(documents), {})
            return Ground(number, policy, fleet, self.orders.standing)
        made = self._ground
        if made is None or made[0] is not inventory or made[1].policy is not self.policy:
            made = inventory, Ground(0, self.policy, self._fleet(inventory, self.policy, self._overlay))
        if made[1].revision != self.revision.number or made[1].orders is not self.orders.standing:
            made = inventory, replace(made[1], revision=self.revision.number, orders=self.orders.standing)
        self._ground = made
        return made[1]

    def ground_at(self, moment: float, number: int | None = None) -> Ground:
        """Give the fleet as it was at a moment with the policy in force then, or that of a revision.

        What is not the inventory's is as at present: where controllers listen. Raises `NotFound`."""
        revision = self.rollouts.at(moment) if number is None else self.rollouts.find(number)
        policy = self.policy if revision.number == self.revision.number else read_policy(revision.documents)
        inventory = [one.workload for one in self.store.past(moment) if one.there]
        return Ground(revision.number, policy, make_fleet(inventory, policy, self.controllers))

    def unknown_at(self, moment: float) -> frozenset[str]:
        """Give the workloads that were there at a moment, while nothing is known of what they were."""
        known = {one.workload.name for one in self.store.past(moment)}
        return frozenset(one.name for one in self.store.inventory() if one.epoch <= moment and one.name not in known)

    def _fleet(self, inventory: Sequence[Workload], policy: Policy, overlay: Overlay) -> Fleet:
        def having(address: Address) -> tuple[str, ...]:
            return tuple(one.name for one in self.store.having(address))

        return make_fleet(inventory, policy, self.controllers, having, overlay)

    def base_ground(self) -> Ground | None:
        """Give the fleet with the policy of the points that do not have the revision in force yet, if there are any."""
        rollouts = self.rollouts
        if not rollouts.partly:
            self._base_overlay = Overlay()
            return None
        fleet = self._fleet(self.store.inventory(), rollouts.base_policy, self._base_overlay)
        return Ground(rollouts.base.number, rollouts.base_policy, fleet, self.orders.standing)

    def adopt(self, ground: Ground, wanted: Mapping[str, Wanted], based: Mapping[str, Wanted] | None = None) -> bool:
        """Take what was compiled from `ground`, and from the base's; False where the policy in force is another now."""
        if ground.revision != self.revision.number or (based is None and self.rollouts.partly):
            return False
        self._targets, self._based, self._compiled = wanted, based or {}, ground.revision
        self.orders.compiled = ground.orders
        self._points = {name: one.labels for name, one in ground.fleet.by_name.items() if name in wanted}
        self._choose()
        for name in wanted:
            self.standings.setdefault(name, Standing(name))
        return True

    def _choose(self) -> bool:
        """Give each point what its wave has; whether that is something else for some."""
        had, self._having = self._having, self.rollouts.has_it(self._points)
        if len(self._having) == len(self._targets):
            self.wanted = self._targets
        else:
            self.wanted = {
                name: wanted if name in self._having else self._based.get(name, wanted)
                for name, wanted in self._targets.items()
            }
        # Who is too old for orders gets what it understands.
        old = [name for name in self.wanted if (one := self.standings.get(name)) is not None and one.protocol < ORDERS]
        if old:
            self.wanted = {**self.wanted, **{name: fitted(self.wanted[name], OLDEST) for name in old}}
        self._letters.forget()
        return had != self._having

    @property
    def compiled(self) -> int:
        """The revision of which it is known what every point is to hold."""
        return self._compiled

    def give_order(self, order: Order, now: float) -> None:
        """Let an order of an emergency stand, at all points whose agents are there within a moment."""
        self.hold.check()
        self.orders.give(order, now)
        self.stale = True

    def lift_order(self, name: str, author: str, reason: str, now: float) -> None:
        """End an order. Raises `NotFound`."""
        self.hold.check()
        self.orders.lift(name, author, reason, now)
        self.stale = True

    def release(
        self,
        revision: Revision,
        policy: Policy,
        now: float,
        author: str,
        *,
        how: Rollout,
        planned_on: int | None = None,
    ) -> None:
        """Let a proposed revision come into force; see `Rollouts.release`."""
        self.hold.check()
        self.rollouts.release(revision, policy, now, author, how=how, planned_on=planned_on)
        self.stale = True

    def revert(self, to: int | None, author: str, note: str, now: float) -> Revision:
        """Put an earlier revision in force again; see `Rollouts.revert`."""
        self.hold.check()
        revision = self.rollouts.revert(to, author, note, now)
        self.stale = True
        return revision

    def accept_restore(self, documents: Mapping[str, str] | None, author: str, note: str, now: float) -> int:
        """Let the policy that is here, or other documents, go to agents that hold a newer one: as a new revision.

        Its number is none that any agent knows. Raises `PolicyError`, and `Conflict` where nothing is held back."""
        self.rollouts.refresh()
        # First the revision: nothing of it is sent while it is held.
        if documents is None:
            revision = self.rollouts.revert(self.revision.number, author, note, now)
        else:
            policy = read_policy(documents)
            revision = self.rollouts.propose(documents, author, note, now, confirm_s=0.0, plan={})
            self.rollouts.release(revision, policy, now, author, how=EVERYWHERE)
        self.stale = True
        self.hold.accept(author, now)
        return revision.number

    def next_change(self, now: float) -> float | None:
        """Give the next moment at which a rule starts or expires, or an order does."""
        moments = (next_change(self.policy, now), self.orders.next_change(now))
        return min((moment for moment in moments if moment is not None), default=None)

    # --- rollout ---

    def rollout(self, now: float) -> dict[str, Row]:
        """Say how every point stands to what it is to hold."""
        # Who is away since before we began may still be on its way back.
        after = self.options.silent_after_s if now - self.began > self.options.silent_after_s else math.inf
        return self.rollouts.marked(self._rows.of(self.standings, self.wanted, now, after))

    def waves(self, now: float) -> list[dict[str, object]]:
        """Say how far each wave of the rollout is: its name, whether it is open, its points, and how many have it."""
        course = self.rollouts.course
        having = frozenset(name for name, row in self.rollout(now).items() if row.state in HAVE_IT)
        return describe(course.waves, course.wave, self._points, having) if course is not None else []

    @property
    def watches_rollout(self) -> bool:
        """Whether it is ours to find a wave well or not before the next one begins."""
        return self.rollouts.watched and self.peers.leads and self.rollouts.state(self.revision.number) in MOVING

    def judge_rollout(self, now: float) -> bool:
        """Let the rollout go on, end or fail; whether other points are to hold the revision in force from now on."""
        number = self.revision.number
        if self.stale or number == 0 or self._compiled != number or not self.peers.leads or self.hold.held:
            return False
        course = self.rollouts.course
        self.rollouts.forgive()
        if self.rollouts.state(number) not in MOVING:
            return self.rollouts.course is not course and self._choose()
        with_it = (one for name in self._having if (one := self.standings.get(name)) is not None)
        if self.rollouts.calm and self.rollouts.patient(now) and undecided(with_it, number):
            # Receipts of thousands come one by one: not after each are all points looked at.
            return False
        rows = self.rollout(now)
        having = {name: rows[name] for name in self._having if name in rows}
        self.rollouts.judge(having, self.standings, now, self._ahead)
        if self.revision.number != number:
            self.stale = True
        elif self.rollouts.course is not course:
            # Who stays behind when all waves are open needs the base again.
            self.stale = self.rollouts.partly and not self._based
            return self._choose()
        return False

    def _ahead(self, wave: int) -> str:
        """Say why a wave must not be opened: points of it would refuse. Empty where none would."""
        course, rollouts = self.rollouts.course, self.rollouts
        joining = opened(course.waves if course else (), wave, self._points) - self._having - rollouts.excused
        targets, rooms = {name: self._targets[name] for name in joining}, self.rooms.of(self.standings)
        return first_of(rollouts.unspared(refusals(targets, self.standings, rooms)))

    def offer_again(self, now: float) -> bool:
        """Let points that took back what is in force elsewhere have it again, where it is time; whether any are.

        Never what failed, nor while it is not decided whether it fails."""
        number = self.revision.number
        again: list[Standing] = []
        for name, standing in self.standings.items():
            wanted = self.wanted.get(name)
            if name in self.peers.elsewhere:
                continue
            if standing.state is PointState.REVERTED and wanted is not None and wanted.revision == number:
                after = offer_again(standing, wanted, now)
                again += [after] if after is not standing else []
        if not again or self.rollouts.state(number) is not RevisionState.GOOD:
            return False
        for one in again:
            self._keep(one)
            self.log("offering again", workload=one.workload, revision=number, times=one.again)
        return True

    # --- other controllers ---

    def meet(self, controllers: tuple[Listener, ...]) -> None:
        """Take where agents reach controllers: their way there stays open, whatever the policy says."""
        self.controllers, self._ground, self.stale = controllers, None, True

    def yield_to(self, standing: Standing) -> None:
        """Take how a point stands as another controller says, which it is connected to."""
        self.standings[standing.workload] = standing
        self._unsaved.pop(standing.workload, None)

    # --- within ---

    def find(self, name: str) -> WorkloadRow:
        """Give a workload of the inventory. Raises `NotFound`, and `StateError` where others cannot be asked."""
        row = self.store.workload(name)
        if row is None and self.peers.catch_up():
            # Another controller had let it in, a moment ago.
            row = self.store.workload(name)
        if row is None:
            raise NotFound(f"there is no workload `{name}`")
        return row

    def _keep(self, standing: Standing) -> None:
        self.standings[standing.workload] = self._unsaved[standing.workload] = standing


def read_addresses(texts: Sequence[str]) -> tuple[Address, ...]:
    """Read the addresses of a declared workload. Raises `AddressError` and `InventoryError`."""
    if not texts:
        raise InventoryError("a workload without an agent needs at least one address")
    return tuple(parse_address(text) for text in texts)


def open_control(
    options: ControllerOptions,
    store: StateStore,
    authority: Authority,
    controllers: tuple[Listener, ...],
    log: Log,
    now: float,
) -> Control:
    """Take up from where the store was left. Raises `ControllerError` when the policy there cannot be read."""
    control = Control(options, store, authority, controllers, log, began=now)
    control.standings = {one.workload: one for one in store.standings()}
    try:
        control.rollouts.refresh()
    except PolicyError as error:
        raise ControllerError(f"the policy in the store cannot be read: {error}") from None
    return control
