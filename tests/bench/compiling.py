"""What it takes to compile a fleet from nothing, and to come to a change: seconds, milliseconds and memory."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import count
from pathlib import Path

from cellwall.compile import Compiler
from cellwall.inventory import Fleet, Workload
from cellwall.policy import Policy
from tests.bench.apart import apart
from tests.bench.fleets import ENVS, FIRST_ADDRESS, LOCS, ROLES, SYSTEMS, ZONES, cilium_like, enterprise, other_ports
from tests.bench.measure import Progress, Scale, Section, Table, Target, quantile
from tests.bench.worlds import NOW

LIMIT_S = 300.0
CILIUM = {(10_000, 5_000): (0.4, 0.42), (50_000, 10_000): (3.0, 15.1)}
"""Identities and rules, with the seconds that we want, and those that Cilium's engine took on a like machine."""
LARGE, LARGE_S, LARGE_GIB = (100_000, 10_000), 5.0, 1.5
SMALL = (10_000, 2_000)
MILLISECONDS = {"one workload relabelled": 1.0, "one rule changed": 10.0, "one new workload of a known class": 0.2}
FIRST = 100
OTHERS_S = 60.0, 5.0
SAMPLE, REMADE = 50, 25
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Whole:
    """Seconds to compile, to make the first points, and then others; and bytes of memory: before, at the peak of
    compiling and the first points, at the peak of the others, of which one at a time is held."""

    compiled_s: float
    first_s: float
    others_s: float
    others: int
    before: int
    first: int
    peak: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Seconds of each change by its name, how many points each touched, and how many of those looked at afterwards
    were not those of a compiler from nothing."""

    seconds: dict[str, list[float]]
    touched: dict[str, list[int]]
    named: list[float]
    remade: list[float]
    wrong: int


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    figures: dict[str, object] = {}
    targets: list[Target] = []
    whole = _whole_rows(scale, progress, figures, targets)
    changes = _change_rows(scale, progress, figures, targets)
    return Section(
        "compiling",
        "Compiling: from nothing, and by difference",
        (
            Table(
                "From nothing",
                ("fleet and policy", "compiled", f"and {FIRST} points made", "then others, one by one", "values alone",
                 "peak", "peak, others too"),
                whole,
                "Policy and fleet exist as values, and their memory is given. Compiled: every selector is matched, "
                "every address in its class, every rule in its index. A point is what one workload's host is to hold; "
                f"the others are made one by one and let go, for {scale.of(*OTHERS_S):.0f} s at most. Memory is all "
                "that the process holds. Cilium's policy engine (v1.20-pre, driven in Go on one core of a like "
                "machine, apart from this run) took 0.42 s for 10,000 identities × 5,000 rules and 15.1 s for 50,000 × "
                "10,000, its selectors matched, before 5.8 and 20 ms for each point; the first two rows have the shape "
                "of that test.",
            ),
            Table(
                "By difference",
                ("change", "p50, ms", "p99, ms", "points touched, median"),
                changes,
                f"Random changes, one after the other, each until the compiler says what it changed. Afterwards "
                f"{SAMPLE} points were compared with those of a compiler from nothing.",
            ),
        ),
        tuple(targets),
        figures,
    )  # fmt: skip


def _whole_rows(
    scale: Scale, progress: Progress, figures: dict[str, object], targets: list[Target]
) -> tuple[tuple[str, ...], ...]:
    rows: list[tuple[str, ...]] = []
    by = scale.count(1, 10)
    wanted = [("cilium", *size) for size in CILIUM] + [("enterprise", *SMALL), ("enterprise", *LARGE)]
    for shape, workloads, rules in wanted:
        name = f"{workloads // by:,} {'identities' if shape == 'cilium' else 'workloads'} × {rules // by:,} rules"
        progress.say(f"compiling: {name}, from nothing")
        # Three times, each in a process of its own; the middle one counts. The other points are made in the last.
        turns = scale.count(3, 1)
        spend = [0.0] * (turns - 1) + [scale.of(*OTHERS_S)]
        done = [apart(LIMIT_S, _whole, shape, workloads // by, rules // by, one) for one in spend]
        told = [one.value for one in done if one is not None]
        figures[name] = told
        if not told:
            rows.append((name, f"over {LIMIT_S:.0f} s", *["–"] * 5))
            continue
        one, last = sorted(told, key=lambda one: one.compiled_s)[len(told) // 2], told[-1]
        others = f"{last.others:,} in {last.others_s:.1f} s" if last.others else "–"
        rows.append((
            name, f"{one.compiled_s:.2f} s", f"{one.first_s:.3f} s", others, _mib(one.before), _mib(one.first),
            _mib(last.peak) if last.others else "–",
        ))  # fmt: skip
        if shape == "cilium":
            limit, theirs = CILIUM[workloads, rules]
            targets.append(
                Target(
                    f"{name}, from nothing (Cilium's engine: {theirs} s)",
                    f"≤ {limit} s",
                    f"{one.compiled_s:.2f} s",
                    None if scale.quick else one.compiled_s <= limit,
                )
            )
        elif (workloads, rules) == LARGE:
            made = f"{FIRST} points made"
            targets.append(
                Target(
                    f"{name}, from nothing, before points are asked for",
                    f"≤ {LARGE_S:.0f} s",
                    f"{one.compiled_s:.2f} s",
                    None if scale.quick else one.compiled_s <= LARGE_S,
                )
            )
            for what, peak in ((made, one.first), (f"{made} and {last.others:,} others made and let go", last.peak)):
                targets.append(Target(f"{name}, peak memory, {what}", f"≤ {LARGE_GIB} GiB", f"{peak / _GIB:.2f} GiB",
                                      None if scale.quick else peak <= LARGE_GIB * _GIB))  # fmt: skip
    return tuple(rows)


def _change_rows(
    scale: Scale, progress: Progress, figures: dict[str, object], targets: list[Target]
) -> tuple[tuple[str, ...], ...]:
    rows: list[tuple[str, ...]] = []
    by = scale.count(1, 10)
    for workloads, rules in (SMALL, LARGE):
        name = f"{workloads // by:,} workloads × {rules // by:,} rules"
        progress.say(f"compiling: {name}, by difference")
        done = apart(LIMIT_S, _changes, workloads // by, rules // by, scale.count(1_000, 100))
        if done is None:
            rows.append((name, f"over {LIMIT_S:.0f} s", "–", "–"))
            continue
        told = done.value
        figures[f"{name}, by difference"] = told
        for change, seconds in told.seconds.items():
            points = quantile(told.touched[change], 0.5)
            rows.append((f"{name}: {change}", *_p50_p99(seconds), f"{points:,.0f}"))
            if change in MILLISECONDS:
                limit, middle = MILLISECONDS[change], quantile(seconds, 0.5) * 1e3
                targets.append(Target(f"{name}: {change}, p50", f"≤ {limit} ms", f"{middle:.3f} ms",
                                      None if scale.quick else middle <= limit))  # fmt: skip
        rows.append((f"{name}: to name whom a change touches, after it", *_p50_p99(told.named), ""))
        rows.append((f"{name}: a touched point made anew", *_p50_p99(told.remade), ""))
        targets.append(Target(f"{name}: points as from nothing, after all changes", f"{SAMPLE} of {SAMPLE}",
                              f"{SAMPLE - told.wrong} of {SAMPLE}", not told.wrong))  # fmt: skip
    return tuple(rows)


# ---- in a process of its own


def _whole(shape: str, workloads: int, rules: int, spend_s: float) -> Whole:
    policy, fleet = (cilium_like if shape == "cilium" else enterprise)(workloads, rules)
    # The index of a fleet and of a policy by name, which whoever has them has.
    assert fleet.by_name and policy.by_id
    before = _memory("VmRSS")
    _forget_peak()
    began = time.perf_counter()
    compiler = Compiler(policy, fleet, 1, NOW)
    compiled = time.perf_counter()
    names = [one.name for one in fleet.workloads if one.agent]
    random.Random(3).shuffle(names)
    kept = [compiler.point(name) for name in names[:FIRST]]
    ended = time.perf_counter()
    first = _memory("VmHWM")
    others = 0
    for name in names[len(kept) :] if spend_s else ():
        compiler.point(name)
        others += 1
        if time.perf_counter() > ended + spend_s:
            break
    others_s = time.perf_counter() - ended
    return Whole(compiled - began, ended - compiled, others_s, others, before, first, _memory("VmHWM"))


def _changes(workloads: int, rules: int, turns: int) -> Changes:
    policy, fleet = enterprise(workloads, rules)
    chance = random.Random(7)
    told = Changes(defaultdict(list), defaultdict(list), [], [], 0)
    world = _World(policy, fleet, Compiler(policy, fleet, 1, NOW), told, chance)
    for name in chance.sample([one.name for one in fleet.workloads], FIRST):
        # What points have in common is there, as in a controller that has sent them.
        world.compiler.point(name)
    kinds: tuple[tuple[str, Callable[[], Callable[[], None]], int], ...] = (
        ("one workload relabelled", world.relabelled, turns),
        ("one new workload of a known class", world.come, turns),
        ("one workload gone", world.gone, turns),
        ("one rule changed", world.rule_changed, turns // 5),
    )
    for name, prepare, many in kinds:
        for turn in range(many):
            world.time(name, prepare(), remake=turn % REMADE == 0)
    return replace(told, seconds=dict(told.seconds), touched=dict(told.touched), wrong=world.compare())


@dataclass
class _World:
    policy: Policy
    fleet: Fleet
    compiler: Compiler
    told: Changes
    chance: random.Random

    def __post_init__(self) -> None:
        self.workloads = list(self.fleet.workloads)
        self.numbers = count(len(self.workloads))

    def relabelled(self) -> Callable[[], None]:
        at = self.chance.randrange(len(self.workloads))
        one = self.workloads[at]
        key = self.chance.choice(("app", "env", "role", "loc", "zone", "os"))
        values = {"env": ENVS, "role": ROLES, "loc": LOCS, "zone": ZONES, "os": SYSTEMS}
        value = self.chance.choice(values[key]) if key in values else self.chance.choice(self.workloads).labels[key]
        self.workloads[at] = new = replace(one, labels=one.labels.but(**{key: value}))
        return lambda: self.compiler.put(new)

    def come(self) -> Callable[[], None]:
        number = next(self.numbers)
        like = self.chance.choice(self.workloads)
        new = Workload(f"n{number}", like.labels, (ip_address(FIRST_ADDRESS + number),))
        self.workloads.append(new)
        return lambda: self.compiler.put(new)

    def gone(self) -> Callable[[], None]:
        one = self.workloads.pop(self.chance.randrange(len(self.workloads)))
        return lambda: self.compiler.drop(one.name)

    def rule_changed(self) -> Callable[[], None]:
        rules = list(self.policy.rules)
        at = self.chance.randrange(len(rules))
        # By turns another service, and another source.
        if at % 2:
            rules[at] = other_ports(rules[at], self.chance)
        else:
            rules[at] = replace(rules[at], source=self.chance.choice(rules).source)
        self.policy = replace(self.policy, rules=tuple(rules))
        return lambda: self.compiler.set_policy(self.policy, 1, NOW)

    def time(self, name: str, change: Callable[[], None], *, remake: bool) -> None:
        began = time.perf_counter()
        change()
        difference = self.compiler.settle()
        self.told.seconds[name].append(time.perf_counter() - began)
        began = time.perf_counter()
        touched = self.compiler.touched(difference)
        self.told.named.append(time.perf_counter() - began)
        self.told.touched[name].append(len(touched))
        if touched and remake:
            again = min(touched)
            began = time.perf_counter()
            self.compiler.point(again)
            self.told.remade.append(time.perf_counter() - began)

    def compare(self) -> int:
        fresh = Compiler(self.policy, replace(self.fleet, workloads=tuple(self.workloads)), 1, NOW)
        names = self.chance.sample([one.name for one in self.workloads], SAMPLE)
        return sum(self.compiler.point(name) != fresh.point(name) for name in names)


def _memory(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024


def _forget_peak() -> None:
    # proc(5), clear_refs: 5 sets the peak to what is held now.
    Path("/proc/self/clear_refs").write_text("5")


def _p50_p99(seconds: list[float]) -> tuple[str, str]:
    return f"{quantile(seconds, 0.5) * 1e3:.3f}", f"{quantile(seconds, 0.99) * 1e3:.3f}"


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
