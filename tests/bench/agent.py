"""What the agent costs its host: memory and processor, at rest and while connections come."""

from __future__ import annotations

import time

from tests.bench.hosted import Hosted, hosted
from tests.bench.measure import Progress, Scale, Section, Table, Target
from tests.bench.traffic import accept_and_close, paced
from tests.bench.worlds import PORTS, point_of

MEMORY_MIB, IDLE_PERCENT, RATE = 30.0, 0.1, 1_000
SIZES = ((100, 100), (100_000, 1_000))


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    rows: list[tuple[str, ...]] = []
    figures: dict[str, object] = {}
    targets: list[Target] = []
    for peers, rules in SIZES:
        what = f"{peers:,} peers, {rules:,} rules"
        with hosted() as host:
            host.hold(point_of(peers, rules))
            small = (peers, rules) == SIZES[0]
            # What follows the start (a first verify, the facts) is not rest.
            time.sleep(scale.of(8, 4))
            idle_s = scale.of(60, 20) if small else scale.of(30, 5)
            progress.say(f"agent: at rest for {idle_s:.0f} s, with {what}")
            idle, memory = _percent(host, idle_s), host.memory()
            figures[what] = {"idle %": idle, "MiB": memory}
            rows.append((f"at rest, {what}", f"{idle:.3f}", _mib(memory), ""))
            if small:
                targets += _targets(idle, memory, scale)
                seconds = scale.of(30, 5)
                progress.say(f"agent: {RATE:,} connections a second for {seconds:.0f} s")
                rows.append(_busy(host, seconds, figures))
    note = (
        "A real agent that collects every 2 s, with its controller over TLS in another namespace. Processor is per "
        "cent of one core, of the agent and all it starts. Memory is what is resident (at the peak; without the pages "
        "of programs and libraries, which processes share). Counted is how many of the connections the controller "
        "heard of."
    )
    table = Table("The agent", ("state", "processor, %", "memory, MiB", "counted"), tuple(rows), note)
    return Section("agent", "The agent: what it costs its host", (table,), tuple(targets), figures)


def _busy(host: Hosted, seconds: float, figures: dict[str, object]) -> tuple[str, ...]:
    host.far.start(accept_and_close, PORTS[0])
    host.far.wait_for_port(PORTS[0])
    before = sum(one.connections for one in host.control.flows())
    began, spent = time.perf_counter(), host.cpu_s()
    made = host.near.call(paced, str(host.far.v4), PORTS[0], RATE, seconds)
    busy = 100 * (host.cpu_s() - spent) / (time.perf_counter() - began)
    memory = host.memory()
    # Two collections, so that the last connections are told.
    time.sleep(5)
    counted = sum(one.connections for one in host.control.flows()) - before
    figures[f"{RATE} a second"] = {"%": busy, "MiB": memory, "made": made, "counted": counted}
    rate = made / seconds
    return f"{rate:,.0f} new connections a second", f"{busy:.2f}", _mib(memory), f"{counted:,} of {made:,}"


def _percent(host: Hosted, seconds: float) -> float:
    began, spent = time.perf_counter(), host.cpu_s()
    time.sleep(seconds)
    return 100 * (host.cpu_s() - spent) / (time.perf_counter() - began)


def _targets(idle: float, memory: dict[str, float], scale: Scale) -> tuple[Target, ...]:
    return (
        Target("the agent's memory at rest", f"≤ {MEMORY_MIB:.0f} MiB", f"{memory['VmRSS']:.1f} MiB",
               memory["VmRSS"] <= MEMORY_MIB),
        Target("the agent's processor at rest", f"≤ {IDLE_PERCENT} %", f"{idle:.3f} %",
               None if scale.quick else idle <= IDLE_PERCENT),
    )  # fmt: skip


def _mib(memory: dict[str, float]) -> str:
    return f"{memory['VmRSS']:.1f} ({memory['VmHWM']:.1f}; {memory['RssAnon']:.1f})"
