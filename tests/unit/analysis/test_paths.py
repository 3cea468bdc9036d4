from ipaddress import ip_address

from tests.unit.analysis.village import asked, read, ways

from cellwall.analysis.table.asked import SERVICES, read_ends
from cellwall.analysis.table.reach import Assume
from cellwall.analysis.table.table import Table
from cellwall.analysis.table.ways import Ways
from cellwall.analysis.walks.paths import Path, Spread, Walk
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import parse_policy
from cellwall.traffic import parse_ports


def walk(start: str, hops: int | None = None, port: str = "", without: str = "") -> Spread:
    ends = asked(start)
    ports = parse_ports(port) if port else SERVICES
    return Walk(ways(ends, without=without), ports).forward(ends, hops)


def said(path: Path) -> list[str]:
    return [f"{hop.source} {hop.destination} {hop.service} {','.join(rule.id for rule in hop.rules)}" for hop in path]


def test_who_takes_a_workload_goes_on_from_there() -> None:
    told = walk("shop-web")
    assert {landing.hop: landing.ends for landing in told.landings} == {1: ("shop-api",), 2: ("shop-db",)}
    assert told.start == ("shop-web",) and told.reached == ("shop-api", "shop-db")
    assert told.blast_radius == 3 / 9
    assert said(told.path("shop-db")) == [
        "shop-web shop-api tcp/8080 web-to-api",
        "shop-api shop-db tcp/5432 api-to-db",
    ]
    assert told.path("shop-web") == told.path("mon") == ()


def test_a_hop_names_the_rule_and_its_place_at_both_ends() -> None:
    (hop,) = walk("shop-web", 1).path("shop-api")
    assert [str(rule) for rule in hop.egress] == ["`web-to-api` (a.yaml:4:5)"] == [str(rule) for rule in hop.ingress]
    assert str(hop.ports) == "tcp/8080"


def test_hops_ports_and_missing_rules_narrow_what_is_reached() -> None:
    assert walk("shop-web", 1).reached == ("shop-api",)
    assert walk("shop-web", port="tcp/8080").reached == ("shop-api",)
    assert walk("shop-web", without="api-to-db").reached == ("shop-api",)
    assert walk("shop-db").reached == () and walk("shop-db").landings == ()


def test_places_outside_begin_and_end_paths_and_nobody_goes_through_them() -> None:
    told = walk("network:office")
    assert told.start == ("network:office (IPv4)",)
    assert told.begun == 0 and "elsewhere (IPv4)" not in told.reached
    assert {"shop-web", "blog-web", "printer"} <= set(told.reached)
    monitored = walk("mon", 1)
    assert {"elsewhere (IPv4)", "network:office (IPv4)"} <= {end for one in monitored.landings for end in one.ends}


def test_what_no_point_enforces_passes_without_a_rule() -> None:
    told = walk("printer", 1)
    assert "elsewhere (IPv4)" in {end for one in told.landings for end in one.ends}
    hop = walk("192.0.2.7", 1).path("printer")[0]
    assert hop.rules == () and hop.source == "192.0.2.7 (IPv4)"


def test_backwards_those_are_named_that_reach_with_a_path_from_each() -> None:
    goal = asked("role=db")
    told = Walk(ways(goal), SERVICES).backward(goal)
    hops = {end: one.hop for one in told.landings for end in one.ends}
    assert hops["shop-api"] == hops["gate"] == hops["mon"] == 1 and hops["shop-web"] == 2
    assert hops["network:office (IPv4)"] == 3
    assert said(told.path("network:office (IPv4)")) == [
        "network:office (IPv4) blog-web tcp/443 office-in",
        "blog-web blog-api tcp/8080 web-to-api",
        "blog-api blog-db tcp/5432 api-to-db",
    ]
    assert told.path("elsewhere (IPv4)") == ()


def test_backwards_only_those_are_listed_who_were_asked_about() -> None:
    goal, start = asked("shop-db"), asked("app=shop or network:office")
    told = Walk(ways(goal, start), SERVICES).backward(goal, None, start)
    assert {end: one.hop for one in told.landings for end in one.ends} == {
        "shop-api": 1,
        "shop-web": 2,
        "network:office (IPv4)": 3,
    }
    assert told.reached == ("shop-api", "shop-web")


def test_an_end_of_both_sides_reaches_another_one_by_a_detour() -> None:
    policy = read(
        "rules:\n"
        "  - {id: there, allow: tcp/1, from: role=db, to: role=gate}\n"
        "  - {id: back, allow: tcp/2, from: role=gate, to: role=db}\n"
    )
    both = asked("role=db", policy)
    told = Walk(ways(both, policy=policy), SERVICES).backward(both, None, both)
    assert {end: one.hop for one in told.landings for end in one.ends} == {"shop-db": 2, "blog-db": 2}
    assert said(told.path("shop-db")) == ["shop-db gate tcp/1 there", "gate blog-db tcp/2 back"]


def test_modes_count_when_asked_to() -> None:
    policy = read("modes: [{where: '', mode: observe}]")
    start = asked("shop-web", policy)
    assert len(Walk(ways(start, policy=policy, assume=Assume.MODES)).forward(start, 1).reached) == 8
    assert Walk(ways(start, policy=policy), SERVICES).forward(start, 1).reached == ("printer",) * 0


def test_who_shares_one_address_kind_with_the_start_has_not_started_there() -> None:
    policy = parse_policy([("a.yaml", "rules: []")])
    workloads = tuple(
        Workload(name, Labels({}), (ip_address(f"10.0.0.{at}"), ip_address(f"fd00::{at}")), agent=False)
        for name, at in (("near", 1), ("far", 5))
    )
    fleet = Fleet(workloads, ())
    start = read_ends("10.0.0.0/30", policy, fleet)
    told = Walk(Ways(Table, policy, fleet, 0.0, asked=[start]), SERVICES).forward(start)
    assert told.begun == 1 and told.reached == ("far",) and "far" not in told.start
