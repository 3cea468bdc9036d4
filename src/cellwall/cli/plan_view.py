"""What a change would do, as people see it: the points that change, and the connections that are cut or opened."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.output import cell, table

MOST_ROWS = 20


def draw_plan(answer: dict[str, Any]) -> RenderableType:
    """Draw a plan: points that change, rules that points cannot express, connections cut and opened."""
    summary = answer["summary"]
    changed = [one for one in answer["points"] if one["change"] != "none"]
    parts: list[RenderableType] = [
        Text(
            f"{len(changed)} of {len(answer['points'])} points change: {summary['refill']} rulesets, "
            f"{summary['elements']} only who is where"
        ),
        table(
            ["point", "change", "mode", "rules", "members", "elements#", "kernel#"],
            [
                [
                    one["workload"],
                    one["change"],
                    one["mode_after"]
                    if one["mode_before"] in (None, one["mode_after"])
                    else f"{one['mode_before']} → {one['mode_after']}",
                    f"+{len(one['rules_added'])} -{len(one['rules_removed'])} ~{len(one['rules_changed'])}",
                    f"+{one['members_joining']} -{one['members_leaving']}",
                    *_weighed(one.get("weight")),
                ]
                for one in changed
            ],
            "no point changes",
        ),
    ]
    if answer["refused"]:
        rows = [[one["workload"], one["rule"], one["reason"]] for one in answer["refused"]]
        parts += [
            Text("rules that cannot be expressed where they belong", style="red"),
            table(["point", "rule", "why"], rows),
        ]
    if cramped := answer.get("cramped"):
        rows = [[one["workload"], _mebibytes(one["peak_bytes"]), _mebibytes(one["room_bytes"])] for one in cramped]
        parts += [
            Text("points that would refuse it, as their hosts have not the memory to write it", style="red"),
            table(["point", "takes, MiB#", "host can give, MiB#"], rows[:MOST_ROWS]),
            *([Text(f"and {len(rows) - MOST_ROWS} more; see all with -o json")] if len(rows) > MOST_ROWS else ()),
            Text("free memory there, or raise `--most-memory` of their agents; or go round them with --accept-refused"),
        ]
    if told := draw_tolerance(answer.get("tolerate")):
        parts.append(Text(told))
    return Group(*parts, *([draw_replay(answer["replay"])] if answer["replay"] else []))


def draw_tolerance(tolerate: dict[str, str] | None) -> str:
    """Say how many points may stay behind; empty where none may."""
    if tolerate is None:
        return ""
    also = f", also canaries and guarded points that match `{tolerate['also']}`" if tolerate["also"] else ""
    points = tolerate["points"] if tolerate["points"].endswith("%") else f"{tolerate['points']} points"
    return f"up to {points} of each wave may stay behind{also}"


def _weighed(weight: dict[str, Any] | None) -> tuple[object, object]:
    """Give the elements of a table, and the kernel's memory for it."""
    return ("", "") if weight is None else (weight["elements"], f"{cell(weight['kernel_bytes'] >> 10)} KiB")


def _mebibytes(count: int) -> int:
    return -(-count >> 20)


def draw_replay(answer: dict[str, Any]) -> RenderableType:
    """Draw what a change does to the connections that were seen."""
    parts: list[RenderableType] = [
        Text(
            f"of {answer['checked']} distinct flows that were seen: {answer['cut_count']} would be cut "
            f"({answer['open_now_cut']} of them lately), {answer['opened_count']} opened, {answer['unknown']} unknown"
        )
    ]
    for word, style in (("cut", "red"), ("opened", "yellow")):
        rows = [[Text(word, style=style), *row] for row in _turned(answer[word])]
        if rows:
            heads = ["", "source", "destination", "service", "count#", "because"]
            parts.append(table(heads, rows[:MOST_ROWS]))
        if len(rows) > MOST_ROWS:
            parts.append(Text(f"and {len(rows) - MOST_ROWS} more are {word}; see all with -o json"))
    return Group(*parts)


def _turned(items: list[dict[str, Any]]) -> list[list[Any]]:
    """Add up the flows between the same two workloads: IPv4 and IPv6 are one row."""
    sums: dict[tuple[str, str, str, str], int] = defaultdict(int)
    for one in items:
        ends = [one[f"{end}_workload"] or one[end] for end in ("source", "destination")]
        sums[ends[0], ends[1], one["service"], ", ".join(one["rules"]) or "default"] += one["connections"]
    return [[source, to, service, count, why] for (source, to, service, why), count in sums.items()]
