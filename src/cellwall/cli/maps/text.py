"""The map as lines of text: source, service, destination, how often, and the verdict in a sign and a word."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from cellwall.cli.maps.graph import EVERYONE, Group, Load, Map, Panel, Strand, Verdict, gather

NARROWEST, MOST_SERVICES = 80, 4
_ARROW, _GAP = " ─▶ ", "  "


@dataclass(frozen=True, slots=True)
class _Row:
    panel: Panel
    source: str
    service: str
    destination: str
    count: str
    verdict: str


def draw_text(drawn: Map, width: int = 100) -> list[str]:
    """Draw a map as lines of at most `width` characters (80 at least), one block a panel."""
    if not drawn.groups:
        return ["nothing has been seen yet"]
    rows = [row for strand in gather(drawn) for row in _rows(drawn, strand)]
    rows.sort(key=lambda row: (row.panel, row.source.startswith("("), row.source, row.destination, row.service))
    widths = _widths(rows, max(width, NARROWEST))
    lines: list[str] = []
    blocks: dict[Panel, list[_Row]] = defaultdict(list)
    for row in rows:
        blocks[row.panel].append(row)
    for panel, groups in drawn.panels.items():
        members = ", ".join(_sized(group) for group in groups)
        if lines:
            lines.append("")
        lines += _wrapped(f"{panel}: ", members, max(width, NARROWEST))
        before = ""
        for row in blocks[panel]:
            lines.append(_line(row, widths, shown="" if row.source == before else row.source))
            before = row.source
    return [*lines, "", _sum(drawn)]


def _sized(group: Group) -> str:
    return f"{group.title} ×{group.workloads}" if group.workloads else group.title


def _rows(drawn: Map, strand: Strand) -> list[_Row]:
    """Give a row for each service, or one for all of them where they are many, as after a scan."""
    if len(strand.loads) <= MOST_SERVICES:
        return [_row(drawn, strand, load) for load in strand.loads]
    busiest, *more = strand.loads
    whole = Load(f"{busiest.service} +{len(more)} more", strand.connections, max(load.of for load in strand.loads))
    return [_row(drawn, strand, whole)]


def _row(drawn: Map, strand: Strand, load: Load) -> _Row:
    home = strand.hub or (strand.destination if isinstance(strand.source, Panel) else strand.source)
    panel = strand.source if isinstance(strand.source, Panel) and not strand.hub else _panel_of(drawn, home)
    verdict = f"{strand.verdict.glyph} {strand.verdict}"
    count = f"{load.connections:,}".replace(",", " ")
    source, destination = (_end(drawn, end, panel, load.of) for end in (strand.source, strand.destination))
    return _Row(panel, source, load.service, destination, count, verdict)


def _panel_of(drawn: Map, end: str | Panel) -> Panel:
    return end if isinstance(end, Panel) else next(group.panel for group in drawn.groups if group.id == end)


def _end(drawn: Map, end: str | Panel, home: Panel, of: int) -> str:
    if end == EVERYONE:
        return f"({of} groups)"
    if isinstance(end, Panel):
        size = f"({of} of {len(drawn.panels[end])})"
        return size if end == home else f"{end} {size}"
    group = next(group for group in drawn.groups if group.id == end)
    return group.title if group.panel == home else f"{group.panel} / {group.title}"


def _widths(rows: list[_Row], width: int) -> tuple[int, int, int, int]:
    """Give the widths of source, service, destination and count: what they need, names cut where that is too much."""
    source, service, destination, count = (
        max((len(text) for text in column), default=0)
        for column in (
            [row.source for row in rows],
            [row.service for row in rows],
            [row.destination for row in rows],
            [row.count for row in rows],
        )
    )
    verdict = max(len(f"{one.glyph} {one}") for one in Verdict)
    service = min(service, 24)
    room = width - len(_GAP) * 4 - len(_ARROW) - service - count - verdict
    if source + destination > room:
        source = min(source, max(12, room * 2 // 5))
        destination = max(12, room - source)
    return source, service, destination, count


def _line(row: _Row, widths: tuple[int, int, int, int], shown: str) -> str:
    source, service, destination, count = widths
    return (
        f"{_GAP}{_cut(shown, source):<{source}}{_GAP}{_cut(row.service, service):<{service}}{_ARROW}"
        f"{_cut(row.destination, destination):<{destination}}{_GAP}{row.count:>{count}}{_GAP}{row.verdict}"
    ).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _wrapped(head: str, text: str, width: int) -> list[str]:
    lines: list[str] = []
    line = head
    for word in text.split(", "):
        if len(line) + len(word) + 2 > width and line.strip() and line != head:
            lines.append(line.rstrip())
            line = " " * len(head)
        line += f"{word}, "
    return [*lines, line.removesuffix(", ")]


def _sum(drawn: Map) -> str:
    counts = {one: sum(edge.connections for edge in drawn.edges if edge.verdict is one) for one in Verdict}
    told = ", ".join(f"{count:,} {one}".replace(",", " ") for one, count in counts.items() if count)
    workloads = sum(group.workloads for group in drawn.groups)
    return f"{workloads} workloads in {len(drawn.groups)} groups; connections: {told or 'none'}"
