"""The demonstration's eyes: the fleet comes up, its traffic is seen, labels are proposed, the map is drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cellwall.cli.demo.stage import Stage
from cellwall.cli.maps.command import GROUPING, read_map
from cellwall.cli.maps.svg import draw_svg
from cellwall.cli.maps.text import draw_text
from cellwall.cli.output import Steps
from cellwall.clients import Api
from cellwall.lab import Scenario, TrafficReport, traffic_report, up

TITLE = "Who talks to whom, and what becomes of it"
SEEN_WITHIN_S, NOTHING_NEW_S = 100.0, 6.0
"""A server that hands out ports in turn has to come round once, or its range cannot be known."""
RIGHT_LABELS = 0.8
_LOOK_EVERY_S, _TELL_EVERY_S = 0.5, 10.0


@dataclass
class World:
    """What is played with: the scenario, its controller, and what was counted when the story began."""

    scenario: Scenario
    api: Api
    mark: TrafficReport
    files: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def lab(self) -> str:
        """The lab's name."""
        return self.scenario.lab

    @property
    def agents(self) -> int:
        """How many workloads have an agent."""
        return sum(one.agent for one in self.scenario.workloads)


def until(true: Callable[[], bool], within_s: float, every_s: float = _LOOK_EVERY_S) -> bool:
    """Wait until something is true; say whether it became so within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)
    return True


def bring_up(stage: Stage, scenario: Scenario) -> World:
    """Bring the fleet up, with its controller and its agents."""
    stage.step("A fleet comes up")
    state = up(scenario, Steps())
    assert state.socket is not None, "the lab was asked for a controller"
    world = World(scenario, Api(state.socket), traffic_report(scenario.lab))
    there = until(lambda: world.api.get("status")["agents"]["connected"] == world.agents, 30.0)
    count = world.api.get("status")["agents"]["connected"]
    stage.say(f"{len(scenario.workloads)} network namespaces, real services and clients, IPv4 and IPv6")
    stage.promise("every agent is connected", there, f"{count} of {world.agents}")
    stage.number("workloads", len(scenario.workloads))
    # The agents' coming must not have disturbed anybody either; what failed while services started does not count.
    world.mark = traffic_report(scenario.lab)
    return world


def see_traffic(stage: Stage, world: World) -> None:
    """Watch until every conversation of the fleet is known and, for a while, nothing new is said."""
    stage.step("Its traffic is seen")
    calls = {(call.caller, call.to, call.service, call.family) for call in world.mark.calls}
    expected = {key for call in calls for key in _keys(world.scenario, *call)}
    known: set[tuple[str, str, str]] = set()
    news = told = time.monotonic()
    deadline = news + SEEN_WITHIN_S
    while time.monotonic() < deadline:
        flows = world.api.items("flows", limit=5000)
        before, known = len(known), {(one["source"], one["destination"], one["service"]) for one in flows}
        now = time.monotonic()
        news = now if len(known) > before else news
        if expected <= known and now - news > NOTHING_NEW_S:
            break
        if now - told > _TELL_EVERY_S:
            told = now
            stage.say(
                f"{stage.clock()}  {len(known)} distinct flows, {len(expected & known)} of {len(expected)} expected"
            )
        time.sleep(1.0)
    missing = sorted(" ".join(one) for one in expected - known)
    seen = f"{len(expected) - len(missing)} of {len(expected)}"
    seen += f"; not seen: {', '.join(missing[:5])}" if missing else f", and nothing new for {NOTHING_NEW_S:.0f} s"
    stage.promise("every conversation of the fleet is seen", not missing, seen)
    stage.number("conversations, distinct flows seen", f"{len(expected)}, {len(known)}")


def _keys(scenario: Scenario, caller: str, to: str, service: str, family: int) -> list[tuple[str, str, str]]:
    one, other = scenario.workload(caller), scenario.workload(to)
    offered = other.service(service) if other else None
    if one is None or other is None or offered is None or not (one.agent or other.agent):
        return []
    ends = [next((a for a in w.addresses if a.version == family), None) for w in (one, other)]
    if None in ends or one is other:
        return []
    return [(str(ends[0]), str(ends[1]), f"{offered.protocol}/{offered.port}")]


def accept_labels(stage: Stage, world: World) -> None:
    """Have labels proposed from what was seen, accept them, and correct by hand what is not right."""
    stage.step("Labels are proposed and accepted")
    truth = {(w.name, key): value for w in world.scenario.workloads for key, value in w.truth.items() if w.truth}
    given = {(w.name, key) for w in world.scenario.workloads for key in w.labels}
    proposed: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in range(3):  # what was accepted is ground for more
        fresh = world.api.post("label-proposals", "accept", body={"all": True})["accepted"]
        proposed |= {(one["workload"], one["key"]): one for one in fresh}
        if not fresh:
            break
    for one in list(proposed.values())[:6]:
        stage.say(f"{one['workload']}: {one['key']}={one['value']} ({one['confidence']:.0%}) {one['reasons'][0]}")
    wanted = {at: value for at, value in truth.items() if at not in given}
    right = sum(at in proposed and proposed[at]["value"] == value for at, value in wanted.items())
    seen = f"{len(proposed)} proposed; {right} of {len(wanted)} that were wanted are right"
    stage.promise("most labels need no hand", right >= RIGHT_LABELS * len(wanted), seen)
    current = {one["name"]: one["labels"] for one in world.api.items("workloads")}
    corrected = 0
    for workload in world.scenario.workloads:
        has = current.get(workload.name)
        if has is None:
            continue
        wrong = {key: value for key, value in workload.truth.items() if has.get(key) != value}
        if wrong:
            world.api.put("labels", workload.name, body={"labels": wrong})
            corrected += len(wrong)
            stage.say(f"by hand: {workload.name} gets " + ",".join(f"{k}={v or ''}" for k, v in wrong.items()))
    stage.number("labels proposed, accepted, corrected", f"{len(proposed)}, {len(proposed)}, {corrected}")


def draw_the_map(stage: Stage, world: World) -> None:
    """Draw the map, here and as a picture."""
    stage.step("The map")
    drawn = read_map(world.api.get("map", group=GROUPING), world.api.get("status"))
    for line in draw_text(drawn, max(80, min(stage.console.width - 4, 120))):
        stage.say(line)
    path = stage.write("map.svg", draw_svg(drawn, TITLE))
    stage.promise("the map is drawn", bool(drawn.edges), f"{len(drawn.groups)} groups; as a picture in {path}")


def redraw_the_map(stage: Stage, world: World) -> None:
    """Draw the picture once more, with what was denied in it."""
    drawn = read_map(world.api.get("map", group=GROUPING), world.api.get("status"))
    stage.say(f"the picture in {stage.write('map.svg', draw_svg(drawn, TITLE))} shows what was denied too")


def nobody_noticed(stage: Stage, world: World) -> None:
    """Compare the legitimate requests with those at the beginning: none may have failed."""
    stage.step("Nobody noticed")
    time.sleep(2.5)  # callers report every second
    report = traffic_report(world.lab).since(world.mark)
    worst = "; ".join(
        f"{call.caller} → {call.to} {call.service}: {call.failed} failed"
        + (f" ({call.failures[-1][1]})" if call.failures else "")
        for call in report.troubled()[:3]
    )
    seen = f"{report.attempts} requests since the fleet came up, {report.failed} failed"
    stage.promise("no legitimate request failed", not report.failed, seen + (f": {worst}" if worst else ""))
    stage.number("legitimate requests, failed", f"{report.attempts}, {report.failed}")
