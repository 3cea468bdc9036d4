"""The published truth tables, all of them: imported documents give each probe the verdict that the table gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from ipaddress import ip_address

from tests.conftest import SOAK
from tests.unit.translate.truth_tables import Probe, Step, needs_tables, steps

from cellwall.compile import compile_fleet, judge
from cellwall.flows import Outcome, Side
from cellwall.inventory import Fleet
from cellwall.policy import Endpoint, Flow, Policy, decide, endpoint, parse_policy
from cellwall.translate.kubernetes.documents import import_kubernetes

pytestmark = needs_tables
NOW = 1_800_000_000.0
CASES, STEPS, PROBES, OWN = 230, 256, 123_669, 13_713
STAND_IN = ip_address("203.0.113.1")

Answer = Callable[[Probe], tuple[bool, bool]]
"""Says of a probe what egress and ingress say."""


@cache
def imported(step: Step) -> tuple[Policy, Fleet]:
    found = import_kubernetes(step.manifests)
    assert not found.refusals
    return parse_policy(found.documents.items()), Fleet(found.workloads)


def check(answer_in: Callable[[Policy, Fleet], Answer]) -> None:
    wrong: list[str] = []
    for step in steps():
        answer = answer_in(*imported(step))
        for probe in step.probes:
            egress, ingress = answer(probe)
            if (egress, ingress, egress and ingress) != (probe.egress, probe.ingress, probe.both):
                wrong.append(f"{step.name}: {probe}: egress {egress}, ingress {ingress}")
    assert not wrong, "\n".join([*wrong[:5], f"{len(wrong)} in all"])


def test_the_tables_are_whole() -> None:
    assert len({step.name.partition(".")[0] for step in steps()}) == CASES
    assert len(steps()) == STEPS
    assert sum(len(step.probes) for step in steps()) == PROBES
    assert sum(probe.source == probe.destination for step in steps() for probe in step.probes) == OWN


def test_decide_agrees_with_every_probe() -> None:
    # The tables ask a pod's policy of the pod's own connections too, which neither Kubernetes nor Cellwall enforces. So
    # the far end is a pod of its kind at its address: to `decide`, which compares names, that is another workload.
    def answer_in(policy: Policy, fleet: Fleet) -> Answer:
        ends = {one.name: endpoint(fleet, one.addresses[0]) for one in fleet.workloads}
        kinds = {name: name if SOAK else kind(policy, end) for name, end in ends.items()}
        known: dict[object, tuple[bool, bool]] = {}

        def answer(probe: Probe) -> tuple[bool, bool]:
            at = kinds[probe.source], kinds[probe.destination], probe.protocol, probe.port
            if at not in known:
                far = replace(ends[probe.destination], workload="its-kind")
                decision = decide(policy, fleet, Flow(ends[probe.source], far, probe.protocol, probe.port), NOW)
                assert decision.egress is not None and decision.ingress is not None
                assert decision.outcome is decision.would, "full enforcement would give the same"
                known[at] = decision.egress.outcome is Outcome.ALLOWED, decision.ingress.outcome is Outcome.ALLOWED
            return known[at]

        return answer

    check(answer_in)


def kind(policy: Policy, end: Endpoint) -> object:
    """All that a policy can tell of an end; with CELLWALL_SOAK=1 each pair of pods is decided by itself."""
    selectors = frozenset(selector for selector in policy.selectors if selector.matches(end.labels))
    networks = frozenset(book.name for book in policy.used_networks if end.address in book)
    return selectors, networks, policy.mode_of(end.labels)


def test_the_compiled_form_agrees_with_every_probe() -> None:
    # As above: each pod's ruleset is asked under another address than the one that its pod has as a peer.
    def answer_in(policy: Policy, fleet: Fleet) -> Answer:
        points = compile_fleet(policy, fleet, 1, NOW).points
        own = {name: fleet.by_name[name].addresses[0] for name in points}
        rulesets = {
            name: replace(
                point.ruleset,
                faces=tuple(
                    replace(face, addresses=tuple(STAND_IN if one == own[name] else one for one in face.addresses))
                    for face in point.ruleset.faces
                ),
            )
            for name, point in points.items()
        }

        def says(side: Side, here: str, there: str, probe: Probe) -> bool:
            asked = side, STAND_IN, own[there], probe.protocol, probe.port
            return judge(rulesets[here], points[here].members, *asked).outcome is Outcome.ALLOWED

        return lambda probe: (
            says(Side.EGRESS, probe.source, probe.destination, probe),
            says(Side.INGRESS, probe.destination, probe.source, probe),
        )

    check(answer_in)


def test_a_pod_always_reaches_itself() -> None:
    # Kubernetes, Network Policies: "a Pod cannot block access to itself". The tables know nothing of it.
    step = steps()[0]
    policy, fleet = imported(step)
    own = [probe for probe in step.probes if probe.source == probe.destination]
    assert not all(probe.both for probe in own)
    for probe in own:
        end = endpoint(fleet, fleet.by_name[probe.source].addresses[0])
        assert decide(policy, fleet, Flow(end, end, probe.protocol, probe.port), NOW).outcome is Outcome.ALLOWED
