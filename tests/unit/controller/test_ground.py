"""The fleet is put together from the inventory and the documents, and nobody takes another's place."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from cellwall.controller.ground import Overlay, make_fleet
from cellwall.inventory import Workload
from cellwall.labels import Labels
from cellwall.policy import parse_policy
from cellwall.traffic import Address

PRINTER, OWN, OTHER = (ip_address(one) for one in ("10.9.0.11", "10.0.0.1", "10.0.0.2"))
POLICY = parse_policy([("p.yaml", f"workloads: {{plc-7: {{addresses: [{PRINTER}], labels: {{role: plc}}}}}}")])


def workload(name: str, *addresses: Address, agent: bool = True, **labels: str) -> Workload:
    return Workload(name, Labels(labels), addresses, agent, 5.0)


def having(*inventory: Workload) -> Mapping[Address, list[str]]:
    found: dict[Address, list[str]] = {}
    for one in inventory:
        for address in one.addresses:
            found.setdefault(address, []).append(one.name)
    return found


def test_an_agent_cannot_claim_the_address_of_a_workload_that_documents_declare() -> None:
    web = workload("web-1", OWN, PRINTER)
    fleet = make_fleet([web], POLICY, ())
    assert fleet.by_address[PRINTER].name == "plc-7"
    assert fleet.by_name["web-1"].addresses == (OWN,)
    assert fleet.conflicts == ()
    assert make_fleet([web], POLICY, (), lambda at: having(web).get(at, [])) == fleet


def test_an_agent_of_the_declared_name_keeps_its_addresses() -> None:
    fleet = make_fleet([workload("plc-7", OWN, PRINTER)], POLICY, ())
    assert fleet.by_name["plc-7"].addresses == (OWN, PRINTER)
    assert fleet.by_name["plc-7"].labels["role"] == "plc"


def test_a_workload_without_an_agent_has_its_own_addresses_and_the_documents() -> None:
    fleet = make_fleet([workload("plc-7", OWN, agent=False, site="north")], POLICY, ())
    assert fleet.by_name["plc-7"].addresses == (OWN, PRINTER)
    assert fleet.by_name["plc-7"].labels == Labels({"role": "plc", "site": "north"})


def test_who_did_not_change_is_the_same_object_whatever_the_documents_say_of_it() -> None:
    overlay: Overlay = {}
    inventory = [workload("db-1", OTHER), workload("plc-7", agent=False), workload("web-1", OWN, PRINTER)]
    before = make_fleet(inventory, POLICY, (), overlay=overlay)
    inventory[0] = workload("db-1", OTHER, role="db")
    after = make_fleet(inventory, POLICY, (), overlay=overlay)
    same = {name for name, one in after.by_name.items() if one is before.by_name[name]}
    assert same == {"plc-7", "web-1"}
    inventory[2] = workload("web-1", OWN, PRINTER, role="web")
    last = make_fleet(inventory, POLICY, (), overlay=overlay)
    assert last == make_fleet(inventory, POLICY, ())
    assert {name for name, one in last.by_name.items() if one is after.by_name[name]} == {"db-1", "plc-7"}
