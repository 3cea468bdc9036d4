from dataclasses import replace

from tests.unit.analysis.world import FLEET, NOW, policy, record

from cellwall.analysis import identity_of, recolour
from cellwall.flows import Outcome, Process, Side
from cellwall.policy import NOBODY, Flow, decide_at, endpoint

SEEN = [
    record("web-1", "db-1"),
    record("web-1", "db-1", "tcp/22"),
    record("web-dev", "db-1"),
    record("web-dev", "db-dev", "tcp/22"),
    record("web-1", "web-1", "tcp/22"),
    record("192.0.2.9", "web-1", "tcp/80", Side.INGRESS, Outcome.DENIED),
    record("198.51.100.9", "web-1", "tcp/80", Side.INGRESS),
    record("nas", "web-1", "tcp/22", Side.INGRESS),
]


def test_every_verdict_is_that_of_decide() -> None:
    ends = [(Process("a", "root"), Process("b", "www-data"))] * len(SEEN)
    for one, (mine, _) in zip(SEEN, ends, strict=True):
        seen = replace(one, process=mine)
        (told,) = recolour(policy(), FLEET, [seen], NOW)
        local = identity_of(mine)
        source = endpoint(FLEET, seen.key.source, local if seen.side is Side.EGRESS else NOBODY)
        destination = endpoint(FLEET, seen.key.destination, local if seen.side is Side.INGRESS else NOBODY)
        flow = Flow(source, destination, seen.key.protocol, seen.key.port)
        verdict = decide_at(seen.side, policy(), FLEET, flow, NOW)
        assert (told.outcome, told.would, told.rules) == (verdict.outcome, verdict.would, ()), str(flow)
        assert told.connections == seen.connections


def test_what_the_source_denies_never_arrives() -> None:
    both = [record("web-1", "db-1", "tcp/22"), record("web-1", "db-1", "tcp/22", Side.INGRESS)]
    (told,) = recolour(policy(), FLEET, both, NOW)
    assert (told.side, told.outcome) == (Side.EGRESS, Outcome.DENIED)


def test_what_the_source_lets_through_keeps_both_reports() -> None:
    both = [record("web-1", "db-1"), record("web-1", "db-1", side=Side.INGRESS)]
    assert [one.side for one in recolour(policy(), FLEET, both, NOW)] == [Side.EGRESS, Side.INGRESS]
