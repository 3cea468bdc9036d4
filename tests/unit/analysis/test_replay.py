from tests.unit.analysis.world import FLEET, NOW, policy, record

from cellwall.analysis import Assume, distinct, replay
from cellwall.flows import UNKNOWN, Outcome, Process, Side

ROOT, WWW = Process("a", "root"), Process("b", "www-data")


def test_what_passed_and_would_not_is_cut_and_the_other_way_round_opened() -> None:
    seen = [
        record("web-1", "db-1"),
        record("web-1", "db-1", "tcp/22", connections=5),
        record("web-1", "web-2", "tcp/22", connections=7),
        record("192.0.2.9", "web-1", "tcp/80", Side.INGRESS, Outcome.DENIED),
        record("nas", "printer", "tcp/9100", Side.INGRESS),
    ]
    told = replay(policy(), FLEET, seen, NOW)
    assert (told.checked, told.connections, told.unknown) == (5, 15, 1)
    assert [(one.destination, one.service, one.rules) for one in told.cut] == [
        ("web-2", "tcp/22", ()),
        ("db-1", "tcp/22", ()),
    ]
    assert told.cut_connections == 12
    assert [(one.source, one.destination, one.rules) for one in told.opened] == [("192.0.2.9", "web-1", ("office-in",))]
    assert told.cut[0].egress is not None and told.cut[0].ingress is not None


def test_modes_count_unless_all_are_taken_to_enforce() -> None:
    seen = [record("web-dev", "db-dev", "tcp/22")]
    assert replay(policy(), FLEET, seen, NOW).cut == ()
    assert len(replay(policy(), FLEET, seen, NOW, Assume.ENFORCE).cut) == 1


def test_a_cut_names_the_rule_that_denies() -> None:
    (one,) = replay(policy(), FLEET, [record("web-dev", "db-1")], NOW).cut
    assert one.rules == ("no-dev",)


def test_what_was_seen_last_is_what_it_was() -> None:
    seen = [
        record("web-1", "db-1", outcome=Outcome.ALLOWED, last=20.0),
        record("web-1", "db-1", outcome=Outcome.DENIED, last=30.0),
    ]
    (one,) = distinct(seen)
    assert (one.was, one.connections, one.first_seen, one.last_seen) == (Outcome.DENIED, 2, 10.0, 30.0)
    (other,) = distinct([seen[0], record("web-1", "db-1", side=Side.INGRESS, outcome=Outcome.DENIED)])
    assert other.was is Outcome.DENIED


def test_each_process_at_the_source_is_a_flow_of_its_own() -> None:
    text = "rules: [{id: r, allow: tcp/5432, from: {workloads: role=web, as: {user: www-data}}, to: role=db}]"
    modes = "modes: [{where: '', mode: enforce}]"
    seen = [
        record("web-1", "db-1", process=ROOT, connections=3),
        record("web-1", "db-1", process=WWW, connections=4),
        record("web-1", "db-1", side=Side.INGRESS, connections=7),
        record("web-2", "db-1", process=UNKNOWN),
    ]
    told = replay(policy(text, modes), FLEET, seen, NOW)
    assert told.checked == 3
    assert [(one.source, one.process, one.connections, one.unsure) for one in told.cut] == [
        ("web-1", ROOT, 3, False),
        ("web-2", UNKNOWN, 1, True),
    ]


def test_a_flow_is_denied_when_one_of_its_servers_would_be() -> None:
    text = """
    rules:
      - {id: r, allow: tcp/80, from: any, to: {workloads: any, as: {user: www-data}}}
      - {id: out, allow: tcp/80, from: any, to: any}
      - {id: no, deny: tcp/80, from: any, to: {workloads: any, as: {user: root}}}
    modes: [{where: "", mode: enforce}]
    """
    seen = [record("web-1", "web-2", "tcp/80", Side.INGRESS, process=one) for one in (WWW, ROOT)]
    (one,) = replay(policy(text), FLEET, seen, NOW).cut
    assert (one.destination, one.rules) == ("web-2", ("no",))
    assert replay(policy(text), FLEET, seen[:1], NOW).cut == ()
    (other,) = replay(policy(text), FLEET, seen[::-1], NOW).cut
    assert other.rules == ("no",)
