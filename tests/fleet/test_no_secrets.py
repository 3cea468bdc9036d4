"""No secret is in what a controller writes, answers or keeps: logs, audit log, errors, metrics, support bundles.

Promised: a secret is shown to whoever it is made for, once, and to nobody else ever.
"""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import sys
import tarfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fleet.controller_world import World, ask_to_enrol, enrol, make_request

from cellwall.cli.bundle import collect
from cellwall.clients import Api
from cellwall.controller import ControllerOptions
from cellwall.controller.loop import Controller
from cellwall.wire import Enrol, Rejected, encode

PASSWORD, WRONG, NEWER = "marked-first-Pa55word-q7", "marked-wrong-Pa55word-q7", "marked-newer-Pa55word-q7"


@asynccontextmanager
async def logging(folder: Path, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World]:
    """Run a controller as its program does, with its own log at its most talkative, on both faces."""
    monkeypatch.setattr(sys, "stderr", stream)
    options = ControllerOptions(
        folder / "data",
        listen="127.0.0.1:0",
        advertise=("https://127.0.0.1:7443",),
        socket=folder / "api.sock",
        flows="memory",
        people="127.0.0.1:0",
        log_level="debug",
    )
    async with AsyncExitStack() as stack:
        controller = Controller(options)
        await controller.open(stack)
        transport = httpx.AsyncHTTPTransport(uds=str(options.socket_path))
        base = "http://controller/api/v1"
        people = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=base, timeout=30))
        yield World(controller, people, folder)


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    """Read the log: every line is an object with the same head."""
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    for one in found:
        assert list(one)[:3] == ["at", "level", "event"]
        assert one["level"] in ("debug", "info", "warning", "error")
    return found


async def test_no_secret_comes_out_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    secrets: list[str] = [PASSWORD, WRONG, NEWER]
    answers: list[str] = []
    async with logging(tmp_path, stream, monkeypatch) as world:
        # An agent enrols; others try with secrets that do not hold.
        token = await world.token("web-1")
        agent = await enrol(world, token, "web-1")
        await agent.connect()
        secrets += [token.secret, agent.key.splitlines()[1]]
        unknown = "marked-" + "u" * 36
        secrets.append(unknown)
        for secret in (token.secret, unknown):
            reply = await ask_to_enrol(world, Enrol(secret=secret, request=make_request()[1], name="web-2"))
            assert isinstance(reply, Rejected)
            answers.append(reply.reason)
        answers.append(encode(reply).decode("latin-1"))
        # People get accounts and tokens, sign in, fail to, and change their passwords.
        await world.ask("POST", "/people", {"name": "ann", "roles": ["admin"], "password": PASSWORD})
        made = await world.ask("POST", "/api-tokens", {"name": "ci", "roles": ["viewer"]})
        secrets.append(made["token"])
        port = next(one["port"] for one in events(stream) if one["event"] == "people listen")
        context = ssl.create_default_context(cadata=world.controller.control.authority.pem)
        base = f"https://127.0.0.1:{port}/api/v1"
        async with httpx.AsyncClient(verify=context, base_url=base, timeout=30) as client:
            signed = await client.post("/session", json={"name": "ann", "password": PASSWORD})
            assert signed.status_code == 201, signed.text
            session = signed.json()["session"]
            secrets.append(session)
            head = {"Authorization": f"Bearer {session}"}
            change = await client.post("/session/password", json={"old": PASSWORD, "new": NEWER}, headers=head)
            assert change.status_code == 200, change.text
            refused = await client.post("/session", json={"name": "ann", "password": WRONG})
            assert refused.status_code == 401, refused.text
            answers += [refused.text, change.text, (await client.get("/session", headers=head)).text]
            for path in ("/workloads", f"/workloads/{WRONG[:0]}nobody", "/people", "/status?x=1"):
                answers.append((await client.get(path, headers={"Authorization": f"Bearer {session}x"})).text)
            answers.append((await client.post("/session", json={"name": "ann", "password": [WRONG]})).text)
            answers.append((await client.post("/session", content=f'{{"name": "ann", "password": "{WRONG}"')).text)
        # All that is kept and told.
        for path in ("/audit?limit=1000", "/status", "/workloads", "/tokens", "/people", "/api-tokens", "/support"):
            answers.append(json.dumps(await world.ask("GET", path)))
        bundle = tmp_path / "bundle.tar.gz"
        made_bundle = await asyncio.to_thread(collect, Api(tmp_path / "api.sock"), "", tmp_path / "none", names=True)
        made_bundle.write(bundle)
        keys = world.controller.options.data / "keys"
        secrets += (keys / "ca.key").read_text("ascii").splitlines()[1:3]
        secrets += (keys / "server.key").read_text("ascii").splitlines()[1:3]
        secrets += [(keys / "bundle.key").read_bytes().hex(), (keys / "bundle.key").read_bytes().decode("latin-1")]
        await agent.close()
    told = {"the log": stream.getvalue(), "an answer": "\n".join(answers)}
    with tarfile.open(bundle) as tar:
        told |= {one.name: tar.extractfile(one).read().decode() for one in tar if one.isfile()}  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
    assert len(secrets) >= 13 and all(len(one) >= 20 for one in secrets)
    for place, text in told.items():
        for number, secret in enumerate(secrets):
            assert secret not in text, f"secret {number} is in {place}"
    seen = {one["event"] for one in events(stream)}
    assert {"enrolled", "enrolment refused", "request", "compiled", "listening", "ending"} - seen <= {"ending"}
    assert any("audit" in name for name in told) or "controller" in " ".join(told)


async def test_a_request_is_found_in_the_log_and_in_the_audit_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    async with logging(tmp_path, stream, monkeypatch) as world:
        body = {"name": "db-1", "addresses": ["10.0.0.5"]}
        answer = await world.people.post("/workloads", json=body, headers={"X-Request-Id": "change-4711-a"})
        assert answer.headers["x-request-id"] == "change-4711-a"
        audit = await world.ask("GET", "/audit")
        assert "change-4711-a" in json.dumps(audit["items"][0])
    assert [one["route"] for one in events(stream) if one.get("request") == "change-4711-a"]


async def test_a_bundle_without_names_has_none_and_still_tells_who_met_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    async with logging(tmp_path, stream, monkeypatch) as world:
        for name, address in (("payroll-db-7", "10.44.0.7"), ("payroll-web-9", "2001:db8:44::9")):
            await world.ask("POST", "/workloads", {"name": name, "addresses": [address], "labels": {"app": "payroll"}})
        agent = await world.agent("kiosk-3", "10.44.0.3")
        await world.token("kiosk-4")
        made = await asyncio.to_thread(collect, Api(tmp_path / "api.sock"), "", tmp_path / "none", names=False)
        await agent.close()
    whole = "\n".join(made.files.values())
    for word in ("kiosk-3", "10.44.0.3", "payroll-db-7", "10.44.0.7", "2001:db8:44::9"):
        assert word not in whole, word
    rollout = json.loads(made.files["controller/rollout.json"])
    named = rollout["items"][0]["workload"]
    assert named.startswith("name-") and f'"workload": "{named}"' in made.files["controller/log.txt"]
    assert made.missing.keys() >= {"agent"}


def test_a_bundle_is_made_when_the_controller_is_down(tmp_path: Path) -> None:
    made = collect(Api(tmp_path / "nobody.sock"), "", tmp_path / "none", names=True)
    assert "cannot reach the controller" in made.missing["controller/status.json"]
    assert "cannot reach the controller" in made.missing["controller/support.json"]
    assert {"about.json", "host/system.json", "host/doctor.json"} <= made.files.keys()
    about = json.loads(made.files["about.json"])
    assert about["missing"].keys() == made.missing.keys()
    made.write(tmp_path / "b.tar.gz")
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        assert {name.partition("/")[2] for name in tar.getnames()} == made.files.keys()
