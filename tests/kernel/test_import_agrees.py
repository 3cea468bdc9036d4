"""A real iptables or nftables firewall, loaded and saved by its own programs, lets through just those real packets that
`decide` allows by the documents imported from what was saved."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pwd import getpwnam

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.conftest import SOAK
from tests.kernel.namespaces import needs_namespaces
from tests.kernel.wire import Host, bridge, hear, listen, send
from tests.property.firewalls import (
    FAR,
    OWN,
    USERS,
    DumbFirewall,
    Packet,
    firewalls,
    iptables_text,
    nft_text,
    packets,
    verdicts,
)
from tests.property.test_first_match import allowed

from cellwall.clients import Netlink
from cellwall.observe import open_conntrack
from cellwall.policy import Policy, parse_policy
from cellwall.translate.firewalls.iptables import import_iptables
from cellwall.translate.firewalls.nftables import import_nft
from cellwall.translate.firewalls.rule import HostFacts, SavedRules

pytestmark = needs_namespaces
KNOWN = HostFacts(addresses={"web1": OWN}, users=USERS)
PROTOCOLS = {1, 6, 17, 47, 58, 132}
PORTLESS = {47}
FLUSH = 1 << 8 | 2
"""IPCTNL_MSG_CT_DELETE of ctnetlink, which without a tuple means all."""
needs_iptables = pytest.mark.skipif(
    shutil.which("iptables-restore") is None, reason="iptables is not installed (Debian package `iptables`)"
)
often = settings(
    max_examples=200 if SOAK else 25,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Lab:
    """The host with the firewall, and the rest of the world; packets are numbered."""

    def __init__(self, own: Host, far: Host) -> None:
        self.own, self.far = own, far
        for host in (own, far):
            listen(host, PROTOCOLS)
        self.number = random.SystemRandom().randrange(1 << 24)
        with own.space.inside():
            self.tracking: Netlink = open_conntrack()

    def passes(self, tried: list[tuple[str, Packet]]) -> list[bool]:
        """Send packets, and say of each whether the firewall let it through."""
        self.tracking.ask(FLUSH, bytes(4), doing="cannot flush conntrack")
        hear(self.own)
        found: list[bool] = []
        numbers: list[int] = []
        for hook, packet in tried:
            self.number += 1
            numbers.append(self.number)
            sender = self.far if hook == "INPUT" else self.own
            uid = getpwnam(packet.user).pw_uid if hook == "OUTPUT" else 0
            ends = packet.source, packet.destination
            found.append(send(sender, *ends, packet.protocol, packet.port, self.number, uid=uid))
        heard = hear(self.own, 0.05)
        return [
            left if hook == "OUTPUT" else number in heard
            for (hook, _), number, left in zip(tried, numbers, found, strict=True)
        ]

    def clear(self) -> None:
        """Take all rules away."""
        self.own.space.nft("flush ruleset")


@pytest.fixture(scope="module")
def lab() -> Generator[Lab]:
    with ExitStack() as stack:
        own, far = stack.enter_context(bridge([OWN, FAR]))
        yield Lab(own, far)


def chosen(data: st.DataObject, users: tuple[str, ...]) -> list[tuple[str, Packet]]:
    """Give packets to try, none of them the answer to another."""
    every = [
        (hook, packet) for hook in ("INPUT", "OUTPUT") for version in (4, 6) for packet in packets(hook, version, users)
    ]
    some = random.Random(data.draw(st.integers(0, 1 << 32))).sample(every, 80)
    told: set[frozenset[object]] = set()
    found: list[tuple[str, Packet]] = []
    for hook, packet in some:
        ends: frozenset[object] = frozenset((packet.source, packet.destination, packet.protocol))
        if packet.protocol in PORTLESS and ends in told:
            continue
        told.add(ends)
        if hook == "OUTPUT" or packet.user == "root":
            found.append((hook, packet))
    return found


def check(
    lab: Lab,
    policies: dict[str, Policy],
    tried: list[tuple[str, Packet]],
    twin: Callable[[str, Packet], bool],
) -> None:
    for (hook, packet), passed in zip(tried, lab.passes(tried), strict=True):
        assert twin(hook, packet) is passed, f"the twin and the kernel differ: {hook} {packet}, passed {passed}"
        for what, policy in policies.items():
            ours = allowed(policy, hook, packet)
            assert ours in (None, passed), f"{what} and the kernel differ: {hook} {packet}, passed {passed}"


@needs_iptables
@often
@given(firewalls(4), firewalls(6), st.data())
def test_iptables_and_its_import_pass_the_same_packets(
    lab: Lab, four: DumbFirewall, six: DumbFirewall, data: st.DataObject
) -> None:
    lab.clear()
    sources: list[SavedRules] = []
    for program, firewall in (("iptables", four), ("ip6tables", six)):
        lab.own.space.run([f"{program}-restore"], stdin=iptables_text(firewall))
        saved = lab.own.space.run([f"{program}-save"]).stdout
        sources.append(SavedRules(program, saved, "web1"))
    policy = parse_policy(import_iptables(sources, KNOWN).documents.items())

    def twin(hook: str, packet: Packet) -> bool:
        return verdicts(four if packet.source.version == 4 else six, hook, packet) == {True}

    check(lab, {"iptables": policy}, chosen(data, ("root",)), twin)


@often
@given(st.lists(firewalls(None, most=4), min_size=1, max_size=2), firewalls(4, most=3), st.data())
def test_nft_and_its_import_pass_the_same_packets(
    lab: Lab, some: list[DumbFirewall], four: DumbFirewall, data: st.DataObject
) -> None:
    lab.clear()
    lab.own.space.nft(nft_text([*some, four]))
    policies: dict[str, Policy] = {}
    for words in (["nft", "list", "ruleset"], ["nft", "-j", "list", "ruleset"]):
        listed = lab.own.space.run(words).stdout
        made = import_nft([SavedRules("ruleset", listed, "web1")], KNOWN)
        policies[" ".join(words)] = parse_policy(made.documents.items())

    def twin(hook: str, packet: Packet) -> bool:
        asked = [*some, four] if packet.source.version == 4 else some
        return all(verdicts(one, hook, packet) == {True} for one in asked)

    check(lab, policies, chosen(data, ("root",)), twin)


USED = """\
*filter
:INPUT DROP [0:0]
:OUTPUT ACCEPT [0:0]
:web - [0:0]
-A INPUT -m set --match-set office src,dst -j ACCEPT
-A INPUT -m iprange --src-range 192.0.2.100-192.0.2.220 -p udp -j ACCEPT
-A INPUT -m addrtype ! --dst-type LOCAL -j ACCEPT
-A INPUT ! -s 10.0.0.0/8 -p tcp --syn -m multiport ! --dports 22,80:90 -g web
-A INPUT -p tcp -m tcp --tcp-flags SYN,ACK SYN --dport 80 -m comment --comment "the \\"web\\"" -j ACCEPT
-A INPUT -p gre -j ACCEPT
-A OUTPUT -d 192.0.2.0/24 -m owner --uid-owner 33 -j DROP
-A OUTPUT -p tcp -m tcp --dport 95 -m owner --uid-owner 0 -j REJECT
-A web -d 10.0.0.2 -j DROP
-A web -s 192.0.2.1 -j RETURN
-A web -j ACCEPT
COMMIT
"""
SETS = """\
create office hash:net,port family inet hashsize 1024 maxelem 65536
add office 10.0.0.0/29,tcp:22
add office 10.0.0.8/30,tcp:80-90
add office 10.0.0.9,tcp:85 nomatch
"""


@needs_iptables
def test_what_is_often_used_in_iptables_is_understood_as_the_kernel_understands_it(lab: Lab) -> None:
    lab.clear()
    if shutil.which("ipset") is None:
        pytest.skip("ipset is not installed (Debian package `ipset`)")
    try:
        lab.own.space.run(["ipset", "restore"], stdin=SETS)
    except AssertionError as error:
        pytest.skip(f"this kernel has no ipset: {error}")
    lab.own.space.run(["iptables-restore"], stdin=USED)
    saved = [
        SavedRules("sets", lab.own.space.run(["ipset", "save"]).stdout, "web1"),
        SavedRules("iptables", lab.own.space.run(["iptables-save"]).stdout, "web1"),
    ]
    policy = parse_policy(import_iptables(saved, KNOWN).documents.items())
    tried = [
        (hook, packet)
        for hook in ("INPUT", "OUTPUT")
        for packet in packets(hook, 4, ("root", "www-data") if hook == "OUTPUT" else ("root",))
        if packet.protocol not in PORTLESS or hook == "INPUT"
    ]
    for (hook, packet), passed in zip(tried, lab.passes(tried), strict=True):
        assert allowed(policy, hook, packet) in (None, passed), f"{hook} {packet}: passed {passed}"
