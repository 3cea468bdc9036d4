import pytest
from tests.unit.analysis.world import FLEET, NOW, policy, record

from cellwall.analysis import Assume, Check, Finding, Severity, lint, replay
from cellwall.analysis.linting.edits import apply_edits
from cellwall.analysis.linting.flows import Observed
from cellwall.flows import FlowRecord, Process
from cellwall.policy import parse_policy

DAY_S = 86400.0


def found(rule: str, *seen: FlowRecord, head: str = "", since: float = 0.0) -> list[Finding]:
    text = f"{head}\nrules: [{{owner: me, id: r, {rule}}}]"
    observed = Observed(seen, since)
    checks = {Check.UNUSED_RULE, Check.BROADER}
    return [one for one in lint(policy(text), FLEET, NOW, observed) if one.check in checks]


def test_an_allow_that_no_flow_used_is_found() -> None:
    (one,) = found("allow: tcp/5432, from: role=web, to: role=db", record("web-1", "db-1", "tcp/80"))
    assert (one.check, one.severity) == (Check.UNUSED_RULE, Severity.WARNING)
    assert one.message.startswith("no flow of the last ") and len(one.edits) == 1


def test_denies_walls_and_rules_not_in_force_are_not_asked_for_use() -> None:
    for rule in (
        "deny: tcp/1, from: role=web, to: role=db",
        "wall: tcp/1, from: role=web, to: role=db",
        "allow: tcp/1, from: role=web, to: role=db, staged: true",
        "allow: tcp/1, from: role=web, to: role=db, starts: 2060-01-01T00:00:00Z",
    ):
        assert found(rule, record("web-1", "db-1", "tcp/80")) == []


def test_flows_that_are_too_old_do_not_count() -> None:
    seen = record("web-1", "db-1", last=NOW - 40 * DAY_S)
    (one,) = found("allow: tcp/5432, from: role=web, to: role=db", seen, since=NOW - 30 * DAY_S)
    assert (one.check, one.message) == (Check.UNUSED_RULE, "no flow of the last 30 days used it")
    recent = record("web-1", "db-1", last=NOW - 10 * DAY_S)
    told = found("allow: tcp/5432, from: role=web, to: role=db", recent, since=NOW - 30 * DAY_S)
    assert [one.check for one in told] == [Check.BROADER]
    assert "the last 30 days" in told[0].message


def test_nothing_is_said_where_nobody_watched() -> None:
    assert found("allow: tcp/5432, from: role=web, to: role=db") == []


def test_a_rule_that_is_used_in_whole_is_left_alone() -> None:
    seen = [record(source, target) for source in ("web-1", "web-2", "web-dev") for target in ("db-1", "db-dev")]
    assert found("allow: tcp/5432, from: role=web, to: role=db", *seen) == []


def test_ports_that_were_not_seen_are_left_out_of_the_proposal() -> None:
    seen = [
        record(source, target, "tcp/81") for source in ("web-1", "web-2", "web-dev") for target in ("db-1", "db-dev")
    ]
    (one,) = found("allow: [tcp/80-90, icmp/8], from: role=web, to: role=db", *seen)
    assert one.message == (
        f"the flows of {one.message.split('flows of ')[1].split(' used')[0]} used 6 of the 6 pairs of workloads that "
        "it allows, and tcp/81 of icmp/8, tcp/80-90"
    )
    assert one.hint == "`allow: tcp/81` would do"
    pinged = record("web-1", "db-1", "icmp/8/0")
    (other,) = found("allow: [tcp/80-90, icmp/8], from: role=web, to: role=db", *seen, pinged)
    assert other.hint == "`allow: [icmp/8, tcp/81]` would do"


def test_a_range_of_which_much_was_seen_is_kept_whole() -> None:
    seen = [
        record(source, target, f"tcp/{port}")
        for source in ("web-1", "web-2", "web-dev")
        for target in ("db-1", "db-dev")
        for port in range(8000, 8020)
    ]
    assert found("allow: tcp/8000-8100, from: role=web, to: role=db", *seen) == []


def test_labels_that_all_that_were_seen_share_narrow_an_end() -> None:
    (one,) = found("allow: tcp/5432, from: role=web, to: role=db", record("web-1", "db-1"), record("web-2", "db-1"))
    assert one.hint == (
        '`from: "env=prod,role=web"` and `to: "env=prod,role=db"` would do together, and allows 2 pairs'
    )
    assert one.example == "web-1 → db-dev was never seen"


def test_alternatives_that_nothing_used_are_left_out() -> None:
    seen = [record("db-dev", "web-dev", "tcp/1"), record("db-1", "web-dev", "tcp/1")]
    told = found("allow: tcp/1, from: [role=db, role=storage], to: 'role=web,env=dev'", *seen)
    assert [one.hint for one in told] == ["`from: role=db` would do, and allows 2 pairs"]
    both = [*seen, *(record(source, "web-dev", "tcp/1") for source in ("web-1", "web-2"))]
    (one,) = found("allow: tcp/1, from: [role=db, role=web, app=infra], to: 'role=web,env=dev'", *both)
    assert one.hint.startswith("`from: [role=db, role=web]` would do")


def test_an_end_that_was_no_workload_is_not_narrowed() -> None:
    head = "networks: {office: [192.0.2.0/24]}"
    seen = [record("192.0.2.9", target, "tcp/80") for target in ("web-1", "web-2", "web-dev")]
    assert found("allow: tcp/80, from: network:office, to: role=web", *seen, head=head) == []
    assert found("allow: tcp/80, from: any, to: role=web", *seen) == []


def test_a_key_that_some_that_were_seen_lack_does_not_narrow() -> None:
    seen = [record("printer", target, "tcp/80") for target in ("web-1", "web-2", "web-dev")]
    seen += [record("web-1", target, "tcp/80") for target in ("web-2", "web-dev")]
    assert found("allow: tcp/80, from: any, to: role=web", *seen) == []


@pytest.mark.parametrize("process", [Process(), Process("psql", user="www")])
def test_what_asks_for_a_process_is_used_by_that_process(process: Process) -> None:
    rule = "allow: tcp/5432, from: {workloads: 'role=web,env=prod', as: {user: www}}, to: 'role=db,env=prod'"
    seen = [record(name, "db-1", process=process) for name in ("web-1", "web-2")]
    told = found(rule, *seen)
    # The far point lets any process be, so the flow did use the rule there.
    assert [one.check for one in told] == []


def test_the_narrower_rule_still_lets_through_what_was_seen() -> None:
    text = """
rules:
  - {id: r, allow: [tcp/80-90, tcp/5432], from: role=web, to: any, owner: me}
  - {id: s, allow: any, from: any, to: role=web, same: [app], owner: me}
modes: [{where: any, mode: enforce}]
"""
    seen = [record("web-1", "db-1"), record("web-2", "db-1", "tcp/82"), record("db-1", "web-2", "udp/53")]
    read = parse_policy([("0.yaml", text)])
    told = lint(read, FLEET, NOW, Observed(tuple(seen)))
    edits = [edit for one in told if one.check is Check.BROADER for edit in one.edits]
    assert edits
    narrower = parse_policy(apply_edits({"0.yaml": text}, edits).items())
    assert narrower != read
    assert not replay(narrower, FLEET, seen, NOW, Assume.ENFORCE).cut
