"""`cellwall map`: who talks to whom, in the terminal and as a picture."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.text import Text

from cellwall.cli.documents import Replace
from cellwall.cli.files import keep_others, rewrite
from cellwall.cli.help import SEE, examples
from cellwall.cli.maps.graph import Edge, Group, Map, Panel, Verdict, make_map
from cellwall.cli.maps.svg import draw_svg
from cellwall.cli.maps.text import draw_text
from cellwall.cli.output import Format, Output, console, hint, show, working
from cellwall.cli.where import Socket, controller
from cellwall.traffic import parse_address

GROUPING = "app,env,role"
_OUTSIDE, _UNLABELLED = Panel("outside the fleet"), Panel("without labels")
_HANDED_OUT, _MANY_PORTS = 10_000, 4
_STYLES = {Verdict.ALLOWED: "green", Verdict.WOULD: "yellow", Verdict.DENIED: "red"}


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    lines = (
        "cellwall map",
        "cellwall map --svg map.svg",
        "cellwall map --group app,env --since 1h",
        "cellwall map -o json",
    )
    app.command("map", rich_help_panel=SEE, epilog=examples(*lines))(draw)


def draw(
    group: Annotated[str, typer.Option(help="the labels that make a group", metavar="KEYS")] = GROUPING,
    since: Annotated[str | None, typer.Option(help="how far back, such as `10m` or `7d`", metavar="TIME")] = None,
    svg: Annotated[Path | None, typer.Option(help="draw a picture too, to this file", metavar="FILE")] = None,
    title: Annotated[str, typer.Option(help="the title of the picture", metavar="TEXT")] = "Who talks to whom",
    yes: Replace = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Draw who talks to whom, over what, and what becomes of it."""
    api = controller(socket)
    with working("asking for flows"):
        answer, status = api.get("map", group=group, since=since), api.get("status")
    drawn = read_map(answer, status)
    picture = draw_svg(drawn, title) if svg is not None else ""
    if svg is not None:
        keep_others({svg: picture}, replace=yes)
    show(answer, output, lambda: _coloured(draw_text(drawn, console().width)))
    if not status["revision"]:
        hint("there is no policy yet, so everything passes; `cellwall policy suggest` proposes one")
    if svg is not None:
        rewrite(svg, picture)
        hint(f"drawn to {svg}")


def read_map(answer: Mapping[str, Any], status: Mapping[str, Any]) -> Map:
    """Read the controller's map and status.

    What is between two ends becomes an edge for each verdict that some of it got. Before there is a policy nothing
    could be judged by it: then all that passes is allowed. What only a link says to itself is left out."""
    keys: list[str] = answer["group"]
    advertised: list[str] = status["advertise"]
    controllers = {urlsplit(url).hostname for url in advertised}
    nodes = [node for node in answer["nodes"] if not _is_the_links_own(node)]
    edges = [edge for one in answer["edges"] for edge in _edges(one, judged=bool(status["revision"]))]
    return make_map((_group(node, keys, controllers) for node in nodes), _ranged(edges))


def _is_the_links_own(node: Mapping[str, Any]) -> bool:
    addresses = [parse_address(address) for address in node["addresses"]]
    return bool(addresses) and all(address.is_link_local for address in addresses)


def _group(node: Mapping[str, Any], keys: list[str], controllers: Collection[str | None]) -> Group:
    labels: dict[str, str] = node["labels"]
    names: list[str] = node["workloads"]
    if node["kind"] not in ("group", "workload"):
        ours = any(address in controllers for address in node["addresses"])
        return Group(node["id"], _OUTSIDE, "controller" if ours else node["id"].removeprefix("network:"))
    app = labels.get(keys[0], "") if keys else ""
    env = labels.get("env", "") if "env" in keys[1:] else ""
    rest = [labels[key] for key in keys[1:] if key != "env" and key in labels]
    panel = Panel(app or f"without {keys[0]}", env) if labels and keys else _UNLABELLED
    title = ", ".join(rest) or (names[0] if len(names) == 1 else app) or node["id"]
    return Group(node["id"], panel, title, len(names))


def _edges(one: Mapping[str, Any], *, judged: bool) -> Iterable[Edge]:
    would = one["would_deny"] if judged else 0
    counts = {Verdict.ALLOWED: one["allowed"] - would, Verdict.WOULD: would, Verdict.DENIED: one["denied"]}
    for verdict, count in counts.items():
        if count:
            yield Edge(one["source"], one["destination"], one["service"], count, verdict)


def _ranged(edges: Iterable[Edge]) -> Iterable[Edge]:
    """Draw many high ports between the same two ends, which a port mapper handed out, as the range that they span."""
    ports: dict[tuple[str, str, Verdict, str], list[tuple[int, Edge]]] = defaultdict(list)
    for edge in edges:
        protocol, _, port = edge.service.partition("/")
        if port.isdecimal() and int(port) >= _HANDED_OUT:
            ports[edge.source, edge.destination, edge.verdict, protocol].append((int(port), edge))
        else:
            yield edge
    for (source, destination, verdict, protocol), found in ports.items():
        if len(found) < _MANY_PORTS:
            yield from (edge for _, edge in found)
            continue
        service = f"{protocol}/{min(port for port, _ in found)}-{max(port for port, _ in found)}"
        yield Edge(source, destination, service, sum(edge.connections for _, edge in found), verdict)


def _coloured(lines: list[str]) -> Text:
    text = Text("\n".join(lines), no_wrap=True)
    for verdict, style in _STYLES.items():
        text.highlight_regex(re.escape(f"{verdict.glyph} {verdict}"), style)
    return text
