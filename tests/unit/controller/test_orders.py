"""How far an order has come, who may give it, and what its words mean."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from cellwall.compile import OrderCard, Point, Ruleset, Way
from cellwall.controller.access import Binding, Person, Role
from cellwall.controller.access import Way as Proof
from cellwall.controller.api import orders as api
from cellwall.controller.core import Standing, Wanted, fitted, ordered, want
from cellwall.controller.errors import ControllerError, Denied
from cellwall.controller.orders import reach, still_waiting
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels, parse_selector
from cellwall.policy import AddressBook, Mode, Order, OrderKind, Party, Policy
from cellwall.wire import Holding, PointState

CARD = OrderCard((1 << 28) - 5, "contain-1", OrderKind.CONTAIN, (Way(),), ((0, 9),))
PLAIN = want({"w": Point(Ruleset("w", 3, Mode.OBSERVE), {b"\x0a\0\0\1": 7})})["w"]
ORDERED = ordered(PLAIN, (CARD,))
FLEET = Fleet(
    (
        Workload("shop-1", Labels({"app": "shop"}), (ip_address("10.0.0.1"),)),
        Workload("blog-1", Labels({"app": "blog"}), (ip_address("10.0.1.1"),)),
    )
)


def standing(of: Wanted | None, **more: object) -> Standing:
    held = Holding(generation=2, revision=3, digest=of.digest) if of else Holding()
    return replace(Standing("w", holding=held, state=PointState.ENFORCED, connected=True), **more)  # type: ignore[arg-type]


def test_what_is_wanted_with_orders_differs_by_them_alone() -> None:
    assert ORDERED.digest != PLAIN.digest and ORDERED.content == PLAIN.content
    assert ordered(ORDERED, ()) == PLAIN and ordered(PLAIN, ()) is PLAIN
    assert want({"w": Point(ORDERED.ruleset, PLAIN.members)})["w"] == ORDERED
    assert fitted(ORDERED, 2) is ORDERED and fitted(PLAIN, 1) is PLAIN
    old = fitted(ORDERED, 1)
    assert old.digest == PLAIN.digest
    assert [(one.rule, one.reason) for one in old.misfits] == [("contain-1", "its agent is too old for orders")]


@pytest.mark.parametrize(
    ("known", "having", "waiting", "why"),
    [
        (standing(ORDERED), 1, 0, None),
        (standing(PLAIN), 0, 1, None),
        (standing(PLAIN, connected=False), 0, 0, "its agent is not connected"),
        (standing(PLAIN, protocol=1), 0, 0, "its agent is too old for orders"),
        (standing(PLAIN, state=PointState.FAILED, reason="no room"), 0, 0, "failed: no room"),
        (standing(PLAIN, state=PointState.FAILED, reason="no room", awaiting=True), 0, 1, None),
        (
            standing(ORDERED, state=PointState.RELAXED, reason="this host only observes"),
            0,
            0,
            "this host only observes",
        ),
    ],
)
def test_a_point_has_an_order_waits_for_it_or_cannot(
    known: Standing, having: int, waiting: int, why: str | None
) -> None:
    found = reach("contain-1", {"w": ORDERED}, {"w": known}, lifted=False, compiling=False)
    assert (found.points, found.having, len(found.waiting)) == (1, having, waiting)
    assert [reason for _, reason in found.unable] == ([why] if why else [])
    assert found.everywhere is (waiting == 0)
    # Whom it was waited for is looked at only up to the first who still lets wait.
    assert still_waiting(("gone", "w", "gone"), {"w": ORDERED}, {"w": known}) == (("w", "gone") if waiting else ())


def test_a_point_without_a_part_is_not_counted_and_all_are_waited_for_while_it_is_compiled() -> None:
    found = reach("other", {"w": ORDERED}, {"w": standing(ORDERED)}, lifted=False, compiling=False)
    assert (found.points, found.everywhere) == (0, True)
    found = reach("other", {"w": PLAIN}, {"w": standing(ORDERED)}, lifted=True, compiling=False)
    assert (found.points, found.waiting) == (1, ("w",))
    assert not reach("contain-1", {"w": PLAIN}, {"w": standing(PLAIN)}, lifted=False, compiling=True).everywhere
    assert reach("contain-1", {"w": PLAIN}, {}, lifted=False, compiling=False).points == 0


def person(*roles: str) -> Person:
    bindings = tuple(
        Binding(Role(role), parse_selector(where)) for role, _, where in (text.partition("@") for text in roles)
    )
    return Person("ann", bindings, Proof.TOKEN)


def test_an_order_is_given_only_for_workloads_of_ones_own_scope() -> None:
    mine = person("operator@app=shop")
    check = api._check  # pyright: ignore[reportPrivateUsage]
    shop, blog = Party(("shop-1",)), Party(("blog-1",))
    check(mine, Order("o", OrderKind.SEAL, shop), FLEET)
    check(mine, Order("o", OrderKind.CONTAIN, Party(), Party(selectors=(parse_selector("app=shop,x=y"),))), FLEET)
    check(mine, Order("o", OrderKind.OPEN, Party(networks=(ip_network("192.0.2.0/24"),)), shop, expires=9.0), FLEET)
    for beyond in (
        Order("o", OrderKind.SEAL, blog),
        Order("o", OrderKind.OPEN, blog, shop, expires=9.0),
        Order("o", OrderKind.CONTAIN, Party(selectors=(parse_selector("x=y"),))),
        Order("o", OrderKind.OPEN, Party(networks=(ip_network("10.0.1.0/24"),)), shop, expires=9.0),
        Order("o", OrderKind.CONTAIN),
        Order("o", OrderKind.ISOLATE, Party(networks=(ip_network("10.0.0.1/32"),))),
    ):
        with pytest.raises(Denied):
            check(mine, beyond, FLEET)
        check(person("operator"), beyond, FLEET)
        with pytest.raises(Denied):
            check(person("viewer"), beyond, FLEET)


def test_an_end_is_read_as_workload_address_network_or_selector() -> None:
    policy = Policy(networks=(AddressBook("office", (ip_network("192.0.2.0/24"),)), AddressBook("names")))

    def read(*texts: str) -> Party:
        return api._party(texts, policy, FLEET)  # pyright: ignore[reportPrivateUsage]

    assert read() == read("any") == Party()
    assert read("shop-1", "app=blog", "10.0.0.0/8", "192.0.2.1", "network:office") == Party(
        ("shop-1",),
        (parse_selector("app=blog"),),
        (ip_network("10.0.0.0/8"), ip_network("192.0.2.1"), ip_network("192.0.2.0/24")),
    )
    for wrong in (("any", "shop-1"), ("shop-2",), ("app=mail",), ("network:names",), ("network:x",), ("a b c",)):
        with pytest.raises(ControllerError):
            read(*wrong)
