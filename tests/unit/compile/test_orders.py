"""Orders resolved to addresses, for the points that take part in them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from cellwall.compile import (
    AddressSpan,
    OrderBook,
    OrderCard,
    Ruleset,
    Way,
    compile_fleet,
    judge,
    next_order_change,
    rule_numbers,
    without_expired,
)
from cellwall.compile.rulebook import FIRST_ORDER
from cellwall.flows import Side
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels, parse_selector
from cellwall.policy import Mode, Order, OrderKind, Party, parse_policy
from cellwall.traffic import LAST_POINT, TCP, parse_ports

A, B, C = (ip_address(f"10.0.0.{last}") for last in (1, 2, 3))
FLEET = Fleet(
    (
        Workload("a", Labels({"role": "web"}), (A,), epoch=1.0),
        Workload("b", Labels({"role": "db"}), (B, ip_address("fd00::2")), epoch=1.0),
        Workload("c", Labels({"role": "db"}), (C,), epoch=1.0),
    )
)


def span(first: int, last: int | None = None) -> AddressSpan:
    base = int(ip_address("10.0.0.0"))
    return AddressSpan(4, base + first, base + (first if last is None else last))


def cards(order: Order, name: str, fleet: Fleet = FLEET) -> tuple[OrderCard, ...]:
    return OrderBook([order], fleet, 10.0).at(fleet.by_name[name])


def test_a_selector_is_resolved_to_spans_that_do_not_touch() -> None:
    (card,) = cards(Order("o", OrderKind.LIMIT, Party(selectors=(parse_selector("role=db"),))), "a")
    v6 = int(ip_address("fd00::2"))
    assert card.ways == (Way((span(2, 3), AddressSpan(6, v6, v6))),)
    assert card.spans == ((0, LAST_POINT),)
    assert card.number >= FIRST_ORDER


def test_an_isolation_has_two_ways_and_reaches_every_point() -> None:
    order = Order("o", OrderKind.ISOLATE, Party(("a",)))
    assert {name: cards(order, name) for name in "abc"}.keys() == {"a", "b", "c"}
    assert cards(order, "b")[0].ways == (Way((span(1),)), Way((), (span(1),)))
    assert cards(order, "a") == cards(order, "b")


def test_only_its_two_ends_hear_of_an_opening() -> None:
    order = Order(
        "o",
        OrderKind.OPEN,
        Party(("a",)),
        Party(networks=(ip_network("10.0.0.2/32"),)),
        parse_ports("tcp/22"),
        expires=99.0,
    )
    assert [len(cards(order, name)) for name in "abc"] == [1, 1, 0]


def test_an_address_belongs_to_who_owns_it() -> None:
    rival = Fleet((*FLEET.workloads, Workload("thief", Labels(), (A,), epoch=2.0)))
    (card,) = cards(Order("o", OrderKind.LIMIT, Party(("thief",))), "b", rival)
    assert card.ways == (Way((span(1),)),)
    (card,) = cards(Order("o", OrderKind.LIMIT, Party(("a", "b"))), "c", rival)
    assert span(1) not in card.ways[0].sources


def test_nobody_at_one_end_is_no_way_at_all() -> None:
    (card,) = cards(Order("o", OrderKind.CONTAIN, Party(("gone",))), "a")
    assert card.ways == ()
    assert not card.speaks_of(A, B, 5)


def test_a_point_has_the_exempt_pairs_of_its_own_addresses_alone() -> None:
    order = Order("o", OrderKind.CONTAIN, exempt=frozenset({(A, B), (C, B)}))
    assert [one.exempt for one in cards(order, "a")] == [((A.packed, B.packed),)]
    assert len(cards(order, "b")[0].exempt) == 2
    assert not cards(order, "a")[0].speaks_of(A, B, 5)
    assert cards(order, "a")[0].speaks_of(B, A, 5)


def test_orders_that_are_to_come_or_over_reach_no_point() -> None:
    for begins, expires in ((11.0, None), (0.0, 10.0)):
        assert cards(Order("o", OrderKind.CONTAIN, begins=begins, expires=expires), "a") == ()


def test_the_next_change_is_the_next_beginning_or_end() -> None:
    orders = (Order("o", OrderKind.CONTAIN, begins=5.0, expires=20.0), Order("p", OrderKind.CONTAIN, begins=15.0))
    assert [next_order_change(orders, now) for now in (1.0, 5.0, 15.0, 20.0)] == [5.0, 15.0, 20.0, None]


def test_no_rule_ever_has_the_number_of_an_order() -> None:
    numbers = rule_numbers(f"r{index}" for index in range(20_000))
    assert max(numbers.values()) < FIRST_ORDER
    assert len(set(numbers.values())) == len(numbers)
    book = OrderBook([Order(f"o{index}", OrderKind.CONTAIN) for index in range(300)], FLEET, 1.0)
    found = book.at(FLEET.by_name["a"])
    assert len({card.number for card in found}) == 300
    assert all(FIRST_ORDER <= card.number < 1 << 28 for card in found)


def test_an_order_that_expires_away_from_the_controller_is_over() -> None:
    (card,) = cards(Order("o", OrderKind.CONTAIN, expires=20.0), "a")
    (lasting,) = cards(Order("p", OrderKind.CONTAIN), "a")
    ruleset = Ruleset("a", 1, Mode.OBSERVE, orders=(card, lasting))
    assert without_expired(ruleset, 19.0) is ruleset
    assert without_expired(ruleset, 20.0).orders == (lasting,)
    assert ruleset.id_by_number == {card.number: "o", lasting.number: "p"}


def test_a_point_judges_by_lifelines_then_orders_then_rules() -> None:
    policy = parse_policy(
        [
            (
                "p.yaml",
                'networks: {bastion: [192.0.2.0/24]}\nlifelines: [{id: ssh, allow: tcp/22, from: "network:bastion", '
                "to: any}]\nmodes: [{where: '', mode: enforce}]\n",
            )
        ]
    )
    look = Order("look", OrderKind.OPEN, Party(), Party(("a",)), parse_ports("tcp/80"), expires=99.0)
    shut = Order("shut", OrderKind.ISOLATE, Party(("a",)))
    seal = Order("zeal", OrderKind.SEAL, Party(("a",)))
    out = ip_address("192.0.2.1")

    def judged(port: int, *orders: Order) -> tuple[str, tuple[str, ...]]:
        point = compile_fleet(policy, FLEET, 1, 10.0, orders).points["a"]
        found = judge(point.ruleset, point.members, Side.INGRESS, A, out, TCP, port)
        assert found.outcome is found.would
        return found.tier.value, found.rules

    assert judged(22) == judged(22, look, shut) == ("lifeline", ("ssh",))
    assert judged(22, look, shut, seal) == ("order", ("zeal",))
    assert judged(80, look, shut) == ("order", ("look",))
    assert judged(81, look, shut) == ("order", ("shut",))
    assert judged(81) == ("default", ())
    assert [card.shuts for card in compile_fleet(policy, FLEET, 1, 10.0, (look, shut)).points["a"].ruleset.orders] == [
        False,
        True,
    ]


def test_points_with_the_same_orders_are_given_one_object_unless_pairs_are_exempt() -> None:
    shut, own = Order("o1", OrderKind.CONTAIN), Order("o2", OrderKind.ISOLATE, Party((FLEET.workloads[0].name,)))
    book = OrderBook([shut], FLEET, 1.0)
    assert len({id(book.at(one)) for one in FLEET.workloads}) == 1
    book = OrderBook([shut, own], FLEET, 1.0)
    assert all(book.at(one) is book.at(one) for one in FLEET.workloads)
    pair = (FLEET.workloads[0].addresses[0], FLEET.workloads[1].addresses[0])
    book = OrderBook([replace(shut, exempt=frozenset({pair}))], FLEET, 1.0)
    assert [bool(book.at(one)[0].exempt) for one in FLEET.workloads[:2]] == [True, True]
