"""What a policy means: each step of the meaning by an example that a person can check."""

from __future__ import annotations

import textwrap
from ipaddress import ip_address

import pytest

from cellwall.flows import Outcome, Side
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels
from cellwall.policy import (
    NOBODY,
    Decision,
    Flow,
    Identity,
    Mode,
    Policy,
    Tier,
    Verdict,
    decide,
    decide_at,
    endpoint,
    parse_policy,
)
from cellwall.traffic import ICMP, TCP, UDP

ALLOWED, DENIED = Outcome.ALLOWED, Outcome.DENIED
EGRESS, INGRESS = Side.EGRESS, Side.INGRESS
NOW = 1_800_000_000.0
WEB, DB, DEV, PLC = (ip_address(f"10.0.0.{n}") for n in (1, 2, 3, 4))
OFFICE, ELSEWHERE, CONTROLLER = (ip_address(a) for a in ("10.20.0.7", "192.0.2.1", "198.51.100.1"))
FLEET = Fleet(
    (
        Workload("web", Labels({"app": "shop", "role": "web", "env": "prod"}), (WEB, ip_address("fd00::1"))),
        Workload("db", Labels({"app": "shop", "role": "db", "env": "prod"}), (DB,)),
        Workload("dev", Labels({"app": "shop", "role": "web", "env": "dev"}), (DEV,)),
        Workload("plc", Labels({"role": "plc"}), (PLC,), agent=False),
    ),
    (Listener(CONTROLLER, 7443),),
)


def policy(text: str, mode: str = "enforce") -> Policy:
    common = f"networks: {{office: 10.20.0.0/16, all: [0.0.0.0/0]}}\nmodes: [{{where: any, mode: {mode}}}]\n"
    return parse_policy([("p.yaml", common + textwrap.dedent(text))])


def flow(
    source: object = WEB, destination: object = DB, protocol: int = TCP, port: int = 5432, identity: Identity = NOBODY
) -> Flow:
    return Flow(
        endpoint(FLEET, ip_address(str(source)), identity),
        endpoint(FLEET, ip_address(str(destination))),
        protocol,
        port,
    )


def at(side: Side, meant: Policy, one: Flow, now: float = NOW) -> Verdict:
    return decide_at(side, meant, FLEET, one, now)


def told(verdict: Verdict) -> tuple[Outcome, Outcome, Tier, tuple[str, ...]]:
    return verdict.outcome, verdict.would, verdict.tier, verdict.because


# --- the steps ---

TIERS = """
lifelines: [{id: line, allow: tcp/1, from: "network:all", to: role=db}]
rules:
  - {id: no, deny: [tcp/1, tcp/2], from: any, to: role=db}
  - {id: yes, allow: [tcp/1, tcp/2, tcp/3], from: any, to: role=db}
  - {id: brick, wall: [tcp/1, tcp/2, tcp/3, tcp/4], from: any, to: role=db}
"""


@pytest.mark.parametrize(
    ("mode", "port", "wanted"),
    [
        ("enforce", 1, (ALLOWED, ALLOWED, Tier.LIFELINE, ("line",))),
        ("enforce", 2, (DENIED, DENIED, Tier.DENY, ("no",))),
        ("enforce", 3, (ALLOWED, ALLOWED, Tier.ALLOW, ("yes",))),
        ("enforce", 4, (DENIED, DENIED, Tier.WALL, ("brick",))),
        ("enforce", 5, (DENIED, DENIED, Tier.DEFAULT, ())),
        ("guard", 1, (ALLOWED, ALLOWED, Tier.LIFELINE, ("line",))),
        ("guard", 2, (DENIED, DENIED, Tier.DENY, ("no",))),
        ("guard", 3, (ALLOWED, ALLOWED, Tier.ALLOW, ("yes",))),
        ("guard", 4, (DENIED, DENIED, Tier.WALL, ("brick",))),
        ("guard", 5, (ALLOWED, DENIED, Tier.DEFAULT, ())),
        ("observe", 1, (ALLOWED, ALLOWED, Tier.LIFELINE, ("line",))),
        ("observe", 2, (ALLOWED, DENIED, Tier.DENY, ("no",))),
        ("observe", 3, (ALLOWED, ALLOWED, Tier.ALLOW, ("yes",))),
        ("observe", 4, (ALLOWED, DENIED, Tier.WALL, ("brick",))),
        ("observe", 5, (ALLOWED, DENIED, Tier.DEFAULT, ())),
    ],
)
@pytest.mark.parametrize("side", [EGRESS, INGRESS])
def test_the_first_step_that_matches_decides_and_the_mode_says_how_far(
    side: Side, mode: str, port: int, wanted: object
) -> None:
    verdict = at(side, policy(TIERS, mode), flow(port=port))
    assert told(verdict) == wanted
    assert verdict.mode is Mode(mode)


def test_all_rules_of_the_step_that_decides_are_named_in_order() -> None:
    meant = policy("rules: [{id: b, allow: any, from: any, to: any}, {id: a, allow: tcp, from: role=web, to: any}]")
    assert at(EGRESS, meant, flow()).because == ("a", "b")


def test_each_end_decides_by_its_own_mode() -> None:
    meant = parse_policy([("p.yaml", "modes: [{where: role=web, mode: observe}, {where: role=db, mode: enforce}]")])
    decision = decide(meant, FLEET, flow(), NOW)
    assert decision.egress is not None and decision.ingress is not None
    assert (decision.egress.outcome, decision.ingress.outcome) == (ALLOWED, DENIED)
    assert (decision.outcome, decision.would) == (DENIED, DENIED)


@pytest.mark.parametrize("side", [EGRESS, INGRESS])
def test_a_rule_of_one_side_is_known_to_that_point_only(side: Side) -> None:
    meant = policy(f"rules: [{{id: a, allow: any, from: role=web, to: role=db, side: {side}}}]")
    decision = decide(meant, FLEET, flow(), NOW)
    assert decision.egress is not None and decision.ingress is not None
    assert (decision.egress.because, decision.ingress.because) == ((("a",), ()) if side is EGRESS else ((), ("a",)))
    assert decision.outcome is DENIED


def test_an_end_without_a_point_says_nothing() -> None:
    decision = decide(policy("rules: []"), FLEET, flow(OFFICE, PLC), NOW)
    assert decision == Decision(None, None)
    assert (decision.outcome, decision.would) == (ALLOWED, ALLOWED)
    assert decide(policy("rules: []"), FLEET, flow(WEB, PLC), NOW).ingress is None
    assert decide(policy("rules: []"), FLEET, flow(PLC, WEB), NOW).egress is None


# --- who is meant ---


@pytest.mark.parametrize(
    ("ends", "source", "destination", "matches"),
    [
        ("from: role=web, to: role=db", WEB, DB, True),
        ("from: role=web, to: role=db", DB, WEB, False),
        ("from: any, to: role=db", OFFICE, DB, True),
        ("from: role!=db, to: role=db", OFFICE, DB, False),  # no workload, so no selector
        ("from: role!=db, to: role=db", PLC, DB, True),
        ("from: 'network:office', to: role=db", OFFICE, DB, True),
        ("from: 'network:office', to: role=db", ELSEWHERE, DB, False),
        ("from: 'network:all', to: role=db", WEB, DB, True),  # a network also matches workloads
        ("from: ['network:office', role=web], to: [role=plc, role=db]", WEB, DB, True),
        ("from: app=shop, to: env", DEV, DB, True),
        ("from: '!app', to: role=db", PLC, DB, True),
        ("from: any, to: any, same: env", WEB, DB, True),
        ("from: any, to: any, same: env", DEV, DB, False),
        ("from: any, to: any, same: [app, env]", DEV, DB, False),
        ("from: any, to: any, same: app", PLC, DB, False),  # who has no value shares none
        ("from: any, to: any, same: app", OFFICE, DB, False),
    ],
)
def test_a_rule_matches_whom_its_ends_mean(ends: str, source: object, destination: object, matches: bool) -> None:
    verdict = at(INGRESS, policy(f"rules: [{{id: r, allow: any, {ends}}}]"), flow(source, destination))
    assert (verdict.because == ("r",)) is matches


@pytest.mark.parametrize(
    ("ports", "protocol", "port", "matches"),
    [
        ("tcp/5432", TCP, 5432, True),
        ("tcp/5432", UDP, 5432, False),
        ("tcp/5000-5431", TCP, 5432, False),
        ("icmp/8", ICMP, 8 << 8, True),
        ("icmp/8/1", ICMP, 8 << 8, False),
        ("gre", 47, 0, True),
        ("any", 89, 0, True),
    ],
)
def test_a_rule_matches_the_ports_that_it_names(ports: str, protocol: int, port: int, matches: bool) -> None:
    verdict = at(
        INGRESS, policy(f"rules: [{{id: r, allow: {ports}, from: any, to: any}}]"), flow(WEB, DB, protocol, port)
    )
    assert (verdict.because == ("r",)) is matches


# --- identities ---


@pytest.mark.parametrize(
    ("action", "end", "side", "identity", "matches"),
    [
        # An end's own point checks it …
        ("allow", "from", EGRESS, Identity(user="www-data"), True),
        ("allow", "from", EGRESS, Identity(user="root"), False),
        ("allow", "from", EGRESS, NOBODY, False),
        ("deny", "from", EGRESS, Identity(user="www-data"), True),
        ("wall", "from", EGRESS, Identity(user="root"), False),
        # … the far point lets an allow through to be checked there, and leaves a deny or a wall to it.
        ("allow", "from", INGRESS, Identity(user="root"), True),
        ("deny", "from", INGRESS, Identity(user="www-data"), False),
        ("wall", "from", INGRESS, Identity(user="www-data"), False),
        ("allow", "to", EGRESS, NOBODY, True),
        ("deny", "to", EGRESS, NOBODY, False),
        ("allow", "to", INGRESS, NOBODY, False),
    ],
)
def test_an_identity_is_checked_at_its_own_end(
    action: str, end: str, side: Side, identity: Identity, matches: bool
) -> None:
    ends = {"from": "role=web", "to": "role=db"}
    ends[end] = f"{{workloads: {ends[end]}, as: {{user: www-data}}}}"
    meant = policy(f"rules: [{{id: r, {action}: any, from: {ends['from']}, to: {ends['to']}}}]")
    assert (at(side, meant, flow(identity=identity)).because == ("r",)) is matches


# --- what is not in force ---


def test_a_staged_rule_is_told_and_does_nothing() -> None:
    verdict = at(INGRESS, policy("rules: [{id: r, allow: any, from: any, to: any, staged: true}]"), flow())
    assert told(verdict) == (DENIED, DENIED, Tier.DEFAULT, ())
    assert verdict.staged == ("r",)


def test_a_rule_out_of_its_time_does_nothing() -> None:
    meant = policy("""
        rules:
          - {id: later, allow: any, from: any, to: any, starts: 2040-01-01T00:00:00Z}
          - {id: over, allow: any, from: any, to: any, expires: 2020-01-01T00:00:00Z, staged: true}
        """)
    verdict = at(INGRESS, meant, flow())
    assert (verdict.because, verdict.staged) == ((), ())
    assert at(INGRESS, meant, flow(), now=2_208_988_800.0).because == ("later",)


def test_a_rule_that_no_point_can_express_does_nothing() -> None:
    meant = policy("services: {api: {ports: tcp/5432, http: {}}}\nrules: [{id: r, allow: api, from: any, to: any}]")
    assert at(INGRESS, meant, flow()).because == ()


# --- lifelines ---


@pytest.mark.parametrize(
    ("side", "one", "wanted"),
    [
        (EGRESS, flow(WEB, WEB), "loopback"),
        (EGRESS, flow(WEB, "127.0.0.1"), "loopback"),
        (EGRESS, flow("fd00::1", "::1"), "loopback"),
        (INGRESS, flow(ELSEWHERE, DB, ICMP, 3 << 8 | 4), "icmp-errors"),
        (EGRESS, flow(WEB, ELSEWHERE, UDP, 67), "dhcp-request"),
        (EGRESS, flow(WEB, CONTROLLER, TCP, 7443), "controller-channel"),
    ],
)
def test_a_built_in_lifeline_passes_whatever_the_policy(side: Side, one: Flow, wanted: str) -> None:
    meant = policy("rules: [{id: no, deny: any, from: any, to: any}]")
    assert told(at(side, meant, one)) == (ALLOWED, ALLOWED, Tier.LIFELINE, (wanted,))


@pytest.mark.parametrize(
    ("side", "one"),
    [
        (INGRESS, flow(ELSEWHERE, DB, UDP, 67)),
        (EGRESS, flow(WEB, CONTROLLER, TCP, 7444)),
        (EGRESS, flow(WEB, ELSEWHERE, TCP, 7443)),
    ],
)
def test_a_lifeline_is_no_wider_than_it_says(side: Side, one: Flow) -> None:
    assert at(side, policy("rules: [{id: no, deny: any, from: any, to: any}]"), one).because == ("no",)


def test_a_built_in_lifeline_is_named_before_a_written_one() -> None:
    meant = policy('lifelines: [{id: mine, allow: any, from: any, to: "network:all"}]')
    assert at(EGRESS, meant, flow(WEB, CONTROLLER, TCP, 7443)).because == ("controller-channel",)


# --- words ---


def test_a_flow_is_written_as_a_person_would() -> None:
    assert str(flow()) == "web → db tcp/5432"
    assert str(flow(OFFICE, DB, ICMP, 8 << 8)) == "10.20.0.7 → db icmp/8/0"


def test_an_end_that_no_workload_owns_is_an_address() -> None:
    end = endpoint(FLEET, OFFICE, Identity(user="x"))
    assert (end.workload, end.labels, end.agent, end.identity) == (None, Labels(), False, Identity(user="x"))
