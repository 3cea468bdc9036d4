from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from cellwall.cli.documents import policy_of
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.why import draw, explain, read_service
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import NOBODY, Identity
from cellwall.traffic import parse_address

POLICY = policy_of(
    {
        "p.yaml": "rules:\n"
        "  - {id: app-to-db, allow: tcp/5432, from: role=api, to: role=db, reason: its data}\n"
        "  - {id: later, allow: tcp/22, from: role=api, to: role=db, staged: true}\n"
        "workloads:\n"
        "  printer: {addresses: [10.0.0.9], labels: {role: printer}}\n"
        "modes:\n"
        "  - {where: role=db, mode: enforce}\n"
    }
)


def workload(name: str, *addresses: str) -> Workload:
    labels = Labels({"role": name})
    return Workload(name, labels, tuple(parse_address(address) for address in addresses))


FLEET = Fleet((workload("api", "10.0.0.1", "fd00::1"), workload("db", "10.0.0.2"), workload("web", "fd00::3")))


def drawn(source: str, destination: str, service: str) -> list[str]:
    return shown(explain(POLICY, FLEET, source, destination, service, 0.0))


def shown(answer: dict[str, Any]) -> list[str]:
    console = Console(width=160, color_system=None, record=True, file=StringIO())
    console.print(draw(answer))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_an_allowed_flow_names_rule_file_line_and_reason_at_both_ends() -> None:
    lines = drawn("api", "db", "tcp/5432")
    assert lines[0] == "api → db tcp/5432  ✔ allowed"
    assert lines.count("    because  allow `app-to-db` at p.yaml:2:5: its data") == 2
    assert "    verdict  ✔ allowed in mode observe" in lines and "    verdict  ✔ allowed in mode enforce" in lines


def test_a_denied_flow_says_that_nothing_allows_it_and_what_would() -> None:
    lines = drawn("api", "db", "tcp/80")
    assert lines[0] == "api → db tcp/80  ✘ denied"
    assert "    verdict  ◌ would be denied in mode observe" in lines
    assert "    because  no rule allows it, and that is the default" in lines
    assert any(line.startswith("  advice   ") for line in lines)


def test_addresses_of_one_workload_that_are_decided_otherwise_are_told() -> None:
    rules = policy_of(
        {"p.yaml": "networks: {six: ['fd00::/64']}\n"
         "rules: [{id: r, allow: tcp/80, from: network:six, to: role=web}]\n"
         "modes: [{where: any, mode: enforce}]\n"}
    )  # fmt: skip
    fleet = Fleet((workload("api", "10.0.0.1", "fd00::1"), workload("web", "10.0.0.3", "fd00::3")))
    told = explain(rules, fleet, "api", "web", "tcp/80", 0.0)
    assert told["outcome"] == "denied"
    assert [(one["source"], one["outcome"]) for one in told["pairs"]] == [
        ("10.0.0.1", "denied"),
        ("fd00::1", "allowed"),
    ]
    lines = shown(told)
    assert lines[0] == "api → web tcp/80  ✘ denied"
    assert "  pairs    1 of 2 pairs of addresses are so, others are not: see below" in lines
    other = lines[lines.index("but fd00::1 → fd00::3  ✔ allowed") :]
    assert "  ingress at web (fd00::3; role=web)" in other
    assert "    because  allow `r` at p.yaml:2:9" in other


def test_addresses_that_agree_are_counted_and_told_once() -> None:
    fleet = Fleet((workload("api", "10.0.0.1", "fd00::1"), workload("web", "10.0.0.3", "10.0.0.4", "fd00::3")))
    lines = shown(explain(POLICY, fleet, "api", "web", "tcp/81", 0.0))
    assert "  pairs    all 3 pairs of addresses agree" in lines
    assert not any(line.startswith("but ") for line in lines)


def test_rules_that_decide_alike_and_are_not_the_same_are_each_told() -> None:
    rules = policy_of(
        {"p.yaml": "networks: {four: [10.0.0.0/8], six: ['fd00::/64']}\n"
         "rules:\n- {id: r4, allow: tcp/80, from: network:four, to: role=web}\n"
         "- {id: r6, allow: tcp/80, from: network:six, to: role=web}\n"}
    )  # fmt: skip
    fleet = Fleet((workload("api", "10.0.0.1", "fd00::1"), workload("web", "10.0.0.3", "fd00::3")))
    text = "\n".join(shown(explain(rules, fleet, "api", "web", "tcp/80", 0.0)))
    assert "`r4`" in text and "but fd00::1 → fd00::3  ✔ allowed" in text and "`r6`" in text


def test_pairs_that_were_not_looked_at_are_told() -> None:
    told = explain(POLICY, FLEET, "api", "db", "tcp/80", 0.0)
    told |= {"pairs": told["pairs"] * 2, "more_pairs": 5}
    assert "  pairs    both pairs of addresses agree; 5 more were not looked at" in shown(told)


def test_an_end_without_an_agent_enforces_nothing() -> None:
    assert "    nothing is enforced at this end: it has no agent" in drawn("api", "printer", "tcp/9100")
    assert "    nothing is enforced at this end: it has no agent" in drawn("192.0.2.1", "db", "tcp/5432")


def test_what_the_kernel_holds_and_what_was_seen_is_shown_where_it_is_known() -> None:
    answer = explain(POLICY, FLEET, "api", "db", "tcp/5432", 0.0)
    held = {"outcome": "allowed", "would": "allowed", "rules": ["app-to-db"], "mode": "enforce", "revision": 7}
    answer |= {
        "held": {"egress": {"error": "the agent of `api` is not connected"}, "ingress": held},
        "foreign": {"egress": [], "ingress": ["inet firewall", "ip filter"]},
        "seen": {"connections": 3, "last_seen": 0.0, "outcome": "allowed", "would": "denied"},
    }
    console = Console(width=160, color_system=None, record=True, file=StringIO())
    console.print(draw(answer))
    text = console.export_text()
    assert "kernel   the agent of `api` is not connected" in text
    assert "kernel   allowed by `app-to-db`, in mode enforce, revision 7" in text
    assert text.count("beside") == 1
    assert "beside   inet firewall, ip filter: what Cellwall lets pass, they may still drop" in text
    assert "seen     3 connections, last at 1970-01-01 00:00:00: would be denied" in text


@pytest.mark.parametrize(
    ("source", "destination"), [("nobody", "db"), ("api", "nobody"), ("web", "db"), ("192.0.2.1", "web")]
)
def test_ends_that_are_not_there_or_share_no_family_are_refused(source: str, destination: str) -> None:
    with pytest.raises(Stop) as caught:
        explain(POLICY, FLEET, source, destination, "tcp/5432", 0.0)
    assert caught.value.code is Exit.USAGE, "1 would be the answer that the flow is denied"


def test_a_rule_for_a_user_is_asked_about_with_the_user() -> None:
    text = "rules: [{id: r, allow: tcp/1, from: {workloads: role=api, as: {user: a, unit: u}}, to: any}]"
    policy = policy_of({"p.yaml": text})
    outcomes = [
        explain(policy, FLEET, "api", "db", "tcp/1", 0.0, who)["would"]
        for who in (NOBODY, Identity(user="a"), Identity("a", "u"))
    ]
    assert outcomes == ["denied", "denied", "allowed"]


@pytest.mark.parametrize(("text", "service"), [("5432", "tcp/5432"), ("udp/53", "udp/53"), ("icmp/8/0", "icmp/8/0")])
def test_a_bare_number_is_a_tcp_port(text: str, service: str) -> None:
    assert read_service(text) == service


def test_a_service_of_the_documents_is_known_by_its_name() -> None:
    rules = policy_of({"p.yaml": "services: {db: tcp/5432, web: [tcp/80, tcp/443]}"})
    assert read_service("db", rules) == "tcp/5432"
    with pytest.raises(Stop, match=r"`web` is 2 ports \(tcp/80, tcp/443\); ask for one"):
        read_service("web", rules)
    with pytest.raises(Stop, match="unknown service `wed`; did you mean `web`"):
        read_service("wed", rules)


@pytest.mark.parametrize("text", ["tcp", "tcp/1-2", "any", "http", "tcp/99999"])
def test_a_question_is_about_one_port(text: str) -> None:
    with pytest.raises(Stop):
        read_service(text)
