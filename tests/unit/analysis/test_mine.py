from ipaddress import ip_address

import pytest
from tests.unit.analysis.observed import Observed, observe
from tests.unit.analysis.world import FLEET, NOW, record

from cellwall.analysis import Assume, Level, Stage, Suggestion, replay, suggest
from cellwall.flows import FlowRecord, Outcome, Process, Side
from cellwall.inventory import Fleet, Workload
from cellwall.labels import parse_labels
from cellwall.policy import parse_policy


@pytest.fixture(scope="module")
def shop() -> Observed:
    return observe("shop")


def rules(told: Suggestion) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    return {rule.id: (" | ".join(rule.source), " | ".join(rule.destination), rule.same) for rule in told.rules}


@pytest.mark.parametrize("level", list(Level))
def test_the_shop_is_covered_whole_and_replays_without_a_cut(shop: Observed, level: Level) -> None:
    told = suggest(shop.labelled, shop.records, NOW, level)
    assert told.coverage.share == told.coverage.share_of_connections == 1.0
    policy = parse_policy(told.documents.items())
    assert replay(policy, shop.labelled, shop.records, NOW, Assume.ENFORCE).cut == ()


def test_the_exact_policy_of_the_shop_is_short_and_close_to_what_was_seen(shop: Observed) -> None:
    told = suggest(shop.labelled, shop.records, NOW)
    assert len(told.rules) <= 22
    assert told.over_permission < 1.1
    assert {rule.id for rule in told.rules if rule.stage is Stage.INFRASTRUCTURE} == {
        "to-dns",
        "to-monitoring",
        "from-bastion",
        "from-monitoring",
    }
    assert rules(told)["api-to-db"] == ("role=api", "role=db", ("app", "env"))
    assert rules(told)["blog-prod-web-to-db"] == ("app=blog,env=prod,role=web", "app=blog,env=prod,role=db", ())
    assert rules(told)["to-dns"] == ("app", "app=infra,env=prod,role=dns", ())


def test_wider_levels_let_more_through(shop: Observed) -> None:
    exact, tier, fence = (suggest(shop.labelled, shop.records, NOW, level) for level in Level)
    assert exact.over_permission <= tier.over_permission < fence.over_permission
    assert len(fence.rules) < len(exact.rules)


def test_ports_drawn_later_are_in_the_ranges_that_were_recognised(shop: Observed) -> None:
    told = suggest(shop.labelled, shop.records, NOW)
    later = observe("shop", seed=99, rounds=30)
    missed = replay(parse_policy(told.documents.items()), shop.labelled, later.records, NOW, Assume.ENFORCE)
    assert missed.cut == ()
    assert {flag for rule in told.rules for flag in rule.flags} == {
        "the ports are handed out as needed; the range is wider than what was seen"
    }


def test_rules_in_force_need_no_proposal(shop: Observed) -> None:
    first = suggest(shop.labelled, shop.records, NOW)
    again = suggest(shop.labelled, shop.records, NOW, documents=first.documents)
    assert (again.rules, again.documents, again.coverage.already) == ((), {}, first.coverage.flows)


def test_what_a_rule_denies_or_was_denied_is_left_out_with_the_reason() -> None:
    documents = {"a.yaml": "rules: [{id: no-ssh, deny: tcp/22, from: any, to: role=db}]"}
    seen = [
        record("web-1", "db-1", "tcp/22"),
        record("web-1", "db-1", "tcp/80", outcome=Outcome.DENIED),
        record("web-1", "224.0.0.251", "udp/5353"),
        record("web-1", "db-1"),
    ]
    told = suggest(FLEET, seen, NOW, documents=documents)
    assert sorted(reason for _, reason in told.coverage.left_out) == [
        "it goes to a multicast or broadcast address; write a rule if it is meant",
        "it was denied when it was last seen",
        "the rule `no-ssh` denies it",
    ]
    assert (told.coverage.flows, told.coverage.covered, told.coverage.share) == (4, 1, 0.25)
    assert [rule.id for rule in told.rules] == ["shop-prod-web-to-db"]


def test_declared_names_are_used_and_taken_ids_avoided() -> None:
    documents = {
        "a.yaml": """
services: {pg: tcp/5432, ssh: tcp/2222}
networks: {office: [192.0.2.0/24], wide: [192.0.0.0/16]}
rules: [{id: shop-prod-web-to-db, allow: tcp/1, from: role=web, to: role=db}]
"""
    }
    seen = [
        record("web-1", "db-1"),
        record("web-1", "db-1", "tcp/22"),
        record("192.0.2.7", "web-1", "tcp/80", Side.INGRESS),
        record("192.0.2.8", "web-1", "tcp/80", Side.INGRESS),
        record("198.51.100.9", "web-1", "tcp/80", Side.INGRESS),
    ]
    told = suggest(FLEET, seen, NOW, documents=documents)
    assert rules(told) == {
        "shop-prod-web-to-db-2": ("app=shop,env=prod,role=web", "app=shop,env=prod,role=db", ()),
        "outside-to-shop-prod-web": ("network:office | network:host-198.51.100.9", "app=shop,env=prod,role=web", ()),
    }
    assert "allow: [tcp/22, pg]" in told.documents["suggested-within.yaml"]
    assert "ssh" not in told.documents["suggested-names.yaml"]


def test_labels_that_the_vocabulary_does_not_know_are_not_named() -> None:
    documents = {"a.yaml": "labels: {role: {}, env: {values: [prod]}}"}
    told = suggest(FLEET, [record("web-1", "db-1"), record("web-dev", "db-dev")], NOW, documents=documents)
    assert rules(told) == {
        "prod-web-to-prod-db": ("env=prod,role=web", "env=prod,role=db", ()),
        "web-to-db": ("role=web", "role=db", ()),
    }


def test_workloads_without_labels_become_networks() -> None:
    seen = [
        record("web-1", "printer", "tcp/9100"),
        record("printer", "nas", "tcp/2049"),
        record("web-dev", "printer", "tcp/631"),
    ]
    told = suggest(FLEET, seen, NOW)
    assert rules(told) == {
        "shop-prod-web-to-outside": ("app=shop,env=prod,role=web", "network:host-10.0.0.7", ()),
        "shop-dev-web-to-outside": ("app=shop,env=dev,role=web", "network:host-10.0.0.7", ()),
    }
    bare = Fleet(tuple(Workload(one.name, addresses=one.addresses) for one in FLEET.workloads))
    told = suggest(bare, [record("web-1", "db-1")], NOW)
    assert rules(told) == {"strangers-to-outside": ("network:host-10.0.0.1", "network:host-10.0.0.3", ())}


def test_a_crowd_outside_becomes_its_subnet() -> None:
    seen = [record(f"203.0.113.{host}", "web-1", "tcp/80", Side.INGRESS) for host in range(1, 40)]
    seen += [record(f"198.51.100.{host}", "web-1", "tcp/80", Side.INGRESS) for host in (1, 2, 3)]
    told = suggest(FLEET, seen, NOW)
    names = told.documents["suggested-names.yaml"]
    assert "callers-of-shop-prod-web-tcp-80:" in names
    assert names.count("- ") == 3  # the subnet, 198.51.100.1 and 198.51.100.2/31
    assert "203.0.113.0/24" in names


def test_two_crowds_with_the_same_name_are_told_apart() -> None:
    seen = [
        record(f"203.0.113.{host}", "web-1", port, Side.INGRESS)
        for port, hosts in (("tcp/80", (1, 3, 5)), ("tcp/81", (7, 9, 11)))
        for host in hosts
    ]
    told = suggest(
        FLEET, seen, NOW, documents={"a.yaml": "networks: {callers-of-shop-prod-web-tcp-80: [10.99.0.0/16]}"}
    )
    assert {end for rule in told.rules for end in rule.source} == {
        "network:callers-of-shop-prod-web-tcp-80-2",
        "network:callers-of-shop-prod-web-tcp-81",
    }


def fleet_of(*scopes: str, roles: tuple[str, ...] = ("web", "db")) -> Fleet:
    workloads: list[Workload] = []
    for scope in scopes:
        for role in roles:
            labels = parse_labels(f"{scope},role={role}")
            name = "-".join([*labels.values()])
            workloads.append(Workload(name, labels, (ip_address(f"10.1.0.{len(workloads) + 1}"),)))
    return Fleet(tuple(workloads))


def between(fleet: Fleet, *pairs: tuple[str, str], service: str = "tcp/5432", count: int = 9) -> list[FlowRecord]:
    ends = {one.name: str(one.addresses[0]) for one in fleet.workloads}
    return [record(ends[one], ends[other], service, connections=count) for one, other in pairs]


def test_one_rule_serves_all_scopes_only_if_all_of_them_show_it() -> None:
    fleet = fleet_of("app=a,env=prod", "app=a,env=dev", "app=b,env=prod", "app=b,env=dev", "app=c,env=prod")
    all_of_a = [("a-prod-web", "a-prod-db"), ("a-dev-web", "a-dev-db")]
    told = suggest(fleet, between(fleet, *all_of_a, ("b-prod-web", "b-prod-db")), NOW)
    assert rules(told) == {
        "a-web-to-db": ("app=a,role=web", "app=a,role=db", ("env",)),
        "b-web-to-db": ("app=b,env=prod,role=web", "app=b,env=prod,role=db", ()),
    }
    assert all(rule.beyond == 0 for rule in told.rules)
    every = [*all_of_a, ("b-prod-web", "b-prod-db"), ("b-dev-web", "b-dev-db"), ("c-prod-web", "c-prod-db")]
    assert rules(suggest(fleet, between(fleet, *every), NOW)) == {"web-to-db": ("role=web", "role=db", ("app", "env"))}


def test_some_environments_of_an_application_are_listed() -> None:
    fleet = fleet_of("app=a,env=prod", "app=a,env=dev", "app=a,env=test", "app=b,env=prod")
    told = suggest(fleet, between(fleet, ("a-prod-web", "a-prod-db"), ("a-dev-web", "a-dev-db")), NOW)
    assert rules(told) == {
        "a-web-to-db": ("app=a,env in (dev,prod),role=web", "app=a,env in (dev,prod),role=db", ("env",))
    }


def test_two_applications_that_talk_in_every_environment_get_one_rule() -> None:
    fleet = fleet_of("app=a,env=prod", "app=a,env=dev", "app=b,env=prod", "app=b,env=dev")
    told = suggest(fleet, between(fleet, ("a-prod-web", "b-prod-db"), ("a-dev-web", "b-dev-db")), NOW)
    assert rules(told) == {"a-web-to-b-db": ("app=a,role=web", "app=b,role=db", ("env",))}
    told = suggest(fleet, between(fleet, ("a-prod-web", "b-prod-db")), NOW)
    assert list(rules(told)) == ["a-prod-web-to-b-prod-db"]


def test_infrastructure_names_the_applications_that_use_it() -> None:
    scopes = ["app=a,env=prod", "app=a,env=dev", "app=b,env=prod", "app=b,env=dev", "app=c,env=prod"]
    fleet = Fleet((*fleet_of(*scopes).workloads, *fleet_of("app=x", roles=("dns",)).workloads[:0]))
    names = Fleet((*fleet.workloads, Workload("ns", parse_labels("app=infra,role=dns"), (ip_address("10.9.0.1"),))))
    callers = ("a-prod-web", "a-dev-web", "b-dev-web")
    told = suggest(names, between(names, *((one, "ns") for one in callers), service="udp/53"), NOW)
    assert rules(told) == {"to-dns": ("app=a | app=b,env=dev", "app=infra,role=dns", ())}
    bare = Fleet((*names.workloads, Workload("a-bare", parse_labels("app=a"), (ip_address("10.9.0.2"),))))
    told = suggest(bare, between(bare, *((one, "ns") for one in (*callers, "a-bare")), service="udp/53"), NOW)
    assert rules(told) == {"to-dns": ("app=a | app=b,env=dev", "app=infra,role=dns", ())}
    some = ("a-prod-web", "b-dev-web", "a-bare", "c-prod-web")
    told = suggest(bare, between(bare, *((one, "ns") for one in some), service="udp/53"), NOW)
    assert rules(told)["to-dns"][0] == "app=a,!env | app=a,env=prod | app=b,env=dev | app=c"


def test_a_ringfence_is_one_rule_if_every_application_has_one() -> None:
    fleet = fleet_of("app=a,env=prod", "app=b,env=prod")
    pairs = [("a-prod-web", "a-prod-db"), ("b-prod-web", "b-prod-db")]
    told = suggest(fleet, between(fleet, *pairs), NOW, Level.RINGFENCE)
    assert rules(told) == {"each-application": ("app", "app", ("app", "env"))}
    told = suggest(fleet, between(fleet, pairs[0]), NOW, Level.RINGFENCE)
    assert rules(told) == {"a-prod": ("app=a,env=prod", "app=a,env=prod", ())}
    assert told.rules[0].beyond == 0  # the web has nothing that the database was seen to use


def test_what_was_hardly_seen_is_flagged() -> None:
    fleet = fleet_of("app=a,env=prod")
    told = suggest(fleet, between(fleet, ("a-prod-web", "a-prod-db"), count=2), NOW)
    assert told.rules[0].flags == ("it was hardly ever seen",)
    assert "# look twice: it was hardly ever seen" in told.documents["suggested-within.yaml"]


def test_every_rule_shows_the_flows_that_justify_it() -> None:
    seen = [record("web-1", "db-1", connections=40), record("web-2", "db-1", connections=2)]
    told = suggest(FLEET, seen, NOW)
    text = told.documents["suggested-within.yaml"]
    assert "# 2 flows, 42 connections" in text
    assert text.index("web-1 → db-1 tcp/5432, 40") < text.index("web-2 → db-1 tcp/5432, 2")
    assert told.rules[0].connections == 42


def test_odd_labels_and_protocols_survive_being_written() -> None:
    odd = Fleet(
        (
            Workload("x", parse_labels("app=1e3,role=true"), (ip_address("10.2.0.1"),)),
            Workload("y", parse_labels("app=1e3,role=null"), (ip_address("10.2.0.2"),)),
        )
    )
    seen = [record("10.2.0.1", "10.2.0.2", service) for service in ("gre", "icmp/8/0", "sctp/80", "99", "udp/53")]
    told = suggest(odd, seen, NOW)
    assert told.coverage.share == 1.0
    assert 'allow: [ping, dns, gre, "99", sctp/80]' in told.documents["suggested-within.yaml"]


def test_no_flows_need_no_rules() -> None:
    told = suggest(FLEET, [], NOW)
    assert (told.documents, told.coverage.share, told.coverage.share_of_connections, told.over_permission) == (
        {},
        1.0,
        1.0,
        1.0,
    )


def test_an_unknown_server_process_does_not_make_a_list_a_range() -> None:
    seen = [record("web-1", "db-1", f"tcp/{port}") for port in range(9000, 9020)]
    told = suggest(FLEET, seen, NOW)
    assert len(told.rules[0].ports) == 20
    known = [
        record("web-1", "db-1", f"tcp/{port}", Side.INGRESS, process=Process("java")) for port in range(9000, 9020)
    ]
    assert len(suggest(FLEET, [*seen, *known], NOW).rules[0].ports) == 1
