"""Hostile peers: at the agents' port of a real controller, and before a real agent.

For each: what is promised, what happens, and that nothing is lost: whoever was in stays in, what is in force stays in
force, the audit log is whole, and the next honest peer is served.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import structs
from tests.fleet.agent_world import ALLOW_80, ALLOW_81, Puppet, meaning, point, policy, puppet, start_agent
from tests.fleet.controller_world import (
    World,
    ask_to_enrol,
    authority,
    blind,
    call,
    enrol,
    make_request,
    running,
    until,
)
from tests.kernel.namespaces import Child, Namespace, needs_namespaces, pair
from websockets.exceptions import InvalidStatus

from cellwall.controller.api.lines import MOST_YOUNG
from cellwall.wire import (
    ENROL_PATH,
    MOST_ENROLMENT,
    Confirmed,
    Enrol,
    Enrolled,
    PointState,
    Rejected,
    encode,
    sign,
    spiffe_id,
    workload_of,
)

POLICY = """\
labels: {app: {values: [web, db]}}
rules:
  - {id: web, allow: tcp/%d, from: any, to: "app in (web, db)"}
modes: [{where: '', mode: guard}]
"""
HALF_OPEN = 10_000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    async with running(tmp_path) as made:
        yield made


@asynccontextmanager
async def nothing_lost(world: World) -> AsyncGenerator[None]:
    """Hold that an agent that was in is served before, during and after, and that the audit log is whole after."""
    honest = await world.agent("honest", "10.9.0.1", {"app": "web"})
    await honest.enforce_what_comes()
    yield
    # The same connection still carries policy, both ways.
    assert honest.name in world.controller.channel.connected
    await honest.enforce_what_comes()
    for number in (1, 2):
        revision = await world.apply(POLICY % (5000 + number), confirm_s=0)
        began = time.monotonic()
        while honest.revision != revision:
            await honest.enforce()

        async def enforced(revision: int = revision) -> bool:
            row = (await world.rollout())["honest"]
            return bool(row["state"] == "enforced" and row["revision_held"] == revision)

        await until(enforced)
        assert time.monotonic() - began < 5
    await honest.close()
    verdict = await world.ask("GET", "/audit/verify")
    assert verdict["whole"], verdict
    # The next honest peer is served.
    late = await world.agent("late", "10.9.0.2", {"app": "db"})
    await late.close()


# --- tokens ---


async def test_of_fifty_at_once_with_a_token_of_one_use_exactly_one_gets_in(world: World) -> None:
    async with nothing_lost(world):
        token = await world.token(None, labels={"app": "db"})
        asked = [
            Enrol(secret=token.secret, request=make_request()[1], name=f"host-{number}", version="1")
            for number in range(50)
        ]
        replies = await asyncio.gather(*(ask_to_enrol(world, one) for one in asked))
        let_in = [one for one in replies if isinstance(one, Enrolled)]
        assert len(let_in) == 1
        assert {one.reason for one in replies if isinstance(one, Rejected)} == {
            "the token is unknown, used up or expired; ask for a new one"
        }
        there = {one["name"] for one in (await world.ask("GET", "/workloads"))["items"]}
        assert there == {"honest", let_in[0].name}
        audit = (await world.ask("GET", "/audit", limit=1000))["items"]
        assert [one["subject"] for one in audit if one["action"] == "enrol"] == [let_in[0].name, "honest"]
        # Again with it: the answer does not tell whether there ever was such a token.
        again = await ask_to_enrol(world, structs.replace(asked[0], name="host-99"))
        never = await ask_to_enrol(world, structs.replace(asked[0], secret="x" * 43, name="host-99"))
        assert again == never and isinstance(again, Rejected)


async def test_a_request_for_another_name_gets_the_certificate_of_its_token(world: World) -> None:
    async with nothing_lost(world):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(spiffe_id("honest")), x509.DNSName("controller")]
        greedy = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "honest")]))
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = greedy.public_bytes(serialization.Encoding.PEM).decode()
        token = await world.token("mallory")
        reply = await ask_to_enrol(world, Enrol(secret=token.secret, request=pem, name="mallory"))
        assert isinstance(reply, Enrolled)
        given = x509.load_pem_x509_certificate(reply.certificate.encode())
        named = given.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [workload_of(one) for one in named.get_values_for_type(x509.UniformResourceIdentifier)] == ["mallory"]
        assert named.get_values_for_type(x509.DNSName) == []
        assert not given.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("kind", ["rsa", "another's signature", "not PEM", "empty", "huge"])
async def test_a_bad_request_for_a_certificate_is_refused_and_costs_no_use(world: World, kind: str) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    good = make_request()[1]
    match kind:
        case "rsa":
            made = builder.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256())
            pem = made.public_bytes(serialization.Encoding.PEM).decode()
        case "another's signature":
            der = bytearray(x509.load_pem_x509_csr(good.encode()).public_bytes(serialization.Encoding.DER))
            der[-4] ^= 0x55
            pem = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
        case "huge":
            pem = good + "x" * 16_000
        case "empty":
            pem = ""
        case _:
            pem = good.replace("REQUEST", "PLEASE")
    async with nothing_lost(world):
        token = await world.token("shop-1")
        reply = await ask_to_enrol(world, Enrol(secret=token.secret, request=pem, name="shop-1"))
        # What stands after a request in PEM is passed over, as OpenSSL does.
        if kind != "huge":
            assert isinstance(reply, Rejected) and "certificate request" in reply.reason
            agent = await enrol(world, token, "shop-1")
            assert agent.name == "shop-1"


async def test_a_token_of_another_controller_finds_another_authority(world: World, tmp_path: Path) -> None:
    async with running(tmp_path / "other") as other:
        foreign = await other.token("shop-1")
        with pytest.raises(AssertionError):
            await enrol(world, foreign, "shop-1")
        stranger = await enrol(other, foreign, "shop-1")
        # Its certificate is good there, and ends the handshake here.
        stranger.world = world
        with pytest.raises((ssl.SSLError, OSError, InvalidStatus)):
            await stranger.connect()
    there = (await world.ask("GET", "/workloads"))["items"]
    assert there == []


# --- bytes ---


async def test_huge_and_malformed_requests_are_answered_or_hung_up_on(world: World) -> None:
    port = world.controller.port
    head = f"POST {ENROL_PATH} HTTP/1.1\r\nHost: c\r\nContent-Length: ".encode()
    requests = {
        b"HTTP/1.1 413": head + str(MOST_ENROLMENT + 1).encode() + b"\r\n\r\n" + b"x" * 100,
        b"HTTP/1.1 411": head + b"99999999999999999999\r\n\r\n",
        b"HTTP/1.1 431": b"POST " + ENROL_PATH.encode() + b" HTTP/1.1\r\nX: " + b"a" * 20_000,
        b"HTTP/1.1 404": b"POST /etc/passwd HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403": head + b"5\r\n\r\n\xff\xff\xff\xff\xff",
    }
    garbage = random.Random(7)
    async with nothing_lost(world):
        for wanted, request in requests.items():
            answer = await asyncio.to_thread(shout, port, request)
            assert answer.startswith(wanted), (wanted, answer[:80])
        for _ in range(60):
            await asyncio.to_thread(shout, port, garbage.randbytes(garbage.randint(1, 4000)))
        # Without TLS too.
        for data in (b"GET / HTTP/1.1\r\n\r\n", garbage.randbytes(3000), b"\x16\x03\x01\xff\xff" + bytes(60)):
            await asyncio.to_thread(shout, port, data, tls=False)


def shout(port: int, data: bytes, *, tls: bool = True) -> bytes:
    """Send bytes, and give what comes back until the other end has enough."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as plain:
        line = blind().wrap_socket(plain) if tls else plain
        with suppress(OSError):
            line.sendall(data)
            if not tls:
                line.shutdown(socket.SHUT_WR)
            line.settimeout(0.5)
            found = b""
            while part := line.recv(65536):
                found += part
            return found
        return locals().get("found", b"")
    return b""


async def test_an_agent_that_talks_nonsense_loses_its_own_connection_alone(world: World) -> None:
    async with nothing_lost(world):
        mad = await world.agent("mad", "10.9.0.7", {"app": "db"})
        for nonsense in (b"", os.urandom(300), b"\xdf\xff\xff\xff\xff", encode(Confirmed(generation=1)), "text"):
            assert mad.connection is not None
            await mad.connection.send(nonsense)
            with suppress(Exception):
                async with asyncio.timeout(5):
                    while True:
                        await mad.connection.recv()
            await mad.connection.close()

            async def gone() -> bool:
                return "mad" not in world.controller.channel.connected

            await until(gone)
            await mad.connect()
        await mad.close()


# --- slowness ---


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def half_open(port: int, count: int, first: bytes) -> Generator[list[socket.socket]]:
    """Begin `count` connections, send `first` on each as far as it can be sent, and then nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    lines: list[socket.socket] = []
    try:
        for _ in range(count):
            line = socket.socket()
            line.setblocking(False)
            with suppress(BlockingIOError):
                line.connect(("127.0.0.1", port))
            lines.append(line)
        for line in lines:
            with suppress(OSError):
                line.send(first)
        yield lines
    finally:
        for line in lines:
            line.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard))


HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""The beginning of a TLS client's first words."""


@pytest.mark.parametrize("first", [b"", HELLO], ids=["silent", "half a hello"])
async def test_ten_thousand_half_open_connections_keep_nobody_out_for_long(world: World, first: bytes) -> None:
    async with nothing_lost(world):
        known = await world.agent("known", "10.9.0.3", {"app": "db"})
        await known.enforce_what_comes()
        before = memory_bytes()
        with half_open(world.controller.port, HALF_OPEN, first):
            # Who is in is served as ever, while it lasts.
            for number in (3, 4, 5):
                await world.apply(POLICY % (6000 + number), confirm_s=0)
                began = time.monotonic()
                await known.enforce()
                assert time.monotonic() - began < 5
            pressure = world.controller.channel.pressure()
            assert pressure["not_greeted_yet"] <= MOST_YOUNG
            assert memory_bytes() - before < 400 << 20

            # Room is made: those that say nothing are hung up on.
            async def hung_up() -> bool:
                return world.controller.channel.pressure()["hung_up_not_greeted"] >= 100

            await until(hung_up, within_s=40)
        await known.close()


async def test_one_byte_a_second_is_not_waited_for(world: World) -> None:
    async with nothing_lost(world):
        context = blind()
        port = world.controller.port

        async def dribble(request: bytes) -> float:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            began = time.monotonic()
            with suppress(OSError):
                for byte in request * 4:
                    writer.write(bytes((byte,)))
                    await writer.drain()
                    await asyncio.sleep(0.25)
            writer.close()
            return time.monotonic() - began

        post = f"POST {ENROL_PATH} HTTP/1.1\r\nContent-Length: 200\r\n\r\n".encode()
        slow = [
            asyncio.create_task(dribble(one))
            for one in (post, b"GET /v1/agent HTTP/1.1\r\nX: y\r\n")
            for _ in range(20)
        ]
        # Meanwhile others are answered at once.
        began = time.monotonic()
        assert (await asyncio.to_thread(call, port, context, "GET", "/v1/health"))[0] == 200
        assert (await authority(world)).startswith("-----BEGIN")
        assert time.monotonic() - began < 10
        # However steadily it dribbles: a greeting that is not over within 15 s is no greeting.
        lasted = await asyncio.gather(*slow)
        assert max(lasted) < 22


# --- before an agent ---


@needs_namespaces
def test_nothing_that_is_not_signed_for_it_and_newer_changes_a_host(tmp_path: Path) -> None:
    with pair() as (client, web), puppet(client, tmp_path / "keys") as controller:
        state = tmp_path / "state"
        controller.enrol(state)
        with running_agent(web, state, controller) as agent:
            first = controller.bundle(point(policy(ALLOW_80), 1))
            controller.send(first)
            controller.receipt(first.generation, PointState.ENFORCED)
            held = meaning(web)
            assert held
            for what, evil in evils(controller, first):
                controller.send_raw(evil)
                assert agent.alive(), what
            # The agent has heard all of it once it answers something that came after.
            last = controller.bundle(point(policy(ALLOW_80), 1))
            assert meaning(web) == held
            controller.send(last)
            controller.receipt(last.generation, PointState.ENFORCED)
            assert meaning(web) == held
            # What is signed, for it, and newer, is in force at once.
            newer = controller.bundle(point(policy(ALLOW_81), 2))
            controller.send(newer)
            controller.receipt(newer.generation, PointState.ENFORCED)
            assert meaning(web) != held
            # An older one, signed as well as ever, is not.
            held = meaning(web)
            controller.send(first)
            time.sleep(0.5)
            assert meaning(web) == held and agent.alive()
            said = [json.loads(line) for line in (state / "log").read_text("utf-8").splitlines()]
            assert all(list(one)[:3] == ["at", "level", "event"] for one in said)
            metrics = (state / "metrics.prom").read_text("utf-8")
            assert "cellwall_agent_written_timestamp_seconds" in metrics


@contextmanager
def running_agent(web: Namespace, state: Path, controller: Puppet) -> Generator[Child]:
    child = start_agent(web, state)
    try:
        until_s = time.monotonic() + 20
        while not controller.connections:
            assert child.alive() and time.monotonic() < until_s, (state / "log").read_text()
            time.sleep(0.02)
        time.sleep(0.05)
        yield child
    finally:
        child.stop()


def evils(controller: Puppet, good: Any) -> list[tuple[str, bytes | str]]:
    """What a hostile controller, or one on the way, could send: each would open port 81 if it were believed."""
    data = encode(good)
    stranger = Ed25519PrivateKey.generate()
    opening = structs.replace(controller.bundle(point(policy(ALLOW_81), 2)), generation=50)
    chance = random.Random(11)
    found: list[tuple[str, bytes | str]] = [
        ("garbage", chance.randbytes(5000)),
        ("nothing", b""),
        ("text", "hello"),
        ("signed by a stranger", encode(sign(opening, stranger))),
        ("for another host", encode(sign(structs.replace(opening, workload="db"), controller.authority.bundle_key))),
        ("not signed", encode(structs.replace(opening, signature=b""))),
        ("signed before it was changed", encode(structs.replace(opening, revision=9))),
        ("replayed", data),
        ("replayed twice", data),
        ("of generation 0", encode(sign(structs.replace(opening, generation=0), controller.authority.bundle_key))),
        ("a length that is not there", b"\xdf\xff\xff\xff\xff" + data),
    ]
    found += [(f"cut at {at}", data[:at]) for at in range(1, len(data), max(len(data) // 12, 1))]
    for _ in range(60):
        changed = bytearray(encode(opening))
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        found.append(("with a changed bit", bytes(changed)))
    return found


async def test_a_token_that_was_revoked_lets_nobody_in_and_whoever_came_by_it_stays(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        token = await world.token(uses=2, labels={"app": "shop"})
        agent = await enrol(world, token, "web-1")
        await agent.connect()
        (row,) = (await world.ask("GET", "/tokens"))["items"]
        assert (row["used"], row["usable"]) == (1, True)
        await world.ask("DELETE", f"/tokens/{row['id']}", dry_run=True)
        await world.ask("DELETE", f"/tokens/{row['id']}")
        refused = await ask_to_enrol(world, Enrol(token.secret, make_request()[1], "web-2"))
        assert isinstance(refused, Rejected), refused
        assert "unknown, used up or expired" in refused.reason
        assert (await world.ask("GET", "/workloads/web-1"))["point"]
        (row,) = (await world.ask("GET", "/tokens"))["items"]
        assert not row["usable"]
        assert "has ended already" in (await world.ask("DELETE", f"/tokens/{row['id']}", status=409))["detail"]
        await world.ask("DELETE", "/tokens/unknown", status=404)
        await agent.close()
