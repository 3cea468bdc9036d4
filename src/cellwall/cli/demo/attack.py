"""The demonstration's attacker: what opens from a foothold, before and after, and why a door stayed shut."""

from __future__ import annotations

import time
from typing import Any

from rich.padding import Padding

from cellwall.cli.demo.sight import World, until
from cellwall.cli.demo.stage import Stage
from cellwall.cli.documents import fleet_of, policy_of
from cellwall.cli.why import draw
from cellwall.lab import AttackReport, Attempt, attack
from cellwall.policy import Flow, Identity, Outcome, decide, endpoint
from cellwall.traffic import parse_address, parse_ports

FOOTHOLD = "web-1"


def attack_open(stage: Stage, world: World) -> AttackReport:
    """Attack while nothing is enforced."""
    stage.step("An attacker has a foothold on a web server")
    report = attack(world.lab, FOOTHOLD)
    _told(stage, report)
    opened = len(report.reached())
    seen = f"{opened} of {len(report.attempts)} doors opened, on {len(_targets(report))} machines"
    stage.promise(
        "without walls the attacker gets about", len(_targets(report)) > len(world.scenario.workloads) // 2, seen
    )
    stage.number("doors open to the attacker before", opened)
    return report


def attack_walled(stage: Stage, world: World, documents: dict[str, str], before: AttackReport) -> None:
    """Repeat the very same attack, and hold what opened against what the policy names."""
    stage.step("The same attack again")
    report = attack(world.lab, FOOTHOLD)
    _told(stage, report)
    policy = policy_of(documents)
    fleet = fleet_of({"items": list(world.api.items("workloads"))})
    own = fleet.by_name[FOOTHOLD]
    unit = next(one.units[0] for one in world.scenario.workloads if one.name == FOOTHOLD)
    identity = Identity(user=unit.user, unit=unit.name)

    def named(one: Attempt) -> bool:
        other = parse_address(one.address)
        source = next(address for address in own.addresses if address.version == other.version)
        at = parse_ports(f"{one.protocol}/{one.port}").spans[0].first
        flow = Flow(endpoint(fleet, source, identity), endpoint(fleet, other), at >> 16, at & 0xFFFF)
        return decide(policy, fleet, flow, time.time()).outcome is Outcome.ALLOWED

    reached = {_door(one) for one in report.reached()}
    stray = sorted(_door(one) for one in report.reached() if not named(one))
    lost = sorted(_door(one) for one in before.reached() if named(one) and _door(one) not in reached)
    seen = f"{len(reached)} doors open, where {len(before.reached())} were: {_doors(report)}"
    stage.promise("the attacker reaches only what the policy names", not stray, _list(stray) or seen)
    stage.promise("what the policy names still opens", not lost, _list(lost) or f"{len(reached)} doors")
    stage.promise("there is less to reach than before", len(reached) < len(before.reached()), seen)
    stage.number("doors open to the attacker after", len(reached))


def explain_denial(stage: Stage, world: World, before: AttackReport) -> None:
    """Explain one of the attacker's packets that was denied: which rule, which line, and what the kernel says."""
    stage.step("One denied packet is explained")
    wanted = next(
        (one for one in before.reached() if one.service == "postgres" and one.protocol == "tcp"),
        next(one for one in before.reached() if one.protocol == "tcp"),
    )
    service = f"{wanted.protocol}/{wanted.port}"
    asked = {"from_": FOOTHOLD, "to": wanted.target, "port": service, "outcome": "denied", "since": "5m"}
    found: list[dict[str, Any]] = []

    def reported() -> bool:
        found[:] = world.api.items("flows", **asked)
        return bool(found)

    seen = until(reported, 10.0)
    count = sum(one["connections"] for one in found)
    samples = len(list(world.api.items("denials", since="5m")))
    told = f"{FOOTHOLD} → {wanted.target} {service} {count} times; and {samples} samples of denied packets"
    stage.promise("the denied packet is reported", seen, told)
    answer = world.api.get("why", source=FOOTHOLD, destination=wanted.target, port=service)
    stage.say(f"$ cellwall why {FOOTHOLD} {wanted.target} {service}")
    stage.console.print(Padding(draw(answer), (0, 0, 0, 4), expand=False))
    held: dict[str, Any] = answer["held"].get("egress") or {}
    stage.promise(
        "policy and kernel say the same, and why",
        answer["outcome"] == "denied" and held.get("outcome") == "denied",
        f"policy: {answer['outcome']}; kernel of {FOOTHOLD}: {held.get('outcome') or held.get('error')}",
    )


def _told(stage: Stage, report: AttackReport) -> None:
    stage.say(f"a scanner on `{report.foothold}`, as user `{report.user}`, tries {len(report.attempts)} doors")
    stage.say(report.table())


def _targets(report: AttackReport) -> set[str]:
    return {one.target for one in report.reached()}


def _door(one: Attempt) -> tuple[str, str, str, int]:
    return (one.target, one.address, one.protocol, one.port)


def _doors(report: AttackReport) -> str:
    opened = dict.fromkeys(f"{one.target} {one.protocol}/{one.port}" for one in report.reached())
    return ", ".join(opened)


def _list(doors: list[tuple[str, str, str, int]]) -> str:
    return ", ".join(f"{target} {protocol}/{port} at {address}" for target, address, protocol, port in doors[:5])
