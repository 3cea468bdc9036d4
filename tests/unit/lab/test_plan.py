"""From a scenario to names, commands and instructions."""

from pathlib import Path

from cellwall.lab import load_scenario, parse_scenario
from cellwall.lab.plan import (
    LATERAL_TCP,
    LATERAL_UDP,
    app_spec,
    cable_lines,
    doors,
    fabric_lines,
    plug_lines,
    programs,
    site_lines,
    sites,
    zone,
)

TWO = load_scenario(Path(__file__).parents[3] / "scenarios" / "two.yaml")


def test_every_namespace_begins_with_the_prefix_of_its_lab() -> None:
    assert [site.namespace for site in sites(TWO)] == ["cw-two-controller", "cw-two-web", "cw-two-db", "cw-two-guest"]
    assert [site.link for site in sites(TWO)] == ["v0", "v1", "v2", "v3"]


def test_cables_run_from_inside_to_inside() -> None:
    assert cable_lines(TWO, sites(TWO))[1] == (
        "link add eth0 address 02:ce:11:00:00:01 netns cw-two-web type veth peer name v1 netns cw-two-fabric"
    )
    assert fabric_lines(TWO)[-2:] == ["addr add 10.77.0.1/16 dev br0", "addr add fd77::1/64 dev br0 nodad"]


def test_an_address_of_the_outside_world_is_routed_to_its_cable() -> None:
    guest = sites(TWO)[3]
    assert plug_lines(TWO, [guest]) == [
        "link set v3 master br0",
        "link set v3 up",
        "route replace 198.51.100.7/32 dev br0",
        "route replace 2001:db8:51::7/128 dev br0",
    ]
    assert "addr add 198.51.100.7/32 dev eth0" in site_lines(TWO, guest)
    assert "route replace default via fd77::1 dev eth0 onlink" in site_lines(TWO, guest)
    assert "addr add 10.77.0.11/16 dev eth0" in site_lines(TWO, sites(TWO)[1])


def test_a_call_over_both_families_is_two_calls_at_half_the_pace() -> None:
    web = programs(TWO)[0]
    spec = app_spec(TWO, web, uid=33, gid=33, cgroup="", report="r", go="g")
    pool = [call for call in spec["call"] if call["kind"] == "postgres"]
    assert [(call["host"], call["every_s"]) for call in pool] == [("10.77.0.12", 0.4), ("fd77::c", 0.4)]
    assert pool[0]["id"] == "web/nginx.service>db/postgres/4/long-lived"
    assert len({call["id"] for call in spec["call"]}) == len(spec["call"])
    assert [service["port"] for service in spec["serve"]] == [80]


def test_dns_callers_know_the_answers_of_their_family() -> None:
    assert zone(TWO)["db.two.internal"] == ["10.77.0.12", "fd77::c"]
    spec = app_spec(TWO, programs(TWO)[0], uid=0, gid=0, cgroup="", report="", go="")
    dns = [call for call in spec["call"] if call["kind"] == "dns"]
    assert ["db.two.internal", "fd77::c"] in dns[1]["names"] and ["db.two.internal", "10.77.0.12"] in dns[0]["names"]
    tools = app_spec(TWO, programs(TWO)[2], uid=0, gid=0, cgroup="", report="", go="")
    assert next(service for service in tools["serve"] if service["kind"] == "dns")["zone"] == zone(TWO)
    assert next(service for service in tools["serve"] if service["kind"] == "rpc")["dynamic"] == [50000, 50015]


def test_an_attacker_tries_every_service_and_the_lateral_ports_in_both_families_but_not_itself() -> None:
    tried = doors(TWO, "web")
    assert {door.target for door in tried} == {"db", "guest"}
    db = [door for door in tried if door.target == "db"]
    services = {"postgres", "cache", "dns", "jobs", "syslog", "echo", "metrics", "ssh"}
    assert {door.service for door in db} == services | {""}
    assert {":" in door.probe["host"] for door in db} == {True, False}
    ports = {(door.protocol, door.probe["port"]) for door in db}
    assert {("tcp", port) for port in LATERAL_TCP} | {("udp", port) for port in LATERAL_UDP} <= ports
    assert len(db) == 2 * len(ports)


def test_the_same_call_starts_at_the_same_moment_in_every_run() -> None:
    again = parse_scenario(TWO.source)
    first, second = (app_spec(s, programs(s)[0], uid=0, gid=0, cgroup="", report="", go="") for s in (TWO, again))
    assert first == second
