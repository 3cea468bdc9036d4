from ipaddress import ip_address

import pytest
from tests.unit.analysis.world import FLEET, NOW, POLICY, policy

from cellwall.analysis import Reach, run_test, run_tests
from cellwall.inventory import Fleet, Workload
from cellwall.labels import parse_labels
from cellwall.policy import Identity
from cellwall.traffic import parse_ports


def results(tests: str, *texts: str) -> dict[str, bool]:
    return {one.test.id: one.passed for one in run_tests(policy(*(texts or (POLICY,)), f"tests: {tests}"), FLEET, NOW)}


@pytest.mark.parametrize(
    ("test", "passes"),
    [
        ("{id: t, from: role=web, can: postgres, to: role=db}", False),  # not across environments
        ("{id: t, from: 'role=web,env=prod', can: postgres, to: 'role=db,env=prod'}", True),
        ("{id: t, from: 'role=web,env=prod', can: [postgres, tcp/22], to: 'role=db,env=prod'}", False),
        ("{id: t, from: env=dev, cannot: any, to: env=prod}", True),  # but for lifelines, which carry no service
        ("{id: t, from: env=dev, cannot: icmp/3, to: env=prod}", False),  # unless one is asked for
        ("{id: t, from: env=dev, cannot: [tcp, sctp], to: env=prod}", True),
        ("{id: t, from: network:office, can: tcp/80, to: role=web}", True),
        ("{id: t, from: any, cannot: postgres, to: role=web}", True),
        ("{id: t, from: any, cannot: postgres, to: role=db}", False),
        ("{id: t, only: role=web, may-reach: role=db, service: tcp}", True),
        ("{id: t, only: 'role=web,env=prod', may-reach: 'role=db,env=prod', service: tcp}", True),
        ("{id: t, only: network:office, may-reach: role=web, service: tcp}", True),
        ("{id: t, only: env=prod, may-reach: role=web, service: tcp}", False),  # the office does
        ("{id: t, only: any, may-reach: role=db}", True),
        ("{id: t, from: role=storage, cannot: tcp, to: printer}", True),  # there is no such label
    ],
)
def test_claims_are_checked_over_all_workloads_ports_and_addresses(test: str, passes: bool) -> None:
    assert results(f"[{test}]") == {"t": passes}


def test_a_claim_about_nothing_is_vacuous() -> None:
    (one,) = run_tests(policy(POLICY, "tests: [{id: t, from: role=ghost, cannot: any, to: any}]"), FLEET, NOW)
    assert one.passed and one.vacuous


def test_a_counterexample_names_a_flow_its_ports_and_both_verdicts() -> None:
    (one,) = run_tests(
        policy(POLICY, "tests: [{id: t, from: role=web, can: [postgres, tcp/22], to: role=db}]"), FLEET, NOW
    )
    assert not one.passed and not one.vacuous
    shown = one.counterexamples[0]
    assert (shown.source, shown.destination, shown.service, shown.alike) == ("web-1", "db-1", "tcp/22", 3)
    assert shown.ports == parse_ports("tcp/22")
    assert shown.egress is not None and shown.ingress is not None
    across = next(each for each in one.counterexamples if (each.source, each.destination) == ("web-dev", "db-1"))
    assert across.egress is not None and across.egress.because == ("no-dev",)


def test_counterexamples_tell_of_each_rule_before_they_tell_of_one_again() -> None:
    many = ", ".join(f"{{id: r{n}, allow: tcp/{n}, from: 'env=v{n}', to: role=vault}}" for n in range(1, 4))
    hosts = [("a", 1)] * 12 + [("b", 2), ("c", 3)]
    fleet = Fleet(
        (
            Workload("vault", parse_labels("role=vault"), (ip_address("10.9.0.1"),)),
            *(
                Workload(f"{letter}-{at:02}", parse_labels(f"env=v{n},own={at}"), (ip_address(f"10.9.1.{at}"),))
                for at, (letter, n) in enumerate(hosts)
            ),
        )
    )
    keys = ", ".join(f"{{id: k{at}, allow: udp/{at + 1}, from: own={at}, to: role=none}}" for at in range(14))
    text = f"rules: [{many}, {keys}]\ntests: [{{id: t, from: any, cannot: tcp, to: role=vault}}]"
    (one,) = run_tests(policy(text), fleet, NOW)
    assert [bad.service for bad in one.counterexamples[:3]] == ["tcp/1", "tcp/2", "tcp/3"]


HOPS = """
rules:
  - {id: in, allow: tcp/80, from: role=edge, to: role=middle}
  - {id: on, allow: tcp/5432, from: role=middle, to: role=store}
tests:
  - {id: once, from: role=edge, cannot: any, to: role=store}
  - {id: two, from: role=edge, cannot: tcp/5432, to: role=store, hops: 2}
  - {id: all, only: role=middle, may-reach: role=store, hops: all}
  - {id: other, from: role=edge, cannot: tcp/22, to: role=store, hops: all}
  - {id: nobody, from: role=ghost, cannot: any, to: role=store, hops: all}
"""


def test_a_claim_over_several_hops_is_broken_by_the_way_through_others() -> None:
    roles = ("edge", "middle", "store")
    hosts = (Workload(role, parse_labels(f"role={role}"), (ip_address(f"10.9.2.{n}"),)) for n, role in enumerate(roles))
    told = {one.test.id: one for one in run_tests(policy(HOPS), Fleet(tuple(hosts)), NOW)}
    assert {name for name, one in told.items() if not one.passed} == {"two", "all"} and told["nobody"].vacuous
    (bad,) = told["two"].counterexamples
    assert (bad.source, bad.destination, bad.service, bad.egress) == ("edge", "store", "tcp/5432", None)
    assert [hop.destination for hop in bad.path] == ["middle", "store"]


def test_a_machine_without_a_point_keeps_nobody_out() -> None:
    assert results("[{id: t, from: role=storage, cannot: tcp/80, to: role=storage}]") == {"t": True}
    (one,) = run_tests(policy(POLICY, "tests: [{id: t, from: any, cannot: tcp/2049, to: role=storage}]"), FLEET, NOW)
    assert not one.passed
    assert {(shown.egress, shown.ingress) for shown in one.counterexamples} == {(None, None)}


AS = """
rules:
  - {id: r, allow: tcp/5432, from: {workloads: role=web, as: {user: www-data}}, to: role=db}
  - {id: s, allow: tcp/5433, from: role=web, to: {workloads: role=db, as: {user: postgres}}}
  - {id: n, deny: tcp/5432, from: {workloads: role=web, as: {unit: bad.service}}, to: role=db}
"""


@pytest.mark.parametrize(
    ("test", "passes"),
    [
        ("{id: t, from: role=web, can: tcp/5432, to: role=db}", False),
        ("{id: t, from: {workloads: role=web, as: {user: www-data}}, can: tcp/5432, to: role=db}", True),
        ("{id: t, from: role=web, cannot: tcp/5432, to: role=db}", False),
        ("{id: t, from: {workloads: role=web, as: {user: root}}, cannot: tcp/5432, to: role=db}", True),
        ("{id: t, from: {workloads: role=web, as: {unit: bad.service}}, cannot: tcp/5432, to: role=db}", True),
        ("{id: t, only: {workloads: role=web, as: {user: www-data}}, may-reach: role=db, service: tcp/5432}", True),
        ("{id: t, only: {workloads: role=web, as: {user: root}}, may-reach: role=db, service: tcp/5432}", False),
        ("{id: t, from: role=web, can: tcp/5433, to: role=db}", True),
        ("{id: t, from: role=web, cannot: tcp/5433, to: role=db}", False),
    ],
)
def test_local_identities_count(test: str, passes: bool) -> None:
    assert results(f"[{test}]", AS) == {"t": passes}


def test_the_identity_that_breaks_a_claim_is_shown() -> None:
    made = policy(AS, "tests: [{id: t, from: role=web, cannot: tcp/5432, to: role=db}]")
    shown = run_test(Reach(made, FLEET, NOW), made.tests[0]).counterexamples[0]
    assert shown.identity == Identity(user="www-data")


def test_an_address_that_two_claim_is_that_of_the_later_one() -> None:
    twin = Workload("twin", parse_labels("role=twin"), FLEET.by_name["web-1"].addresses[:1], epoch=9.0)
    fleet = Fleet((*FLEET.workloads, twin))
    made = policy("tests: [{id: t, from: role=twin, cannot: tcp/80, to: 'role=web'}]")
    (one,) = run_tests(made, fleet, NOW)
    assert one.passed and one.checked == 2  # web-2 and web-dev over IPv4; web-1 has only IPv6 left
