"""Flow records on their way: added up, bounded, sent until taken; samples thinned; processes never guessed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from tests.unit.agent.bundles import bundle

from cellwall.agent.tally import Outbox, Samples, Tally, common, judged, side_of
from cellwall.flows import UNKNOWN, FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.traffic import TCP

CLIENT, WEB = ip_address("10.0.0.1"), ip_address("10.0.0.2")


def record(port: int = 80, connections: int = 1, at: float = 10.0, **changes: Any) -> FlowRecord:
    made = FlowRecord(
        FlowKey(CLIENT, WEB, TCP, port), "web", Side.INGRESS, Outcome.ALLOWED, Outcome.ALLOWED, ("in",), 1,
        connections, at, at + 2,
    )  # fmt: skip
    return replace(made, **changes)


def test_records_of_several_intervals_become_one() -> None:
    tally = Tally()
    tally.add([record(at=10.0), record(at=12.0, connections=4)])
    (one,) = tally.take(10)
    assert (one.connections, one.first_seen, one.last_seen) == (5, 10.0, 14.0)
    assert len(tally) == 0


@pytest.mark.parametrize(
    "change",
    [{"outcome": Outcome.DENIED}, {"rules": ()}, {"revision": 2}, {"process": Process("nginx")}, {"standing": True}],
)
def test_what_was_decided_differently_stays_apart(change: dict[str, Any]) -> None:
    tally = Tally()
    tally.add([record(), record(**change)])
    assert len(tally) == 2


def test_a_full_tally_still_counts_what_it_knows_and_says_what_it_dropped() -> None:
    tally = Tally(most=2)
    tally.add([record(80), record(81), record(82), record(83), record(80)])
    tally.lost += 3
    assert sum(one.connections for one in tally.take(9)) == 3
    assert tally.take_losses() == (3, 2)
    assert tally.take_losses() == (0, 0)


def test_the_oldest_are_taken_first() -> None:
    tally = Tally()
    tally.add([record(port) for port in (3, 1, 2)])
    assert [one.key.port for one in tally.take(2)] == [3, 1]
    assert [one.key.port for one in tally.take(2)] == [2]


def test_a_batch_is_sent_again_until_it_is_taken_under_the_same_name() -> None:
    outbox = Outbox("boot", most=2)
    first, second = outbox.name(), outbox.name()
    assert first != second
    outbox.sent(first, b"1", 0.0)
    assert not outbox.full
    outbox.sent(second, b"2", 10.0)
    assert outbox.full
    assert outbox.due(29.0) == ()
    assert outbox.due(30.0) == (b"1",)
    assert outbox.due(31.0) == ()
    assert outbox.due(31.0, reconnected=True) == (b"1", b"2")
    outbox.taken(first)
    outbox.taken("another")
    assert outbox.due(31.0, reconnected=True) == (b"2",)


def test_samples_of_a_kind_come_once_in_a_while_and_the_others_are_counted() -> None:
    samples = Samples(most=2, apart_s=10.0)
    assert [samples.wanted(("a",), 0.0), samples.wanted(("a",), 1.0), samples.wanted(("b",), 1.0)] == [
        True,
        False,
        True,
    ]
    assert not samples.wanted(("c",), 1.0), "there is no room left in this interval"
    samples.refill(2.0)
    assert samples.wanted(("c",), 2.0)
    assert samples.wanted(("a",), 10.0)
    assert samples.skipped == 2


def test_who_sends_from_an_address_of_ours_is_the_source() -> None:
    assert side_of(CLIENT, {CLIENT}) is Side.EGRESS
    assert side_of(CLIENT, {WEB}) is Side.INGRESS


def test_an_open_connection_is_judged_by_the_ruleset() -> None:
    one = bundle(1)
    port = one.ruleset.revision
    held = judged(one.ruleset, {CLIENT.packed: 7}, FlowKey(CLIENT, WEB, TCP, port), Side.INGRESS)
    assert held == (Outcome.ALLOWED, Outcome.ALLOWED, ("in",))
    other = judged(one.ruleset, {CLIENT.packed: 7}, FlowKey(WEB, CLIENT, TCP, port), Side.EGRESS, UNKNOWN)
    assert other == (Outcome.DENIED, Outcome.DENIED, ())


def test_of_several_processes_only_what_they_share_is_said() -> None:
    curl, wget = Process("curl", "www", "job.service", "/bin/curl"), Process("wget", "www", "job.service", "/bin/wget")
    assert common(()) == UNKNOWN
    assert common((curl,)) == curl
    assert common((curl, wget)) == Process("", "www", "job.service", "")
