"""The scenario parser: what it makes, and what it refuses at which place."""

from pathlib import Path

import pytest

from cellwall.lab import ScenarioError, load_scenario, parse_scenario
from cellwall.lab.scenario import Call, Family, Kind, Lifetime
from cellwall.labels import Labels
from cellwall.traffic import parse_address

SCENARIOS = Path(__file__).parents[3] / "scenarios"

SMALL = """\
lab: tiny
everywhere:
  ssh.service:
    services: {ssh: {ports: tcp/22, kind: ssh}}
workloads:
  web:
    labels: {role: web}
    units:
      nginx.service:
        user: www-data
        services: {http: {ports: tcp/80, kind: http}}
        calls:
          - {to: db, service: sql, every_ms: 100, lifetime: long-lived, family: 4}
          - {to: "*", service: ssh, every_ms: 1000}
  db:
    truth: {role: db}
    units:
      postgresql.service:
        process: postgres
        services: {sql: {ports: tcp/5432, kind: postgres}}
  printer:
    agent: false
    addresses: 192.0.2.9
    units:
      lpd.service:
        services: {spool: {ports: tcp/515, kind: rpc, dynamic: tcp/1024-2047}}
"""


def test_a_scenario_becomes_workloads_units_services_and_calls() -> None:
    scenario = parse_scenario(SMALL)
    web, db, printer = scenario.workloads
    assert (scenario.lab, web.name, web.agent, web.declared) == ("tiny", "web", True, False)
    assert web.labels == Labels({"role": "web"}) and db.truth == Labels({"role": "db"})
    assert [unit.name for unit in web.units] == ["nginx.service", "ssh.service"]
    assert (db.units[0].user, db.units[0].process, web.units[0].process) == ("root", "postgres", "nginx")
    assert web.units[0].calls == (
        Call("db", "sql", 100, Lifetime.LONG, Family.FOUR),
        Call("db", "ssh", 1000, Lifetime.SHORT, Family.BOTH),
    )
    spool = printer.service("spool")
    assert spool and spool.kind is Kind.RPC and spool.port == 515 and spool.protocol == "tcp"
    assert printer.declared and [unit.name for unit in printer.units] == ["lpd.service"]
    assert scenario.workload("web") is web and scenario.workload("nobody") is None and web.service("nope") is None


def test_addresses_follow_from_the_place_in_the_file_unless_they_are_written() -> None:
    web, db, printer = parse_scenario(SMALL).workloads
    assert web.addresses == (parse_address("10.77.0.11"), parse_address("fd77::b"))
    assert db.addresses == (parse_address("10.77.0.12"), parse_address("fd77::c"))
    assert printer.addresses == (parse_address("192.0.2.9"), parse_address("fd77::d"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lab: tiny", "lab: my-lab", "s:1:6: `my-lab` is not a lab name; wanted a letter, then"),
        ("labels: {role: web}", "lables: {role: web}", "s:7:5: unknown key `lables`; did you mean `labels`?"),
        ("labels: {role: web}", "labels: {role: w*b}", "s:7:13: `w*b` is not a label value"),
        ("to: db, service: sql", "to: dbx, service: sql", "s:13:18: unknown workload `dbx`; did you mean `db`?"),
        ("to: db, service: sql", "to: db, service: sqk", "`db` offers no service `sqk`: it offers `sql`, `ssh`"),
        ("every_ms: 100,", "every_ms: 5,", "s:13:46: `5` is not a whole number from 10 to 3600000"),
        ("lifetime: long-lived", "lifetime: udp", "s:13:13: service `sql` of `db` wants lifetime `short`"),
        ("kind: postgres", "kind: postgras", "unknown kind `postgras`; did you mean `postgres`?"),
        ("ports: tcp/5432", "ports: udp/5432", "`udp/5432` does not suit kind `postgres`; wanted a port"),
        ("ports: tcp/5432", "ports: tcp/1-9", "wanted one port; a range belongs under `dynamic`"),
        ("ports: tcp/5432", "ports: tcp/99999", "`tcp/99999`: `99999` is over 65535"),
        ("ports: tcp/5432", "ports: tcp/22", "s:15:3: services `sql` and `ssh` want the same port"),
        ("{sql: {", "{ssh: {", "s:15:3: service `ssh` is offered twice"),
        (", dynamic: tcp/1024-2047", "", "`dynamic` goes with kind `rpc`, and with no other"),
        ("postgresql.service", "ssh.service", "s:15:3: unit `ssh.service` is also under `everywhere`"),
        ("postgresql.service", "postgresql", "`postgresql` is not a unit name; wanted one such as `nginx.service`"),
        ("process: postgres", "process: the-very-long-name", "the kernel keeps 15 bytes"),
        ("agent: false", "agent: no", "s:22:12: `no` is neither `true` nor `false`"),
        ("agent: false", "declared: true", "s:22:15: a workload with an agent declares itself"),
        ("192.0.2.9", "10.77.0.1", "s:21:3: address `10.77.0.1` is already that of `fabric`"),
        ("192.0.2.9", "10.77.0.11", "address `10.77.0.11` is already that of `web`"),
        ("192.0.2.9", "[192.0.2.9, 192.0.2.8]", "wanted at most one address of each family"),
        ("192.0.2.9", "192.0.2.900", "s:23:16: `192.0.2.900` is not an IPv4 or IPv6 address"),
        ("  printer:", "  controller:", "`controller` is a name that every lab uses for itself"),
        ("  printer:", "  Printer:", "`Printer` is not a workload name"),
        ("  printer:", "  web:", "s:21:3: `web` is given twice"),
        ("lab: tiny", "lab: tiny\nnetworks: 10.0.0.0/8", "s:2:11: wanted one IPv4 and one IPv6 network"),
        ("lab: tiny", "lab: tiny\nnetworks: [10.0.0.0/30, 'fd00::/64']", "`10.0.0.0/30` is too small for a lab"),
        ("lab: tiny", "lab: [tiny]", "s:1:6: wanted a single value"),
        ("    truth: {role: db}", "    truth: role", "wanted a mapping of keys to values"),
        ("to: db, service", "to: {db: 1}, service", "wanted a list"),
        ("every_ms: 1000", "rate: 1000", "unknown key `rate`"),
        (", every_ms: 1000", "", "s:14:13: `every_ms` is missing"),
        ("service: ssh, every", "service: ftp, every", "no other workload offers service `ftp`"),
        ("service: ssh, every_ms: 1000", "service: sql, every_ms: 9000, lifetime: long-lived", "is called twice"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_at_its_place(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(SMALL.replace(old, new, 1), "s")
    assert message in str(caught.value)
    assert str(caught.value).startswith("s:") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s:1:1: the scenario is empty"),
        ("lab: x\n", "s:1:1: `workloads` is missing"),
        ("lab: x\nworkloads: {}\n", "s:2:12: wanted at least one workload"),
        ("lab: x\nworkloads: [\n", "s:3:1: not YAML"),
        ("lab: \x01\n", "s:1:1: not YAML"),
    ],
)
def test_what_is_no_scenario_is_refused(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "s")
    assert str(caught.value).startswith(message)


def test_a_full_network_is_refused() -> None:
    workloads = "".join(f"  w{n}: {{}}\n" for n in range(250))
    with pytest.raises(ScenarioError, match=r"`10\.0\.0\.0/24` has no address left"):
        parse_scenario(f"lab: x\nnetworks: [10.0.0.0/24, 'fd00::/64']\nworkloads:\n{workloads}")


def test_a_missing_file_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"cannot read scenario `.*none\.yaml`: no such file"):
        load_scenario(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"lab: \xe9")
    with pytest.raises(ScenarioError, match="it is not UTF-8 text"):
        load_scenario(tmp_path / "latin.yaml")


def test_the_shop_has_everything_that_a_demonstration_needs() -> None:
    shop = load_scenario(SCENARIOS / "shop.yaml")
    assert sum(workload.agent for workload in shop.workloads) >= 16
    assert any(workload.declared for workload in shop.workloads)
    calls = [call for workload in shop.workloads for unit in workload.units for call in unit.calls]
    assert {call.lifetime for call in calls} == set(Lifetime)
    assert any(service.dynamic for workload in shop.workloads for service in workload.services())
    for env in ("prod", "dev"):
        roles = {
            w.truth.get("role") for w in shop.workloads if (w.truth.get("app"), w.truth.get("env")) == ("shop", env)
        }
        assert {"web", "api", "db", "cache", "payment"} <= roles
    assert {"shop", "blog"} <= {w.truth.get("app") for w in shop.workloads}


def test_development_never_calls_production_in_the_shop() -> None:
    shop = load_scenario(SCENARIOS / "shop.yaml")
    for workload in shop.workloads:
        for call in (call for unit in workload.units for call in unit.calls):
            target = shop.workload(call.to)
            if target and workload.truth.get("app") == target.truth.get("app") == "shop":
                assert workload.truth["env"] == target.truth["env"]
