"""Where the boxes and frames of a map stand: panels in bands, groups in rows, each above what it calls.

Both levels are layered alike: cycles are broken where that costs least, then the longest path gives the layer, then
the barycentres of neighbours give the order from left to right. Nothing is random, so equal maps give equal pictures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cellwall.cli.maps.graph import Group, Map, Panel, Strand, Verdict

BOX_WIDTH, BOX_HEIGHT, NOTE_HEIGHT = 180.0, 48.0, 17.0
BOX_GAP, ROW_GAP = 44.0, 84.0
PAD, HEAD = 26.0, 46.0
PANEL_GAP, BAND_GAP = 64.0, 124.0
MARGIN, TOP = 40.0, 96.0
MOST_IN_ROW = 5
WIDEST_BAND = 2200.0

Node = TypeVar("Node", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle in pixels, y downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right border."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The lower border."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """The middle, from left to right."""
        return self.x + self.width / 2

    @property
    def center(self) -> float:
        """The middle, from top to bottom."""
        return self.y + self.height / 2

    def touches(self, other: Rect, pad: float = 0.0) -> bool:
        """Say whether the two overlap, or come closer than `pad`."""
        return (
            self.x < other.right + pad
            and other.x < self.right + pad
            and self.y < other.bottom + pad
            and other.y < self.bottom + pad
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands. Groups are keyed by id; `rows` are the upper and lower borders of rows of boxes."""

    boxes: Mapping[str, Rect]
    frames: Mapping[Panel, Rect]
    rows: tuple[tuple[float, float], ...]
    panel_of: Mapping[str, Panel]
    width: float
    height: float

    def rect(self, end: str | Panel) -> Rect:
        """Give where the end of a strand stands."""
        return self.frames[end] if isinstance(end, Panel) else self.boxes[end]

    def panel(self, end: str | Panel) -> Panel:
        """Give the panel that the end of a strand is, or is in."""
        return end if isinstance(end, Panel) else self.panel_of[end]


def lay_out(drawn: Map, strands: Iterable[Strand]) -> Layout:
    """Place every group and panel of a map whose edges were gathered into `strands`.

    Only what is allowed says who stands above whom: an attacker's attempts do not rearrange the picture."""
    panel_of = {group.id: group.panel for group in drawn.groups}
    inner: dict[Panel, dict[tuple[str, str], int]] = defaultdict(lambda: defaultdict(int))
    outer: dict[tuple[Panel, Panel], int] = defaultdict(int)
    notes: dict[str, int] = defaultdict(int)
    for strand in strands:
        source, destination = strand.source, strand.destination
        if strand.hub is not None:
            notes[strand.hub] += 1
            continue
        if strand.verdict is not Verdict.ALLOWED:
            continue
        first = source if isinstance(source, Panel) else panel_of[source]
        last = destination if isinstance(destination, Panel) else panel_of[destination]
        if first != last:
            outer[first, last] += 1
        elif isinstance(source, str) and isinstance(destination, str) and source != destination:
            inner[first][source, destination] += 1
    insides = {panel: _inside(groups, inner[panel]) for panel, groups in drawn.panels.items()}
    widths = {panel: _width(rows) for panel, rows in insides.items()}
    return _place(_bands(rows_of(list(drawn.panels), outer), widths), insides, widths, panel_of, notes)


def _inside(groups: tuple[Group, ...], edges: Mapping[tuple[str, str], int]) -> list[list[str]]:
    rows = rows_of([group.id for group in groups], edges)
    return [row[at : at + MOST_IN_ROW] for row in rows for at in range(0, len(row), MOST_IN_ROW)]


def _width(rows: list[list[str]]) -> float:
    most = max(len(row) for row in rows)
    return most * BOX_WIDTH + (most - 1) * BOX_GAP + 2 * PAD


def _bands(rows: list[list[Panel]], widths: Mapping[Panel, float]) -> list[list[Panel]]:
    """Break a band that would be wider than a screen can be scrolled with pleasure."""
    bands: list[list[Panel]] = []
    for row in rows:
        band: list[Panel] = []
        for panel in row:
            if band and _span([*band, panel], widths) > WIDEST_BAND:
                bands.append(band)
                band = []
            band.append(panel)
        bands.append(band)
    return bands


def _span(band: list[Panel], widths: Mapping[Panel, float]) -> float:
    return sum(widths[panel] for panel in band) + PANEL_GAP * (len(band) - 1)


def _place(
    bands: list[list[Panel]],
    insides: Mapping[Panel, list[list[str]]],
    widths: Mapping[Panel, float],
    panel_of: Mapping[str, Panel],
    notes: Mapping[str, int],
) -> Layout:
    boxes: dict[str, Rect] = {}
    frames: dict[Panel, Rect] = {}
    lines: list[tuple[float, float]] = []
    widest = max((_span(band, widths) for band in bands), default=480.0)
    y = TOP
    for band in bands:
        start = y
        y += HEAD
        ends: dict[Panel, float] = {}
        for place in range(max(len(insides[panel]) for panel in band)):
            rows = {panel: insides[panel][place] for panel in band if place < len(insides[panel])}
            most = max(notes.get(group, 0) for row in rows.values() for group in row)
            for panel, row in rows.items():
                left = _left(panel, band, widths, widest)
                used = len(row) * BOX_WIDTH + (len(row) - 1) * BOX_GAP
                for at, group in enumerate(row):
                    x = left + (widths[panel] - used) / 2 + at * (BOX_WIDTH + BOX_GAP)
                    noted = notes.get(group, 0)
                    height = BOX_HEIGHT + NOTE_HEIGHT * noted + (4 if noted else 0)
                    boxes[group] = Rect(x, y, BOX_WIDTH, height)
                    ends[panel] = max(ends.get(panel, 0.0), y + height)
            lines.append((y, y + BOX_HEIGHT + NOTE_HEIGHT * most + (4 if most else 0)))
            y = lines[-1][1] + ROW_GAP
        for panel in band:
            frames[panel] = Rect(_left(panel, band, widths, widest), start, widths[panel], ends[panel] + PAD - start)
        y += PAD + BAND_GAP - ROW_GAP
    return Layout(boxes, frames, tuple(lines), panel_of, widest + 2 * MARGIN, y - (BAND_GAP if bands else 0))


def _left(panel: Panel, band: list[Panel], widths: Mapping[Panel, float], widest: float) -> float:
    before = band[: band.index(panel)]
    return MARGIN + (widest - _span(band, widths)) / 2 + sum(widths[one] + PANEL_GAP for one in before)


def rows_of(nodes: list[Node], edges: Mapping[tuple[Node, Node], int]) -> list[list[Node]]:
    """Put nodes into rows so that edges run downwards, but for those that close a cycle; then order each row."""
    rank = {node: place for place, node in enumerate(_acyclic_order(nodes, edges))}
    below: dict[Node, set[Node]] = defaultdict(set)
    above: dict[Node, set[Node]] = defaultdict(set)
    for one, other in edges:
        first, last = (one, other) if rank[one] < rank[other] else (other, one)
        below[first].add(last)
        above[last].add(first)
    layer: dict[Node, int] = {}
    for node in sorted(nodes, key=lambda node: rank[node]):
        layer[node] = max((layer[parent] + 1 for parent in above[node]), default=0)
    for node in sorted(nodes, key=lambda node: -rank[node]):
        if not above[node] and below[node]:
            layer[node] = min(layer[child] for child in below[node]) - 1
    rows: list[list[Node]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node in nodes:
        rows[layer[node]].append(node)
    return _ordered(rows, above, below)


def _acyclic_order(nodes: list[Node], edges: Mapping[tuple[Node, Node], int]) -> list[Node]:
    """Order nodes so that few edges run backwards (Eades, Lin, Smyth: A fast effective heuristic for feedback arcs)."""
    left: list[Node] = []
    right: list[Node] = []
    rest = list(nodes)
    while rest:
        inside = set(rest)
        coming: dict[Node, int] = dict.fromkeys(rest, 0)
        going: dict[Node, int] = dict.fromkeys(rest, 0)
        for (one, other), weight in edges.items():
            if one in inside and other in inside:
                going[one] += weight
                coming[other] += weight
        sink = next((node for node in rest if not going[node]), None)
        source = next((node for node in rest if not coming[node]), None)
        if sink is not None:
            right.append(sink)
            rest.remove(sink)
        else:
            # max() takes the first of equals, and `nodes` come sorted: the same order every time.
            node = source if source is not None else max(rest, key=lambda one: going[one] - coming[one])
            left.append(node)
            rest.remove(node)
    return [*left, *reversed(right)]


def _ordered(
    rows: list[list[Node]], above: Mapping[Node, set[Node]], below: Mapping[Node, set[Node]]
) -> list[list[Node]]:
    at: dict[Node, float] = {}
    for row in rows:
        at.update({node: place - (len(row) - 1) / 2 for place, node in enumerate(row)})
    for sweep in range(6):
        neighbours = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            where = {
                node: sum(at[near] for near in neighbours[node]) / len(neighbours[node])
                if neighbours[node]
                else at[node]
                for node in row
            }
            row.sort(key=lambda node: where[node])
            at.update({node: place - (len(row) - 1) / 2 for place, node in enumerate(row)})
    return rows
