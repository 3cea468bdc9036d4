"""The agent is killed before and after every step of a change: the kernel holds the old state or the new, a restart one
that is confirmed, and never neither.

The steps are the commands of `core.step` as the loop does them, from the bundle's coming to the last word about it, and
those of taking it back. The kill is a real SIGKILL of a real process; kernel and journal are real too.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from tests.conftest import SOAK
from tests.fleet.agent_world import ALLOW_80, ALLOW_81, NAME, Puppet, connects, fleet, meaning, point, policy, serve_tcp
from tests.kernel.namespaces import Namespace, needs_namespaces, pair

from cellwall.agent import AgentOptions, load_boot
from cellwall.agent.bundle import open_bundle
from cellwall.agent.core import Agent, step
from cellwall.agent.enrolment import load_enrolment
from cellwall.agent.events import (
    Apply,
    ApplyMembers,
    CanaryResult,
    Confirmed,
    Connected,
    Desired,
    Event,
    MembersChanged,
    Repair,
    Restore,
    SaveChange,
    SaveJournal,
    Stopping,
    Tick,
)
from cellwall.agent.journal import Journal
from cellwall.agent.keeper import Keeper
from cellwall.controller.trust.ca import open_authority
from cellwall.wire import Bundle, MemberChange, encode

pytestmark = needs_namespaces

CONFIRM_S = 600.0
CANARY = '[{id: there, canary: true, from: "role=web", can: tcp/9, to: "role=client"}]'


@dataclass
class World:
    client: Namespace
    web: Namespace
    state: Path
    old: Bundle
    new: Bundle
    change: MemberChange

    @property
    def options(self) -> AgentOptions:
        return AgentOptions(self.state)

    def state_of(self) -> str:
        """Say by real connections which of the two is in force."""
        return "".join(str(port) for port in (80, 81) if connects(self.client, "10.77.0.2", port, 0.3))


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    with pair() as (client, web):
        maker = Puppet(open_authority(tmp_path / "ca", time.time()))
        maker.enrol(tmp_path / "state")
        for port in (80, 81):
            web.start(serve_tcp, port)
            web.wait_for_port(port)
        old = maker.bundle(point(policy(ALLOW_80), 1))
        new = maker.bundle(point(policy(ALLOW_81, tests=CANARY), 2), confirm_s=CONFIRM_S)
        change = maker.change(point(policy(ALLOW_81, tests=CANARY), 2, fleet(more=3)))
        yield World(client, web, tmp_path / "state", old, new, change)


class Numbered:
    """The agent's turn as the loop does it; before and after each command it is a step further, and may be killed."""

    def __init__(self, folder: Path, fatal: int) -> None:
        enrolment = load_enrolment(folder)
        self.journal = Journal(folder, NAME, enrolment.bundle_key)
        self.keeper = Keeper()
        self.agent = Agent(NAME)
        self.now = time.time()
        self.steps: Iterator[int] = count(1)
        self.fatal = 0
        self.tell(self.journal.load())
        self.fatal, self.steps = fatal, count(1)

    def passed(self) -> None:
        if next(self.steps) == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, event: Event) -> None:
        events: list[Event] = [event]
        while events:
            self.agent, commands = step(self.agent, events.pop(0), self.now)
            for command in commands:
                self.passed()
                if isinstance(command, Apply | Repair | Restore | ApplyMembers):
                    events += self.keeper.write(command)
                elif isinstance(command, SaveJournal):
                    self.journal.save(command)
                elif isinstance(command, SaveChange):
                    self.journal.append(command.signed)
        self.passed()


def confirm(folder: Path, new: Bundle, change: MemberChange, fatal: int) -> int:
    """Change, change members meanwhile, and be confirmed."""
    turn = Numbered(folder, fatal)
    turn.tell(Desired(open_bundle(new, encode(new))))
    turn.tell(MembersChanged(change, encode(change)))
    turn.tell(CanaryResult(new.generation, "there", passed=True))
    turn.tell(Connected(turn.now + 1))
    turn.tell(Confirmed(new.generation))
    assert turn.agent.good and turn.agent.good.revision == 2
    return next(turn.steps)


def time_out(folder: Path, new: Bundle, change: MemberChange, fatal: int) -> int:
    """Change, and take it back because nobody confirms."""
    turn = Numbered(folder, fatal)
    turn.tell(Desired(open_bundle(new, encode(new))))
    turn.tell(MembersChanged(change, encode(change)))
    turn.now += CONFIRM_S + 1
    turn.tell(Tick())
    assert turn.agent.good and turn.agent.good.revision == 1 and turn.agent.trial is None
    return next(turn.steps)


def stop(folder: Path, new: Bundle, change: MemberChange, fatal: int) -> int:
    """Change, and be asked to end before it is confirmed."""
    turn = Numbered(folder, fatal)
    turn.tell(Desired(open_bundle(new, encode(new))))
    turn.tell(Stopping())
    assert turn.agent.good and turn.agent.good.revision == 1 and turn.agent.trial is None
    return next(turn.steps)


@pytest.mark.parametrize(("way", "least"), [(confirm, 14), (time_out, 14), (stop, 9)])
def test_killed_between_any_two_steps_what_is_in_force_is_whole_and_after_a_restart_confirmed(
    world: World, way: type, least: int
) -> None:
    begin(world)
    saved = world.state.parent / "saved"
    shutil.copytree(world.state, saved)
    before = meaning(world.web)
    last = world.web.call(way, world.state, world.new, world.change, 0)
    assert last >= least, "the steps are still counted"
    ends = world.state_of()
    assert ends == ("81" if way is confirm else "80")
    seen: set[str] = set()
    for fatal in range(1, last):
        shutil.rmtree(world.state)
        shutil.copytree(saved, world.state)
        assert world.web.call(load_boot, world.options, time.time()) == world.old.generation
        child = world.web.start(way, world.state, world.new, world.change, fatal)
        os.waitpid(child.pid, 0)
        found = world.state_of()
        assert found in ("80", "81"), f"killed at step {fatal} of {last} the kernel lets through {found or 'nothing'}"
        seen.add(found)
        if found == "81":
            # Nobody is alive: at its end the kernel goes back by itself, but for what is written as confirmed.
            ended = end_of_trial(world)
            assert ended or is_good(world), f"killed at step {fatal} of {last} it would last"
            assert world.state_of() == ("80" if ended else "81"), f"step {fatal}"
        if SOAK:
            # At once the trial may go on.
            world.web.call(load_boot, world.options, time.time())
            assert world.state_of() in ("80", "81"), f"step {fatal}"
        # When its time is over, only what was confirmed may be left.
        generation = world.web.call(load_boot, world.options, time.time() + 2 * CONFIRM_S)
        after = world.state_of()
        confirmed = Journal(world.state, NAME, load_enrolment(world.state).bundle_key).load()
        assert confirmed.trial is None and confirmed.good and confirmed.good.generation == generation
        assert after == ("81" if confirmed.good.revision == 2 else "80"), f"step {fatal}"
        if after == "80":
            assert meaning(world.web) == before, f"killed at step {fatal}, the old state is not whole"
        else:
            assert way is confirm and fatal >= last - 3, f"killed at step {fatal} of {last}, nobody had confirmed it"
    assert seen == {"80", "81"}


def end_of_trial(world: World) -> bool:
    """Take the elements out whose time is running, as the kernel does at its end; say whether there were any."""
    text = world.web.run(["nft", "list", "table", "inet", "cellwall"]).stdout
    maps = re.findall(r"map (trial_\w+) \{[^{}]*elements = \{[^{}]* expires ", text)
    for name in maps:
        world.web.nft(f"flush map inet cellwall {name}\n")
    return bool(maps)


def is_good(world: World) -> bool:
    """Say whether the journal has the new bundle as confirmed."""
    good = Journal(world.state, NAME, load_enrolment(world.state).bundle_key).load().good
    return good is not None and good.revision == 2


def begin(world: World) -> None:
    """Bring the old state into force."""
    world.web.call(_begin, world.state, world.old)
    assert world.state_of() == "80"


def _begin(folder: Path, old: Bundle) -> None:
    Numbered(folder, 0).tell(Desired(open_bundle(old, encode(old))))
