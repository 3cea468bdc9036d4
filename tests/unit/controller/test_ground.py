"""The fleet is put together from the inventory and the documents, and nobody takes another's place."""

from __future__ import annotations

from ipaddress import ip_address

from cellwall.controller.ground import make_fleet
from cellwall.controller.store.state import WorkloadRow
from cellwall.policy import parse_policy

PRINTER, OWN = ip_address("10.9.0.11"), ip_address("10.0.0.1")
POLICY = parse_policy([("p.yaml", f"workloads: {{plc-7: {{addresses: [{PRINTER}], labels: {{role: plc}}}}}}")])


def row(name: str, *addresses: object, agent: bool = True) -> WorkloadRow:
    found = tuple(ip_address(str(address)) for address in addresses)
    return WorkloadRow(name=name, addresses=found, agent=agent, epoch=5.0, seen=5.0)


def test_an_agent_cannot_claim_the_address_of_a_workload_that_documents_declare() -> None:
    fleet = make_fleet([row("web-1", OWN, PRINTER)], [], POLICY, ())
    assert fleet.by_address[PRINTER].name == "plc-7"
    assert fleet.by_name["web-1"].addresses == (OWN,)
    assert fleet.conflicts == ()


def test_an_agent_of_the_declared_name_keeps_its_addresses() -> None:
    fleet = make_fleet([row("plc-7", OWN, PRINTER)], [], POLICY, ())
    assert fleet.by_name["plc-7"].addresses == (OWN, PRINTER)
    assert fleet.by_name["plc-7"].labels["role"] == "plc"
