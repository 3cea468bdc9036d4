"""How many flows a second are judged in bulk, and what it takes before: the table, and finding who an address is."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from cellwall.analysis import Assume, Columns, Table
from cellwall.flows import Outcome
from cellwall.inventory import Fleet
from cellwall.policy import Flow, Policy, decide, endpoint
from tests.bench.apart import apart
from tests.bench.fleets import FlowColumns, enterprise, flow_columns
from tests.bench.measure import Progress, Scale, Section, Spread, Target, timed
from tests.bench.measure import Table as Listed
from tests.bench.worlds import NOW

LIMIT_S = 240.0
SIZES = {(10_000, 2_000): 30e6, (100_000, 10_000): 15e6}
"""Workloads and rules, with the flows a second that we want of two cores."""
THREADS = 2
DECIDE_S = 10.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds for the table and for its columns; flows a second of each round, by what was done to them; how many
    flows passed; how many were asked of `decide`, how many a second, and how many of those it decided otherwise."""

    table_s: float
    columns_s: float
    kinds: int
    rates: dict[str, list[float]]
    passed: float
    asked: int
    decided: float
    wrong: int


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    rows: list[tuple[str, ...]] = []
    figures: dict[str, object] = {}
    targets: list[Target] = []
    by, flows = scale.count(1, 10), scale.count(10_000_000, 500_000)
    for (workloads, rules), wanted in SIZES.items():
        name = f"{workloads // by:,} workloads × {rules // by:,} rules"
        progress.say(f"evaluating: {flows:,} flows, {name}")
        done = apart(LIMIT_S, _rates, workloads // by, rules // by, flows, scale.count(5, 2))
        if done is None:
            rows.append((name, f"over {LIMIT_S:.0f} s", *["–"] * 7))
            continue
        one = done.value
        figures[name] = {"rates": one, "bytes": done.memory}
        both = one.rates[_both()]
        rows.append((
            name, f"{one.table_s + one.columns_s:.2f} s, {one.kinds:,} kinds", *map(_millions, one.rates.values()),
            f"{one.decided:,.0f}", f"{one.passed:.0%}", f"{done.memory / (1 << 20):,.0f} MiB",
        ))  # fmt: skip
        targets += [
            Target(f"{name}: flows judged a second, {THREADS} threads", f"≥ {wanted / 1e6:.0f} M", _millions(both),
                   None if scale.quick else median(both) >= wanted),
            Target(f"{name}: flows that `decide` decides as the table does", f"{one.asked} of {one.asked}",
                   f"{one.asked - one.wrong} of {one.asked}", not one.wrong),
        ]  # fmt: skip
    note = (
        f"{flows:,} flows over 200,000 edges, nine in ten edges by a rule, by Zipf's law (0.8), one flow in a hundred "
        "noise; given as columns of ends and points. Millions of flows a second, median (least–most): both addresses "
        "of each located; judged with both ends located. The table is made from policy and fleet as values, once for "
        "each revision. Memory is the peak over what the values took before, the flows included."
    )
    columns = (
        "fleet and policy", "the table", "located, M/s", "judged, 1 thread, M/s", f"judged, {THREADS} threads, M/s",
        "`decide`, one by one, a second", "passed", "memory",
    )  # fmt: skip
    listed = Listed("Flows judged in bulk", columns, tuple(rows), note)
    return Section("evaluating", "Evaluating: flows judged in bulk", (listed,), tuple(targets), figures)


def _rates(workloads: int, rules: int, count: int, rounds: int) -> Rates:
    policy, fleet = enterprise(workloads, rules)
    flows = flow_columns(policy, fleet, count)
    began = time.perf_counter()
    table = Table(policy, fleet, NOW, Assume.ENFORCE)
    # Rows are worked out when they are asked for: here all of them are, first.
    assert table.profiles
    made = time.perf_counter()
    columns = Columns(table)
    columns_s = time.perf_counter() - made
    sources, destinations = columns.locate(flows.sources), columns.locate(flows.destinations)
    verdicts = np.empty(count, np.bool_)

    def judge(part: slice) -> None:
        verdicts[part] = columns.judge(sources[part], destinations[part], flows.points[part])

    def judge_all(threads: int) -> None:
        edges = [count * at // threads for at in range(threads + 1)]
        parts = [slice(*pair) for pair in pairwise(edges)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(judge, parts))

    steps: dict[str, Callable[[], object]] = {
        "located": lambda: (columns.locate(flows.sources), columns.locate(flows.destinations)),
        "judged, 1 thread": lambda: judge(slice(count)),
        _both(): lambda: judge_all(THREADS),
    }
    rates = {what: [count / timed(step) for _ in range(rounds)] for what, step in steps.items()}
    asked, wrong, spent = _asked(policy, fleet, flows, verdicts)
    return Rates(
        made - began, columns_s, len(table.kinds), rates, float(verdicts.mean()), asked, asked / spent, wrong
    )  # fmt: skip


def _asked(policy: Policy, fleet: Fleet, flows: FlowColumns, verdicts: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Ask `decide` of flows taken at random for a while; how many, how many of them otherwise, in how many seconds."""
    assert fleet.by_address
    asked = wrong = 0
    began = time.perf_counter()
    for at in np.random.default_rng(2).permutation(len(verdicts)).tolist():
        source, destination, point = (int(column[at]) for column in (flows.sources, flows.destinations, flows.points))
        near, far = (endpoint(fleet, ip_address(one)) for one in (source, destination))
        decision = decide(policy, fleet, Flow(near, far, point >> 16, point & 0xFFFF), NOW)
        asked += 1
        # What a workload sends to itself never meets a point, and the table speaks of two ends.
        wrong += source != destination and (decision.would is Outcome.ALLOWED) is not bool(verdicts[at])
        if time.perf_counter() > began + DECIDE_S:
            break
    return asked, wrong, time.perf_counter() - began


def _both() -> str:
    return f"judged, {THREADS} threads"


def _millions(rates: list[float]) -> str:
    return Spread.of([one / 1e6 for one in rates]).text(".1f")
