"""Policies and fleets of a wanted size, made of the real values."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address
from itertools import islice, product

from cellwall.compile import Compiler, Point
from cellwall.flows import FlowKey, FlowRecord, Outcome, Side
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels, Selector, parse_selector
from cellwall.policy import Action, Mode, ModeRule, Policy, Rule, Who, parse_policy
from cellwall.traffic import TCP, Address, PortSet, parse_ports
from tests.fleet.agent_world import NAME, PORT

CLIENT, SERVER = "client", NAME  # as the stand-in for a controller calls its only agent
CLIENT_ADDRESS, SERVER_ADDRESS = ip_address("10.77.0.1"), ip_address("10.77.0.2")
PORTS = (5000, 5002, 5004, 5006)
"""What the server serves, by TCP and UDP; another rule never names them. No neighbours: those would be a range."""
FIRST_PORT = 10_000
FIRST_PEER = int(ip_address("10.128.0.0"))
NOW = 1_800_000_000.0
KINDS = 1000
"""The most roles of peers, each of which becomes a class."""


def peer(number: int) -> Address:
    """The address of a peer, which nobody uses: it is only a member."""
    return ip_address(FIRST_PEER + number)


def role(number: int, peers: int) -> str:
    """The role of a peer, and of the peers that a rule names."""
    return f"r{number % min(peers, KINDS)}"


def pair_of_ends(peers: int, rules: int) -> tuple[Policy, Fleet]:
    """A client and a server with agents, in mode `enforce`, that each hold `peers` members and `rules` rules.

    The client is one of the server's members, the service of `PORTS` one of its rules, and the other way round. The
    other rules each name a port of their own. A controller is at the client's address.
    """
    served = PortSet.of(span for one in PORTS for by in ("tcp", "udp") for span in parse_ports(f"{by}/{one}").spans)
    client, server = _who("end=client"), _who("end=server")
    found: list[Rule] = []
    for number in range(rules):
        ports = served if number == 0 else parse_ports(f"tcp/{FIRST_PORT + number}")
        others = _who(f"role={role(number, peers)}")
        found.append(Rule(f"in-{number}", Action.ALLOW, ports, others, server))
        found.append(Rule(f"out-{number}", Action.ALLOW, ports, client, others))
    # The last rule is one of the server's.
    found.sort(key=lambda one: one.id.startswith("in"))
    ends = (
        Workload(CLIENT, Labels({"role": "r0", "end": "client"}), (CLIENT_ADDRESS, ip_address("fd77::1"))),
        Workload(SERVER, Labels({"role": "r0", "end": "server"}), (SERVER_ADDRESS, ip_address("fd77::2"))),
    )
    return Policy(rules=tuple(found), modes=_enforced()), Fleet(
        (*ends, *crowd(peers - 1)), (Listener(CLIENT_ADDRESS, PORT),)
    )


def point_of(peers: int, rules: int) -> Point:
    """What the server's point is to hold."""
    return point_at(*pair_of_ends(peers, rules))


def point_at(policy: Policy, fleet: Fleet, workload: str = SERVER, revision: int = 1) -> Point:
    """What the point of `workload` is to hold, as its agent has it: the members in one dict."""
    point = Compiler(policy, fleet, revision, NOW).point(workload)
    return replace(point, members=dict(point.members.items()))


def crowd(peers: int) -> list[Workload]:
    """Workloads without agents, spread over the roles."""
    labels = {role(number, peers): Labels({"role": role(number, peers)}) for number in range(min(peers, KINDS))}
    return [
        Workload(f"p{number}", labels[role(number, peers)], (peer(number),), agent=False) for number in range(peers)
    ]


def estate(workloads: int, rules: int) -> tuple[Policy, Fleet]:
    """A fleet of apps in two environments, three roles each, all with agents; and its policy.

    One rule in ten is about everybody, such as monitoring; the others are of one app, half of them with `same: env`.
    """
    apps, roles = max(1, workloads // 30), ("web", "api", "db")
    labels = [
        Labels({"app": f"a{app}", "env": env, "role": one})
        for app, env, one in islice(product(range(apps), ("prod", "dev"), roles), workloads)
    ]
    fleet = Fleet(
        tuple(Workload(f"w{number}", labels[number % len(labels)], (peer(number),)) for number in range(workloads))
    )
    return Policy(rules=tuple(_estate_rule(number, apps) for number in range(rules)), modes=_enforced()), fleet


def _estate_rule(number: int, apps: int) -> Rule:
    app, ports = number % apps, parse_ports(f"tcp/{FIRST_PORT + number}")
    near, far = (("web", "api"), ("api", "db"))[number % 2]
    if number % 10 == 0:
        source, destination, same = f"app=a{app},role=api", f"role={near}", ()
    else:
        source, destination = f"app=a{app},role={near}", f"app=a{app},role={far}"
        same = ("env",) if number % 2 else ()
    return Rule(f"rule-{number}", Action.ALLOW, ports, _who(source), _who(destination), same=same)


def records(fleet: Fleet, policy: Policy, count: int, seed: int = 1) -> list[FlowRecord]:
    """Distinct flows between workloads of `fleet`, all of which passed: nine in ten by a rule, the others at random."""
    chance = random.Random(seed)
    everybody, held = fleet.workloads, dict[Selector, list[Workload]]()

    def among(who: Who) -> list[Workload]:
        assert who.selector is not None
        if who.selector not in held:
            held[who.selector] = [one for one in everybody if who.selector.matches(one.labels)]
        return held[who.selector]

    found: dict[FlowKey, FlowRecord] = {}
    while len(found) < count:
        rule = chance.choice(policy.rules)
        near, far = among(rule.source[0]), among(rule.destination[0])
        port = rule.ports.spans[0].first & 0xFFFF
        if not near or not far or not chance.randrange(10):
            near, far, port = everybody, everybody, chance.randrange(FIRST_PORT, 65536)
        source, destination = chance.choice(near), chance.choice(far)
        key = FlowKey(source.addresses[0], destination.addresses[0], TCP, port)
        if source is not destination:
            found[key] = FlowRecord(
                key, source.name, Side.EGRESS, Outcome.ALLOWED, Outcome.ALLOWED, (), 1, 1, NOW - 60, NOW
            )  # fmt: skip
    return list(found.values())


def revised(policy: Policy) -> Policy:
    """The same policy, but that one rule names another port."""
    *others, last = policy.rules
    return replace(policy, rules=(*others, replace(last, ports=parse_ports("tcp/9"))))


def documents(rules: int) -> str:
    """A document with so many rules, for the parser."""
    lines = ["labels: {role: {}, app: {}}", "rules:"]
    lines += [
        f"  - {{id: r-{number}, allow: tcp/{FIRST_PORT + number}, from: app=a{number % 97}, to: role=r{number % 89}}}"
        for number in range(rules)
    ]
    return "\n".join(lines) + "\n"


def parsed(text: str) -> Policy:
    """Read a document."""
    return parse_policy([("bench.yaml", text)])


def _who(selector: str) -> tuple[Who, ...]:
    return (Who(_selector(selector)),)


def _enforced() -> tuple[ModeRule, ...]:
    return (ModeRule(_selector(""), Mode.ENFORCE),)


def _selector(text: str) -> Selector:
    return parse_selector(text)
