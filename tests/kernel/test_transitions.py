"""A change between any two policies, under continuous traffic, drops no packet that both allow and passes none that
both deny; and open connections feel a change at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.conftest import SOAK
from tests.kernel.namespaces import needs_namespaces
from tests.kernel.test_kernel_agrees import NOW, PORTLESS, SIZE, Lab, units
from tests.kernel.wire import bridge, hear
from tests.property.worlds import OUTSIDE, documents, fleets, flows

from cellwall.compile import Point, compile_fleet
from cellwall.enforce import Interim, Leave, Spell
from cellwall.inventory import Fleet
from cellwall.policy import Decision, Flow, Outcome, Policy, decide, parse_policy

pytestmark = needs_namespaces
SWAPS = 8
STEADY = 24  # flows at most
ROUND = 48  # packets between two looks at what came


@pytest.fixture(scope="module")
def lab() -> Generator[Lab]:
    inside = [(ip_address(f"10.0.0.{index}"), ip_address(f"fd00::{index}")) for index in range(1, SIZE + 1)]
    with units() as root, bridge([*inside, tuple(OUTSIDE)]) as hosts:
        yield Lab(hosts, root)


class Traffic(threading.Thread):
    """Sends the first packets of flows over and over; remembers by number which flow, whether it left, and what was
    heard where. It hears after every round, so that no packet is lost for want of room to wait in."""

    def __init__(self, lab: Lab, steady: dict[Flow, bool]) -> None:
        super().__init__(daemon=True)
        self._lab = lab
        self._steady = steady
        self.sent: dict[int, tuple[Flow, bool]] = {}
        self.heard: dict[int, set[int]] = {id(host): set() for host in lab.hosts}
        self.ended = threading.Event()

    def run(self) -> None:
        flows = list(self._steady)
        while flows and not self.ended.is_set():
            for flow in flows * (ROUND // len(flows)):
                number, left = self._lab.send(flow)
                self.sent[number] = flow, left
            for host in self._lab.hosts:
                self.heard[id(host)] |= hear(host)
        awaited = self._awaited()
        for host in self._lab.hosts:
            self.heard[id(host)] |= hear(host, expected=awaited[id(host)] - self.heard[id(host)])

    def _awaited(self) -> dict[int, set[int]]:
        """The packets that left and should arrive, by the host they go to."""
        found: dict[int, set[int]] = {id(host): set() for host in self._lab.hosts}
        for number, (flow, left) in self.sent.items():
            if left and self._steady[flow]:
                found[self._at(flow)].add(number)
        return found

    def wrong(self) -> list[str]:
        """The packets whose fate was not that of their flow."""
        return [
            f"{flow}: {'lost' if self._steady[flow] else 'came through'}"
            for number, (flow, left) in self.sent.items()
            if (left and number in self.heard[self._at(flow)]) is not self._steady[flow]
        ]

    def _at(self, flow: Flow) -> int:
        return id(self._lab.by_address[flow.destination.address])


def apply(lab: Lab, points: dict[str, Point], trial: dict[str, Point] | None = None, lasts_s: float = 60.0) -> None:
    """Have every point hold what `points` say, and `trial` above it for a while; those without an agent nothing."""
    for name, kernel in lab.points.items():
        with lab.by_address[ip_address(f"10.0.0.{name[1:]}")].space.inside():
            if name not in points:
                kernel.remove(Leave.OPEN)
                continue
            interims: tuple[Interim, ...] = ()
            if trial:
                until = time.time() + lasts_s
                interims = (Interim(Spell.TRIAL, trial[name].ruleset, trial[name].members, until),)
            kernel.apply(points[name].ruleset, points[name].members, interims)


def change(lab: Lab, before: dict[str, Point], after: dict[str, Point], swap: int) -> None:
    """Change from one to the other: at once, by a trial that is confirmed, or after one that ended by itself."""
    if swap % 3 == 1:
        apply(lab, before, after, lasts_s=0.3)
        time.sleep(0.4)
    if swap % 3:
        apply(lab, before, after)
    apply(lab, after)


def steady_fate(decisions: list[Decision]) -> bool | None:
    """Whether a flow always passes, or never, at whatever moment each of the two points changes; None if neither.

    The points of two hosts do not change in the same instant, so one of them must deny both before and after."""
    if all(decision.outcome is Outcome.ALLOWED for decision in decisions):
        return True
    for verdicts in ([one.egress for one in decisions], [one.ingress for one in decisions]):
        if all(verdict is not None and verdict.outcome is Outcome.DENIED for verdict in verdicts):
            return False
    return None


@settings(
    max_examples=60 if SOAK else 8,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.data(), documents(rules=8), documents(rules=8), fleets(size=SIZE))
def test_a_change_drops_nothing_allowed_and_passes_nothing_denied(
    lab: Lab, data: st.DataObject, one: str, other: str, fleet: Fleet
) -> None:
    policies: list[Policy] = [parse_policy([("policy.yaml", text)]) for text in (one, other)]
    compiled = [compile_fleet(policy, fleet, number, NOW) for number, policy in enumerate(policies, 1)]
    steady: dict[Flow, bool] = {}
    for _ in range(60):
        flow = data.draw(flows(fleet))
        own = flow.source.workload is not None and flow.source.workload == flow.destination.workload
        if own or flow.protocol in PORTLESS:
            continue
        fate = steady_fate([decide(policy, fleet, flow, NOW) for policy in policies])
        if fate is not None and len(steady) < STEADY:
            steady[flow] = fate
    # Identities move the whole process between control groups while a socket is made: make all sockets first.
    apply(lab, compiled[0].points)
    lab.forget()
    for flow in steady:
        lab.send(flow)
    for host in lab.hosts:
        hear(host)
    traffic = Traffic(lab, steady)
    traffic.start()
    for swap in range(SWAPS):
        change(lab, compiled[swap % 2].points, compiled[(swap + 1) % 2].points, swap)
    traffic.ended.set()
    traffic.join()
    wrong = traffic.wrong()
    assert not wrong, f"{len(wrong)} of {len(traffic.sent)}: {wrong[:5]}\n{one}\n{other}"
