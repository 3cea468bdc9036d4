"""The agent's package on a Debian machine with systemd: what is in force stays in force, whatever is done to it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from tests.fleet.agent_world import connects, meaning
from tests.packaging.conftest import NEWER, OLDER, STATE, Host, Packages, until
from tests.packaging.machine import build, needs_machines
from tests.packaging.probe import knock, probe

from cellwall.wire import Hello

pytestmark = needs_machines


def test_two_builds_are_the_same_file(packages: Packages, tmp_path: Path) -> None:
    again = build(packages.tree, tmp_path, "--version", OLDER, "agent")
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(packages.older.read_bytes()).digest()


def test_upgrade_and_downgrade_keep_enforcement_on_and_connections_up(
    host: Host, packages: Packages, tmp_path: Path
) -> None:
    machine = host.machine
    options = machine.root / "etc/default/cellwall-agent"
    options.write_text('# ours\nCELLWALL_AGENT_OPTIONS="--interval 0.5"\n')
    held = meaning(host.where)
    prober = probe(host.client, tmp_path / "probe", "10.77.0.2", closed=81, spoken=80)
    for package, version in ((packages.newer, NEWER), (packages.older, OLDER), (packages.newer, NEWER)):
        host.until_connected(lambda package=package: machine.install(package))
        assert f"cellwall-{version}.dist-info" in machine.run(["ls", "/usr/lib/cellwall-agent/packages"]).stdout
        assert meaning(host.where) == held
    # Adopted, not written anew: the agent says what it holds before it is told anything.
    hello = [one for one in host.controller.heard if isinstance(one, Hello)][-1]
    assert hello.version == NEWER and hello.holding.generation == host.generation
    told = prober.stop()
    assert told.knocks > 200 and told.entered == 0, told
    assert told.words > 200 and told.ended == 0 and told.longest_s < 1, told
    assert options.read_text().startswith("# ours")
    # And it takes policy from there on.
    host.enforce("[]")
    assert not connects(host.client, "10.77.0.2", 80)


def test_a_reboot_enforces_before_the_network_is_up(host: Host, tmp_path: Path) -> None:
    machine = host.machine
    # Debian's own firewall begins with `flush ruleset`, and must not take our table with it.
    machine.run(["systemctl", "enable", "nftables.service"])
    (machine.root / "etc/network/interfaces").write_text(
        "auto lo\niface lo inet loopback\nauto wire\niface wire inet manual\n  up ip link set wire up\n"
    )
    machine.halt()
    host.where.run(["nft", "flush", "ruleset"])
    host.where.run(["ip", "link", "set", "wire", "down"])
    knocker = knock(host.client, tmp_path / "probe", "10.77.0.2", closed=81)
    host.until_connected(machine.boot)
    told = knocker.stop()
    assert told.knocks > 50 and told.entered == 0, told
    assert connects(host.client, "10.77.0.2", 80)
    ended = int(machine.property("cellwall-load.service", "ExecMainExitTimestampMonotonic"))
    up = int(machine.property("networking.service", "ExecMainStartTimestampMonotonic"))
    assert 0 < ended < up
    assert machine.property("cellwall-load.service", "Result") == "success"
    assert "enforcing generation 1" in machine.journal("cellwall-load.service")


def test_the_sandboxed_agent_sees_whose_connections_they_are(host: Host) -> None:
    host.machine.run(
        ["systemd-run", "--unit=hers", "--uid=nobody", "python3", "-m", "http.server", "8080", "--bind", "10.77.0.2"]
    )
    host.where.wait_for_port(8080)
    host.enforce('[{id: in-8080, allow: tcp/8080, from: "role=client", to: "role=web"}]')
    assert connects(host.client, "10.77.0.2", 8080)
    until(lambda: any(one.key.port & 0xFFFF == 8080 for one in host.controller.flows()))
    flow = next(one for one in host.controller.flows() if one.key.port & 0xFFFF == 8080)
    assert flow.process.user == "nobody" and flow.process.unit.endswith("hers.service"), flow
    assert "cannot see" not in host.machine.journal("cellwall-agent.service")


def test_an_agent_that_dies_or_hangs_is_started_again_and_nothing_opens(host: Host, tmp_path: Path) -> None:
    machine = host.machine
    folder = machine.root / "etc/systemd/system/cellwall-agent.service.d"
    folder.mkdir()
    (folder / "sooner.conf").write_text("[Service]\nWatchdogSec=2\n")
    machine.run(["systemctl", "daemon-reload"])
    host.until_connected(lambda: machine.run(["systemctl", "restart", "cellwall-agent.service"]))
    prober = probe(host.client, tmp_path / "probe", "10.77.0.2", closed=81, spoken=80)
    host.until_connected(lambda: machine.run(["systemctl", "kill", "-s", "KILL", "cellwall-agent.service"]))
    time.sleep(3)
    assert machine.property("cellwall-agent.service", "NRestarts") == "1", "a healthy agent was taken for dead"
    host.until_connected(lambda: machine.run(["systemctl", "kill", "-s", "STOP", "cellwall-agent.service"]))
    assert machine.property("cellwall-agent.service", "NRestarts") == "2"
    told = prober.stop()
    assert told.entered == 0 and told.ended == 0, told


@pytest.mark.parametrize(
    ("answer", "port_80", "port_81"), [("", True, False), ("open", True, True), ("close", False, False)]
)
def test_removal_keeps_opens_or_closes_as_answered(host: Host, answer: str, port_80: bool, port_81: bool) -> None:
    machine = host.machine
    if answer:
        machine.run(["debconf-set-selections"], stdin=f"cellwall-agent cellwall-agent/leave select {answer}\n")
    said = machine.run(["apt-get", "remove", "-y", "cellwall-agent"], DEBIAN_FRONTEND="noninteractive")
    wanted = {"": "keeps its rules", "open": "is open", "close": "is closed but for its lifelines"}[answer]
    assert wanted in said.stdout + said.stderr
    assert connects(host.client, "10.77.0.2", 80) is port_80
    assert connects(host.client, "10.77.0.2", 81) is port_81
    assert (machine.root / STATE / "enrolment.json").exists()
    assert not (machine.root / "usr/lib/cellwall-agent").exists()
    assert not (machine.root / "usr/bin/cellwall").is_symlink()
    purged = machine.run(["apt-get", "purge", "-y", "cellwall-agent"], DEBIAN_FRONTEND="noninteractive")
    assert ("still in force" in purged.stdout + purged.stderr) is (answer != "open")
    assert not (machine.root / "var/lib/cellwall").exists()
    assert not list((machine.root / "etc").rglob("*cellwall*"))
    assert not machine.run(["debconf-show", "cellwall-agent"]).stdout


def test_an_agent_that_was_removed_comes_back_with_what_it_enforced(host: Host, packages: Packages) -> None:
    machine = host.machine
    machine.run(["apt-get", "remove", "-y", "cellwall-agent"], DEBIAN_FRONTEND="noninteractive")
    machine.reboot()
    assert connects(host.client, "10.77.0.2", 81), "without the package a reboot forgets the rules"
    host.until_connected(
        lambda: (machine.install(packages.newer), machine.run(["systemctl", "start", "cellwall-agent.service"]))
    )
    assert connects(host.client, "10.77.0.2", 80) and not connects(host.client, "10.77.0.2", 81)


def test_a_disabled_unit_stays_disabled_after_an_upgrade(host: Host, packages: Packages) -> None:
    machine = host.machine
    machine.run(["systemctl", "disable", "--now", "cellwall-agent.service"])
    machine.install(packages.newer)
    assert machine.run(["systemctl", "is-enabled", "cellwall-agent.service"], check=False).stdout.strip() == "disabled"
    assert machine.property("cellwall-agent.service", "ActiveState") == "inactive"
    assert not connects(host.client, "10.77.0.2", 81)


def test_an_installation_over_a_host_in_force_touches_nothing(host: Host, packages: Packages) -> None:
    before = meaning(host.where)
    said = host.machine.install(packages.older, "--reinstall")
    assert "error" not in said.lower()
    assert meaning(host.where) == before
