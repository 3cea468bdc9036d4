"""A scenario of the lab as its fleet, its facts and the flow records that its agents would send."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cellwall.classify import Facts, Listening
from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.inventory import Fleet, Workload
from cellwall.lab import Scenario, parse_scenario
from cellwall.labels import Labels
from cellwall.traffic import PROTOCOLS

SCENARIOS = Path(__file__).parents[3] / "scenarios"
T0 = 1_790_000_000.0


@dataclass(frozen=True)
class Observed:
    """What a controller would know of a scenario; `truth` are the labels that a classification should find."""

    fleet: Fleet
    facts: dict[str, Facts]
    records: tuple[FlowRecord, ...]
    truth: dict[str, Labels]

    @property
    def labelled(self) -> Fleet:
        """The fleet with its true labels."""
        return Fleet(
            tuple(
                Workload(one.name, self.truth[one.name] or one.labels, one.addresses, one.agent, one.epoch)
                for one in self.fleet.workloads
            )
        )


def observe(name: str, seed: int = 1, rounds: int = 8) -> Observed:
    """Read `scenarios/NAME.yaml`; dynamic ports are drawn `rounds` times for each call."""
    scenario = parse_scenario((SCENARIOS / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")
    known = [one for one in scenario.workloads if one.agent or one.declared]
    fleet = Fleet(tuple(Workload(one.name, one.labels, one.addresses, agent=one.agent) for one in known))
    facts = {
        one.name: Facts(
            tuple(
                Listening(PROTOCOLS[service.protocol], service.port, unit.process, unit.user, unit.name)
                for unit in one.units
                for service in unit.services
            ),
            "lab-host",
            "Linux",
        )
        for one in known
        if one.agent
    }
    records = tuple(_records(scenario, random.Random(seed), rounds))
    return Observed(fleet, facts, records, {one.name: one.truth for one in known})


def _records(scenario: Scenario, chance: random.Random, rounds: int) -> Iterator[FlowRecord]:
    for caller in scenario.workloads:
        for unit in caller.units:
            for call in unit.calls:
                callee = scenario.workload(call.to)
                assert callee is not None
                server = next(one for one in callee.units if any(each.name == call.service for each in one.services))
                service = callee.service(call.service)
                assert service is not None
                ports = {service.port}
                if service.dynamic is not None:
                    first, last = service.dynamic.first & 0xFFFF, service.dynamic.last & 0xFFFF
                    ports |= {chance.randint(first, last) for _ in range(rounds)}
                for port in sorted(ports):
                    for here, there in zip(caller.addresses, callee.addresses, strict=False):
                        key = FlowKey(here, there, PROTOCOLS[service.protocol], port)
                        source = Process(unit.process, unit.user, unit.name)
                        target = Process(server.process, server.user, server.name)
                        for side, end, process in (
                            (Side.EGRESS, caller, source),
                            (Side.INGRESS, callee, target),
                        ):
                            if end.agent:
                                yield FlowRecord(
                                    key,
                                    end.name,
                                    side,
                                    Outcome.ALLOWED,
                                    Outcome.DENIED,
                                    (),
                                    0,
                                    60_000 // call.every_ms + 1,
                                    T0,
                                    T0 + 3600,
                                    process=process,
                                )
