"""Golden scenarios: a policy, a fleet and one workload of it, and perhaps the policy that follows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from cellwall.compile import compile_fleet
from cellwall.enforce import digest_of
from cellwall.enforce.nft.interim import Layer
from cellwall.enforce.nft.program import Program
from cellwall.enforce.nft.render import Local, Unit, render
from cellwall.enforce.nft.script import scripts, transaction
from cellwall.enforce.nft.steps import plan_steps
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels
from cellwall.policy import Order, OrderKind, Party, parse_policy
from cellwall.traffic import PortSet, parse_network, parse_ports

FOLDER = Path(__file__).parent / "nft"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
NOW = 1_800_000_000.0
UNITS = "cellwall-golden"
"""The control group below which the scenarios have their units."""


@dataclass(frozen=True)
class Scenario:
    """What a scenario file says; `policies` are one or two, the second following the first."""

    name: str
    workload: str
    fleet: Fleet
    policies: tuple[str, ...]
    orders: tuple[tuple[Order, ...], ...] = ((), ())
    local: Local = field(default_factory=Local)

    def program(self, number: int = 0) -> Program:
        """The table under the first or the second policy."""
        policy = parse_policy([("policy.yaml", self.policies[number])])
        point = compile_fleet(policy, self.fleet, number + 1, NOW, self.orders[number]).points[self.workload]
        return render(point.ruleset, point.members, self.local, digest_of(point.ruleset))

    def first(self) -> str:
        """The whole script to the first policy."""
        return transaction(None, self.program())

    def change(self) -> str:
        """The change from the first policy to the second, empty where there is none."""
        if len(self.policies) == 1:
            return ""
        return transaction(plan_steps(None, self.program()).program, self.program(1))

    def trial(self) -> str:
        """The same change on trial: the second policy above the first, for a minute."""
        held = plan_steps(None, self.program()).program
        return transaction(held, self.program(), (Layer("trial", self.program(1), NOW + 60),))

    def steps(self) -> tuple[str, ...]:
        """Every transaction of both, in turn."""
        held = plan_steps(None, self.program())
        after = plan_steps(held.program, self.program(1)) if len(self.policies) > 1 else None
        return tuple(text for steps in (held, after) if steps for text in scripts(steps) if text)


def load(name: str) -> Scenario:
    """Read one scenario file."""
    told: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    workloads = tuple(
        Workload(
            key,
            Labels(value.get("labels", {})),
            tuple(ip_address(text) for text in value["addresses"]),
            agent=value.get("agent", True),
        )
        for key, value in told["workloads"].items()
    )
    controllers = tuple(Listener(ip_address(address), port) for address, port in told.get("controllers", {}).items())
    units = {unit: Unit(number, 2, f"{UNITS}/{unit}") for number, unit in enumerate(told.get("units", []), 7001)}
    policies = (told["policy"], told["then"]) if "then" in told else (told["policy"],)
    orders = tuple(tuple(map(_order, told.get(key, ()))) for key in ("orders", "then_orders"))
    return Scenario(
        name, told["workload"], Fleet(workloads, controllers), policies, orders, Local(told.get("users", {}), units)
    )


def _order(told: dict[str, Any]) -> Order:
    return Order(
        told["id"],
        OrderKind(told["kind"]),
        _party(told.get("source", ())),
        _party(told.get("destination", ())),
        PortSet.of(span for text in told.get("ports", ["any"]) for span in parse_ports(text).spans),
        frozenset((ip_address(one), ip_address(other)) for one, other in told.get("exempt", ())),
        expires=told.get("expires"),
    )


def _party(names: Iterable[str]) -> Party:
    texts = list(names)
    networks = tuple(parse_network(text) for text in texts if "/" in text)
    return Party(tuple(text for text in texts if "/" not in text), (), networks)
