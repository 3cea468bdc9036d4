"""How much of a core the flow store costs for so many agents: `python -m tests.fleet.flow_load AGENTS [SECONDS]`.

Every agent sends a batch of ten records each two seconds, as the agents of `cellwall lab` do. What is printed is the
share of one core of the store's own process and of the process that feeds it, while both keep up.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path

from cellwall.controller.store.flows import open_flows
from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.traffic import Address, parse_address

ROWS, INTERVAL_S = 10, 2.0
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """The seconds that a process has computed, proc(5)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def batch(chance: random.Random, ends: list[Address], agent: int, now: float) -> list[FlowRecord]:
    """What one agent says of one interval."""
    own = ends[agent]
    return [
        FlowRecord(
            FlowKey(own, chance.choice(ends), 6, chance.choice((80, 443, 5432, 6379, 8080))),
            f"agent-{agent}",
            chance.choice((Side.EGRESS, Side.INGRESS)),
            Outcome.ALLOWED,
            chance.choice((Outcome.ALLOWED, Outcome.ALLOWED, Outcome.DENIED)),
            chance.choice(((), ("app-to-db",), ("web", "app-to-db"))),
            7,
            chance.randrange(1, 20),
            now - 2,
            now,
            process=Process(chance.choice(("nginx", "postgres", "java")), "app"),
        )
        for _ in range(ROWS)
    ]


def measure(agents: int, for_s: float) -> None:
    """Feed a new store for a while and print what it costs."""
    chance = random.Random(1)
    ends = [parse_address(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(1, agents + 1)]
    every = INTERVAL_S / agents
    with tempfile.TemporaryDirectory() as folder:
        store = open_flows(Path(folder) / "flows")
        many = getattr(store, "insert_many", None)
        began, sent, late = time.monotonic(), 0, 0.0
        worker, own = cpu_of(store.pid), time.process_time()
        waiting: list[tuple[list[FlowRecord], str]] = []
        spent = 0.0
        while (now := time.monotonic() - began) < for_s:
            due = int(now / every)
            made = time.process_time()
            waiting = [
                (batch(chance, ends, n % agents, time.time()), f"agent-{n % agents}/{n}") for n in range(sent, due)
            ]
            spent += time.process_time() - made
            if many is not None:
                many(waiting)
            else:
                for records, name in waiting:
                    store.insert(records, name)
            late = max(late, time.monotonic() - began - now)
            sent = max(due, sent)
            time.sleep(0.05)
        took = time.monotonic() - began
        worker, own = cpu_of(store.pid) - worker, time.process_time() - own - spent
        rows = store.count()
        store.close()
    print(
        f"{agents} agents, {sent / took:.0f} batches/s, {rows / took:.0f} rows/s: worker {worker / took:.0%}, "
        f"feeder {own / took:.0%} of a core; slowest call {late:.2f} s; {rows} of {sent * ROWS} rows there"
    )


if __name__ == "__main__":
    measure(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 20.0)
