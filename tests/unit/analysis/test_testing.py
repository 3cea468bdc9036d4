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
