"""The tests of a policy: claims about what it lets through, checked over all workloads and all ports, not samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from cellwall.analysis.table.asked import SERVICES, Asked
from cellwall.analysis.table.reach import Assume, Kind, Reach, all_identities, places_outside
from cellwall.analysis.table.table import Table
from cellwall.analysis.walks.paths import Path
from cellwall.analysis.walks.prove import Question, prove
from cellwall.flows import Side
from cellwall.inventory import Fleet
from cellwall.policy import NOBODY, Claim, Endpoint, Identity, Policy, Test, Verdict, Who
from cellwall.traffic import NOTHING, PortSet, port_name

MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A flow that breaks a claim: `ports` all do, `service` is the first of them, on which both verdicts are.

    A verdict is None where an end has no point. Where it takes more hops than one, `path` has them, and there are no
    verdicts. `alike` counts further pairs of ends that break it in the same way."""

    source: str
    destination: str
    identity: Identity
    ports: PortSet
    service: str
    egress: Verdict | None
    ingress: Verdict | None
    alike: int
    path: Path = ()


@dataclass(frozen=True, slots=True)
class TestResult:
    """Whether a test holds. `checked` counts pairs of ends; 0 of them prove nothing, and the test is `vacuous`."""

    __test__ = False  # not for pytest

    test: Test
    passed: bool
    checked: int
    counterexamples: tuple[Counterexample, ...] = ()

    @property
    def vacuous(self) -> bool:
        """Whether nothing was there to be checked."""
        return self.checked == 0


@dataclass(frozen=True)
class _End:
    title: str
    end: Endpoint
    kind: Kind


def run_tests(policy: Policy, fleet: Fleet, now: float) -> tuple[TestResult, ...]:
    """Check all tests of `policy` over `fleet`, under full enforcement, at `now` (seconds since the epoch)."""
    reach = Reach(policy, fleet, now)
    return tuple(_Run(reach, test).result() for test in policy.tests)


def run_test(reach: Reach, test: Test) -> TestResult:
    """Check one test."""
    return _Run(reach, test).result()


class _Run:
    def __init__(self, reach: Reach, test: Test) -> None:
        self._reach, self._test = reach, test
        whos = (*test.source, *test.destination)
        asked = {who.identity for who in whos} | {one for side in Side for one in reach.identities(side)}
        self._identities = all_identities(asked)
        books = [*reach.policy.used_networks, *(who.network for who in whos if who.network is not None)]
        self._outside = tuple(places_outside(books, reach.fleet))

    def result(self) -> TestResult:
        test = self._test
        if test.claim is Claim.CAN:
            sources = self._exactly(test.source)
        elif test.claim is Claim.CANNOT:
            sources = self._within(test.source)
        else:
            sources = self._within(test.source, outside=True)
        served = _by_kind(self._within(test.destination))
        callers = _by_kind(sources)
        checked = 0
        # What the built-in lifelines let pass carries no service: nobody means it by `any`.
        ports = test.ports if test.claim is Claim.CAN else test.ports & SERVICES or test.ports
        broken: dict[tuple[int, int], Counterexample] = {}
        for source in callers.values():
            # A server may be any process that the claim speaks of: what one of them is let have, the end is let have.
            for targets in _by_address_kind(served).values():
                pairs = [
                    (one, other)
                    for one in source
                    for other in targets[0]
                    if one.end.address.version == other.end.address.version
                    and (one.end.workload is None or one.end.workload != other.end.workload)
                ]
                if not pairs:
                    continue
                checked += len(pairs)
                passing = self._passing(source[0].kind, [group[0].kind for group in targets])
                bad = ports - passing if test.claim is Claim.CAN else ports & passing
                if bad:
                    at = id(source[0].kind), id(targets[0][0].kind)
                    broken[at] = self._counterexample(*pairs[0], targets, bad, len(pairs) - 1)
        if not broken and checked and test.hops != 1:
            path = self._in_hops()
            return TestResult(test, not path, checked, (_at_the_end_of(path),) if path else ())
        shown = sorted(broken.values(), key=lambda one: (one.source, one.destination, str(one.identity)))
        return TestResult(test, not broken, checked, tuple(_one_of_each(shown)[:MOST_SHOWN]))

    def _in_hops(self) -> Path:
        """Give a shortest path that breaks a claim which holds at once; none where there is none."""
        test, reach = self._test, self._reach
        ends = (Asked("", test.source), Asked("", test.destination))
        question = Question(test.id, test.claim, *ends, test.ports & SERVICES or test.ports, test.hops)
        return prove(Table, reach.policy, reach.fleet, reach.now, question).path

    def _passing(self, source: Kind, targets: Iterable[Kind]) -> PortSet:
        passing = NOTHING
        for target in targets:
            passing |= self._reach.passing(source, target, Assume.ENFORCE)
        return passing

    def _counterexample(
        self, source: _End, target: _End, targets: list[list[_End]], bad: PortSet, alike: int
    ) -> Counterexample:
        at = bad.spans[0].first
        server = target.kind
        if self._test.claim is not Claim.CAN:
            # Show the process that is let in, not just any.
            kinds = (group[0].kind for group in targets)
            server = next(kind for kind in kinds if at in self._reach.passing(source.kind, kind, Assume.ENFORCE))
        decision = self._reach.decide(source.kind, server, at >> 16, at & 0xFFFF)
        return Counterexample(
            source.title,
            target.title,
            source.end.identity,
            bad,
            port_name(at),
            decision.egress,
            decision.ingress,
            alike,
        )

    def _everyone(self) -> Iterator[tuple[str, Endpoint]]:
        for workload in self._reach.fleet.workloads:
            for address in workload.addresses:
                if self._reach.fleet.by_address[address] is workload:
                    yield workload.name, Endpoint(address, workload.name, workload.labels, workload.agent)
        yield from self._outside

    def _exactly(self, whos: tuple[Who, ...]) -> Iterator[_End]:
        """Give the ends that `whos` name, each as the process that they name, or nobody in particular."""
        for title, end in self._everyone():
            for identity in dict.fromkeys(who.identity for who in whos if _names(who, end)):
                yield self._end(title, end, identity)

    def _within(self, whos: tuple[Who, ...], *, outside: bool = False) -> Iterator[_End]:
        """Give the ends that `whos` hold (or, `outside`, do not), as every process that they can be."""
        for title, end in self._everyone():
            for identity in self._identities:
                held = any(_names(who, end) and who.identity.covers(identity) for who in whos)
                if held is not outside:
                    yield self._end(title, end, identity)

    def _end(self, title: str, end: Endpoint, identity: Identity) -> _End:
        known = replace(end, identity=identity)
        return _End(title, known, self._reach.kind_of(known))


def _at_the_end_of(path: Path) -> Counterexample:
    last = path[-1]
    return Counterexample(
        path[0].source, last.destination, path[0].identity, last.ports, last.service, None, None, 0, path
    )


def _one_of_each(found: list[Counterexample]) -> list[Counterexample]:
    """Put the first of each set of rules in front, so that the few that are shown tell of as many rules as can be."""
    firsts: dict[tuple[tuple[str, ...], ...], Counterexample] = {}
    for one in found:
        firsts.setdefault(tuple(told.because if told else () for told in (one.egress, one.ingress)), one)
    return [*firsts.values(), *(one for one in found if one not in firsts.values())]


def _by_kind(ends: Iterable[_End]) -> dict[int, list[_End]]:
    groups: defaultdict[int, list[_End]] = defaultdict(list)
    for one in ends:
        groups[id(one.kind)].append(one)
    return groups


def _by_address_kind(groups: Mapping[int, list[_End]]) -> dict[frozenset[str], list[list[_End]]]:
    """Put together the groups of the same ends as different processes; the one as nobody in particular first."""
    found: defaultdict[frozenset[str], list[list[_End]]] = defaultdict(list)
    for group in groups.values():
        found[frozenset(str(one.end.address) for one in group)].append(group)
    for same in found.values():
        same.sort(key=lambda group: group[0].end.identity != NOBODY)
    return found


def _names(who: Who, end: Endpoint) -> bool:
    if who.selector is not None:
        return end.workload is not None and who.selector.matches(end.labels)
    return who.network is None or end.address in who.network
