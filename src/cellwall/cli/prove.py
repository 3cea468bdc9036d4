"""`cellwall prove`: a claim about who reaches whom, proven over the whole fleet or refuted by a shortest path."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.ground import (
    Documents,
    FleetOf,
    Modes,
    Ports,
    Without,
    asking,
    ground,
    hop_line,
    hop_shape,
    read_hops,
    rules_without,
    ruling_shape,
)
from cellwall.cli.help import POLICY, examples
from cellwall.cli.output import Format, Output, show, verdict, working
from cellwall.cli.where import Socket

if TYPE_CHECKING:
    from cellwall.analysis import Proof

MOST_RULES = 10


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        "prove",
        rich_help_panel=POLICY,
        epilog=examples(
            "cellwall prove 'only role=payment may-reach pci=cde'",
            "cellwall prove 'env=dev cannot-reach env=prod' --hops 1",
            "cellwall prove 'only role=api may-reach role=db on postgres' --policy policy/ --fleet fleet.json",
            "cellwall prove 'app=grafana can-reach role=db on tcp/5432' -o json",
        ),
    )(prove)


def prove(
    claims: Annotated[
        list[str],
        typer.Argument(help="`only X may-reach Y`, `X cannot-reach Y`, `X can-reach Y on PORT`", metavar="CLAIM..."),
    ],
    port: Ports = None,
    hops: Annotated[str, typer.Option(help="how many an attacker may take, or `all`", metavar="N")] = "all",
    assume: Annotated[Modes, typer.Option(help="all points `enforce`, or `modes` as they are")] = Modes.ENFORCE,
    without: Without = None,
    policy: Documents = None,
    fleet: FleetOf = None,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Prove claims over every workload, every port and any number of hops, or show a shortest path that breaks one.

    An attacker takes each workload that it reaches and goes on from there, on any port; the last hop is on the
    claim's. `can-reach` is about one connection. Exit code 1 when one does not hold, or speaks of nobody."""
    from cellwall.analysis import Assume, Table, read_claim
    from cellwall.analysis import prove as prove_it

    rules, known = ground(policy, fleet, socket)
    gone = rules_without(rules, without)
    far = read_hops(hops)
    with asking():
        questions = [read_claim(claim, rules, known, tuple(port or ()), far) for claim in claims]
    with working("looking at all ends and all ports"):
        now = time.time()
        proofs = [prove_it(Table, rules, known, now, one, Assume(assume.value), gone) for one in questions]
    items = [proof_shape(one) for one in proofs]
    show({"items": items}, output, lambda: Group(*(draw(one) for one in items)))
    if not all(one["holds"] and not one["vacuous"] for one in items):
        raise Stop(Exit.NO)


def proof_shape(proof: Proof) -> dict[str, Any]:
    """Give a proof as an answer."""
    from cellwall.analysis import services_in_words

    question, refusal = proof.question, proof.refusal
    return {
        "claim": question.text,
        "holds": proof.holds,
        "vacuous": proof.vacuous,
        "at_once": proof.at_once,
        "every_fleet": proof.every_fleet,
        "hops": question.hops,
        "ports": services_in_words(question.ports),
        "checked": {
            "sources": proof.sources,
            "destinations": proof.destinations,
            "pairs": proof.pairs,
            "kinds": proof.kinds,
            "port_classes": proof.ports,
        },
        "because": [ruling_shape(rule) for rule in proof.because],
        "path": [hop_shape(hop) for hop in proof.path],
        "refusal": {
            "source": refusal.source,
            "destination": refusal.destination,
            "service": refusal.service,
            "ports": str(refusal.ports),
            "rules": [ruling_shape(rule) for rule in refusal.rules],
            "default": refusal.default,
        }
        if refusal
        else None,
    }


def draw(answer: dict[str, Any]) -> RenderableType:
    """Draw a proof, or the path against it."""
    word = "fail" if not answer["holds"] else "warn" if answer["vacuous"] else "pass"
    lines = [Text.assemble(verdict(word), f" {answer['claim']}")]
    checked = answer["checked"]
    if answer["vacuous"]:
        return Group(*lines, Text("  it speaks of nobody here, so nothing is proven"))
    if answer["holds"]:
        hops = "at once" if answer["hops"] == 1 else f"in up to {answer['hops'] or 'any number of'} hops"
        lines.append(
            Text(
                f"  proven {hops}: {checked['sources']} sources × {checked['destinations']} destinations "
                f"({checked['kinds']} kinds) on {answer['ports']}, told apart in {checked['port_classes']}"
            )
        )
        if answer["every_fleet"]:
            once = "" if answer["hops"] == 1 else "at once, "
            lines.append(Text(f"  {once}it holds for every fleet whose workloads have points and enforce"))
        if answer["because"]:
            told = ", ".join(f"`{rule['id']}` {rule['place']}" for rule in answer["because"][:MOST_RULES])
            more = len(answer["because"]) - MOST_RULES
            lines.append(Text(f"  what it allows passes by {told}" + (f" and {more} more" if more > 0 else "")))
        return Group(*lines)
    if refusal := answer["refusal"]:
        rules = ", ".join(f"{rule['action']} `{rule['id']}` {rule['place']}" for rule in refusal["rules"])
        why = rules or "no rule allows it, and that is the default"
        lines.append(Text(f"  {refusal['source']} → {refusal['destination']} {refusal['service']} is denied: {why}"))
        return Group(*lines)
    count = len(answer["path"])
    lines.append(Text(f"  broken {'at once' if count == 1 else f'in {count} hops; at once it holds'}:"))
    lines += [Text(f"  {number}. {hop_line(hop)}") for number, hop in enumerate(answer["path"], 1)]
    return Group(*lines)
