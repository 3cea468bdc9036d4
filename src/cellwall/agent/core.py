"""The life of an agent as a step function: what happens goes in, what is to be done comes out.

    desired ──▶ trial ──(kernel took it)──▶ provisional ──(controller, canaries)──▶ good
                  │ refused                     │ deadline, or no canary answers
                  ▼                             ▼
            good stays in force           good is put back

INVARIANT: what the kernel should hold is `Agent.target`, and nothing else is ever written to it. `due` says when to
write it, `writing` that an answer is awaited: there is at most one write at a time, and while it lasts the newest
target waits. Which way the agent came here does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from msgspec import structs

from cellwall.agent.bundle import Bundle, amend
from cellwall.agent.events import (
    AddressesChanged,
    Applied,
    Apply,
    ApplyMembers,
    CanaryResult,
    ClockSet,
    Collect,
    Command,
    Confirmed,
    Connected,
    Desired,
    Disconnected,
    Event,
    ForeignChange,
    Forgery,
    JournalFailed,
    MembersChanged,
    Reconnect,
    Repair,
    Report,
    Restore,
    Result,
    SaveChange,
    SaveJournal,
    SendFacts,
    Started,
    Stopping,
    Suspended,
    Tick,
    TryCanaries,
    Verified,
    Verify,
)
from cellwall.policy import Mode
from cellwall.wire import Holding, MemberChange, PointState, Receipt, WireError, decode_members

REPAIRS, REPAIRS_WITHIN_S, SLOW_REPAIR_S = 10, 60.0, 15.0
"""So many repairs in so long are made at once; after that one every so often, with an alarm."""
CANARY_TRIES, CANARY_EVERY_S = 3, 1.0
RETRY_FIRST_S, RETRY_LAST_S = 1.0, 60.0
VERIFY_EVERY_S, FACTS_EVERY_S = 300.0, 60.0
NOTHING_YET = "no bundle has come yet"

Commands = tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """A bundle that is not yet good. Without `until` it becomes good when the kernel takes it.

    `first` is the generation that it began with; members may have changed since. `applied` is when the kernel took
    it, `reached` that the controller welcomed us on a connection begun after that, `heard` that it then said so.
    """

    bundle: Bundle
    first: int
    until: float | None
    applied: float | None = None
    reached: bool = False
    heard: bool = False
    passed: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    next_try: float = 0.0

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """What still keeps it from being good, in words."""
        if self.applied is None:
            return ("the kernel",)
        missing = [] if self.heard else ["the controller's word"] if self.reached else ["the controller"]
        missing += [f"canary `{one.id}`" for one in self.bundle.ruleset.canaries if one.id not in self.passed]
        return tuple(missing)


def _nothing_yet() -> Receipt:
    return Receipt(generation=0, state=PointState.FAILED, reason=NOTHING_YET)


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent at one moment. `in_kernel` is what the kernel took last, None when that is unknown or nothing;
    `stained` says that the kernel may hold something that never became good;
    `undoing` is why a change is being taken back and `undone` what to report then; `receipt` was reported last;
    `suspended` says why this host only observes for a while, `lacking` what of `in_kernel` is not in force."""

    workload: str
    interval_s: float = 2.0
    observe_only: bool = False
    suspended: str = ""
    lacking: str = ""
    connected: bool = False
    good: Bundle | None = None
    trial: Trial | None = None
    highest: int = 0
    in_kernel: Bundle | None = None
    writing: Command | None = None
    due: float | None = None
    failures: int = 0
    stained: bool = False
    undoing: str = ""
    undone: PointState = PointState.REVERTED
    repairing: bool = False
    repairs: tuple[float, ...] = ()
    fighting: bool = False
    receipt: Receipt = field(default_factory=_nothing_yet)
    next_collect: float = 0.0
    next_verify: float = 0.0
    next_facts: float = 0.0

    @property
    def target(self) -> Bundle | None:
        """What the kernel should hold."""
        return self.trial.bundle if self.trial else self.good


def step(agent: Agent, event: Event, now: float) -> tuple[Agent, Commands]:
    """Take one event: give the agent after it and what is to be done, in that order.

    Each `Apply`, `Restore`, `Repair` and `ApplyMembers` must be answered by an `Applied`.
    """
    agent, commands = _take(agent, event, now)
    agent, judged = _judge(agent, now)
    agent, written = _write(agent, now)
    return agent, commands + judged + written


def _take(agent: Agent, event: Event, now: float) -> tuple[Agent, Commands]:
    match event:
        case Started():
            return _started(agent, event, now)
        case Desired(bundle):
            return _desired(agent, bundle, now)
        case MembersChanged():
            return _members_changed(agent, event, now)
        case Applied():
            return _applied(agent, event, now)
        case Connected(began):
            trial = agent.trial
            if trial and trial.applied is not None and began >= trial.applied:
                agent = replace(agent, trial=replace(trial, reached=True))
            told = (Report(agent.receipt),) if agent.receipt.reason != NOTHING_YET else ()
            return replace(agent, connected=True), (SendFacts(), *told)
        case Confirmed(generation):
            trial = agent.trial
            # On an older connection it proves nothing of the new rules.
            if trial and trial.reached and trial.first <= generation <= trial.bundle.generation:
                agent = replace(agent, trial=replace(trial, heard=True))
            return agent, ()
        case Disconnected():
            return replace(agent, connected=False), ()
        case CanaryResult():
            return _tried(agent, event), ()
        case Forgery(generation, reason):
            # Said, but not kept as how the point stands: who cannot sign shall not change that.
            receipt = _receipt(agent, PointState.REFUSED, reason, now, generation)
            return agent, (Report(receipt, alarm=True),)
        case ForeignChange(by):
            return _foreign(agent, f"changed by `{by}`", now)
        case Verified(generation, drifts):
            stale = agent.in_kernel is None or agent.in_kernel.generation != generation
            return (agent, ()) if stale or not drifts else _foreign(agent, drifts[0], now)
        case AddressesChanged():
            return replace(agent, next_facts=now + FACTS_EVERY_S), (SendFacts(),)
        case JournalFailed(reason):
            receipt = structs.replace(agent.receipt, reason=f"the journal cannot be written: {reason}"[:1024])
            return agent, (Report(receipt, alarm=True),)
        case Suspended(reason):
            # The same bundle in another mode: it is for the keeper to know, and written as it is due.
            return replace(agent, suspended=reason, due=None if agent.target is None else now), ()
        case ClockSet():
            target = agent.target
            ends = target is not None and any(one.expires is not None for one in target.ruleset.orders)
            return replace(agent, due=now if ends else agent.due), ()
        case Stopping():
            if agent.trial is not None and agent.trial.until is not None:
                agent = _take_back(agent, "the agent was stopped before it was confirmed", now)
            return agent, ()
        case Tick():
            return _tick(agent, now)
        case _:
            assert_never(event)


def _started(agent: Agent, event: Started, now: float) -> tuple[Agent, Commands]:
    trial, undoing = None, ""
    if event.trial is not None:
        # The clock may have been set back meanwhile: never wait longer than was asked for.
        until = min(event.until, now + event.trial.confirm_s) if event.until else None
        if until is None or until > now:
            trial = Trial(event.trial, event.trial.generation, until)
        else:
            undoing = "nobody confirmed it before the agent was restarted"
    known = [bundle.generation for bundle in (event.good, event.trial) if bundle]
    agent = replace(
        agent,
        good=event.good,
        trial=trial,
        highest=max(event.highest, agent.highest, *known, 0),
        due=now if known else None,
        stained=event.trial is not None,
        undoing=undoing,
        next_collect=now + agent.interval_s,
        next_verify=now + VERIFY_EVERY_S,
        next_facts=now + FACTS_EVERY_S,
    )
    if event.damage:
        return _report(agent, PointState.FAILED, f"the journal is damaged: {event.damage}", now, alarm=True)
    return agent, ()


def _desired(agent: Agent, bundle: Bundle, now: float) -> tuple[Agent, Commands]:
    if bundle.ruleset.workload != agent.workload:
        receipt = _receipt(agent, PointState.REFUSED, f"it is for `{bundle.ruleset.workload}`", now, bundle.generation)
        return agent, (Report(receipt, alarm=True),)
    if bundle.generation <= agent.highest:
        return agent, (Report(agent.receipt),)
    until = now + bundle.confirm_s if bundle.confirm_s > 0 else None
    trial = Trial(bundle, bundle.generation, until)
    agent = _ordered(replace(agent, highest=bundle.generation, trial=trial, due=now, failures=0, undoing=""), bundle)
    # It is on disk, with its end, before the kernel has it: who restarts knows what to go on with or to put back.
    return agent, _journal(agent)


def _members_changed(agent: Agent, event: MembersChanged, now: float) -> tuple[Agent, Commands]:
    target, change = agent.target, event.change
    if change.generation <= agent.highest:
        return agent, (Report(agent.receipt),)
    if target is None:
        return _astray(agent, change, "members changed where none are held", now)
    try:
        # It copies the members, a millisecond at 100,000: whoever holds the old value keeps it.
        changed = amend(target, (change,))
        added = decode_members(change.added) if change.added else {}
    except WireError as error:
        return _astray(agent, change, str(error), now)
    quiet = agent.writing is None and agent.due is None and agent.in_kernel is target
    agent = replace(agent, highest=change.generation)
    saved: Commands = (SaveChange(event.signed),)
    if agent.trial is not None:
        agent = _ordered(replace(agent, trial=replace(agent.trial, bundle=changed)), changed)
        # What is gone back to may have changed too, and an appended change is of the trial alone.
        saved = saved if change.orders is None else _journal(agent)
    else:
        agent = replace(agent, good=changed)
    if not quiet:
        return replace(agent, due=now if agent.due is None else agent.due), saved
    write = ApplyMembers(changed, added, change.removed, orders=change.orders is not None)
    return replace(agent, writing=write), (write, *saved)


def _ordered(agent: Agent, newest: Bundle) -> Agent:
    """Let the last good bundle have the orders of the newest: a change that is taken back takes back no order."""
    return agent if agent.good is None else replace(agent, good=agent.good.with_orders(newest.ruleset.orders))


def _astray(agent: Agent, change: MemberChange, reason: str, now: float) -> tuple[Agent, Commands]:
    """Say `failed`, upon which the controller sends a whole bundle; what is in force stays."""
    return agent, (Report(_receipt(agent, PointState.FAILED, reason, now, change.generation)),)


def _applied(agent: Agent, event: Applied, now: float) -> tuple[Agent, Commands]:
    written, agent = agent.writing, replace(agent, writing=None)
    match event.result:
        case Result.DONE:
            return _done(replace(agent, lacking=event.reason), written, now)
        case Result.REFUSED | Result.FAILED if isinstance(written, ApplyMembers):
            # By element it does not go: write the whole, which says what is wrong if that does not go either.
            return replace(agent, due=now), ()
        case Result.REFUSED if _is_trial(agent, written):
            agent, told = _report(replace(agent, trial=None, failures=0), PointState.REFUSED, event.reason, now)
            if not agent.stained if agent.good is None else agent.in_kernel is agent.good:
                return replace(agent, due=None), _journal(agent) + told
            # Something else is in the kernel still: the trial stays on disk until that is gone.
            return replace(agent, due=now, undoing=event.reason, undone=PointState.REFUSED), told
        case Result.REFUSED | Result.FAILED:
            pause = min(RETRY_LAST_S, RETRY_FIRST_S * 2**agent.failures)
            due = now + pause if agent.due is None else agent.due
            # What failed may have been done all the same.
            stained = agent.stained or (event.result is Result.FAILED and agent.trial is not None)
            agent = replace(agent, due=due, failures=min(agent.failures + 1, 10), stained=stained)
            return _report(agent, PointState.FAILED, event.reason, now, alarm=True)
        case _:
            assert_never(event.result)


def _is_trial(agent: Agent, written: Command | None) -> bool:
    """Say whether what was written is the trial's, perhaps before members of it changed."""
    return (
        isinstance(written, Apply | Repair)
        and agent.trial is not None
        and agent.trial.first <= written.bundle.generation <= agent.trial.bundle.generation
    )


def _done(agent: Agent, written: Command | None, now: float) -> tuple[Agent, Commands]:
    held = written.bundle if isinstance(written, Apply | Restore | Repair | ApplyMembers) else None
    agent = replace(agent, failures=0, in_kernel=held, stained=held is not agent.good)
    if agent.target is not held:
        return replace(agent, due=now if agent.due is None else agent.due), ()
    if agent.due is not None:
        return agent, ()
    if agent.undoing:
        reason, agent = agent.undoing, replace(agent, undoing="", repairing=False)
        agent, told = _report(agent, agent.undone, reason, now)
        # The way to the controller is open again: not to wait for the next attempt.
        return agent, _journal(agent) + told + (() if agent.connected else (Reconnect(),))
    trial = agent.trial
    if trial is not None and trial.until is None:
        agent = replace(agent, good=trial.bundle, trial=None, repairing=False, stained=False)
        agent, told = _report_in_force(agent, now)
        return agent, _journal(agent) + told
    if trial is not None and trial.applied is None:
        canaries = trial.bundle.ruleset.canaries
        agent = replace(agent, trial=replace(trial, applied=now, next_try=now + CANARY_EVERY_S))
        tries = (TryCanaries(trial.first, canaries),) if canaries else ()
        # Reported once the new connection stands: its answer there is what counts.
        agent, _ = _report_in_force(agent, now)
        return agent, (Reconnect(), *tries)
    repaired, agent = agent.repairing, replace(agent, repairing=False)
    return (
        (agent, ())
        if agent.fighting
        else _report_in_force(agent, now, "repaired what others changed" if repaired else "")
    )


def _tried(agent: Agent, event: CanaryResult) -> Agent:
    trial = agent.trial
    if trial is None or trial.applied is None or trial.first != event.generation:
        return agent
    if event.passed:
        return replace(agent, trial=replace(trial, passed=trial.passed | {event.id}))
    failures = {**trial.failures, event.id: trial.failures.get(event.id, 0) + 1}
    return replace(agent, trial=replace(trial, failures=failures))


def _foreign(agent: Agent, what: str, now: float) -> tuple[Agent, Commands]:
    if agent.target is None:
        return agent, ()
    recent = tuple(at for at in agent.repairs if now - at < REPAIRS_WITHIN_S)
    agent = replace(agent, repairing=True, in_kernel=None, repairs=recent)
    if len(recent) < REPAIRS:
        agent = replace(agent, due=now, repairs=(*recent, now))
        return _report(agent, PointState.DRIFTED, what, now)
    # Two fight over the table. To go on more slowly ends no fight, but leaves the machine some air.
    known, due = agent.fighting, now + SLOW_REPAIR_S if agent.due is None else agent.due
    agent = replace(agent, due=due, fighting=True)
    if known:
        return agent, ()
    why = f"{what}, and {REPAIRS} times in {REPAIRS_WITHIN_S:.0f} s; from now on it is repaired more slowly"
    return _report(agent, PointState.DRIFTED, why, now, alarm=True)


def _tick(agent: Agent, now: float) -> tuple[Agent, Commands]:
    commands: list[Command] = []
    if now >= agent.next_collect:
        agent = replace(agent, next_collect=now + agent.interval_s)
        commands.append(Collect())
    target = agent.target
    if now >= agent.next_verify:
        agent = replace(agent, next_verify=now + VERIFY_EVERY_S)
        if target is not None and agent.in_kernel is target and agent.writing is None:
            commands.append(Verify(target))
    if now >= agent.next_facts:
        agent = replace(agent, next_facts=now + FACTS_EVERY_S)
        commands.append(SendFacts())
    trial = agent.trial
    if trial and trial.until is not None and trial.applied is not None and now >= trial.next_try:
        missing = tuple(one for one in trial.bundle.ruleset.canaries if one.id not in trial.passed)
        agent = replace(agent, trial=replace(trial, next_try=now + CANARY_EVERY_S))
        commands += [TryCanaries(trial.first, missing)] if missing else []
    if agent.fighting and agent.in_kernel is target and all(now - at >= REPAIRS_WITHIN_S for at in agent.repairs):
        agent, told = _report_in_force(replace(agent, fighting=False), now)
        commands += told
    return agent, tuple(commands)


def _judge(agent: Agent, now: float) -> tuple[Agent, Commands]:
    """Confirm a provisional change, or decide to take it back."""
    trial = agent.trial
    if trial is None or trial.until is None:
        return agent, ()
    canaries = trial.bundle.ruleset.canaries
    if now >= trial.until:
        reason = f"not confirmed within {trial.bundle.confirm_s:g} s, for want of {', '.join(trial.waiting_for)}"
    elif not trial.waiting_for and agent.in_kernel is trial.bundle:
        # The journal first: what is started again goes on with it, though the kernel may have gone back by then. That
        # it lasts is reported once the kernel holds it so.
        agent = replace(agent, good=trial.bundle, trial=None, stained=False, due=now)
        return agent, _journal(agent)
    elif canaries and all(trial.failures.get(one.id, 0) >= CANARY_TRIES for one in canaries) and not trial.passed:
        reason = f"no canary answers: {', '.join(f'`{one.id}`' for one in canaries)}"
    else:
        return agent, ()
    return _take_back(agent, reason, now), ()


def _take_back(agent: Agent, reason: str, now: float) -> Agent:
    return replace(agent, trial=None, due=now, failures=0, undoing=reason, undone=PointState.REVERTED)


def _write(agent: Agent, now: float) -> tuple[Agent, Commands]:
    """Write the target when it is due and nothing is being written."""
    if agent.writing is not None or agent.due is None or now < agent.due:
        return agent, ()
    target = agent.target
    if agent.undoing or target is None:
        write: Command = Restore(target)
    else:
        trial = agent.trial
        left_s = trial.until - now if trial and trial.until is not None else None
        made = Repair if agent.repairing else Apply
        write = made(target) if left_s is None else made(target, left_s, agent.good)
    if agent.repairing and agent.fighting:
        agent = replace(agent, repairs=(*agent.repairs[-REPAIRS:], now))
    return replace(agent, writing=write, due=None), (write,)


def in_mode(agent: Agent, ruleset_mode: Mode) -> Mode:
    """Give the mode that the kernel gets: a host that only observes never gets another."""
    return Mode.OBSERVE if agent.observe_only else ruleset_mode


def _receipt(agent: Agent, state: PointState, reason: str, now: float, generation: int) -> Receipt:
    holding = agent.in_kernel.holding if agent.in_kernel else Holding()
    return Receipt(generation=generation, state=state, reason=reason[:1024], holding=holding, at=now)


def _report(agent: Agent, state: PointState, reason: str, now: float, *, alarm: bool = False) -> tuple[Agent, Commands]:
    receipt = _receipt(agent, state, reason, now, agent.highest)
    return replace(agent, receipt=receipt), (Report(receipt, alarm),)


def _report_in_force(agent: Agent, now: float, reason: str = "") -> tuple[Agent, Commands]:
    if agent.trial is not None:
        waiting = f"waiting for {', '.join(agent.trial.waiting_for)}"
        return _report(agent, PointState.PROVISIONAL, waiting, now)
    if agent.observe_only:
        return _report(agent, PointState.RELAXED, "this host only observes", now)
    if agent.suspended:
        return _report(agent, PointState.RELAXED, agent.suspended, now)
    if agent.lacking:
        return _report(agent, PointState.RELAXED, agent.lacking, now)
    return _report(agent, PointState.ENFORCED, reason, now)


def snapshot(agent: Agent) -> SaveJournal:
    """Say what the journal must hold."""
    trial = agent.trial
    if trial is None:
        return SaveJournal(agent.good, None, 0.0, agent.highest)
    return SaveJournal(agent.good, trial.bundle, trial.until or 0.0, agent.highest)


def _journal(agent: Agent) -> Commands:
    return (snapshot(agent),)
