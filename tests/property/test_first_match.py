"""What is imported from an ordered firewall gives every packet the verdict that walking its rules gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.flows import Outcome, Side
from cellwall.policy import Flow, Identity, Policy, Tier, decide_at, endpoint, parse_policy
from cellwall.traffic import CellwallError
from cellwall.translate.firewalls.documents import ImportedHosts
from cellwall.translate.firewalls.iptables import import_iptables
from cellwall.translate.firewalls.nftables import import_nft
from cellwall.translate.firewalls.order_free import Effect
from cellwall.translate.firewalls.rule import HostFacts, SavedRules
from tests.property.firewalls import (
    FLEET,
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

KNOWN = HostFacts(addresses={"web1": OWN}, users=USERS)
SIDES = {"INPUT": Side.INGRESS, "OUTPUT": Side.EGRESS}
ONE_USER = "one user's connections"
ANSWERS = "drops answers"


def allowed(policy: Policy, hook: str, packet: Packet) -> bool | None:
    """What the imported documents say; None where a built-in lifeline decides."""
    flow = Flow(
        endpoint(FLEET, packet.source, Identity(user=packet.user)),
        endpoint(FLEET, packet.destination),
        packet.protocol,
        packet.port,
    )
    verdict = decide_at(SIDES[hook], policy, FLEET, flow, 0.0)
    return None if verdict.tier is Tier.LIFELINE else verdict.outcome is Outcome.ALLOWED


def disagreements(
    made: ImportedHosts, asked: dict[int, list[DumbFirewall]], users: tuple[str, ...] = ("root",)
) -> list[tuple[str, Packet, bool, set[bool]]]:
    """Give the packets on which the documents differ from the firewalls, all of which must accept."""
    policy = parse_policy(made.documents.items())
    wrong: list[tuple[str, Packet, bool, set[bool]]] = []
    for version, some in asked.items():
        for hook in SIDES:
            for packet in packets(hook, version, users):
                ours = allowed(policy, hook, packet)
                if ours is None:
                    continue
                each = [verdicts(one, hook, packet) for one in some]
                theirs = {all(answer) for answer in _product(each)}
                if theirs != {ours}:
                    wrong.append((hook, packet, ours, theirs))
    return wrong


def _product(each: list[set[bool]]) -> list[tuple[bool, ...]]:
    found: list[tuple[bool, ...]] = [()]
    for some in each:
        found = [(*one, answer) for one in found for answer in some]
    return found


def import_both(four: DumbFirewall, six: DumbFirewall) -> ImportedHosts:
    sources = [SavedRules("rules.v4", iptables_text(four), "web1"), SavedRules("rules.v6", iptables_text(six), "web1")]
    return import_iptables(sources, KNOWN)


@given(firewalls(4), firewalls(6))
def test_iptables_means_the_same_after_import(four: DumbFirewall, six: DumbFirewall) -> None:
    made = import_both(four, six)
    assert not disagreements(made, {4: [four], 6: [six]})
    odd = [one for one in made.remarks if one.effect in (Effect.OPENS, Effect.CLOSES) and ANSWERS not in one.reason]
    assert not odd


@given(firewalls(4, users=True), firewalls(6))
def test_users_mean_the_same_after_import_or_it_is_said(four: DumbFirewall, six: DumbFirewall) -> None:
    made = import_both(four, six)
    effects = {one.effect for one in made.remarks if ONE_USER in one.reason}
    for _, _, ours, _ in disagreements(made, {4: [four], 6: [six]}, ("root", "www-data")):
        assert (Effect.OPENS if ours else Effect.CLOSES) in effects


@given(firewalls(4, unknown=True), firewalls(6))
def test_a_rule_in_doubt_never_opens_and_never_closes_unsaid(four: DumbFirewall, six: DumbFirewall) -> None:
    made = import_both(four, six)
    effects = {one.effect for one in made.remarks if ANSWERS not in one.reason}
    for _, _, ours, _ in disagreements(made, {4: [four], 6: [six]}):
        assert (Effect.OPENS if ours else Effect.CLOSES) in effects


@given(st.lists(firewalls(None, most=4), min_size=1, max_size=2), st.sampled_from([None, 4, 6]), st.data())
def test_nft_means_the_same_after_import(some: list[DumbFirewall], family: int | None, data: st.DataObject) -> None:
    more = [data.draw(firewalls(family, most=3))] if family else []
    text = nft_text([*some, *more])
    made = import_nft([SavedRules("ruleset.nft", text, "web1")], KNOWN)
    asked = {version: [*some, *(one for one in more if one.family == version)] for version in (4, 6)}
    assert not disagreements(made, asked), text


def read_or_refused(read: Callable[[Sequence[SavedRules], HostFacts], ImportedHosts], text: str) -> None:
    """Read a text; refusing it is an answer, and so are documents that can be read."""
    refused = ""
    try:
        made = read([SavedRules("any.txt", text, "web1")], KNOWN)
    except CellwallError as error:
        refused = str(error)
    else:
        parse_policy(made.documents.items())
    assert refused.isprintable()


@settings(max_examples=settings().max_examples * 3)
@given(
    st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(
                ["*filter\n", ":INPUT DROP [0:0]\n", "-A INPUT ", "-s ", "! ", "10.0.0.0/8 ", "-p ", "tcp ", "--dport ",
                 "80 ", "-m ", "multiport ", "-j ", "ACCEPT\n", '"', "\\", "COMMIT\n", "-g ", "INPUT\n", "--ctstate ",
                 "NEW ", "set ", "--match-set ", "--tcp-flags ", "icmp ", "--icmp-type ", "create a hash:net\n", "x",
                 "add a 1.2.3.4/5 ", "nomatch\n", "-i ", "lo ", "-A OUTPUT -m owner --uid-owner ", "٣ ", "99999999999 "]
            )
        ).map("".join),
        st.lists(
            st.sampled_from(
                ["table ", "inet ", "x ", "{ ", "} ", "\n", "chain ", "type filter hook input priority 0; ",
                 "policy drop; ", "ip saddr ", "10.0.0.0/8 ", "!= ", "tcp dport ", "80-90 ", "vmap ", ": accept, ",
                 "accept\n", "drop ", "jump x ", "goto ", "@x ", "set x { type ipv4_addr; elements = { 1.2.3.4 } } ",
                 "ct state ", "new, ", "established ", ". ", "tcp flags & (syn | ", ") == syn ", "limit rate 5/second ",
                 "counter ", "comment ", '"a" ', "meta ", "l4proto ", "fib daddr type local ", "icmp type 8 ", "log ",
                 "reject with ", "> ", "meta mark set 1 ", "add @x { ip saddr } ", "iifname "]
            )
        ).map("".join),
    )
)  # fmt: skip
def test_a_text_is_read_or_refused_in_one_line(text: str) -> None:
    for read in (import_iptables, import_nft):
        read_or_refused(read, text)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(0, 100),
        st.sampled_from(["ip", "saddr", "10.0.0.0", "@s", "tcp", "dport", "input", "t", "c", "accept", "new"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["match", "op", "left", "right", "payload", "protocol", "field", "meta", "key", "ct", "set", "range",
                 "prefix", "addr", "len", "concat", "elem", "val", "vmap", "data", "accept", "drop", "jump", "target"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=3))
def test_json_is_read_or_refused_in_one_line(expressions: list[object], elements: list[object]) -> None:
    objects: list[object] = [
        {"table": {"family": "inet", "name": "t"}},
        {"set": {"family": "inet", "table": "t", "name": "s", "elem": elements}},
        {"chain": {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "input", "policy": "drop"}},
        {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 1, "expr": expressions}},
    ]
    read_or_refused(import_nft, json.dumps({"nftables": objects}))
