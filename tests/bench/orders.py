"""Orders of an emergency from end to end: to ten thousand simulated agents, and to ten real ones in namespaces."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from cellwall.clients import Api
from cellwall.wire import Receipt
from tests.bench.control_world import Boss, Problem, Sim, world
from tests.bench.measure import Progress, Scale, Section, Table, Target, quantile

AGENTS, QUICK_AGENTS = 10_000, 1_000
HOSTS, TIMES, QUICK_TIMES = 10, 50, 5
CELLWALL = Path(sys.executable).with_name("cellwall")
LAB, WITHIN_S, CONNECT_S, SETTLED_S = "cwbench", 1.0, 300.0, 2.0
POLICY = """
services: {web: [tcp/80, tcp/443], api: tcp/8080, pg: tcp/5432}
rules:
  - {id: clients-to-web, allow: web, from: any, to: role=web}
  - {id: web-to-api, allow: api, from: role=web, to: role=api, same: [app]}
  - {id: api-to-db, allow: pg, from: role=api, to: role=db, same: [app]}
  - {id: monitor, allow: tcp/9100, from: role=monitor, to: any}
modes: [{where: "", mode: observe}]
"""
ORDER = {"kind": "contain", "ports": "tcp/445", "for_s": 3600.0, "reason": "bench", "wait_s": 60.0}


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    figures: dict[str, object] = {}
    agents = scale.count(AGENTS, QUICK_AGENTS)
    many, given = _simulated(agents, scale.count(10, 3), progress, figures)
    few, felt = _real(scale.count(TIMES, QUICK_TIMES), progress, figures)
    columns = ("what", "times", "p50, s", "p90, s", "p99, s", "the worst, s")
    met = None if scale.quick else (given < WITHIN_S, felt < WITHIN_S)
    targets = (
        Target(f"an order is in force at the last of {agents:,} agents, worst", f"< {WITHIN_S:g} s", f"{given:.2f} s",
               met and met[0]),
        Target(f"an order is in force at the last of {HOSTS} real agents, worst", f"< {WITHIN_S:g} s", f"{felt:.2f} s",
               met and met[1]),
    )  # fmt: skip
    tables = (
        Table(
            f"{agents:,} simulated agents",
            (*columns, "controller, CPU-s"),
            many,
            "A containment of everything on one port, given and lifted. From the moment of the request until each "
            "agent did as told, until its receipt was read, of all agents and all times; and until the answer came "
            "that says that it is in force everywhere. The agents speak the real protocol over TLS, and take "
            "two cores together with the controller; signatures are verified, and rulesets compared, when "
            "there is nothing else to do: a real agent has a processor of its own for that.",
        ),
        Table(
            f"{HOSTS} real agents",
            columns,
            few,
            "The same in a lab of namespaces: each agent has written the order into a kernel, read that back and said "
            "so before it counts.",
        ),
    )
    return Section("orders", "Orders of an emergency, from end to end", tables, targets, figures)


# --- simulated


def _simulated(
    agents: int, rounds: int, progress: Progress, figures: dict[str, object]
) -> tuple[tuple[tuple[str, ...], ...], float]:
    progress.say(f"orders: {agents:,} agents are prepared")
    with world(agents) as (boss, sim):
        orders = Orders(
            lambda: boss.ask("POST", "/orders", ORDER),
            lambda name: boss.ask("DELETE", f"/orders/{name}?wait_s=60&reason=bench"),
        )
        boss.ask("POST", "/policy/apply", {"documents": {"policy.yaml": POLICY}, "confirm_s": 0.0})
        sim.tell(do="connect")
        _await(sim, agents)
        # The first one after a policy comes with all of what a point is to hold.
        orders.give()
        found = {"given": Spans(), "lifted": Spans()}
        time.sleep(SETTLED_S)
        orders.lift()
        for _ in progress.over("orders: given and lifted", rounds):
            for word, act in (("given", orders.give), ("lifted", orders.lift)):
                time.sleep(SETTLED_S)
                used, began = boss.cpu_s(), time.time()
                act()
                told = time.time() - began
                time.sleep(SETTLED_S)
                found[word].add(*_receipts(boss, began, agents), told, boss.cpu_s() - used)
        left = sim.look()
    if left["up"] != agents:
        raise Problem(f"{left['up']} of {agents} agents are connected: {left['why']}")
    figures["simulated"] = {
        word: {"felt": _summary(one.felt), "heard": _summary(one.heard), "told": _summary(one.told), "CPU-s": one.cpu}
        for word, one in found.items()
    }
    rows: list[tuple[str, ...]] = []
    for word, one in found.items():
        cpu = f"{sum(one.cpu) / len(one.cpu):.2f}"
        rows.append((f"{word}: so for each agent", f"{len(one.felt):,}", *_shares(one.felt), cpu))
        rows.append((f"{word}: each agent's receipt", f"{len(one.heard):,}", *_shares(one.heard), ""))
        rows.append((f"{word}: the answer to whoever asked", str(len(one.told)), *_shares(one.told), ""))
    return tuple(rows), max(found["given"].felt)


class Spans:
    """What was measured of one kind of act, in seconds: until each agent did it, until its receipt was there, until
    whoever asked was told; and the controller's processor time."""

    def __init__(self) -> None:
        self.felt: list[float] = []
        self.heard: list[float] = []
        self.told: list[float] = []
        self.cpu: list[float] = []

    def add(self, felt: list[float], heard: list[float], told: float, cpu: float) -> None:
        """Add one act."""
        self.felt += felt
        self.heard += heard
        self.told.append(told)
        self.cpu.append(cpu)


def _receipts(boss: Boss, began: float, agents: int) -> tuple[list[float], list[float]]:
    """Wait until all receipts are in the store; give when each was written, and when it was read."""
    until = time.monotonic() + 30
    while True:
        with sqlite3.connect(f"file:{boss.folder / 'data' / 'state.db'}?mode=ro", uri=True) as store:
            query = "select workload, at, receipt from receipts where at >= ? order by id"
            found = {name: (at, data) for name, at, data in store.execute(query, (began,))}
        if len(found) == agents:
            felt = [msgspec.msgpack.decode(data, type=Receipt).at - began for _, data in found.values()]
            return felt, [at - began for at, _ in found.values()]
        if time.monotonic() > until:
            raise Problem(f"{len(found)} of {agents} agents have sent a receipt")
        time.sleep(0.5)


def _await(sim: Sim, agents: int) -> None:
    until = time.monotonic() + CONNECT_S
    while (told := sim.look())["up"] < agents or told["holding"].get("0", 0):
        if time.monotonic() > until:
            raise Problem(f"not all came: {told['stages']}, {told['why']}")
        time.sleep(0.2)


# --- real


def _real(times: int, progress: Progress, figures: dict[str, object]) -> tuple[tuple[tuple[str, ...], ...], float]:
    found: dict[str, list[float]] = {"given": [], "lifted": []}
    with _lab() as api:
        orders = Orders(
            lambda: api.post("orders", body=ORDER),
            lambda name: api.delete("orders", name, wait_s=60, reason="bench"),
        )
        api.post("policy", "apply", body={"documents": {"policy.yaml": POLICY}, "confirm_s": 0.0})
        orders.give()
        orders.lift()
        for _ in progress.over(f"orders: to {HOSTS} real agents", times):
            for word, act in (("given", orders.give), ("lifted", orders.lift)):
                began = time.monotonic()
                reached = act()
                found[word].append(time.monotonic() - began)
                if reached["having"] != HOSTS:
                    raise Problem(f"not in force everywhere: {reached}")
                time.sleep(0.2)
    figures["real"] = {word: _summary(each) for word, each in found.items()}
    rows = tuple((f"{word}: at all {HOSTS}", str(len(each)), *_shares(each)) for word, each in found.items())
    return rows, max(found["given"])


@contextmanager
def _lab() -> Generator[Api]:
    with TemporaryDirectory() as folder:
        scenario = Path(folder) / "lab.yaml"
        hosts = "\n".join(
            f"  h{number}:\n    labels: {{role: {role}, app: one}}\n    truth: {{role: {role}, app: one}}\n"
            f"    units:\n      s.service:\n        user: nobody\n        services:\n"
            f"          smb: {{ports: tcp/445, kind: http}}"
            for number, role in enumerate(("web", "api", "db", "monitor", "web", "api", "db", "api", "web", "db"))
        )
        scenario.write_text(f"lab: {LAB}\n\nworkloads:\n{hosts}\n", "utf-8")
        try:
            yield Api(Path(json.loads(_cellwall("lab", "up", str(scenario), "-o", "json"))["socket"]))
        finally:
            _cellwall("lab", "down", LAB)


def _cellwall(*words: str) -> str:
    done = subprocess.run([CELLWALL, *words], capture_output=True, text=True, check=False, timeout=180)
    if done.returncode != 0:
        raise Problem(f"cellwall {' '.join(words)}: {done.stderr[-500:]}")
    return done.stdout


# --- both


class Orders:
    """Gives an order and lifts it, and has each be in force everywhere before it goes on."""

    def __init__(self, give: Callable[[], Any], lift: Callable[[str], Any]) -> None:
        self._give, self._lift, self._given = give, lift, ""

    def give(self) -> dict[str, Any]:
        """Give it."""
        answer = self._give()
        self._given = answer["order"]["id"]
        return _everywhere(answer["in_force"])

    def lift(self) -> dict[str, Any]:
        """Lift it."""
        return _everywhere(self._lift(self._given)["gone"])


def _everywhere(reached: dict[str, Any]) -> dict[str, Any]:
    if not reached["everywhere"] or reached["unable"]:
        raise Problem(f"not everywhere: {reached}")
    return reached


def _shares(values: list[float]) -> tuple[str, ...]:
    return tuple(f"{quantile(values, share):.2f}" for share in (0.5, 0.9, 0.99, 1.0))


def _summary(values: list[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "worst": 1.0}
    return {name: quantile(values, share) for name, share in shares.items()} | {"sum": math.fsum(values)}
