"""The control plane at ten thousand agents: memory, a storm of connections, edits, labels, flows, on two cores."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from tests.bench.control_world import Asker, Boss, Problem, Sim, world
from tests.bench.measure import Progress, Scale, Section, Table, Target, quantile

AGENTS, QUICK_AGENTS = 10_000, 500
EDITS = {"1 %": "one", "10 %": "ten", "100 %": "all"}
WANTED_S = {"1 %": 1.0, "100 %": 3.0}
STORM_S, EDIT_S = 240.0, 90.0


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    agents = scale.count(AGENTS, QUICK_AGENTS)
    rounds = scale.count(3, 1)
    figures: dict[str, object] = {"agents": agents}
    each = math.nan
    rows: dict[str, list[tuple[str, ...]]] = {"storm": [], "edits": [], "flows": []}
    targets: list[Target] = []
    progress.say(f"control: {agents:,} agents are prepared")
    with world(agents) as (boss, sim):
        said = Said()
        _apply(boss, said, 0.0)
        time.sleep(2)
        before = boss.memory()
        for what in ("all at once, and nothing held", "all again, as after a network is back"):
            progress.say(f"control: {what}")
            rows["storm"].append(_storm(boss, sim, what, figures))
            if what.startswith("all at once"):
                time.sleep(3)
                each = (boss.memory()["RssAnon"] - before["RssAnon"]) * 1024 / agents
                figures["KiB an agent"] = each
            if not rows["edits"]:
                rows["edits"] += _edits(boss, sim, said, rounds, progress, figures, targets, scale)
            sim.tell(do="drop")
            time.sleep(2)
        sim.tell(do="connect")
        _await(sim, agents, STORM_S)
        for size in (10, 200):
            progress.say(f"control: flows, {size} to a batch")
            rows["flows"].append(_flows(boss, sim, size, scale.of(10, 4), figures))
        left = sim.look()
        rest = boss.memory()
    storm = Table(
        f"A storm: {agents:,} agents connect at once",
        ("what", "half welcomed, s", "all but 1 %, s", "all, s", "tries that failed", "controller, CPU-s",
         "agents, CPU-s", "a person's question, p50 ms", "the longest, ms"),
        tuple(rows["storm"]),
        "TLS 1.3 with a certificate each, no session resumed; then hello, facts, and what each is to hold. An agent "
        "that is not welcomed within 10 s tries again as the real one does. Meanwhile somebody asks for the list of "
        "revisions five times a second.",
    )  # fmt: skip
    edits = Table(
        "From an edit to the receipts",
        ("touched", "agents", "asked → decided, s", "p50, s", "p99, s", "the last, s", "controller, CPU-s"),
        tuple(rows["edits"]),
        "An edit of one rule, confirmed by every agent before it counts (two receipts each). The times are from the "
        "revision's own moment to the receipt `enforced`, both by the controller's clock; before that, the plan, "
        "the tests and the replay are made: asked → decided. Every agent works out the digest of what it gets. When "
        "there is nothing else to do its signature is verified, and one in fifty reads it as the real one does and "
        "compares: a real agent has a processor of its own for that, 0.1 ms and more each. For a label, one "
        "workload is given another role.",
    )
    flows = Table(
        "Flow batches accepted",
        ("rows a batch", "batches a second", "rows a second", "controller, cores"),
        tuple(rows["flows"]),
        "Every agent keeps two batches under way; counted is what the controller has stored and said so.",
    )
    memory = Table(
        "Memory of the controller",
        ("state", "MiB"),
        (
            ("before anybody connects", f"{before['RssAnon']:.0f}"),
            ("for each agent that is connected and holds its policy", f"{each / 1024:.3f}"),
            ("at the end of all this", f"{rest['RssAnon']:.0f}"),
        ),
        "`RssAnon`; the processes of the flow store and of the agents are not in it.",
    )  # fmt: skip
    if left["up"] != agents:
        raise Problem(f"{left['up']} of {agents} agents are connected: {left['why']}")
    if left["undone"]:
        raise Problem(f"{left['undone']} bundles are not verified and compared yet")
    figures["signatures verified"], figures["read in full"] = left["verified"], left["compared"]
    title = f"The control plane: {agents:,} agents on one controller"
    return Section("control", title, (storm, edits, flows, memory), tuple(targets), figures)


class Said:
    """The policy that is edited: one number for each rule that is changed."""

    def __init__(self) -> None:
        self.ports = {"one": 9000, "ten": 9000, "all": 9000}

    def text(self) -> str:
        """Write it."""
        return f"""
services: {{web: [tcp/80, tcp/443], api: tcp/8080, pg: tcp/5432}}
rules:
  - {{id: clients-to-web, allow: web, from: any, to: role=web}}
  - {{id: web-to-api, allow: api, from: role=web, to: role=api, same: [app]}}
  - {{id: api-to-db, allow: pg, from: role=api, to: role=db, same: [app]}}
  - {{id: monitor, allow: tcp/9100, from: role=monitor, to: any}}
  - {{id: one, allow: tcp/{self.ports["one"]}, from: "app=a3,role=monitor", to: "app=a3,role=monitor"}}
  - {{id: ten, allow: tcp/{self.ports["ten"]}, from: app=a3, to: app=a3}}
  - {{id: all, allow: tcp/{self.ports["all"]}, from: role=monitor, to: any}}
modes:
  - {{where: "", mode: enforce}}
"""


def _apply(boss: Boss, said: Said, confirm_s: float) -> int:
    body = {"documents": {"policy.yaml": said.text()}, "confirm_s": confirm_s}
    return int(boss.ask("POST", "/policy/apply", body)["revision"])


def _await(sim: Sim, agents: int, patience_s: float, revision: int | None = None) -> Mapping[str, Any]:
    """Wait until all are connected and hold something, or hold `revision`."""
    until = time.monotonic() + patience_s
    while True:
        told = sim.look()
        holding = told["holding"].get(str(revision), 0) if revision else agents - told["holding"].get("0", 0)
        if told["up"] == agents and holding >= agents:
            return told
        if time.monotonic() > until:
            raise Problem(f"after {patience_s:g} s: {told['stages']}, holding {told['holding']}, {told['why']}")
        time.sleep(0.1)


def _storm(boss: Boss, sim: Sim, what: str, figures: dict[str, object]) -> tuple[str, ...]:
    cpu, own = boss.cpu_s(), float(sim.look()["cpu_s"])
    asker = Asker(boss)
    with asker.asking():
        sim.tell(do="connect")
        told = _await(sim, sim.count, STORM_S)
    welcomed: list[float] = told["welcomed"]
    tries = sum(count for _, count in told["why"])
    seconds = [quantile(welcomed, share) for share in (0.5, 0.99, 1.0)]
    used, theirs = boss.cpu_s() - cpu, float(told["cpu_s"]) - own
    asked = [quantile(asker.took, 0.5) * 1000, max(asker.took, default=math.nan) * 1000]
    figures[what] = {"welcomed s": seconds, "failed": tries, "CPU-s": used, "asked ms": asked, "why": told["why"]}
    return (
        what, *(f"{one:.1f}" for one in seconds), str(tries), f"{used:.1f}", f"{theirs:.1f}",
        f"{asked[0]:.0f}", f"{asked[1]:.0f}",
    )  # fmt: skip


def _edits(
    boss: Boss,
    sim: Sim,
    said: Said,
    rounds: int,
    progress: Progress,
    figures: dict[str, object],
    targets: list[Target],
    scale: Scale,
) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for share, word in EDITS.items():
        took: list[float] = []
        decided: list[float] = []
        last: list[float] = []
        cpu = 0.0
        for number in progress.over(f"control: edits that touch {share}", rounds):
            said.ports[word] += 1
            time.sleep(1)
            used, began = boss.cpu_s(), time.time()
            revision = _apply(boss, said, 30.0)
            lags = _receipts(boss, revision, began)
            cpu += boss.cpu_s() - used
            decided.append(lags.pop("decided"))
            took += lags.values()
            last.append(max(lags.values(), default=math.nan))
            del number
        p50, p99 = quantile(took, 0.5), quantile(took, 0.99)
        figures[f"edit {share}"] = {"p50": p50, "p99": p99, "last": last, "decided": decided, "agents": len(took)}
        each = len(took) // max(1, len(last))
        rows.append((share, f"{each:,}", f"{max(decided):.2f}", f"{p50:.2f}", f"{p99:.2f}", f"{max(last):.2f}",
                     f"{cpu / rounds:.2f}"))  # fmt: skip
        if share in WANTED_S:
            met = None if scale.quick else p99 < WANTED_S[share]
            targets.append(Target(f"an edit that touches {share}: to the receipts, p99", f"< {WANTED_S[share]:g} s",
                                  f"{p99:.2f} s", met))  # fmt: skip
    rows.append(_label(boss, figures))
    return rows


def _receipts(boss: Boss, revision: int, began: float) -> dict[str, float]:
    """Wait for a revision to be in force, and give how long after its moment each agent's last receipt came."""
    until = time.monotonic() + EDIT_S
    while boss.ask("GET", "/policy/revisions")["items"][0]["state"] in ("rolling", "proposed"):
        if time.monotonic() > until:
            raise Problem(f"revision {revision} is not in force after {EDIT_S:g} s")
        time.sleep(0.25)
    with sqlite3.connect(f"file:{boss.folder / 'data' / 'state.db'}?mode=ro", uri=True) as store:
        (created,) = store.execute("select created from revisions where number = ?", (revision,)).fetchone()
        found = store.execute("select workload, max(at) from receipts where at >= ? group by workload", (created,))
        return {"decided": created - began, **{name: at - created for name, at in found}}


def _label(boss: Boss, figures: dict[str, object]) -> tuple[str, ...]:
    """Give one workload another role; all who speak of the roles hear of it."""
    used, began = boss.cpu_s(), time.time()
    boss.ask("PUT", "/labels/w00013", {"labels": {"role": "db"}, "dry_run": False})
    told = time.time()
    time.sleep(5)
    with sqlite3.connect(f"file:{boss.folder / 'data' / 'state.db'}?mode=ro", uri=True) as store:
        found = store.execute("select workload, max(at) from receipts where at >= ? group by workload", (began,))
        took = [at - began for _, at in found]
    p50, p99 = quantile(took, 0.5), quantile(took, 0.99)
    figures["label"] = {"p50": p50, "p99": p99, "agents": len(took)}
    return (
        "a label", f"{len(took):,}", f"{told - began:.2f}", f"{p50:.2f}", f"{p99:.2f}",
        f"{max(took, default=math.nan):.2f}", f"{boss.cpu_s() - used:.2f}",
    )  # fmt: skip


def _flows(boss: Boss, sim: Sim, size: int, seconds: float, figures: dict[str, object]) -> tuple[str, ...]:
    sim.tell(do="flows", rows=size, under_way=2)
    time.sleep(2)
    first, used, began = sim.look(), boss.cpu_s(), time.monotonic()
    time.sleep(seconds)
    second, took = sim.look(), time.monotonic() - began
    cores = (boss.cpu_s() - used) / took
    rate = (second["told"].get("taken", 0) - first["told"].get("taken", 0)) / took
    sim.tell(do="flows", rows=size, under_way=0)
    time.sleep(2)
    figures[f"flows of {size}"] = {"batches/s": rate, "cores": cores}
    return f"{size}", f"{rate:,.0f}", f"{rate * size:,.0f}", f"{cores:.2f}"
