"""The agent's program, in a namespace of its own, with a real kernel, real TLS and a controller that obeys the test."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.fleet.agent_world import (
    ALLOW_80,
    ALLOW_81,
    Puppet,
    connects,
    fleet,
    kernel_text,
    meaning,
    point,
    policy,
    puppet,
    serve_tcp,
    start_agent,
)
from tests.kernel.namespaces import Child, Namespace, needs_namespaces, pair

from cellwall.agent import AgentOptions, load_boot, recent_flows, remove
from cellwall.agent.enrolment import load_enrolment
from cellwall.enforce import Leave
from cellwall.flows import Outcome, Side
from cellwall.wire import Denials, Facts, Flows, HeldVerdict, Hello, Holds, PointState, Receipt

pytestmark = needs_namespaces


@dataclass
class World:
    """A client that is also the controller, a host, and the agent's folder."""

    client: Namespace
    web: Namespace
    controller: Puppet
    state: Path

    def start(self, *options: str) -> Child:
        """Run the agent and wait until it has come."""
        before = self.controller.connections
        child = start_agent(self.web, self.state, *options)
        until = time.monotonic() + 20
        while self.controller.connections == before:
            assert child.alive() and time.monotonic() < until, (self.state / "log").read_text()
            time.sleep(0.02)
        time.sleep(0.05)
        return child

    def held(self) -> list[str]:
        return meaning(self.web)


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    with pair() as (client, web), puppet(client, tmp_path / "ca") as controller:
        web.nft('add table ip other\nadd chain ip other keep { comment "not ours"; }\n')
        controller.enrol(tmp_path / "state")
        for port in (80, 81):
            web.start(serve_tcp, port)
            web.wait_for_port(port)
        yield World(client, web, controller, tmp_path / "state")


def test_a_bundle_comes_is_in_force_and_is_reported(world: World) -> None:
    world.start()
    hello = world.controller.wait(Hello)
    assert hello.name == "web" and hello.holding.generation == 0
    facts = world.controller.wait(Facts)
    assert ip_address("10.77.0.2").packed in facts.addresses and facts.foreign == ("ip other",)
    assert {one.port for one in facts.listening} >= {80, 81}
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    receipt = world.controller.receipt(1, PointState.ENFORCED)
    assert receipt.holding.generation == 1 and receipt.holding.digest
    assert connects(world.client, "10.77.0.2", 80) and connects(world.client, "fd77::2", 80)
    assert not connects(world.client, "10.77.0.2", 81)


def test_flows_are_told_with_rule_revision_and_process(world: World) -> None:
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 5)))
    world.controller.receipt(1, PointState.ENFORCED)
    for _ in range(3):
        assert connects(world.client, "10.77.0.2", 80)
    assert not connects(world.client, "10.77.0.2", 81)
    denial = world.controller.wait(Denials, lambda one: bool(one.samples)).samples[0]
    assert (denial.port, denial.side, denial.rule, denial.revision) == (81, Side.INGRESS, "", 5)
    until = time.monotonic() + 10
    while True:
        told = {(one.key.port, one.outcome): one for one in world.controller.flows() if one.side is Side.INGRESS}
        if {(80, Outcome.ALLOWED), (81, Outcome.DENIED)} <= told.keys():
            break
        assert time.monotonic() < until, told
        time.sleep(0.1)
    good = told[80, Outcome.ALLOWED]
    assert (good.rules, good.revision, good.would) == (("in-80",), 5, Outcome.ALLOWED)
    assert good.key.source == ip_address("10.77.0.1") and good.process.name.startswith("python")
    assert told[81, Outcome.DENIED].rules == ()
    assert sum(one.connections for one in world.controller.flows() if one.key.port == 80) == 3
    assert any(row["port"] == "tcp/80" and row["rules"] == ["in-80"] for row in recent_flows(world.state))


def test_a_change_of_members_reaches_the_kernel(world: World) -> None:
    world.start()
    small, large = point(policy(ALLOW_80), 1), point(policy(ALLOW_80), 1, fleet(more=3))
    world.controller.send(world.controller.bundle(small))
    world.controller.receipt(1, PointState.ENFORCED)
    world.controller.send(world.controller.change(large))
    world.controller.receipt(2, PointState.ENFORCED)
    assert "11.0.0.2" in world.web.run(["nft", "list", "map", "inet", "cellwall", "peer4"]).stdout


def test_a_provisional_change_is_confirmed_through_a_new_connection(world: World) -> None:
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1), confirm_s=10))
    world.controller.receipt(1, PointState.PROVISIONAL)
    assert world.controller.connections == 2
    world.controller.receipt(1, PointState.ENFORCED)


def test_a_bad_policy_reverts_by_itself(world: World) -> None:
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    before = world.held()
    # The controller moves, says this policy: the way to where it is is closed.
    bad = point(policy(ALLOW_81), 2, fleet(controllers=("192.0.2.1",)))
    world.controller.send(world.controller.bundle(bad, confirm_s=4))
    until = time.monotonic() + 3
    while world.held() == before:
        assert time.monotonic() < until, "the bad policy is in force for a while"
    receipt = world.controller.receipt(2, PointState.REVERTED)
    assert receipt.holding.generation == 1 and "the controller" in receipt.reason
    assert world.held() == before
    assert connects(world.client, "10.77.0.2", 80)


def test_a_canary_that_does_not_answer_reverts_long_before_the_deadline(world: World) -> None:
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    canary = '[{id: out, canary: true, from: "role=web", can: tcp/9, to: "role=client"}]'
    what = point(policy(ALLOW_81, tests=canary), 2)
    assert what.ruleset.canaries
    world.controller.send(world.controller.bundle(what, confirm_s=120))
    began = time.monotonic()
    receipt = world.controller.receipt(2, PointState.REVERTED)
    assert "`out`" in receipt.reason and time.monotonic() - began < 15


def test_a_killed_agent_leaves_the_rules_and_its_successor_takes_a_late_change_back(world: World) -> None:
    agent = world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    before = world.held()
    world.controller.confirming = False
    world.controller.send(world.controller.bundle(point(policy(ALLOW_81), 2), confirm_s=3))
    world.controller.receipt(2, PointState.PROVISIONAL)
    os.kill(agent.pid, signal.SIGKILL)
    assert world.held() != before
    time.sleep(3)
    world.start()
    receipt = world.controller.receipt(2, PointState.REVERTED)
    assert receipt.holding.generation == 1
    assert world.held() == before


def test_a_foreign_flush_is_repaired_within_a_second_and_reported(world: World) -> None:
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    before, others = world.held(), kernel_text(world.web, "ip other")
    for harm in ("delete table inet cellwall", "flush chain inet cellwall input"):
        world.web.nft(harm + "\n")
        until = time.monotonic() + 1
        while not connects(world.client, "10.77.0.2", 80, 0.2) or world.held() != before:
            assert time.monotonic() < until, "it is not repaired within a second"
    assert kernel_text(world.web, "ip other") == others
    assert "changed by `nft`" in world.controller.receipt(1, PointState.DRIFTED).reason
    world.controller.wait(Receipt, lambda one: one.state is PointState.ENFORCED and "repaired" in one.reason)


def test_a_lost_controller_changes_nothing_and_flows_wait_for_it(world: World) -> None:
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    before = world.held()
    world.web.run(["ip", "link", "set", "wire", "down"])
    world.controller.hang_up()
    time.sleep(1.5)
    assert world.held() == before
    world.web.run(["ip", "link", "set", "wire", "up"])
    world.web.run(["ip", "addr", "add", "fd77::2/64", "dev", "wire", "nodad"], check=False)
    until = time.monotonic() + 30
    while world.controller.connections < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert world.held() == before


def test_an_allow_expires_although_the_controller_is_away(world: World) -> None:
    world.start()
    ends = datetime.fromtimestamp(time.time() + 4, UTC).isoformat()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80.replace("{", f'{{expires: "{ends}", ', 1)), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    assert connects(world.client, "10.77.0.2", 80)
    world.controller.hang_up()
    until = time.monotonic() + 12
    while connects(world.client, "10.77.0.2", 80):
        assert time.monotonic() < until, "it is still open"
        time.sleep(0.2)


def test_the_agent_stops_when_asked_and_the_rules_stay(world: World) -> None:
    agent = world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    before = world.held()
    os.kill(agent.pid, signal.SIGTERM)
    until = time.monotonic() + 5
    while agent.alive():
        assert time.monotonic() < until, "it does not stop"
        time.sleep(0.02)
    assert world.held() == before


def test_at_boot_the_last_policy_is_in_force_before_any_agent(world: World) -> None:
    agent = world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    before = world.held()
    agent.stop()
    world.web.nft("delete table inet cellwall\n")
    assert world.web.call(load_boot, AgentOptions(world.state), time.time()) == 1
    assert world.held() == before


def test_at_boot_a_host_that_only_observed_drops_nothing_either(world: World) -> None:
    agent = world.start("--observe-only")
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.RELAXED)
    agent.stop()
    world.web.nft("delete table inet cellwall\n")
    assert world.web.call(load_boot, AgentOptions(world.state), time.time()) == 1
    assert connects(world.client, "10.77.0.2", 80) and connects(world.client, "10.77.0.2", 81)


def test_a_bundle_with_a_bad_signature_is_refused(world: World) -> None:
    world.start()
    good = world.controller.bundle(point(policy(ALLOW_80), 1))
    world.controller.send(good)
    world.controller.receipt(1, PointState.ENFORCED)
    before = world.held()
    from msgspec.structs import replace

    world.controller.send(replace(good, generation=9))
    receipt = world.controller.receipt(9, PointState.REFUSED)
    assert "not signed" in receipt.reason and receipt.holding.generation == 1
    assert world.held() == before


def test_a_live_question_is_answered(world: World) -> None:
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 4)))
    world.controller.receipt(1, PointState.ENFORCED)
    client, web = ip_address("10.77.0.1").packed, ip_address("10.77.0.2").packed
    answer = world.controller.ask(Holds(source=client, destination=web, protocol=6, port=80, side=Side.INGRESS), 77)
    assert isinstance(answer, HeldVerdict) and answer.rules == ("in-80",) and answer.revision == 4


def test_a_connection_that_was_open_before_goes_on_and_is_told_as_standing(world: World) -> None:
    holder = world.client.start(_hold_open, "10.77.0.2", 80)
    time.sleep(0.5)
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    until = time.monotonic() + 10
    while not (told := [one for one in world.controller.flows() if one.standing and one.key.port == 80]):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert told[0].side is Side.INGRESS and told[0].rules == ("in-80",)
    assert holder.alive(), "the connection was not cut"


def test_a_batch_of_flows_that_was_not_taken_comes_again_under_its_name(world: World) -> None:
    world.controller.taking = False
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    first = world.controller.wait(Flows)
    world.controller.taking = True
    world.controller.hang_up()
    until = time.monotonic() + 20
    while sum(isinstance(one, Flows) and one.batch == first.batch for one in world.controller.heard) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_flows_seen_without_a_controller_are_told_once_it_is_back(world: World) -> None:
    world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    world.controller.stop()
    world.controller.hang_up()
    time.sleep(0.3)
    for _ in range(5):
        assert connects(world.client, "10.77.0.2", 80)
    time.sleep(1.5)
    assert any(row["port"] == "tcp/80" for row in recent_flows(world.state)), "on disk they are at once"
    world.controller.resume(world.client)
    until = time.monotonic() + 30
    while sum(one.connections for one in world.controller.flows() if one.key.port == 80) < 5:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_certificate_is_renewed_before_it_ends(world: World) -> None:
    ends = load_enrolment(world.state).ends()
    world.controller.renew_before_s = 365 * 86_400.0
    world.start()
    until = time.monotonic() + 10
    while load_enrolment(world.state).ends() <= ends:
        assert time.monotonic() < until
        time.sleep(0.05)
    world.controller.renew_before_s = 0.0
    before = world.controller.connections
    world.controller.hang_up()
    until = time.monotonic() + 10
    while world.controller.connections == before:
        assert time.monotonic() < until, "it does not come with the new one"
        time.sleep(0.05)


def test_who_calls_is_told_at_the_callers_end_even_when_the_call_is_short(world: World) -> None:
    world.start()
    calls = '[{id: out-90, allow: tcp/90, from: "role=web", to: "role=client"}]'
    world.controller.send(world.controller.bundle(point(policy(calls), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    world.client.start(serve_tcp, 90)
    world.client.wait_for_port(90)
    for _ in range(20):
        assert connects(world.web, "10.77.0.1", 90)
        time.sleep(0.02)
    world.web.start(_hold_open, "10.77.0.1", 90)
    until = time.monotonic() + 10
    while not any(one.process.name for one in world.controller.flows() if one.key.port == 90):
        assert time.monotonic() < until
        time.sleep(0.1)
    told = [one for one in world.controller.flows() if one.key.port == 90]
    assert {one.side for one in told} == {Side.EGRESS} and {one.rules for one in told} == {("out-90",)}
    assert {one.process.name for one in told} <= {"", "python", "python3.11"}


def test_beside_another_firewall_an_observing_agent_drops_nothing_and_touches_nothing(world: World) -> None:
    world.web.nft(
        "table inet filter {\n"
        "  chain input { type filter hook input priority 0; policy drop;\n"
        "    ct state established,related accept\n    iif lo accept\n    tcp dport { 80, 22 } accept\n"
        "    meta l4proto { icmp, ipv6-icmp } accept\n  }\n"
        "  chain output { type filter hook output priority 0; policy accept; }\n"
        "}\n"
    )
    theirs = kernel_text(world.web, "inet filter")
    world.start("--observe-only")
    world.controller.send(world.controller.bundle(point(policy(ALLOW_81), 1)))
    assert world.controller.receipt(1, PointState.RELAXED).reason == "this host only observes"
    assert connects(world.client, "10.77.0.2", 80), "the policy denies it, and the agent only observes"
    assert not connects(world.client, "10.77.0.2", 81, 0.3), "the other firewall still does what it did"
    assert kernel_text(world.web, "inet filter") == theirs
    assert "inet filter" in world.controller.wait(Facts).foreign
    until = time.monotonic() + 10
    while not (told := [one for one in world.controller.flows() if one.key.port == 80]):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert (told[0].outcome, told[0].would) == (Outcome.ALLOWED, Outcome.DENIED)


def test_a_damaged_journal_is_said_and_what_the_kernel_holds_stays(world: World) -> None:
    agent = world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    before = world.held()
    agent.stop()
    (world.state / "journal").write_bytes(b"rubbish")
    world.start()
    assert "journal is damaged" in world.controller.wait(Receipt, lambda one: "journal" in one.reason).reason
    assert world.held() == before
    assert (world.state / "journal.damaged").read_bytes() == b"rubbish"


@pytest.mark.parametrize(("leave", "reached"), [(Leave.KEEP, {80}), (Leave.OPEN, {80, 81}), (Leave.CLOSE, set[int]())])
def test_removed_it_leaves_what_was_asked_for(world: World, leave: Leave, reached: set[int]) -> None:
    agent = world.start()
    world.controller.send(world.controller.bundle(point(policy(ALLOW_80), 1)))
    world.controller.receipt(1, PointState.ENFORCED)
    others = kernel_text(world.web, "ip other")
    agent.stop()
    world.web.call(remove, AgentOptions(world.state), leave)
    assert {port for port in (80, 81) if connects(world.client, "10.77.0.2", port, 0.3)} == reached
    assert kernel_text(world.web, "ip other") == others
    assert world.web.call(load_boot, AgentOptions(world.state), time.time()) is None, "no later start enforces it"


def test_a_second_agent_on_the_same_folder_is_turned_away(world: World) -> None:
    world.start()
    done = world.web.run(
        [sys.executable, "-m", "cellwall", "agent", "run", "--state", str(world.state)], check=False, timeout_s=20
    )
    assert done.returncode and "another agent runs" in done.stderr


def _hold_open(address: str, port: int) -> None:
    import socket

    os.closerange(3, 256)
    with socket.create_connection((address, port), 5) as open_one:
        while True:
            time.sleep(0.2)
            open_one.sendall(b"x")
