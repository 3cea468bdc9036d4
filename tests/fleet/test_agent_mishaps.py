"""What befalls a host: an agent that dies and is not started again, a full disk, a clock that jumps, a controller gone.

For each: what was promised, and that the kernel keeps it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.fleet.agent_world import (
    ALLOW_80,
    ALLOW_81,
    Puppet,
    connects,
    fleet,
    meaning,
    point,
    policy,
    puppet,
    serve_tcp,
    start_agent,
)
from tests.kernel.namespaces import Child, Namespace, needs_namespaces, pair

from cellwall.agent import AgentOptions, is_running, load_boot, resume, run_agent, suspend
from cellwall.agent import keeper as agent_keeper
from cellwall.agent import lasting as agent_lasting
from cellwall.agent import loop as agent_loop
from cellwall.flows import Outcome, Side
from cellwall.observe import Room
from cellwall.wire import Facts, Holds, PointState, Receipt

pytestmark = needs_namespaces


class World:
    """A controller that obeys the test, and a host with an agent."""

    def __init__(self, client: Namespace, web: Namespace, controller: Puppet, state: Path) -> None:
        self.client, self.web, self.controller, self.state = client, web, controller, state
        self.agent: Child | None = None

    def start(self) -> Child:
        """Run the agent and wait until it has come."""
        before = self.controller.connections
        self.agent = start_agent(self.web, self.state)
        self.wait(lambda: self.controller.connections > before, "the agent does not come", 20)
        time.sleep(0.05)
        return self.agent

    def enforce(self) -> list[str]:
        """Bring a first policy into force; give what the kernel then holds."""
        self.controller.send(self.controller.bundle(point(policy(ALLOW_80), 1)))
        self.controller.receipt(1, PointState.ENFORCED)
        return self.held()

    def reached(self) -> set[tuple[int, int]]:
        """Say at which ports the host can be reached, in which version of IP, by real connections."""
        ways = {(4, "10.77.0.2"), (6, "fd77::2")}
        return {(v, port) for v, address in ways for port in (80, 81) if connects(self.client, address, port, 0.3)}

    def serve(self) -> None:
        for port in (80, 81):
            self.web.start(serve_tcp, port)
            self.web.wait_for_port(port)

    def held(self) -> list[str]:
        return meaning(self.web)

    @staticmethod
    def wait(true: object, why: str, timeout_s: float = 10) -> None:
        assert callable(true)
        until = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until, why
            time.sleep(0.02)


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    with pair() as (client, web), puppet(client, tmp_path / "ca") as controller:
        controller.enrol(tmp_path / "state")
        yield World(client, web, controller, tmp_path / "state")


def on_trial(world: World, confirm_s: float) -> tuple[list[str], float]:
    """Have a provisional change in force, which nobody confirms; give what was held before, and when it was sent."""
    before = world.enforce()
    world.controller.confirming = False
    bundle, sent = world.controller.bundle(point(policy(ALLOW_81), 2), confirm_s=confirm_s), time.monotonic()
    world.controller.send(bundle)
    world.controller.receipt(2, PointState.PROVISIONAL)
    assert world.held() != before
    return before, sent


def test_a_change_on_trial_is_taken_back_by_the_kernel_when_no_process_of_ours_is_left(world: World) -> None:
    world.serve()
    agent = world.start()
    _, began = on_trial(world, 5)
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    # A program that it runs for a moment, to look at the host, may be there.
    world.wait(lambda: not children.read_text().split(), "somebody else stands by", 3)
    os.kill(agent.pid, signal.SIGKILL)
    # What it allows was denied before, and the other way round.
    assert world.reached() == {(4, 81), (6, 81)}
    world.wait(lambda: world.reached() != {(4, 81), (6, 81)}, "it is still in force", 12)
    # The end is counted from when the bundle came.
    assert 4.5 < time.monotonic() - began < 8
    assert world.reached() == {(4, 80), (6, 80)}
    # Who comes next takes it out of the table, and says that it was taken back.
    world.controller.confirming = True
    world.start()
    reverted = world.controller.wait(Receipt, lambda one: one.state is PointState.REVERTED)
    assert "nobody confirmed it" in reverted.reason and reverted.holding.generation == 1
    assert world.reached() == {(4, 80), (6, 80)} and not any("trial" in line for line in world.held())


def test_the_first_policy_of_a_host_on_trial_gives_way_to_none_when_no_process_is_left(world: World) -> None:
    world.serve()
    agent = world.start()
    world.controller.confirming = False
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1), confirm_s=3))
    world.controller.receipt(1, PointState.PROVISIONAL)
    os.kill(agent.pid, signal.SIGKILL)
    assert world.reached() == {(4, 80), (6, 80)}
    everything = {(version, port) for version in (4, 6) for port in (80, 81)}
    world.wait(lambda: world.reached() == everything, "it is still in force", 8)


def test_a_trial_that_others_tear_up_is_put_back_with_its_end(world: World) -> None:
    world.serve()
    agent = world.start()
    on_trial(world, 6)
    world.web.nft("flush chain inet cellwall input\n")
    world.wait(lambda: world.reached() == {(4, 81), (6, 81)}, "it is not repaired", 5)
    os.kill(agent.pid, signal.SIGKILL)
    world.wait(lambda: world.reached() == {(4, 80), (6, 80)}, "its end was lost", 10)


def test_an_agent_that_is_asked_to_stop_takes_back_what_is_on_trial_before_it_goes(world: World) -> None:
    agent = world.start()
    before, _ = on_trial(world, 60)
    os.kill(agent.pid, signal.SIGTERM)
    world.wait(lambda: not agent.alive(), "it does not stop", 5)
    assert world.held() == before
    # And it is over: who starts next finds nothing on trial.
    assert world.web.call(load_boot, AgentOptions(world.state), time.time()) == 1
    assert world.held() == before


def test_a_confirmed_change_lasts_and_nothing_is_left_of_its_trial(world: World) -> None:
    world.serve()
    agent = world.start()
    world.enforce()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_81), 2), confirm_s=2))
    world.controller.receipt(2, PointState.ENFORCED)
    os.kill(agent.pid, signal.SIGKILL)
    assert not any("trial" in line or "in-80" in line for line in world.held())
    time.sleep(2.2)
    assert world.reached() == {(4, 81), (6, 81)}


# ---- suspended


def test_a_suspended_host_drops_nothing_tells_why_and_enforces_again_by_itself(world: World) -> None:
    world.web.start(serve_tcp, 81)
    world.web.wait_for_port(81)
    world.start()
    before = world.enforce()
    assert not connects(world.client, "10.77.0.2", 81)
    suspend(world.state, 3.0, "ticket 4711", time.time())
    receipt = world.controller.receipt(1, PointState.RELAXED)
    assert receipt.reason.startswith("suspended until ") and receipt.reason.endswith(": ticket 4711")
    assert connects(world.client, "10.77.0.2", 81)
    world.wait(lambda: world.held() == before, "it does not end")
    assert not connects(world.client, "10.77.0.2", 81)
    world.wait(
        lambda: [one for one in world.controller.heard if isinstance(one, Receipt)][-1].state is PointState.ENFORCED,
        "nobody is told of the end",
    )


def test_a_suspension_lasts_over_a_restart_and_ends_also_when_the_agent_was_killed(world: World) -> None:
    world.serve()
    agent = world.start()
    before = world.enforce()
    suspend(world.state, 6.0, "ticket 4711", time.time())
    world.controller.receipt(1, PointState.RELAXED)
    os.kill(agent.pid, signal.SIGTERM)
    world.wait(lambda: not agent.alive(), "it does not stop")
    agent = world.start()
    assert world.held() != before, "the successor suspends it too"
    time.sleep(0.5)
    assert world.reached() == {(version, port) for version in (4, 6) for port in (80, 81)}
    os.kill(agent.pid, signal.SIGKILL)
    world.wait(lambda: world.reached() == {(4, 80), (6, 80)}, "the kernel did not end it", 12)
    # A successor finds it over.
    world.start()
    world.wait(lambda: world.held() == before, "something is left of it")


def test_a_host_that_is_suspended_can_be_resumed_at_once(world: World) -> None:
    world.start()
    before = world.enforce()
    assert is_running(AgentOptions(world.state))
    suspend(world.state, 600.0, "ticket 4711", time.time())
    world.wait(lambda: world.held() != before, "it is not suspended")
    assert resume(world.state)
    world.wait(lambda: world.held() == before, "it does not end")


# ---- the disk is full


@contextmanager
def small_disk(folder: Path, size_k: int = 256) -> Generator[None]:
    """Make `folder` a file system of its own, with little room."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_k}k", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_with_a_full_disk_policy_is_enforced_and_the_trouble_told_until_there_is_room_again(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with small_disk(state), pair() as (client, web), puppet(client, tmp_path / "ca") as controller:
        controller.enrol(state)
        world = World(client, web, controller, state)
        agent = web.start(_impatient, state)
        world.wait(lambda: controller.connections, "the agent does not come", 20)
        before = world.enforce()
        (state / "filler").write_bytes(b"\0" * (_room(state) - 4096))
        controller.send(controller.bundle(point(policy(ALLOW_81), 2)))
        told = controller.wait(Receipt, lambda one: "journal cannot be written" in one.reason)
        assert told.holding.generation == 2, "what is in force does not depend on the disk"
        changed = world.held()
        assert changed != before
        # Nothing was lost of what was on disk: a start from it enforces the old policy, whole.
        (state / "filler").unlink()
        world.wait(
            lambda: [one for one in controller.heard if isinstance(one, Receipt)][-1].reason == "", "still in trouble"
        )
        agent.stop()
        assert web.call(load_boot, AgentOptions(state), time.time()) == 2
        assert world.held() == changed


def _room(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _impatient(state: Path) -> None:
    """Run an agent that tries soon again what it could not write."""
    agent_lasting.SAVE_AGAIN_S = 0.5
    _run(state)


def _run(state: Path) -> None:
    os.closerange(3, 256)
    with open(state.parent / "log", "a", buffering=1) as log:
        sys.stderr = log
        run_agent(AgentOptions(state, interval_s=0.5))


# ---- the clock jumps


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
def test_a_clock_that_jumps_by_a_day_neither_ends_nor_prolongs_a_trial(world: World, jump_s: float) -> None:
    jump = world.state.parent / "jump"
    world.web.start(_with_clock, world.state, jump)
    world.wait(lambda: world.controller.connections, "the agent does not come", 20)
    before, began = on_trial(world, 4)
    jump.write_text(str(jump_s))
    time.sleep(1.5)
    assert world.held() != before, "it is not taken back early"
    world.wait(lambda: world.held() == before, "it is taken back in time", 8)
    assert 3.5 < time.monotonic() - began < 8
    # The agent goes on: the next change comes through.
    world.controller.confirming = True
    world.controller.send(world.controller.bundle(point(policy(ALLOW_81), 3), confirm_s=4))
    world.controller.receipt(3, PointState.ENFORCED)


def _with_clock(state: Path, jump: Path) -> None:
    """Run an agent whose host's clock is off by what `jump` says."""
    real = time.time
    time.time = lambda: real() + (float(jump.read_text() or 0) if jump.exists() else 0.0)
    _run(state)


# ---- the controller is gone without a word


def test_a_half_open_connection_is_noticed_and_replaced(world: World) -> None:
    world.web.start(_lively, world.state)
    world.wait(lambda: world.controller.connections, "the agent does not come", 20)
    before = world.enforce()
    # Everything to and fro is lost: no end of the connection is ever told.
    world.client.nft("table inet lost { chain in { type filter hook input priority -500; policy drop; }; }\n")
    time.sleep(3)
    assert world.held() == before, "what is in force stays"
    world.client.nft("delete table inet lost\n")
    world.wait(lambda: world.controller.connections > 1, "it does not come back", 15)
    world.controller.send(world.controller.bundle(point(policy(ALLOW_81), 2)))
    world.controller.receipt(2, PointState.ENFORCED)


def _lively(state: Path) -> None:
    """Run an agent that finds out in 1 s where others do in 40."""
    agent_loop.PING_S = 0.5
    _run(state)


def test_an_agent_whose_controller_is_gone_goes_to_another_that_it_was_told_of(world: World) -> None:
    # Nobody listens at the address of its enrolment.
    enrolment = world.controller.enrol(world.state, host="10.77.0.2")
    enrolment.remember(("https://10.77.0.1:7443",))
    world.start()
    world.enforce()


# ---- another firewall


def test_a_drop_by_another_firewall_is_told_apart_with_its_table_chain_and_rule(world: World) -> None:
    world.web.nft("""table ip strict {
  chain late { type filter hook input priority 10; policy accept; tcp dport 80 counter drop; }
}
""")
    for port in (80, 81):
        world.web.start(serve_tcp, port)
        world.web.wait_for_port(port)
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    began = time.monotonic()
    world.client.start(connects, world.client, "10.77.0.2", 80, 12.0)
    facts = world.controller.wait(Facts, lambda one: bool(one.troubles))
    assert time.monotonic() - began < 12
    assert len(facts.troubles) == 1 and facts.foreign == ("ip strict",)
    assert "not us: table ip strict, chain late, rule handle" in facts.troubles[0]
    assert "tcp/80 from 10.77.0.1 to 10.77.0.2" in facts.troubles[0]
    client, web = ip_address("10.77.0.1").packed, ip_address("10.77.0.2").packed
    held = world.controller.ask(Holds(source=client, destination=web, protocol=6, port=80, side=Side.INGRESS), 9)
    assert held.outcome is Outcome.ALLOWED and held.foreign.startswith("table ip strict, chain late")
    # Nothing is left behind of the looking, and what the policy denies is ours.
    world.wait(lambda: "cellwall_trace" not in world.web.nft("list tables\n"), "the trace stays")
    other = world.controller.ask(Holds(source=client, destination=web, protocol=6, port=81, side=Side.INGRESS), 10)
    assert other.outcome is Outcome.DENIED and other.foreign == ""


# ---- room


def test_a_policy_that_does_not_fit_into_memory_is_refused_before_anything_is_written(world: World) -> None:
    world.web.start(_cramped, world.state)
    world.wait(lambda: world.controller.connections, "the agent does not come", 20)
    before = world.enforce()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_81), 2, fleet(more=3000))))
    receipt = world.controller.receipt(2, PointState.REFUSED)
    assert "MiB of memory, and 9 MiB can be had" in receipt.reason and receipt.holding.generation == 1
    assert world.held() == before


def _cramped(state: Path) -> None:
    """Run an agent on a host that has hardly any memory left."""

    def free(_: int | None = None) -> int:
        return 9 << 20

    agent_keeper.free_memory = free
    _run(state)


def test_a_table_of_connections_that_fills_is_told(world: World) -> None:
    world.web.start(_crowded, world.state)
    world.wait(lambda: world.controller.connections, "the agent does not come", 20)
    assert world.controller.wait(Facts).troubles == ()
    world.enforce()
    # Facts are told anew when an address comes.
    world.web.run(["ip", "addr", "add", "10.77.0.9/24", "dev", "wire"])
    told = world.controller.wait(Facts, lambda one: bool(one.troubles))
    assert "conntrack is over 95 % full, of 1000" in told.troubles[0]
    assert told.tracked == 960 and told.most_tracked == 1000 and told.table_memory > 0


def _crowded(state: Path) -> None:
    """Run an agent whose kernel has hardly any room for connections after its first look."""
    looks = iter([Room(10, 1000, 1 << 30)])

    def room(_: int | None = None) -> Room:
        return next(looks, Room(960, 1000, 1 << 30))

    agent_keeper.kernel_room = room
    _run(state)
