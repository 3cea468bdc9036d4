"""Manifests that others shipped: all are carried over, and mean the edges that are published beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tests.unit.translate.truth_tables import FIXTURES

from cellwall.flows import Outcome, Side
from cellwall.inventory import Fleet
from cellwall.policy import Flow, decide_at, endpoint, parse_policy
from cellwall.traffic import TCP, UDP
from cellwall.translate.kubernetes.documents import Imported, import_kubernetes

APPS = FIXTURES / "k8s_apps"
SOCKS, BOUTIQUE = APPS / "sock-shop", APPS / "online-boutique"
NOW, OUTSIDE = 1_800_000_000.0, ip_address("192.0.2.1")

pytestmark = pytest.mark.skipif(not APPS.exists(), reason=f"the applications are not at {APPS}")


def imported(*folders: Path) -> Imported:
    files = [file for folder in folders for file in sorted(folder.rglob("*.y*ml"))]
    assert files
    return import_kubernetes((str(file.relative_to(APPS)), file.read_bytes()) for file in files)


@pytest.mark.parametrize(
    ("folders", "edges", "namespace"),
    [
        (
            [SOCKS / "deploy/kubernetes/manifests", SOCKS / "deploy/kubernetes/manifests-policy"],
            SOCKS / "shipped_effective.json",
            "sock-shop",
        ),
        (
            [BOUTIQUE / "kubernetes-manifests", BOUTIQUE / "kustomize/components/network-policies"],
            BOUTIQUE / "intended.json",
            "default",
        ),
    ],
    ids=["sock-shop", "online-boutique"],
)
def test_the_imported_policy_lets_pass_exactly_the_published_edges(
    folders: list[Path], edges: Path, namespace: str
) -> None:
    found = imported(*folders)
    assert not found.refusals
    published: dict[str, Any] = json.loads(edges.read_text("utf-8"))
    placed = [
        replace(one, addresses=(ip_address(f"10.0.0.{number}"),)) for number, one in enumerate(found.workloads, 1)
    ]
    policy, fleet = parse_policy(found.documents.items()), Fleet(tuple(placed))
    assert {name.removeprefix(f"{namespace}.") for name in fleet.by_name} == set(published["workloads"])
    ports = {edge["port"] for edge in published["allowed"]} - {"any"} | {1, 80}
    for destination, port, protocol in product(fleet.workloads, ports, (TCP, UDP)):
        target = destination.name.removeprefix(f"{namespace}.")
        allowed = {
            edge["src"]
            for edge in published["allowed"]
            if edge["dst"] == target
            and edge["port"] in {port, "any"}
            and edge["protocol"] in {"TCP" if protocol == TCP else "UDP", "any"}
        }
        for name, address in [("*", OUTSIDE), *((one.name, one.addresses[0]) for one in fleet.workloads)]:
            if name == destination.name:
                continue
            flow = Flow(endpoint(fleet, address), endpoint(fleet, destination.addresses[0]), protocol, port)
            verdict = decide_at(Side.INGRESS, policy, fleet, flow, NOW).outcome
            wanted = "*" in allowed or name.removeprefix(f"{namespace}.") in allowed
            assert (verdict is Outcome.ALLOWED) is wanted, f"{flow}: {verdict}"


def test_defects_of_shipped_policies_are_noted() -> None:
    notes = " ".join(str(note) for note in imported(SOCKS / "deploy/kubernetes/manifests-policy").notes)
    assert "`sock-shop/cortex-access` selects every pod of `sock-shop`" in notes
    assert "`net.beta.kubernetes.io/network-policy` isolates nothing since Kubernetes 1.7" in notes


@pytest.mark.parametrize(
    "folder",
    [*sorted(APPS.glob("np-guard/*/")), BOUTIQUE / "release"] if APPS.exists() else [],
    ids=lambda one: one.name,
)
def test_every_application_is_carried_over(folder: Path) -> None:
    found = imported(folder)
    assert not found.refusals
    assert found.documents and found.workloads
    policy = parse_policy(found.documents.items())
    assert policy.rules and policy.modes
