"""What compiling, deciding and replaying cost: no kernel, one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle

from cellwall.analysis import plain_replay, replay
from cellwall.compile import compile_fleet
from cellwall.policy import Flow, decide, endpoint
from tests.bench.apart import Done, apart
from tests.bench.measure import Progress, Scale, Section, Table, Target, timed
from tests.bench.worlds import NOW, documents, estate, pair_of_ends, parsed, records

LIMIT_S = 120.0
REPLAY_A_S = 2_000_000.0


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    rows: list[tuple[str, ...]] = []
    figures: dict[str, object] = {}

    def add(what: str, work: Callable[..., float], *args: int, unit: str = "s") -> float | None:
        progress.say(f"core: {what}")
        done: Done[float] | None = apart(LIMIT_S, work, *args)
        figures[what] = None if done is None else {"value": done.value, "bytes": done.memory}
        if done is None:
            rows.append((what, f"over {LIMIT_S:.0f} s", "–"))
            return None
        value = f"{done.value:,.0f} a second" if unit == "rate" else f"{done.value:.2f} s"
        rows.append((what, value, f"{done.memory / (1 << 20):,.0f} MiB"))
        return done.value

    add("read and check a document of 1,000 rules", _parse, 1_000)
    add("decide, among 1,000 workloads and 100 rules", _decide, 1_000, 100, unit="rate")
    add("decide, among 10,000 workloads and 1,000 rules", _decide, 10_000, 1_000, unit="rate")
    add("compile 1,000 points by 100 rules", _compile, 1_000, 100)
    large = (10_000, 1_000) if not scale.quick else (3_000, 300)
    add(f"compile {large[0]:,} points by {large[1]:,} rules", _compile, *large)
    add("compile one point of 100,000 peers by 1,000 rules", _compile_one, 100_000, 1_000)
    flows = scale.count(200_000, 10_000)
    fast = add(f"replay {flows:,} distinct flows, 1,000 workloads, 100 rules", _replay, 1_000, 100, flows, unit="rate")
    add("the same by asking `decide` for each", _plain_replay, 1_000, 100, flows // 20, unit="rate")
    target = Target(
        "replay, distinct flows a second",
        f"≥ {REPLAY_A_S:,.0f}",
        "–" if fast is None else f"{fast:,.0f}",
        fast is not None and fast >= REPLAY_A_S,
    )
    note = "One process, plain Python. Memory is the peak of the process over what it held before."
    table = Table("The core", ("what", "took", "memory"), tuple(rows), note)
    return Section("core", "The core: compile, decide, replay", (table,), (target,), figures)


def _parse(rules: int) -> float:
    text = documents(rules)
    return timed(parsed, text)


def _decide(workloads: int, rules: int) -> float:
    policy, fleet = estate(workloads, rules)
    keys = [one.key for one in records(fleet, policy, 1_000)]
    done, began = 0, time.perf_counter()
    for key in cycle(keys):
        flow = Flow(endpoint(fleet, key.source), endpoint(fleet, key.destination), key.protocol, key.port)
        decide(policy, fleet, flow, NOW)
        done += 1
        # The first look-ups build the fleet's index.
        if done == 10:
            began = time.perf_counter()
        if not done % 100 and time.perf_counter() - began > 2:
            break
    return (done - 10) / (time.perf_counter() - began)


def _compile(workloads: int, rules: int) -> float:
    policy, fleet = estate(workloads, rules)
    return timed(compile_fleet, policy, fleet, 1, NOW)


def _compile_one(peers: int, rules: int) -> float:
    policy, fleet = pair_of_ends(peers, rules)
    return timed(compile_fleet, policy, fleet, 1, NOW)


def _replay(workloads: int, rules: int, count: int) -> float:
    policy, fleet = estate(workloads, rules)
    told = records(fleet, policy, count)
    return count / timed(replay, policy, fleet, told, NOW)


def _plain_replay(workloads: int, rules: int, count: int) -> float:
    policy, fleet = estate(workloads, rules)
    told = records(fleet, policy, count)
    return count / timed(plain_replay, policy, fleet, told, NOW)
