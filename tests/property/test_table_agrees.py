"""The table of bit rows gives what `decide` gives, for every pair of ends, every class of ports, in every mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellwall.analysis import Assume, Columns, Keys, Table, distinct, impact, sifted_impact
from cellwall.flows import FlowKey, FlowRecord, Outcome, Process, Side
from cellwall.policy import decide, endpoint
from tests.property.worlds import IDENTITIES, World, flows, worlds

NOW = 1_800_000_000.0


@given(st.data(), worlds(), st.sampled_from(Assume))
def test_a_bit_is_what_decide_says(data: st.DataObject, world: World, assume: Assume) -> None:
    table = Table(world.policy, world.fleet, NOW, assume)
    for _ in range(20):
        flow = data.draw(flows(world.fleet))
        server = data.draw(st.sampled_from(IDENTITIES))
        flow = replace(flow, destination=endpoint(world.fleet, flow.destination.address, server))
        if flow.source.workload is not None and flow.source.workload == flow.destination.workload:
            continue
        decision = decide(world.policy, world.fleet, flow, NOW)
        outcome = decision.would if assume is Assume.ENFORCE else decision.outcome
        source = table.kind_at(flow.source.address, flow.source.identity)
        destination = table.kind_at(flow.destination.address, server)
        ports = table.ports_at(flow.protocol << 16 | flow.port)
        assert bool(table.into(destination, ports) >> source & 1) is (outcome is Outcome.ALLOWED)
        assert table.out_of(source, ports) >> destination & 1 == table.into(destination, ports) >> source & 1


@given(worlds())
def test_kinds_know_who_they_are(world: World) -> None:
    table = Table(world.policy, world.fleet, NOW)
    titles = [title for kind in table.kinds if not kind.identity for title in kind.titles]
    ends = [w.name for w in world.fleet.workloads for a in w.addresses if world.fleet.by_address[a] is w]
    assert sorted(one for one in titles if "(IPv" not in one) == sorted(ends)
    assert sum(map(bool, (1 for one in titles if one.startswith("elsewhere")))) == 2


@given(st.data(), worlds(), st.sampled_from(Assume), st.booleans(), st.booleans())
def test_columns_are_the_table(data: st.DataObject, world: World, assume: Assume, crowded: bool, few: bool) -> None:
    """In both layouts: laid out flat, and, where that would be too large or not worth it, as edges to bisect."""
    table = Table(world.policy, world.fleet, NOW, assume)
    most = 0 if crowded else 1 << 20
    with patch.multiple("cellwall.analysis.table.columns", MOST_CELLS=most, MOST_PAGES=most):
        columns = Columns(table, 20 if few else 1_000_000)
    seen = [data.draw(flows(world.fleet)) for _ in range(20)]
    sources, destinations = (
        np.array([table.kind_at(end.address) for end in ends], np.int32)
        for ends in ([one.source for one in seen], [one.destination for one in seen])
    )
    points = np.array([one.protocol << 16 | one.port for one in seen], np.uint32)
    wanted = [
        bool(table.into(int(to), table.ports_at(int(at))) >> int(source) & 1)
        for source, to, at in zip(sources, destinations, points, strict=True)
    ]
    assert columns.judge(sources, destinations, points).tolist() == wanted
    four = [one.source.address for one in seen if one.source.address.version == 4]
    four += [one.destination.address for one in seen if one.destination.address.version == 4]
    located = columns.locate(np.array([int(one) for one in four], np.uint32))
    assert located.tolist() == [table.kind_at(one) for one in four]


@given(st.data(), worlds(), worlds())
def test_a_sift_leaves_nothing_out(data: st.DataObject, world: World, other: World) -> None:
    """Of the flows that it lets go, none fares otherwise; and an impact through it is that of all records."""
    records: list[FlowRecord] = []
    for number in range(data.draw(st.integers(1, 25))):
        flow = data.draw(flows(world.fleet))
        who = flow.source.identity
        process = Process("p", who.user or "", who.unit or "", "")
        key = FlowKey(flow.source.address, flow.destination.address, flow.protocol, flow.port)
        seen = FlowRecord(key, "w1", Side.EGRESS, Outcome.ALLOWED, Outcome.ALLOWED, (), 1, number + 1, NOW, NOW)
        records.append(replace(seen, process=process))
    records = list({(one.key, one.process): one for one in records}.values())
    counts: dict[FlowKey, tuple[int, int]] = {}
    for one in distinct(records):
        had = counts.get(one.key, (0, 0))
        counts[one.key] = had[0] + 1, had[1] + one.connections
    keys = Keys.from_counts(counts)

    def of(some: Sequence[FlowKey]) -> list[FlowRecord]:
        return [one for one in records if one.key in some]

    arguments = world.policy, other.policy, world.fleet
    assert sifted_impact(*arguments, keys, of, NOW) == impact(*arguments, records, NOW)
