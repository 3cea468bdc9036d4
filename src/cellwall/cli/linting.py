"""What `cellwall policy lint` reads beside documents, how its findings are drawn, and how they are mended."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.documents import fleet_of, policy_of, read_fleet
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.files import rewrite
from cellwall.cli.ground import or_files
from cellwall.cli.output import counted
from cellwall.cli.where import controller
from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.inventory import Fleet
from cellwall.traffic import CellwallError, parse_address

if TYPE_CHECKING:
    from cellwall.analysis import Check, Finding, Observed
    from cellwall.policy import Policy

Json = dict[str, Any]
MOST_ALIKE = 5
_STYLES = {"error": "red", "warning": "yellow", "info": "cyan"}
_AGO = re.compile(r"(\d+)([smhdw])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def surroundings(
    fleet: Path | None, flows: Path | None, since: str | None, socket: Path | None, now: float
) -> tuple[Fleet | None, Observed | None]:
    """Give the fleet and the flows that documents are held against: from files, else from the controller when
    flows are asked for; None for what is not."""
    from cellwall.analysis import Observed

    known = read_fleet(fleet) if fleet else None
    if flows is None and since is None:
        return known, None
    start = now - _ago(since) if since else 0.0
    if known is None:
        known = fleet_of({"items": list(or_files(socket, "--fleet and --flows").items("workloads"))})
    items: Iterable[Json] = _flow_items(flows) if flows else controller(socket).items("flows", since=since, limit=10000)
    try:
        records = tuple(record for item in items for record in _records(item))
    except (CellwallError, KeyError, TypeError, ValueError, AttributeError) as error:
        where = f"{flows}: " if flows else ""
        raise Stop(Exit.DOCUMENT, f"{where}not flows: {error}; write them with `cellwall flows -o json`") from None
    return known, Observed(records, start)


def _ago(text: str) -> float:
    found = _AGO.fullmatch(text)
    if found is None:
        raise Stop(Exit.USAGE, f"`{text}` is not a span of time; wanted such as `12h` or `30d`")
    return float(found[1]) * _SECONDS[found[2]]


def _flow_items(path: Path) -> list[Json]:
    try:
        answer = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Stop(Exit.DOCUMENT, f"{path}: {(error.strerror or 'unreadable').lower()}") from None
    except ValueError:
        raise Stop(Exit.DOCUMENT, f"{path}: not JSON; write it with `cellwall flows -o json`") from None
    items = cast("Json", answer).get("items") if isinstance(answer, dict) else answer
    if not isinstance(items, list):
        raise Stop(Exit.DOCUMENT, f"{path}: wanted `items`, a list, as `cellwall flows -o json` writes it")
    return cast("list[Json]", items)


def _records(item: Json) -> Iterable[FlowRecord]:
    key = FlowKey(
        parse_address(item["source"]), parse_address(item["destination"]), int(item["protocol"]), int(item["port"])
    )
    for side in Side:
        if (end := item[side]) is not None:
            yield FlowRecord(
                key,
                str(end["reporter"]),
                side,
                Outcome(end["outcome"]),
                Outcome(end["would"]),
                tuple(end["rules"]),
                int(end["revision"]),
                int(end["connections"]),
                float(end["first_seen"]),
                float(end["last_seen"]),
                process=Process(**end["process"]),
            )


def wanted_checks(names: Iterable[str]) -> frozenset[Check]:
    """Read the names of checks; all of them where none is named."""
    from cellwall.analysis import Check

    known = {check.value: check for check in Check}
    for name in names:
        if name not in known:
            raise Stop(Exit.USAGE, f"there is no check `{name}`; known are `{'`, `'.join(known)}`")
    return frozenset(known[name] for name in names) or frozenset(Check)


def mended(
    documents: dict[str, str], policy: Policy, findings: Iterable[Finding], named: frozenset[Check], now: float
) -> dict[str, str]:
    """Make the edits that keep every verdict, and those of the checks that were `named`, and give all documents.

    A rule that is wrong rather than too much is edited only where its check is named: its author meant something. What
    comes out is read again, and, where every edit keeps verdicts, proven to mean the same."""
    from cellwall.analysis import Severity, apply_edits, told_apart

    chosen = [
        one
        for one in findings
        if one.edits and (one.check in named or (one.check.keeps_meaning and one.severity is not Severity.ERROR))
    ]
    changed = apply_edits(documents, [edit for one in chosen for edit in one.edits])
    fresh = policy_of(changed)
    if all(one.check.keeps_meaning for one in chosen):
        prove_same(policy, fresh, now, told_apart(policy, fresh, now))
    return changed


def prove_same(policy: Policy, fresh: Policy, now: float, shown: Iterable[Any]) -> None:
    """Stop unless there is no flow by which two policies can be told apart."""
    for example in shown:
        raise Stop(Exit.UNABLE, f"a mistake in cellwall: the edits change what becomes of {example.words}")


def unchosen(findings: Iterable[Finding], named: frozenset[Check]) -> list[str]:
    """Give the checks whose edits are made only where they are named: they may change what passes."""
    from cellwall.analysis import Severity

    left = {
        one.check.value
        for one in findings
        if one.edits and one.check not in named and (not one.check.keeps_meaning or one.severity is Severity.ERROR)
    }
    return sorted(left)


def write_changed(before: Mapping[str, str], after: Mapping[str, str]) -> int:
    """Write the documents that changed to where they were read, and count them."""
    changed = [name for name, text in after.items() if before[name] != text]
    for name in changed:
        rewrite(Path(name), after[name], like=Path(name))
    return len(changed)


def draw_findings(answer: Json, every: bool) -> RenderableType:
    """Draw the findings as compilers do, place first, then the counts; of many that are good to know and alike,
    unless `every`, the first few."""
    seen: Counter[str] = Counter()
    lines: list[Text] = []
    for one in answer["findings"]:
        seen[one["check"]] += 1
        if every or one["severity"] != "info" or seen[one["check"]] <= MOST_ALIKE:
            lines += _lines(one)
    lines += [
        Text(f"and {count - MOST_ALIKE} more `{check}`; see them with --check {check}")
        for check, count in seen.items()
        if not every and count > MOST_ALIKE and _severity_of(answer, check) == "info"
    ]
    return Group(*lines, ", ".join(counted(count, what[:-1]) for what, count in answer["counts"].items()))


def _severity_of(answer: Json, check: str) -> str:
    found = {one["severity"] for one in answer["findings"] if one["check"] == check}
    return next(iter(found)) if len(found) == 1 else "several"


def _place(place: Json) -> str:
    return f"{place['file']}:{place['line']}:{place['column']}" if place["line"] else place["file"]


def _lines(finding: Json) -> Iterable[Text]:
    severity = finding["severity"]
    yield Text.assemble(
        f"{_place(finding['place'])}: ",
        (severity, _STYLES[severity]),
        f": `{finding['subject']}`: {finding['message']} ",
        (f"[{finding['check']}]", "dim"),
    )
    if finding["hint"]:
        yield Text(f"    {finding['hint']}")
    if finding["example"]:
        yield Text(f"    such as {finding['example']}")
