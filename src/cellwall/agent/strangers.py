"""Finds flows that we let pass and another firewall of this host drops. Pure: what is followed, others follow.

A packet that every chain of its hook lets pass has its connection confirmed by conntrack, which tells us. A flow that
we counted as allowed, and of which no such word came, was dropped behind us. Then its next packets are followed through
the kernel's tables, and only what they are seen to end in is said: a suspicion alone never is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cellwall.flows import FlowKey, Side
from cellwall.traffic import TCP, UDP, point, port_name

Flow = tuple[Side, FlowKey]

WAIT_S = 1.0
"""A connection's event may be read this much later than it was counted."""
REMEMBER_S = 180.0
"""For so long the kernel may remember a connection that was never answered (nf_conntrack_tcp_timeout_syn_sent, 120 s),
and count its repeated first packets without telling of it again."""
AGAIN_S, FOUND_S = 300.0, 3600.0
MOST = 20_000
MOST_TOLD = 16


@dataclass
class Strangers:
    """What is known of flows that others may drop. `now` is in seconds and never goes back."""

    watching: bool = False
    """Whether there is any table of another firewall; without, nothing is noted."""
    _confirmed: dict[Flow, float] = field(default_factory=dict[Flow, float])
    _counted: dict[Flow, float] = field(default_factory=dict[Flow, float])
    _followed: dict[Flow, float] = field(default_factory=dict[Flow, float])
    _found: dict[Flow, tuple[float, str]] = field(default_factory=dict[Flow, tuple[float, str]])

    def confirmed(self, flow: Flow, now: float) -> None:
        """A connection of it was taken up."""
        if self.watching:
            _note(self._confirmed, flow, now)

    def counted(self, flow: Flow, now: float) -> None:
        """We let it pass; its first packets."""
        if not self.watching or flow[1].protocol not in (TCP, UDP):
            return
        _note(self._counted, flow, now)
        if flow[1].protocol == UDP and flow in self._confirmed:
            # Each packet that nobody answers is counted, and keeps the connection that there is.
            _note(self._confirmed, flow, now)

    def suspect(self, now: float) -> Flow | None:
        """Give a flow to follow now, the newest first, and forget what is long past."""
        for known, keep_s in ((self._confirmed, REMEMBER_S), (self._followed, AGAIN_S)):
            while known and now - known[first := next(iter(known))] > keep_s:
                del known[first]
        found: Flow | None = None
        for flow, at in list(self._counted.items()):
            if now - at < WAIT_S:
                continue
            del self._counted[flow]
            if flow not in self._confirmed and flow not in self._followed:
                found = flow
        if found:
            _note(self._followed, found, now)
        return found

    def ended(self, flow: Flow, where: str, now: float) -> None:
        """Packets of it were seen to end at `where`."""
        self._found.pop(flow, None)
        self._found[flow] = now, where
        while len(self._found) > MOST_TOLD:
            del self._found[next(iter(self._found))]

    def by(self, flow: Flow, now: float) -> str:
        """Say what drops a flow, "" where nothing was seen to within the last hour."""
        at, where = self._found.get(flow, (now - FOUND_S, ""))
        return where if now - at < FOUND_S else ""

    def told(self, now: float) -> tuple[str, ...]:
        """Say all that was found within the last hour, in words."""
        return tuple(
            f"not us: {where} drops {_words(flow)}, which our policy lets pass"
            for flow, (at, where) in self._found.items()
            if now - at < FOUND_S
        )


def _note(into: dict[Flow, float], flow: Flow, now: float) -> None:
    into.pop(flow, None)
    into[flow] = now
    if len(into) > MOST:
        del into[next(iter(into))]


def _words(flow: Flow) -> str:
    key = flow[1]
    return f"{port_name(point(key.protocol, key.port))} from {key.source} to {key.destination}"
