"""Claims about who reaches whom, proven over the whole fleet and every port, or refuted by a shortest path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cellwall.analysis.table.asked import SERVICES, Asked, QuestionError, read_ends, read_services
from cellwall.analysis.table.reach import Assume
from cellwall.analysis.table.rows import MakeRows, touch
from cellwall.analysis.table.ways import Ruling, Ways
from cellwall.analysis.table.words import places_of
from cellwall.analysis.walks.always import for_every_fleet
from cellwall.analysis.walks.paths import Path, Walk
from cellwall.inventory import Fleet
from cellwall.policy import Action, Claim, Policy, suggestion
from cellwall.traffic import NOTHING, PortSet, port_name

FORMS = "`only X may-reach Y`, `X cannot-reach Y`, each perhaps with ` on SERVICE`, or `X can-reach Y on SERVICE`"
_VERBS = {"may-reach": Claim.ONLY, "cannot-reach": Claim.CANNOT, "can-reach": Claim.CAN}
_VERB = re.compile(r"\s(may-reach|cannot-reach|can-reach)(?=\s|$)")
_SLIP = re.compile(r"\s((?:may|can|can't|cannot|can not|must|shall)(?:\s+(?:not\s+)?|[-_])reach(?:es)?|reaches)\s")


@dataclass(frozen=True, slots=True)
class Question:
    """A claim to prove. `hops` is how many an attacker may take, None for any number; `can` is about one."""

    text: str
    claim: Claim
    source: Asked
    destination: Asked
    ports: PortSet
    hops: int | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Two ends between which some of the wanted `ports` do not pass; the rules are those that deny the first.

    Where no rule denies it at an end that does, `default` is true: nothing allows it."""

    source: str
    destination: str
    service: str
    ports: PortSet
    rules: tuple[Ruling, ...]
    default: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a claim holds for this fleet, and what was looked at.

    `sources` and `destinations` count workloads and places outside, `pairs` those of them that were looked at, `kinds`
    the kinds of ends that the policy can tell apart, `ports` the classes of ports. `because` are the rules that let
    through what the claim allows. A claim that fails has a shortest `path`, or a `refusal`; `at_once` says whether it
    holds for a single hop at least, and `every_fleet` that it is proven to do so whatever workloads come and go, where
    they have points and enforce."""

    question: Question
    holds: bool
    at_once: bool
    sources: int
    destinations: int
    pairs: int
    kinds: int
    ports: int
    because: tuple[Ruling, ...]
    path: Path = ()
    refusal: Refusal | None = None
    every_fleet: bool = False

    @property
    def vacuous(self) -> bool:
        """Whether nobody was there of whom the claim speaks: then nothing is proven."""
        return self.pairs == 0


def read_claim(
    text: str, policy: Policy, fleet: Fleet, services: tuple[str, ...] = (), hops: int | None = None
) -> Question:
    """Read a claim such as `only role=payment may-reach pci=cde on postgres`.

    `services` narrow it as `on` does; without either it is about all services. Raises `QuestionError`."""
    words = " " + text.strip()
    verbs = list(_VERB.finditer(words))
    if len(verbs) != 1:
        slip = _SLIP.search(words + " ")
        if not verbs and slip is not None:
            meant = suggestion("-".join(slip[1].replace("can't", "cannot").split()), tuple(_VERBS))
            raise QuestionError(f"`{slip[1]}` is not understood{meant}")
        raise QuestionError(f"`{text}` is no claim; wanted {FORMS}")
    verb = verbs[0]
    claim = _VERBS[verb[1]]
    left, right = words[: verb.start()].strip(), words[verb.end() :].strip()
    only, _, rest = left.partition(" ")
    if (only == "only") is not (claim is Claim.ONLY):
        near = "`only X may-reach Y`" if claim is Claim.ONLY or only == "only" else FORMS
        raise QuestionError(f"`{verb[1]}` does not go with `{only or 'nobody'}`; did you mean {near}?")
    right, on, named = (right + " ").partition(" on ")
    right = right.strip()
    if not (rest if claim is Claim.ONLY else left) or not right or (on and not named.strip()):
        raise QuestionError(f"`{text}` is not whole; wanted {FORMS}")
    if on and services:
        raise QuestionError("the services are given twice: after `on` and as an option")
    asked = tuple(part for part in re.split(r"[,\s]+", named.strip()) if part) or services
    if claim is Claim.CAN and not asked:
        raise QuestionError("what can it be reached on? wanted such as `can-reach role=db on tcp/5432`")
    return Question(
        " ".join(text.split()),
        claim,
        read_ends(rest if claim is Claim.ONLY else left, policy, fleet),
        read_ends(right, policy, fleet),
        read_services(asked, policy),
        1 if claim is Claim.CAN else hops,
    )


def prove(
    make: MakeRows,
    policy: Policy,
    fleet: Fleet,
    now: float,
    question: Question,
    assume: Assume = Assume.ENFORCE,
    without: frozenset[str] = frozenset(),
) -> Proof:
    """Prove a claim over `fleet` at `now` (seconds since the epoch), or give a shortest counterexample.

    The last hop is on the claim's ports; an attacker comes so far by any service. `X can-reach Y` means that every
    workload of X passes to every one of Y, on all the ports, whatever process serves them."""
    ways = Ways(make, policy, fleet, now, assume, without=without, asked=(question.source, question.destination))
    return _Prover(ways, question).proof()


class _Prover:
    def __init__(self, ways: Ways, question: Question) -> None:
        self._ways, self._question = ways, question
        self._walk = Walk(ways, SERVICES)
        self._named, self._goal = ways.held(question.source), ways.held(question.destination)

    def proof(self) -> Proof:
        question, ways = self._question, self._ways
        path: Path = ()
        refusal: Refusal | None = None
        at_once = True
        start, hosts, goals = self._named, ways.hosts_of(self._named), ways.hosts_of(self._goal)
        if question.claim is Claim.CAN:
            refusal = self._refused()
            at_once = refusal is None
        else:
            # Who has an address outside `only X` and another inside counts by the address.
            if question.claim is Claim.ONLY:
                start = ways.ends.all & ~self._named
                hosts = ways.hosts_of(start)
            else:
                start, hosts = self._walk.begin(self._named, question.hops)
            path = self._walk.shortest(start, hosts, self._goal, goals, question.ports, 1)
            at_once = not path
            if at_once and question.hops != 1:
                path = self._in_hops(start, hosts, goals)
        sources, destinations = set(self._walk.titles(start, hosts)), set(self._walk.titles(self._goal, goals))
        outside = {title for title in sources if title not in ways.fleet.by_name}
        beyond = {title for title in destinations if title not in ways.fleet.by_name}
        pairs = len(sources) * len(destinations) - len(sources & destinations - outside) - len(outside) * len(beyond)
        return Proof(
            question,
            not path and refusal is None,
            at_once,
            len(sources),
            len(destinations),
            pairs,
            (start | self._goal).bit_count(),
            sum(touch(ports, question.ports) for ports in ways.table.ports),
            tuple(self._because()) if question.claim is not Claim.CANNOT else (),
            path,
            refusal,
            at_once and self._every_fleet(),
        )

    def _every_fleet(self) -> bool:
        ways, asked = self._ways, self._question
        rules = tuple(rule for rule in ways.policy.rules if rule.id not in ways.without)
        lifelines = tuple(rule for rule in ways.policy.lifelines if rule.id not in ways.without)
        policy = replace(ways.policy, rules=rules, lifelines=lifelines)
        return for_every_fleet(policy, ways.fleet, ways.now, asked.claim, asked.source, asked.destination, asked.ports)

    def _in_hops(self, start: int, hosts: int, goals: int) -> Path:
        """Give a shortest path of more than one hop."""
        ways, question = self._ways, self._question
        found = [self._walk.shortest(start, hosts, self._goal, goals & ~hosts, question.ports, question.hops)]
        # Whoever is on both sides of the claim must be reached by somebody else: a way back to itself is none.
        alike: dict[int, int] = {}
        for host in places_of(hosts & goals):
            alike.setdefault(ways.kinds_of[host], host)
        for host in alike.values():
            others = hosts & ~(1 << host)
            kinds = start & (ways.whole(others) | ways.places)
            found.append(self._walk.shortest(kinds, others, self._goal, 1 << host, question.ports, question.hops))
        return min((path for path in found if path), key=len, default=())

    def _because(self) -> Iterator[Ruling]:
        """Give the rules that let the named ends through, in order of place."""
        ways, ports = self._ways, self._question.ports
        found: dict[Ruling, tuple[str, int]] = {}
        for rule in ways.rules:
            if rule.action not in (Action.ALLOW, Action.LIFELINE) or not touch(rule.ports, ports):
                continue
            sources = ways.ends.met_by_any(rule.source) & self._named
            for at in places_of(ways.ends.met_by_any(rule.destination) & self._goal) if sources else ():
                labels = ways.kinds[at].example.labels
                row = ways.any_into(at, rule.ports & ports) & sources
                alike = (
                    all(labels.get(key) is not None and labels[key] == other.labels.get(key) for key in rule.same)
                    for other in (ways.kinds[source].example for source in places_of(row))
                )
                if any(alike):
                    found[ways.ruling(rule.id)] = (rule.place.file, rule.place.line)
                    break
        yield from sorted(found, key=lambda ruling: (ruling.place == "built in", found[ruling], ruling.id))

    def _refused(self) -> Refusal | None:
        """Give two ends that the claim lets reach each other and that do not."""
        ways, ports = self._ways, self._question.ports
        anyone = [at for at in places_of(self._named) if not ways.kinds[at].identity]
        for at in places_of(self._goal):
            if ways.kinds[at].identity:
                continue
            for source in anyone:
                if ways.kinds[source].version != ways.kinds[at].version:
                    continue
                if not ways.members[source] and not ways.members[at]:
                    continue
                missing = ports - ways.between(source, at, ports)
                if missing and (found := self._refusal(source, at)) is not None:
                    return found
        return None

    def _refusal(self, source: int, destination: int) -> Refusal | None:
        ways, ports = self._ways, self._question.ports
        for server in ways.titles[destination]:
            passing = NOTHING
            for at in ways.as_processes(destination, server):
                passing |= ways.between(source, at, ports)
            missing = ports - passing
            caller = next((one for one in ways.titles[source] if one != server), None)
            if missing and caller is not None:
                first = missing.spans[0].first
                rules = ways.denying(source, caller, destination, server, first)
                denies = tuple(rule for rule in rules if rule is not None)
                return Refusal(caller, server, port_name(first), missing, denies, None in rules)
        return None
