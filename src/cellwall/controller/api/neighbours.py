"""What controllers ask each other directly: what each of them has seen. Over the agents' port, with mutual TLS.

    Neighbours ── a thread for each that is asked ── Abroad ══ GET /v1/controller, 101, then frames ══╗
    the agents' port ── Channel.adopt ── Attendants: a thread for each connection ── FlowStore.forward ╝

Only a certificate of our CA that names a controller of this database is let in, and only questions are answered that
read. Whoever is asked says its name, so that an address which leads elsewhere is noticed.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic, time
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import msgspec

from cellwall.controller.cluster.peers import Peers
from cellwall.controller.options import parse_url
from cellwall.controller.store.cluster import Peer
from cellwall.controller.store.flows import (
    ASKED,
    FlowAsker,
    FlowStoreError,
    OwnFlows,
    Parted,
    receive_frame,
    send_frame,
)
from cellwall.controller.store.missing import missing, note_missing
from cellwall.controller.trust.ca import Authority
from cellwall.traffic import CellwallError

T = TypeVar("T")
PATH, NAME = "/v1/controller", "cellwall-controller"
"""Where a controller asks on the agents' port, and the header that names the one it wants."""
CONTROLLER = "spiffe://cellwall/controller/"
"""How the name begins that a controller's certificate has (SPIFFE-ID standard, §2)."""
DIAL_S, ANSWER_S, SLACK_S = 2.0, 30.0, 60.0
"""How long a connection, and an answer, is waited for; and how far the clocks of agents may be apart."""
IDLE_S, MOST_ASKED, MOST_ANSWERING = 300.0, 16, 64
FRESH_S, CERTIFICATE_DAYS = 86_400.0, 7
MOST_HEAD, MOST_REQUEST = 8192, 1 << 20
_CALL = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])


class Abroad(FlowAsker):
    """The flow store of another controller."""

    def __init__(self, peer: Peer, context: Callable[[], ssl.SSLContext]) -> None:
        self.peer, self._context = peer, context
        self._idle: list[ssl.SSLSocket] = []

    def close(self) -> None:
        """Hang up."""
        while self._idle:
            self._idle.pop().close()

    def _ask(self, call: str, *arguments: Any) -> Any:
        request, until = msgspec.msgpack.encode((call, arguments)), monotonic() + ANSWER_S
        try:
            fault, result = msgspec.msgpack.decode(self._answer(request, until))
        except TimeoutError:
            raise FlowStoreError(f"it did not answer within {ANSWER_S:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise FlowStoreError(f"who answers there is another: {error.verify_message.lower()}") from None
        except EOFError:
            raise FlowStoreError("it went away in the middle of its answer") from None
        except (OSError, ValueError) as error:
            raise FlowStoreError(
                f"it cannot be reached: {str(getattr(error, 'strerror', '') or error).lower()}"
            ) from None
        if fault is not None:
            raise FlowStoreError(str(fault))
        return result

    def _answer(self, request: bytes, until: float) -> bytes:
        while True:
            try:
                connection, kept = self._idle.pop(), True
            except IndexError:
                connection, kept = self._dial(), False
            try:
                send_frame(connection, request)
                answer = receive_frame(connection, until=until)
            except (OSError, EOFError) as error:
                connection.close()
                # One that was kept may have ended long ago.
                if kept and not isinstance(error, TimeoutError):
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            return answer

    def _dial(self) -> ssl.SSLSocket:
        last: OSError | FlowStoreError = FlowStoreError("it has told no address")
        for url in self.peer.urls:
            try:
                return self._dial_at(url)
            except (OSError, FlowStoreError) as error:
                last = error
        raise last

    def _dial_at(self, url: str) -> ssl.SSLSocket:
        at = parse_url(url)
        raw = socket.create_connection((at.host, at.port), DIAL_S)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self._context().wrap_socket(raw, server_hostname=at.host)
        except BaseException:
            raw.close()
            raise
        try:
            wanted = quote(self.peer.name, safe="")
            words = (f"GET {PATH} HTTP/1.1", f"Host: {at}", "Connection: Upgrade", "Upgrade: cellwall")
            connection.sendall("\r\n".join((*words, f"{NAME}: {wanted}", "", "")).encode())
            head = b""
            while b"\r\n\r\n" not in head and len(head) < MOST_HEAD and (more := connection.recv(MOST_HEAD)):
                head += more
        except BaseException:
            connection.close()
            raise
        status = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if status[1:2] == ["101"]:
            return connection
        connection.close()
        if status[1:2] == ["404"]:
            raise FlowStoreError(f"it is of version {self.peer.version}, which cannot be asked")
        why = head.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").strip()
        raise FlowStoreError(why[:300] or f"`{url}` is not a controller")


class Neighbours:
    """The other controllers' flow stores; see `Others`. Any thread may ask."""

    def __init__(self, peers: Peers, authority: Authority, log: Callable[..., None]) -> None:
        self._peers, self._authority, self._log = peers, authority, log
        self._abroad: dict[str, Abroad] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(MOST_ASKED, "flows")
        self._made: tuple[float, ssl.SSLContext] | None = None

    def close(self) -> None:
        """Hang up on all, and wait for nobody."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for one in self._abroad.values():
            one.close()

    def some(self, since: float) -> bool:
        """Whether another controller may have flows that were seen since a moment; who is gone is noted as missing."""
        return bool(self._there(since))

    def ask(self, question: Callable[[str, Parted], T], own: Parted, since: float) -> Mapping[str, T]:
        """Ask all of them, and `own` under the name ``""``, at once; who does not answer is noted as missing."""
        until = monotonic() + ANSWER_S
        asked = {one.name: self._pool.submit(question, one.name, self._at(one)) for one in self._there(since)}
        found = {"": question("", own)}
        for name, answer in asked.items():
            try:
                found[name] = answer.result(max(until - monotonic(), 0.0))
            except (FlowStoreError, TimeoutError) as error:
                why = str(error) or f"it did not answer within {ANSWER_S:g} s"
                note_missing(name, why)
                self._log("flows of another controller are missing", level="warning", name=name, why=why)
        return found

    def _there(self, since: float) -> tuple[Peer, ...]:
        """Give whom to ask; of who is gone, say that what it has seen is missing, if it was there since then."""
        known, gone = missing(), self._peers.gone
        for peer in self._peers.others:
            if peer.name in gone and peer.seen + SLACK_S >= since:
                at = datetime.fromtimestamp(peer.seen, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                note_missing(peer.name, f"gone since {at}")
        return tuple(one for one in self._peers.others if one.name not in known and one.name not in gone)

    def _at(self, peer: Peer) -> Abroad:
        with self._lock:
            found = self._abroad.get(peer.name)
            if found is None or found.peer.urls != peer.urls:
                if found is not None:
                    found.close()
                found = self._abroad[peer.name] = Abroad(peer, self._context)
            return found

    def _context(self) -> ssl.SSLContext:
        """Give the TLS side of who asks, with a certificate that is not old."""
        with self._lock:
            now = time()
            if self._made is None or not 0 <= now - self._made[0] < FRESH_S:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.load_verify_locations(cadata=self._authority.pem)
                uri = CONTROLLER + quote(self._peers.me.name, safe="")
                show_as(context, self._authority.issue_controller(uri, CERTIFICATE_DAYS, now))
                self._made = now, context
            return self._made[1]


class Attendants:
    """Answers other controllers, each connection in a thread of its own."""

    def __init__(self, flows: OwnFlows, peers: Peers, log: Callable[..., None]) -> None:
        self._flows, self._peers, self._log = flows, peers, log
        self._open: set[ssl.SSLSocket] = set()
        self._closed = False

    def refuse(self, tls: ssl.SSLSocket, wanted: str) -> tuple[HTTPStatus, str] | None:
        """Look at who asks to ask us, and for whom; give the answer that turns it away, or None."""
        shown: dict[str, Any] = tls.getpeercert() or {}
        uris = [str(value) for kind, value in shown.get("subjectAltName", ()) if kind == "URI"]
        name = unquote(uris[0].removeprefix(CONTROLLER)) if len(uris) == 1 and uris[0].startswith(CONTROLLER) else ""
        if name not in (one.name for one in self._peers.others):
            return HTTPStatus.FORBIDDEN, "only a controller of this database may ask\n"
        if unquote(wanted) != self._peers.me.name:
            why = f"its address leads to controller `{self._peers.me.name}`; give each one an address of its own"
            return HTTPStatus.MISDIRECTED_REQUEST, f"{why} with --advertise\n"
        if len(self._open) >= MOST_ANSWERING:
            return HTTPStatus.SERVICE_UNAVAILABLE, "it is asked too much at once; try later\n"
        return None

    def attend(self, tls: ssl.SSLSocket) -> None:
        """Answer all that is asked on a connection, until it ends."""
        self._open.add(tls)
        threading.Thread(target=self._talk, args=(tls,), name="neighbour", daemon=True).start()

    def close(self) -> None:
        """Hang up on all of them."""
        for tls in tuple(self._open):
            with suppress(OSError):
                tls.shutdown(socket.SHUT_RDWR)

    def _talk(self, tls: ssl.SSLSocket) -> None:
        try:
            tls.settimeout(ANSWER_S)
            tls.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: cellwall\r\n\r\n")
            while True:
                request = receive_frame(tls, until=monotonic() + IDLE_S, most=MOST_REQUEST)
                tls.settimeout(ANSWER_S)
                send_frame(tls, self._answer(request))
        except (OSError, EOFError, ValueError):
            pass
        except Exception as error:  # noqa: BLE001 - the outermost turn of this thread
            self._log("a controller was not answered", level="error", why=repr(error))
        finally:
            self._open.discard(tls)
            tls.close()

    def _answer(self, request: bytes) -> bytes:
        try:
            call, _ = _CALL.decode(request)
            if call not in ASKED:
                raise FlowStoreError(f"there is no question `{call}`; wanted one of `{'`, `'.join(ASKED)}`")
            return self._flows.forward(request)
        except CellwallError as error:
            return msgspec.msgpack.encode((str(error), None))


def show_as(context: ssl.SSLContext, pair: bytes) -> None:
    """Let `context` show a certificate; `ssl` reads files only, and this one is on no disk."""
    file = os.memfd_create("controller")
    try:
        with open(file, "wb", closefd=False) as out:
            out.write(pair)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
