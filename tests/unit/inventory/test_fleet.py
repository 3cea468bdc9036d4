"""A fleet is a snapshot: names are unique, every address has one owner."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cellwall.inventory import Fleet, InventoryError, Workload, check_name
from cellwall.labels import Labels
from cellwall.traffic import one_line

ONE, TWO = ip_address("10.0.0.1"), ip_address("fd00::2")


@pytest.mark.parametrize("name", ["a", "web-1.example.com", "A_b", "x" * 253])
def test_a_plain_name_can_name_a_workload(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "x" * 254, "a\n", "../a"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InventoryError) as caught:
        check_name(name)
    told = "cannot name a workload: letters, digits, `-`, `_`, `.`, at most 253"
    assert str(caught.value) == f"`{one_line(name)}` {told}"


def test_a_workload_holds_each_address_once_in_order() -> None:
    assert Workload("a", addresses=(TWO, ONE, TWO)).addresses == (ONE, TWO)


def test_workloads_are_equal_only_when_all_of_them_is() -> None:
    workload = Workload("a", Labels({"app": "shop"}), (ONE,))
    assert workload == Workload("a", Labels({"app": "shop"}), (ONE,))
    assert workload != Workload("a", Labels({"app": "blog"}), (ONE,))
    assert workload != Workload("a", Labels({"app": "shop"}), (TWO,))
    assert Fleet((workload,)) != Fleet((Workload("a"),))


def test_a_fleet_is_in_order_of_name_however_it_is_given() -> None:
    a, b = Workload("a"), Workload("b")
    assert Fleet((b, a)) == Fleet((a, b))
    assert Fleet((b, a)).by_name == {"a": a, "b": b}


def test_a_name_that_is_there_twice_is_refused() -> None:
    with pytest.raises(InventoryError, match=r"^workload `a` is there twice$"):
        Fleet((Workload("a"), Workload("b"), Workload("a")))


def test_the_later_enrolled_of_two_owns_an_address_that_both_claim() -> None:
    early, late = Workload("z", addresses=(ONE, TWO), epoch=1.0), Workload("a", addresses=(ONE,), epoch=2.0)
    fleet = Fleet((early, late))
    assert fleet.by_address == {ONE: late, TWO: early}
    assert fleet.conflicts == ((ONE, ("a", "z")),)


def test_of_two_of_one_moment_the_last_name_owns_the_address() -> None:
    assert Fleet((Workload("b", addresses=(ONE,)), Workload("a", addresses=(ONE,)))).by_address[ONE].name == "b"
