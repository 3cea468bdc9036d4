"""The real kernel does with real packets what `decide` says: random policies and fleets, both families, all modes,
both directions, local identities included; and it counts each with the right verdict and rule."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from pwd import getpwnam

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.conftest import SOAK
from tests.kernel.namespaces import needs_namespaces
from tests.kernel.wire import Host, bridge, hear, listen, send
from tests.property.worlds import OUTSIDE, UNITS, USERS, World, flows, orders, worlds

from cellwall.clients import Netlink
from cellwall.compile import compile_fleet
from cellwall.enforce import Leave, NftPoint, Seen
from cellwall.flows import Outcome, Side
from cellwall.observe import cgroup_mount, open_conntrack
from cellwall.policy import Flow, Order, Tier, Verdict, decide

pytestmark = needs_namespaces
NOW = 1_800_000_000.0
SIZE = 5
PROTOCOLS = {1, 6, 17, 47, 58, 89, 132}
PORTLESS = {47, 89}
PACKETS = 60
FLUSH = 1 << 8 | 2
"""IPCTNL_MSG_CT_DELETE of ctnetlink, which without a tuple means all."""


@contextmanager
def units() -> Generator[Path | None]:
    """Make the control groups that the policies name; None where the tree cannot be written."""
    mount = cgroup_mount()
    root = mount / "cellwall-agrees" if mount else None
    try:
        if root:
            for unit in UNITS:
                (root / unit).mkdir(parents=True, exist_ok=True)
    except OSError:
        root = None
    try:
        yield root
    finally:
        if root:
            for unit in UNITS:
                (root / unit).rmdir()
            root.rmdir()


class Lab:
    """The hosts w1 to w5 and the outside, each workload with a point; packets are numbered."""

    def __init__(self, hosts: list[Host], root: Path | None) -> None:
        self.root = root
        self.by_address = {address: host for host in hosts for address in host.addresses}
        self.hosts = hosts
        self.points: dict[str, NftPoint] = {}
        for index, host in enumerate(hosts[:-1], 1):
            with host.space.inside():
                self.points[f"w{index}"] = NftPoint(cgroup_mount(), root)
        for host in hosts:
            listen(host, PROTOCOLS)
        self.number = random.SystemRandom().randrange(1 << 24)
        self.tracking: list[Netlink] = []
        for host in hosts:
            with host.space.inside():
                self.tracking.append(open_conntrack())

    def forget(self) -> None:
        """Empty the connection tables, so that no packet is the reply to one of an earlier example."""
        for link in self.tracking:
            link.ask(FLUSH, bytes(4), doing="cannot flush conntrack")

    def send(self, flow: Flow) -> tuple[int, bool]:
        """Send the first packet of a flow as its process would; its number, and whether it left."""
        self.number += 1
        identity = flow.source.identity
        user = identity.user if identity.user in USERS else "root"
        inside = self.root if self.root and flow.source.workload and identity.unit in UNITS else None
        left = send(
            self.by_address[flow.source.address], flow.source.address, flow.destination.address,
            flow.protocol, flow.port, self.number,
            uid=getpwnam(user or "root").pw_uid, cgroup=inside / identity.unit if inside and identity.unit else None,
        )  # fmt: skip
        return self.number, left


@pytest.fixture(scope="module")
def lab() -> Generator[Lab]:
    inside = [(ip_address(f"10.0.0.{index}"), ip_address(f"fd00::{index}")) for index in range(1, SIZE + 1)]
    with units() as root, bridge([*inside, tuple(OUTSIDE)]) as hosts:
        yield Lab(hosts, root)


@settings(
    max_examples=500 if SOAK else 60,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.data(), worlds(rules=8, size=SIZE))
def test_the_kernel_agrees_with_decide(lab: Lab, data: st.DataObject, world: World) -> None:
    trial = Trial(lab, world)
    trial.send(data.draw(flows(world.fleet)) for _ in range(PACKETS))
    assert not trial.wrong(), trial.complaint


@settings(
    max_examples=300 if SOAK else 40,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.data(), worlds(rules=8, size=SIZE))
def test_the_kernel_agrees_with_decide_about_orders(lab: Lab, data: st.DataObject, world: World) -> None:
    trial = Trial(lab, world, data.draw(orders(world.fleet, NOW)))
    trial.send(data.draw(flows(world.fleet)) for _ in range(PACKETS // 2))
    assert not trial.wrong(), trial.complaint


class Trial:
    """A world put in force in a lab: packets are sent in it, and what became of them is compared with `decide`."""

    def __init__(self, lab: Lab, world: World, orders: tuple[Order, ...] = ()) -> None:
        self._lab, self._world, self._orders = lab, world, orders
        self._points = compile_fleet(world.policy, world.fleet, 1, NOW, orders).points
        for name, kernel in lab.points.items():
            with lab.by_address[ip_address(f"10.0.0.{name[1:]}")].space.inside():
                point = self._points.get(name)
                if point is None:
                    kernel.remove(Leave.OPEN)
                else:
                    kernel.apply(replace(point.ruleset, orders=()), point.members)
                    # As they come in life: on their own, afterwards.
                    kernel.apply_orders(point.ruleset.orders)
                    kernel.collect()
        lab.forget()
        self.packets = 0
        self.complaint = ""
        self._wrong: list[str] = []
        self._portless: set[tuple[object, ...]] = set()
        self._judged: dict[tuple[str, Side], dict[tuple[object, ...], set[tuple[Outcome, Outcome, str]]]] = {}

    def send(self, flows: Iterable[Flow]) -> None:
        """Send the first packet of each flow, and see which left and which came through."""
        world, sent = self._world, dict[int, tuple[Flow, Verdict | None]]()
        for flow in flows:
            if flow.source.workload is not None and flow.source.workload == flow.destination.workload:
                continue
            if flow.protocol in PORTLESS:
                # Without ports the way back has the same tuple, and is a reply.
                if (flow.destination.address, flow.source.address, flow.protocol) in self._portless:
                    continue
                self._portless.add((flow.source.address, flow.destination.address, flow.protocol))
            number, left = self._lab.send(flow)
            self.packets += 1
            decision = decide(world.policy, world.fleet, flow, NOW, self._orders)
            egress, ingress = decision.egress, decision.ingress
            if left is not (egress is None or egress.outcome is Outcome.ALLOWED):
                self._wrong.append(f"egress of {flow} {flow.source.identity}: left {left}, wanted {egress}")
            if left:
                sent[number] = flow, ingress
            self._expect(flow, Side.EGRESS, egress)
            self._expect(flow, Side.INGRESS, ingress if left else None)
        # At its own destination: an ICMP error or an echo carries the number of a packet back.
        awaited: dict[int, set[int]] = {id(host): set() for host in self._lab.hosts}
        for number, (flow, ingress) in sent.items():
            if ingress is None or ingress.outcome is Outcome.ALLOWED:
                awaited[id(self._lab.by_address[flow.destination.address])].add(number)
        heard = {id(host): hear(host, expected=awaited[id(host)]) for host in self._lab.hosts}
        for number, (flow, _) in sent.items():
            at = id(self._lab.by_address[flow.destination.address])
            expected, came = number in awaited[at], number in heard[at]
            if came is not expected:
                self._wrong.append(f"ingress of {flow}: heard {came}, wanted {expected}")

    def _expect(self, flow: Flow, side: Side, verdict: Verdict | None) -> None:
        """Remember what the point at one side must have counted."""
        end = flow.source if side is Side.EGRESS else flow.destination
        if verdict is None or end.workload is None:
            return
        if verdict.tier is Tier.LIFELINE and verdict.because[0] not in self._world.policy.by_id:
            return  # what is built in is not counted
        key = (flow.source.address, flow.destination.address, flow.protocol, flow.port)
        told = (verdict.outcome, verdict.would, verdict.because[0] if verdict.because else "")
        self._judged.setdefault((end.workload, side), {}).setdefault(key, set()).add(told)

    def wrong(self) -> list[str]:
        """Read what the kernels counted, and give all that was otherwise than `decide` says; `complaint` has it too."""
        found = self._wrong + [line for name in self._points for line in self._wrong_counts(name)]
        self.complaint = "\n".join(found[:5]) + f"\n… {len(found)} in all\n{self._world.text}"
        return found

    def _wrong_counts(self, name: str) -> Iterator[str]:
        ids = self._points[name].ruleset.id_by_number
        mine = self._world.fleet.by_name[name].addresses
        with self._lab.by_address[mine[0]].space.inside():
            counted = self._lab.points[name].collect()
        for side in Side:
            found: dict[tuple[object, ...], set[tuple[Outcome, Outcome, str]]] = {}
            for one in counted:
                if (one.source in mine) is (side is Side.EGRESS):
                    told = (one.outcome, one.would, ids[one.rule] if one.rule else "")
                    found.setdefault(_key(one), set()).add(told)
            for key, wanted in self._judged.get((name, side), {}).items():
                if found.get(key) != wanted:
                    yield f"{name} {side} counted {found.get(key)} for {key}, wanted {wanted}"


def _key(one: Seen) -> tuple[object, ...]:
    return one.source, one.destination, one.protocol, one.port
