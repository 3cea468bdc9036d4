"""A plan on a terminal: what each table takes, and which hosts have not the memory for it."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from cellwall.cli.plan_view import MOST_ROWS, draw_plan

MIB = 1 << 20


def point(name: str, **more: Any) -> dict[str, Any]:
    return {
        "workload": name, "change": "refill", "mode_before": None, "mode_after": "enforce", "rules_added": [],
        "rules_removed": [], "rules_changed": [], "members_joining": 1, "members_leaving": 0, "misfits": [],
        **more,
    }  # fmt: skip


def drawn(points: list[dict[str, Any]], **more: Any) -> str:
    console = Console(width=140, color_system=None)
    with console.capture() as said:
        answer = {"summary": {"refill": 1, "elements": 0}, "points": points, "refused": [], "replay": None, **more}
        console.print(draw_plan(answer))
    return said.get()


def test_a_plan_shows_elements_and_the_kernels_memory() -> None:
    weight = {"elements": 4321, "kernel_bytes": 2 * MIB, "peak_bytes": 30 * MIB, "room_bytes": 500 * MIB}
    text = drawn([point("web-1", weight=weight)], cramped=[])
    assert "4 321" in text and "2 048" in text and "would refuse" not in text


def test_points_that_would_refuse_are_listed_with_figures_and_whose_move_it_is() -> None:
    short = {"workload": "db-1", "reason": "", "peak_bytes": 20 * MIB - 1, "room_bytes": 16 * MIB}
    text = drawn([point("db-1")], cramped=[short] * (MOST_ROWS + 2))
    assert "points that would refuse it" in text and "and 2 more" in text
    assert "raise `--most-memory` of their agents" in text
    assert next(line.split() for line in text.splitlines() if line.startswith("db-1") and "20" in line)[-2:] == [
        "20",
        "16",
    ]


def test_a_plan_of_an_older_controller_is_drawn_without() -> None:
    assert "web-1" in drawn([point("web-1")])
