"""Large fleets and their policies, as enterprises, Cilium's own benchmarks and Kano's generator have them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from cellwall.flows import Side
from cellwall.inventory import Fleet, Listener, Workload
from cellwall.labels import Labels, Operator, Requirement, Selector, parse_selector
from cellwall.policy import Action, Mode, ModeRule, Policy, Rule, Who
from cellwall.traffic import EVERYTHING, TCP, parse_ports, point

FIRST_ADDRESS = int(ip_address("10.128.0.0"))
CONTROLLER = Listener(ip_address("10.127.0.1"), 7443)
SERVICES = tuple(
    parse_ports(text)
    for text in (
        *(f"tcp/{port}" for port in (22, 25, 53, 80, 443, 445, 1433, 1521, 2049, 3306, 3389, 5432, 5672, 6379, 6443)),
        *(f"tcp/{port}" for port in (8443, 9042, 9090, 9092, 9100, 9200, 9300, 11211, 15672, 27017, 50051)),
        *("tcp/8000-8099", "tcp/9990-9999", "tcp/30000-32767", "tcp/49152-65535"),
        *("udp/53", "udp/123", "udp/514", "icmp/8"),
    )
)
ENVS = ("prod", "staging", "test", "dev")
ROLES = ("web", "api", "db", "cache", "queue", "worker", "batch", "admin")
LOCS = ("ams", "fra", "iad", "sin")
ZONES = ("dmz", "core", "data")
SYSTEMS = ("debian-12", "rhel-9", "windows-2022")
SET_SIZES = (3, 4)
"""How many workloads have the same labels, in turns."""
ANYONE = (Who(),)
ENFORCED = (ModeRule(Selector(), Mode.ENFORCE),)


def enterprise(workloads: int, rules: int, seed: int = 1) -> tuple[Policy, Fleet]:
    """A fleet of apps in four environments, and its rules: 60 % of one app, 25 % from app to app, 10 % from an
    environment to what is shared, 5 % about a role everywhere, and four that deny. Everything enforces."""
    chance = random.Random(seed)
    apps = max(2, workloads // 60)
    sets = dict.fromkeys(_label_set(chance, apps) for _ in range(workloads))
    held = list(islice(sets, max(1, workloads * 2 // sum(SET_SIZES))))
    labels = [one for at, one in enumerate(held) for _ in range(SET_SIZES[at % 2])]
    fleet = Fleet(
        tuple(
            Workload(f"w{number}", labels[number % len(labels)], (ip_address(FIRST_ADDRESS + number),))
            for number in range(workloads)
        ),
        (CONTROLLER,),
    )
    made = [_enterprise_rule(number, apps, chance) for number in range(rules - len(_DENIALS))]
    denials = (Rule(name, Action.DENY, ports, who(near), who(far)) for name, ports, near, far in _DENIALS)
    return Policy(rules=(*made, *denials), modes=ENFORCED), fleet


_DENIALS = (
    ("no-dev-in-prod", EVERYTHING, "env=dev", "env=prod"),
    ("no-test-in-prod", EVERYTHING, "env=test", "env=prod"),
    ("no-smb-from-dmz", parse_ports("tcp/445"), "zone=dmz", "zone=core"),
    ("no-rdp-to-data", parse_ports("tcp/3389"), "zone=dmz", "zone=data"),
)


def _label_set(chance: random.Random, apps: int) -> Labels:
    return Labels({
        "app": f"a{chance.randrange(apps)}", "env": chance.choice(ENVS), "role": chance.choice(ROLES),
        "loc": chance.choice(LOCS), "zone": chance.choice(ZONES), "os": chance.choice(SYSTEMS),
    })  # fmt: skip


def _enterprise_rule(number: int, apps: int, chance: random.Random) -> Rule:
    app, other = chance.randrange(apps), chance.randrange(apps)
    near, far = chance.choice(ROLES), chance.choice(ROLES)
    ports = chance.choice(SERVICES)
    kind = number % 20
    name = f"r{number}"
    if kind < 12:
        same = ("env",) if kind < 6 else ()
        source, destination = f"app=a{app},role={near}", f"app=a{app},role={far}"
        return Rule(name, Action.ALLOW, ports, who(source), who(destination), same=same)
    if kind < 17:
        env = chance.choice(ENVS)
        source, destination = f"app=a{app},env={env},role={near}", f"app=a{other},env={env},role={far}"
        return Rule(name, Action.ALLOW, ports, who(source), who(destination))
    if kind < 19:
        source, destination = f"env={chance.choice(ENVS)}", f"app=a{other},role={far}"
        return Rule(name, Action.ALLOW, ports, who(source), who(destination))
    source, destination = f"app=a{app},role=admin", f"role={far},loc={chance.choice(LOCS)}"
    return Rule(name, Action.ALLOW, ports, who(source), who(destination))


def cilium_like(identities: int, rules: int, points: int = 100, seed: int = 1) -> tuple[Policy, Fleet]:
    """So many label sets, each of its own, and ingress rules of one peer selector and one TCP port; ten rules select
    the same subjects. `points` of the workloads have a point, and the others are peers only."""
    chance = random.Random(seed)
    groups = max(1, rules // 10)
    members = tuple(
        Workload(
            f"w{number}",
            Labels({"app": f"a{number % groups}", "pod": f"p{number}", "env": ENVS[number % 4], "os": SYSTEMS[0]}),
            (ip_address(FIRST_ADDRESS + number),),
            agent=number < points,
        )
        for number in range(identities)
    )
    made = tuple(
        Rule(
            f"r{number}", Action.ALLOW, parse_ports(f"tcp/{1024 + number % 60_000}"),
            who(f"app=a{chance.randrange(groups)}"), who(f"app=a{number % groups}"), sides=frozenset({Side.INGRESS}),
        )
        for number in range(rules)
    )  # fmt: skip
    return Policy(rules=made, modes=ENFORCED), Fleet(members, (CONTROLLER,))


@dataclass(frozen=True, slots=True)
class PodPolicy:
    """A NetworkPolicy of one peer selector, for all ports: which pods it isolates, and whom it lets in or out."""

    ingress: bool
    subject: Mapping[str, str]
    peer: Mapping[str, str]


def kano_like(pods: int, policies: int, seed: int = 1) -> tuple[list[dict[str, str]], list[PodPolicy]]:
    """Pods and policies in the proportions of Kano's published generator: one of 5 users, up to 4 of 5 more keys with
    10 values each; each policy takes both of its selectors from the labels of a pod, the user and up to 3 more."""
    chance = random.Random(seed)
    made: list[dict[str, str]] = []
    for _ in range(pods):
        labels = {"user": f"u{chance.randrange(5)}"}
        for _ in range(chance.randrange(5)):
            labels[f"key{chance.randrange(5)}"] = f"v{chance.randrange(10)}"
        made.append(labels)
    asked: list[PodPolicy] = []
    for _ in range(policies):
        subject, peer = (dict(islice(one.items(), 4)) for one in chance.sample(made, 2))
        asked.append(PodPolicy(chance.random() < 0.5, subject, peer))
    return made, asked


def of_pods(pods: list[dict[str, str]], policies: list[PodPolicy]) -> tuple[Policy, Fleet]:
    """Say the same in our words. What no policy isolates is open, and its labels say so.

    A NetworkPolicy of one direction leaves the other as it is, so each rule is of one side.
    """
    by_pair: dict[tuple[str, str], set[int]] = {}
    for number, labels in enumerate(pods):
        for pair in labels.items():
            by_pair.setdefault(pair, set()).add(number)
    isolated: dict[bool, set[int]] = {True: set(), False: set()}
    for one in policies:
        isolated[one.ingress] |= set[int].intersection(*(by_pair[pair] for pair in one.subject.items()))
    fleet = Fleet(
        tuple(
            Workload(
                f"p{number:05}",
                Labels({
                    **labels,
                    "ingress": "isolated" if number in isolated[True] else "open",
                    "egress": "isolated" if number in isolated[False] else "open",
                }),
                (ip_address(FIRST_ADDRESS + number),),
            )
            for number, labels in enumerate(pods)
        )
    )  # fmt: skip
    rules = [
        Rule("open-in", Action.ALLOW, EVERYTHING, ANYONE, who("ingress=open"), sides=frozenset({Side.INGRESS})),
        Rule("open-out", Action.ALLOW, EVERYTHING, who("egress=open"), ANYONE, sides=frozenset({Side.EGRESS})),
    ]
    for number, one in enumerate(policies):
        subject, peer = (Who(_equal(labels)) for labels in (one.subject, one.peer))
        ends, side = ((peer, subject), Side.INGRESS) if one.ingress else ((subject, peer), Side.EGRESS)
        rules.append(
            Rule(f"np-{number}", Action.ALLOW, EVERYTHING, (ends[0],), (ends[1],), sides=frozenset({side}))
        )  # fmt: skip
    return Policy(rules=tuple(rules), modes=ENFORCED), fleet


def _equal(labels: Mapping[str, str]) -> Selector:
    return Selector(tuple(sorted(Requirement(key, Operator.IN, (value,)) for key, value in labels.items())))


def who(selector: str) -> tuple[Who, ...]:
    """One end of a rule."""
    return (Who(parse_selector(selector)),)


def other_ports(rule: Rule, chance: random.Random) -> Rule:
    """The same rule for another service."""
    return replace(rule, ports=chance.choice([one for one in SERVICES if one != rule.ports]))


# ---- flows


@dataclass(frozen=True, slots=True)
class FlowColumns:
    """Flows as columns: addresses of IPv4 as integers, and points of the line of ports."""

    sources: NDArray[np.uint32]
    destinations: NDArray[np.uint32]
    points: NDArray[np.uint32]


def flow_columns(policy: Policy, fleet: Fleet, count: int, edges: int = 200_000, seed: int = 1) -> FlowColumns:
    """`count` flows over so many distinct edges: nine in ten of these by a rule, the others at random. How often each
    is seen falls by Zipf's law (0.8), and one flow in a hundred is noise of its own."""
    chance, numbers = random.Random(seed), np.random.default_rng(seed)
    members = _Members(fleet)
    made = np.array([_edge(policy, fleet, members, chance) for _ in range(edges)], np.uint32)
    weights = np.arange(1, edges + 1, dtype=np.float64) ** -0.8
    chosen = made[numbers.permutation(edges)[numbers.choice(edges, count, p=weights / weights.sum())]]
    noisy = np.flatnonzero(numbers.random(count) < 0.01)
    for end in (0, 1):
        chosen[noisy, end] = FIRST_ADDRESS + numbers.integers(0, len(fleet.workloads), len(noisy))
    chosen[noisy, 2] = point(TCP, 0) + numbers.integers(0, 65536, len(noisy))
    return FlowColumns(*(np.ascontiguousarray(chosen[:, at]) for at in range(3)))


class _Members:
    """Whom a selector means, by the values that it asks for."""

    def __init__(self, fleet: Fleet) -> None:
        self._everybody: Sequence[Workload] = fleet.workloads
        self._by_pair: defaultdict[tuple[str, str], list[Workload]] = defaultdict(list)
        self._known: dict[Selector, Sequence[Workload]] = {}
        for one in fleet.workloads:
            for pair in one.labels.pairs:
                self._by_pair[pair].append(one)

    def of(self, selector: Selector) -> Sequence[Workload]:
        if selector not in self._known:
            lists: list[Sequence[Workload]] = [self._by_pair[one.key, one.values[0]] for one in selector.requirements]
            least = min(lists, key=len, default=self._everybody)
            self._known[selector] = [one for one in least if selector.matches(one.labels)]
        return self._known[selector]


def _edge(policy: Policy, fleet: Fleet, members: _Members, chance: random.Random) -> tuple[int, int, int]:
    rule = chance.choice(policy.rules)
    sources, destinations = (members.of(end[0].selector or Selector()) for end in (rule.source, rule.destination))
    span = rule.ports.spans[0]
    port = chance.randint(span.first, span.last)
    if not sources or not destinations or not chance.randrange(10):
        sources = destinations = fleet.workloads
        port = point(TCP, chance.randrange(65536))
    source, destination = chance.choice(sources), chance.choice(destinations)
    return int(source.addresses[0]), int(destination.addresses[0]), port
