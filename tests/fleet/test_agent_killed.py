"""Kill -9 at every step of a change: the kernel holds the old state or the new one, and a restart makes it whole."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tests.conftest import SOAK
from tests.fleet.agent_world import (
    ALLOW_80,
    ALLOW_81,
    NAME,
    Puppet,
    connects,
    fleet,
    kernel_text,
    meaning,
    point,
    policy,
    serve_tcp,
)
from tests.kernel.namespaces import Namespace, needs_namespaces, pair

from cellwall.agent import AgentOptions, load_boot
from cellwall.agent.bundle import open_bundle
from cellwall.agent.core import Agent, step
from cellwall.agent.enrolment import Enrolment, load_enrolment
from cellwall.agent.events import Apply, ApplyMembers, Desired, Event, Repair, Restore, SaveChange, SaveJournal
from cellwall.agent.journal import Journal
from cellwall.agent.keeper import Keeper
from cellwall.controller.trust.ca import open_authority
from cellwall.wire import Bundle, encode

pytestmark = needs_namespaces

STEPS = 400 if SOAK else 36
TRACED = ("/cellwall/agent/", "/cellwall/enforce/", "/cellwall/clients/", "/subprocess.py")
# So many that the base chains do not fit into one write to a pipe.
CONTROLLERS = ("10.77.0.1", *(f"192.0.2.{number}" for number in range(1, 250)))


@dataclass
class World:
    client: Namespace
    web: Namespace
    enrolment: Enrolment
    old: Bundle
    new: Bundle

    @property
    def options(self) -> AgentOptions:
        return AgentOptions(self.enrolment.folder)


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    with pair() as (client, web):
        maker = Puppet(open_authority(tmp_path / "ca", time.time()))
        enrolment = maker.enrol(tmp_path / "state")
        web.nft('add table ip other { comment "not ours"; }\nadd set ip other s { type ipv4_addr; }\n')
        for port in (80, 81):
            web.start(serve_tcp, port)
            web.wait_for_port(port)
        among = fleet(controllers=CONTROLLERS, more=300)
        old = maker.bundle(point(policy(ALLOW_80), 1, among))
        new = maker.bundle(point(policy(ALLOW_81), 2, among), confirm_s=600.0)
        yield World(client, web, enrolment, old, new)


class Turn:
    """The agent's turn without the network: step, kernel, journal."""

    def __init__(self, folder: Path) -> None:
        enrolment = load_enrolment(folder)
        self.journal = Journal(folder, NAME, enrolment.bundle_key)
        self.keeper = Keeper()
        self.agent = Agent(NAME)
        self.tell(self.journal.load())

    def tell(self, event: Event) -> None:
        events: list[Event] = [event]
        while events:
            self.agent, commands = step(self.agent, events.pop(0), time.time())
            for command in commands:
                if isinstance(command, Apply | Repair | Restore | ApplyMembers):
                    events += self.keeper.write(command)
                elif isinstance(command, SaveJournal):
                    self.journal.save(command)
                elif isinstance(command, SaveChange):
                    self.journal.append(command.signed)


def change(folder: Path, old: Bundle, new: Bundle, watch: Callable[[], None]) -> None:
    """Bring the old state into force, then begin to watch, then change to the new one."""
    turn = Turn(folder)
    turn.tell(Desired(open_bundle(old, encode(old))))
    watch()
    turn.tell(Desired(open_bundle(new, encode(new))))
    sys.settrace(None)


def count_steps(folder: Path, old: Bundle, new: Bundle) -> int:
    """Say how many lines the change runs through."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if not any(part in frame.f_code.co_filename for part in TRACED):
            return None
        lines += event == "line"
        return trace

    change(folder, old, new, lambda: sys.settrace(trace))
    return lines


def die_at(folder: Path, old: Bundle, new: Bundle, at: int) -> None:
    """Do the same, and be killed at line `at` of it."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if not any(part in frame.f_code.co_filename for part in TRACED):
            return None
        lines += event == "line"
        if lines == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    change(folder, old, new, lambda: sys.settrace(trace))


def state_of(world: World) -> str:
    """Say by real connections which of the two is in force."""
    return "".join(str(port) for port in (80, 81) if connects(world.client, "10.77.0.2", port, 0.3))


def fresh(world: World) -> None:
    for name in ("journal", "journal.new", "journal.damaged"):
        (world.enrolment.folder / name).unlink(missing_ok=True)
    world.web.run(["nft", "delete", "table", "inet", "cellwall"], check=False)


def test_killed_anywhere_in_a_change_the_kernel_holds_the_old_or_the_new_and_a_restart_makes_it_whole(
    world: World,
) -> None:
    folder = world.enrolment.folder
    others = kernel_text(world.web, "ip other")
    steps = world.web.call(count_steps, folder, world.old, world.new)
    assert state_of(world) == "81"
    whole = {"81": meaning(world.web)}
    fresh(world)
    world.web.call(change, folder, world.old, world.old, lambda: None)
    assert state_of(world) == "80"
    whole["80"] = meaning(world.web)
    seen: set[str] = set()
    for at in sorted({1 + steps * number // STEPS for number in range(STEPS)}):
        fresh(world)
        child = world.web.start(die_at, folder, world.old, world.new, at)
        until = time.monotonic() + 20
        while child.alive():
            assert time.monotonic() < until
            time.sleep(0.005)
        # What the dead one had started comes to its end.
        time.sleep(0.05)
        found = state_of(world)
        assert found in ("80", "81"), f"killed at line {at} of {steps}, the kernel lets through {found or 'nothing'}"
        seen.add(found)
        assert world.web.call(load_boot, world.options, time.time()) in (1, 2)
        after = state_of(world)
        assert after in whole and meaning(world.web) == whole[after], f"killed at line {at} of {steps}"
        assert kernel_text(world.web, "ip other") == others
    assert seen == {"80", "81"}
