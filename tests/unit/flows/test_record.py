from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.flows import UNKNOWN, FlowKey, FlowRecord, Outcome, Process, Side, merge

KEY = FlowKey(ip_address("10.0.0.1"), ip_address("10.0.0.2"), 6, 443)
ONE = FlowRecord(KEY, "web-1", Side.EGRESS, Outcome.ALLOWED, Outcome.DENIED, (), 1, 3, 100.0, 200.0, 10, 1000)


def test_a_process_of_which_nothing_is_known_is_false() -> None:
    assert not UNKNOWN
    assert Process(user="root") and Process(unit="a.service") and Process(exe="/bin/a") and Process("a")


def test_both_ends_make_one_flow_that_is_denied_when_either_denies() -> None:
    ingress = replace(ONE, side=Side.INGRESS, outcome=Outcome.DENIED, connections=5, first_seen=90.0, last_seen=300.0)
    (flow,) = merge([ONE, ingress])
    assert (flow.egress, flow.ingress) == (ONE, ingress)
    assert (flow.outcome, flow.would, flow.connections, flow.one_sided) == (Outcome.DENIED, Outcome.DENIED, 5, False)
    assert (flow.first_seen, flow.last_seen) == (90.0, 300.0)


def test_a_flow_that_one_end_reported_says_so() -> None:
    (flow,) = merge([replace(ONE, would=Outcome.ALLOWED)])
    assert flow.one_sided
    assert (flow.outcome, flow.would) == (Outcome.ALLOWED, Outcome.ALLOWED)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_latest_report_names_the_verdict_and_the_latest_that_knows_it_the_process(order: tuple[int, ...]) -> None:
    told = (
        replace(ONE, last_seen=300.0, outcome=Outcome.DENIED, revision=2),
        replace(ONE, process=Process("old")),
        replace(ONE, last_seen=250.0, process=Process("new"), standing=True),
    )
    (flow,) = merge([told[index] for index in order])
    assert flow.egress is not None
    assert (flow.egress.outcome, flow.egress.revision, flow.egress.process.name) == (Outcome.DENIED, 2, "new")
    assert (flow.egress.connections, flow.egress.packets, flow.egress.standing) == (9, 30, False)


@st.composite
def records(draw: st.DrawFn) -> FlowRecord:
    return replace(
        ONE,
        side=draw(st.sampled_from(list(Side))),
        outcome=draw(st.sampled_from(list(Outcome))),
        last_seen=float(draw(st.integers(100, 103))),
        process=Process(draw(st.sampled_from(["", "a", "b"]))),
        rules=draw(st.sampled_from([(), ("r",)])),
        connections=draw(st.integers(1, 3)),
    )


@given(st.data(), st.lists(records(), max_size=8))
def test_merging_does_not_depend_on_the_order_of_reports(data: st.DataObject, given: list[FlowRecord]) -> None:
    # One key: so there is one flow, or none.
    assert merge(data.draw(st.permutations(given))) == merge(given)
