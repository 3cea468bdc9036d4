"""`cellwall policy diff`: what one policy opens and closes against another, as rules; for pull requests too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import unified_diff
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cellwall.cli.compare_view import draw, markdown
from cellwall.cli.documents import policy_of, read_documents, read_fleet
from cellwall.cli.exits import Exit, Stop
from cellwall.cli.ground import FleetOf, Modes, declared, fleet_at, ruling_shape
from cellwall.cli.output import Format, Output, show, working
from cellwall.cli.where import Socket, controller
from cellwall.clients import Api
from cellwall.inventory import Fleet
from cellwall.policy import Policy

if TYPE_CHECKING:
    from cellwall.analysis import Comparison, Line, State

EXAMPLES = (
    "cellwall policy diff 3",
    "cellwall policy diff policy/ --observed",
    "cellwall policy diff 3 5 --observed",
    "cellwall policy diff main/policy/ policy/ --fleet fleet.json",
    "cellwall policy diff main/policy/ policy/ --fleet fleet.json --format markdown",
    "cellwall policy diff 3 5 --text",
)


_SAME = ("services", "ports", "same", "as", "served_as", "rules")


class Shape(StrEnum):
    """What the answer is printed as."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


def diff(
    old: Annotated[str, typer.Argument(help="a revision, or documents", metavar="A")],
    new: Annotated[str | None, typer.Argument(help="the new one; else what is in force", metavar="[B]")] = None,
    fleet: FleetOf = None,
    form: Annotated[Shape, typer.Option("--format", help="`text`, `markdown` for a pull request, `json`")] = Shape.TEXT,
    assume: Annotated[Modes, typer.Option(help="all points `enforce`, or `modes` as they are")] = Modes.ENFORCE,
    observed: Annotated[bool, typer.Option("--observed", help="also the connections seen that it affects")] = False,
    text: Annotated[bool, typer.Option("--text", help="the lines of the documents that differ, instead")] = False,
    socket: Socket = None,
    output: Output = Format.TABLE,
) -> None:
    """Compare two policies: what newly passes and what no longer does, exactly, over every workload and every port.

    A and B are revisions, or documents with --fleet. Documents alone are held against what is in force: what applying
    them would change. Exit code 0 when they mean the same for the fleet, 1 when not."""
    sides = [_Side(old, socket), _Side(new, socket)]
    if new is None and sides[0].api is None:
        sides.reverse()
    if text:
        _text(sides, output if form is not Shape.JSON else Format.JSON)
        return
    with working("comparing all ends and all ports"):
        known = read_fleet(fleet) if fleet else _fleet(sides)
        answer = compared([(side.title, side.policy) for side in sides], known, assume, time.time())
        if observed:
            answer["observed"] = seen([side.documents for side in sides], controller(socket))
    if form is Shape.MARKDOWN and output is Format.TABLE:
        print(markdown(answer))
    else:
        show(answer, Format.JSON if form is Shape.JSON else output, lambda: draw(answer))
    if not answer["same"]:
        raise Stop(Exit.NO)


@dataclass
class _Side:
    """One side of a comparison, as it was asked for."""

    asked: str | None
    socket: Path | None

    def __post_init__(self) -> None:
        revision = self.asked is None or (self.asked.isdecimal() and not Path(self.asked).exists())
        self.api: Api | None = controller(self.socket) if revision else None
        if self.api is None:
            assert self.asked is not None
            self.title, self.documents = self.asked, read_documents([Path(self.asked)])
        else:
            found = self.api.get("policy", *(("revisions", self.asked) if self.asked else ()))
            self.title, self.documents = f"revision {found['revision']}", dict[str, str](found["documents"])

    @property
    def policy(self) -> Policy:
        """The documents, read."""
        return policy_of(self.documents)


def _fleet(sides: list[_Side]) -> Fleet | None:
    api = next((side.api for side in sides if side.api is not None), None)
    return fleet_at(api) if api is not None else None


def _text(sides: list[_Side], output: Format) -> None:
    """Show the lines that differ, as `diff -u` does."""
    files: list[dict[str, str]] = []
    before, after = (_by_name(side) for side in sides)
    for name in sorted({*before, *after}):
        lines = [side.get(name, "").splitlines(keepends=True) for side in (before, after)]
        if lines[0] != lines[1]:
            names = [f"{side.title}/{name}" for side in sides]
            told = "".join(unified_diff(lines[0], lines[1], names[0], names[1]))
            files.append({"file": name, "diff": told})
    answer = {"a": sides[0].title, "b": sides[1].title, "files": files}
    show(answer, output, lambda: Text("".join(one["diff"] for one in files).rstrip() or "no difference"))
    if files:
        raise Stop(Exit.NO)


def _by_name(side: _Side) -> dict[str, str]:
    """Name documents as within their folder, so that two folders can be laid side by side."""
    if side.api is not None or side.asked is None:
        return side.documents
    folder = Path(side.asked)
    within = folder.absolute() if folder.is_dir() else folder.absolute().parent
    return {str(Path(name).absolute().relative_to(within)): text for name, text in side.documents.items()}


def compared(sides: list[tuple[str, Policy]], fleet: Fleet | None, assume: Modes, now: float) -> dict[str, Any]:
    """Compare two policies over a fleet, or over what they declare, in the form of an answer."""
    from cellwall.analysis import Assume, State, Table, compare

    states = [State(policy, declared(policy, fleet)) for _, policy in sides]
    found = compare(Table, states[0], states[1], now, Assume(assume.value))
    if found.nothing and assume is Modes.ENFORCE:
        # Walls matter where a point only guards: what is the same when all enforce may differ as things are.
        assume = Modes.AS_IS
        found = compare(Table, states[0], states[1], now, Assume.MODES)
    return {
        "a": sides[0][0],
        "b": sides[1][0],
        "assume": assume.value,
        "same": found.nothing,
        "pairs": {"opened": found.opened_pairs, "closed": found.closed_pairs},
        "rules": {"added": list(found.added), "removed": list(found.removed), "changed": list(found.changed)},
        "opened": _of_both_versions([_line(line, states[1]) for line in found.opened], states[1]),
        "closed": _of_both_versions([_line(line, states[0]) for line in found.closed], states[0]),
        "modes": _modes(found),
        "observed": None,
    }


def _line(line: Line, state: State) -> dict[str, Any]:
    from cellwall.analysis import services_in_words

    known = {one.name for one in state.fleet.workloads}
    return {
        "services": services_in_words(line.ports, state.policy),
        "ports": str(line.ports),
        "from": str(line.sources),
        "to": str(line.destinations),
        "same": list(line.same),
        "as": [str(one) or "nobody in particular" for one in line.callers],
        "served_as": [str(one) or "nobody in particular" for one in line.servers],
        "ip": line.version,
        "sources": list(line.sources.titles),
        "destinations": list(line.destinations.titles),
        "workloads": [sum(title in known for title in one.titles) for one in (line.sources, line.destinations)],
        "rules": [ruling_shape(rule) for rule in line.because],
    }


def _of_both_versions(lines: list[dict[str, Any]], state: State) -> list[dict[str, Any]]:
    """Make one line of two that say the same over IPv4 and over IPv6, but for networks that have no other version."""
    versions = {f"network:{book.name}": {prefix.version for prefix in book.prefixes} for book in state.policy.networks}
    known = {one.name for one in state.fleet.workloads}
    made: list[dict[str, Any]] = []
    alike: dict[str, list[int]] = {}
    for line in lines:
        places = alike.setdefault(repr([line[word] for word in _SAME]), [])
        at = next((n for n in places if _differ_by_version(made[n], line, versions)), None)
        if at is None:
            places.append(len(made))
            made.append(line)
            continue
        one = made[at]
        ends = {word: sorted({*one[word], *line[word]}) for word in ("sources", "destinations")}
        words = {word: " or ".join(dict.fromkeys((*_parts(one[word]), *_parts(line[word])))) for word in ("from", "to")}
        counts = [sum(title in known for title in titles) for titles in ends.values()]
        made[at] = {**one, **words, **ends, "workloads": counts, "ip": None}
    return made


def _differ_by_version(one: dict[str, Any], other: dict[str, Any], versions: Mapping[str, set[int]]) -> bool:
    return {one["ip"], other["ip"]} == {4, 6} and all(
        versions.get(part) == {line["ip"]}
        for word in ("from", "to")
        for line, rest in ((one, other), (other, one))
        for part in _parts(line[word])
        if part not in _parts(rest[word])
    )


def _parts(words: str) -> list[str]:
    return words.split(" or ")


def _modes(found: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "before": one.before.value if one.before else None,
            "after": one.after.value if one.after else None,
            "where": str(one.workloads),
            "workloads": list(one.workloads.titles),
        }
        for one in found.modes
    ]


def seen(sides: list[dict[str, str]], api: Api) -> dict[str, Any]:
    """Say what becomes of the connections that were seen: the controller replays both sides against what is in force,
    and what they do differently is what differs between them."""
    replays = [api.post("replay", body={"documents": side, "revision": None, "since": None}) for side in sides]
    return turned(replays[0], replays[1])


def turned(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Put two replays together that were made against the same policy: what the second cuts and opens that the first
    does not, and the reverse."""
    sides = [{_key(one): one for word in ("cut", "opened") for one in side[word]} for side in (first, second)]
    cut: list[dict[str, Any]] = []
    opened: list[dict[str, Any]] = []
    for key in sorted(sides[0].keys() ^ sides[1].keys()):
        # One side leaves it as it is in force, the other turns it.
        told = sides[1].get(key) or sides[0][key]
        denied = (told["becomes"] == "denied") is (key in sides[1])
        (cut if denied else opened).append(told)
    whole = all(len(side[word]) == side[f"{word}_count"] for side in (first, second) for word in ("cut", "opened"))
    return {"checked": second["checked"], "cut": cut, "opened": opened, "complete": whole}


def _key(one: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(one.get(word) or "") for word in ("source", "destination", "service", "process"))
