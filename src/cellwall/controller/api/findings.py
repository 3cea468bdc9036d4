"""What was worked out, as the JSON that the API answers with: plans, replays, reasons and proposals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import to_builtins

from cellwall.analysis import (
    Change,
    Counterexample,
    Effect,
    Explanation,
    Finding,
    PortRange,
    Replay,
    RuleNote,
    Seen,
    SuggestedRule,
    Suggestion,
    TestResult,
)
from cellwall.controller.api.shapes import key_shape, misfit_shape
from cellwall.controller.plan import Kind, Plan, PointPlan
from cellwall.controller.testing import failure
from cellwall.inventory import Fleet
from cellwall.policy import Order, Policy, Tier, Verdict
from cellwall.traffic import PortSet, Span, point

MOST_TURNED, MOST_EVIDENCE, RECENT_S = 1000, 100, 60.0
Json = dict[str, Any]


def point_plan_shape(point_plan: PointPlan) -> Json:
    """What happens at one point."""
    return {
        "workload": point_plan.workload,
        "change": point_plan.kind,
        "mode_before": point_plan.before,
        "mode_after": point_plan.after,
        "rules_added": list(point_plan.added),
        "rules_removed": list(point_plan.removed),
        "rules_changed": list(point_plan.changed),
        "members_joining": point_plan.joining,
        "members_leaving": point_plan.leaving,
        "misfits": [misfit_shape(one) for one in point_plan.misfits],
        "weight": weight_shape(point_plan),
    }


def weight_shape(point_plan: PointPlan) -> Json | None:
    """What a point's table takes, in bytes; `room` is null where its host did not say what it can give."""
    weight = point_plan.weight
    if weight is None:
        return None
    return {
        "elements": weight.elements,
        "kernel_bytes": weight.held,
        "peak_bytes": weight.peak,
        "room_bytes": point_plan.room or None,
    }


def plan_shape(plan: Plan) -> Json:
    """What a change does to points, and what they cannot express."""
    return {
        "summary": {kind.value: plan.count(kind) for kind in Kind},
        "points": [point_plan_shape(one) for one in plan.points],
        "refused": [{"workload": name, **misfit_shape(one)} for name, one in plan.misfits],
        "cramped": [
            {"workload": one.workload, "reason": one.shortage, **(weight_shape(one) or {})} for one in plan.cramped
        ],
    }


def replay_shape(replayed: Replay, fleet: Fleet, now: float) -> Json:
    """Recorded flows under another policy. Of more than a thousand, the busiest are listed; the counts are of all.

    `open_now_cut` counts the cut ones that were seen within the last minute: their connections are probably open."""
    return {
        "checked": replayed.checked,
        "connections": replayed.connections,
        "cut": [_effect(one, fleet) for one in replayed.cut[:MOST_TURNED]],
        "opened": [_effect(one, fleet) for one in replayed.opened[:MOST_TURNED]],
        "cut_count": len(replayed.cut),
        "opened_count": len(replayed.opened),
        "cut_connections": replayed.cut_connections,
        "open_now_cut": sum(one.last_seen >= now - RECENT_S for one in replayed.cut),
        "unknown": replayed.unknown,
    }


def _effect(effect: Effect, fleet: Fleet) -> Json:
    return {
        **key_shape(effect.key, fleet),
        "was": effect.was,
        "becomes": effect.becomes,
        "rules": list(effect.rules),
        "connections": effect.connections,
        "first_seen": effect.first_seen,
        "last_seen": effect.last_seen,
        "process": effect.process.name,
        "unsure": effect.unsure,
    }


def change_shape(change: Change) -> Json:
    """Ends between which other ports pass than before."""
    return {
        "sources": list(change.sources),
        "destinations": list(change.destinations),
        "opened": str(change.opened) if change.opened else None,
        "closed": str(change.closed) if change.closed else None,
        "identity": str(change.identity) or None,
    }


def test_shape(result: TestResult) -> Json:
    """Whether a test of the policy holds."""
    return {
        "id": result.test.id,
        "passed": result.passed,
        "vacuous": result.vacuous,
        "checked": result.checked,
        "place": str(result.test.place),
        "failure": "" if result.passed else failure(result),
        "counterexamples": [_counterexample(one) for one in result.counterexamples],
    }


def _counterexample(one: Counterexample) -> Json:
    return {
        "source": one.source,
        "destination": one.destination,
        "identity": str(one.identity) or None,
        "ports": str(one.ports),
        "service": one.service,
        "alike": one.alike,
        "by_way_of": [hop.destination for hop in one.path[:-1]],
    }


def finding_shape(finding: Finding) -> Json:
    """Something that lint found."""
    return {
        "check": finding.check,
        "severity": finding.severity,
        "subject": finding.subject,
        "place": str(finding.place),
        "message": finding.message,
        "hint": finding.hint,
        "proof": finding.proof,
        "example": finding.example,
        "edits": to_builtins(finding.edits),
    }


def explanation_shape(explained: Explanation) -> Json:
    """What the policy means for a flow, with the rules that match and those that nearly do."""
    return {
        "flow": explained.flow,
        "service": explained.service,
        "outcome": explained.outcome,
        "would": explained.would,
        "matching": [_note(one) for one in explained.matching],
        "near": [{**_note(one.rule), "miss": one.miss, "words": one.words} for one in explained.near],
        "advice": list(explained.advice),
    }


def _note(note: RuleNote) -> Json:
    return {
        "id": note.id,
        "action": note.action,
        "place": note.place,
        "services": note.services,
        "source": note.source,
        "destination": note.destination,
        "reason": note.reason,
        "owner": note.owner,
        "sides": list(note.sides),
        "decides": note.decides,
    }


def suggestion_shape(found: Suggestion, fleet: Fleet) -> Json:
    """Proposed rules with their evidence, and as documents."""
    coverage = found.coverage
    return {
        "level": found.level,
        "documents": dict(found.documents),
        "over_permission": found.over_permission,
        "coverage": {
            "flows": coverage.flows,
            "covered": coverage.covered,
            "share": coverage.share,
            "connections": coverage.connections,
            "covered_connections": coverage.covered_connections,
            "share_of_connections": coverage.share_of_connections,
            "already": coverage.already,
            "left_out": [{**_evidence(seen, fleet), "reason": why} for seen, why in coverage.left_out[:MOST_TURNED]],
        },
        "rules": [_suggested(one, fleet) for one in found.rules],
    }


def _suggested(one: SuggestedRule, fleet: Fleet) -> Json:
    return {
        "id": one.id,
        "stage": one.stage,
        "ports": [_range(span) for span in one.ports],
        "from": list(one.source),
        "to": list(one.destination),
        "same": list(one.same),
        "connections": one.connections,
        "flow_count": len(one.flows),
        "flows": [_evidence(seen, fleet) for seen in one.flows[:MOST_EVIDENCE]],
        "allows": one.allows,
        "beyond": one.beyond,
        "examples": list(one.examples),
        "flags": list(one.flags),
    }


def _range(span: PortRange) -> str:
    ports = Span(point(span.protocol, span.first), point(span.protocol, span.last))
    return f"{PortSet((ports,))}{' (dynamic)' if span.dynamic else ''}"


def _evidence(seen: Seen, fleet: Fleet) -> Json:
    return {
        **key_shape(seen.key, fleet),
        "process": seen.process.name,
        "connections": seen.connections,
        "first_seen": seen.first_seen,
        "last_seen": seen.last_seen,
    }


def verdict_shape(verdict: Verdict | None, policy: Policy, orders: Iterable[Order] = ()) -> Json | None:
    """What one point says of a flow, and the rules that say so, with their places in the documents."""
    if verdict is None:
        return None
    return {
        "outcome": verdict.outcome,
        "would": verdict.would,
        "tier": verdict.tier,
        "mode": verdict.mode,
        "rules": [_order(one, orders) for one in verdict.because]
        if verdict.tier is Tier.ORDER
        else [_rule(rule, policy) for rule in verdict.because],
        "staged": [_rule(rule, policy) for rule in verdict.staged],
    }


def _order(name: str, orders: Iterable[Order]) -> Json:
    order = next(one for one in orders if one.id == name)
    return {"id": name, "action": order.kind, "place": "orders", "reason": order.reason, "owner": order.author}


def _rule(rule_id: str, policy: Policy) -> Json:
    rule = policy.by_id.get(rule_id)
    if rule is None:
        return {"id": rule_id, "action": "lifeline", "place": "built in", "reason": "", "owner": ""}
    return {
        "id": rule_id,
        "action": rule.action,
        "place": str(rule.place),
        "reason": rule.reason,
        "owner": rule.owner,
    }
