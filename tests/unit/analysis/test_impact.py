from ipaddress import ip_address

from tests.unit.analysis.world import FLEET, NOW, POLICY, policy, record

from cellwall.analysis import Assume, impact
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import NOBODY, Identity


def test_a_new_rule_opens_ports_between_groups_of_workloads() -> None:
    new = policy(POLICY, "rules: [{id: ssh, allow: tcp/22, from: 'role=web,env=prod', to: role=db}]")
    seen = [record("web-1", "db-1", "tcp/22"), record("web-1", "db-1")]
    told = impact(policy(), new, FLEET, seen, NOW)
    assert [(one.source, one.service) for one in told.seen.opened] == [("web-1", "tcp/22")]
    assert (told.seen.cut, told.nothing) == ((), False)
    (change,) = told.changes
    assert (change.sources, change.destinations) == (("web-1", "web-2"), ("db-1", "db-dev"))
    assert (str(change.opened), str(change.closed), change.identity) == ("tcp/22", "nothing", NOBODY)


def test_the_modes_decide_what_a_change_does_unless_all_enforce() -> None:
    new = policy(POLICY.replace("mode: observe", "mode: enforce"))
    seen = [record("web-dev", "db-dev", "tcp/22")]
    assert len(impact(policy(), new, FLEET, seen, NOW).seen.cut) == 1
    assert impact(policy(), new, FLEET, seen, NOW, Assume.ENFORCE).nothing


def test_rules_that_move_or_split_change_nothing() -> None:
    split = POLICY.replace("to: role=db, same: [app, env]", "to: role=db, same: [env, app]")
    split = split.replace("  - {id: smb,", "  - {id: smb-too, wall: tcp/445, from: role=web, to: any}\n  - {id: smb,")
    assert impact(policy(), policy(split), FLEET, (), NOW).nothing


def test_places_outside_are_part_of_a_change() -> None:
    wider = POLICY.replace("[192.0.2.0/24]", "[192.0.2.0/24, 203.0.113.0/24]")
    (change,) = impact(policy(), policy(wider), FLEET, (), NOW).changes
    assert change.sources == ("network:office (IPv4)",)
    assert change.destinations == ("web-1", "web-2")


def test_a_change_for_one_process_says_which() -> None:
    new = policy(POLICY, "rules: [{id: s, allow: tcp/22, from: {workloads: role=web, as: {user: root}}, to: role=db}]")
    told = impact(policy(), new, FLEET, (), NOW, Assume.ENFORCE)
    assert {one.identity for one in told.changes} == {Identity(user="root")}
    assert {str(one.opened) for one in told.changes} == {"tcp/22"}


def test_other_labels_change_what_passes_too() -> None:
    moved = Fleet(
        tuple(
            Workload(
                one.name, one.labels.but(role="db") if one.name == "web-2" else one.labels, one.addresses, one.agent
            )
            for one in FLEET.workloads
        ),
        FLEET.controllers,
    )
    told = impact(policy(), policy(), FLEET, [record("web-2", "db-1")], NOW, new_fleet=moved)
    assert [(one.source, one.destination) for one in told.seen.cut] == [("web-2", "db-1")]
    opened = {(one.sources, one.destinations) for one in told.changes if one.opened}
    assert (("web-1",), ("web-2",)) in opened


def test_a_change_among_many_names_each_of_them_once() -> None:
    addresses = [ip_address(f"10.0.{at >> 8}.{at & 255}") for at in range(900)]
    crowd = Fleet(tuple(Workload(f"w-{one}", Labels({"role": "web"}), (one,)) for one in addresses), ())
    enforced = "modes: [{where: '', mode: enforce}]"
    among = policy(enforced, "rules: [{id: gossip, allow: tcp/7946, from: role=web, to: role=web}]")
    (change,) = impact(policy(enforced), among, crowd, (), NOW).changes
    assert (len(change.sources), len(change.destinations), str(change.opened)) == (900, 900, "tcp/7946")
