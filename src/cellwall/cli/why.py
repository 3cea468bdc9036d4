"""`cellwall why`: what becomes of a flow, and because of what; asked of the controller, or worked out from files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.documents import policy_of, read_documents, read_fleet
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.flows import moment, word
from cellwall.cli.ground import or_files
from cellwall.cli.help import SEE, examples
from cellwall.cli.output import Format, Output, show, verdict, working
from cellwall.cli.where import Socket
from cellwall.inventory import Fleet, Workload
from cellwall.policy import NOBODY, Endpoint, Flow, Identity, Policy, Verdict, endpoint, suggestion
from cellwall.traffic import AddressError, PortSet, ServiceError, parse_address, parse_ports, port_name

if TYPE_CHECKING:
    from cellwall.analysis import Explanation, RuleNote

# A service of the policy in force, which the controller knows; a protocol alone is no port to ask about.
_NAME = re.compile(r"(?!(?:tcp|udp|sctp|dccp|udplite|icmp|icmpv6|any)$)[a-z][a-z0-9-]*")

LONGEST, MOST_TOLD, MOST_PAIRS, BOTH = 60, 4, 64, 2


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        "why",
        rich_help_panel=SEE,
        epilog=examples(
            "cellwall why web-1 db-1 5432",
            "cellwall why 198.51.100.20 web-1 tcp/443",
            "cellwall why web-1 dns-1 udp/53 -o json",
            "cellwall why web-1 db-1 5432 --user www-data",
            "cellwall why web-1 db-1 5432 --at '2026-12-01T09:30:00Z'",
            "cellwall why web-1 db-1 5432 --source-label pci=cde",
            "cellwall why web-1 db-1 5432 --policy policy/ --fleet fleet.json",
        ),
    )(why)


def why(
    source: Annotated[str, typer.Argument(help="a workload, or an address", metavar="SOURCE")],
    destination: Annotated[str, typer.Argument(help="a workload, or an address", metavar="DESTINATION")],
    port: Annotated[str, typer.Argument(help="`5432` for TCP, such as `udp/53`, or a service", metavar="PORT")],
    user: Annotated[str | None, typer.Option(help="for a process of this user at the source", metavar="NAME")] = None,
    unit: Annotated[str | None, typer.Option(help="for a process of this systemd unit", metavar="NAME")] = None,
    revision: Annotated[int | None, typer.Option(help="as of this revision", metavar="N")] = None,
    at: Annotated[
        str | None, typer.Option(help="as of then: revision, labels and addresses; `2h` ago", metavar="TIME")
    ] = None,
    source_label: Annotated[
        list[str] | None, typer.Option(help="what if the source had it; `KEY-`: not", metavar="KEY=VALUE")
    ] = None,
    destination_label: Annotated[
        list[str] | None, typer.Option(help="what if the destination had it; `KEY-`: not", metavar="KEY=VALUE")
    ] = None,
    policy: Annotated[
        list[Path] | None, typer.Option(help="answer from these documents instead", metavar="PATH")
    ] = None,
    fleet: Annotated[
        Path | None, typer.Option(help="with --policy: the fleet, as `workloads -o json` writes it", metavar="FILE")
    ] = None,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Say what becomes of a flow: verdict, rule, file and line, both ends' modes, and what the kernel holds.

    Also of the past (--at), under another revision, and with labels that a workload does not have.
    Where the ends have several addresses, each different answer is told. Exit code 0 when it passes, 1 when it is
    denied, between any two of their addresses."""
    if policy:
        if at is not None or revision is not None:
            raise Stop(Exit.USAGE, "--at and --revision are of the controller's past, and do not go with --policy")
        rules, who = policy_of(read_documents(policy)), Identity(user, unit)
        service = read_service(port, rules)
        known = _relabelled(_fleet(fleet), {source: source_label or [], destination: destination_label or []})
        answer = explain(rules, known, source, destination, service, time.time(), who)
    else:
        if fleet is not None:
            raise Stop(Exit.USAGE, "--fleet goes with --policy; the controller has a fleet of its own")
        with working("asking both ends"):
            answer = or_files(socket).get(
                "why",
                source=source,
                destination=destination,
                port=port if _NAME.fullmatch(port) else read_service(port),
                revision=revision,
                at=at,
                source_label=",".join(source_label or ()) or None,
                destination_label=",".join(destination_label or ()) or None,
                user=user,
                unit=unit,
            )
    show(answer, output, lambda: draw(answer))
    if any(one["outcome"] == "denied" for one in answer.get("pairs") or [answer]):
        raise Stop(Exit.NO)


def read_service(text: str, policy: Policy | None = None) -> str:
    """Read the port of a question: one point, `5432` being TCP's, or a service of `policy`. Raises `Stop`."""
    services = {service.name: service.ports for service in policy.services} if policy else dict[str, PortSet]()
    if text in services:
        return port_name(_point(_one(text, services[text])))
    try:
        ports = parse_ports(f"tcp/{text}" if text.isdecimal() else text)
    except ServiceError as error:
        if policy is not None and _NAME.fullmatch(text):
            raise Stop(Exit.USAGE, f"unknown service `{text}`{suggestion(text, tuple(services))}") from None
        raise Stop(Exit.USAGE, str(error)) from None
    return port_name(_point(_one(text, ports)))


def _one(text: str, ports: PortSet) -> PortSet:
    if ports.size() != 1:
        told = f" ({ports})" if len(str(ports)) <= LONGEST else ""
        raise Stop(Exit.USAGE, f"`{text}` is {ports.size()} ports{told}; ask for one, such as `tcp/443` or `icmp/8/0`")
    return ports


def _point(ports: PortSet) -> int:
    return ports.spans[0].first


def _fleet(path: Path | None) -> Fleet:
    return read_fleet(path) if path else Fleet()


def _relabelled(fleet: Fleet, changes: Mapping[str, list[str]]) -> Fleet:
    for name, texts in changes.items():
        if texts and name not in fleet.by_name:
            raise Stop(Exit.USAGE, f"`{name}` is no workload: only those have labels")
    pairs = {name: dict(_label(text) for text in texts) for name, texts in changes.items()}
    relabelled = (
        replace(one, labels=one.labels.updated(pairs[one.name])) if pairs.get(one.name) else one
        for one in fleet.workloads
    )
    return Fleet(tuple(relabelled), fleet.controllers)


def _label(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not equals and not key.endswith("-"):
        raise Stop(Exit.USAGE, f"`{text}` is no label; wanted `KEY=VALUE`, or `KEY-` for one to be gone")
    return (key, value) if equals else (key[:-1], None)


def explain(
    policy: Policy,
    fleet: Fleet,
    source: str,
    destination: str,
    service: str,
    now: float,
    who: Identity = NOBODY,
) -> dict[str, Any]:
    """Work out the answer from a policy and a fleet, in the form in which the controller gives it."""
    from cellwall.analysis import why as explained

    at = _point(parse_ports(service))
    known = Fleet((*fleet.workloads, *_declared(policy, fleet)), fleet.controllers)
    ones, others = _ends(known, source, who), _ends(known, destination)
    pairs = [(one, other) for one in ones for other in others if one.address.version == other.address.version]
    if not pairs:
        raise Stop(Exit.USAGE, f"`{source}` and `{destination}` share no IP version")
    # A rule about a network may tell the addresses of one workload apart.
    told = [explained(policy, known, Flow(*pair, at >> 16, at & 0xFFFF), now) for pair in pairs[:MOST_PAIRS]]
    found, verdicts = told[0], [_verdicts(one) for one in told]
    return {
        "source": _end(pairs[0][0]),
        "destination": _end(pairs[0][1]),
        "service": service,
        "outcome": found.outcome.value,
        "would": found.would.value,
        **verdicts[0],
        "advice": list(found.advice),
        "pairs": [
            {
                "source": str(one.address),
                "destination": str(other.address),
                "outcome": each.outcome.value,
                "would": each.would.value,
                **its,
            }
            for (one, other), each, its in zip(pairs, told, verdicts, strict=False)
        ],
        "more_pairs": len(pairs) - len(told),
    }


def _end(end: Endpoint) -> dict[str, Any]:
    return {"address": str(end.address), "workload": end.workload, "labels": dict(end.labels), "agent": end.agent}


def _verdicts(told: Explanation) -> dict[str, Any]:
    rules = {note.id: note for note in told.matching}
    return {"egress": _verdict(told.egress.verdict, rules), "ingress": _verdict(told.ingress.verdict, rules)}


def _verdict(told: Verdict | None, rules: Mapping[str, RuleNote]) -> dict[str, Any] | None:
    if told is None:
        return None
    return {
        "outcome": told.outcome.value,
        "would": told.would.value,
        "tier": told.tier.value,
        "mode": told.mode.value,
        "rules": [_rule(name, rules.get(name)) for name in told.because],
        "staged": [{"id": name} for name in told.staged],
    }


def _rule(name: str, note: RuleNote | None) -> dict[str, Any]:
    if note is None:
        return {"id": name, "action": "lifeline", "place": "built in", "reason": "", "owner": ""}
    return {"id": name, "action": note.action.value, "place": note.place, "reason": note.reason, "owner": note.owner}


def _declared(policy: Policy, fleet: Fleet) -> Iterator[Workload]:
    for one in policy.workloads:
        if one.name not in fleet.by_name:
            yield Workload(one.name, one.labels, one.addresses, agent=False)


def _ends(fleet: Fleet, name: str, who: Identity = NOBODY) -> list[Endpoint]:
    workload = fleet.by_name.get(name)
    if workload is not None:
        if not workload.addresses:
            raise Stop(Exit.USAGE, f"workload `{name}` has no address")
        return [endpoint(fleet, address, who) for address in workload.addresses]
    try:
        return [endpoint(fleet, parse_address(name), who)]
    except AddressError:
        near = suggestion(name, tuple(fleet.by_name))
        raise Stop(Exit.USAGE, f"there is no workload `{name}`, and it is not an address{near}") from None


def draw(answer: dict[str, Any]) -> RenderableType:
    """Draw the answer as sentences: the verdict, then each end's part in it, and what would have to change."""
    source, destination = answer["source"], answer["destination"]
    flow = f"{_name(source)} → {_name(destination)} {answer['service']}  "
    parts: list[RenderableType] = [Text.assemble((flow, "bold"), verdict(word(answer)))]
    parts += [Text(line) for line in _asked(answer)]
    alike, *others = _alike(answer.get("pairs", ()))
    if (line := _agreeing(alike, others, answer)) is not None:
        parts.append(Text(line))
    for side, end in (("egress", source), ("ingress", destination)):
        parts += _part(side, end, answer)
    for some in others:
        parts += _otherwise(some, answer)
    seen = answer.get("seen")
    if seen:
        parts.append(
            Text(f"  seen     {seen['connections']} connections, last at {moment(seen['last_seen'])}: {word(seen)}")
        )
    then = answer.get("then")
    if then and (then["revision"], word(then)) != (answer["revision"], word(answer)):
        parts.append(Text(f"  then     {_then(then)}"))
    # What each end says is drawn above; the rest says what would have to change.
    told = [line for line in answer.get("advice") or () if not line.startswith(("egress: ", "ingress: "))]
    return Group(*parts, *(Text(f"  advice   {line}") for line in told))


def _alike(pairs: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Put the pairs of addresses together that are decided alike; those that are as the first one come first."""
    found: list[list[dict[str, Any]]] = [[]]
    for pair in pairs:
        same = next((some for some in found if not some or _decided(some[0]) == _decided(pair)), None)
        if same is None:
            found.append([pair])
        else:
            same.append(pair)
    return found


def _decided(pair: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(pair[key] for key in ("outcome", "would", "egress", "ingress"))


def _agreeing(alike: list[dict[str, Any]], others: list[list[dict[str, Any]]], answer: dict[str, Any]) -> str | None:
    """Say how many pairs of addresses are decided as the first one; None where there is only one."""
    count = len(alike) + sum(map(len, others))
    more = f"; {answer['more_pairs']} more were not looked at" if answer.get("more_pairs") else ""
    if count < 2:
        return None
    if not others:
        return f"  pairs    {'both' if count == BOTH else f'all {count}'} pairs of addresses agree{more}"
    return f"  pairs    {len(alike)} of {count} pairs of addresses are so, others are not: see below{more}"


def _otherwise(pairs: list[dict[str, Any]], answer: dict[str, Any]) -> Iterator[RenderableType]:
    """Draw what becomes of the flow between addresses for which that is something else."""
    first = pairs[0]
    between = ", ".join(f"{one['source']} → {one['destination']}" for one in pairs[:MOST_TOLD])
    more = f" and {len(pairs) - MOST_TOLD} more" if len(pairs) > MOST_TOLD else ""
    yield Text.assemble((f"but {between}{more}  ", "bold"), verdict(word(first)))
    for side, key in (("egress", "source"), ("ingress", "destination")):
        yield from _part(side, {**answer[key], "address": first[key]}, first)


def _asked(answer: dict[str, Any]) -> Iterator[str]:
    """Say of when the answer is, and what in it is not so."""
    asked = answer.get("asked")
    if asked is None:
        return
    if asked["at"] is not None:
        yield f"  as of    {moment(asked['at'])}, revision {asked['revision']}; labels and addresses of then"
    elif not asked["in_force"]:
        made = f" of {moment(asked['created'])}" if asked["created"] else ""
        yield f"  as of    revision {asked['revision']}{made}; labels and addresses of now"
    for side in ("source", "destination"):
        if pairs := asked["labels"][side]:
            told = ", ".join(
                f"{key}={value}" if value is not None else f"without {key}" for key, value in pairs.items()
            )
            yield f"  what if  {_name(answer[side])} were {told}"


def _then(then: dict[str, Any]) -> str:
    rules = [rule for side in ("egress", "ingress") if then[side] for rule in then[side]["rules"]]
    because = ", ".join(dict.fromkeys(f"`{rule['id']}` at {rule['place']}" for rule in rules)) or "the default"
    ends = "; ".join(f"{_name(end)} was {_labels(end)}" for end in (then["source"], then["destination"]))
    return f"revision {then['revision']} meant: {word(then)}, by {because}; {ends}"


def _labels(end: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in end["labels"].items()) or "without labels"


def _name(end: dict[str, Any]) -> str:
    return str(end["workload"] or end["address"])


def _part(side: str, end: dict[str, Any], answer: dict[str, Any]) -> list[RenderableType]:
    labels = ",".join(f"{key}={value}" for key, value in end["labels"].items()) or "no labels"
    lines: list[RenderableType] = [Text(f"  {side} at {_name(end)} ({end['address']}; {labels})", style="bold")]
    told = answer[side]
    if told is None:
        lines.append(Text("    nothing is enforced at this end: it has no agent"))
        return lines
    lines.append(Text.assemble("    verdict  ", verdict(word(told)), f" in mode {told['mode']}"))
    if not told["rules"]:
        lines.append(Text("    because  no rule allows it, and that is the default"))
    for rule in told["rules"]:
        reason = f": {rule['reason']}" if rule.get("reason") else ""
        where = f", an order of {rule['owner']}" if told["tier"] == "order" else f" at {rule['place']}"
        lines.append(Text(f"    because  {rule['action']} `{rule['id']}`{where}{reason}"))
    held: dict[str, Any] | None = answer["held"].get(side) if "held" in answer else None
    if held:
        lines.append(Text(f"    kernel   {_held(held)}"))
    others = answer.get("foreign", {}).get(side)
    if others:
        lines.append(Text(f"    beside   {', '.join(others)}: what Cellwall lets pass, they may still drop"))
    return lines


def _held(held: dict[str, Any]) -> str:
    if held.get("error"):
        return str(held["error"])
    rules = ", ".join(f"`{name}`" for name in held.get("rules") or ()) or "the default"
    told = f"{word(held)} by {rules}, in mode {held['mode']}, revision {held['revision']}"
    return f"{told}; but not us: {held['foreign']} drops it" if held.get("foreign") else told
