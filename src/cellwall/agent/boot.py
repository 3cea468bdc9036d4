"""What is done about the kernel without an agent that runs: before the network comes up, and when Cellwall goes."""

from __future__ import annotations

from cellwall.agent.clock import Clock
from cellwall.agent.core import Agent, step
from cellwall.agent.enrolment import AgentError, load_enrolment
from cellwall.agent.events import Apply, Event, Repair, Restore, SaveJournal
from cellwall.agent.folder import locked, observes
from cellwall.agent.journal import Journal
from cellwall.agent.keeper import Keeper
from cellwall.agent.options import AgentOptions
from cellwall.agent.suspension import read_suspension
from cellwall.enforce import Leave


def load_boot(options: AgentOptions, now: float) -> int | None:
    """Enforce what was last in force, from disk alone, and give its generation; None where nothing was.

    A host whose agent was last run to observe only, or that is suspended, drops nothing now either.

    A provisional change whose time is over is taken back; one whose time is not is left to the agent that comes
    after, and to the kernel if none does. What the kernel refuses gives way to what was good before. Raises
    `NotEnrolled`, or `AgentError` when the kernel does not take it.
    """
    enrolment = load_enrolment(options.state)
    journal = Journal(options.state, enrolment.name, enrolment.bundle_key)
    suspended = read_suspension(options.state, now)
    observing = options.observe_only or observes(options.state)
    started, clock = journal.load(), Clock()
    clock.not_before(started.issued)
    keeper = Keeper(options.cgroup_root, observe_only=observing, clock=clock)
    keeper.suspend(suspended.left_s(now) if suspended else 0.0)
    agent = Agent(enrolment.name, observe_only=observing, suspended=str(suspended or ""))
    events: list[Event] = [started]
    try:
        while events:
            agent, commands = step(agent, events.pop(0), now)
            for command in commands:
                if isinstance(command, Apply | Restore | Repair):
                    events += keeper.write(command)
                elif isinstance(command, SaveJournal):
                    journal.save(command)
    finally:
        keeper.close()
    if agent.in_kernel is not agent.target:
        raise AgentError(f"the kernel did not take the last policy: {agent.receipt.reason}")
    return agent.target.generation if agent.target else None


def remove(options: AgentOptions, leave: Leave) -> None:
    """Take Cellwall off this host while no agent runs: the rules stay, all go, or all but lifelines is closed.

    What is on disk is forgotten, so that no later start enforces it. Raises `AgentError`, `Refused` or `NotEnrolled`.
    """
    enrolment = load_enrolment(options.state)
    with locked(options.state):
        journal = Journal(options.state, enrolment.name, enrolment.bundle_key)
        keeper = Keeper(options.cgroup_root)
        try:
            good = journal.load().good
            if leave is Leave.CLOSE and good is not None:
                # Which lifelines there are is in the policy.
                keeper.write(Apply(good))
            keeper.remove(leave)
        finally:
            keeper.close()
        journal.erase()
