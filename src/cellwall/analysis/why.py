"""Why a flow passes or does not: both ends' verdicts, every rule that matches, those that nearly do, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cellwall.flows import Outcome, Side
from cellwall.inventory import Fleet
from cellwall.policy import (
    BUILT_IN,
    Action,
    Decision,
    Endpoint,
    Flow,
    Mode,
    Policy,
    Rule,
    Tier,
    Verdict,
    Who,
    controller_channel,
    decide,
    matches,
)
from cellwall.traffic import point, port_name

MOST_NEAR = 5


class Miss(StrEnum):
    """The one thing in which a rule does not match a flow."""

    PORT = "port"
    SOURCE = "source"
    DESTINATION = "destination"
    SAME = "same"
    IDENTITY = "identity"
    TIME = "time"
    STAGED = "staged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RuleNote:
    """A rule that matches a flow at `sides`. `decides` says whether it is one of those that decided.

    `place` is file:line:column, or where it is built in; `services`, `source` and `destination` are as written."""

    id: str
    action: Action
    place: str
    services: str
    source: str
    destination: str
    reason: str
    owner: str
    sides: tuple[Side, ...]
    decides: bool


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A rule that would match but for one thing, and that thing in words."""

    rule: RuleNote
    miss: Miss
    words: str


@dataclass(frozen=True, slots=True)
class End:
    """One end of a flow: its workload or None, its mode and verdict where it has a point."""

    side: Side
    title: str
    workload: str | None
    labels: str
    agent: bool
    mode: Mode | None
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer to `why`: `outcome` as things are, `would` under full enforcement.

    `matching` are the rules that match at one end or both, those that decide first; `near` are rules that nearly
    match and would turn the verdict, the most telling first; `advice` says in sentences what decided and what would
    have to change."""

    flow: str
    service: str
    outcome: Outcome
    would: Outcome
    egress: End
    ingress: End
    matching: tuple[RuleNote, ...]
    near: tuple[NearMiss, ...]
    advice: tuple[str, ...]


def why(policy: Policy, fleet: Fleet, flow: Flow, now: float) -> Explanation:
    """Explain what `policy` means for `flow` at `now` (seconds since the epoch)."""
    decision = decide(policy, fleet, flow, now)
    deciding = {rule for verdict in (decision.egress, decision.ingress) if verdict for rule in verdict.because}
    rules = (*BUILT_IN, controller_channel(fleet.controllers), *policy.lifelines, *policy.rules)
    notes: list[RuleNote] = []
    near: list[NearMiss] = []
    for rule in rules:
        sides = tuple(side for side in Side if matches(rule, flow, side))
        live = rule.in_time(now) and not rule.staged
        if sides and live:
            notes.append(_note(rule, sides, decides=rule.id in deciding))
        if (
            rule.action is (Action.ALLOW if decision.would is Outcome.DENIED else Action.DENY)
            and not (live and len(sides) == len(rule.sides))
            and (missed := _miss(rule, flow, now))
        ):
            near.append(NearMiss(_note(rule, sides, decides=False), *missed))
    notes.sort(key=lambda note: (not note.decides, note.id))
    near.sort(key=lambda miss: (list(Miss)[::-1].index(miss.miss), miss.rule.id))
    return Explanation(
        str(flow),
        port_name(point(flow.protocol, flow.port)),
        decision.outcome,
        decision.would,
        _end(Side.EGRESS, policy, flow.source, decision.egress),
        _end(Side.INGRESS, policy, flow.destination, decision.ingress),
        tuple(notes),
        tuple(near[:MOST_NEAR]),
        tuple(_advice(policy, flow, decision, near)),
    )


def _note(rule: Rule, sides: tuple[Side, ...], *, decides: bool) -> RuleNote:
    return RuleNote(
        rule.id,
        rule.action,
        str(rule.place),
        ", ".join(rule.services) or str(rule.ports),
        " or ".join(map(str, rule.source)),
        " or ".join(map(str, rule.destination)),
        rule.reason,
        rule.owner,
        sides,
        decides,
    )


def _end(side: Side, policy: Policy, end: Endpoint, verdict: Verdict | None) -> End:
    mode = policy.mode_of(end.labels) if end.agent else None
    return End(side, end.workload or str(end.address), end.workload, str(end.labels), end.agent, mode, verdict)


def _miss(rule: Rule, flow: Flow, now: float) -> tuple[Miss, str] | None:
    """Give the one thing in which `rule` fails, None where there are more (or none)."""
    faults: list[tuple[Miss, str]] = []
    service = port_name(point(flow.protocol, flow.port))
    if point(flow.protocol, flow.port) not in rule.ports:
        faults.append((Miss.PORT, f"it is about {', '.join(rule.services) or rule.ports}, not {service}"))
    for miss, whos, end in (
        (Miss.SOURCE, rule.source, flow.source),
        (Miss.DESTINATION, rule.destination, flow.destination),
    ):
        if not any(_names(who, end) for who in whos):
            wanted = " or ".join(map(str, whos))
            faults.append((miss, f"`{end.workload or end.address}` ({end.labels or 'no labels'}) is not {wanted}"))
        elif not any(_names(who, end) and who.identity.covers(end.identity) for who in whos):
            asked = " or ".join(str(who.identity) for who in whos if _names(who, end))
            faults.append((Miss.IDENTITY, f"the process is {end.identity or 'not known'}, not {asked}"))
    for key in rule.same:
        mine, theirs = flow.source.labels.get(key), flow.destination.labels.get(key)
        if mine is None or mine != theirs:
            faults.append((Miss.SAME, f"`{key}` is not the same: {mine or 'none'} and {theirs or 'none'}"))
    if not rule.in_time(now):
        faults.append(
            (Miss.TIME, "it has not started" if rule.starts is not None and now < rule.starts else "it has expired")
        )
    if rule.staged:
        faults.append((Miss.STAGED, "it is staged"))
    if rule.refused:
        faults.append((Miss.REFUSED, rule.refused))
    return faults[0] if len(faults) == 1 else None


def _names(who: Who, end: Endpoint) -> bool:
    if who.selector is not None:
        return end.workload is not None and who.selector.matches(end.labels)
    return who.network is None or end.address in who.network


def _advice(policy: Policy, flow: Flow, decision: Decision, near: list[NearMiss]) -> list[str]:
    said: list[str] = []
    for side, end, verdict in (
        (Side.EGRESS, flow.source, decision.egress),
        (Side.INGRESS, flow.destination, decision.ingress),
    ):
        title = end.workload or str(end.address)
        if verdict is None:
            said.append(f"{side}: `{title}` has no point, so nothing is decided there")
            continue
        said.append(f"{side}: {_decided(policy, title, verdict)}")
    verdicts = [one for one in (decision.egress, decision.ingress) if one is not None]
    if any(one.tier is Tier.DENY for one in verdicts):
        ids = sorted({rule for one in verdicts if one.tier is Tier.DENY for rule in one.because})
        places = ", ".join(f"`{rule}` ({policy.by_id[rule].place})" for rule in ids)
        said.append(f"to let it pass, narrow {places}: no allow outweighs a deny")
    elif decision.would is Outcome.DENIED:
        fix = next(iter(near), None)
        service = port_name(point(flow.protocol, flow.port))
        said.append(f"to let it pass, allow {service} from {_as_end(flow.source)} to {_as_end(flow.destination)}")
        if fix is not None:
            said.append(f"`{fix.rule.id}` ({fix.rule.place}) nearly allows it: {fix.words}")
    elif verdicts and all(one.tier is Tier.LIFELINE for one in verdicts):
        written = sorted({rule for one in verdicts for rule in one.because if rule in policy.by_id})
        narrow = ", ".join(f"`{rule}` ({policy.by_id[rule].place})" for rule in written)
        said.append((f"to stop it, narrow {narrow}: " if narrow else "") + "no deny outweighs a lifeline")
    elif decision.outcome is Outcome.ALLOWED and verdicts:
        ids = sorted({rule for one in verdicts if one.tier is not Tier.LIFELINE for rule in one.because})
        said.append(f"to stop it, remove or narrow {', '.join(f'`{rule}`' for rule in ids)}, or add a deny")
    return said


def _decided(policy: Policy, title: str, verdict: Verdict) -> str:
    outcome = "passes" if verdict.outcome is Outcome.ALLOWED else "is denied"
    known = policy.by_id
    rules = ", ".join(f"`{rule}`" + (f" ({known[rule].place})" if rule in known else "") for rule in verdict.because)
    because = "no rule speaks of it" if verdict.tier is Tier.DEFAULT else f"the {verdict.tier} {rules}"
    held = ""
    if verdict.outcome is not verdict.would:
        held = "; full enforcement would deny it"
    return f"it {outcome} at `{title}`, which is in mode {verdict.mode}: {because}{held}"


def _as_end(end: Endpoint) -> str:
    if end.workload is None:
        return f"a network that holds {end.address}"
    return f"`{end.labels}`" if end.labels else f"`{end.workload}`, which has no labels yet"
