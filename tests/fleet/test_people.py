"""People at a real controller's face over TLS: who gets in, what they may, and that it is all in the audit log."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fleet.controller_world import World, running

from cellwall.controller.access import READING, ROUTES
from cellwall.controller.listening import listen
from cellwall.controller.options import Endpoint

SECRET = "a long enough secret"
DOCUMENT = """
rules:
  - {id: shop, allow: tcp/5432, from: "app=shop,role=web", to: "app=shop,role=db"}
"""


@dataclass
class Face:
    """The face for people of a running controller."""

    world: World
    client: httpx.AsyncClient

    @property
    def url(self) -> str:
        return str(self.client.base_url).removesuffix("/api/v1/")

    async def person(self, name: str, *roles: str) -> dict[str, str]:
        """Make an account, sign in, and give the headers of the session."""
        await self.world.ask("POST", "/people", {"name": name, "roles": list(roles), "password": SECRET})
        return await self.sign_in(name)

    async def sign_in(self, name: str) -> dict[str, str]:
        answer = await self.client.post("/session", json={"name": name, "password": SECRET})
        assert answer.status_code == 201, answer.text
        return {"Authorization": f"Bearer {answer.json()['session']}"}

    async def token(self, name: str, *roles: str) -> dict[str, str]:
        answer = await self.world.ask("POST", "/api-tokens", {"name": name, "roles": list(roles)})
        return {"Authorization": f"Bearer {answer['token']}"}


@asynccontextmanager
async def facing(folder: Path, **options: Any) -> AsyncGenerator[Face]:
    async with running(folder, people="127.0.0.1:0", **options) as world:
        port = next(details["port"] for event, details in world.said if event == "people listen")
        context = ssl.create_default_context(cadata=world.controller.control.authority.pem)
        base = f"https://127.0.0.1:{port}/api/v1"
        async with httpx.AsyncClient(verify=context, base_url=base, timeout=20) as client:
            yield Face(world, client)


@pytest.fixture
async def face(tmp_path: Path) -> AsyncIterator[Face]:
    async with facing(tmp_path) as found:
        yield found


async def fleet(world: World) -> None:
    for number, (name, app, role) in enumerate(
        (("shop-db", "shop", "db"), ("shop-web", "shop", "web"), ("till-db", "till", "db"))
    ):
        body = {"name": name, "addresses": [f"10.0.0.{number + 1}"], "labels": {"app": app, "role": role}}
        await world.ask("POST", "/workloads", body)


# --- who gets in ---


async def test_nobody_gets_in_without_proof(face: Face) -> None:
    client = face.client
    assert (await client.get("/session/ways")).json()["password"] is True
    for method, path in (("GET", "/status"), ("POST", "/policy/apply"), ("GET", "/nothing"), ("GET", "/openapi.json")):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
        assert answer.headers["content-type"] == "application/problem+json"
    for given in ("Bearer", "Bearer x", "Bearer cws_x", "bearer cwp_x", "Basic cm9vdDpyb290", "x"):
        answer = await client.get("/status", headers={"Authorization": given})
        assert answer.status_code == 401, given
    # Neither does the name of a user, which is all that it takes at the socket.
    assert (await client.get("/status", headers={"X-Forwarded-For": "root", "X-User": "root"})).status_code == 401
    root = str(client.base_url).removesuffix("/api/v1/")
    assert (await client.get(f"{root}/metrics")).status_code == 401
    assert (await client.get(f"{root}/health/live")).status_code == 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_tls_and_plain_http_are_refused(face: Face) -> None:
    port = int(face.url.rpartition(":")[2])
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        await asyncio.open_connection("127.0.0.1", port, ssl=old)
    with pytest.raises(httpx.TransportError):
        await httpx.AsyncClient().get(f"http://127.0.0.1:{port}/api/v1/status")


def test_an_answer_is_not_held_back() -> None:
    # asyncio turns Nagle's algorithm off for sockets whose protocol is named: measured, 48 ms an answer become 5.
    with listen(Endpoint("127.0.0.1", 0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP


async def test_who_signs_in_gets_in_until_signing_out(face: Face) -> None:
    ann = await face.person("ann", "viewer")
    me = (await face.client.get("/session", headers=ann)).json()
    assert (me["name"], me["way"], me["roles"], me["csrf"]) == ("ann", "password", ["viewer"], None)
    answer = await face.client.get("/status", headers=ann)
    assert answer.status_code == 200
    for header in ("strict-transport-security", "x-content-type-options", "content-security-policy", "x-request-id"):
        assert header in answer.headers
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers
    assert (await face.client.request("DELETE", "/session", headers=ann)).status_code == 200
    assert (await face.client.get("/status", headers=ann)).status_code == 401


async def test_a_wrong_password_and_an_unknown_name_are_answered_alike_and_slow_down(tmp_path: Path) -> None:
    began = time.time()
    async with facing(tmp_path, clock=lambda: began) as face:
        await _try_many(face)


async def _try_many(face: Face) -> None:
    await face.person("ann", "viewer")
    said: set[str] = set()
    for name in ("ann", "nobody"):
        answer = await face.client.post("/session", json={"name": name, "password": "not the right one"})
        assert answer.status_code == 401
        said.add(answer.json()["detail"])
    assert len(said) == 1
    # All at once: no more tries than one after the other.
    wrong = {"name": "ann", "password": "not the right one"}
    answers = await asyncio.gather(*(face.client.post("/session", json=wrong) for _ in range(12)))
    assert sorted({one.status_code for one in answers}) == [401, 429]
    assert sum(one.status_code == 401 for one in answers) <= 5
    held = next(one for one in answers if one.status_code == 429)
    assert int(held.headers["retry-after"]) >= 1
    right = await face.client.post("/session", json={"name": "ann", "password": SECRET})
    assert right.status_code == 429


async def test_a_request_that_is_too_long_is_refused_before_it_is_read(face: Face) -> None:
    long = {"name": "ann", "password": "x" * 100_000}
    assert (await face.client.post("/session", json=long)).status_code == 413

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    headers = {"content-type": "application/json"}
    assert (await face.client.post("/session", content=pieces(), headers=headers)).status_code in (400, 403, 413)


async def test_a_browsers_cookie_needs_its_token_for_whatever_changes(face: Face) -> None:
    await face.person("ann", "viewer")
    body = {"name": "ann", "password": SECRET, "cookie": True}
    begun = await face.client.post("/session", json=body)
    assert "session" not in begun.json()
    cookie = begun.headers["set-cookie"]
    assert cookie.startswith("__Host-cellwall=cws_")
    assert all(word in cookie for word in ("HttpOnly", "Secure", "SameSite=strict"))
    assert (await face.client.get("/status")).status_code == 200
    change = {"old": SECRET, "new": "another long secret"}
    assert (await face.client.post("/session/password", json=change)).status_code == 403
    token = {"X-CSRF-Token": begun.json()["csrf"]}
    evil = {**token, "Origin": "https://evil.example.com"}
    assert (await face.client.post("/session/password", json=change, headers=evil)).status_code == 403
    assert (await face.client.post("/session/password", json=change, headers=token)).status_code == 200


# --- what they may ---


async def test_a_viewer_changes_nothing_and_a_refusal_is_written_down(face: Face) -> None:
    await fleet(face.world)
    ann = await face.person("ann", "viewer")
    tries: tuple[tuple[str, str, Any], ...] = (
        ("POST", "/policy/apply", {"documents": {"p.yaml": DOCUMENT}}),
        ("POST", "/workloads", {"name": "x", "addresses": ["10.9.9.9"]}),
        ("PUT", "/labels/shop-db", {"labels": {"app": "till"}}),
        ("DELETE", "/workloads/shop-db", None),
        ("POST", "/tokens", {}),
        ("POST", "/people", {"name": "eve", "roles": ["admin"], "password": SECRET}),
        ("PUT", "/people/ann", {"roles": ["admin"]}),
        ("POST", "/api-tokens", {"name": "x", "roles": ["admin"]}),
        ("POST", "/policy/revert", {}),
        ("POST", "/orders", {"kind": "contain"}),
        ("GET", "/audit", None),
        ("GET", "/people", None),
    )
    for method, path, body in tries:
        answer = await face.client.request(method, path, json=body, headers=ann)
        assert answer.status_code == 403, (path, answer.text)
    refused = (await face.world.ask("GET", "/audit", action="refused", by="ann"))["items"]
    assert len(refused) == len(tries)
    assert refused[-1]["subject"] == "/policy/apply"
    assert refused[-1]["details"]["asked"]["from"] == "127.0.0.1"
    assert {one["name"] for one in (await face.world.ask("GET", "/workloads"))["items"]} == {
        "shop-db",
        "shop-web",
        "till-db",
    }


async def test_an_author_of_one_app_writes_its_policy_and_no_other(face: Face) -> None:
    await fleet(face.world)
    ann = await face.person("ann", "author@app=shop")

    async def apply(text: str) -> httpx.Response:
        body = {"documents": {"p.yaml": text}, "confirm_s": 0}
        return await face.client.post("/policy/apply", json=body, headers=ann)

    answer = await apply(DOCUMENT)
    assert answer.status_code == 200, answer.text
    assert (await face.world.ask("GET", "/policy"))["author"] == "ann"
    beyond = await apply(DOCUMENT.replace("app=shop,role=db", "app=till,role=db"))
    assert beyond.status_code == 403
    assert "rule `shop` reaches beyond" in beyond.json()["detail"]
    planned = {"documents": {"p.yaml": DOCUMENT + 'modes: [{where: "", mode: enforce}]\n'}}
    assert (await face.client.post("/policy/plan", json=planned, headers=ann)).status_code == 403
    assert (await face.client.post("/policy/revert", json={}, headers=ann)).status_code == 403
    moved = await face.client.put("/labels/shop-web", json={"labels": {"app": "till"}}, headers=ann)
    assert (moved.status_code, "`shop-web` is outside" in moved.json()["detail"]) == (403, True)
    own = await face.client.put("/labels/shop-web", json={"labels": {"tier": "front"}}, headers=ann)
    assert own.status_code == 200, own.text


async def test_who_sees_one_app_sees_no_other(face: Face) -> None:
    await fleet(face.world)
    ann = await face.person("ann", "viewer@app=shop", "operator@app=shop")

    async def names(path: str, key: str) -> set[str]:
        return {one[key] for one in (await face.client.get(path, headers=ann)).json()["items"]}

    assert await names("/workloads", "name") == {"shop-db", "shop-web"}
    assert await names("/labels", "workload") == {"shop-db", "shop-web"}
    for path in ("/workloads/till-db", "/points/till-db/table", "/why?source=till-db&destination=10.9.9.9&port=22"):
        assert (await face.client.get(path, headers=ann)).status_code == 403, path
    assert (await face.client.get("/workloads/shop-db", headers=ann)).status_code == 200
    for path in ("/ground", "/series"):
        assert (await face.client.get(path, headers=ann)).status_code == 403, path
    outside = {"labels": {"app": "till"}}
    assert (await face.client.post("/tokens", json=outside, headers=ann)).status_code == 403
    assert (await face.client.post("/tokens", json={"workload": "till-db"}, headers=ann)).status_code == 403
    assert (await face.client.post("/tokens", json={"labels": {"app": "shop"}}, headers=ann)).status_code == 201
    assert (await face.client.delete("/workloads/till-db", headers=ann)).status_code == 403


async def test_nobody_agrees_to_their_own_revision(face: Face) -> None:
    db = await face.world.agent("shop-db", "10.0.0.1", {"app": "shop", "role": "db"})
    web = {"name": "shop-web", "addresses": ["10.0.0.2"], "labels": {"app": "shop", "role": "web"}}
    await face.world.ask("POST", "/workloads", web)
    asked = "approvals: [{where: app=shop}]\n"
    await face.world.apply(DOCUMENT + asked, confirm_s=0)
    ann = await face.person("ann", "author", "reviewer")
    bob = await face.person("bob", "reviewer@app=till")
    eva = await face.person("eva", "reviewer@app=shop")
    changed = {"p.yaml": (DOCUMENT + asked).replace("tcp/5432", "[tcp/5432, tcp/22]")}
    answer = await face.client.post("/policy/apply", json={"documents": changed, "confirm_s": 0}, headers=ann)
    assert answer.status_code == 200, answer.text
    number = answer.json()["revision"]
    assert answer.json()["state"] == "proposed"
    path = f"/policy/revisions/{number}/approve"
    for who, why in ((ann, "somebody else"), (bob, "`shop-db` is outside")):
        answer = await face.client.post(path, json={}, headers=who)
        assert (answer.status_code, why in answer.json()["detail"]) == (403, True), answer.text
    answer = await face.client.post(path, json={}, headers=eva)
    assert (answer.status_code, answer.json()["state"]) == (200, "rolling"), answer.text
    await db.close()


async def test_a_token_works_until_it_is_revoked(face: Face) -> None:
    ci = await face.token("ci", "viewer")
    assert (await face.client.get("/session", headers=ci)).json()["name"] == "token:ci"
    assert (await face.client.get("/status", headers=ci)).status_code == 200
    assert (await face.client.request("DELETE", "/session", headers=ci)).status_code == 400
    (row,) = (await face.world.ask("GET", "/api-tokens"))["items"]
    assert row["used"] is not None
    assert "token" not in row
    await face.world.ask("DELETE", "/api-tokens/ci")
    assert (await face.client.get("/status", headers=ci)).status_code == 401


async def test_who_is_closed_is_out_at_once(face: Face) -> None:
    ann = await face.person("ann", "viewer")
    await face.world.ask("PUT", "/people/ann", {"disabled": True})
    assert (await face.client.get("/status", headers=ann)).status_code == 401
    answer = await face.client.post("/session", json={"name": "ann", "password": SECRET})
    assert answer.status_code == 401


async def test_sessions_outlive_a_restart(tmp_path: Path) -> None:
    async with facing(tmp_path) as face:
        ann = await face.person("ann", "viewer")
    async with facing(tmp_path) as face:
        assert (await face.client.get("/status", headers=ann)).status_code == 200


# --- the audit log ---


async def test_the_log_tells_who_and_how_and_that_it_was_cut(tmp_path: Path) -> None:
    async with facing(tmp_path) as face:
        admin = await face.person("ann", "admin")
        body = {"name": "nas", "addresses": ["10.9.0.1"]}
        assert (await face.client.post("/workloads", json=body, headers=admin)).status_code == 201
        newest = (await face.world.ask("GET", "/audit", limit=1))["items"][0]
        assert (newest["author"], newest["action"], newest["subject"]) == ("ann", "declare", "nas")
        asked = newest["details"]["asked"]
        assert (asked["way"], asked["from"], bool(asked["request"])) == ("password", "127.0.0.1", True)
        verified = await face.world.ask("GET", "/audit/verify")
        assert (verified["whole"], verified["broken_at"]) == (True, None)
        assert SECRET not in str(await face.world.ask("GET", "/audit"))
    # The controller has signed the head. Whoever owns the file cuts the end off.
    import sqlite3

    with sqlite3.connect(tmp_path / "data" / "state.db") as by_hand:
        by_hand.execute("drop trigger audit_no_delete")
        (last,) = by_hand.execute("select max(number) from audit").fetchone()
        by_hand.execute("delete from audit where number = ?", (last,))
    async with facing(tmp_path) as face:
        verified = await face.world.ask("GET", "/audit/verify")
        assert (verified["whole"], verified["broken_at"]) == (False, last)
        assert "signed" in verified["reason"]


WRITES: dict[tuple[str, str], tuple[str, Any]] = {
    ("POST", "/workloads"): ("/workloads", {"name": "nas", "addresses": ["10.9.0.1"]}),
    ("PUT", "/labels/{name}"): ("/labels/nas", {"labels": {"app": "infra"}}),
    ("DELETE", "/workloads/{name}"): ("/workloads/nas", None),
    ("POST", "/tokens"): ("/tokens", {}),
    ("DELETE", "/tokens/{id}"): ("/tokens/{token}", None),
    ("POST", "/policy/apply"): ("/policy/apply", {"documents": {"p.yaml": DOCUMENT}, "confirm_s": 0}),
    ("POST", "/policy/revert"): ("/policy/revert", {"to": 0}),
    ("POST", "/people"): ("/people", {"name": "eve", "roles": ["viewer"], "password": SECRET}),
    ("PUT", "/people/{name}"): ("/people/eve", {"roles": ["auditor"]}),
    ("DELETE", "/people/{name}/sessions"): ("/people/eve/sessions", None),
    ("DELETE", "/people/{name}"): ("/people/eve", None),
    ("POST", "/api-tokens"): ("/api-tokens", {"name": "ci", "roles": ["viewer"]}),
    ("DELETE", "/api-tokens/{id}"): ("/api-tokens/ci", None),
    ("POST", "/orders"): ("/orders", {"kind": "contain", "ports": "tcp/445", "reason": "worm"}),
    ("DELETE", "/orders/{id}"): ("/orders/{order}", None),
}
ELSEWHERE = {
    ("POST", "/label-proposals/accept"): "needs proposals, and writes what `PUT /labels/{name}` writes",
    ("POST", "/policy/revisions/{number}/approve"): "tests/fleet/test_rollout.py",
    ("POST", "/policy/revisions/{number}/reject"): "tests/fleet/test_rollout.py",
    ("POST", "/policy/rollout/halt"): "tests/fleet/test_rollout.py",
    ("POST", "/policy/rollout/resume"): "tests/fleet/test_rollout.py",
    ("POST", "/accept-restore"): "tests/fleet/test_restored.py",
    ("DELETE", "/controllers/{name}"): "tests/fleet/test_controllers.py",
}


async def test_whatever_is_done_is_written_down_and_a_dry_run_is_not(face: Face) -> None:
    writing = {key for key, need in ROUTES.items() if key[0] != "GET" and need.right not in READING}
    assert writing == WRITES.keys() | ELSEWHERE.keys(), "add the new ones to WRITES"
    ann = await face.person("ann", "admin")

    async def newest() -> dict[str, Any]:
        return (await face.world.ask("GET", "/audit", limit=1))["items"][0]

    order = token = ""
    for (method, template), (path, body) in WRITES.items():
        before = await newest()
        path = path.format(order=order, token=token)
        if template != "/people/{name}/sessions":
            dry: dict[str, Any] = (
                {"json": {**body, "dry_run": True}} if method != "DELETE" else {"params": {"dry_run": True}}
            )
            answer = await face.client.request(method, path, headers=ann, **dry)
            assert answer.status_code < 300, (template, answer.text)
            assert await newest() == before, template
        answer = await face.client.request(method, path, json=body, headers=ann)
        assert answer.status_code < 300, (template, answer.text)
        order = answer.json()["order"]["id"] if template == "/orders" else order
        token = answer.json()["id"] if (method, template) == ("POST", "/tokens") else token
        after = await newest()
        assert (after["number"] > before["number"], after["author"]) == (True, "ann"), template
        assert after["details"]["asked"]["way"] == "password", template


# --- the command line ---


async def test_the_command_line_signs_in_elsewhere(face: Face, tmp_path: Path) -> None:
    await face.world.ask("POST", "/people", {"name": "ann", "roles": ["viewer", "auditor"], "password": SECRET})
    config = tmp_path / "config"
    env = {key: value for key, value in os.environ.items() if not key.startswith("CELLWALL_")}
    env["XDG_CONFIG_HOME"] = str(config)

    async def run(*argv: str, said: str = "") -> tuple[int, str]:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "cellwall", *argv),
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out, _ = await program.communicate(said.encode())
        assert program.returncode is not None
        return program.returncode, out.decode()

    login = ("login", "--server", face.url, "--name", "ann", "--password-file", "-")
    code, out = await run(*login, said=SECRET)
    assert (code, "is not known here" in out) == (2, True)
    code, out = await run(*login, "--fingerprint", "ab" * 32, said=SECRET)
    assert (code, "do not trust it" in out) == (4, True)
    trusted = ("--fingerprint", face.world.controller.control.authority.fingerprint)
    code, out = await run(*login, *trusted, said="not the right one")
    assert (code, "is wrong" in out) == (4, True)
    code, out = await run(*login, *trusted, said=SECRET)
    assert (code, "as ann" in out) == (0, True), out
    kept = config / "cellwall" / "session.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    code, out = await run("whoami", "-o", "json")
    assert json.loads(out)["roles"] == ["viewer", "auditor"]
    code, out = await run("workloads", "add", "x", "--address", "10.9.9.9", "--yes")
    assert (code, "may not let hosts in" in out) == (4, True)
    code, out = await run("audit", "verify")
    assert (code, "is whole" in out) == (0, True)
    # The CA is pinned: another controller in its place is not spoken to.
    code, out = await run(*login, said=SECRET)
    assert code == 0, out
    pins = config / "cellwall" / "authorities.json"
    async with facing(tmp_path / "other") as other:
        pem = other.world.controller.control.authority.pem
        pins.write_text(json.dumps({face.url: pem}))
        code, out = await run(*login, said=SECRET)
        assert (code, "not to be trusted" in out) == (5, True)
    # A program has a token, and says so in its environment.
    ca = tmp_path / "ca.pem"
    ca.write_text(face.world.controller.control.authority.pem)
    token = await face.token("ci", "viewer")
    env |= {"CELLWALL_SERVER": face.url, "CELLWALL_AUTHORITY": str(ca)}
    code, out = await run("whoami")
    assert (code, "nobody knows who asks" in out) == (4, True), out
    env["CELLWALL_TOKEN"] = token["Authorization"].removeprefix("Bearer ")
    code, out = await run("whoami", "-o", "json")
    assert json.loads(out)["name"] == "token:ci"
    for name in ("CELLWALL_SERVER", "CELLWALL_AUTHORITY", "CELLWALL_TOKEN"):
        del env[name]
    code, out = await run("logout")
    assert (code, kept.exists()) == (0, False)
    assert not (await face.world.ask("GET", "/people"))["items"][0]["sessions"][1:]
