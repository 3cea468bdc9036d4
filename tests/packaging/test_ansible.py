"""The Ansible roles on two Debian machines: a controller, and a host that it walls."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.agent_world import connects, serve_tcp
from tests.kernel.namespaces import Namespace, pair
from tests.packaging.conftest import OLDER, Packages
from tests.packaging.machine import ROOT, Machine, build, machine
from tests.packaging.machine import missing as without_machines

ROLES = ROOT / "packaging" / "ansible"
POLICY = """
labels: {role: {}}
rules: [{id: in-80, allow: tcp/80, from: role=client, to: role=web}]
modes: [{where: role=web, mode: enforce}]
"""
ADVERTISED = "https://10.77.0.1:7443"


@cache
def ansible() -> Path | None:
    """Where Ansible's virtual environment is: ours, or that of CELLWALL_ANSIBLE; None without one."""
    for folder in (os.environ.get("CELLWALL_ANSIBLE", ""), str(ROOT / ".venv")):
        if folder and (Path(folder) / "bin" / "ansible-playbook").exists():
            return Path(folder)
    return None


needs_ansible = pytest.mark.skipif(ansible() is None, reason="ansible-core is not installed in .venv")
needs_machines = pytest.mark.skipif(bool(without_machines()), reason=without_machines() or "machines can be made")


def _tool(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    found = ansible()
    assert found
    named = {**os.environ, "PATH": f"{found}/bin:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1", **environment}
    return subprocess.run(
        [f"{found}/bin/{name}", *arguments], cwd=ROLES, capture_output=True, text=True, check=False, env=named
    )


@needs_ansible
def test_the_example_playbook_is_well_written(tmp_path: Path) -> None:
    done = _tool("ansible-playbook", "--syntax-check", "-i", "hosts.ini", "site.yml")
    assert done.returncode == 0, done.stderr
    if shutil.which("ansible-lint", path=f"{ansible()}/bin"):
        copy = shutil.copytree(ROLES, tmp_path / "roles")
        done = _tool("ansible-lint", "--offline", "--profile=production", str(copy / "site.yml"), HOME=str(tmp_path))
        assert done.returncode == 0, done.stdout + done.stderr


@needs_ansible
def test_a_token_is_for_one_workload_and_carries_its_labels(tmp_path: Path) -> None:
    shutil.copy(ROLES / "hosts.ini", tmp_path)
    (tmp_path / "group_vars").mkdir()
    shutil.copy(ROLES / "roles/cellwall_agent/defaults/main.yml", tmp_path / "group_vars/all.yml")
    wanted = "cellwall tokens create --workload web-1 --ttl 600 --labels app=shop,env=prod,role=web"
    so = [{"ansible.builtin.assert": {"that": f"cellwall_agent_token_command.split() == {wanted.split()!r}"}}]
    play = {"hosts": "web-1", "gather_facts": False, "connection": "local", "tasks": so}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = _tool("ansible-playbook", "-i", str(tmp_path / "hosts.ini"), str(tmp_path / "play.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Site:
    """A machine for the controller, one for the host, and the packages that both can read."""

    control: Machine
    web: Machine
    client: Namespace

    def play(self, where: Machine, role: str, *options: str, **variables: Any) -> dict[str, int]:
        """Play a role on a machine, and give what Ansible counted there."""
        name = "control" if where is self.control else "web"
        (where.root / "srv/vars.json").write_text(json.dumps(variables))
        (where.root / "srv/play.yml").write_text(
            json.dumps([{"hosts": "all", "connection": "local", "roles": [{"role": role}]}])
        )
        done = where.run(
            [f"{ansible()}/bin/ansible-playbook", "-i", f"{name},", "-e", "@/srv/vars.json", "-e",
             "ansible_python_interpreter=/usr/bin/python3", *options, "/srv/play.yml"],
            check=False, timeout_s=300, ANSIBLE_ROLES_PATH="/roles", ANSIBLE_NOCOLOR="1",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "cw1." not in done.stdout + done.stderr, "the token is shown"
        counted = re.findall(r"(\w+)=(\d+)", done.stdout.rsplit(f"{name} ", 1)[1])
        return {word: int(number) for word, number in counted}


@pytest.fixture
def site(tmp_path: Path, packages: Packages) -> Generator[Site]:
    found = ansible()
    assert found
    build(packages.tree, packages.folder, "--version", OLDER, "controller")
    python = Path(
        next(line for line in (found / "pyvenv.cfg").read_text().splitlines() if line.startswith("home"))
        .split("=")[1]
        .strip()
    )
    folders = {
        packages.folder: "/packages",
        ROLES / "roles": "/roles",
        found: str(found),
        python.parent: str(python.parent),
    }
    with (
        pair() as (client, where),
        machine(client, tmp_path, folders) as control,
        machine(where, tmp_path, folders) as web,
    ):
        where.start(serve_tcp, 80)
        where.start(serve_tcp, 81)
        yield Site(control, web, client)


@needs_ansible
@needs_machines
def test_two_roles_make_a_walled_host_and_a_second_run_changes_nothing(site: Site, packages: Packages) -> None:
    control, web = site.control, site.web
    central = {
        "cellwall_controller_package": f"/packages/cellwall-controller_{OLDER}_amd64.deb",
        "cellwall_controller_advertise": [ADVERTISED],
    }
    assert site.play(control, "cellwall_controller", "--check", **central)["failed"] == 0
    assert not (control.root / "usr/lib/cellwall-controller").exists(), "a check installs nothing"
    assert site.play(control, "cellwall_controller", **central)["changed"] > 0
    control.wait_until(["cellwall", "controller", "status"])
    assert site.play(control, "cellwall_controller", **central)["changed"] == 0
    timers = control.run(["systemctl", "is-active", "cellwall-controller-backup.timer"]).stdout
    assert timers.strip() == "active"
    for _ in range(2):
        control.run(["systemctl", "start", "cellwall-controller-backup.service"])
    kept = sorted(path.name for path in (control.root / "var/lib/cellwall/backup").iterdir())
    assert kept == ["controller.backup", "controller.backup.1"]

    token = control.run(["cellwall", "tokens", "create", "--workload", "web", "--labels", "role=web"]).stdout.strip()
    host = {
        "cellwall_agent_package": f"/packages/{packages.older.name}",
        "cellwall_agent_controller": ADVERTISED,
        "cellwall_agent_token": token,
    }
    assert site.play(web, "cellwall_agent", "--check", **host)["failed"] == 0
    assert not (web.root / "usr/lib/cellwall-agent").exists() and not (web.root / "var/lib/cellwall").exists()
    assert site.play(web, "cellwall_agent", **host)["changed"] > 0
    assert (web.root / "var/lib/cellwall/agent/enrolment.json").exists()
    # The token is spent: what is enrolled already is left alone, and asks for none.
    host["cellwall_agent_token"] = "{{ lookup('ansible.builtin.pipe', 'false') }}"
    assert site.play(web, "cellwall_agent", **host)["changed"] == 0

    control.run(
        ["cellwall", "workloads", "add", "client", "--address", "10.77.0.1", "--labels", "role=client", "--yes"]
    )
    (control.root / "srv/policy.yaml").write_text(POLICY)
    control.run(["cellwall", "policy", "apply", "/srv/policy.yaml", "--yes"])
    web.wait_until(["nft", "list", "table", "inet", "cellwall"])
    assert connects(site.client, "10.77.0.2", 80) and not connects(site.client, "10.77.0.2", 81)

    # An upgrade by the same role: other package, all else as it was.
    host["cellwall_agent_package"] = f"/packages/{packages.newer.name}"
    assert site.play(web, "cellwall_agent", **host)["changed"] == 2
    assert connects(site.client, "10.77.0.2", 80) and not connects(site.client, "10.77.0.2", 81)

    # The controller goes, its keys stay, and the host keeps what it enforces.
    said = control.run(["apt-get", "purge", "-y", "cellwall-controller"], DEBIAN_FRONTEND="noninteractive")
    assert "keys and history stay" in said.stdout + said.stderr
    assert list((control.root / "var/lib/cellwall/controller/keys").iterdir())
    assert connects(site.client, "10.77.0.2", 80) and not connects(site.client, "10.77.0.2", 81)
