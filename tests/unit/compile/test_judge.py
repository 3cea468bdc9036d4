"""The compiled form says of a packet what the policy means."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from tests.unit.compile.worlds import CONTROLLER, DB, DEV, ELSEWHERE, OFFICE, WEB, WEB6, compiled

from cellwall.compile import Face, Judged, Point, find_face, judge, outcome_of
from cellwall.flows import Outcome, Side
from cellwall.policy import NOBODY, Action, Identity, Mode, Tier
from cellwall.traffic import ICMP, TCP, UDP, Address

ALLOWED, DENIED = Outcome.ALLOWED, Outcome.DENIED
EGRESS, INGRESS = Side.EGRESS, Side.INGRESS
TEXT = """
rules:
  - {id: app-to-db, allow: tcp/5432, from: role=web, to: role=db, same: env}
  - {id: office, allow: tcp/5000-6000, from: "network:office", to: any}
  - {id: no-smb, deny: tcp/445, from: any, to: any}
  - {id: wall, wall: tcp/1-9999, from: any, to: role=db}
"""


def ask(
    point: Point, side: Side, local: Address, peer: Address, port: int, protocol: int = TCP, who: Identity = NOBODY
) -> Judged:
    return judge(point.ruleset, point.members, side, local, peer, protocol, port, who)


@pytest.mark.parametrize(
    ("peer", "port", "wanted"),
    [
        (WEB, 5432, (ALLOWED, ALLOWED, Tier.ALLOW, ("app-to-db",))),
        (DEV, 5432, (DENIED, DENIED, Tier.WALL, ("wall",))),
        (OFFICE, 5432, (ALLOWED, ALLOWED, Tier.ALLOW, ("office",))),
        (OFFICE, 445, (DENIED, DENIED, Tier.DENY, ("no-smb",))),
        (ELSEWHERE, 5432, (DENIED, DENIED, Tier.WALL, ("wall",))),
        (ELSEWHERE, 10_000, (DENIED, DENIED, Tier.DEFAULT, ())),
    ],
)
def test_the_class_of_the_peer_decides_then_everyone_then_the_mode(peer: Address, port: int, wanted: object) -> None:
    judged = ask(compiled(TEXT).points["db"], INGRESS, DB, peer, port)
    assert (judged.outcome, judged.would, judged.tier, judged.rules) == wanted


@pytest.mark.parametrize(
    ("mode", "port", "outcome"),
    [("observe", 445, ALLOWED), ("observe", 10_000, ALLOWED), ("guard", 445, DENIED), ("guard", 10_000, ALLOWED)],
)
def test_the_mode_says_how_far(mode: str, port: int, outcome: Outcome) -> None:
    judged = ask(compiled(TEXT, mode).points["db"], INGRESS, DB, ELSEWHERE, port)
    assert (judged.outcome, judged.would) == (outcome, DENIED)


@pytest.mark.parametrize(
    ("side", "peer", "protocol", "port", "wanted"),
    [
        (EGRESS, CONTROLLER, TCP, 7443, "controller-channel"),
        (EGRESS, CONTROLLER, TCP, 7444, ""),
        (EGRESS, ELSEWHERE, TCP, 7443, ""),
        (INGRESS, CONTROLLER, TCP, 7443, ""),
        (INGRESS, ELSEWHERE, ICMP, 3 << 8, "icmp-errors"),
        (EGRESS, ELSEWHERE, UDP, 67, "dhcp-request"),
        (INGRESS, ELSEWHERE, UDP, 67, ""),
    ],
)
def test_a_built_in_lifeline_decides_first(side: Side, peer: Address, protocol: int, port: int, wanted: str) -> None:
    judged = ask(compiled("rules: []").points["web"], side, WEB, peer, port, protocol)
    assert ((judged.tier is Tier.LIFELINE) and judged.rules[0]) == (wanted or False)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("peer", [WEB, ip_address("127.0.0.1"), ip_address("::1")])
def test_what_a_host_sends_to_itself_passes(side: Side, peer: Address) -> None:
    local = peer if peer.is_loopback else WEB
    judged = ask(compiled("rules: []").points["web"], side, local, peer, 22)
    assert (judged.outcome, judged.tier, judged.rules) == (ALLOWED, Tier.LIFELINE, ("loopback",))


def test_an_address_that_is_not_known_to_be_ours_meets_the_rules_for_anyone() -> None:
    text = "rules: [{id: all, allow: tcp/1, from: any, to: any}, {id: db, allow: tcp/2, from: any, to: role=db}]"
    point = compiled(text).points["db"]
    elsewhere = ip_address("224.0.0.1")
    assert [ask(point, INGRESS, elsewhere, WEB, port).rules for port in (1, 2)] == [("all",), ()]
    assert [ask(point, INGRESS, DB, WEB, port).rules for port in (1, 2)] == [("all",), ("db",)]


@pytest.mark.parametrize(
    ("who", "wanted"),
    [
        (NOBODY, ("plain",)),
        (Identity(user="root", unit="other.service"), ("plain",)),
        (Identity(user="a"), ("as-a", "plain")),
        (Identity(user="a", unit="u.service"), ("as-a", "as-a-in-u", "as-u", "plain")),
        (Identity(user="root", unit="u.service"), ("as-u", "plain")),
    ],
)
def test_the_identity_of_the_process_chooses_the_face(who: Identity, wanted: tuple[str, ...]) -> None:
    point = compiled("""
        rules:
          - {id: plain, allow: any, from: role=web, to: any}
          - {id: as-a, allow: any, from: {workloads: role=web, as: {user: a}}, to: any}
          - {id: as-u, allow: any, from: {workloads: role=web, as: {unit: u.service}}, to: any}
          - {id: as-a-in-u, allow: any, from: {workloads: role=web, as: {user: a, unit: u.service}}, to: any}
        """).points["web"]
    for local, peer in ((WEB, DB), (WEB6, ip_address("fd00::2"))):
        assert ask(point, EGRESS, local, peer, 80, who=who).rules == wanted


def test_a_face_without_the_persona_is_the_plain_one() -> None:
    plain, named = Face(()), Face((), Identity(user="a"))
    assert find_face((named, plain), WEB, Identity(user="b"), EGRESS) is plain
    assert find_face((named, plain), WEB, Identity(user="a"), INGRESS) is plain
    assert find_face((named, plain), WEB, Identity(user="a"), EGRESS) is named
    both = (Face((), Identity(user="a")), Face((), Identity(unit="u")), plain)
    assert find_face(both, WEB, Identity(user="a", unit="u"), EGRESS) is plain


def test_what_is_let_through_is_let_through_in_every_mode() -> None:
    for mode in Mode:
        assert outcome_of(Action.ALLOW, mode) is outcome_of(Action.LIFELINE, mode) is ALLOWED
        assert outcome_of(Action.DENY, mode) is outcome_of(Action.WALL, mode)
        assert (outcome_of(Action.DENY, mode) is ALLOWED) is (mode is Mode.OBSERVE)
