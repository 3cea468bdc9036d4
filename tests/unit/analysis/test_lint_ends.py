import pytest
from tests.unit.analysis.world import FLEET, NOW

from cellwall.analysis import Check, Severity, lint
from cellwall.analysis.linting.covered import Covered
from cellwall.analysis.linting.ends import everybody
from cellwall.labels import Selector
from cellwall.policy import Action, Policy, Rule, Who, parse_policy
from cellwall.traffic import parse_ports

HEAD = """
labels: {env: {values: [prod, dev]}, role: {}, app: {}}
networks: {world: ["0.0.0.0/0", "::/0"], four: ["0.0.0.0/0"], office: [192.0.2.0/24]}
"""


def matching_all(rule: str) -> list[tuple[Severity, str, str]]:
    policy = parse_policy([("p.yaml", f"{HEAD}rules: [{{id: r, owner: me, {rule}}}]")])
    found = everybody(policy, Covered(policy, NOW).universe)
    return [(one.severity, one.message, one.hint) for one in found]


def test_a_network_of_all_addresses_is_any() -> None:
    assert matching_all("allow: tcp/1, from: network:world, to: role=x") == [
        (Severity.INFO, "`from` names every address there is, and so matches anybody", "write `any`")
    ]
    assert matching_all("allow: tcp/1, from: network:four, to: role=x") == []


@pytest.mark.parametrize("ends", ["[env, '!env']", "[env=prod, 'env!=prod']", "[env=prod, env=dev, '!env']"])
def test_alternatives_that_leave_nobody_out_match_every_workload(ends: str) -> None:
    assert matching_all(f"deny: tcp/1, from: role=x, to: {ends}") == [
        (Severity.INFO, "`to` matches every workload, whatever its labels", "name those that are meant")
    ]


@pytest.mark.parametrize(
    "ends", ["[role, env=prod]", "[role=a, 'role in (b,c)']", "[network:office, env]", "[any, env]"]
)
def test_alternatives_that_leave_somebody_out_are_as_they_are(ends: str) -> None:
    assert matching_all(f"allow: tcp/1, from: role=x, to: {ends}") == []


def test_allowing_everything_to_everybody_is_questionable() -> None:
    assert matching_all("allow: any, from: any, to: any") == [
        (Severity.WARNING, "allows everything that no rule denies, from anybody to anybody", "name who may")
    ]
    assert matching_all("deny: any, from: any, to: any") == []
    assert matching_all("allow: any, from: any, to: any, same: app") == []


def test_an_empty_selector_that_no_document_can_have_matches_every_workload() -> None:
    rule = Rule("r", Action.ALLOW, parse_ports("tcp/1"), (Who(Selector()),), (Who(),))
    policy = Policy(rules=(rule,))
    assert [one.message for one in everybody(policy, Covered(policy, NOW).universe)] == [
        "`from` matches every workload, whatever its labels"
    ]


def test_rules_in_force_nowhere_are_not_asked() -> None:
    assert matching_all("allow: tcp/1, from: network:world, to: role=x, staged: true") == []


def test_services_that_share_ports_are_told_once_and_with_the_ports() -> None:
    text = """
services: {web: [tcp/80, tcp/443], http: tcp/80, same: tcp/80, all: tcp, dns: udp/53}
rules:
  - {id: r, allow: [web, http, dns], from: role=x, to: role=y, owner: me}
  - {id: s, allow: [all, "tcp/1-9"], from: role=x, to: role=z, owner: me}
  - {id: t, allow: [dns, same], from: role=x, to: role=u, owner: me}
"""
    told = {
        (one.subject, one.message): (one.hint, one.edits)
        for one in lint(parse_policy([("p.yaml", text)]), None, NOW)
        if one.check is Check.SERVICES_OVERLAP
    }
    assert {at: hint for at, (hint, _) in told.items()} == {
        ("http", "service `http` shares tcp/80 with `web`"): "",
        ("same", "service `same` shares tcp/80 with `http`, `web`"): "",
        ("all", "service `all` shares tcp/80, tcp/443 with `http`, `same`, `web`"): "",
        ("r", "`http` is among the other services that it lists"): "list `web`, `dns` alone",
        ("s", "`tcp/1-9` is among the other services that it lists"): "list `all` alone",
    }
    assert [edit.text for _, edits in told.values() for edit in edits] == ["[web, dns]", "all"]


def test_services_that_are_the_same_are_told_so() -> None:
    text = "services: {a: tcp/80, b: tcp/80}\nrules: [{id: r, allow: [a, b], from: role=x, to: any, owner: me}]"
    told = [one for one in lint(parse_policy([("p.yaml", text)]), None, NOW) if one.check is Check.SERVICES_OVERLAP]
    assert [one.message for one in told] == [
        "service `b` is the same as `a`",
        "`b` is among the other services that it lists",
    ]


def test_without_a_fleet_negations_are_told_as_traps() -> None:
    text = "rules: [{id: r, allow: tcp/1, from: 'env!=prod', to: '!role', owner: me}]"
    told = [(one.check, one.severity, one.hint) for one in lint(parse_policy([("p.yaml", text)]), None, NOW)]
    assert told == [
        (Check.CAUGHT_BY_ABSENCE, Severity.INFO, "ask for the label too: `env,env!=prod`"),
        (Check.CAUGHT_BY_ABSENCE, Severity.INFO, ""),
    ]
    present = "rules: [{id: r, allow: tcp/1, from: 'env,env!=prod', to: role=x, owner: me}]"
    assert lint(parse_policy([("p.yaml", present)]), None, NOW) == ()


def test_what_can_never_match_is_told_once() -> None:
    text = "rules: [{id: r, allow: tcp/1, from: 'role=web,role=db', to: role=db, owner: me}]"
    (one,) = lint(parse_policy([("p.yaml", text)]), FLEET, NOW)
    assert (one.check, one.severity) == (Check.NEVER_MATCHES, Severity.ERROR)


def test_rules_in_force_nowhere_that_say_the_same_are_found_by_their_words() -> None:
    text = """
rules:
  - {id: a, allow: tcp/1, from: role=x, to: role=y, staged: true, owner: me}
  - {id: b, allow: tcp/1, from: role=x, to: role=y, staged: true, owner: me}
"""
    told = [one for one in lint(parse_policy([("p.yaml", text)]), None, NOW) if one.check is Check.DUPLICATE]
    assert [(one.subject, one.proof) for one in told] == [("b", ("a",))]
