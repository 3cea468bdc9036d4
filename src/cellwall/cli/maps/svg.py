"""The map as one SVG document that needs nothing else: it follows the reader's light or dark theme by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from xml.sax.saxutils import escape

from cellwall.cli.maps.graph import EVERYONE, Group, Map, Panel, Strand, Verdict, gather
from cellwall.cli.maps.layout import BOX_HEIGHT, MARGIN, NOTE_HEIGHT, Rect, lay_out
from cellwall.cli.maps.routes import Route, route

FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
_LIGHT = {
    "page": "#ffffff", "frame": "#f6f8fa", "rim": "#d1d9e0", "box": "#ffffff", "line": "#8c959f",
    "ink": "#1f2328", "soft": "#59636e", "pill": "#ffffff",
    "allowed": "#0a6c74", "would": "#9a5b00", "denied": "#c2212e",
}  # fmt: skip
_DARK = {
    "page": "#0d1117", "frame": "#151b23", "rim": "#2f3742", "box": "#212830", "line": "#656c76",
    "ink": "#f0f6fc", "soft": "#9198a1", "pill": "#0d1117",
    "allowed": "#56c2cc", "would": "#e8b04b", "denied": "#ff7b76",
}  # fmt: skip
_CLASS = {Verdict.ALLOWED: "allowed", Verdict.WOULD: "would", Verdict.DENIED: "denied"}
_SHORT = {Verdict.ALLOWED: "", Verdict.WOULD: " would deny", Verdict.DENIED: " denied"}
_DASH = {"allowed": "none", "would": "9 5", "denied": "2 4"}
_FOOT = 62.0


def draw_svg(drawn: Map, title: str = "Who talks to whom") -> str:
    """Draw a map. Equal maps give equal text. `title` heads the picture and names it to screen readers."""
    strands = gather(drawn)
    layout = lay_out(drawn, strands)
    routes = route(layout, strands)
    right = max([layout.width, *(one.label_at.right + MARGIN for one in routes), 720.0])
    height = layout.height + _FOOT
    told = _told(drawn)
    titles = {group.id: f"{group.panel} / {group.title}" for group in drawn.groups}
    notes = {group.id: [strand for strand in strands if strand.hub == group.id] for group in drawn.groups}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(right)} {_n(height)}" width="{_n(right)}" '
        f'height="{_n(height)}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(_described(drawn, told))}</desc>',
        f"<style>{_style()}</style>",
        _arrows(),
        f'<rect class="page" width="{_n(right)}" height="{_n(height)}"/>',
        f'<text class="title" x="{_n(MARGIN)}" y="44">{escape(title)}</text>',
        f'<text class="soft" x="{_n(MARGIN)}" y="66">{escape(told)}</text>',
        *(_frame(rect) for rect in layout.frames.values()),
        *(_line(one, titles) for one in sorted(routes, key=lambda one: list(Verdict).index(one.strand.verdict))),
        *(_box(group, layout.boxes[group.id], notes[group.id]) for group in drawn.groups),
        *(_head(panel, rect) for panel, rect in layout.frames.items()),
        *(_label(one) for one in routes),
        _legend(layout.height + 30),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _style() -> str:
    dark = _colours(_DARK)
    return (
        f"text{{font-family:{FONT};font-size:12px}}"
        ".title{font-size:20px;font-weight:600}.name{font-size:13.5px;font-weight:600}.head{font-size:13px;font-weight:600}"
        ".note{font-size:11px}.line{fill:none;stroke-linecap:round}.label text{text-anchor:middle;font-size:11.5px}"
        ".strand:hover .line{stroke-width:5}"
        + "".join(f".line.{name}{{stroke-dasharray:{dash}}}" for name, dash in _DASH.items())
        + _colours(_LIGHT)
        + f"@media (prefers-color-scheme:dark){{{dark}}}"
    )


def _colours(tone: dict[str, str]) -> str:
    return (
        f".page{{fill:{tone['page']}}}.frame{{fill:{tone['frame']};stroke:{tone['rim']}}}"
        f".box{{fill:{tone['box']};stroke:{tone['line']}}}.pill{{fill:{tone['pill']};fill-opacity:.92;stroke:{tone['rim']}}}"
        f".head{{paint-order:stroke;stroke:{tone['frame']};stroke-width:6px;stroke-linejoin:round}}"
        f".title,.name,.head{{fill:{tone['ink']}}}.soft{{fill:{tone['soft']}}}"
        + "".join(
            f".line.{name}{{stroke:{tone[name]}}}.tip.{name}{{fill:{tone[name]}}}.bar.{name}{{stroke:{tone[name]}}}"
            f".says.{name}{{fill:{tone[name]}}}"
            for name in _DASH
        )
    )


def _arrows() -> str:
    shapes = {
        "allowed": '<path class="tip allowed" d="M0 0L10 5L0 10z"/>',
        "would": '<path class="tip would" d="M0 0L10 5L0 10L3 5z"/>',
        "denied": '<path class="bar denied" d="M9 0V10M2 2L7 8M7 2L2 8" stroke-width="1.8" fill="none"/>',
    }
    return (
        "<defs>"
        + "".join(
            f'<marker id="end-{name}" viewBox="0 0 10 10" refX="9.5" refY="5" markerWidth="11" markerHeight="11" '
            f'markerUnits="userSpaceOnUse" orient="auto">{shape}</marker>'
            for name, shape in shapes.items()
        )
        + "</defs>"
    )


def _frame(rect: Rect) -> str:
    return f'<rect class="frame" {_xywh(rect)} rx="12"/>'


def _head(panel: Panel, rect: Rect) -> str:
    env = f' <tspan class="soft" font-weight="400">{escape(panel.env)}</tspan>' if panel.env else ""
    return f'<text class="head" x="{_n(rect.x + 16)}" y="{_n(rect.y + 25)}">{escape(_cut(panel.app, 40))}{env}</text>'


def _xywh(rect: Rect) -> str:
    return f'x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" height="{_n(rect.height)}"'


def _box(group: Group, rect: Rect, notes: list[Strand]) -> str:
    count = "outside the fleet" if not group.workloads else f"{group.workloads} workload{'s' * (group.workloads != 1)}"
    parts = [
        f"<g><title>{escape(f'{group.panel} / {group.title}: {count}')}</title>"
        f'<rect class="box" {_xywh(rect)} rx="8"/>'
        f'<text class="name" text-anchor="middle" x="{_n(rect.middle)}" y="{_n(rect.y + 21)}">'
        f"{escape(_cut(group.title, 20))}</text>"
        f'<text class="soft" text-anchor="middle" x="{_n(rect.middle)}" y="{_n(rect.y + 38)}">{count}</text>'
    ]
    for place, note in enumerate(notes):
        y = rect.y + BOX_HEIGHT + 9 + place * NOTE_HEIGHT
        word = "from" if note.source == EVERYONE else "to"
        services = note.loads[0].service if len(note.loads) == 1 else f"{len(note.loads)} ports"
        text = f"{services} {word} {max(load.of for load in note.loads)} groups"
        parts.append(
            f"<g><title>{escape(_hint(note, {group.id: str(group.panel) + ' / ' + group.title}))}</title>"
            f'<text class="note says {_CLASS[note.verdict]}" text-anchor="middle" x="{_n(rect.middle)}" y="{_n(y)}">'
            f"{escape(_cut(text + _SHORT[note.verdict], 33))}</text></g>"
        )
    return "".join(parts) + "</g>"


def _line(one: Route, titles: Mapping[str, str]) -> str:
    name = _CLASS[one.strand.verdict]
    path = f"M{_p(one.start)}" + "".join(f"C{_p(c.first)} {_p(c.second)} {_p(c.end)}" for c in one.curves)
    width = min(1.3 + 0.45 * math.log10(max(one.strand.connections, 1)), 4.0)
    return (
        f'<g class="strand"><title>{escape(_hint(one.strand, titles))}</title>'
        f'<path class="line {name}" d="{path}" stroke-width="{_n(width)}" marker-end="url(#end-{name})"/></g>'
    )


def _p(point: tuple[float, float]) -> str:
    return f"{_n(point[0])} {_n(point[1])}"


def _hint(strand: Strand, titles: Mapping[str, str]) -> str:
    source, destination = (
        str(end) if isinstance(end, Panel) else titles[end] for end in (strand.source, strand.destination)
    )
    loads = ", ".join(f"{load.service}: {load.connections} connections" for load in strand.loads)
    return f"{source} → {destination}: {loads}; {strand.verdict}"


def _label(one: Route) -> str:
    spot = one.label_at
    name = _CLASS[one.strand.verdict]
    return (
        f'<g class="label"><rect class="pill" {_xywh(spot)} rx="10"/>'
        f'<text class="says {name}" x="{_n(spot.middle)}" y="{_n(spot.y + 14)}">{escape(one.strand.label)}</text></g>'
    )


def _legend(y: float) -> str:
    said = {
        Verdict.ALLOWED: "allowed",
        Verdict.WOULD: "passes now, would be denied under full enforcement",
        Verdict.DENIED: "denied",
    }
    x, parts = MARGIN, list[str]()
    for verdict, text in said.items():
        name = _CLASS[verdict]
        parts.append(
            f'<path class="line {name}" d="M{_n(x)} {_n(y)}H{_n(x + 44)}" stroke-width="2" '
            f'marker-end="url(#end-{name})"/><text class="soft" x="{_n(x + 54)}" y="{_n(y + 4)}">{text}</text>'
        )
        x += 54 + len(text) * 6.4 + 34
    return "".join(parts)


def _told(drawn: Map) -> str:
    workloads = sum(group.workloads for group in drawn.groups)
    parts = [f"{workloads} workloads in {len(drawn.groups)} groups"]
    for verdict in Verdict:
        count = sum(edge.connections for edge in drawn.edges if edge.verdict is verdict)
        if count:
            parts.append(f"{count:,} connections {verdict}".replace(",", " "))
    return "  ·  ".join(parts)


def _described(drawn: Map, told: str) -> str:
    titles = {group.id: f"{group.panel} {group.title}" for group in drawn.groups}
    edges = "; ".join(
        f"{titles[edge.source]} to {titles[edge.destination]} over {edge.service}, {edge.verdict}"
        for edge in drawn.edges
    )
    return f"{told}. {edges or 'No flows'}."


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
