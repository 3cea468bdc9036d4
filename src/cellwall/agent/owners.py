"""Which local process a flow belongs to, from sockets; asked only about flows that were not asked about before.

Ingress: whoever listens on the port. Egress: whoever held a socket to that destination and port since the last time;
where it was gone before anybody looked, whoever held one earlier. Where several processes match, only what they share
is said; where none was ever seen, nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

from cellwall.agent.tally import common
from cellwall.clients import KernelError, Netlink
from cellwall.flows import UNKNOWN, FlowKey, Process, Side
from cellwall.observe import (
    Ends,
    HostFacts,
    Processes,
    Socket,
    connected_sockets,
    find_socket,
    host_facts,
    listening_sockets,
    open_sockets,
)
from cellwall.observe import Process as Holder
from cellwall.traffic import PORTED

MOST_REMEMBERED = 20_000
MOST_LOOKUPS = 64
LISTEN_AGAIN_S, ASK_AGAIN_S = 60.0, 30.0

_Service = tuple[int, bytes, int]


class Owners:
    """Knows the owners of flows in this network namespace. `now` is in seconds and never goes back."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._processes = Processes()
        self._link: Netlink = open_sockets()
        self._clients: dict[_Service, dict[Process, None]] = {}
        self._caught: dict[_Service, dict[Process, None]] = {}
        self._servers: dict[_Service, dict[Process, None]] = {}
        self._asked: dict[tuple[Side, FlowKey], float] = {}
        self._listened_at = float("-inf")

    def name(self, flows: Iterable[tuple[Side, FlowKey]], now: float) -> dict[tuple[Side, FlowKey], Process]:
        """Say whose these flows are; those not known are left out. Raises `KernelError`."""
        wanted = [one for one in flows if one[1].protocol in PORTED]
        unknown = [one for one in wanted if not self._known(*one) and now >= self._asked.get(one, 0.0)]
        if any(side is Side.INGRESS for side, _ in unknown) or now - self._listened_at > LISTEN_AGAIN_S:
            self._listen(now)
        if any(side is Side.EGRESS for side, _ in unknown):
            self._look(connected_sockets(self._link), now)
        for one in unknown:
            if not self._known(*one):
                self._asked[one] = now + ASK_AGAIN_S
        if len(self._asked) > MOST_REMEMBERED:
            self._asked = {one: at for one, at in self._asked.items() if at > now}
        named = {one: process for one in wanted if (process := self._known(*one))}
        self._caught.clear()
        return named

    def catch(self, begun: Iterable[Ends], now: float) -> None:
        """Look up who has just opened these connections, before the sockets are gone again."""
        asked = (ends for ends in begun if ends.protocol in PORTED)
        for ends in islice(asked, MOST_LOOKUPS):
            with suppress(KernelError):
                one = find_socket(ends.protocol, ends.source, ends.sport, ends.target, ends.dport, self._link)
                if one is not None and one.inode in (holders := self._processes.holders((one,), now)):
                    self._remember((ends.protocol, ends.target, ends.dport), holders[one.inode])

    def user(self, uid: int) -> str:
        """Name a user."""
        return self._processes.user(uid)

    def facts(self, now: float) -> HostFacts:
        """Collect the facts of this host; some ten milliseconds. Raises `KernelError`."""
        return host_facts(self._processes, now)

    def _known(self, side: Side, key: FlowKey) -> Process:
        if side is Side.EGRESS:
            service = (key.protocol, key.destination.packed, key.port)
            return common(self._caught.get(service) or self._clients.get(service) or ())
        exact = (key.protocol, key.destination.packed, key.port)
        every = (key.protocol, bytes(len(key.destination.packed)), key.port)
        return common(self._servers.get(exact) or self._servers.get(every) or ())

    def _listen(self, now: float) -> None:
        self._listened_at = now
        listening = listening_sockets(self._link)
        holders = self._processes.holders(listening, now)
        servers: dict[_Service, dict[Process, None]] = {}
        for one in listening:
            process = _process(holders[one.inode]) if one.inode in holders else UNKNOWN
            if process:
                servers.setdefault((one.protocol, one.local, one.local_port), {})[process] = None
                if len(one.local) == 16 and one.takes_any and not one.v6_only:
                    servers.setdefault((one.protocol, bytes(4), one.local_port), {})[process] = None
        self._servers = servers

    def _look(self, connected: Iterable[Socket], now: float) -> None:
        sockets = list(connected)
        holders = self._processes.holders(sockets, now)
        for one in sockets:
            if one.inode in holders:
                self._remember((one.protocol, one.remote, one.remote_port), holders[one.inode])

    def _remember(self, service: _Service, holder: Holder) -> None:
        if len(self._clients) >= MOST_REMEMBERED and service not in self._clients:
            # The oldest goes: dictionaries keep their order.
            del self._clients[next(iter(self._clients))]
        process = _process(holder)
        self._clients.setdefault(service, {})[process] = None
        self._caught.setdefault(service, {})[process] = None


def _process(holder: Holder) -> Process:
    return Process(holder.comm, holder.user, holder.unit, holder.exe)
