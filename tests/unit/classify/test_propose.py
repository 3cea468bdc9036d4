from ipaddress import ip_address

import pytest
from tests.unit.analysis.observed import Observed, observe

from cellwall.classify import Facts, Listening, Proposal, observe_behaviour, propose
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels, parse_labels


@pytest.fixture(scope="module")
def shop() -> Observed:
    return observe("shop")


def as_dict(proposals: tuple[Proposal, ...]) -> dict[tuple[str, str], Proposal]:
    return {(one.workload, one.key): one for one in proposals}


def scored(seen: Observed, proposals: tuple[Proposal, ...]) -> tuple[int, int]:
    found = as_dict(proposals)
    wanted = {
        (workload.name, key): value
        for workload in seen.fleet.workloads
        for key, value in seen.truth[workload.name].items()
        if key not in workload.labels
    }
    return sum(at in found and found[at].value == value for at, value in wanted.items()), len(wanted)


def test_the_labels_of_the_shop_are_found(shop: Observed) -> None:
    right, wanted = scored(shop, propose(shop.fleet, shop.facts, shop.records))
    assert wanted == 47
    assert right == wanted


def test_no_label_that_is_there_is_proposed_again(shop: Observed) -> None:
    labels = {one.name: one.labels for one in shop.fleet.workloads}
    assert all(one.key not in labels[one.workload] for one in propose(shop.fleet, shop.facts, shop.records))


def test_accepted_labels_leave_the_other_proposals_as_they_are(shop: Observed) -> None:
    first = propose(shop.fleet, shop.facts, shop.records)
    accepted = {one.workload: one for one in first if one.key == "role"}
    fleet = Fleet(
        tuple(
            Workload(
                one.name,
                one.labels.but(role=accepted[one.name].value) if one.name in accepted else one.labels,
                one.addresses,
                one.agent,
            )
            for one in shop.fleet.workloads
        )
    )
    later = propose(fleet, shop.facts, shop.records)
    assert {one.id for one in later} == {one.id for one in first if one.key != "role"}


def test_the_same_input_in_another_order_gives_the_same_proposals(shop: Observed) -> None:
    facts = dict(reversed(shop.facts.items()))
    assert propose(shop.fleet, facts, shop.records[::-1]) == propose(shop.fleet, shop.facts, shop.records)


def test_every_proposal_says_why_and_how_sure_it_is(shop: Observed) -> None:
    for one in propose(shop.fleet, shop.facts, shop.records):
        assert one.reasons and 0 < one.confidence <= 1
        assert one.id == f"{one.workload}:{one.key}={one.value}"


def test_a_mistake_about_cardholder_data_takes_a_person(shop: Observed) -> None:
    found = [one for one in propose(shop.fleet, shop.facts, shop.records) if one.key == "pci"]
    assert {(one.workload, one.value) for one in found} == {("payment-1", "cde"), ("payment-dev", "cde")}
    assert all(one.by_hand and one.confidence <= 0.3 for one in found)


def test_only_what_the_vocabulary_knows_is_proposed(shop: Observed) -> None:
    vocabulary = {"app": (), "env": ("production", "dev"), "role": ("web", "database")}
    found = as_dict(propose(shop.fleet, shop.facts, shop.records, vocabulary))
    assert {key for _, key in found} == {"app", "env", "role"}
    assert {one.value for at, one in found.items() if at[1] == "env"} == {"production", "dev"}
    assert {one.value for at, one in found.items() if at[1] == "role"} == {"web", "database"}


# A fleet that names and labels nothing as the shop does: a site before every name, numbers without a hyphen, three
# environments, two applications of the same shape, and infrastructure that nobody has labelled.


def other_fleet() -> Observed:
    workloads: list[Workload] = []
    facts: dict[str, Facts] = {}
    truth: dict[str, Labels] = {}
    calls: list[tuple[str, str, int, int]] = []
    everywhere = (
        Listening(6, 22, "sshd", "root", "ssh.service"),
        Listening(6, 10050, "zabbix_agentd", "zabbix", "zabbix-agent.service"),
    )

    def add(name: str, labels: str, *services: Listening) -> str:
        workloads.append(Workload(name, Labels(), (ip_address(f"10.3.0.{len(workloads) + 1}"),)))
        facts[name] = Facts((*everywhere, *services), "localhost")
        truth[name] = parse_labels(labels)
        return name

    for app in ("crm", "ledger"):
        for env, mark in (("prod", ""), ("staging", "-stg"), ("dev", "-dev")):
            labels = f"app={app},env={env},role="
            fronts = [
                add(
                    f"fra-{app}{mark}-www0{number}",
                    labels + "web",
                    Listening(6, 443, "httpd", "apache", "httpd.service"),
                )
                for number in range(1, 3 if env == "prod" else 2)
            ]
            logic = add(
                f"fra-{app}{mark}-app01", labels + "api", Listening(6, 8080, "java", app, f"{app}-backend.service")
            )
            data = add(
                f"fra-{app}{mark}-sql01", labels + "db", Listening(6, 1521, "tnslsnr", "oracle", "oracle.service")
            )
            queue = add(
                f"fra-{app}{mark}-mq01",
                labels + "queue",
                Listening(6, 5672, "beam.smp", "rabbitmq", "rabbitmq-server.service"),
            )
            calls += [(front, logic, 6, 8080) for front in fronts]
            calls += [(logic, data, 6, 1521), (logic, queue, 6, 5672), (data, queue, 6, 5672)]
    dns = add("fra-ns01", "app=infra,env=prod,role=dns", Listening(17, 53, "unbound", "unbound", "unbound.service"))
    watch = add(
        "fra-zabbix01",
        "app=infra,env=prod,role=monitoring",
        Listening(6, 10051, "zabbix_server", "zabbix", "zabbix-server.service"),
    )
    jump = add("fra-jump01", "app=infra,env=prod,role=bastion")
    for one in workloads:
        calls += [(one.name, dns, 17, 53), (watch, one.name, 6, 10050), (jump, one.name, 6, 22)]
    fleet = Fleet(tuple(workloads))
    records = tuple(
        FlowRecord(
            FlowKey(fleet.by_name[one].addresses[0], fleet.by_name[other].addresses[0], protocol, port),
            one,
            Side.EGRESS,
            Outcome.ALLOWED,
            Outcome.DENIED,
            (),
            0,
            5,
            1.0,
            2.0,
        )
        for one, other, protocol, port in calls
        if one != other
    )
    return Observed(fleet, facts, records, truth)


def test_the_labels_of_a_fleet_of_another_style_are_found() -> None:
    seen = other_fleet()
    found = propose(seen.fleet, seen.facts, seen.records)
    right, wanted = scored(seen, found)
    wrong = [
        one for one in found if one.key in seen.truth[one.workload] and seen.truth[one.workload][one.key] != one.value
    ]
    assert right / wanted >= 0.95, wrong


def test_hubs_and_services_of_everybody_are_told_from_applications() -> None:
    seen = other_fleet()
    behaviour = observe_behaviour(seen.fleet, seen.facts, seen.records)
    assert behaviour.hubs == {"fra-ns01", "fra-zabbix01", "fra-jump01"}
    assert behaviour.everywhere == {(6, 22), (6, 10050)}


def test_a_fleet_without_flows_or_facts_is_read_by_its_names() -> None:
    fleet = Fleet(tuple(Workload(name) for name in ("crm-web-1", "crm-db-1", "crm-dev-db-1", "box")))
    found = as_dict(propose(fleet, {}, ()))
    assert {at: one.value for at, one in found.items() if at[1] != "tier"} == {
        ("crm-web-1", "app"): "crm",
        ("crm-web-1", "role"): "web",
        ("crm-web-1", "env"): "prod",
        ("crm-db-1", "app"): "crm",
        ("crm-db-1", "role"): "db",
        ("crm-db-1", "env"): "prod",
        ("crm-dev-db-1", "app"): "crm",
        ("crm-dev-db-1", "role"): "db",
        ("crm-dev-db-1", "env"): "dev",
        ("box", "env"): "prod",
    }
    assert propose(Fleet(), {}, ()) == ()


def chain(*calls: tuple[str, str, int], labels: dict[str, str] | None = None) -> tuple[Fleet, tuple[FlowRecord, ...]]:
    names = sorted({name for one, other, _ in calls for name in (one, other)})
    labelled = labels or {}
    fleet = Fleet(
        tuple(
            Workload(name, parse_labels(labelled.get(name, "")), (ip_address(f"10.4.0.{number}"),))
            for number, name in enumerate(names, 1)
        )
    )
    records = tuple(
        FlowRecord(
            FlowKey(fleet.by_name[one].addresses[0], fleet.by_name[other].addresses[0], 6, port),
            other,
            Side.INGRESS,
            Outcome.ALLOWED,
            Outcome.DENIED,
            (),
            0,
            1,
            1.0,
            2.0,
        )
        for one, other, port in calls
    )
    return fleet, records


def test_who_behaves_like_another_gets_its_role() -> None:
    fleet, records = chain(("a1", "x1", 7001), ("a2", "x2", 7001), labels={"x1": "role=engine", "a1": "role=driver"})
    found = as_dict(propose(fleet, {}, records))
    assert found["x2", "role"].value == "engine"
    assert found["a2", "role"].value == "driver"
    assert "`x1`" in found["x2", "role"].reasons[0]


def test_a_group_without_a_name_in_common_gets_one_that_says_so() -> None:
    fleet, records = chain(("alpha", "beta", 7001), ("beta", "gamma", 7002))
    found = as_dict(propose(fleet, {}, records))
    # Each of the three has a word of its own; none of them is the group's.
    assert {at[1] for at in found} <= {"app"}
    fleet, records = chain(("web1", "db1", 7001))
    found = as_dict(propose(fleet, {}, records))
    assert (found["web1", "app"].value, found["web1", "app"].confidence) == ("app-db1", 0.25)


def test_a_known_application_names_its_company() -> None:
    fleet, records = chain(("web1", "db1", 7001), ("web2", "db1", 7001), labels={"db1": "app=wiki,env=live"})
    found = as_dict(propose(fleet, {}, records))
    assert found["web1", "app"].value == found["web2", "app"].value == "wiki"
    assert found["web1", "env"].value == "live"


def test_groups_of_the_same_shape_are_the_same_application() -> None:
    calls = [
        ("shop-web", "shop-api", 80),
        ("shop-api", "shop-db", 81),
        ("web-dev", "api-dev", 80),
        ("api-dev", "db-dev", 81),
    ]
    fleet, records = chain(*calls)
    found = as_dict(propose(fleet, {}, records))
    assert {found[name, "app"].value for name in ("web-dev", "api-dev", "db-dev")} == {"shop"}
    assert "same roles" in found["web-dev", "app"].reasons[0]
    # Another of another shape stays without it.
    odd = [("worker-dev", "queue-dev", 80), ("queue-dev", "cache-dev", 81)]
    fleet, records = chain(*calls[:2], *odd)
    found = as_dict(propose(fleet, {}, records))
    assert found["worker-dev", "app"].value == "app-cache-dev"


def test_what_is_known_of_a_role_stays() -> None:
    labels = {"x1": "role=engine", "web-9": "role=engine"}
    fleet, records = chain(("a1", "x1", 7001), ("a2", "web-9", 7001), labels=labels)
    assert ("web-9", "role") not in as_dict(propose(fleet, {}, records))


def test_multicast_makes_nobody_a_peer() -> None:
    fleet, records = chain(("a", "b", 1))
    cast = FlowRecord(
        FlowKey(records[0].key.source, ip_address("224.0.0.251"), 17, 5353),
        "a",
        Side.EGRESS,
        Outcome.ALLOWED,
        Outcome.DENIED,
        (),
        0,
        1,
        1.0,
        2.0,
    )
    assert observe_behaviour(fleet, {}, [*records, cast]) == observe_behaviour(fleet, {}, records)
