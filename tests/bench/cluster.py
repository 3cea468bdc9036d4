"""Three controllers on one PostgreSQL, with ten thousand agents: a storm, edits, one that is killed, flows of all."""

from __future__ import annotations

import time
from collections import Counter

from tests.bench.cluster_world import Trio, trio, within
from tests.bench.control import AGENTS as ALL
from tests.bench.control import EDIT_S, STORM_S, Said
from tests.bench.control_world import Boss, Problem
from tests.bench.measure import Progress, Scale, Section, Table, Target, quantile

AGENTS, QUICK_AGENTS = ALL, 600
EDITS = {"1 %": "one", "100 %": "all"}
FLOW_ROWS = 20
WANTED_TAKEOVER_S, WANTED_BACK_S = 3.0, 30.0


def run(scale: Scale, progress: Progress) -> Section:
    """Measure."""
    agents = scale.count(AGENTS, QUICK_AGENTS)
    figures: dict[str, object] = {"agents": agents}
    said, targets = Said(), list[Target]()
    progress.say(f"cluster: {agents:,} agents are prepared")
    with trio(agents) as world:
        _apply(world.alive[0], said, 0.0)
        time.sleep(2)
        progress.say("cluster: all agents connect")
        storm = _storm(world, figures)
        edits: list[tuple[str, ...]] = []
        for share in EDITS:
            progress.say(f"cluster: edits that touch {share}")
            edits.append(_edit(world, share, said, scale.count(3, 1), figures))
        progress.say("cluster: flows")
        flows = _flows(world, scale.of(10, 4), figures)
        progress.say("cluster: the leader is killed")
        killed = _takeover(world, said, figures)
        targets += (
            _target("the leader is killed: another leads", WANTED_TAKEOVER_S, killed[0], scale),
            _target("the leader is killed: all its agents are back", WANTED_BACK_S, killed[1], scale),
        )
        missing = ", ".join(_missing(world.alive[0]))
        fewer = _ask_all(world.alive[0], figures, "two")
        left = world.sim.look()
    figures["signatures verified"], figures["read in full"] = left["verified"], left["compared"]
    tables = (
        Table(
            f"A storm: {agents:,} agents connect at once, a third to each controller",
            ("half welcomed, s", "all but 1 %, s", "all, s", "tries that failed", "the three controllers, CPU-s"),
            (storm,),
            "All on the same two cores: the controllers, their flow stores, PostgreSQL (with fsync) and the agents.",
        ),
        Table(
            "From an edit at one controller to the receipts of all",
            ("touched", "agents", "asked → decided, s", "p50, s", "p99, s", "the last, s", "controllers, CPU-s"),
            tuple(edits),
            "As with one controller; the receipts are written by whichever controller the agent is connected to.",
        ),
        Table(
            "`kill -9` of the leader",
            ("what", "seconds"),
            (
                ("another controller leads", f"{killed[0]:.2f}"),
                ("its agents are connected to the others, all of them", f"{killed[1]:.2f}"),
                ("an edit made at once is decided", f"{killed[2]:.2f}"),
                ("that edit is in force, on all that it touches (1 %)", f"{killed[3]:.2f}"),
            ),
            "From the signal on; the edit is asked for as soon as another controller leads. Agents come again after a "
            "pause of half a second to a second, which doubles where they are not welcomed in time.",
        ),
        Table(
            "Questions about the flows of all three, put to one",
            ("question", "with three, s", "with one of them killed, s"),
            (
                *((what, f"{took:.2f}", f"{fewer[what]:.2f}") for what, took in flows.items()),
                ("missing, says the answer", "nobody", missing),
            ),
            "The slowest of three. Every controller keeps the flows of its own agents.",
        ),
    )
    return Section(
        "cluster", f"Three controllers on one PostgreSQL: {agents:,} agents", tables, tuple(targets), figures
    )


def _target(what: str, wanted_s: float, took_s: float, scale: Scale) -> Target:
    return Target(what, f"< {wanted_s:g} s", f"{took_s:.2f} s", None if scale.quick else took_s < wanted_s)


def _apply(boss: Boss, said: Said, confirm_s: float) -> int:
    body = {"documents": {"policy.yaml": said.text()}, "confirm_s": confirm_s}
    return int(boss.ask("POST", "/policy/apply", body)["revision"])


def _storm(world: Trio, figures: dict[str, object]) -> tuple[str, ...]:
    used = world.cpu_s()
    world.sim.tell(do="connect")

    def there() -> bool:
        told = world.sim.look()
        return told["up"] == world.sim.count and not told["holding"].get("0", 0)

    within(STORM_S, there, "all agents connected, holding a policy", 0.2)
    told = world.sim.look()
    welcomed: list[float] = told["welcomed"]
    tries = sum(count for _, count in told["why"])
    seconds = [quantile(welcomed, share) for share in (0.5, 0.99, 1.0)]
    cpu = world.cpu_s() - used
    each = dict(Counter(str(one) for (one,) in world.rows("select controller from presence")))
    figures["storm"] = {"welcomed s": seconds, "failed": tries, "CPU-s": cpu, "why": told["why"], "agents": each}
    return (*(f"{one:.1f}" for one in seconds), str(tries), f"{cpu:.1f}")


def _edit(world: Trio, share: str, said: Said, rounds: int, figures: dict[str, object]) -> tuple[str, ...]:
    took: list[float] = []
    decided: list[float] = []
    last: list[float] = []
    cpu = 0.0
    for number in range(rounds):
        said.ports[EDITS[share]] += 1
        time.sleep(2)
        used, began = world.cpu_s(), time.time()
        revision = _apply(world.alive[number % len(world.alive)], said, 30.0)
        created, lags = _in_force(world, world.alive[0], revision)
        cpu += world.cpu_s() - used
        decided.append(created - began)
        took += lags
        last.append(max(lags))
    p50, p99 = quantile(took, 0.5), quantile(took, 0.99)
    figures[f"edit {share}"] = {"p50": p50, "p99": p99, "last": last, "decided": decided, "agents": len(took)}
    return (
        share, f"{len(took) // rounds:,}", f"{max(decided):.2f}", f"{p50:.2f}", f"{p99:.2f}", f"{max(last):.2f}",
        f"{cpu / rounds:.2f}",
    )  # fmt: skip


def _in_force(world: Trio, boss: Boss, revision: int) -> tuple[float, list[float]]:
    """Wait for a revision to be in force; give its moment, and how long after it each agent's last receipt came."""

    def good() -> bool:
        newest = boss.ask("GET", "/policy/revisions")["items"][0]
        return newest["revision"] == revision and newest["state"] not in ("rolling", "proposed")

    within(EDIT_S, good, f"revision {revision} in force", 0.1)
    time.sleep(1)
    created = float(world.rows("select created from revisions where number = %s", revision)[0][0])
    found = world.rows("select max(at) from receipts where at >= %s group by workload", created)
    if not found:
        raise Problem(f"nobody has confirmed revision {revision}")
    return created, [float(at) - created for (at,) in found]


def _flows(world: Trio, seconds: float, figures: dict[str, object]) -> dict[str, float]:
    """Let agents tell flows, and ask for those of all."""
    world.sim.tell(do="flows", rows=FLOW_ROWS, under_way=1)
    time.sleep(seconds)
    taken = world.sim.look()["told"].get("taken", 0)
    world.sim.tell(do="flows", rows=FLOW_ROWS, under_way=0)
    time.sleep(4)
    figures["flow records"] = taken * FLOW_ROWS
    boss = world.alive[0]
    if _missing(boss):
        raise Problem("a controller that runs is missing in an answer")
    return _ask_all(boss, figures, "three")


def _ask_all(boss: Boss, figures: dict[str, object], how: str) -> dict[str, float]:
    documents = boss.ask("GET", "/policy")["documents"]
    asked = {
        "`flows`, the last 200": ("GET", "/flows?limit=200", None),
        "`flows --outcome denied`": ("GET", "/flows?outcome=denied&limit=200", None),
        "`map`": ("GET", "/map", None),
        "`replay` of the policy in force": ("POST", "/replay", {"documents": documents}),
        "`status`": ("GET", "/status", None),
    }
    took: dict[str, float] = {}
    for what, (method, path, body) in asked.items():
        for _ in range(3):
            began = time.perf_counter()
            answer = boss.ask(method, path, body)
            took[what] = max(took.get(what, 0.0), time.perf_counter() - began)
            if path == "/replay":
                figures[f"replayed, {how}"] = answer["checked"]
    figures[f"questions, {how}"] = took
    return took


def _missing(boss: Boss) -> list[str]:
    return [one["name"] for one in boss.ask("GET", "/flows?limit=1").get("missing_controllers", ())]


def _takeover(world: Trio, said: Said, figures: dict[str, object]) -> tuple[float, float, float, float]:
    leader = world.leader()
    if leader is None:
        raise Problem("nobody leads")
    said.ports["one"] += 1
    began = time.monotonic()
    world.kill(leader)
    within(30, world.leader, "that another leads")
    led = time.monotonic() - began
    asked = time.time()
    revision = _apply(world.alive[0], said, 30.0)
    created = float(world.rows("select created from revisions where number = %s", revision)[0][0])
    within(STORM_S, lambda: world.sim.look()["up"] == world.sim.count, "all agents connected again")
    back = time.monotonic() - began
    _, lags = _in_force(world, world.alive[0], revision)
    figures["takeover"] = {"led s": led, "back s": back, "decided s": created - asked, "receipts s": sorted(lags)[-5:]}
    return led, back, created - asked, max(lags)
