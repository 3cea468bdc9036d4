"""How soon a foreign change to our table is undone: from the change to the first connection that passes again."""

from __future__ import annotations

import socket
import time

from tests.bench.hosted import hosted
from tests.bench.measure import Progress, Scale, Section, Table, Target, quantile
from tests.bench.worlds import PORTS, point_of
from tests.fleet.agent_world import serve_tcp

HARMS = ("flush chain inet cellwall input", "delete table inet cellwall")
EACH, WITHIN_S = 9, 1.0
"""So many for each agent: more than ten within a minute are repaired slowly, on purpose."""


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    found: dict[str, list[float]] = {harm: [] for harm in HARMS}
    for turn in range(int(scale.of(6, 1))):
        for harm in HARMS:
            progress.say(f"repair: `{harm}`, {turn + 1}")
            with hosted() as host:
                host.hold(point_of(100, 100))
                host.far.start(serve_tcp, PORTS[0])
                host.far.wait_for_port(PORTS[0])
                for _ in range(EACH):
                    host.far.nft(harm + "\n")
                    found[harm].append(host.near.call(until_through, str(host.far.v4), PORTS[0]))
                    time.sleep(0.3)
    rows = tuple(
        (f"`nft {harm}`", str(len(all_s)), *(f"{1000 * quantile(all_s, at):.0f}" for at in (0.5, 0.99, 1.0)))
        for harm, all_s in found.items()
    )
    worst = max(quantile(all_s, 0.99) for all_s in found.values())
    note = (
        "With 100 peers and 100 rules. From the end of the foreign program to the first connection that passes again; "
        "a deleted table lets everything pass, so there it is until a denied port is denied again."
    )
    table = Table("Until it is repaired", ("what was done", "times", "p50, ms", "p99, ms", "worst, ms"), rows, note)
    target = Target(
        "a foreign change is undone, p99", f"< {WITHIN_S:.0f} s", f"{1000 * worst:.0f} ms", worst < WITHIN_S
    )
    return Section("repair", "Repair: foreign changes to our table", (table,), (target,), {})


def until_through(address: str, port: int) -> float:
    """Give the seconds until a connection to `port` passes and one to another port is refused."""
    began = time.perf_counter()
    while not (_connects(address, port) and not _connects(address, 1)):
        assert time.perf_counter() - began < 30, "it is not repaired"
    return time.perf_counter() - began


def _connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), 0.02):
            return True
    except OSError:
        return False
