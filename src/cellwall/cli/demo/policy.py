"""The demonstration's policy: proposed, replayed, enforced; and two bad ones that do not get far."""

from __future__ import annotations

import time
from typing import Any

from cellwall.cli.demo.sight import World, until
from cellwall.cli.demo.stage import Stage
from cellwall.cli.rollout import settle
from cellwall.lab import traffic_report

CONFIRM_S = 8.0
SETTLED_WITHIN_S = 30.0
QUIET_S = 3.0
MODES = """modes:
  - {where: "", mode: enforce}
"""
TESTS = """tests:
  - id: api-reaches-its-database
    from: app=shop,role=api,env=prod
    can: tcp/5432
    to: app=shop,role=db,env=prod
    canary: true
  - id: web-stays-out-of-the-database
    from: role=web
    cannot: tcp/5432
    to: role=db
"""
DENY_ALL = """rules:
  - {id: nobody-to-nobody, deny: any, from: any, to: any, reason: a mistake}
"""


def propose(stage: Stage, world: World) -> dict[str, str]:
    """Have a policy proposed, and add what a person adds: that it is enforced, and what must stay true."""
    stage.step("A policy is proposed")
    answer = world.api.post("policy", "suggest", body={"level": "exact"})
    documents: dict[str, str] = answer["documents"]
    rules = answer["rules"]
    for one in rules[:8]:
        stage.say(f"{one['id']}: justified by {len(one['flows'])} flows")
    if len(rules) > 8:
        stage.say(f"and {len(rules) - 8} more")
    text = "".join(documents.values())
    stage.write("policy.yaml", text)
    covered, wide = answer["coverage"]["share"], answer["over_permission"]
    seen = f"{len(rules)} rules for {covered:.0%} of what was seen, {wide:.1f} ways open for each that was seen"
    stage.promise("a policy is proposed", bool(rules), seen)
    stage.number("rules proposed", len(rules))
    return {**documents, "modes.yaml": MODES, "tests.yaml": TESTS}


def replay_draft(stage: Stage, world: World, documents: dict[str, str]) -> None:
    """Replay all that was seen against the draft, enforced."""
    stage.step("What would it break?")
    answer = world.api.post("replay", body={"documents": documents})
    cut = "; ".join(
        " → ".join(one[f"{end}_workload"] or one[end] for end in ("source", "destination")) + f" {one['service']}"
        for one in answer["cut"][:5]
    )
    seen = f"{answer['checked']} distinct flows replayed, {answer['cut_count']} cut" + (f": {cut}" if cut else "")
    stage.promise("the draft would cut nothing that was seen", answer["checked"] > 0 and not answer["cut_count"], seen)
    stage.number("flows replayed, cut", f"{answer['checked']}, {answer['cut_count']}")


def enforce(stage: Stage, world: World, documents: dict[str, str]) -> None:
    """Enforce the draft everywhere, to be confirmed by every agent."""
    stage.step("It is enforced")
    began = time.monotonic()
    state = _apply(world, documents, "what was seen, and nothing else")
    took = time.monotonic() - began
    held = sum(one["state"] == "enforced" for one in state["items"])
    seen = f"{held} of {len(state['items'])} points in {took:.1f} s; {_trouble(state)}".rstrip("; ")
    stage.promise("every point enforces it and has confirmed", state["state"] == "good" and held == world.agents, seen)
    modes = world.api.get("status")["modes"]
    stage.promise("all of them drop what is not named", modes == {"enforce": world.agents}, str(modes))
    stage.number("seconds until enforced everywhere", f"{took:.1f}")
    world.files = documents


def bad_policy_takes_itself_back(stage: Stage, world: World, documents: dict[str, str]) -> None:
    """Apply a policy that is right on paper and wrong in the world: its canaries tell, and agents undo it alone."""
    stage.step("A bad policy takes itself back")
    stage.say("the database is to move from port 5432 to 5433; somebody applies the new policy before it has moved")
    bad = {name: text.replace("tcp/5432", "tcp/5433") for name, text in documents.items()}
    began = time.monotonic()
    revision = world.api.post("policy", "apply", body={"documents": bad, "confirm_s": CONFIRM_S})["revision"]
    state = settle(world.api, revision, SETTLED_WITHIN_S)
    stage.promise("it fails, by the agents' own word", state["state"] == "failed", state["reason"] or state["state"])
    back = until(lambda: _enforced_everywhere(world), SETTLED_WITHIN_S, 0.2)
    took = time.monotonic() - began
    stage.promise("the last good policy is back everywhere", back, f"{took:.1f} s after it was applied")
    stage.promise("the fleet is well again", *_well(world))
    stage.number("seconds until the bad policy was gone", f"{took:.1f}")


def lifeline_holds(stage: Stage, world: World) -> None:
    """Deny everything to everybody: the agents must still hear their controller, and take the way back."""
    stage.step("A policy that denies everything, and the lifeline that no policy can cut")
    before = world.api.get("policy")["revision"]
    everything = {"everything.yaml": DENY_ALL, "modes.yaml": MODES}
    state = _apply(world, everything, "a mistake")
    stage.say(f"`deny: any` from any to any is enforced by {_count(state, 'enforced')} of {world.agents} points")
    answer = world.api.get("why", source="web-1", destination=str(world.scenario.controllers[0]), port="tcp/7443")
    rules = [one["id"] for one in answer["egress"]["rules"]]
    seen = f"{answer['outcome']} by {', '.join(rules)}"
    stage.promise("the agents' way to the controller stays open", answer["outcome"] == "allowed", seen)
    connected = world.api.get("status")["agents"]["connected"]
    stage.promise("every agent still answers", connected == world.agents, f"{connected} of {world.agents}")
    revision = world.api.post("policy", "revert", body={"to": before, "note": "that was a mistake"})["revision"]
    state = settle(world.api, revision, SETTLED_WITHIN_S)
    stage.promise("and takes the way back", state["state"] == "good", f"revision {revision} is {state['state']}")
    stage.promise("the fleet is well again", *_well(world))


def _apply(world: World, documents: dict[str, str], note: str) -> dict[str, Any]:
    body = {"documents": documents, "note": note, "confirm_s": CONFIRM_S}
    revision = world.api.post("policy", "apply", body=body)["revision"]
    return settle(world.api, revision, SETTLED_WITHIN_S)


def _enforced_everywhere(world: World) -> bool:
    state = world.api.get("policy", "rollout")
    return state["state"] == "good" and _count(state, "enforced") == world.agents


def _count(state: dict[str, Any], word: str) -> int:
    return sum(one["state"] == word for one in state["items"])


def _trouble(state: dict[str, Any]) -> str:
    return "; ".join(
        f"{one['workload']} is {one['state']}: {one['reason']}" for one in state["items"] if one["state"] != "enforced"
    )[:300]


def _well(world: World) -> tuple[bool, str]:
    """Wait until no request has failed for some seconds; say whether that came."""
    failing = 0
    for _ in range(10):
        mark = traffic_report(world.lab)
        time.sleep(QUIET_S)
        now = traffic_report(world.lab).since(mark)
        failing = now.failed
        if not failing and now.attempts:
            return True, f"{now.attempts} requests in {QUIET_S:.0f} s, none failed"
    return False, f"{failing} requests failed within {QUIET_S:.0f} s"
