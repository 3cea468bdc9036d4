"""What a question about a policy stands on: documents and a fleet from files, or from the controller."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cellwall.cli.documents import fleet_of, policy_of, read_documents, read_fleet
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.output import hint
from cellwall.cli.where import controller
from cellwall.clients import Api
from cellwall.inventory import Fleet, Workload
from cellwall.policy import Policy

Documents = Annotated[
    list[Path] | None, typer.Option("--policy", help="documents, or a folder; else what is in force", metavar="PATH")
]
FleetOf = Annotated[
    Path | None, typer.Option("--fleet", help="the fleet, as `workloads -o json` writes it", metavar="FILE")
]
Without = Annotated[list[str] | None, typer.Option("--without", help="as if this rule were not there", metavar="RULE")]
Ports = Annotated[
    list[str] | None, typer.Option("--port", "--service", help="such as `tcp/22`, or a service", metavar="PORT")
]


class Modes(StrEnum):
    """Which modes count for an answer."""

    AS_IS = "modes"
    ENFORCE = "enforce"


@contextmanager
def asking() -> Generator[None]:
    """Let a question that cannot be read be an error of the command line."""
    from cellwall.analysis import QuestionError

    try:
        yield
    except QuestionError as error:
        raise Stop(Exit.USAGE, str(error)) from None


def ground(documents: list[Path] | None, fleet: Path | None, socket: Path | None) -> tuple[Policy, Fleet]:
    """Give the policy and the fleet of a question: documents with a fleet of a file, else the controller's."""
    if documents:
        policy = policy_of(read_documents(documents))
        return policy, declared(policy, read_fleet(fleet) if fleet else None)
    api = or_files(socket)
    policy = policy_of(api.get("policy")["documents"])
    return policy, declared(policy, read_fleet(fleet) if fleet else fleet_at(api))


def or_files(socket: Path | None, options: str = "--policy and --fleet") -> Api:
    """Give the controller; where there is none, say too which options do without. Raises `Stop`."""
    try:
        return controller(socket)
    except Stop as stop:
        if stop.code is not Exit.UNREACHABLE:
            raise
        raise Stop(stop.code, f"{stop}; or answer from files with {options}") from None


def fleet_at(api: Api) -> Fleet:
    """Give the fleet that a controller knows."""
    return fleet_of({"items": list(api.items("workloads"))})


def declared(policy: Policy, fleet: Fleet | None) -> Fleet:
    """Give the fleet with the workloads that the documents declare; without any other, these have points too."""
    known = {workload.name: workload for workload in fleet.workloads} if fleet else dict[str, Workload]()
    for one in policy.workloads:
        before = known.get(one.name)
        if before is None:
            known[one.name] = Workload(one.name, one.labels, one.addresses, agent=fleet is None)
        else:
            addresses = before.addresses if before.agent else (*before.addresses, *one.addresses)
            known[one.name] = replace(before, labels=before.labels.updated(one.labels), addresses=addresses)
    if fleet is None:
        if not known:
            raise Stop(Exit.USAGE, "there are no workloads to speak of; name the fleet with --fleet")
        hint("without --fleet: the workloads that the documents declare, as if they had agents")
    return Fleet(tuple(known.values()), fleet.controllers if fleet else ())


def rules_without(policy: Policy, names: Iterable[str] | None) -> frozenset[str]:
    """Give the rules to leave out, which must be there."""
    from cellwall.policy import suggestion

    found = frozenset(names or ())
    for name in sorted(found - policy.by_id.keys()):
        raise Stop(Exit.USAGE, f"there is no rule `{name}`{suggestion(name, tuple(policy.by_id))}")
    return found


def read_hops(text: str) -> int | None:
    """Read a number of hops: 1 or more, or `all`."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise Stop(Exit.USAGE, f"`{text}` is no number of hops; wanted 1 or more, or `all`")
    return int(text)


def hop_shape(hop: Any) -> dict[str, Any]:
    """Give one hop of a path as an answer."""
    return {
        "source": hop.source,
        "destination": hop.destination,
        "service": hop.service,
        "ports": str(hop.ports),
        "as": str(hop.identity) or None,
        "served_as": str(hop.server) or None,
        "egress": [ruling_shape(rule) for rule in hop.egress],
        "ingress": [ruling_shape(rule) for rule in hop.ingress],
    }


def ruling_shape(rule: Any) -> dict[str, Any]:
    """Give a rule that decided as an answer."""
    return {"id": rule.id, "action": rule.action, "place": rule.place}


def because(hop: dict[str, Any]) -> str:
    """Say in words why a hop passes."""
    found = {rule["id"]: rule for rule in (*hop["egress"], *hop["ingress"])}
    if not found:
        return "nothing is enforced here"
    return ", ".join(f"{rule['action']} `{rule['id']}` {rule['place']}" for rule in found.values())


def hop_line(hop: dict[str, Any]) -> str:
    """Write one hop of a path."""
    named = f" as {hop['as']}" if hop["as"] else ""
    served = f" as {hop['served_as']}" if hop["served_as"] else ""
    # Protocol 0 is the first of all that there is.
    service = "all services" if hop["service"] == "0" else hop["service"]
    return f"{hop['source']}{named} → {hop['destination']}{served} {service}: {because(hop)}"
