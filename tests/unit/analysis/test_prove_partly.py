"""Claims whose `only` names some addresses of a workload: the others count as outside, and go on from there."""

from __future__ import annotations

from ipaddress import ip_address

from cellwall.analysis.table.reach import Assume
from cellwall.analysis.table.table import Table
from cellwall.analysis.walks.prove import prove, read_claim
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import parse_policy

TEXT = "networks: {half: [10.0.0.0/25], deep: [192.0.2.128/25]}"


def fleet(size: int) -> Fleet:
    return Fleet(
        tuple(
            Workload(f"w{at}", Labels({}), (ip_address(f"10.0.0.{at}"), ip_address(f"fd00::{at}")), agent=False)
            for at in range(1, size + 1)
        ),
        (),
    )


def test_who_is_outside_by_one_address_takes_another_whole_and_goes_on_from_any_of_its_addresses() -> None:
    policy = parse_policy([("a.yaml", TEXT)])
    claim = read_claim("only network:half may-reach network:deep", policy, fleet(2), hops=2)
    told = prove(Table, policy, fleet(2), 0.0, claim, Assume.MODES)
    assert not told.holds and told.at_once and len(told.path) == 2
    first, last = told.path
    assert first.destination == last.source != first.source


def test_who_is_alone_does_not_take_itself() -> None:
    policy = parse_policy([("a.yaml", TEXT)])
    claim = read_claim("only network:half may-reach network:deep", policy, fleet(1), hops=None)
    path = prove(Table, policy, fleet(1), 0.0, claim, Assume.MODES).path
    # It is taken from outside, not by its own other address.
    assert (path[0].source, path[0].destination) == ("elsewhere (IPv4)", "w1")
