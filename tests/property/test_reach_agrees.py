"""What is reached, proven and compared is what `decide` says of every pair of ends, walked through plainly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product

from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.analysis import Assume, all_identities, places_outside
from cellwall.analysis.change.both import OPENING, Both, State
from cellwall.analysis.change.compare import compare
from cellwall.analysis.table.asked import SERVICES, Asked, read_ends
from cellwall.analysis.table.grid import Grid
from cellwall.analysis.table.rows import MakeRows
from cellwall.analysis.table.table import Table
from cellwall.analysis.table.ways import Ways
from cellwall.analysis.table.words import Phrase
from cellwall.analysis.walks.cuts import cut_most, separate
from cellwall.analysis.walks.paths import Path, Walk
from cellwall.analysis.walks.prove import prove, read_claim
from cellwall.flows import Outcome
from cellwall.inventory import Fleet
from cellwall.policy import (
    NOBODY,
    Claim,
    Endpoint,
    Flow,
    Policy,
    Who,
    controller_channel,
    decide,
    endpoint,
    parse_policy,
)
from cellwall.traffic import LAST_POINT, PortSet, parse_ports
from tests.property.plain_table import PlainTable, live_books
from tests.property.worlds import NETWORKS, World, documents, fleets, selectors, worlds

NOW = 1_800_000_000.0
TABLES = [PlainTable, Table]
SERVICES_ASKED = ["tcp/80", "tcp/80-90", "udp/53", "icmp/8/0", "tcp", "any"]


@dataclass(frozen=True)
class Plain:
    """Who passes to whom, asked of `decide` for every pair of ends and every point where a rule begins or ends."""

    policy: Policy
    fleet: Fleet
    assume: Assume
    asked: tuple[Asked, ...] = ()

    def ends(self) -> Iterator[tuple[str, Endpoint]]:
        """Give all ends, as all processes."""
        rules = (*self.policy.rules, *self.policy.lifelines)
        who = [who for rule in rules for who in (*rule.source, *rule.destination)]
        identities = all_identities(one.identity for one in who)
        for workload in self.fleet.workloads:
            for address in workload.addresses:
                for identity in identities if workload.agent else [NOBODY]:
                    yield workload.name, endpoint(self.fleet, address, identity)
        books = [*live_books(self.policy, NOW), *(book for one in self.asked for book in one.books)]
        channel = controller_channel(self.fleet.controllers)
        books += [replace(who.network, name="the controllers") for who in channel.destination if who.network]
        for title, end in places_outside(books, self.fleet):
            yield title.replace("network:address ", "").replace("network:the", "the"), end

    def points(self, ports: PortSet) -> list[int]:
        """Give a point of each stretch of the line of ports that rules and `ports` can tell."""
        spans = [span for rule in (*self.policy.rules, *self.policy.lifelines) for span in rule.ports.spans]
        special = [(1, 3 << 8), (1, 4 << 8), (1, 11 << 8), (1, 13 << 8), (58, 1 << 8), (58, 5 << 8), (58, 130 << 8)]
        special += [(58, 137 << 8), (58, 143 << 8), (58, 144 << 8), (6, 7443), (6, 7444)]
        special += [(17, at) for at in (67, 68, 69, 546, 547, 548)]
        cuts = {at for span in (*spans, *ports.spans) for at in (span.first, span.last + 1)} | {0}
        cuts |= {protocol << 16 | port for protocol, port in special}
        return [at for at in sorted(cuts) if at <= LAST_POINT and at in ports]

    def passes(self, one: tuple[str, Endpoint], other: tuple[str, Endpoint], at: int) -> bool:
        """Say whether one end passes to another."""
        if one[1].address.version != other[1].address.version or not (one[1].workload or other[1].workload):
            return False
        if one[0] == other[0]:
            return False
        told = decide(self.policy, self.fleet, Flow(one[1], other[1], at >> 16, at & 0xFFFF), NOW)
        return (told.would if self.assume is Assume.ENFORCE else told.outcome) is Outcome.ALLOWED

    def edges(self, ports: PortSet) -> set[tuple[int, int]]:
        """Give the pairs of ends, by place, between which some of `ports` pass."""
        ends, points = list(self.ends()), self.points(ports)
        pairs = product(range(len(ends)), repeat=2)
        return {(a, b) for a, b in pairs if any(self.passes(ends[a], ends[b], at) for at in points)}

    def hops(self, start: Iterable[int], ports: PortSet) -> dict[str, int]:
        """Walk breadth first from some ends: every title that is reached, and in how many hops at least."""
        ends, edges = list(self.ends()), self.edges(ports)
        title = [name for name, _ in ends]
        found: dict[str, int] = {}
        begun = {title[at] for at in start if ends[at][1].workload}
        fresh = set(start)
        hop = 0
        while fresh:
            hop += 1
            new = {title[b] for a, b in edges if a in fresh} - found.keys() - begun
            found |= dict.fromkeys(new, hop)
            fresh = {at for at, name in enumerate(title) if name in new and ends[at][1].workload}
        return found


def asked_ends() -> st.SearchStrategy[str]:
    """Ends as people ask for them."""
    named = [*(f"network:{name}" for name in NETWORKS), "any", "w1", "w2", "192.0.2.1", "10.0.0.0/30", "w1 or w2"]
    return st.one_of(selectors(), st.sampled_from(named))


def check_path(plain: Plain, path: Path, start: Asked, goal: Asked, hops: int | None) -> None:
    """A path begins and ends where it should, and each of its hops passes, by the rules that it names."""
    ends = list(plain.ends())
    by_title = {(name, end.identity): [one for other, one in ends if (other, one.identity) == (name, end.identity)]
                for name, end in ends}  # fmt: skip
    assert hops is None or len(path) <= hops
    for one, other in pairwise(path):
        assert one.destination == other.source
    assert path[0].source != path[-1].destination or path[0].source not in plain.fleet.by_name
    for number, hop in enumerate(path):
        sources, destinations = by_title[hop.source, hop.identity], by_title[hop.destination, hop.server]
        if number == 0 and hops == 1:
            sources = [end for end in sources if end in start]
        if number == len(path) - 1:
            destinations = [end for end in destinations if end in goal]
        at = hop.ports.spans[0].first
        pairs = [
            (one, other)
            for one, other in product(sources, destinations)
            if plain.passes((hop.source, one), (hop.destination, other), at)
        ]
        assert pairs
        told = [decide(plain.policy, plain.fleet, Flow(*pair, at >> 16, at & 0xFFFF), NOW) for pair in pairs]
        because = [
            tuple(one.because if one and one.would is Outcome.ALLOWED else () for one in (each.egress, each.ingress))
            for each in told
        ]
        assert tuple(tuple(rule.id for rule in rules) for rules in (hop.egress, hop.ingress)) in because


@settings(max_examples=settings().max_examples // 2)
@given(
    st.data(),
    worlds(rules=5, size=4),
    st.sampled_from(TABLES),
    st.sampled_from(list(Assume)),
    st.sampled_from(SERVICES_ASKED),
)
def test_what_is_reached_in_hops_is_what_walking_over_decide_reaches(
    data: st.DataObject, world: World, make: MakeRows, assume: Assume, service: str
) -> None:
    start = read_ends(data.draw(asked_ends()), world.policy, world.fleet)
    hops = data.draw(st.sampled_from([1, 2, None]))
    ports = parse_ports(service)
    walk = Walk(Ways(make, world.policy, world.fleet, NOW, assume, asked=[start]), ports)
    told = walk.forward(start, hops)
    plain = Plain(world.policy, world.fleet, assume, (start,))
    ends = list(plain.ends())
    held = {at for at, (_, end) in enumerate(ends) if end in start}
    if hops != 1:
        taken = {ends[at][0] for at in held if ends[at][1].workload}
        held |= {at for at, (name, _) in enumerate(ends) if name in taken}
    expected = {name: hop for name, hop in plain.hops(held, ports).items() if hops is None or hop <= hops}
    expected = {name: hop for name, hop in expected.items() if name not in told.start or "(" not in name}
    shown = {name: landing.hop for landing in told.landings for name in landing.ends}
    assert shown == expected
    assert set(told.reached) == {name for name in expected if name in world.fleet.by_name}
    assert told.begun == len({ends[at][0] for at in held if ends[at][1].workload})
    for name, hop in expected.items():
        path = told.path(name)
        assert len(path) == hop
        check_path(plain, path, start, Asked("", read_ends("any", world.policy, world.fleet).whos), hops)


@settings(max_examples=settings().max_examples // 2)
@given(
    st.data(),
    worlds(rules=5, size=4),
    st.sampled_from(TABLES),
    st.sampled_from(list(Assume)),
    st.sampled_from(SERVICES_ASKED),
)
def test_who_reaches_is_who_reaches_walking_over_decide(
    data: st.DataObject, world: World, make: MakeRows, assume: Assume, service: str
) -> None:
    goal, start = (read_ends(data.draw(asked_ends()), world.policy, world.fleet) for _ in range(2))
    hops = data.draw(st.sampled_from([1, 2, None]))
    ports = parse_ports(service)
    walk = Walk(Ways(make, world.policy, world.fleet, NOW, assume, asked=[start, goal]), ports)
    told = walk.backward(goal, hops, start)
    plain = Plain(world.policy, world.fleet, assume, (start, goal))
    ends, edges = list(plain.ends()), plain.edges(ports)
    goals = {at for at, (_, end) in enumerate(ends) if end in goal}
    starts = {at for at, (_, end) in enumerate(ends) if end in start}
    if hops != 1:
        taken = {ends[at][0] for at in starts if ends[at][1].workload}
        starts |= {at for at, (name, _) in enumerate(ends) if name in taken}
    expected: dict[str, int] = {}
    for name in {ends[at][0] for at in starts}:
        # One start at a time: how many hops from it to an end of the goal that is not itself?
        fresh, seen = {at for at in starts if ends[at][0] == name}, {name}
        for hop in range(1, len(ends) if hops is None else hops + 1):
            itself = name if name in world.fleet.by_name else None
            if any(a in fresh and b in goals and ends[b][0] != itself for a, b in edges):
                expected[name] = hop
                break
            new = {ends[b][0] for a, b in edges if a in fresh and ends[b][1].workload} - seen
            seen |= new
            fresh = {at for at, (other, _) in enumerate(ends) if other in new}
    assert {name: landing.hop for landing in told.landings for name in landing.ends} == expected
    for name, hop in expected.items():
        assert len(told.path(name)) == hop
        check_path(plain, told.path(name), start, goal, hops)


def claims(data: st.DataObject) -> str:
    """Draw a claim as a person would write it."""
    source, target = data.draw(asked_ends()), data.draw(asked_ends())
    service = data.draw(st.sampled_from(SERVICES_ASKED))
    form = data.draw(st.sampled_from(["only {} may-reach {}", "{} cannot-reach {}", "{} can-reach {}"]))
    on = f" on {service}" if "can-" in form or data.draw(st.booleans()) else ""
    return form.format(source, target) + on


@settings(max_examples=settings().max_examples)
@given(st.data(), worlds(rules=5, size=4), st.sampled_from(TABLES), st.sampled_from(list(Assume)))
def test_a_claim_is_proven_exactly_when_walking_over_decide_finds_nothing_against_it(
    data: st.DataObject, world: World, make: MakeRows, assume: Assume
) -> None:
    text, hops = claims(data), data.draw(st.sampled_from([1, 2, None]))
    question = read_claim(text, world.policy, world.fleet, hops=hops)
    told = prove(make, world.policy, world.fleet, NOW, question, assume)
    asked = (question.source, question.destination)
    plain = Plain(world.policy, world.fleet, assume, asked)
    ends = list(plain.ends())
    title = [name for name, _ in ends]
    named = {at for at, (_, end) in enumerate(ends) if end in question.source}
    goals = {at for at, (_, end) in enumerate(ends) if end in question.destination}
    if question.claim is Claim.CAN:
        points = plain.points(question.ports)
        served = [sorted(same) for same in {frozenset(b for b in goals if ends[b][1].address == ends[a][1].address)
                                            for a in goals}]  # fmt: skip
        bad = [
            (a, same[0])
            for a in named
            for same in served
            if not ends[a][1].identity
            and ends[a][1].address.version == ends[same[0]][1].address.version
            and (title[a] in world.fleet.by_name or title[same[0]] in world.fleet.by_name)
            and title[a] != title[same[0]]
            and not all(any(plain.passes(ends[a], ends[b], at) for b in same) for at in points)
        ]
        assert told.holds == (not bad)
        if told.refusal is not None:
            assert (told.refusal.source, told.refusal.destination) in {(title[a], title[b]) for a, b in bad}
        return
    start = named if question.claim is Claim.CANNOT else set(range(len(ends))) - named
    if hops != 1 and question.claim is Claim.CANNOT:
        taken = {title[at] for at in start if title[at] in world.fleet.by_name}
        start |= {at for at, name in enumerate(title) if name in taken}
    edges, last = plain.edges(SERVICES), plain.edges(question.ports)
    lengths: list[int] = []
    for name in {title[at] for at in start}:
        itself = name if name in world.fleet.by_name else None
        fresh, seen = {at for at in start if title[at] == name}, {name}
        for hop in range(1, len(ends) if hops is None else hops + 1):
            if any(a in fresh and b in goals and title[b] != itself for a, b in last):
                lengths.append(hop)
                break
            new = {title[b] for a, b in edges if a in fresh and ends[b][1].workload} - seen
            seen |= new
            fresh = {at for at, other in enumerate(title) if other in new}
    assert told.holds == (not lengths)
    assert told.at_once == (1 not in lengths)
    assert len(told.path) == min(lengths, default=0)
    if told.path:
        source = question.source if question.claim is Claim.CANNOT else read_ends("any", world.policy, world.fleet)
        check_path(plain, told.path, source, question.destination, hops)


def holds(phrase: Phrase, title: str, end: Endpoint) -> bool:
    """Say whether `phrase` names an end."""
    plain = title.removesuffix(" (IPv4)").removesuffix(" (IPv6)")
    return plain in phrase.names or end in Asked("", phrase.whos)


@given(st.data(), worlds(rules=5, size=4), st.sampled_from(TABLES), st.sampled_from(list(Assume)), st.booleans())
def test_a_comparison_shows_exactly_the_pairs_that_decide_tells_apart(
    data: st.DataObject, world: World, make: MakeRows, assume: Assume, relabel: bool
) -> None:
    keep = data.draw(st.booleans())
    other = parse_policy([("b.yaml", data.draw(documents(rules=3)))])
    if keep:  # most rules stay: this is what a change looks like
        left = tuple(rule for rule in world.policy.rules if data.draw(st.integers(0, 3)))
        other = replace(world.policy, rules=(*left, *(replace(rule, id=f"new-{rule.id}") for rule in other.rules)))
    fleet = world.fleet
    if relabel:
        first, *rest = fleet.workloads
        fleet = replace(fleet, workloads=(replace(first, labels=first.labels.but(role="web")), *rest))
    before, after = State(world.policy, world.fleet), State(other, fleet)
    told = compare(make, before, after, NOW, assume)
    both = Both(make, before, after, NOW, assume)
    was, becomes = Plain(world.policy, world.fleet, assume), Plain(other, fleet, assume)
    books = Asked("", tuple(Who(network=book) for one in (was, becomes) for book in one.policy.used_networks))
    rules = [rule for one in (was, becomes) for rule in (*one.policy.rules, *one.policy.lifelines)]
    points = Plain(replace(other, rules=tuple(rules)), fleet, assume).points(parse_ports("any"))
    identities = all_identities(who.identity for rule in rules for who in (*rule.source, *rule.destination))
    alike = {one: max((rep for rep in both.identities if rep.covers(one)), key=lambda rep: str(rep).count("="))
             for one in identities}  # fmt: skip
    counted: set[tuple[bool, str, str]] = set()
    places = [(name, end, end) for name, end in places_outside(books.books, fleet)]
    ends = [(w.name, endpoint(world.fleet, a), endpoint(fleet, a)) for w in fleet.workloads for a in w.addresses]
    picked = data.draw(st.lists(st.sampled_from(points), min_size=1, max_size=4))
    processes = data.draw(st.lists(st.tuples(*[st.sampled_from(identities)] * 2), min_size=1, max_size=3))
    for (source, s_was, s_is), (target, t_was, t_is) in product([*ends, *places], repeat=2):
        if source == target or s_is.address.version != t_is.address.version:
            continue
        if s_is.workload is None and t_is.workload is None:
            continue
        for caller, server in processes:
            if (caller and not s_was.agent) or (server and not t_was.agent):
                continue
            for at in picked:
                passes = [
                    one.passes((source, replace(s, identity=caller)), (target, replace(t, identity=server)), at)
                    for one, s, t in ((was, s_was, t_was), (becomes, s_is, t_is))
                ]
                lines = [
                    line
                    for line in told.lines
                    if at in line.ports
                    and line.version in (None, s_is.address.version)
                    and holds(line.sources, source, s_is)
                    and holds(line.destinations, target, t_is)
                    and all(s_is.labels.get(key, "") == t_is.labels.get(key) for key in line.same)
                    and (not line.callers or alike[caller] in line.callers)
                    and (not line.servers or alike[server] in line.servers)
                ]
                assert {line.opened for line in lines} == ({passes[1]} if passes[0] != passes[1] else set[bool]())
                counted |= {(passes[1], source, target)} if passes[0] != passes[1] else set()
    assert len({pair for pair in counted if pair[0]}) <= told.opened_pairs
    assert len({pair for pair in counted if not pair[0]}) <= told.closed_pairs


@settings(max_examples=settings().max_examples // 2)
@given(st.data(), worlds(rules=6, size=5), st.sampled_from(TABLES), st.sampled_from(list(Assume)))
def test_a_table_without_rules_is_known_from_what_each_rule_does(
    data: st.DataObject, world: World, make: MakeRows, assume: Assume
) -> None:
    ways = Ways(make, world.policy, world.fleet, NOW, assume)
    grid = Grid(ways)
    written = [at for at, rule in enumerate(grid.rules) if rule.id in world.policy.by_id]
    removed = frozenset(data.draw(st.sets(st.sampled_from(written)) if written else st.just(set[int]())))
    names = frozenset(grid.rules[at].id for at in removed)
    other = Ways(make, world.policy, world.fleet, NOW, assume, without=names, books=live_books(world.policy, NOW),
                 selectors=world.policy.selectors)  # fmt: skip
    ports = parse_ports(data.draw(st.sampled_from(SERVICES_ASKED)))
    here = {(title, kind.version, kind.identity): at for at, kind in enumerate(ways.kinds) for title in kind.titles}
    for at, kind in enumerate(other.kinds):
        for title in kind.titles:
            own = here[title, kind.version, kind.identity]
            row = grid.into(own, ports, removed)
            for title_of, version, identity in here:
                source = next(
                    (s for s, one in enumerate(other.kinds)
                     if title_of in one.titles and (one.version, one.identity) == (version, identity)), None
                )  # fmt: skip
                if source is None or (title_of == title and title in world.fleet.by_name):
                    continue
                if title not in world.fleet.by_name and title_of not in world.fleet.by_name:
                    continue
                passes = row >> here[title_of, version, identity] & 1
                assert passes == other.any_into(at, ports) >> source & 1
                supports = grid.supports(here[title_of, version, identity], own, ports, removed)
                assert bool(passes) == (bool(supports) and version == kind.version)


@settings(max_examples=settings().max_examples // 2)
@given(st.data(), worlds(rules=5, size=5), st.sampled_from(list(Assume)))
def test_the_rules_that_cut_the_most_are_those_that_trying_all_of_them_finds(
    data: st.DataObject, world: World, assume: Assume
) -> None:
    start, goal = (read_ends(data.draw(asked_ends()), world.policy, world.fleet) for _ in range(2))
    hops = data.draw(st.sampled_from([1, 2, None]))
    ports = parse_ports(data.draw(st.sampled_from(SERVICES_ASKED)))
    names = sorted(rule.id for rule in (*world.policy.rules, *world.policy.lifelines) if rule.action in OPENING)

    def ways(*without: str) -> Ways:
        return Ways(Table, world.policy, world.fleet, NOW, assume, without=frozenset(without), asked=[start, goal])

    gone: list[str] = []
    for cut in cut_most(ways(), start, 3, ports, hops):
        left = {name: Walk(ways(*gone, name), ports).forward(start, hops).reached for name in names if name not in gone}
        assert cut.left == len(left[cut.rule.id]) == min(map(len, left.values()))
        assert set(cut.gone) == set(Walk(ways(*gone), ports).forward(start, hops).reached) - set(left[cut.rule.id])
        gone.append(cut.rule.id)
    if len(gone) < 3:
        now = len(Walk(ways(*gone), ports).forward(start, hops).reached)
        assert all(len(Walk(ways(*gone, name), ports).forward(start, hops).reached) == now for name in names)

    def apart(*without: str) -> bool:
        held = ways(*without)
        walk = Walk(held, ports)
        (begin, hosts), goals = walk.begin(held.held(start), hops), held.held(goal)
        targets = held.hosts_of(goals)
        at_once = walk.shortest(begin, hosts, goals, targets, ports, 1)
        return not at_once and not walk.shortest(begin, hosts, goals, targets & ~hosts, ports, hops)

    told = separate(ways(), start, goal, ports, hops)
    assert told.possible == apart(*names)
    if told.possible:
        assert apart(*(rule.id for rule in told.rules))
        smaller = (some for size in range(len(told.rules)) for some in combinations(names, size))
        found = next((some for some in smaller if apart(*some)), None)
        assert not told.fewest or found is None, (told, found, start.text, goal.text, hops, str(ports))


@settings(max_examples=settings().max_examples * 2)
@given(st.data(), worlds(rules=4, size=4))
def test_what_is_proven_for_every_fleet_holds_for_any(data: st.DataObject, world: World) -> None:
    text = claims(data)
    question = read_claim(text, world.policy, world.fleet, hops=1)
    told = prove(Table, world.policy, world.fleet, NOW, question)
    assert told.at_once or not told.every_fleet
    if told.every_fleet:
        for _ in range(4):
            fleet = data.draw(fleets(size=4))
            armed = replace(fleet, workloads=tuple(replace(one, agent=True) for one in fleet.workloads))
            assert prove(Table, world.policy, armed, NOW, question).holds
