"""The real controller and the real agent: from a token to a policy in force."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.agent_world import connects, meaning, serve_tcp, start_agent
from tests.kernel.namespaces import Namespace, needs_namespaces, pair

from cellwall.clients import Api, ApiRefused, Unreachable

pytestmark = needs_namespaces

CELLWALL = [sys.executable, "-m", "cellwall"]
POLICY = """
labels: {role: {}}
rules: [{id: in-80, allow: tcp/80, from: role=client, to: role=web}]
modes: [{where: role=web, mode: enforce}]
"""
# Nobody answers there: so it is when a policy breaks something that it does not know of.
CUT_OFF = """
labels: {role: {}}
rules: [{id: out-9, allow: tcp/9, from: role=web, to: role=client}]
modes: [{where: role=web, mode: enforce}]
tests: [{id: out, canary: true, from: role=web, can: tcp/9, to: role=client}]
"""


@dataclass
class World:
    client: Namespace
    web: Namespace
    api: Api
    folder: Path

    def enrol(self, token: str, name: str = "web", *more: str) -> tuple[int, str]:
        """Enrol `web`; give the exit code and what was complained about."""
        (self.folder / "token").write_text(token)
        done = self.web.run(
            [*CELLWALL, "enroll", "--controller", "https://10.77.0.1:7443", "--token-file", str(self.folder / "token"),
             "--state", str(self.folder / "state"), "--name", name, *more],
            check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    def wait_for(self, wanted: str, revision: int, timeout_s: float = 30.0) -> None:
        """Wait until the rollout shows `web` as `wanted` at a revision."""
        until = time.monotonic() + timeout_s
        while True:
            rows = {row["workload"]: row for row in self.api.get("policy", "rollout")["items"]}
            row: dict[str, Any] = rows.get("web", {})
            if (row.get("state"), row.get("revision_held")) == (wanted, revision):
                return
            assert time.monotonic() < until, rows
            time.sleep(0.1)


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    with pair() as (client, web):
        socket = tmp_path / "api.sock"
        client.spawn(
            [*CELLWALL, "controller", "run", "--data", str(tmp_path / "data"), "--listen", "[::]:7443",
             "--advertise", "https://10.77.0.1:7443", "--socket", str(socket)]
        )  # fmt: skip
        api = Api(socket)
        until = time.monotonic() + 60
        while True:
            try:
                api.get("status")
                break
            except Unreachable:
                assert time.monotonic() < until, "the controller does not come up"
                time.sleep(0.1)
        yield World(client, web, api, tmp_path)


def test_from_a_token_to_a_policy_in_force_and_back_from_a_bad_one(world: World) -> None:
    good = world.api.post("tokens", body={"labels": {"role": "web"}, "workload": "web"})["token"]
    prefix, _, secret = good.split(".")
    code, said = world.enrol(".".join((prefix, "0" * 64, secret)))
    assert code == 4 and "another authority" in said, "the secret is not shown to a stranger"
    assert world.enrol(good) == (0, "")
    code, said = world.enrol(good)
    assert code and "holds an enrolment already" in said
    for port in (80, 81):
        world.web.start(serve_tcp, port)
        world.web.wait_for_port(port)
    start_agent(world.web, world.folder / "state")
    world.wait_for("enforced", 0)
    client = {"name": "client", "addresses": ["10.77.0.1", "fd77::1"], "labels": {"role": "client"}}
    world.api.post("workloads", body=client)
    documents = {"documents": {"p.yaml": POLICY}, "note": "first", "confirm_s": 20, "dry_run": False}
    assert world.api.post("policy", "apply", body=documents)["revision"] == 1
    world.wait_for("enforced", 1)
    assert connects(world.client, "10.77.0.2", 80) and not connects(world.client, "10.77.0.2", 81)
    documents = {"documents": {"p.yaml": CUT_OFF}, "note": "bad", "confirm_s": 20, "dry_run": False}
    world.api.post("policy", "apply", body=documents)
    until = time.monotonic() + 30
    while (now := world.api.get("policy", "rollout"))["revision"] < 3:
        assert time.monotonic() < until, now
        time.sleep(0.1)
    world.wait_for("enforced", 3)
    assert connects(world.client, "10.77.0.2", 80)


def test_one_whose_canary_fails_stays_behind_where_that_is_tolerated(world: World) -> None:
    for name, namespace in (("web", world.web), ("client", world.client)):
        token = world.api.post("tokens", body={"labels": {"role": name}, "workload": name})["token"]
        (world.folder / f"{name}.token").write_text(token)
        state = world.folder / f"{name}-state"
        namespace.run(
            [*CELLWALL, "enroll", "--controller", "https://10.77.0.1:7443", "--state", str(state), "--name", name,
             "--token-file", str(world.folder / f"{name}.token")]
        )  # fmt: skip
        start_agent(namespace, state)
    world.web.start(serve_tcp, 80)
    world.web.wait_for_port(80)
    world.wait_for("enforced", 0)
    assert world.api.post("policy", "apply", body={"documents": {"p.yaml": POLICY}})["revision"] == 1
    world.wait_for("enforced", 1)
    body: dict[str, Any] = {"documents": {"p.yaml": CUT_OFF}, "confirm_s": 5, "tolerate": "1"}
    assert world.api.post("policy", "apply", body=body)["revision"] == 2
    until = time.monotonic() + 60
    while (now := world.api.get("policy", "rollout"))["state"] == "rolling":
        assert time.monotonic() < until, now
        time.sleep(0.1)
    rows = {row["workload"]: (row["state"], row["revision_held"]) for row in now["items"]}
    assert (now["revision"], now["state"]) == (2, "good"), now
    assert rows == {"client": ("enforced", 2), "web": ("reverted", 1)}
    assert [one["workload"] for one in now["behind"]] == ["web"]
    assert connects(world.client, "10.77.0.2", 80)


def test_what_an_agent_has_not_the_memory_for_is_refused_in_the_plan_and_by_it_alike(world: World) -> None:
    assert world.enrol(world.api.post("tokens", body={"labels": {"role": "web"}, "workload": "web"})["token"])[0] == 0
    client = {"name": "client", "addresses": ["10.77.0.1", "fd77::1"], "labels": {"role": "client"}}
    world.api.post("workloads", body=client)
    ports = range(2000, 2150)
    more = ", ".join(f"{{id: in-{port}, allow: tcp/{port}, from: role=client, to: role=web}}" for port in ports)
    large = POLICY.replace("rules: [", f"rules: [{more}, ")
    agent = start_agent(world.web, world.folder / "state", "--most-memory", "12")
    world.wait_for("enforced", 0)
    body: dict[str, Any] = {"documents": {"p.yaml": POLICY}, "confirm_s": 20}
    assert world.api.post("policy", "apply", body=body)["revision"] == 1
    world.wait_for("enforced", 1)
    body = {"documents": {"p.yaml": large}, "confirm_s": 20}
    (short,) = world.api.post("policy", "plan", body={"documents": body["documents"]})["cramped"]
    assert (short["workload"], short["room_bytes"]) == ("web", 12 << 20)
    with pytest.raises(ApiRefused, match="1 of 1 points would refuse it, first `web`"):
        world.api.post("policy", "apply", body=body)
    world.api.post("policy", "apply", body={**body, "accept_refused": True})
    world.wait_for("refused", 1)
    (row,) = world.api.get("policy", "rollout")["items"]
    needed = -(-short["peak_bytes"] >> 20)
    assert row["reason"] == f"to write it takes about {needed} MiB of memory, and 12 MiB can be had"
    agent.stop()
    start_agent(world.web, world.folder / "state", "--most-memory", str(needed + 12))
    until = time.monotonic() + 20
    while world.api.get("workloads", "web")["facts"]["memory"]["free"] <= 12 << 20:
        assert time.monotonic() < until, "the agent does not say what it may take"
        time.sleep(0.1)
    revision = world.api.post("policy", "apply", body=body)["revision"]
    world.wait_for("enforced", revision)


def test_a_host_whose_certificate_was_revoked_says_so_and_enrols_again_with_its_rules_in_force(world: World) -> None:
    asked: dict[str, Any] = {"labels": {"role": "web"}, "workload": "web"}
    assert world.enrol(world.api.post("tokens", body=asked)["token"]) == (0, "")
    start_agent(world.web, world.folder / "state")
    world.api.post("policy", "apply", body={"documents": {"p.yaml": POLICY}, "confirm_s": 20})
    world.wait_for("enforced", 1)
    world.api.delete("workloads", "web")
    until, log = time.monotonic() + 20, world.folder / "state" / "log"
    while "the certificate of `web` was revoked; enrol again with a new token" not in log.read_text():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    held = meaning(world.web)
    token = world.api.post("tokens", body=asked)["token"]
    assert "with --again it is made anew" in world.enrol(token)[1]
    code, said = world.enrol(token, "db", "--again")
    assert code and "this host is `web`" in said
    prefix, _, secret = token.split(".")
    code, said = world.enrol(".".join((prefix, "0" * 64, secret)), "web", "--again")
    assert code and "of another controller" in said
    assert world.enrol(token, "web", "--again") == (0, "")
    assert held and meaning(world.web) == held
    world.wait_for("enforced", 1)
