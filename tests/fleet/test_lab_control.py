"""A lab with its controller and agents: they join, are kept through a second `up`, and go with the rest."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.lab import Scenario, down, load_scenario, parse_scenario, status, traffic_report, up
from cellwall.lab.processes import await_end, kill, leaders
from cellwall.lab.programs import call
from cellwall.lab.state import folder_of, socket_path

pytest.importorskip("uvicorn", reason="the controller's packages are not installed")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root, to make network namespaces")
TWO = Path(__file__).parents[2] / "scenarios" / "two.yaml"


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scenario]:
    """Give the small scenario, its guest declared, under a name of its own; and take it down."""
    monkeypatch.setenv("CELLWALL_LAB_DIR", str(tmp_path / "labs"))
    text = load_scenario(TWO).source.replace("lab: two", f"lab: c{os.getpid()}")
    made = parse_scenario(text.replace("declared: false", "labels: {role: guest}"))
    yield made
    down(made.lab)


def workloads(lab: str) -> dict[str, dict[str, Any]]:
    """Ask the controller for its workloads, by name."""
    code, text = call(socket_path(folder_of(lab)), "GET", "/api/v1/workloads")
    assert code == 200, text
    return {item["name"]: item for item in json.loads(text)["items"]}


def await_connected(lab: str) -> None:
    deadline = time.monotonic() + 20
    # An agent is connected before it has told where it is.
    while not all(item["connected"] and item["addresses"] for item in workloads(lab).values() if item["agent"]):
        assert time.monotonic() < deadline, workloads(lab)
        time.sleep(0.1)


def test_agents_join_and_the_rest_is_declared(scenario: Scenario) -> None:
    state = up(scenario)
    assert state.complete and state.controller and state.controller_url == "https://10.77.0.2:7443"
    assert [w.agent for w in state.workloads] == [True, True, False]
    await_connected(scenario.lab)
    known = workloads(scenario.lab)
    assert set(known) == {"web", "db", "guest"}
    assert known["web"]["labels"] == {"role": "web"} and known["guest"]["labels"] == {"role": "guest"}
    assert known["db"]["addresses"] == ["10.77.0.12", "fd77::c"]
    assert traffic_report(scenario.lab).failed == 0


def test_a_second_up_keeps_identities_and_brings_back_what_died(scenario: Scenario) -> None:
    folder = up(scenario).folder
    await_connected(scenario.lab)
    processes = dict(leaders(folder))
    assert up(scenario).complete
    assert dict(leaders(folder)) == processes
    doomed = [processes["web/cellwall-agent.service"], processes["controller/cellwall-controller.service"]]
    kill(doomed)
    assert await_end(doomed)
    broken = status(scenario.lab)
    assert not broken.controller and broken.workloads[0].missing == ("cellwall-agent.service",)
    assert up(scenario).complete
    await_connected(scenario.lab)
    assert dict(leaders(folder))["db/cellwall-agent.service"] == processes["db/cellwall-agent.service"]
    assert down(scenario.lab) and not folder.exists()
