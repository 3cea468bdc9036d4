"""A controller on loopback, and an agent that speaks the protocol and enforces nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import ClientConnection, connect

from cellwall.compile import Ruleset
from cellwall.controller import ControllerOptions
from cellwall.controller.loop import Controller
from cellwall.wire import (
    AGENT_PATH,
    AUTHORITY_PATH,
    ENROL_PATH,
    Bundle,
    Enrol,
    Enrolled,
    Facts,
    FromAgent,
    FromController,
    Hello,
    Holding,
    MemberChange,
    PointState,
    Receipt,
    Rejected,
    Token,
    Welcome,
    apply_change,
    decode_enrolment_reply,
    decode_from_controller,
    decode_members,
    decode_orders,
    decode_ruleset,
    digest,
    encode,
    fingerprint,
    parse_token,
    verify,
)

T = TypeVar("T")
WAIT_S = 10.0


@dataclass
class World:
    """A running controller, with a client of its API."""

    controller: Controller
    people: httpx.AsyncClient
    folder: Path
    said: list[tuple[str, dict[str, object]]] = field(default_factory=list[tuple[str, dict[str, object]]])

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.controller.port}"

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        status: int | None = None,
        query: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Any:
        answer = await self.people.request(method, path, json=body, params={**(query or {}), **more})
        assert answer.status_code == status or (status is None and answer.status_code < 300), answer.text
        return answer.json()

    async def token(self, workload: str | None = None, **more: Any) -> Token:
        answer = await self.ask("POST", "/tokens", {"workload": workload, **more})
        return parse_token(answer["token"])

    async def apply(self, text: str, **more: Any) -> int:
        answer = await self.ask("POST", "/policy/apply", {"documents": {"policy.yaml": text}, **more})
        return int(answer["revision"])

    async def rollout(self) -> dict[str, dict[str, Any]]:
        return {row["workload"]: row for row in (await self.ask("GET", "/policy/rollout"))["items"]}

    async def agent(self, name: str, address: str, labels: dict[str, str] | None = None, newest: int = 1) -> Agent:
        """Enrol an agent, of a newest protocol, and connect it."""
        agent = await enrol(self, await self.token(name, labels=labels or {}), name)
        agent.newest = newest
        await agent.connect()
        await agent.say(Facts(addresses=(ip_address(address).packed,), hostname=name))

        async def known() -> bool:
            return bool((await self.ask("GET", f"/workloads/{name}"))["facts"])

        await until(known)
        return agent


@asynccontextmanager
async def running(folder: Path, clock: Callable[[], float] | None = None, **options: Any) -> AsyncGenerator[World]:
    """Run a controller until the block ends."""
    socket = folder / "api.sock"
    given = ControllerOptions(
        options.pop("data", folder / "data"),
        listen=options.pop("listen", "127.0.0.1:0"),
        advertise=options.pop("advertise", ("https://127.0.0.1:7443",)),
        socket=socket,
        flows=options.pop("flows", "memory"),
        **options,
    )
    said: list[tuple[str, dict[str, object]]] = []

    def log(event: str, /, **details: object) -> None:
        said.append((event, details))

    async with AsyncExitStack() as stack:
        controller = Controller(given, log, **({"clock": clock} if clock else {}))
        await controller.open(stack)
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        people = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://controller/api/v1", timeout=30)
        )
        yield World(controller, people, folder, said)


def make_request(key: ec.EllipticCurvePrivateKey | None = None) -> tuple[str, str]:
    """Make a key and the request for its certificate, both PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), request.public_bytes(serialization.Encoding.PEM).decode()


def blind() -> ssl.SSLContext:
    """A client that believes anyone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def call(port: int, context: ssl.SSLContext, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Make one HTTPS request."""
    connection = HTTPSConnection("127.0.0.1", port, timeout=WAIT_S, context=context)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


async def authority(world: World) -> str:
    """Fetch the controller's CA, as PEM."""
    status, body = await asyncio.to_thread(call, world.controller.port, blind(), "GET", AUTHORITY_PATH)
    assert status == 200
    return body.decode()


async def ask_to_enrol(world: World, asked: Enrol) -> Enrolled | Rejected:
    """Post a request to enrol, over TLS verified by the CA."""
    context = ssl.create_default_context(cadata=await authority(world))
    _, body = await asyncio.to_thread(call, world.controller.port, context, "POST", ENROL_PATH, encode(asked))
    return decode_enrolment_reply(body)


async def enrol(world: World, token: Token, name: str) -> Agent:
    """Enrol, checking what an agent checks."""
    pem = await authority(world)
    assert fingerprint(ssl.PEM_cert_to_DER_cert(pem.strip())) == token.authority
    key, request = make_request()
    reply = await ask_to_enrol(world, Enrol(secret=token.secret, request=request, name=name, version="1"))
    assert isinstance(reply, Enrolled), reply
    return Agent(world, reply, key)


@dataclass
class Agent:
    """An agent without a kernel: it verifies and keeps what it is sent, and says what it is told to say."""

    world: World
    enrolled: Enrolled
    key: str
    ruleset: Ruleset | None = None
    members: dict[bytes, int] = field(default_factory=dict[bytes, int])
    generation: int = 0
    revision: int = 0
    highest: int = 0
    newest: int = 1
    connection: ClientConnection | None = None
    heard: list[FromController] = field(default_factory=list[FromController])

    @property
    def name(self) -> str:
        return self.enrolled.name

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.enrolled.authority)
        path = self.world.folder / f"{self.name}.pem"
        path.write_text(self.enrolled.certificate + self.key)
        context.load_cert_chain(path)
        return context

    async def connect(self) -> Welcome:
        """Connect and say hello."""
        url = f"wss://127.0.0.1:{self.world.controller.port}{AGENT_PATH}"
        self.connection = await connect(url, ssl=self.context(), max_size=None)
        holding, highest = self.holding(), self.highest
        await self.say(Hello(name=self.name, version="1", newest=self.newest, holding=holding, highest=highest))
        welcome = await self.hear()
        assert isinstance(welcome, Welcome), welcome
        return welcome

    async def say(self, message: FromAgent) -> None:
        assert self.connection is not None
        await self.connection.send(encode(message))

    async def hear(self) -> FromController:
        assert self.connection is not None
        async with asyncio.timeout(WAIT_S):
            data = await self.connection.recv()
        assert isinstance(data, bytes)
        return decode_from_controller(data)

    async def hear_a(self, kind: type[T]) -> T:
        """Hear until a message of one kind comes; what came before is kept in `heard`."""
        while True:
            message = await self.hear()
            if isinstance(message, kind):
                return message
            self.heard.append(message)

    async def hears_nothing(self, for_s: float = 0.4) -> bool:
        """Say whether nothing comes for a while that changes what is to be held."""
        try:
            async with asyncio.timeout(for_s):
                self.heard.append(await self.hear_policy())
        except TimeoutError:
            return True
        return False

    async def enforce_what_comes(self) -> None:
        """Hold whatever has come to be held, and say so."""
        while True:
            try:
                async with asyncio.timeout(0.05):
                    message = await self.hear_policy()
            except TimeoutError:
                return
            self.take(message)
            await self.report(PointState.ENFORCED)

    def holding(self) -> Holding:
        if self.ruleset is None:
            return Holding()
        return Holding(generation=self.generation, revision=self.revision, digest=digest(self.ruleset, self.members))

    def take(self, message: Bundle | MemberChange) -> None:
        """Verify a message and hold what it says."""
        verify(message, self.enrolled.bundle_key, self.name)
        assert message.generation > self.highest
        if isinstance(message, Bundle):
            self.ruleset, self.members = decode_ruleset(message.ruleset), decode_members(message.members)
        else:
            assert message.base == self.generation
            added = decode_members(message.added) if message.added else {}
            self.members = apply_change(self.members, added, message.removed)
            if message.orders is not None:
                assert self.ruleset is not None
                self.ruleset = replace(self.ruleset, orders=decode_orders(message.orders))
        self.generation = self.highest = message.generation
        self.revision = message.revision
        if isinstance(message, MemberChange):
            assert self.holding().digest == message.digest

    async def report(self, state: PointState, reason: str = "") -> None:
        await self.say(Receipt(generation=self.highest, state=state, reason=reason, holding=self.holding()))

    async def enforce(self) -> Bundle | MemberChange:
        """Hear what is to be held, hold it, and say so."""
        message = await self.hear_policy()
        self.take(message)
        await self.report(PointState.ENFORCED)
        return message

    async def hear_policy(self) -> Bundle | MemberChange:
        while True:
            message = await self.hear()
            if isinstance(message, Bundle | MemberChange):
                return message
            self.heard.append(message)

    async def close(self) -> None:
        if self.connection is not None:
            await self.connection.close()


async def until(true: Callable[[], Any], what: str = "it", within_s: float = WAIT_S) -> Any:
    """Wait until an awaited question is answered with something true."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        answer = await true()
        if answer:
            return answer
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come true"
        await asyncio.sleep(0.05)
