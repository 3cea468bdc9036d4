"""People with little right, and nobody at all, at the people's face of a real controller."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from tests.fleet.test_people import Face, facing, fleet

from cellwall.controller.api import crowd
from cellwall.controller.api.door import _at_socket as at_the_socket  # pyright: ignore[reportPrivateUsage]

RULES = """
labels: {app: {}, role: {}}
rules:
  - {id: shop, allow: tcp/5432, from: "app=shop,role=web", to: "app=shop,role=db", reason: secret of the shop}
  - {id: till, allow: tcp/5432, from: "app=till", to: "app=till,role=db", reason: secret of the till}
"""


@pytest.fixture
async def face(tmp_path: Path) -> AsyncIterator[Face]:
    async with facing(tmp_path) as found:
        yield found


# --- approvals ---


async def proposed(face: Face, headers: dict[str, str], port: int) -> str:
    """Propose a change that needs consent; where to agree to it."""
    body = {"documents": {"p.yaml": (RULES + APPROVED).replace("5432", str(port))}, "confirm_s": 0}
    answer = await face.client.post("/policy/apply", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "proposed", answer.text
    return f"/policy/revisions/{answer.json()['revision']}/approve"


APPROVED = "approvals: [{where: app=shop, reviewers: 2}]\n"


async def guarded(face: Face) -> None:
    await face.world.apply(RULES + APPROVED, confirm_s=0)
    await fleet(face.world)
    await face.world.agent("shop-agent", "10.0.0.9", {"app": "shop", "role": "db"})


async def test_nobody_agrees_to_what_their_own_program_proposed(face: Face) -> None:
    await guarded(face)
    ann = await face.person("ann", "admin")
    made = await face.client.post("/api-tokens", json={"name": "ci", "roles": ["author"]}, headers=ann)
    path = await proposed(face, {"Authorization": f"Bearer {made.json()['token']}"}, 1111)
    answer = await face.client.post(path, json={}, headers=ann)
    assert (answer.status_code, "same person" in answer.text) == (403, True), answer.text
    # Nor once the token is gone.
    await face.client.delete("/api-tokens/ci", headers=ann)
    assert (await face.client.post(path, json={}, headers=ann)).status_code == 403


async def test_a_person_and_their_programs_are_one_reviewer(face: Face) -> None:
    await guarded(face)
    eve, ann = await face.person("eve", "author"), await face.person("ann", "admin")
    path = await proposed(face, eve, 2222)
    tokens: list[dict[str, str]] = []
    for name in ("one", "two"):
        made = await face.client.post("/api-tokens", json={"name": name, "roles": ["reviewer"]}, headers=ann)
        tokens.append({"Authorization": f"Bearer {made.json()['token']}"})
    first = await face.client.post(path, json={}, headers=tokens[0])
    assert (first.status_code, first.json()["state"]) == (200, "proposed")
    for who in (tokens[1], ann):
        again = await face.client.post(path, json={}, headers=who)
        assert (again.status_code, "already" in again.text) == (403, True), again.text
    # A token that was taken away has agreed to nothing.
    await face.client.delete("/api-tokens/one", headers=ann)
    second = await face.client.post(path, json={}, headers=ann)
    assert (second.status_code, second.json()["state"]) == (200, "proposed")
    bob = await face.person("bob", "reviewer")
    last = await face.client.post(path, json={}, headers=bob)
    assert (last.status_code, last.json()["state"]) == (200, "rolling")


async def test_an_approval_is_let_go_by_those_whose_it_is(face: Face) -> None:
    await guarded(face)
    eve = await face.person("eve", "author")
    bob = await face.person("bob", "reviewer@app=till")
    body = {"documents": {"p.yaml": RULES}, "confirm_s": 0}
    answer = await face.client.post("/policy/apply", json=body, headers=eve)
    assert answer.json()["state"] == "proposed", answer.text
    path = f"/policy/revisions/{answer.json()['revision']}/approve"
    refused = await face.client.post(path, json={}, headers=bob)
    assert (refused.status_code, "the approval for `app=shop`" in refused.text) == (403, True), refused.text


async def test_who_has_to_agree_is_asked_of_the_fleet_as_it_is_by_then(face: Face) -> None:
    apart = "approvals: [{where: app=shop, reviewers: 1}, {where: app=till, reviewers: 2}]\n"
    await face.world.apply(RULES + apart, confirm_s=0)
    await fleet(face.world)
    await face.world.agent("one", "10.0.0.9", {"app": "shop", "role": "db"})
    eve, zoe, yan = [
        await face.person(name, role) for name, role in (("eve", "author"), ("zoe", "reviewer"), ("yan", "reviewer"))
    ]
    text = (RULES + apart).replace(
        "  - {id: till", "  - {id: ping, allow: icmp, from: role=web, to: role=db}\n  - {id: till"
    )
    answer = await face.client.post("/policy/apply", json={"documents": {"p.yaml": text}, "confirm_s": 0}, headers=eve)
    assert [one["where"] for one in answer.json()["approvals"]] == ["app=shop"], answer.text
    # What was a shop is a till before anybody agrees: then two have to.
    await face.world.ask("PUT", "/labels/one", {"labels": {"app": "till"}})
    path = f"/policy/revisions/{answer.json()['revision']}/approve"
    for who, state in ((zoe, "proposed"), (yan, "rolling")):
        said = await face.client.post(path, json={}, headers=who)
        assert (said.status_code, said.json()["state"]) == (200, state), said.text


# --- who says nothing ---


@contextmanager
def idle(face: Face, count: int, source: str, *, shaken: bool) -> Generator[list[socket.socket]]:
    """Open connections and say nothing, before TLS or after it."""
    port = int(face.url.rpartition(":")[2])
    lines: list[socket.socket] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        for _ in range(count):
            line = socket.create_connection(("127.0.0.1", port), 5, source_address=(source, 0))
            with suppress(OSError):
                lines.append(context.wrap_socket(line) if shaken else line)
        yield lines
    finally:
        for line in lines:
            line.close()


async def answered(face: Face, source: str) -> float:
    """Ask as somebody else; how long that took."""
    context = ssl.create_default_context(cadata=face.world.controller.control.authority.pem)
    began = time.monotonic()
    transport = httpx.AsyncHTTPTransport(verify=context, local_address=source)
    async with httpx.AsyncClient(transport=transport, base_url=face.client.base_url, timeout=5) as client:
        assert (await client.get("/session/ways")).status_code == 200
    return time.monotonic() - began


@pytest.mark.parametrize("shaken", [False, True], ids=["before TLS", "after TLS"])
async def test_hundreds_that_say_nothing_keep_nobody_out(face: Face, shaken: bool) -> None:
    many = idle(face, 600, "127.0.0.3", shaken=shaken)
    await asyncio.to_thread(many.__enter__)
    try:
        for source in ("127.0.0.4", "127.0.0.5"):
            assert await answered(face, source) < 2
    finally:
        many.__exit__(None, None, None)


async def test_who_says_nothing_is_not_waited_for(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "ASKING_S", 0.5)
    monkeypatch.setattr(crowd, "SHAKING_S", 0.5)

    def quiet() -> float:
        with idle(face, 1, "127.0.0.3", shaken=True) as (line,):
            # The head of a request that never ends.
            line.sendall(b"GET /api/v1/session/ways HTTP/1.1\r\nHost: c\r\nX: ")
            began = time.monotonic()
            line.settimeout(5)
            with suppress(ConnectionError):
                assert line.recv(100) == b""
            return time.monotonic() - began

    assert await asyncio.to_thread(quiet) < 2

    def before_tls() -> bool:
        with idle(face, 3, "127.0.0.3", shaken=False) as lines:
            time.sleep(0.7)
            # The next that comes is the moment at which they are looked after.
            with idle(face, 1, "127.0.0.6", shaken=True):
                for line in lines:
                    line.settimeout(5)
                    with suppress(ConnectionError):
                        assert line.recv(100) == b""
        return True

    assert await asyncio.to_thread(before_tls)
    # Who asks one thing after another on the same connection is not hung up on.
    for _ in range(3):
        await asyncio.sleep(0.3)
        assert (await face.client.get("/session/ways")).status_code == 200


# --- who sees a part of the fleet only ---


async def test_who_sees_one_app_learns_nothing_of_the_others(face: Face) -> None:
    await fleet(face.world)
    await face.world.agent("till-agent", "10.0.0.8", {"app": "till", "role": "db"})
    await face.world.agent("shop-agent", "10.0.0.9", {"app": "shop", "role": "db"})
    await face.world.apply(RULES, confirm_s=0)
    spy = await face.token("spy", "viewer@app=shop")
    # An oracle: a test that fails names who it fails at.
    oracle = "tests: [{id: who, from: any, cannot: any, to: any}]\nmodes: [{where: '', mode: observe}]\n"
    asked: list[tuple[str, str, dict[str, str] | None]] = [
        ("GET", "/status", None),
        ("GET", "/workloads", None),
        ("GET", "/policy/rollout", None),
        ("GET", "/policy/revisions", None),
        ("GET", "/policy/proposals", None),
        ("GET", "/policy/tests", None),
        ("GET", "/policy", None),
        ("GET", "/policy/revisions/1", None),
        ("GET", "/policy/diff?a=0&b=1", None),
        ("GET", "/flows", None),
        ("GET", "/map", None),
        ("GET", "/labels", None),
        ("GET", "/denials", None),
        ("GET", "/orders", None),
        ("POST", "/policy/check", {"p.yaml": RULES + oracle}),
        ("POST", "/policy/plan", {"p.yaml": RULES + oracle}),
        ("POST", "/replay", {"p.yaml": RULES + oracle}),
    ]
    for method, path, documents in asked:
        body = {"documents": documents} if documents else None
        answer = await face.client.request(method, path, json=body, headers=spy)
        assert answer.status_code in (200, 403), (path, answer.text)
        for secret in ("till-agent", "till-db", "secret of the till"):
            assert secret not in answer.text, (path, answer.text)
        # Whoever sees everything gets it all.
        whole = await face.client.request(method, path, json=body, headers=await all_seeing(face))
        assert whole.status_code == 200, (path, whole.text)
    # What is theirs they see.
    rows = (await face.client.get("/policy/rollout", headers=spy)).json()["items"]
    assert [one["workload"] for one in rows] == ["shop-agent"]
    checked = await face.client.post("/policy/check", json={"documents": {"p.yaml": RULES + oracle}}, headers=spy)
    assert "shop-agent" in checked.text


async def all_seeing(face: Face) -> dict[str, str]:
    if "all" not in {one["name"] for one in (await face.world.ask("GET", "/api-tokens"))["items"]}:
        SEEING.update(await face.token("all", "viewer"))
    return SEEING


SEEING: dict[str, str] = {}


async def test_a_document_of_who_sees_little_is_no_longer_than_a_policy_of_theirs(face: Face) -> None:
    spy = await face.token("spy", "viewer@app=shop")
    text = "rules:\n" + "".join(f"  - {{id: r{n}, allow: tcp/{n}, from: any, to: any}}\n" for n in range(1, 8000))
    for path in ("/policy/check", "/policy/plan", "/replay"):
        answer = await face.client.post(path, json={"documents": {"p.yaml": text}}, headers=spy)
        assert (answer.status_code, "at most" in answer.text) == (403, True), answer.text


async def test_reading_documents_holds_nobody_up(face: Face) -> None:
    reader = await face.token("ci", "viewer")
    text = "networks:\n  a: [" + ", ".join(f"10.{n % 250}.{n // 250}.0/24" for n in range(60_000)) + "]\nn: 1\n"
    turns = 0

    async def pulse() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    beating = asyncio.create_task(pulse())
    answer = await face.client.post("/policy/plan", json={"documents": {"p.yaml": text}}, headers=reader)
    beating.cancel()
    # It ends with a fault at its last line, after all of it was read.
    assert answer.status_code == 422, answer.text
    # Read by the loop itself, it lets in two, while the request comes and the answer goes.
    assert turns > 8


# --- other sites, and other ways in ---


async def test_another_site_signs_nobody_in(face: Face) -> None:
    await face.person("ann", "viewer")
    body = {"name": "ann", "password": "a long enough secret", "cookie": True}
    refused = await face.client.post("/session", json=body, headers={"Origin": "https://evil.example"})
    assert (refused.status_code, "another site" in refused.text) == (403, True)
    assert "set-cookie" not in refused.headers
    # A program says no origin, our own pages say ours.
    assert (await face.client.post("/session", json=body)).status_code == 201
    face.client.cookies.clear()
    assert (await face.client.post("/session", json=body, headers={"Origin": face.url})).status_code == 201


@pytest.mark.parametrize("user", ["controller", "nobody"])
def test_a_user_named_as_the_controller_is_not_taken_for_it(user: str) -> None:
    name = at_the_socket({"client": (user, 1)}).name
    assert name == f"user {user}"
    assert at_the_socket({"client": ("root", 1)}).name == "root"
