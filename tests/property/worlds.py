"""Random policies, fleets and flows, small enough to collide often. Policies are made as documents and parsed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address

from hypothesis import strategies as st

from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels, parse_selector
from cellwall.policy import (
    ANYBODY,
    NOBODY,
    QUARANTINES,
    Flow,
    Identity,
    Order,
    OrderKind,
    Party,
    Policy,
    endpoint,
    parse_policy,
)
from cellwall.traffic import ICMP, ICMPV6, Address, parse_network, parse_ports

VALUES = {"app": ["shop", "blog"], "env": ["prod", "dev"], "role": ["web", "db"]}
PORTS = [
    "tcp/80",
    "tcp/81",
    "tcp/80-90",
    "tcp/85-100",
    "tcp/0-65535",
    "tcp",
    "udp/53",
    "udp/50-60",
    "udp",
    "icmp/8",
    "icmp/8/0",
    "icmpv6/128",
    "icmp",
    "icmpv6",
    "sctp/80",
    "gre",
    "any",
]
NETWORKS = {
    "half": ["10.0.0.0/25"],
    "some": ["10.0.0.4/30", "fd00::/126"],
    "out": ["192.0.2.0/24", "2001:db8::/64"],
    "deep": ["10.0.0.5", "192.0.2.128/25"],
}
POINTS = [
    *((6, port) for port in (0, 80, 81, 88, 95, 443, 7443, 65535)),
    *((17, port) for port in (53, 55, 68, 99)),
    *((1, kind << 8 | code) for kind, code in ((8, 0), (8, 1), (13, 0), (3, 4))),
    *((58, kind << 8) for kind in (128, 129, 135)),
    *((132, port) for port in (80, 81)),
    *((other, 0) for other in (47, 89)),
]
OUTSIDE = [ip_address(text) for text in ("192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1", "2001:db9::1")]
USERS = ["www-data", "daemon"]
UNITS = ["nginx.service", "app.service"]


@dataclass(frozen=True)
class World:
    """A policy, as text too, and a fleet."""

    text: str
    policy: Policy
    fleet: Fleet


def selectors() -> st.SearchStrategy[str]:
    """Selectors over the small vocabulary."""

    def one(key: str) -> st.SearchStrategy[str]:
        value = st.sampled_from(VALUES[key])
        return st.one_of(
            value.map(lambda v: f"{key}={v}"),
            value.map(lambda v: f"{key}!={v}"),
            st.just(f"{key} in ({','.join(VALUES[key])})"),
            st.just(key),
            st.just(f"!{key}"),
        )

    keys = st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=2, unique=True)
    return keys.flatmap(lambda chosen: st.tuples(*(one(key) for key in chosen)).map(",".join))


def _who(identities: bool) -> st.SearchStrategy[object]:
    plain = st.one_of(
        st.just("any"), selectors(), selectors(), st.sampled_from(sorted(NETWORKS)).map(lambda n: f"network:{n}")
    )
    if not identities:
        return plain
    asked = st.one_of(
        st.sampled_from(USERS).map(lambda u: {"user": u}),
        st.sampled_from(UNITS).map(lambda u: {"unit": u}),
        st.tuples(st.sampled_from(USERS), st.sampled_from(UNITS)).map(lambda t: {"user": t[0], "unit": t[1]}),
    )
    return st.one_of(plain, plain, plain, st.tuples(plain, asked).map(lambda t: {"workloads": t[0], "as": t[1]}))


@st.composite
def documents(draw: st.DrawFn, rules: int = 6, modes: bool = True) -> str:
    """A policy document (JSON is YAML)."""
    made: list[dict[str, object]] = []
    for index in range(draw(st.integers(0, rules))):
        rule: dict[str, object] = {
            "id": f"r{index}",
            draw(st.sampled_from(["allow", "allow", "allow", "deny", "wall"])): draw(
                st.lists(st.sampled_from(PORTS), min_size=1, max_size=2)
            ),
            "from": draw(st.lists(_who(identities=True), min_size=1, max_size=2)),
            "to": draw(st.lists(_who(identities=False), min_size=1, max_size=2)),
        }
        if draw(st.integers(0, 3)) == 0:
            rule["same"] = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=2, unique=True))
        if draw(st.integers(0, 9)) == 0:
            rule["staged"] = "true"
        if draw(st.integers(0, 9)) == 0:
            rule["expires"] = draw(st.sampled_from(["2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z"]))
        made.append(rule)
    lifelines: list[dict[str, object]] = []
    if draw(st.integers(0, 3)) == 0:
        ends: list[object] = [draw(_who(identities=False)), f"network:{draw(st.sampled_from(sorted(NETWORKS)))}"]
        if draw(st.booleans()):
            ends.reverse()
        port = draw(st.sampled_from(PORTS))
        lifelines.append({"id": "line", "allow": port, "from": ends[0], "to": ends[1]})
    chosen: list[dict[str, str]] = []
    if modes:
        chosen = [
            {"where": "", "mode": draw(st.sampled_from(["observe", "guard", "enforce"]))},
            {"where": "role=db", "mode": draw(st.sampled_from(["observe", "guard", "enforce"]))},
        ]
    return json.dumps(
        {
            "labels": {key: {"values": values} for key, values in VALUES.items()},
            "networks": NETWORKS,
            "rules": made,
            "lifelines": lifelines,
            "modes": chosen,
        },
        indent=1,
    )


@st.composite
def fleets(draw: st.DrawFn, size: int = 5) -> Fleet:
    """Up to `size` workloads with one IPv4 and one IPv6 address each, a controller among the outside addresses."""
    workloads: list[Workload] = []
    for index in range(1, 1 + draw(st.integers(2, size))):
        labels = {key: draw(st.sampled_from(values)) for key, values in VALUES.items() if draw(st.integers(0, 3))}
        addresses: tuple[Address, ...] = (ip_address(f"10.0.0.{index}"), ip_address(f"fd00::{index}"))
        workloads.append(Workload(f"w{index}", Labels(labels), addresses, agent=draw(st.integers(0, 4)) > 0))
    return Fleet(tuple(workloads), (Listener(ip_address("198.51.100.1"), 7443),))


@st.composite
def worlds(draw: st.DrawFn, rules: int = 6, size: int = 5) -> World:
    """A policy and a fleet."""
    text = draw(documents(rules=rules))
    return World(text, parse_policy([("policy.yaml", text)]), draw(fleets(size=size)))


IDENTITIES = [
    NOBODY,
    *(Identity(user=user, unit=unit) for user in (*USERS, "root") for unit in (*UNITS, "other.service")),
]


@st.composite
def flows(draw: st.DrawFn, fleet: Fleet) -> Flow:
    """A flow between two addresses of one family, at least one of them a workload's."""
    inside = [address for workload in fleet.workloads for address in workload.addresses]
    one = draw(st.sampled_from(inside))
    others = [a for a in [*inside, *OUTSIDE] if a.version == one.version and a != one]
    ends = [one, draw(st.sampled_from(others))]
    if draw(st.booleans()):
        ends.reverse()
    foreign = ICMPV6 if one.version == 4 else ICMP
    protocol, port = draw(st.sampled_from([at for at in POINTS if at[0] != foreign]))
    identity = draw(st.sampled_from(IDENTITIES))
    return Flow(endpoint(fleet, ends[0], identity), endpoint(fleet, ends[1]), protocol, port)


def parties(anyone: bool = True) -> st.SearchStrategy[Party]:
    """Ends of orders: by name, by selector, by network, mixed, or anyone; some of them are nobody."""
    names = st.lists(st.sampled_from(["w1", "w2", "w3", "gone"]), max_size=2).map(tuple)
    chosen = st.lists(selectors().map(parse_selector), max_size=1).map(tuple)
    books = st.lists(st.sampled_from([text for texts in NETWORKS.values() for text in texts]), max_size=2)
    mixed = st.builds(Party, names, chosen, books.map(lambda texts: tuple(map(parse_network, texts))))
    named = mixed.map(lambda party: Party(("w1",)) if party.anyone else party)
    return st.one_of(st.just(ANYBODY), named) if anyone else named


@st.composite
def orders(draw: st.DrawFn, fleet: Fleet, now: float, most: int = 3) -> tuple[Order, ...]:
    """Some orders of all kinds: in force, to come and expired."""
    inside = [address for workload in fleet.workloads for address in workload.addresses]
    made: list[Order] = []
    for index in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(OrderKind))
        quarantine = kind in QUARANTINES
        pairs: frozenset[tuple[Address, Address]] = frozenset()
        if kind is OrderKind.CONTAIN:
            pair = st.tuples(st.sampled_from(inside), st.sampled_from([*inside, *OUTSIDE]))
            same_family = pair.filter(lambda ends: ends[0].version == ends[1].version)
            pairs = frozenset(draw(st.lists(same_family, max_size=4)))
        begins, expires = draw(st.sampled_from([(0.0, now + 60), (0.0, now + 60), (now + 5, now + 60), (0.0, now - 1)]))
        made.append(
            Order(
                f"{kind}-{index}",
                kind,
                draw(parties(anyone=not quarantine)),
                ANYBODY if quarantine else draw(parties()),
                parse_ports("any" if quarantine else draw(st.sampled_from(PORTS))),
                pairs,
                begins,
                expires if kind is OrderKind.OPEN or draw(st.booleans()) else None,
            )
        )
    return tuple(made)
