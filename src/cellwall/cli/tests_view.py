"""The tests of documents as an answer, and drawn: what breaks those that fail, and by which rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from cellwall.cli.ground import hop_line, hop_shape
from cellwall.cli.output import table, verdict
from cellwall.policy import Claim, Policy

if TYPE_CHECKING:
    from cellwall.analysis import Counterexample, TestResult

MOST = 10


def tested(result: TestResult, policy: Policy) -> dict[str, Any]:
    """Give what became of a test as an answer."""
    return {
        "id": result.test.id,
        "passed": result.passed,
        "vacuous": result.vacuous,
        "checked": result.checked,
        "place": str(result.test.place),
        "counterexamples": [
            {
                "source": bad.source,
                "identity": str(bad.identity) or None,
                "destination": bad.destination,
                "service": bad.service,
                "ports": str(bad.ports),
                "alike": bad.alike,
                "rules": _rules(bad, policy, result.test.claim is Claim.CAN),
                "path": [hop_shape(hop) for hop in bad.path],
            }
            for bad in result.counterexamples
        ],
    }


def _rules(bad: Counterexample, policy: Policy, missing: bool) -> list[dict[str, str]]:
    """Give the rules that let a flow pass, or, where it is `missing`, those that deny it."""
    found: dict[str, dict[str, str]] = {}
    for told in (bad.egress, bad.ingress):
        if told is None or (missing and told.would.value != "denied"):
            continue
        for name in told.because:
            rule = policy.by_id.get(name)
            action, place = (rule.action.value, str(rule.place)) if rule else ("lifeline", "built in")
            found[name] = {"id": name, "action": action, "place": place}
    return list(found.values())


def draw_tests(items: list[dict[str, Any]]) -> RenderableType:
    """Draw how tests stand, then what breaks those that fail."""
    rows = [[verdict(_word(one)), one["id"], one["place"], one["checked"]] for one in items]
    drawn = table(["test", "id", "place", "pairs#"], rows, "there are no tests")
    return Group(drawn, *(Text(line) for one in items for line in _told(one)))


def _word(one: dict[str, Any]) -> str:
    return "fail" if not one["passed"] else "warn" if one["vacuous"] else "pass"


def _told(one: dict[str, Any]) -> Iterator[str]:
    if one["vacuous"]:
        yield f"{one['place']}: `{one['id']}` matches nobody, so it proves nothing"
    elif not one["passed"]:
        yield f"{one['place']}: `{one['id']}` is broken by"
    if one["counterexamples"] and (path := one["counterexamples"][0]["path"]):
        yield from (f"    {number}. {hop_line(hop)}" for number, hop in enumerate(path, 1))
        return
    groups: dict[str, list[dict[str, Any]]] = {}
    for bad in one["counterexamples"]:
        rules = ", ".join(f"{rule['action']} `{rule['id']}` {rule['place']}" for rule in bad["rules"])
        groups.setdefault(rules or "no rule allows it", []).append(bad)
    for rules, some in groups.items():
        bad, more = some[0], sum(each["alike"] + 1 for each in some) - 1
        named = f" as {bad['identity']}" if bad["identity"] else ""
        # Of very many not all are in the answer.
        more = f"{more} more" if len(one["counterexamples"]) < MOST else "others"
        alike = f" and {more}" if more != "0 more" else ""
        yield f"    {rules}: {bad['source']}{named} → {bad['destination']} {bad['service']}{alike}"
