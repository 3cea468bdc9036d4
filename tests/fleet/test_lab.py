"""A lab on the real kernel: traffic flows, an attack reaches, and nothing is left behind, whatever died on the way."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellwall.lab import (
    LabError,
    Scenario,
    attack,
    down,
    load_scenario,
    parse_scenario,
    status,
    traffic_report,
    up,
)
from cellwall.lab.cgroups import branch
from cellwall.lab.namespaces import present
from cellwall.lab.processes import Process, find, kill, leaders
from cellwall.lab.state import folder_of, locked

TWO = Path(__file__).parents[2] / "scenarios" / "two.yaml"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root, to make network namespaces")


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scenario]:
    """Give the small scenario under a name of its own; whatever the test leaves is taken down."""
    monkeypatch.setenv("CELLWALL_LAB_DIR", str(tmp_path / "labs"))
    text = load_scenario(TWO).source.replace("lab: two", f"lab: t{os.getpid()}")
    made = parse_scenario(text)
    yield made
    down(made.lab)


def leftovers(lab: str) -> list[str]:
    """Name everything of a lab that is still there."""
    folder, cgroup = folder_of(lab), branch(lab)
    found = present(lab) + [f"process {process.pid}" for process in find(folder)]
    return found + [str(path) for path in (folder, cgroup) if path and path.exists()]


def eventually(true: Callable[[], bool], what: str, within_s: float = 10.0) -> None:
    """Wait until `true` is."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.05)


def ids(processes: dict[str, Process]) -> dict[str, tuple[int, int]]:
    return {key: (process.pid, process.started) for key, process in processes.items()}


def test_every_kind_of_traffic_flows_in_both_families_without_a_failure(scenario: Scenario) -> None:
    assert up(scenario, control=False).complete
    eventually(lambda: all(call.attempts for call in traffic_report(scenario.lab).calls), "every call has been made")
    mark = traffic_report(scenario.lab)
    eventually(lambda: traffic_report(scenario.lab).since(mark).attempts >= 20, "traffic goes on")
    report = traffic_report(scenario.lab)
    assert report.failed == 0, report.troubled()
    assert {call.family for call in report.calls} == {4, 6}
    pools = [call for call in report.calls if call.lifetime == "long-lived"]
    assert pools and all(call.connects == 1 for call in pools)


def test_an_attack_from_a_foothold_reaches_what_listens_and_nothing_else(scenario: Scenario) -> None:
    up(scenario, control=False)
    report = attack(scenario.lab, "guest", timeout_s=0.5)
    assert report.user == "daemon"
    reached = {(attempt.target, attempt.service) for attempt in report.reached()}
    listening = {("db", name) for name in ("postgres", "cache", "dns", "jobs", "echo", "metrics", "ssh")}
    assert reached == listening | {("web", "http")}
    assert {":" in attempt.address for attempt in report.reached()} == {True, False}
    silent = {(a.target, a.service) for a in report.attempts if a.outcome == "timed out"}
    assert silent == {("db", "syslog")}, "a datagram counts as reached only when an answer comes"
    assert all(a.detail == "refused" for a in report.attempts if a.outcome == "refused")
    assert "postgres tcp/5432" in report.table()
    with pytest.raises(LabError, match="unknown workload `gast`; did you mean `guest`"):
        attack(scenario.lab, "gast")


def test_a_firewall_in_a_workload_shows_in_attack_and_traffic(scenario: Scenario) -> None:
    up(scenario, control=False)
    eventually(lambda: all(call.attempts for call in traffic_report(scenario.lab).calls), "every call has been made")
    rules = "add table inet t\nadd chain inet t i { type filter hook input priority 0; }\n"
    rules += "add rule inet t i tcp dport 5432 drop\nadd rule inet t i udp dport 514 drop\n"
    rules += "add rule inet t i tcp dport 22 reject with tcp reset\n"
    web = next(w for w in status(scenario.lab).workloads if w.name == "db")
    mark = traffic_report(scenario.lab)
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{web.namespace}", "nft", "-f", "-"], input=rules, text=True, check=True
    )
    outcomes = {(a.service, a.outcome) for a in attack(scenario.lab, "guest", timeout_s=0.3).attempts}
    assert ("postgres", "timed out") in outcomes and ("postgres", "reached") not in outcomes
    assert ("ssh", "refused") in outcomes and ("ssh", "reached") not in outcomes

    def failing() -> set[str]:
        return {call.service for call in traffic_report(scenario.lab).since(mark).troubled()}

    eventually(lambda: failing() == {"postgres", "syslog", "ssh"}, "the barred calls fail, and they alone", 20.0)
    reasons = {call.service: call.failures[-1][1] for call in traffic_report(scenario.lab).troubled() if call.failures}
    assert reasons == {"postgres": "timed out", "ssh": "refused"}


def test_units_run_as_their_user_under_their_name_in_their_cgroup(scenario: Scenario) -> None:
    state = up(scenario, control=False)
    process = leaders(folder_of(scenario.lab))["web/nginx.service"]
    assert Path(f"/proc/{process.pid}/comm").read_text("ascii") == "nginx\n"
    assert os.stat(f"/proc/{process.pid}").st_uid == pwd.getpwnam("www-data").pw_uid
    if state.cgroup is None:
        pytest.skip("no cgroup2 tree can be written here")
    lines = Path(f"/proc/{process.pid}/cgroup").read_text("ascii")
    assert f"0::/cellwall-lab/{scenario.lab}/web/nginx.service\n" in lines


def test_bringing_up_twice_is_harmless(scenario: Scenario) -> None:
    first = up(scenario, control=False)
    processes = ids(dict(leaders(first.folder)))
    assert up(scenario, control=False) == first
    assert ids(dict(leaders(first.folder))) == processes


def test_what_has_died_is_brought_up_again_and_goes_on_counting(scenario: Scenario) -> None:
    first = up(scenario, control=False)
    eventually(lambda: traffic_report(scenario.lab).attempts > 20, "traffic flows")
    before = dict(leaders(first.folder))
    kill([before["web/nginx.service"]])
    eventually(lambda: not status(scenario.lab).complete, "the loss shows")
    counted = traffic_report(scenario.lab).attempts
    missing = {w.name: w.missing for w in status(scenario.lab).workloads if w.missing}
    assert missing == {"web": ("nginx.service",)}
    subprocess.run(["ip", "netns", "del", f"cw-{scenario.lab}-guest"], check=True)
    assert up(scenario, control=False).complete
    after = ids(dict(leaders(first.folder)))
    assert {key for key, value in ids(before).items() if after[key] != value} == {
        "web/nginx.service",
        "guest/browser.service",
    }
    mark = traffic_report(scenario.lab)
    assert mark.attempts >= counted
    guest = "guest/browser.service>web/http/6/short"
    eventually(lambda: {c.id: c.attempts for c in traffic_report(scenario.lab).since(mark).calls}[guest] > 1, guest)


def test_taking_down_leaves_nothing_and_may_be_repeated(scenario: Scenario) -> None:
    up(scenario, control=False)
    with locked(folder_of(scenario.lab)), pytest.raises(LabError, match="is busy"):
        down(scenario.lab)
    bystander = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/cw-{scenario.lab}-web", "--", "sleep", "60"], stdin=subprocess.DEVNULL
    )
    assert down(scenario.lab)
    assert leftovers(scenario.lab) == []
    assert bystander.poll() is not None, "it would have kept the namespace alive unseen"
    assert not down(scenario.lab)
    with pytest.raises(LabError, match=f"no lab is called `{scenario.lab}`: none is up"):
        status(scenario.lab)


def test_a_lab_is_not_brought_up_over_another_scenario(scenario: Scenario) -> None:
    up(scenario, control=False)
    other = parse_scenario(scenario.source.replace("every_ms: 200", "every_ms: 300"))
    with pytest.raises(LabError, match="is up from another scenario; take it down first"):
        up(other, control=False)


def test_a_user_that_does_not_exist_is_told_before_anything_is_made(scenario: Scenario) -> None:
    other = parse_scenario(scenario.source.replace("user: nobody", "user: nobody-at-all"))
    with pytest.raises(LabError, match="this machine has no user `nobody-at-all`"):
        up(other, control=False)
    assert leftovers(scenario.lab) == []


_UP = "import sys; from cellwall.lab import *; up(parse_scenario(sys.stdin.read()), control=False)"


@pytest.mark.parametrize("after_ms", [0, 15, 30, 50, 80, 120, 200])
def test_an_up_killed_halfway_is_swept_by_down(scenario: Scenario, after_ms: int) -> None:
    kill_up_halfway(scenario, after_ms)
    down(scenario.lab)
    time.sleep(0.2)
    assert leftovers(scenario.lab) == []


@pytest.mark.parametrize("after_ms", [10, 40, 100])
def test_an_up_killed_halfway_is_finished_by_the_next_up(scenario: Scenario, after_ms: int) -> None:
    kill_up_halfway(scenario, after_ms)
    assert up(scenario, control=False).complete
    eventually(lambda: traffic_report(scenario.lab).attempts > 20, "traffic flows")
    assert {w.network for w in status(scenario.lab).workloads} == {True}
    keys = [process.key for process in find(folder_of(scenario.lab))]
    assert len(keys) == len(set(keys)) == 4


def kill_up_halfway(scenario: Scenario, after_ms: int) -> None:
    """Let another process bring the lab up, and kill it `after_ms` after its first trace."""
    child = subprocess.Popen([sys.executable, "-c", _UP], stdin=subprocess.PIPE, text=True)
    assert child.stdin
    child.stdin.write(scenario.source)
    child.stdin.close()
    eventually(folder_of(scenario.lab).exists, "up has begun")
    time.sleep(after_ms / 1000)
    child.kill()
    child.wait()
