"""What the exact analyses take: all pairs beside the bit-matrix method, lint, and the difference of two policies."""

from __future__ import annotations

import random
import time
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from ipaddress import ip_address

import numpy as np
from numpy.typing import NDArray

from cellwall.analysis import Assume, Observed, State, Table, compare, lint
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.inventory import Fleet
from cellwall.policy import Policy, Rule
from cellwall.traffic import EVERYTHING, TCP, point
from tests.bench import kano
from tests.bench.apart import apart
from tests.bench.fleets import PodPolicy, enterprise, flow_columns, kano_like, of_pods, other_ports, who
from tests.bench.measure import Progress, Scale, Section, Spread, Target, ratios, timed
from tests.bench.measure import Table as Listed
from tests.bench.worlds import NOW

LIMIT_S = 120.0
PODS, POLICIES, TIMES = 5_000, 1_000, 100.0
WORKLOADS, RULES, FLOWS = 10_000, 10_000, 50_000
LINT_S, DIFF_S, CHANGED = 5.0, 3.0, 100
METHODS = {"a row per label key, as published": False, "a row per key and value": True}
Matrix = NDArray[np.bool_]


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    figures: dict[str, object] = {}
    targets: list[Target] = []
    tables = (_all_pairs(scale, progress, figures, targets), _rest(scale, progress, figures, targets))
    return Section("analyses", "The exact analyses", tables, tuple(targets), figures)


# ---- all pairs


def _all_pairs(scale: Scale, progress: Progress, figures: dict[str, object], targets: list[Target]) -> Listed:
    pods, policies = kano_like(scale.count(PODS, 1_000), scale.count(POLICIES, 200))
    policy, fleet = of_pods(pods, policies)
    seconds: dict[str, list[float]] = {"ours": [], "ours, kept": [], **{name: [] for name in METHODS}}
    ours = np.empty(0, np.bool_)
    for turn in range(scale.count(5, 1)):
        progress.say(f"analyses: all pairs of {len(pods):,} pods, round {turn + 1}")
        began = time.perf_counter()
        table = Table(policy, fleet, NOW, Assume.ENFORCE)
        # Rows are worked out when they are asked for: here all of them are, first.
        assert table.profiles
        made = time.perf_counter()
        ours = reachable(table, fleet)
        ended = time.perf_counter()
        seconds["ours"].append(ended - began)
        seconds["ours, kept"].append(ended - made)
        for name, by_value in METHODS.items() if not kano.missing() else ():
            seconds[name].append(timed(kano.matrix, pods, policies, by_value=by_value))
    figures["all pairs"] = seconds
    rows = [
        ("ours: a table of classes, and the matrix from it", Spread.of(seconds["ours"]).text(".3f"), "1"),
        ("of that, the matrix", Spread.of(seconds["ours, kept"]).text(".3f"), ""),
    ]
    what = f"all pairs, {len(pods):,} pods × {len(policies):,} policies: the published method's time against ours"
    if kano.missing():
        progress.say("analyses: `bitarray` is not installed (`scripts/setup.sh --bench` does it); ours alone")
        targets.append(Target(what, f"≥ {TIMES:.0f}", "–", None))
        held = "The package that it needs is not installed."
    else:
        rows += [
            (f"bit matrix: {name}", Spread.of(seconds[name]).text(".3f"),
             ratios(seconds[name], seconds["ours"]).text(".1f"))
            for name in METHODS
        ]  # fmt: skip
        times = ratios(seconds[next(iter(METHODS))], seconds["ours"])
        targets.append(Target(what, f"≥ {TIMES:.0f}", times.text(".0f"),
                              None if scale.quick else times.middle >= TIMES))  # fmt: skip
        wrong = _otherwise(ours, pods, policies)
        targets.append(Target("all pairs: pairs of which both say the same", "all", f"all but {wrong:,}", not wrong))
        held = f"`bitarray` {version('bitarray')} holds the bits."
    note = (
        "Who reaches whom on a TCP port, as a matrix of all pods. Ours is from policy and fleet as values to the "
        "matrix, the table built anew each time. The bit-matrix method is Kano's (HOTI 2020), written anew for this "
        "bench: as published, with a row per label key, after which values are looked at pod by pod; and bettered, "
        f"with a row per key and value. {held} Pods and policies are as Kano's generator makes them: 5 users, 5 more "
        "keys of 10 values, selectors of up to 4 labels, one direction each. Both must give the same matrix but for "
        "pods with themselves. Seconds: median (least–most), rounds in turns."
    )
    return Listed("All pairs", ("method", "seconds", "its time ÷ ours"), tuple(rows), note)


def reachable(table: Table, fleet: Fleet) -> Matrix:
    """Say who reaches whom on a TCP port: a row for each destination, a column for each source, in order of name."""
    ports = table.ports_at(point(TCP, 80))
    kinds = [table.kind_at(one.addresses[0]) for one in fleet.workloads]
    # Few rows are different ones: each is unpacked once, to a byte for each column, and given to all that have it.
    rows = [table.row(kind, ports) for kind in kinds]
    places = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    width = (max(table.column_of) + 8) // 8
    packed = np.frombuffer(b"".join(row.to_bytes(width, "little") for row in places), np.uint8).reshape(-1, width)
    columns = np.array([table.column_of[kind] for kind in kinds])
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, columns].view(np.bool_)
    return bits[np.array([places[row] for row in rows])]


def _otherwise(ours: Matrix, pods: list[dict[str, str]], policies: list[PodPolicy]) -> int:
    """Count the pairs of different pods of which the bit matrix says otherwise."""
    theirs = np.array([list(row) for row in kano.matrix(pods, policies, by_value=True)], np.bool_)
    differ = ours != theirs.T
    np.fill_diagonal(differ, val=False)
    return int(differ.sum())


# ---- lint and difference


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds, and what came of it."""

    seconds: float
    found: str


def _rest(scale: Scale, progress: Progress, figures: dict[str, object], targets: list[Target]) -> Listed:
    by = scale.count(1, 10)
    size = WORKLOADS // by, RULES // by
    name = f"{size[1]:,} rules, {size[0]:,} workloads"
    flows = FLOWS // by
    wanted: tuple[tuple[str, Callable[[int, int, int], Took], int, float | None], ...] = (
        (f"lint of {name}", _lint, 0, None),
        (f"lint of {name}, all checks, {flows:,} flows seen", _lint, flows, LINT_S),
        (f"exact difference: {name}, one rule otherwise", _difference, 1, None),
        (f"exact difference: {name}, {CHANGED // by} rules otherwise", _difference, CHANGED // by, DIFF_S),
    )
    rows: list[tuple[str, ...]] = []
    for what, work, many, limit in wanted:
        progress.say(f"analyses: {what}")
        done = apart(LIMIT_S, work, *size, many)
        figures[what] = done
        took, found = (
            (f"over {LIMIT_S:.0f} s", "–") if done is None else (f"{done.value.seconds:.2f} s", done.value.found)
        )
        memory = "–" if done is None else f"{done.memory / (1 << 20):,.0f} MiB"
        rows.append((what, took, found, memory))
        if limit is not None:
            met = done is not None and done.value.seconds <= limit
            targets.append(Target(what, f"≤ {limit:.0f} s", took, None if scale.quick else met))
    note = (
        "Each in a process of its own, once, from policies and fleet as values. The policy is of the enterprise's "
        "kind, with three rules in a hundred that are questionable. Memory is the peak over what the process held."
    )
    return Listed("Lint and difference", ("what", "took", "found", "memory"), tuple(rows), note)


def _lint(workloads: int, rules: int, many: int) -> Took:
    policy, fleet = enterprise(workloads, rules)
    policy = questionable(policy)
    observed = _observed(policy, fleet, many) if many else None
    found: list[object] = []
    seconds = timed(lambda: found.extend(lint(policy, fleet, NOW, observed)))
    return Took(seconds, f"{len(found):,} findings")


def _difference(workloads: int, rules: int, many: int) -> Took:
    policy, fleet = enterprise(workloads, rules)
    chance = random.Random(5)
    others = list(policy.rules)
    for at in chance.sample(range(rules), many):
        others[at] = other_ports(others[at], chance)
    before, after = State(policy, fleet), State(replace(policy, rules=tuple(others)), fleet)
    found: Tally[bool] = Tally()
    seconds = timed(lambda: found.update(line.opened for line in compare(Table, before, after, NOW).lines))
    return Took(seconds, f"{found[True]:,} lines opened, {found[False]:,} closed")


def questionable(policy: Policy) -> Policy:
    """The same, with three rules in a hundred that lint has to find: said twice, covered by another, about nobody."""
    chance = random.Random(11)
    rules = list(policy.rules)
    for at in chance.sample(range(len(rules)), len(rules) * 3 // 100):
        like = chance.choice(policy.rules)
        name = rules[at].id
        rules[at] = (
            replace(like, id=name),
            replace(like, id=name, destination=who(f"{like.destination[0]},os=debian-12")),
            Rule(name, like.action, EVERYTHING, like.source, who("app=nobody")),
        )[at % 3]
    return replace(policy, rules=tuple(rules))


def _observed(policy: Policy, fleet: Fleet, count: int) -> Observed:
    columns = flow_columns(policy, fleet, count, edges=count)
    lines = zip(columns.sources.tolist(), columns.destinations.tolist(), columns.points.tolist(), strict=True)
    keys = (FlowKey(ip_address(one), ip_address(other), at >> 16, at & 0xFFFF) for one, other, at in lines)
    return Observed(tuple(
        FlowRecord(key, fleet.by_address[key.source].name, Side.EGRESS, Outcome.ALLOWED, Outcome.ALLOWED, (), 1, 1,
                   NOW - 60, NOW)
        for key in keys
    ))  # fmt: skip
