"""Orders: what they may say, and where they stand among lifelines and rules."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from cellwall.flows import Outcome, Side
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels, parse_selector
from cellwall.policy import (
    ANYBODY,
    QUARANTINES,
    Decision,
    Flow,
    Order,
    OrderError,
    OrderKind,
    Party,
    Policy,
    Tier,
    decide,
    decide_at,
    endpoint,
    parse_policy,
)
from cellwall.traffic import NOTHING, TCP, UDP, parse_ports

NOW = 1_000.0
WEB, DB, OUT = ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("192.0.2.9")
FLEET = Fleet(
    (Workload("web", Labels({"role": "web"}), (WEB,)), Workload("db", Labels({"role": "db"}), (DB,))),
    (Listener(ip_address("198.51.100.1"), 7443),),
)
POLICY = parse_policy(
    [
        (
            "p.yaml",
            """
networks: {bastion: [192.0.2.0/24]}
lifelines: [{id: ssh, allow: tcp/22, from: "network:bastion", to: any}]
rules:
  - {id: yes, allow: tcp/5432, from: role=web, to: role=db}
  - {id: no, deny: tcp/23, from: any, to: any}
modes: [{where: '', mode: enforce}, {where: role=web, mode: observe}]
""",
        )
    ]
)


def order(kind: OrderKind, **more: object) -> Order:
    """An order about `db`."""
    given: dict[str, object] = {"source": Party(("db",))} if kind in QUARANTINES else {"destination": Party(("db",))}
    given |= {"expires": NOW + 60} if kind is OrderKind.OPEN else {}
    return Order("o", kind, **(given | more))  # type: ignore[arg-type]


def becomes(source: object, destination: object, port: int, *orders: Order, protocol: int = TCP) -> Decision:
    """What becomes of a flow."""
    ends = (endpoint(FLEET, source), endpoint(FLEET, destination))  # type: ignore[arg-type]
    return decide(POLICY, FLEET, Flow(*ends, protocol, port), NOW, orders)


def test_a_containment_shuts_what_a_rule_allows_and_what_is_only_observed() -> None:
    shut = order(OrderKind.CONTAIN, ports=parse_ports("tcp/5432"), destination=ANYBODY)
    found = becomes(WEB, DB, 5432, shut)
    assert (found.outcome, found.would) == (Outcome.DENIED, Outcome.DENIED)
    assert found.egress is not None and (found.egress.tier, found.egress.because) == (Tier.ORDER, ("o",))
    assert becomes(WEB, OUT, 5432, shut).outcome is Outcome.DENIED
    assert becomes(WEB, OUT, 5433, shut).outcome is Outcome.ALLOWED


def test_what_is_exempt_is_decided_by_the_policy_and_not_opened() -> None:
    shut = order(OrderKind.CONTAIN, destination=ANYBODY, exempt=frozenset({(WEB, DB)}))
    assert becomes(WEB, DB, 5432, shut).outcome is Outcome.ALLOWED
    assert becomes(WEB, DB, 5433, shut).outcome is Outcome.DENIED
    assert becomes(DB, WEB, 5432, shut).egress == becomes(DB, WEB, 5433, shut).egress
    found = becomes(WEB, DB, 5433, shut)
    assert found.ingress is not None and found.ingress.tier is Tier.DEFAULT


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        # From and to it, an SSH lifeline to it, its agent's channel, its request for an address.
        (OrderKind.LIMIT, (False, True, True, True, True)),
        (OrderKind.ISOLATE, (False, False, True, True, True)),
        (OrderKind.SEAL, (False, False, False, True, False)),
    ],
)
def test_the_degrees_of_a_quarantine(kind: OrderKind, passes: tuple[bool, ...]) -> None:
    shut = order(kind)
    found = (
        becomes(DB, WEB, 80, shut),
        becomes(WEB, DB, 5432, shut),
        becomes(OUT, DB, 22, shut),
        becomes(DB, ip_address("198.51.100.1"), 7443, shut),
        becomes(DB, OUT, 67, shut, protocol=UDP),
    )
    assert tuple(one.outcome is Outcome.ALLOWED for one in found) == passes
    assert becomes(WEB, OUT, 80, shut).outcome is Outcome.ALLOWED


def test_loopback_holds_in_a_sealed_host() -> None:
    assert becomes(DB, DB, 80, order(OrderKind.SEAL)).outcome is Outcome.ALLOWED


def test_an_opening_stands_over_denies_and_shut_orders_and_under_a_seal() -> None:
    opened = order(OrderKind.OPEN, source=Party(networks=(ip_network("192.0.2.0/24"),)), ports=parse_ports("tcp/23"))
    assert becomes(OUT, DB, 23).outcome is Outcome.DENIED
    assert becomes(OUT, DB, 23, opened).outcome is Outcome.ALLOWED
    other = Order("p", OrderKind.ISOLATE, Party(("db",)))
    assert becomes(OUT, DB, 23, opened, other).outcome is Outcome.ALLOWED
    assert becomes(OUT, DB, 23, opened, Order("p", OrderKind.SEAL, Party(("db",)))).outcome is Outcome.DENIED
    assert becomes(OUT, WEB, 23, opened).outcome is Outcome.ALLOWED  # only observed
    found = becomes(OUT, WEB, 23, opened).ingress
    assert found is not None and found.tier is Tier.DENY


def test_an_order_that_has_not_begun_or_is_over_does_not_exist() -> None:
    flow = Flow(endpoint(FLEET, WEB), endpoint(FLEET, DB), TCP, 5432)
    for begins, expires, outcome in (
        (NOW, NOW + 1, Outcome.DENIED),
        (NOW + 1, None, Outcome.ALLOWED),
        (0.0, NOW, Outcome.ALLOWED),
    ):
        shut = Order("o", OrderKind.CONTAIN, begins=begins, expires=expires)
        assert decide_at(Side.INGRESS, POLICY, FLEET, flow, NOW, [shut]).outcome is outcome


def test_a_party_is_named_in_three_ways_or_is_anyone() -> None:
    labels = Labels({"role": "db"})
    assert Party().has(OUT, None, Labels()) and Party().anyone
    assert Party(("db",)).has(DB, "db", labels) and not Party(("db",)).has(DB, None, Labels())
    named = Party(selectors=(parse_selector("role=db"),))
    assert named.has(DB, "db", labels) and not named.has(WEB, "web", Labels())
    inside = Party(networks=(ip_network("10.0.0.0/31"),))
    assert inside.has(WEB, None, Labels()) and not inside.has(DB, "db", labels)
    assert str(Party(("b", "a", "b"), (parse_selector("x=y"),), (ip_network("10.0.0.0/31"),))) == (
        "a, b, x=y, 10.0.0.0/31"
    )
    assert str(ANYBODY) == "any"


def test_orders_are_written_as_sentences() -> None:
    assert str(order(OrderKind.SEAL)) == "seal db"
    assert str(order(OrderKind.CONTAIN, ports=parse_ports("tcp/445"))) == "contain tcp/445 from any to db"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"id": "a b", "kind": OrderKind.CONTAIN}, "cannot name an order"),
        ({"kind": OrderKind.CONTAIN, "ports": NOTHING}, "names no ports"),
        ({"kind": OrderKind.CONTAIN, "begins": 5.0, "expires": 5.0}, "ends before it begins"),
        ({"kind": OrderKind.SEAL}, "a quarantine is of named workloads"),
        ({"kind": OrderKind.LIMIT, "source": Party(("a",)), "destination": Party(("b",))}, "a quarantine is of named"),
        ({"kind": OrderKind.OPEN}, "opens without an end"),
        (
            {"kind": OrderKind.OPEN, "expires": 9.0, "exempt": frozenset({(WEB, DB)})},
            "only a containment can exempt",
        ),
    ],
)
def test_an_order_that_cannot_be_meant_is_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(OrderError, match=why):
        Order(**({"id": "o"} | wrong))  # type: ignore[arg-type]


def test_without_orders_nothing_is_otherwise() -> None:
    flow = Flow(endpoint(FLEET, WEB), endpoint(FLEET, DB), TCP, 5432)
    assert decide(Policy(), FLEET, flow, NOW) == decide(Policy(), FLEET, flow, NOW, [])
