"""Signing in with a real OpenID provider, in a browser and for the command line; and with one that lies."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from tests.contract.oidc_world import MISSING, RealProvider, brought, browse, make_keys, real_provider
from tests.fleet.controller_world import World, running
from tests.ports import free_port

CALLBACK = "http://127.0.0.1:9/callback"
ROLES = """
roles:
  admins: admin
  shop: [viewer, author@app=shop]
"""
needs_provider = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def provider() -> Iterator[RealProvider]:
    with real_provider() as found:
        yield found


def oidc_file(folder: Path, issuer: str, **more: str) -> Path:
    given = {"issuer": issuer, "client_id": "cellwall", **more}
    file = folder / "oidc.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in given.items()) + "scopes: [email, groups]\n" + ROLES)
    return file


@asynccontextmanager
async def face(folder: Path, issuer: str, **more: Any) -> AsyncGenerator[tuple[World, httpx.AsyncClient]]:
    """Run a controller with a face for people, and a client of that."""
    given = more.pop("file", {})
    people = more.pop("people", "127.0.0.1:0")
    async with running(folder, people=people, oidc=oidc_file(folder, issuer, **given), **more) as world:
        port = next(details["port"] for event, details in world.said if event == "people listen")
        context = ssl.create_default_context(cadata=world.controller.control.authority.pem)
        async with httpx.AsyncClient(verify=context, base_url=f"https://127.0.0.1:{port}/api/v1", timeout=20) as client:
            yield world, client


async def sign_in(client: httpx.AsyncClient, login: str) -> httpx.Response:
    begun = (await client.post("/session/oidc", json={"redirect": CALLBACK})).json()
    came = brought(await asyncio.to_thread(browse, begun["url"], login))
    return await finish(client, begun, **came)


async def finish(client: httpx.AsyncClient, begun: dict[str, str], **came: str) -> httpx.Response:
    body = {"state": came["state"], "code": came["code"], "secret": begun["secret"], "iss": came.get("iss")}
    return await client.post("/session/oidc/finish", json=body)


async def who(client: httpx.AsyncClient, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    headers = {"Authorization": f"Bearer {answer.json()['session']}"}
    return (await client.get("/session", headers=headers)).json()


# --- the real one ---


@needs_provider
@pytest.mark.parametrize("client_id", ["cellwall", "cellwall-secret"])
async def test_groups_of_the_provider_become_roles(tmp_path: Path, provider: RealProvider, client_id: str) -> None:
    more = {"client_id": client_id}
    if client_id == "cellwall-secret":
        (tmp_path / "secret").write_text("s3cret/with?signs\n")
        more["client_secret_file"] = str(tmp_path / "secret")
    async with face(tmp_path, provider.issuer, file=more) as (world, client):
        found = await who(client, await sign_in(client, "ann:shop,others"))
        assert (found["name"], found["way"]) == ("ann@example.com", "oidc")
        assert found["roles"] == ["viewer", "author@app=shop"]
        (entry,) = (await world.ask("GET", "/audit", action="sign in"))["items"]
        assert (entry["author"], entry["details"]["way"]) == ("ann@example.com", "oidc")


@needs_provider
async def test_who_has_no_role_is_not_let_in(tmp_path: Path, provider: RealProvider) -> None:
    async with face(tmp_path, provider.issuer) as (world, client):
        refused = await sign_in(client, "eve:nobody")
        assert refused.status_code == 401
        assert "no role" in refused.json()["detail"]
        await world.ask("POST", "/people", {"name": "eve@example.com", "roles": ["viewer"]})
        assert (await who(client, await sign_in(client, "eve:nobody")))["roles"] == ["viewer"]


@needs_provider
async def test_a_mail_address_that_is_not_verified_names_nobody(tmp_path: Path, provider: RealProvider) -> None:
    async with face(tmp_path, provider.issuer) as (_, client):
        refused = await sign_in(client, "unverified:admins")
        assert (refused.status_code, "not verified" in refused.json()["detail"]) == (403, True)


@needs_provider
async def test_an_account_with_a_password_cannot_be_taken_by_the_provider(
    tmp_path: Path, provider: RealProvider
) -> None:
    async with face(tmp_path, provider.issuer) as (world, client):
        body = {"name": "ann@example.com", "roles": ["admin"], "password": "a long enough secret"}
        await world.ask("POST", "/people", body)
        assert (await sign_in(client, "ann:shop")).status_code == 401


@needs_provider
async def test_a_sign_in_is_bound_to_who_began_it_and_happens_once(tmp_path: Path, provider: RealProvider) -> None:
    async with face(tmp_path, provider.issuer) as (_, client):
        begun = (await client.post("/session/oidc", json={"redirect": CALLBACK})).json()
        came = brought(await asyncio.to_thread(browse, begun["url"], "ann:shop"))
        stolen = await finish(client, {**begun, "secret": "another's"}, **came)
        assert stolen.status_code == 403
        # And it is used up: whoever tries to steal it ends it.
        assert (await finish(client, begun, **came)).status_code == 403
        other = await finish(client, begun, **{**came, "iss": "https://another.example.com"})
        assert "another identity provider" in other.json()["detail"]
        away = await client.post("/session/oidc", json={"redirect": "https://evil.example.com/callback"})
        assert away.status_code == 403


@needs_provider
async def test_a_browser_signs_in_and_gets_a_cookie_that_scripts_cannot_read(tmp_path: Path) -> None:
    port = free_port()
    callback = f"https://127.0.0.1:{port}/api/v1/session/oidc/callback"
    with real_provider([callback]) as provider:
        (tmp_path / "secret").write_text("s3cret/with?signs\n")
        file = {"client_id": "cellwall-web", "client_secret_file": str(tmp_path / "secret"), "redirect": callback}
        options = {"file": file, "people": f"127.0.0.1:{port}"}
        async with face(tmp_path, provider.issuer, **options) as (_, client):
            begun = await client.get("/session/oidc/browser")
            assert "SameSite=lax" in begun.headers["set-cookie"]
            back = await asyncio.to_thread(browse, begun.headers["location"], "ann:admins")
            assert back.startswith(callback)
            other = httpx.AsyncClient(verify=False)
            assert (await other.get(back)).status_code == 403
            await other.aclose()
            again = await client.get("/session/oidc/browser")
            answer = await client.get(await asyncio.to_thread(browse, again.headers["location"], "ann:admins"))
            assert answer.status_code == 200, answer.text
            cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("__Host-cellwall="))
            assert all(word in cookie for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"))
            me = (await client.get("/session")).json()
            assert me["name"] == "ann@example.com"
            refused = await client.request("DELETE", "/session")
            assert refused.status_code == 403
            elsewhere = {"X-CSRF-Token": me["csrf"], "Origin": "https://evil.example.com"}
            assert (await client.request("DELETE", "/session", headers=elsewhere)).status_code == 403
            assert (await client.request("DELETE", "/session", headers={"X-CSRF-Token": me["csrf"]})).status_code == 200
            assert (await client.get("/session")).status_code == 401


@needs_provider
async def test_rotated_keys_are_fetched_and_an_outage_ends_no_session(tmp_path: Path) -> None:
    now = [time.time()]
    with real_provider() as provider:
        async with face(tmp_path, provider.issuer, clock=lambda: now[0]) as (world, client):
            answer = await sign_in(client, "ann:shop")
            provider.stop()
            provider.start(make_keys("two"))
            now[0] += 31
            assert (await who(client, await sign_in(client, "bob:shop")))["name"] == "bob@example.com"
            provider.stop()
            begun = (await client.post("/session/oidc", json={"redirect": CALLBACK})).json()
            down = await finish(client, begun, state=begun["state"], code="x")
            assert down.status_code == 503
            assert "cannot be asked" in down.json()["detail"]
            assert (await who(client, answer))["name"] == "ann@example.com"
            await world.ask("POST", "/people", {"name": "eva", "roles": ["viewer"], "password": "a long enough secret"})
            local = await client.post("/session", json={"name": "eva", "password": "a long enough secret"})
            assert local.status_code == 201


@needs_provider
async def test_the_command_line_signs_in_with_a_browser(tmp_path: Path, provider: RealProvider) -> None:
    async with face(tmp_path, provider.issuer) as (world, client):
        home = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "BROWSER": "false"}
        home = {key: value for key, value in home.items() if key != "CELLWALL_SOCKET"}
        fingerprint = world.controller.control.authority.fingerprint
        url = str(client.base_url).removesuffix("/api/v1/")
        argv = [sys.executable, "-m", "cellwall", "login", "--server", url, "--oidc", "--no-browser"]
        program = await asyncio.create_subprocess_exec(
            *argv, "--fingerprint", fingerprint, env=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert program.stdout is not None
        await program.stdout.readline()
        go = (await program.stdout.readline()).decode().strip()
        back = await asyncio.to_thread(browse, go, "ann:shop")
        async with httpx.AsyncClient() as browser:
            assert "Done" in (await browser.get(back)).text
        out, err = await program.communicate()
        assert program.returncode == 0, err
        assert b"as ann@example.com" in out
        asked = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cellwall", "whoami", "-o", "json", env=home, stdout=subprocess.PIPE
        )
        out, _ = await asked.communicate()
        assert json.loads(out)["roles"] == ["viewer", "author@app=shop"]


# --- one that lies ---

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


class Liar(ThreadingHTTPServer):
    """A provider that answers with whatever ID token it is told to."""

    claims: dict[str, Any]
    how: dict[str, Any]

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def token(self) -> str:
        key = self.how.get("key", RSA)
        headers = {"kid": self.how.get("kid", "rsa")}
        return jwt.encode(self.claims, key, algorithm=self.how.get("algorithm", "RS256"), headers=headers)


class Answers(BaseHTTPRequestHandler):
    @property
    def liar(self) -> Liar:
        return cast("Liar", self.server)

    def do_GET(self) -> None:
        issuer = self.liar.issuer
        if self.path.endswith("openid-configuration"):
            paths = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "jwks"}
            self.answer({"issuer": issuer, **{key: f"{issuer}/{path}" for key, path in paths.items()}})
        else:
            keys = [
                {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "rsa", "use": "sig"},
                {**ECAlgorithm.to_jwk(CURVE.public_key(), as_dict=True), "kid": "curve", "alg": "ES256"},
                {"kty": "oct", "kid": "shared", "k": "c2hhcmVkLXNlY3JldC1zaGFyZWQtc2VjcmV0LXNoYXJlZA"},
            ]
            self.answer({"keys": keys})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({"id_token": self.liar.token(), "access_token": "x", "token_type": "Bearer"})

    def answer(self, body: object) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def lying() -> Generator[Liar]:
    with Liar(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


GOOD = "good"
LIES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    GOOD: ({}, {}, ""),
    "another curve, honestly": ({}, {"key": CURVE, "kid": "curve", "algorithm": "ES256"}, ""),
    "the answer to another sign-in": ({"nonce": "another"}, {}, "another sign-in"),
    "no nonce": ({"nonce": None}, {}, "another sign-in"),
    "for another client": ({"aud": "somebody"}, {}, "audience"),
    "for two clients": ({"aud": ["cellwall", "somebody"]}, {}, "another client"),
    "for another party": ({"azp": "somebody"}, {}, "another client"),
    "from another issuer": ({"iss": "https://evil.example.com"}, {}, "issuer"),
    "expired": ({"exp": -3600, "iat": -7200}, {}, "expired"),
    "old": ({"exp": 3600, "iat": -7200}, {}, "old"),
    "from the future": ({"iat": 3600, "exp": 7200}, {}, "future"),
    "without an end": ({"exp": None}, {}, "exp"),
    "signed by another": ({}, {"key": OTHER}, "signature"),
    "signed by an unknown key": ({}, {"key": OTHER, "kid": "new"}, "does not publish"),
    "not signed": ({}, {"key": None, "algorithm": "none"}, "signed with `none`"),
    "signed with a shared secret": (
        {},
        {"key": "shared-secret-shared-secret-shared", "kid": "shared", "algorithm": "HS256"},
        "signed with `HS256`",
    ),
    "signed for another algorithm": ({}, {"kid": "curve"}, "another algorithm"),
    "without a name": ({"email": None}, {}, "no `email`"),
    "a name that is none": ({"email": 5}, {}, "no `email`"),
    "an address of somebody else": ({"email_verified": "false"}, {}, "not verified"),
}


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    with lying() as found:
        yield found


async def test_only_a_token_without_a_lie_signs_in(tmp_path: Path, liar: Liar) -> None:
    async with face(tmp_path, liar.issuer) as (world, client):
        for lie, (changes, how, why) in LIES.items():
            begun = (await client.post("/session/oidc", json={"redirect": CALLBACK})).json()
            liar.how, liar.claims = how, claims(liar.issuer, brought(begun["url"])["nonce"], changes)
            answer = await finish(client, begun, state=begun["state"], code="code")
            if not why:
                assert (await who(client, answer))["roles"] == ["admin"], lie
                continue
            assert answer.status_code == 403, (lie, answer.text)
            assert why in answer.json()["detail"], lie
            newest = (await world.ask("GET", "/audit", limit=1))["items"][0]
            assert newest["action"] == "sign in refused", lie
            assert why in newest["details"]["why"], lie


def claims(issuer: str, nonce: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Give the claims of an ID token; times are given in seconds from this moment."""
    made: dict[str, Any] = {"iss": issuer, "sub": "1", "aud": "cellwall", "nonce": nonce, "iat": 0, "exp": 300}
    made |= {"email": "ann@example.com", "email_verified": True, "groups": ["admins"], **changes}
    for key in ("iat", "exp"):
        made[key] = None if made[key] is None else made[key] + int(time.time())
    return {key: value for key, value in made.items() if value is not None}


async def test_a_provider_that_is_not_who_it_should_be_is_not_asked(tmp_path: Path, liar: Liar) -> None:
    other = liar.issuer.replace("127.0.0.1", "localhost")
    async with face(tmp_path, other) as (_, client):
        answer = await client.post("/session/oidc", json={"redirect": CALLBACK})
        assert (answer.status_code, "calls itself" in answer.json()["detail"]) == (503, True)
