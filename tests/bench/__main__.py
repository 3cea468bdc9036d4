"""Run the benches: `python -m tests.bench [NAME…] [--quick] [--write] [-o json]`.

A full run writes its tables into docs/benchmarks.md. `--quick` takes a few minutes, shows that all works, and writes
nothing unless `--write` is given too.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from types import FrameType

from cellwall.cli import collect_seldom
from tests.bench import (
    agent,
    analyses,
    applied,
    cluster,
    compiling,
    control,
    core,
    datapath,
    evaluating,
    orders,
    peers,
    repair,
    updates,
)
from tests.bench.leftovers import sweep
from tests.bench.measure import Progress, Scale, Section
from tests.bench.report import PAGE, ROOT, markdown, plain, this_machine, write
from tests.kernel.namespaces import missing

BENCHES: dict[str, Callable[[Scale, Progress], Section]] = {
    "datapath": datapath.run,
    "updates": updates.run,
    "agent": agent.run,
    "repair": repair.run,
    "applied": applied.run,
    "core": core.run,
    "compiling": compiling.run,
    "evaluating": evaluating.run,
    "analyses": analyses.run,
    "peers": peers.run,
    "control": control.run,
    "cluster": cluster.run,
    "orders": orders.run,
}
WITHOUT_ROOT = frozenset({"core", "compiling", "evaluating", "analyses", "control", "cluster"})


def main() -> int:
    """Run what was asked for; 0 when all ran, whatever the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHES)}; all of them by default")
    parser.add_argument("--quick", action="store_true", help="short measurements, to see that it works")
    parser.add_argument(
        "--write", action="store_true", help="write the tables into docs/benchmarks.md after --quick too"
    )
    parser.add_argument(
        "--agents", type=int, help=f"how many for `control`, `cluster` and `orders`; {control.AGENTS:,} by default"
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    asked = parser.parse_args()
    collect_seldom()  # As the programs do.
    names: list[str] = asked.names or list(BENCHES)
    if asked.agents:
        control.AGENTS = control.QUICK_AGENTS = orders.AGENTS = orders.QUICK_AGENTS = asked.agents
        cluster.AGENTS = cluster.QUICK_AGENTS = asked.agents
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"there is no bench `{unknown[0]}`; wanted one of `{'`, `'.join(BENCHES)}`")
    if set(names) - WITHOUT_ROOT and missing():
        print(f"tests.bench: {missing()}", file=sys.stderr)
        return 3
    # What was made is taken away on the way out, whoever ends us.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    return _run(names, Scale(asked.quick), to_page=asked.write or not asked.quick, as_json=asked.output == "json")


def _run(names: list[str], scale: Scale, *, to_page: bool, as_json: bool) -> int:
    progress, machine = Progress(), this_machine()
    progress.say(machine.text())
    if set(names) - WITHOUT_ROOT and (left := sweep()):
        progress.say(f"took away what a killed run left: {', '.join(left)}")
    told: list[dict[str, object]] = []
    for name in names:
        began = time.monotonic()
        section = BENCHES[name](scale, progress)
        seconds = time.monotonic() - began
        progress.say(f"{name}: done in {seconds:.0f} s")
        if as_json:
            told.append({**asdict(section), "seconds": seconds})
        else:
            print(plain(section), flush=True)
        if to_page:
            command = f"sudo .venv/bin/python -m tests.bench {name}" + (" --quick --write" if scale.quick else "")
            write(section, markdown(section, machine, command, seconds, quick=scale.quick))
    if as_json:
        print(json.dumps({"machine": asdict(machine), "quick": scale.quick, "sections": told}, default=str, indent=1))
    if to_page:
        progress.say(f"written to {PAGE.relative_to(ROOT)}")
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
