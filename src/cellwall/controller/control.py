"""The controller itself: what agents say and people ask goes in, the store and the agents' messages come out.

One thread uses it. It waits for nothing: what takes long (compiling, flows) is done by whoever turns the loop, on the
values that this gives out, and handed back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from cellwall.compile import next_change
from cellwall.controller.ca import Authority
from cellwall.controller.core import (
    Change,
    Outlook,
    Row,
    Standing,
    Wanted,
    Whole,
    advance,
    greeted,
    offer_again,
    outlook,
    parted,
    received,
    show,
)
from cellwall.controller.errors import Conflict, ControllerError, Denied, NotFound
from cellwall.controller.ground import Ground, Overlay, make_fleet, read_policy
from cellwall.controller.options import ControllerOptions
from cellwall.controller.store.state import (
    CertificateRow,
    DenialRow,
    LabelRow,
    LabelSource,
    Progress,
    Revision,
    RevisionState,
    StateStore,
    WorkloadRow,
)
from cellwall.controller.testing import CONTROLLER, StandingTests
from cellwall.controller.tokens import check_token, make_secret, make_token_row, secret_digest
from cellwall.inventory import Fleet, InventoryError, Listener, Workload, check_name
from cellwall.labels import Labels
from cellwall.policy import Policy, PolicyError
from cellwall.traffic import Address, canonical, parse_address
from cellwall.wire import (
    Bundle,
    Confirmed,
    Denials,
    Enrol,
    Enrolled,
    Facts,
    FromController,
    Hello,
    MemberChange,
    PointState,
    Receipt,
    Renewed,
    Token,
    Welcome,
    WireError,
    agree,
    encode_members,
    encode_ruleset,
    sign,
)

EMPTY = Revision(0, CONTROLLER, "nothing is written yet", 0.0, {})
"""The policy before the first one: everything is observed."""
Log = Callable[..., None]


@dataclass
class Control:
    """The state of a running controller; see `open_control`."""

    options: ControllerOptions
    store: StateStore
    authority: Authority
    controllers: tuple[Listener, ...]
    log: Log
    began: float = 0.0
    revision: Revision = EMPTY
    policy: Policy = field(default_factory=Policy)
    standings: dict[str, Standing] = field(default_factory=dict[str, Standing])
    wanted: Mapping[str, Wanted] = field(default_factory=dict[str, Wanted])
    stale: bool = True
    """Whether policy or fleet changed since `wanted` was compiled."""
    tests: StandingTests = field(init=False)
    _unsaved: dict[str, Standing] = field(default_factory=dict[str, Standing])
    _receipts: list[tuple[str, Receipt, float]] = field(default_factory=list[tuple[str, Receipt, float]])
    _packed: dict[int, bytes] = field(default_factory=dict[int, bytes])
    _overlay: Overlay = field(default_factory=Overlay)
    _ground: tuple[Sequence[Workload], Ground] | None = None

    def __post_init__(self) -> None:
        self.tests = StandingTests(self.store, self.log)

    # --- enrolment and certificates ---

    def enrol(self, asked: Enrol, now: float) -> Enrolled:
        """Let a new agent in. Raises `Denied`, `ControllerError` and `InventoryError`; then nothing changed."""
        row = self.store.token(secret_digest(asked.secret))
        name = check_token(row, asked.secret, asked.name, now)
        assert row is not None
        known = self.store.workload(name)
        if known is not None and row.workload is None:
            raise Denied(f"workload `{name}` is there already; only a token made for it lets it enrol again")
        issued = self.authority.issue(asked.request, name, self.options.certificate_days, now)
        with self.store.transaction():
            if not self.store.use_token(row.id, issued.key, name, now):
                raise Denied("the token is unknown, used up or expired; ask for a new one")
            self.store.revoke(name)
            self.store.add_certificate(CertificateRow(issued.serial, name, issued.key, now, issued.ends))
            # Its addresses come with its facts: those of whoever had the name before are not believed of it.
            self.store.put_workload(WorkloadRow(name, True, (), now, now, asked.version), now)
            for key, value in row.labels.items():
                self.store.put_label(LabelRow(name, key, value, LabelSource.DECLARED, f"token {row.id}", now))
            self.store.record(now, f"token {row.id}", "enrol", name, {"serial": issued.serial})
        # A new machine holds nothing, but must be given higher numbers than any before it.
        before = self.standings.get(name, Standing(name))
        self._keep(replace(Standing(name), issued=before.issued, seen=now))
        self.stale = True
        labels = {label.key: label.value for label in reversed(self.store.labels(name))}
        return Enrolled(
            name=name,
            certificate=issued.pem,
            authority=self.authority.pem,
            bundle_key=self.authority.verify_key,
            labels=labels,
        )

    def renew(self, name: str, request: str, now: float) -> Renewed:
        """Give an agent a fresh certificate; the one that it shows holds until it ends. Raises `ControllerError`."""
        issued = self.authority.issue(request, name, self.options.certificate_days, now)
        with self.store.transaction():
            self.store.add_certificate(CertificateRow(issued.serial, name, issued.key, now, issued.ends))
            self.store.record(now, name, "renew", name, {"serial": issued.serial})
        return Renewed(certificate=issued.pem)

    def admit(self, name: str, serial: str) -> None:
        """Say whether a certificate of ours still holds. Raises `Denied`."""
        row = self.store.certificate(serial)
        if row is None or row.workload != name:
            raise Denied(f"the certificate of `{name}` was revoked; enrol again with a new token")

    def mint(self, labels: Labels, uses: int, ttl_s: float, workload: str | None, author: str, now: float) -> Token:
        """Make an enrolment token."""
        secret = make_secret()
        row = make_token_row(secret, labels, uses, ttl_s, workload, author, now)
        with self.store.transaction():
            self.store.add_token(row)
            self.store.record(now, author, "make token", row.id, {"labels": dict(labels), "uses": uses, "ttl_s": ttl_s})
        return Token(self.authority.fingerprint, secret)

    # --- the channel ---

    def hello(self, name: str, hello: Hello, now: float) -> Welcome:
        """Begin to talk to an agent. Raises `WireError` when no protocol is shared."""
        protocol = agree(hello.oldest, hello.newest)
        if hello.name != name:
            raise WireError(f"the certificate is for `{name}` and the agent calls itself `{hello.name}`")
        self._keep(greeted(self.standings.get(name, Standing(name)), hello, now))
        row = self.find(name)
        if row.version != hello.version:
            self.store.put_workload(replace(row, version=hello.version, seen=now), now)
        return Welcome(
            protocol=protocol,
            controller=self.options.name,
            interval_s=self.options.interval_s,
            renew_before_s=self.options.certificate_days * 86_400 / 3,
            now=now,
        )

    def bye(self, name: str, now: float) -> None:
        """Note that an agent's connection is gone."""
        if name in self.standings:
            self._keep(parted(self.standings[name], now))

    def facts(self, name: str, facts: Facts, now: float) -> None:
        """Take what an agent says of its host; the addresses that another workload has are not believed.

        Another's is an address that an operator declared, or that a connected agent had first.
        """
        row = self.find(name)
        claimed = {_address(packed) for packed in facts.addresses}
        addresses = row.addresses if claimed == set(row.addresses) else self._believed(name, claimed)
        with self.store.transaction():
            self.store.put_facts(name, facts, now)
            if addresses != row.addresses:
                self._release(name, addresses, now)
                self.store.put_workload(replace(row, addresses=addresses, seen=now), now)
                self.store.record(now, name, "addresses", name, {"addresses": [str(one) for one in addresses]})
                self.stale = True

    def denials(self, name: str, denials: Denials) -> None:
        """Keep an agent's samples of denied packets."""
        self.store.add_denials(
            [
                DenialRow(
                    one.at,
                    name,
                    _address(one.source),
                    _address(one.destination),
                    one.protocol,
                    one.port,
                    one.side,
                    one.outcome,
                    one.rule,
                    one.revision,
                    one.owner.name,
                )
                for one in denials.samples
            ]
        )

    def receipt(self, name: str, receipt: Receipt, now: float) -> Confirmed | None:
        """Take a receipt; what is provisional is confirmed, unless its revision has failed meanwhile."""
        self._keep(received(self.standings.get(name, Standing(name)), receipt, now))
        self._receipts.append((name, receipt, now))
        self.log("receipt", workload=name, generation=receipt.generation, state=receipt.state, reason=receipt.reason)
        wanted = self.wanted.get(name)
        current = receipt.holding.revision == self.revision.number
        # A newer revision may want exactly what is provisional there: then that must not be taken back.
        if receipt.state is PointState.PROVISIONAL and (
            current or (wanted is not None and wanted.digest == receipt.holding.digest)
        ):
            return Confirmed(generation=receipt.generation)
        return None

    def next_messages(self, names: Iterable[str], now: float) -> dict[str, FromController]:
        """Give what agents are to be sent at this moment, signed; who needs nothing is left out."""
        sends: dict[str, Whole | Change] = {}
        for name in names:
            wanted, standing = self.wanted.get(name), self.standings.get(name)
            if wanted is None or standing is None:
                continue
            after, send = advance(standing, wanted)
            self.standings[name] = after
            if send is not None:
                self._keep(after)
                sends[name] = send
        if sends:
            # INVARIANT: a number is on disk before it is used, so that no other content ever gets it.
            self.flush()
        for name, send in sends.items():
            kind = type(send).__name__.lower()
            self.log("send", workload=name, generation=send.generation, revision=send.wanted.revision, kind=kind)
        return {name: self._signed(name, send, now) for name, send in sends.items()}

    def flush(self) -> None:
        """Write what is only in memory: how points stand, and their receipts. Agents would say all of it again."""
        if not self._unsaved and not self._receipts:
            return
        with self.store.transaction():
            self.store.put_standings(tuple(self._unsaved.values()))
            self.store.add_receipts(self._receipts)
        self._unsaved.clear()
        self._receipts.clear()

    def _signed(self, name: str, send: Whole | Change, now: float) -> FromController:
        if isinstance(send, Whole):
            bundle = Bundle(
                workload=name,
                generation=send.generation,
                revision=send.wanted.revision,
                ruleset=encode_ruleset(send.wanted.ruleset),
                members=self._pack(send.wanted),
                issued_at=now,
                confirm_s=self.revision.confirm_s,
            )
            return sign(bundle, self.authority.bundle_key)
        change = MemberChange(
            workload=name,
            base=send.base,
            generation=send.generation,
            revision=send.wanted.revision,
            added=encode_members(send.added),
            removed=send.removed,
            digest=send.wanted.digest,
            issued_at=now,
        )
        return sign(change, self.authority.bundle_key)

    def _pack(self, wanted: Wanted) -> bytes:
        # Many points share their members: `self.wanted` keeps them, and so their identity, for as long as this.
        shared = id(wanted.members)
        if shared not in self._packed:
            self._packed[shared] = encode_members(wanted.members)
        return self._packed[shared]

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
        self.standings.pop(name, None)
        self._unsaved.pop(name, None)
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
            return Ground(number, policy := read_policy(documents), self._fleet(inventory, policy, {}))
        made = self._ground
        if made is None or made[0] is not inventory or made[1].policy is not self.policy:
            made = inventory, Ground(0, self.policy, self._fleet(inventory, self.policy, self._overlay))
        if made[1].revision != self.revision.number:
            made = inventory, replace(made[1], revision=self.revision.number)
        self._ground = made
        return made[1]

    def ground_at(self, moment: float, number: int | None = None) -> Ground:
        """Give the fleet as it was at a moment with the policy in force then, or that of a revision.

        What is not the inventory's is as at present: where controllers listen. Raises `NotFound`."""
        revision = self.revision_at(moment) if number is None else self.find_revision(number)
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

    def find_revision(self, number: int) -> Revision:
        """Give a revision with its documents. Raises `NotFound`."""
        found = EMPTY if number == 0 else self.store.revision(number)
        if found is None:
            raise NotFound(f"there is no revision `{number}`")
        return found

    def revision_at(self, moment: float) -> Revision:
        """Give the revision that was in force at a moment: the last one made before it."""
        made = (one.number for one in self.store.revisions() if one.created <= moment)
        return self.find_revision(next(made, 0))

    def commit(
        self,
        documents: Mapping[str, str],
        policy: Policy,
        author: str,
        note: str,
        now: float,
        *,
        confirm_s: float = 0.0,
        plan: Mapping[str, object] | None = None,
        reverts_to: int | None = None,
        planned_on: int | None = None,
        accepted: Sequence[str] = (),
    ) -> Revision:
        """Make a new revision and put it in force; `accepted` says in words what speaks against it and was accepted.

        Raises `Conflict` when another came in between."""
        if planned_on is not None and planned_on != self.revision.number:
            raise Conflict(f"revision `{self.revision.number}` is in force, not `{planned_on}`; plan again")
        number = self.revision.number + 1
        revision = Revision(number, author, note, now, dict(documents), dict(plan or {}), confirm_s, reverts_to)
        left = self.store.progress().get(self.revision.number)
        with self.store.transaction():
            if left is not None and left.state is RevisionState.ROLLING:
                why = f"revision {number} came before it was in force everywhere"
                self.store.put_progress(Progress(left.revision, RevisionState.SUPERSEDED, why, now))
            self.store.add_revision(revision)
            self.store.put_progress(Progress(number, RevisionState.ROLLING, "", now))
            details = {"note": note, "reverts_to": reverts_to, **({"accepted": list(accepted)} if accepted else {})}
            self.store.record(now, author, "apply", f"revision {number}", details)
        self.revision, self.policy, self.stale = revision, policy, True
        self.log("revision", number=number, author=author, reverts_to=reverts_to)
        return revision

    def revert(self, to: int | None, author: str, note: str, now: float) -> Revision:
        """Put an earlier revision's documents in force again, as a new revision that needs no confirmation.

        None is the last one before this that was in force everywhere. Raises `NotFound`.
        """
        target = self.last_good() if to is None else to
        documents = self.find_revision(target).documents
        policy = read_policy(documents)
        return self.commit(
            documents, policy, author, note or f"back to revision {target}", now, reverts_to=target, confirm_s=0.0
        )

    def last_good(self) -> int:
        """Give the last revision before the present one that was in force everywhere; 0 where there is none.

        What was itself taken back by a revert is not gone back to."""
        progress = self.store.progress()
        left = {one.number: one.reverts_to for one in self.store.revisions() if one.reverts_to is not None}
        number = self.revision.number
        if number in left:
            number = min(left[number] or 0, number)
        for candidate in sorted((one for one in progress if one < number), reverse=True):
            if progress[candidate].state is RevisionState.GOOD and candidate not in left:
                return candidate
        return 0

    def adopt(self, ground: Ground, wanted: Mapping[str, Wanted]) -> bool:
        """Take what was compiled from `ground`; False where the policy in force has changed meanwhile."""
        if ground.revision != self.revision.number:
            return False
        self.wanted = wanted
        self._packed.clear()
        for name in wanted:
            self.standings.setdefault(name, Standing(name))
        return True

    def next_change(self, now: float) -> float | None:
        """Give the next moment at which a rule starts or expires."""
        return next_change(self.policy, now)

    # --- rollout ---

    def rollout(self, now: float) -> dict[str, Row]:
        """Say how every point stands to the revision in force."""
        # Who is away since before we began may still be on its way back.
        after = self.options.silent_after_s if now - self.began > self.options.silent_after_s else math.inf
        return {name: show(self.standings[name], wanted, now, after) for name, wanted in sorted(self.wanted.items())}

    def judge_rollout(self, now: float) -> None:
        """Find the revision in force good, partial or failed; then go back to the last good one, at all points."""
        number = self.revision.number
        if self.stale or number == 0 or any(one.revision != number for one in self.wanted.values()):
            return
        known = self.store.progress().get(number)
        if known is None or known.state not in (RevisionState.ROLLING, RevisionState.PARTIAL):
            return
        verdict, why = outlook(self.rollout(now), self.standings, number)
        if verdict is Outlook.DONE:
            self.store.put_progress(Progress(number, RevisionState.GOOD, "", now))
            self.log("revision is in force everywhere", number=number)
        elif verdict is Outlook.PARTIAL and known.state is RevisionState.ROLLING:
            self.store.put_progress(Progress(number, RevisionState.PARTIAL, why, now))
            self.log("revision is refused in places", number=number, why=why)
        elif verdict is Outlook.FAILED:
            with self.store.transaction():
                self.store.put_progress(Progress(number, RevisionState.FAILED, why, now))
                self.store.record(now, CONTROLLER, "fail", f"revision {number}", {"why": why})
            self.log("revision failed", number=number, why=why)
            if self.revision.reverts_to is None:
                self.revert(None, CONTROLLER, f"revision {number} failed: {why}", now)

    def offer_again(self, now: float) -> bool:
        """Let points that took back what is in force elsewhere have it again, where it is time; whether any are.

        Never what failed, nor while it is not decided whether it fails."""
        number = self.revision.number
        again: list[Standing] = []
        for name, standing in self.standings.items():
            wanted = self.wanted.get(name)
            if standing.state is PointState.REVERTED and wanted is not None and wanted.revision == number:
                after = offer_again(standing, wanted, now)
                again += [after] if after is not standing else []
        known = self.store.progress().get(number) if again else None
        if not again or (known is not None and known.state is not RevisionState.GOOD):
            return False
        for one in again:
            self._keep(one)
            self.log("offering again", workload=one.workload, revision=number, times=one.again)
        return True

    # --- within ---

    def find(self, name: str) -> WorkloadRow:
        """Give a workload of the inventory. Raises `NotFound`."""
        row = self.store.workload(name)
        if row is None:
            raise NotFound(f"there is no workload `{name}`")
        return row

    def _keep(self, standing: Standing) -> None:
        self.standings[standing.workload] = self._unsaved[standing.workload] = standing

    def _defends(self, row: WorkloadRow) -> bool:
        standing = self.standings.get(row.name)
        return not row.agent or (standing is not None and standing.connected)

    def _believed(self, name: str, claimed: set[Address]) -> tuple[Address, ...]:
        believed: list[Address] = []
        for address in sorted(claimed, key=lambda one: (one.version, int(one))):
            owners = [one for one in self.store.having(address) if one.name != name and self._defends(one)]
            if owners:
                owner = max(owners, key=lambda one: (one.epoch, one.name)).name
                self.log("contested address", workload=name, address=str(address), owner=owner)
            else:
                believed.append(address)
        return tuple(believed)

    def _release(self, name: str, addresses: tuple[Address, ...], now: float) -> None:
        """Take addresses that `name` has from whoever had them and is away."""
        for other in {one.name: one for address in addresses for one in self.store.having(address)}.values():
            if other.name != name and other.agent:
                left = tuple(one for one in other.addresses if one not in addresses)
                self.store.put_workload(replace(other, addresses=left), now)


def _address(packed: bytes) -> Address:
    if len(packed) not in (4, 16):
        raise WireError(f"an address of {len(packed)} bytes; wanted 4 or 16")
    return canonical(ip_address(packed))


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
    newest = next(iter(store.revisions()), None)
    if newest is not None:
        control.revision = control.find_revision(newest.number)
        try:
            control.policy = read_policy(control.revision.documents)
        except PolicyError as error:
            raise ControllerError(f"revision `{newest.number}` in the store cannot be read: {error}") from None
    return control
