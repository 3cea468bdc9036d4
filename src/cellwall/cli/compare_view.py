"""How a comparison of two policies is shown: as lines for people, or as Markdown for a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.output import counted

MOST_LINES, MOST_SEEN, MOST_NAMES = 40, 20, 12


def draw(answer: dict[str, Any]) -> RenderableType:
    """Draw what differs, a line for each rule's worth of it."""
    parts: list[RenderableType] = [Text(f"{answer['a']} → {answer['b']}: {summary(answer)}", style="bold")]
    for sign, word, style in (("+", "opened", "green"), ("-", "closed", "red")):
        lines = answer[word]
        shown = lines[:MOST_LINES]
        parts += [Text.assemble((f"{sign} {sentence(line)}", style), (f"  {_by(line)}", "dim")) for line in shown]
        if len(lines) > MOST_LINES:
            parts.append(Text(f"  and {len(lines) - MOST_LINES} more {word}; see all with -o json"))
    parts += [Text(f"~ {_mode(one)}", style="yellow") for one in answer["modes"]]
    if answer["observed"] is not None:
        parts += [Text(line) for line in _observed(answer["observed"])]
    return Group(*parts)


def summary(answer: dict[str, Any]) -> str:
    """Say in one sentence how much differs."""
    if answer["same"]:
        return "the same meaning for this fleet"
    pairs, rules = answer["pairs"], answer["rules"]
    told = f"{counted(pairs['opened'], 'pair')} newly pass{'es' * (pairs['opened'] == 1)}, {pairs['closed']} no longer"
    counts = f"rules +{len(rules['added'])} -{len(rules['removed'])} ~{len(rules['changed'])}"
    modes = sum(len(one["workloads"]) for one in answer["modes"])
    changed = f"; {modes} workloads change mode" if modes else ""
    return f"{told} ({counts}){changed}" + ("; with modes as they are" if answer["assume"] == "modes" else "")


def sentence(line: dict[str, Any]) -> str:
    """Write one line as a rule."""
    named = f" as {' or '.join(line['as'])}" if line["as"] else ""
    served = f" as {' or '.join(line['served_as'])}" if line["served_as"] else ""
    shared = f" (same {', '.join(line['same'])})" if line["same"] else ""
    version = f" over IPv{line['ip']}" if line["ip"] else ""
    ends = f"from {line['from']}{named} to {line['to']}{served}{shared}"
    return f"allow {line['services']} {ends}{version}: {_count(line)}"


def _count(line: dict[str, Any]) -> str:
    sources, destinations = line["workloads"]
    return f"{sources or len(line['sources'])} → {destinations or len(line['destinations'])} " + (
        "workloads" if sources and destinations else "ends"
    )


def _by(line: dict[str, Any]) -> str:
    return ", ".join(f"{rule['action']} `{rule['id']}` {rule['place']}".rstrip() for rule in line["rules"])


def _mode(one: dict[str, Any]) -> str:
    count = len(one["workloads"])
    return f"mode of {one['where']}: {one['before'] or 'none'} → {one['after'] or 'none'} ({count} workloads)"


def _observed(told: dict[str, Any]) -> Iterator[str]:
    yield (
        f"of {told['checked']} distinct flows that were seen, {len(told['cut'])} would be cut, "
        f"{len(told['opened'])} opened" + ("" if told["complete"] else "; of the busiest only")
    )
    for word in ("cut", "opened"):
        counts: Counter[str] = Counter()
        for one in told[word]:
            # The same workloads over IPv4 and IPv6 are one line.
            ends = [one.get(f"{end}_workload") or one[end] for end in ("source", "destination")]
            counts[f"{ends[0]} → {ends[1]} {one['service']}"] += one["connections"]
        for flow, connections in list(counts.items())[:MOST_SEEN]:
            yield f"  {word}  {flow} ({counted(connections, 'connection')})"
        if len(counts) > MOST_SEEN:
            yield f"  and {len(counts) - MOST_SEEN} more are {word}"


def markdown(answer: dict[str, Any]) -> str:
    """Write a comparison for a pull request: a summary, a table, and the details folded away."""
    lines = [f"### Policy: {summary(answer)}", ""]
    rows = [(sign, line) for sign, word in (("➕", "opened"), ("➖", "closed")) for line in answer[word]]
    if rows:
        lines += ["| | service | from | to | workloads | by |", "| --- | --- | --- | --- | --- | --- |"]
        for sign, line in rows[:MOST_LINES]:
            shared = f"<br>same {', '.join(line['same'])}" if line["same"] else ""
            version = f"<br>IPv{line['ip']} only" if line["ip"] else ""
            cells = (
                sign,
                f"`{line['services']}`",
                _end(line["from"], line["as"]),
                _end(line["to"], line["served_as"]) + shared + version,
                _count(line),
                "<br>".join(f"{rule['action']} `{rule['id']}` {rule['place']}" for rule in line["rules"]),
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        if len(rows) > MOST_LINES:
            lines.append(f"\n… and {len(rows) - MOST_LINES} more.")
    lines += ["", *(f"- {_mode(one)}" for one in answer["modes"])] if answer["modes"] else []
    if answer["observed"] is not None:
        lines += ["", *(f"- {line.strip()}" for line in _observed(answer["observed"]))]
    if rows:
        lines += ["", "<details><summary>Who is meant</summary>", ""]
        for sign, line in rows[:MOST_LINES]:
            lines.append(f"- {sign} {sentence(line)}: {_named(line['sources'])} → {_named(line['destinations'])}")
        lines += ["", "</details>"]
    return "\n".join(lines)


def _named(names: list[str]) -> str:
    """Name so many that a comment on a pull request holds all lines (GitHub takes 65,536 characters)."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(f"`{name}`" for name in names[:MOST_NAMES]) + more


def _end(words: str, processes: list[str]) -> str:
    return f"`{words}`" + (f" as {' or '.join(processes)}" if processes else "")
