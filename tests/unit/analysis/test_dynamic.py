import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.analysis import PortRange
from cellwall.analysis.seen.dynamic import find_ranges, widen


def seen(*ports: int, process: str = "rpcd", protocol: int = 6) -> set[PortRange]:
    return set(find_ranges(("db", process, protocol, port) for port in ports).values())


def test_few_ports_stay_themselves() -> None:
    assert seen(80, 443, 8080) == {PortRange(6, port, port) for port in (80, 443, 8080)}
    assert seen(40000, 40100, 40200) == {PortRange(6, port, port) for port in (40000, 40100, 40200)}


def test_many_high_ports_become_one_range_and_low_ones_stay_apart() -> None:
    assert seen(135, 50003, 50040, 50077, 50120) == {
        PortRange(6, 135, 135),
        PortRange(6, 50000, 50127, dynamic=True),
    }


def test_ports_below_the_ephemeral_ones_take_a_process_and_more_of_them() -> None:
    ports = tuple(range(6000, 6080, 9))
    assert seen(*ports) == {PortRange(6, 6000, 6127, dynamic=True)} or len(seen(*ports)) == 1
    assert len(seen(*ports, process="")) == len(ports)


def test_protocols_without_ports_have_no_ranges() -> None:
    assert len(seen(*range(40000, 40020), protocol=1)) == 20


def test_servers_and_processes_are_not_mixed() -> None:
    items = [(server, process, 6, 40000 + at) for at in range(3) for server in "ab" for process in "xy"]
    assert all(not one.dynamic for one in find_ranges(items).values())


@pytest.mark.parametrize(
    ("ports", "first", "last"),
    [
        ([33000, 60000, 41000, 50000], 32768, 60999),
        ([33000, 64000, 41000, 50000], 32768, 65535),
        ([49200, 65000, 52000], 49152, 65535),
        ([32768, 32799], 32768, 32799),
        ([65530, 65534], 65518, 65535),
        ([1024, 1025], 1024, 1025),
    ],
)
def test_ranges_are_widened_to_what_is_behind_them(ports: list[int], first: int, last: int) -> None:
    found = widen(6, ports)
    assert (found.first, found.last, found.dynamic) == (first, last, True)


def test_nineteen_of_twenty_later_ports_are_in_the_range_that_eight_showed() -> None:
    chance = random.Random(5)
    hits = total = 0
    for _ in range(200):
        low = chance.randrange(33, 60) * 1000
        size = chance.choice([32, 100, 128, 500, 1000])
        found = widen(6, {chance.randrange(low, low + size) for _ in range(8)} | {low + 1})
        later = [chance.randrange(low, low + size) for _ in range(50)]
        hits += sum(found.first <= port <= found.last for port in later)
        total += len(later)
    assert hits / total > 0.95


@given(st.sets(st.integers(1024, 65535), min_size=2, max_size=12))
def test_a_range_holds_what_was_seen_and_is_valid(ports: set[int]) -> None:
    found = widen(17, ports)
    assert 1024 <= found.first <= min(ports) and max(ports) <= found.last <= 65535
