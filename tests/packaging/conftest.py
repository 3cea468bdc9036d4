"""What the tests of packages share: the packages, built once, and a host with an agent from one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fleet.agent_world import ALLOW_80, Puppet, point, policy, puppet, serve_tcp
from tests.kernel.namespaces import Namespace, pair
from tests.packaging.machine import Machine, build, machine, snapshot
from tests.packaging.probe import echo

from cellwall.wire import PointState

OLDER, NEWER = "0.1.0", "0.1.1"
STATE = "var/lib/cellwall/agent"


@dataclass(frozen=True, slots=True)
class Packages:
    """The agent's package in two versions, the folder that both are in, and the tree that they are built from."""

    tree: Path
    folder: Path
    older: Path
    newer: Path


def until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait until something is so."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Build the agent's package twice."""
    tree = snapshot(tmp_path_factory.mktemp("tree"))
    folder = tmp_path_factory.mktemp("packages")
    older = build(tree, folder, "--version", OLDER, "agent")
    return Packages(tree, folder, older, build(tree, folder, "--version", NEWER, "agent"))


@dataclass
class Host:
    """A client that is also the controller, and a host with the agent installed, enrolled and enforcing: 80 is open,
    81 is not."""

    client: Namespace
    where: Namespace
    controller: Puppet
    machine: Machine
    generation: int = 0

    def enforce(self, rules: str = ALLOW_80) -> None:
        """Send a policy, and wait until it is in force."""
        self.generation += 1
        self.controller.send(self.controller.bundle(point(policy(rules), self.generation)))
        self.controller.receipt(self.generation, PointState.ENFORCED)

    def until_connected(self, begin: Callable[[], object]) -> None:
        """Do what makes the agent connect, and wait until it has."""
        before = self.controller.connections
        begin()
        self.machine.wait_until(["systemctl", "is-active", "cellwall-agent.service"])
        until(lambda: self.controller.connections > before)


@pytest.fixture
def host(tmp_path: Path, packages: Packages) -> Generator[Host]:
    """Install the older package on a fresh machine, enrol it, and enforce."""
    with (
        pair() as (client, web),
        puppet(client, tmp_path / "ca") as controller,
        machine(web, tmp_path, {packages.folder: "/packages"}) as made,
    ):
        made.install(packages.older)
        controller.enrol(made.root / STATE)
        for port, server in ((80, echo), (81, serve_tcp)):
            web.start(server, port)
            web.wait_for_port(port)
        ready = Host(client, web, controller, made)
        ready.until_connected(lambda: made.run(["systemctl", "start", "cellwall-agent.service"]))
        ready.enforce()
        yield ready
