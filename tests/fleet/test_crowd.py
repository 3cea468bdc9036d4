"""Hundreds of agents at once, the real protocol over real TLS: all come to hold what is wanted, and none is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
from tests.bench.control_world import Boss, Sim, world

AGENTS, PATIENCE_S = 200, 60.0
POLICY = """
rules:
  - {id: to-web, allow: tcp/443, from: any, to: role=web}
  - {id: watch, allow: tcp/%d, from: role=monitor, to: any}
modes: [{where: "", mode: enforce}]
"""


@pytest.fixture(scope="module")
def fleet() -> Generator[tuple[Boss, Sim]]:
    with world(AGENTS) as (boss, sim):
        apply(boss, 9100)
        yield boss, sim


def apply(boss: Boss, port: int) -> str:
    body = {"documents": {"policy.yaml": POLICY % port}, "confirm_s": 30}
    return str(boss.ask("POST", "/policy/apply", body)["revision"])


def until(sim: Sim, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until that is true, and all that came is verified."""
    end = time.monotonic() + PATIENCE_S
    while not true(told := sim.look()) or told["undone"]:
        assert time.monotonic() < end, told
        time.sleep(0.05)
    return told


def test_all_who_come_at_once_are_welcomed_and_come_to_hold_what_is_wanted(fleet: tuple[Boss, Sim]) -> None:
    boss, sim = fleet
    sim.tell(do="connect")
    told = until(sim, lambda told: told["up"] == AGENTS and not told["holding"].get("0"))
    # Every signature was verified. Who came before revision 1 was compiled was sent revision 0 first.
    assert AGENTS <= told["verified"] < 2 * AGENTS
    assert told["compared"] > 0
    assert boss.ask("GET", "/status")["agents"]["connected"] == AGENTS


def test_an_edit_reaches_every_agent_and_every_agent_says_so(fleet: tuple[Boss, Sim]) -> None:
    boss, sim = fleet
    sim.tell(do="connect")
    until(sim, lambda told: told["up"] == AGENTS)
    revision = apply(boss, 9200)
    until(sim, lambda told: told["holding"].get(revision) == AGENTS)
    end = time.monotonic() + PATIENCE_S
    while (newest := boss.ask("GET", "/policy/revisions")["items"][0])["state"] != "good":
        assert time.monotonic() < end, newest
        time.sleep(0.1)
    assert boss.ask("GET", "/status")["points"] == {"enforced": AGENTS}


def test_who_comes_back_holding_what_is_wanted_is_sent_nothing(fleet: tuple[Boss, Sim]) -> None:
    _, sim = fleet
    sim.tell(do="connect")
    until(sim, lambda told: told["up"] == AGENTS and not told["holding"].get("0"))
    # A receipt that is lost with its connection is another matter.
    time.sleep(1)
    before = until(sim, lambda _: True)
    sim.tell(do="drop")
    sim.tell(do="connect")
    after = until(sim, lambda told: told["up"] == AGENTS)
    assert after["verified"] == before["verified"]


def test_every_batch_of_flows_is_acknowledged_while_all_send_at_once(fleet: tuple[Boss, Sim]) -> None:
    boss, sim = fleet
    sim.tell(do="connect")
    until(sim, lambda told: told["up"] == AGENTS)
    before = sim.look()["told"].get("taken", 0)
    sim.tell(do="flows", rows=5, under_way=3)
    # Policy gets through meanwhile.
    revision = apply(boss, 9300)
    until(sim, lambda told: told["holding"].get(revision) == AGENTS and told["told"].get("taken", 0) > before + AGENTS)
    sim.tell(do="flows", rows=5, under_way=0)
    told = until(sim, lambda told: told["under_way"] == 0)
    assert told["why"] == []
