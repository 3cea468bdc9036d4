"""A chart as SVG: x logarithmic, y from nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 340, 56, 16, 40, 78
STYLES = (("#1f6feb", "circle"), ("#8250df", "square"), ("#cf222e", "diamond"))
INK, GRID = "#57606a", "#d0d7de"


@dataclass(frozen=True, slots=True)
class Line:
    """A series of points: x, y, and the least and the most that y was."""

    name: str
    points: tuple[tuple[float, float, float, float], ...]


def chart(title: str, x_name: str, lines: Iterable[Line]) -> str:
    """Draw `lines`, told apart by colour and by shape."""
    series = list(lines)
    xs = sorted({x for line in series for x, *_ in line.points})
    top = max(1.0, *(high for line in series for *_, high in line.points)) * 1.05
    first, last = math.log10(xs[0]), math.log10(xs[-1])

    def across(x: float) -> float:
        return LEFT + 16 + (math.log10(x) - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT - 32)

    def down(y: float) -> float:
        return TOP + (1 - y / top) * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" fill="#1f2328">{escape(title)}</text>',
    ]
    for step in range(int(top * 4) + 1):
        y = down(step / 4)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{step / 4:.2f}</text>')
    under = HEIGHT - BOTTOM + 18
    out += [f'<text x="{across(x):.1f}" y="{under}" text-anchor="middle">{x:,.0f}</text>' for x in xs]
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - BOTTOM + 36}" text-anchor="middle">{escape(x_name)}</text>')
    for number, line in enumerate(series):
        out += _line(line, number, across, down)
        at = LEFT + 8 + number * 190
        out.append(_shape(STYLES[number % 3], at, HEIGHT - 16))
        out.append(f'<text x="{at + 10}" y="{HEIGHT - 12}">{escape(line.name)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _line(line: Line, number: int, across: Callable[[float], float], down: Callable[[float], float]) -> list[str]:
    colour = STYLES[number % 3][0]
    path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y, _, _ in line.points)
    out = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for x, y, low, high in line.points:
        # Each series a little aside, so that the bars of its spread do not lie on each other.
        at = across(x) + (number - 1) * 5
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{down(low):.1f}" y2="{down(high):.1f}" stroke="{colour}"/>')
        out.append(_shape(STYLES[number % 3], across(x), down(y)))
    return out


def _shape(style: tuple[str, str], x: float, y: float) -> str:
    colour, shape = style
    match shape:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
        case "square":
            return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" fill="{colour}"/>'
        case _:
            return f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z" fill="{colour}"/>'
