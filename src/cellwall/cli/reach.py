"""`cellwall reach`: who can reach what, at once and in hops; the blast radius; and which rules cut it the most."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.ground import (
    Documents,
    FleetOf,
    Modes,
    Ports,
    Without,
    asking,
    because,
    ground,
    hop_line,
    hop_shape,
    read_hops,
    rules_without,
    ruling_shape,
)
from cellwall.cli.help import SEE, examples
from cellwall.cli.output import Format, Output, counted, hint, show, table, working
from cellwall.cli.where import Socket

if TYPE_CHECKING:
    from cellwall.analysis import Spread, Ways

MOST_SHOWN, MOST_PATHS, LONGEST_PORTS = 20, 5, 48


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        "reach",
        rich_help_panel=SEE,
        epilog=examples(
            "cellwall reach web-1",
            "cellwall reach network:office --hops 1",
            "cellwall reach any role=db --port postgres",
            "cellwall reach role=web pci=cde --without web-to-api",
            "cellwall reach web-1 --cut 3 --assume enforce",
            "cellwall reach env=dev env=prod --cut 1 --policy policy/ --fleet fleet.json -o json",
        ),
    )(reach)


def reach(
    source: Annotated[str, typer.Argument(help="a workload, selector, `network:…`, address or `any`", metavar="FROM")],
    destination: Annotated[str | None, typer.Argument(help="the same; else all there is", metavar="[TO]")] = None,
    port: Ports = None,
    hops: Annotated[str, typer.Option(help="how many an attacker may take, or `all`", metavar="N")] = "all",
    without: Without = None,
    cut: Annotated[int, typer.Option(help="choose so many rules that cut the most", metavar="N", min=0)] = 0,
    assume: Annotated[Modes, typer.Option(help="`modes` as they are, or all points `enforce`")] = Modes.AS_IS,
    policy: Documents = None,
    fleet: FleetOf = None,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Say what FROM reaches, or which of FROM reach TO: at once, and by way of workloads that it takes on the way.

    Each hop has a path with the rules that let it pass; --port narrows every hop. With --without all of it is said as
    if those rules were not there, and then what they make the difference for. The blast radius is the share of
    workloads that are taken in the end. --cut chooses rules one by one without which the fewest are taken; with TO,
    as few as possible without which nothing gets there. Exit code 1 when nothing is reached."""
    from cellwall.analysis import Assume, read_ends, read_services

    rules, known = ground(policy, fleet, socket)
    gone, far = rules_without(rules, without), read_hops(hops)
    with asking():
        start = read_ends(source, rules, known)
        goal = read_ends(destination, rules, known) if destination is not None else None
        ports = read_services(port or (), rules)
    with working("looking at all ends and all ports"):
        answer = _Answer(rules, known, Assume(assume.value), start, goal, ports, far).answer(gone, cut)
    show(answer, output, lambda: draw(answer))
    if answer["unenforced"]:
        lax = "1 workload is" if answer["unenforced"] == 1 else f"{answer['unenforced']} workloads are"
        hint(f"{lax} not in mode enforce; --assume enforce shows the policy alone")
    if not answer["landings"]:
        raise Stop(Exit.NO)


class _Answer:
    def __init__(self, policy: Any, fleet: Any, assume: Any, start: Any, goal: Any, ports: Any, hops: Any) -> None:
        self._policy, self._fleet, self._assume = policy, fleet, assume
        self._start, self._goal, self._ports, self._hops = start, goal, ports, hops
        self._now = time.time()

    def answer(self, without: frozenset[str], cut: int) -> dict[str, Any]:
        """Walk, and put what is found in the form of an answer."""
        ways, spread = self._walked(without)
        found = self._shape(ways, spread)
        if without:
            found["without"] = self._without(without, spread)
        if cut:
            found["cut"] = self._cut(ways, cut)
        return found

    def _walked(self, without: frozenset[str]) -> tuple[Ways, Spread]:
        from cellwall.analysis import Table, Walk, Ways

        asked = [one for one in (self._start, self._goal) if one is not None]
        ways = Ways(Table, self._policy, self._fleet, self._now, self._assume, without=without, asked=asked)
        walk = Walk(ways, self._ports)
        if self._goal is None:
            return ways, walk.forward(self._start, self._hops)
        return ways, walk.backward(self._goal, self._hops, self._start)

    def _shape(self, ways: Ways, spread: Spread) -> dict[str, Any]:
        from cellwall.analysis import Assume, services_in_words

        words = ways.words
        lax = [
            one for one in self._fleet.workloads if one.agent and self._policy.mode_of(one.labels).value != "enforce"
        ]
        return {
            "from": self._start.text,
            "to": self._goal.text if self._goal is not None else None,
            "ports": services_in_words(self._ports, self._policy),
            "hops": self._hops,
            "assume": self._assume.value,
            "unenforced": len(lax) if self._assume is Assume.MODES else 0,
            "nobody": [one.text for one in (self._start, self._goal) if one is not None and not ways.held(one)],
            "start": list(spread.start),
            "begun": spread.begun,
            "workloads": spread.workloads,
            "reached": list(spread.reached),
            "blast_radius": round(spread.blast_radius, 4) if self._goal is None else None,
            "landings": [
                {
                    "hop": one.hop,
                    "ends": list(one.ends),
                    "words": words(one.ends),
                    "ports": services_in_words(one.ports, self._policy),
                    "by": services_in_words(one.by.ports, self._policy),
                    "path": [hop_shape(hop) for hop in spread.path(one.ends[0])],
                }
                for one in spread.landings
            ],
        }

    def _without(self, without: frozenset[str], after: Spread) -> dict[str, Any]:
        """Say what was reached with the rules that are left out, and what is no more."""
        _, before = self._walked(frozenset())
        shown = {end for one in after.landings for end in one.ends}
        lost = sorted({end for one in before.landings for end in one.ends} - shown)
        hops = {end: one.hop for one in after.landings for end in one.ends}
        return {
            "rules": sorted(without),
            "before": list(before.reached),
            "blast_radius_before": round(before.blast_radius, 4) if self._goal is None else None,
            "no_longer": lost,
            "farther": sorted(
                end for one in before.landings for end in one.ends if end in hops and hops[end] > one.hop
            ),
        }

    def _cut(self, ways: Ways, most: int) -> dict[str, Any]:
        from cellwall.analysis import cut_most, separate

        if self._goal is None:
            steps = cut_most(ways, self._start, most, self._ports, self._hops)
            return {"rules": [{**ruling_shape(one.rule), "left": one.left, "gone": list(one.gone)} for one in steps]}
        apart = separate(ways, self._start, self._goal, self._ports, self._hops)
        return {
            "possible": apart.possible,
            "fewest": apart.fewest,
            "rules": [ruling_shape(rule) for rule in apart.rules],
        }


def draw(answer: dict[str, Any]) -> RenderableType:
    """Draw what is reached as a tree by hops."""
    to = answer["to"]
    title = f"{answer['from']} → {to}" if to is not None else f"from {answer['from']}"
    on = "" if answer["ports"] == "all services" else f" on {answer['ports']}"
    parts: list[RenderableType] = [_tree(f"{title}{on}", answer["landings"], backwards=to is not None)]
    if not answer["landings"]:
        parts = [Text(f"{title}{on}: nothing is reached" if to is None else f"{title}{on}: no one reaches it")]
    parts += [Text(f"`{one}` is no one here: no workload and no address is meant") for one in answer["nobody"]]
    count, everyone = len(answer["reached"]), answer["workloads"]
    if everyone and answer["begun"] == everyone and to is None:
        parts.append(
            Text(f"{answer['from']} holds all {everyone} workloads already; ask for an address or fewer of them")
        )
    elif to is None:
        share = f"{answer['blast_radius']:.1%}"
        parts.append(Text(f"blast radius: {count} of {everyone} workloads are reached, {share} taken with the start"))
    by_rules = {_rules(one["path"]): one for one in reversed(answer["landings"]) if len(one["path"]) > 1}
    paths = list(reversed(by_rules.values()))[:MOST_PATHS]
    if paths:
        parts.append(Text("shortest paths", style="bold"))
        for one in paths:
            parts += [Text(f"  {hop_line(hop)}") for hop in one["path"]] + [Text("")]
        parts.pop()
    parts += _changed(answer)
    return Group(*parts)


def _tree(title: str, landings: Iterable[dict[str, Any]], *, backwards: bool) -> Tree:
    tree = Tree(Text(title, style="bold"), guide_style="dim")
    by_hop: dict[int, list[dict[str, Any]]] = {}
    for one in landings:
        by_hop.setdefault(one["hop"], []).append(one)
    for hop, some in by_hop.items():
        count = len({end for one in some for end in one["ends"]})
        branch = tree.add(Text(f"{'at once' if hop == 1 else f'in {hop} hops'}: {count}", style="bold"))
        for one in some[:MOST_SHOWN]:
            shown = one["path"][0] if backwards else one["path"][-1]
            far = shown["destination"] if backwards else shown["source"]
            arrow = f"→ {far}" if backwards else f"← {far}"
            more = f"; in all {_short(one['ports'])}" if one["ports"] != one["by"] else ""
            why = f"{_short(one['by'])}: {because(shown)}{more}"
            branch.add(Text.assemble(one["words"], (f"  {arrow} ", "dim"), why))
        if len(some) > MOST_SHOWN:
            branch.add(Text(f"and {len(some) - MOST_SHOWN} more; see all with -o json", style="dim"))
    return tree


def _rules(path: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(because(hop) for hop in path)


def _short(ports: str) -> str:
    return ports if len(ports) <= LONGEST_PORTS else f"{ports[:LONGEST_PORTS].rpartition(',')[0]}, …"


def _changed(answer: dict[str, Any]) -> Iterator[RenderableType]:
    if told := answer.get("without"):
        rules = ", ".join(f"`{name}`" for name in told["rules"])
        before, after = told["blast_radius_before"], answer["blast_radius"]
        share = "" if before is None else f" ({before:.1%} → {after:.1%} taken)"
        lost = f"; no longer {_listed(told['no_longer'])}" if told["no_longer"] else "; that changes nothing"
        farther = f"; farther away {_listed(told['farther'])}" if told["farther"] else ""
        counts = f"{len(told['before'])} → {counted(len(answer['reached']), 'workload')}"
        yield Text(f"without {rules}: {counts}{share}{lost}{farther}")
    told = answer.get("cut")
    if told is None:
        return
    if answer["to"] is not None:
        yield Text(_separation(told))
        return
    rows = [[one["id"], one["place"], one["left"], _listed(one["gone"])] for one in told["rules"]]
    yield table(["without", "place", "left#", "no longer reached"], rows, "no rule cuts anything by itself")


def _separation(told: dict[str, Any]) -> str:
    if not told["possible"]:
        return "no rules keep them apart: some hop is not enforced, or needs no rule"
    if not told["rules"]:
        return "nothing to cut: it is not reached"
    word = "the fewest rules" if told["fewest"] else "some rules"
    named = ", ".join(f"{one['action']} `{one['id']}` {one['place']}" for one in told["rules"])
    return f"{word} without which nothing gets there: {named}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
