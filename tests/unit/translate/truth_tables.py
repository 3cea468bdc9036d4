"""The published truth tables of NetworkPolicy, as manifests and probes; they are not part of this project."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cellwall.traffic import SCTP, TCP, UDP

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures"
TABLES = FIXTURES / "netpol" / "truth-tables.json.gz"
needs_tables = pytest.mark.skipif(not TABLES.exists(), reason=f"the truth tables are not at {TABLES}")
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}


@dataclass(frozen=True, slots=True)
class Probe:
    """One line of a table: may `source` reach `destination` (names of workloads), as each side and both see it."""

    source: str
    destination: str
    protocol: int
    port: int
    egress: bool
    ingress: bool
    both: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One state of a cluster: its manifests by file name, and what passes in it."""

    name: str
    manifests: tuple[tuple[str, str], ...]
    probes: tuple[Probe, ...]


@cache
def steps() -> tuple[Step, ...]:
    """Read all steps of all cases."""
    cases: list[dict[str, Any]] = json.loads(gzip.decompress(TABLES.read_bytes()))
    return tuple(
        _step(f"{number}.{at} {case['Description']}", step)
        for number, case in enumerate(cases)
        for at, step in enumerate(case["Steps"])
    )


def _step(name: str, step: dict[str, Any]) -> Step:
    cluster = "\n---\n".join(json.dumps(one, indent=1) for one in (*_namespaces(step), *_pods(step)))
    policies = (("policies.yaml", "---\n".join(step["Policies"])),) if step["Policies"] else ()
    probes = tuple(
        Probe(
            one["From"].replace("/", "."),
            one["To"].replace("/", "."),
            PROTOCOLS[one["Proto"]],
            one["Port"],
            *(one[column] == "." for column in ("Eg", "In", "Comb")),
        )
        for one in step["Probes"]
    )
    return Step(name, (("cluster.yaml", cluster), *policies), probes)


def _namespaces(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, labels in step["Namespaces"].items():
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _pods(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for pod in step["Pods"]:
        containers = [
            {
                "name": one["Name"],
                "ports": [{"name": one["PortName"], "protocol": one["Proto"], "containerPort": one["Port"]}],
            }
            for one in pod["Containers"]
        ]
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod["Name"], "namespace": pod["Ns"], "labels": pod["Labels"]},
            "spec": {"containers": containers},
            "status": {"podIP": pod["IP"]},
        }
