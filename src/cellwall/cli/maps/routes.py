"""How the lines of a map run: round the boxes and panels that they have nothing to do with, and where labels sit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

from cellwall.cli.maps.graph import Panel, Strand
from cellwall.cli.maps.layout import ROW_GAP, Layout, Rect

Point = tuple[float, float]
CLEAR, LANE = 14.0, 11.0
LABEL_HEIGHT, LETTER = 20.0, 6.7
_TRIES = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82, 0.12, 0.88)


class _Border(Enum):
    """Where on an end a line is fastened."""

    TOP = auto()
    BOTTOM = auto()
    LEFT = auto()
    RIGHT = auto()


@dataclass(frozen=True, slots=True)
class Cubic:
    """A Bézier curve from where the one before ended: two control points, and the end."""

    first: Point
    second: Point
    end: Point


@dataclass(frozen=True, slots=True)
class Route:
    """One line, from `start` along its curves, and the pill that holds its label."""

    strand: Strand
    start: Point
    curves: tuple[Cubic, ...]
    label_at: Rect


def route(layout: Layout, strands: Iterable[Strand]) -> tuple[Route, ...]:
    """Find a way for every strand that is not a note, the short ones first, and a free place for its label."""
    drawn = [strand for strand in strands if strand.hub is None]
    ordered = sorted(drawn, key=lambda one: (_length(layout, one), str(one.source), str(one.destination), one.verdict))
    borders = [_borders(layout, strand) for strand in ordered]
    ports = _ports(layout, ordered, borders)
    lanes: dict[float, list[float]] = defaultdict(list)
    taken: list[Rect] = [*layout.boxes.values()]
    taken += [Rect(frame.x, frame.y, frame.width, 30) for frame in layout.frames.values()]
    loops: dict[str | Panel, int] = defaultdict(int)
    routes: list[Route] = []
    for place, strand in enumerate(ordered):
        start, end = ports[place, True], ports[place, False]
        sides = borders[place]
        if strand.source == strand.destination:
            loops[strand.source] += 1
            curves = _loop(layout.rect(strand.source), loops[strand.source])
            start = (layout.rect(strand.source).right, curves[0].first[1])
        elif sides == (_Border.BOTTOM, _Border.BOTTOM):
            deep = max(start[1], end[1]) + ROW_GAP * 0.7
            curves = (Cubic((start[0], deep), (end[0], deep), end),)
        elif sides[0] in (_Border.LEFT, _Border.RIGHT):
            half = (start[0] + end[0]) / 2
            curves = (Cubic((half, start[1]), (half, end[1]), end),)
        else:
            curves = _upright(_way(layout, strand, start, end, lanes))
        spot = _spot(_places(start, curves), len(strand.label) * LETTER + 16, taken)
        taken.append(spot)
        routes.append(Route(strand, start, curves, spot))
    return tuple(routes)


def _length(layout: Layout, strand: Strand) -> float:
    one, other = layout.rect(strand.source), layout.rect(strand.destination)
    return abs(one.y - other.y) * 4 + abs(one.middle - other.middle)


def _borders(layout: Layout, strand: Strand) -> tuple[_Border, _Border]:
    one, other = layout.rect(strand.source), layout.rect(strand.destination)
    if one.bottom <= other.y:
        return _Border.BOTTOM, _Border.TOP
    if other.bottom <= one.y:
        return _Border.TOP, _Border.BOTTOM
    both_boxes = isinstance(strand.source, str) and isinstance(strand.destination, str)
    if both_boxes and one.y == other.y:
        return _Border.BOTTOM, _Border.BOTTOM
    return (_Border.RIGHT, _Border.LEFT) if one.middle < other.middle else (_Border.LEFT, _Border.RIGHT)


def _ports(
    layout: Layout, strands: Sequence[Strand], borders: Sequence[tuple[_Border, _Border]]
) -> Mapping[tuple[int, bool], Point]:
    """Spread the lines over the borders of their ends, in the order of where they go.

    Keys are the place of a strand in `strands`, and whether its source is meant."""
    fastened: dict[tuple[str | Panel, _Border], list[tuple[float, int, bool]]] = defaultdict(list)
    for place, (strand, (leaves, reaches)) in enumerate(zip(strands, borders, strict=True)):
        one, other = layout.rect(strand.source), layout.rect(strand.destination)
        upright = leaves in (_Border.TOP, _Border.BOTTOM)
        goals = (other.middle, one.middle) if upright else (other.center, one.center)
        fastened[strand.source, leaves].append((goals[0], place, True))
        fastened[strand.destination, reaches].append((goals[1], place, False))
    found: dict[tuple[int, bool], Point] = {}
    for (end, border), lines in fastened.items():
        rect = layout.rect(end)
        lines.sort(key=lambda line: (line[0], line[2], line[1]))
        upright = border in (_Border.TOP, _Border.BOTTOM)
        first, last = (rect.x + 14, rect.right - 14) if upright else (rect.y + 8, rect.bottom - 8)
        goals = [line[0] for line in lines] if isinstance(end, Panel) else None
        for (_, place, is_source), at in zip(lines, _spread(first, last, len(lines), goals), strict=True):
            if upright:
                found[place, is_source] = (at, rect.y if border is _Border.TOP else rect.bottom)
            else:
                found[place, is_source] = (rect.x if border is _Border.LEFT else rect.right, at)
    return found


def _spread(first: float, last: float, count: int, goals: list[float] | None) -> list[float]:
    """Give `count` places between `first` and `last`: around the middle, or each near its goal."""
    step = min(26.0, (last - first) / max(count - 1, 1))
    if goals is None:
        start = (first + last) / 2 - step * (count - 1) / 2
        return [start + step * place for place in range(count)]
    places: list[float] = []
    for place, goal in enumerate(goals):
        low = places[-1] + step if places else first
        places.append(min(max(goal, low), last - step * (count - 1 - place)))
    return places


def _loop(rect: Rect, nth: int) -> tuple[Cubic, ...]:
    """Draw a way back to the same box, the `nth` outside the one before it."""
    high, low, out = rect.y + 22 - 7 * nth, rect.bottom - 22 + 7 * nth, rect.right + 8 + 22 * nth
    return (Cubic((out, high), (out, low), (rect.right, low)),)


def _upright(points: list[Point]) -> tuple[Cubic, ...]:
    """Join points by curves that leave and reach each of them vertically."""
    curves: list[Cubic] = []
    for one, other in pairwise(points):
        half = (one[1] + other[1]) / 2
        curves.append(Cubic((one[0], half), (other[0], half), other))
    return tuple(curves)


def _way(layout: Layout, strand: Strand, start: Point, end: Point, lanes: dict[float, list[float]]) -> list[Point]:
    down = start[1] <= end[1]
    high, low = (start, end) if down else (end, start)
    x = high[0]
    points = [high]
    own = {layout.panel(strand.source), layout.panel(strand.destination)}
    for top, bottom in layout.rows:
        if top < high[1] or bottom > low[1]:
            continue
        blocked = _blocked(layout, own, Rect(0, top, layout.width, bottom - top))
        x = _free(x, low[0], blocked, lanes[top], layout.width)
        lanes[top].append(x)
        points += [(x, top - CLEAR), (x, bottom + CLEAR)]
    points.append(low)
    return points if down else points[::-1]


def _blocked(layout: Layout, own: set[Panel], row: Rect) -> list[tuple[float, float]]:
    """Give what a line may not cross at the height of `row`: boxes of its own panels, and other panels whole."""
    obstacles = [frame for panel, frame in layout.frames.items() if panel not in own and frame.touches(row)]
    obstacles += [box for group, box in layout.boxes.items() if layout.panel_of[group] in own and box.touches(row)]
    return sorted((box.x - CLEAR, box.right + CLEAR) for box in obstacles)


def _free(x: float, goal: float, blocked: list[tuple[float, float]], used: list[float], width: float) -> float:
    """Choose where to pass a row: near the straight way, through nothing, and not on top of another line."""
    wanted = [x, goal, (x + goal) / 2]
    for left, right in blocked:
        wanted += [side for lane in range(6) for side in (left - lane * LANE, right + lane * LANE)]

    def cost(at: float) -> tuple[bool, float, float]:
        inside = any(left < at < right for left, right in blocked) or not 8 < at < width - 8
        crowd = sum(40 for other in used if abs(other - at) < LANE - 1)
        return inside, abs(at - x) + abs(at - goal) + crowd, at

    return min(wanted, key=cost)


def _places(start: Point, curves: tuple[Cubic, ...]) -> list[tuple[Point, bool]]:
    """Give where a label may stand, the best place first; whether it is to begin there, or to have its middle there."""
    line = _sampled(start, curves)
    if len(curves) == 1 and start[0] == curves[0].end[0] and curves[0].first[0] == curves[0].second[0] > start[0]:
        x, y = line[len(line) // 2]
        return [((x - 5, y), True), ((x - 18, y - 34), True), ((x - 18, y + 34), True)]
    return [(line[int(share * (len(line) - 1))], False) for share in _TRIES]


def _spot(places: list[tuple[Point, bool]], width: float, taken: list[Rect]) -> Rect:
    """Choose where a label covers nothing else, or else the least."""
    best, least = None, 0.0
    for (x, y), begins in places:
        left = x if begins else max(x - width / 2, 8.0)
        spot = Rect(left, y - LABEL_HEIGHT / 2, width, LABEL_HEIGHT)
        bad = sum(_overlap(spot, other) for other in taken if spot.touches(other, 4))
        if best is None or bad < least:
            best, least = spot, bad
        if not bad:
            break
    assert best is not None
    return best


def _overlap(one: Rect, other: Rect) -> float:
    wide = min(one.right, other.right) - max(one.x, other.x)
    high = min(one.bottom, other.bottom) - max(one.y, other.y)
    return max(wide + 4, 1.0) * max(high + 4, 1.0)


def _sampled(start: Point, curves: tuple[Cubic, ...], step: float = 6.0) -> list[Point]:
    """Give points along a line, some `step` pixels apart."""
    found: list[Point] = []
    one = start
    for curve in curves:
        (ax, ay), (bx, by), (ex, ey) = curve.first, curve.second, curve.end
        count = max(int((abs(ey - one[1]) + abs(ex - one[0]) / 2 + abs(ay - one[1])) / step), 1)
        for place in range(count):
            t = place / count
            s = 1 - t
            found.append(
                (
                    s**3 * one[0] + 3 * s * s * t * ax + 3 * s * t * t * bx + t**3 * ex,
                    s**3 * one[1] + 3 * s * s * t * ay + 3 * s * t * t * by + t**3 * ey,
                )
            )
        one = curve.end
    return [*found, one]
