"""Propose a policy from what was seen: label rules, infrastructure first, then between applications, then within.

    flows ──▶ ends and services ──▶ stages ──▶ label rules ──▶ documents ──▶ parsed and replayed: what passes?

A flow that an existing rule allows needs no new one, and one that an existing rule denies gets none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import collapse_addresses, ip_network
from itertools import product
from typing import cast

from cellwall.analysis.seen.dynamic import PortRange, find_ranges
from cellwall.analysis.seen.replay import Seen, distinct, identity_of, judge_seen
from cellwall.analysis.seen.suggestion import (
    Coverage,
    Level,
    Names,
    Stage,
    SuggestedRule,
    Suggestion,
    write_documents,
    written,
)
from cellwall.analysis.table.reach import Assume, Reach
from cellwall.flows import FlowRecord, Outcome, Side, Transmission, transmission
from cellwall.inventory import Fleet, Workload
from cellwall.labels import parse_selector
from cellwall.policy import Policy, Tier, parse_policy
from cellwall.traffic import Address, Network

APP, ENV, ROLE = "app", "env", "role"
KEYS = (APP, ENV, ROLE)
MANY = 3
"""An end that deals with so many scopes (application and environment), and with half of all, is infrastructure."""
CROWD = 16
"""So many addresses outside in one /24 or /64 become that prefix."""


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """An application in an environment; "" where a workload has no such label."""

    app: str
    env: str


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """The workloads of one scope and role."""

    scope: Scope
    role: str

    def selector(self, *keys: str) -> str:
        """Write the labels of `keys` that it has as a selector."""
        values = {APP: self.scope.app, ENV: self.scope.env, ROLE: self.role}
        return ",".join(f"{key}={values[key]}" for key in keys if values[key])


@dataclass(frozen=True, slots=True)
class _Item:
    """A flow with its ends: a group, or an address outside."""

    seen: Seen
    source: Group | Address
    destination: Group | Address
    ports: PortRange


def suggest(
    fleet: Fleet,
    records: Iterable[FlowRecord],
    now: float,
    level: Level = Level.EXACT,
    documents: Mapping[str, str] | None = None,
) -> Suggestion:
    """Propose rules for what was seen of `fleet` and `documents` (those in force: file name → text) do not allow.

    Labels `app`, `env` and `role` are used as far as workloads have them; workloads without any, and addresses that
    no workload owns, become networks. `now` is in seconds since the epoch. Raises `PolicyError` when `documents` are
    wrong. The same input gives the same text.
    """
    given = tuple(sorted((documents or {}).items()))
    policy = parse_policy(given)
    reach = Reach(policy, fleet, now)
    told = tuple(records)
    flows = tuple(sorted(distinct(told), key=_order))
    wanted, already, left_out = _sift(reach, flows)
    miner = _Miner(fleet, policy, level, _items(fleet, policy, wanted, told))
    rules = miner.rules()
    names = Names({service.name: str(service.ports) for service in policy.services if service.application is None})
    titles = {str(address): workload.name for address, workload in fleet.by_address.items()}
    made = write_documents(rules, miner.networks, names, titles)
    after = Reach(parse_policy((*given, *made.items())), fleet, now)
    passing = [seen for seen in flows if judge_seen(after, seen, Assume.ENFORCE) is Outcome.ALLOWED]
    coverage = Coverage(
        len(flows),
        len(passing),
        sum(seen.connections for seen in flows),
        sum(seen.connections for seen in passing),
        already,
        left_out,
    )
    return Suggestion(level, rules, coverage, made)


def _sift(reach: Reach, flows: tuple[Seen, ...]) -> tuple[list[Seen], int, tuple[tuple[Seen, str], ...]]:
    """Part the flows: those that want a rule, how many need none, and those that get none, with the reason."""
    wanted: list[Seen] = []
    left_out: list[tuple[Seen, str]] = []
    already = 0
    for seen in flows:
        key = seen.key
        if judge_seen(reach, seen, Assume.ENFORCE) is Outcome.ALLOWED:
            already += 1
        elif transmission(key.destination) is not Transmission.UNICAST:
            left_out.append((seen, "it goes to a multicast or broadcast address; write a rule if it is meant"))
        elif seen.was is Outcome.DENIED:
            left_out.append((seen, "it was denied when it was last seen"))
        elif rule := _denied_by(reach, seen):
            left_out.append((seen, f"the rule `{rule}` denies it"))
        else:
            wanted.append(seen)
    return wanted, already, tuple(left_out)


def _denied_by(reach: Reach, seen: Seen) -> str:
    key = seen.key
    source = reach.kind(key.source, identity_of(seen.process))
    for server in seen.servers:
        decision = reach.decide(source, reach.kind(key.destination, identity_of(server)), key.protocol, key.port)
        for verdict in (decision.egress, decision.ingress):
            if verdict is not None and verdict.tier is Tier.DENY:
                return verdict.because[0]
    return ""


def _items(fleet: Fleet, policy: Policy, flows: list[Seen], records: Iterable[FlowRecord]) -> list[_Item]:
    ends = {workload.name: _group(workload, policy) for workload in fleet.workloads}

    def end(address: Address) -> Group | Address:
        workload = fleet.by_address.get(address)
        group = ends[workload.name] if workload is not None else None
        return address if group is None else group

    served = {
        (one.key.destination, one.key.protocol, one.key.port): one.process.name
        for one in records
        if one.side is Side.INGRESS and one.process.name
    }

    def at(seen: Seen) -> tuple[Group | Address, str, int, int]:
        key = seen.key
        process = served.get((key.destination, key.protocol, key.port), "")
        return end(key.destination), process, key.protocol, key.port

    ranges = find_ranges(at(seen) for seen in flows)
    return [_Item(seen, end(seen.key.source), end(seen.key.destination), ranges[at(seen)]) for seen in flows]


def _group(workload: Workload, policy: Policy) -> Group | None:
    """Give the group of a workload, by those of its labels that rules may name."""
    declared = {key.key: key.values for key in policy.labels}
    labels = {
        key: value
        for key, value in workload.labels.items()
        if not declared or (key in declared and (not declared[key] or value in declared[key]))
    }
    if not any(key in labels for key in KEYS):
        return None
    return Group(Scope(labels.get(APP, ""), labels.get(ENV, "")), labels.get(ROLE, ""))


class _Miner:
    def __init__(self, fleet: Fleet, policy: Policy, level: Level, items: list[_Item]) -> None:
        self._fleet, self._policy, self._level = fleet, policy, level
        self._items = items
        groups = sorted({group for workload in fleet.workloads if (group := _group(workload, policy)) is not None})
        self._scopes = sorted({group.scope for group in groups if group.scope.app})
        self._groups = groups
        self._ids = {rule.id for rule in (*policy.rules, *policy.lifelines, *policy.tests)}
        self._rules: list[SuggestedRule] = []
        self._prefixes: dict[tuple[Network, ...], str] = {}
        self._books = {book.name for book in policy.networks}
        self._matching: dict[str, frozenset[str]] = {}
        self._offered: defaultdict[str, set[PortRange]] = defaultdict(set)
        for one in items:
            if workload := fleet.by_address.get(one.seen.key.destination):
                self._offered[workload.name].add(one.ports)

    @property
    def networks(self) -> dict[str, tuple[Network, ...]]:
        """The networks that the rules name, and no document declares."""
        return {name: prefixes for prefixes, name in self._prefixes.items()}

    def rules(self) -> tuple[SuggestedRule, ...]:
        """Make the rules of all stages."""
        rest = self._infrastructure(self._items)
        inside = [one for one in rest if isinstance(one.source, Group) and isinstance(one.destination, Group)]
        within = [one for one in inside if _scope(one.source) == _scope(one.destination) and _scope(one.source).app]
        self._between(_but(inside, within))
        self._within(within)
        self._outside(_but(rest, inside))
        return tuple(sorted(self._rules, key=lambda rule: (list(Stage).index(rule.stage), rule.id)))

    # --- infrastructure ---

    def _infrastructure(self, items: list[_Item]) -> list[_Item]:
        """Take out what an end has to do with many scopes on one service; give the rest."""
        rest = items
        for near, far in (("destination", "source"), ("source", "destination")):
            groups: defaultdict[tuple[Group, PortRange], list[_Item]] = defaultdict(list)
            for one in rest:
                hub, other = getattr(one, near), getattr(one, far)
                if isinstance(hub, Group) and isinstance(other, Group) and other.scope.app:
                    groups[hub, one.ports].append(one)
            taken: set[int] = set()
            by_far: defaultdict[tuple[Group, tuple[Scope, ...]], list[_Item]] = defaultdict(list)
            for (hub, _), found in sorted(groups.items(), key=lambda item: item[0]):
                scopes = {cast(Group, getattr(one, far)).scope for one in found}
                if len(scopes) >= MANY and 2 * len(scopes) >= len(self._scopes):
                    by_far[hub, tuple(sorted(scopes))] += found
                    taken |= {id(one) for one in found}
            for (hub, scopes), found in by_far.items():
                ends = {near: (hub.selector(*KEYS),), far: self._selectors(scopes)}
                stem = f"{'to' if near == 'destination' else 'from'}-{hub.role or hub.scope.app}"
                self._add(Stage.INFRASTRUCTURE, stem, found, ends["source"], ends["destination"])
            rest = [one for one in rest if id(one) not in taken]
        return rest

    def _selectors(self, scopes: Iterable[Scope]) -> tuple[str, ...]:
        """Write a set of scopes: every application, or each with those of its environments that are meant."""
        chosen = set(scopes)
        if chosen == set(self._scopes):
            return (APP,)
        by_app: defaultdict[str, list[str]] = defaultdict(list)
        for scope in sorted(chosen):
            by_app[scope.app].append(scope.env)
        selectors: list[str] = []
        for app, envs in by_app.items():
            if {scope.env for scope in self._scopes if scope.app == app} == set(envs):
                selectors.append(f"app={app}")
                continue
            selectors += [f"app={app},!env"] if "" in envs else []
            selectors += [f"app={app},{_values(ENV, named)}"] if (named := [env for env in envs if env]) else []
        return tuple(selectors)

    # --- between and within applications ---

    def _between(self, items: list[_Item]) -> None:
        pairs: defaultdict[tuple[Group, Group], list[_Item]] = defaultdict(list)
        for one in items:
            pairs[cast(Group, one.source), cast(Group, one.destination)].append(one)
        # The same two applications in every environment that both have: one rule, with the environment shared.
        shared: defaultdict[tuple[str, str, str, str, tuple[PortRange, ...]], list[tuple[Group, Group]]]
        shared = defaultdict(list)
        for (source, target), found in pairs.items():
            if source.scope.env and source.scope.env == target.scope.env:
                ports = _ports(found)
                shared[source.scope.app, source.role, target.scope.app, target.role, ports].append((source, target))
        for members in shared.values():
            envs = {source.scope.env for source, _ in members}
            source, target = members[0]
            if len(envs) > 1 and envs == self._envs(source) & self._envs(target):
                found = [one for pair in members for one in pairs.pop(pair)]
                stem = f"{_title(source, APP, ROLE)}-to-{_title(target, APP, ROLE)}"
                ends = (source.selector(APP, ROLE),), (target.selector(APP, ROLE),)
                self._add(Stage.BETWEEN, stem, found, *ends, same=(ENV,))
        for (source, target), found in pairs.items():
            stem = f"{_title(source, *KEYS)}-to-{_title(target, *KEYS)}"
            self._add(Stage.BETWEEN, stem, found, (source.selector(*KEYS),), (target.selector(*KEYS),))

    def _envs(self, group: Group) -> set[str]:
        alike = (one for one in self._groups if (one.scope.app, one.role) == (group.scope.app, group.role))
        return {one.scope.env for one in alike}

    def _within(self, items: list[_Item]) -> None:
        if self._level is Level.RINGFENCE:
            self._ringfence(items)
            return
        by_use: defaultdict[tuple[str, str, PortRange | None], list[_Item]] = defaultdict(list)
        for one in items:
            ports = one.ports if self._level is Level.EXACT else None
            by_use[cast(Group, one.source).role, cast(Group, one.destination).role, ports].append(one)
        merged: defaultdict[tuple[str, str, tuple[Scope, ...]], list[_Item]] = defaultdict(list)
        for (source, target, _), found in by_use.items():
            merged[source, target, tuple(sorted({_scope(one.source) for one in found}))] += found
        for (source, target, scopes), found in merged.items():
            self._use(source, target, scopes, found)

    def _use(self, source: str, target: str, scopes: tuple[Scope, ...], found: list[_Item]) -> None:
        """One role uses another in these scopes: written once with what they share, if there are several."""
        any_port = self._level is Level.TIER
        able = {
            scope
            for scope in self._scopes
            if Group(scope, source) in self._groups and Group(scope, target) in self._groups
        }
        stem = f"{source or 'all'}-to-{target or 'all'}"
        same = tuple(key for key in (APP, ENV) if all(getattr(scope, key) for scope in scopes))
        if source and target and len(scopes) > 1 and same == (APP, ENV):
            if set(scopes) == able:
                ends = f"{ROLE}={source}", f"{ROLE}={target}"
                self._add(Stage.WITHIN, stem, found, (ends[0],), (ends[1],), same=same, any_port=any_port)
                return
            apps = {scope.app for scope in scopes}
            by_app = {app: {scope.env for scope in scopes if scope.app == app} for app in apps}
            for app, envs in sorted(by_app.items()):
                mine = [one for one in found if _scope(one.source).app == app]
                where = f"app={app}"
                if envs != {scope.env for scope in able if scope.app == app}:
                    where += f",{_values(ENV, sorted(envs))}"
                ends = f"{where},{ROLE}={source}", f"{where},{ROLE}={target}"
                shared = (ENV,) if len(envs) > 1 or ENV not in where else ()
                self._add(Stage.WITHIN, f"{app}-{stem}", mine, (ends[0],), (ends[1],), same=shared, any_port=any_port)
            return
        for scope in scopes:
            mine = [one for one in found if _scope(one.source) == scope]
            ends = Group(scope, source).selector(*KEYS), Group(scope, target).selector(*KEYS)
            title = "-".join(filter(None, (scope.app, scope.env, stem)))
            self._add(Stage.WITHIN, title, mine, (ends[0],), (ends[1],), any_port=any_port)

    def _ringfence(self, items: list[_Item]) -> None:
        scopes = sorted({_scope(one.source) for one in items})
        complete = [scope for scope in scopes if scope.env]
        if len(complete) > 1 and complete == self._scopes:
            mine = [one for one in items if _scope(one.source).env]
            self._add(Stage.WITHIN, "each-application", mine, (APP,), (APP,), same=(APP, ENV), any_port=True)
            scopes = [scope for scope in scopes if not scope.env]
        for scope in scopes:
            mine = [one for one in items if _scope(one.source) == scope]
            ends = (Group(scope, "").selector(APP, ENV),)
            self._add(Stage.WITHIN, "-".join(filter(None, (scope.app, scope.env))), mine, ends, ends, any_port=True)

    # --- outside ---

    def _outside(self, items: list[_Item]) -> None:
        uses: defaultdict[tuple[Group | None, bool, PortRange], list[_Item]] = defaultdict(list)
        for one in items:
            inward = isinstance(one.destination, Group)
            near = one.destination if inward else one.source
            uses[near if isinstance(near, Group) else None, inward, one.ports].append(one)
        merged: defaultdict[tuple[Group | None, tuple[str, ...], tuple[str, ...]], list[_Item]] = defaultdict(list)
        for (near, inward, ports), found in sorted(uses.items(), key=lambda item: (str(item[0][0]), item[0][1:])):
            word = _title(near, *KEYS) if near is not None else "strangers"
            service = written(ports).replace("/", "-")
            calling = self._ends(
                near if inward else None,
                {one.seen.key.source for one in found},
                None if isinstance(found[0].source, Group) else f"callers-of-{word}-{service}",
            )
            called = self._ends(
                near if not inward else None,
                {one.seen.key.destination for one in found},
                None if isinstance(found[0].destination, Group) else f"called-by-{word}-{service}",
            )
            source = calling if not isinstance(found[0].source, Group) else (found[0].source.selector(*KEYS),)
            target = called if not isinstance(found[0].destination, Group) else (found[0].destination.selector(*KEYS),)
            merged[near, source, target] += found
        for (near, source, target), found in merged.items():
            word = _title(near, *KEYS) if near is not None else "strangers"
            inward = isinstance(found[0].destination, Group)
            stem = f"outside-to-{word}" if inward else f"{word}-to-outside"
            self._add(Stage.OUTSIDE, stem, found, source, target)

    def _ends(self, near: Group | None, addresses: set[Address], name: str | None) -> tuple[str, ...]:
        """Write addresses as networks: those that are declared, as long as they hold them, and one for the rest."""
        if name is None:
            return ()
        declared: set[str] = set()
        rest: set[Address] = set()
        for address in addresses:
            books = [
                (prefix.prefixlen, book.name)
                for book in self._policy.networks
                for prefix in book.prefixes
                if address in prefix
            ]
            if books:
                declared.add(f"network:{max(books)[1]}")
            else:
                rest.add(address)
        found = sorted(declared)
        if rest:
            prefixes = _prefixes(rest)
            if prefixes not in self._prefixes:
                if len(rest) <= 2:
                    # One host, perhaps with an address of each family: say which, not what it was first seen to do.
                    name = f"host-{prefixes[0].network_address}".replace(":", "-").rstrip("-")
                self._prefixes[prefixes] = _free(name, self._books)
                self._books.add(self._prefixes[prefixes])
            found.append(f"network:{self._prefixes[prefixes]}")
        return tuple(found)

    # --- what a rule lets through ---

    def _add(
        self,
        stage: Stage,
        stem: str,
        items: list[_Item],
        source: tuple[str, ...],
        destination: tuple[str, ...],
        *,
        same: tuple[str, ...] = (),
        any_port: bool = False,
    ) -> None:
        rule_id = _free(stem, self._ids)
        self._ids.add(rule_id)
        ports = () if any_port else _ports(items)
        flags: list[str] = []
        if any(one.dynamic for one in ports):
            flags.append("the ports are handed out as needed; the range is wider than what was seen")
        if sum(one.seen.connections for one in items) < 3:
            flags.append("it was hardly ever seen")
        flows = tuple(sorted((one.seen for one in items), key=_order))
        rule = SuggestedRule(rule_id, stage, ports, source, destination, same, flows, flags=tuple(flags))
        self._rules.append(self._measured(rule, items))

    def _measured(self, rule: SuggestedRule, items: list[_Item]) -> SuggestedRule:
        """Count the combinations of ends and services that the rule lets through, and those that were not seen."""
        seen = {
            (
                self._place(one.seen.key.source, rule.source),
                self._place(one.seen.key.destination, rule.destination),
                one.ports,
            )
            for one in items
        }
        allowed = 0
        examples: list[str] = []
        for source, target in product(self._members(rule.source), self._members(rule.destination)):
            if source == target or not self._shares(source, target, rule.same):
                continue
            for ports in rule.ports or sorted(self._offered.get(target, ())):
                allowed += 1
                if (source, target, ports) not in seen and len(examples) < 3:
                    examples.append(f"{source} → {target} {written(ports)}")
        return replace(rule, allows=allowed, beyond=max(allowed - len(seen), 0), examples=tuple(examples))

    def _members(self, ends: tuple[str, ...]) -> list[str]:
        found: set[str] = set()
        for end in ends:
            if end not in self._matching:
                selector = parse_selector("" if end.startswith("network:") else end)
                matching = (one.name for one in self._fleet.workloads if selector.matches(one.labels))
                self._matching[end] = frozenset({end} if end.startswith("network:") else matching)
            found |= self._matching[end]
        return sorted(found)

    def _place(self, address: Address, ends: tuple[str, ...]) -> str:
        workload = self._fleet.by_address.get(address)
        if workload is not None and not all(end.startswith("network:") for end in ends):
            return workload.name
        books = {f"network:{name}": prefixes for name, prefixes in self.networks.items()}
        books |= {f"network:{book.name}": book.prefixes for book in self._policy.networks}
        return next(end for end in ends if end in books and any(address in prefix for prefix in books[end]))

    def _shares(self, source: str, target: str, same: tuple[str, ...]) -> bool:
        if not same:
            return True
        one, other = self._fleet.by_name[source].labels, self._fleet.by_name[target].labels
        return all(key in one and one[key] == other.get(key) for key in same)


def _but(items: list[_Item], without: list[_Item]) -> list[_Item]:
    gone = {id(one) for one in without}
    return [one for one in items if id(one) not in gone]


def _scope(end: Group | Address) -> Scope:
    return cast(Group, end).scope


def _order(seen: Seen) -> tuple[int, int, int, int, int, int, str]:
    key = seen.key
    ends = key.source.version, int(key.source), key.destination.version, int(key.destination)
    return *ends, key.protocol, key.port, str(seen.process)


def _ports(items: Iterable[_Item]) -> tuple[PortRange, ...]:
    """Give the ports of `items`; a port in a range of the same rule is not named again."""
    found = sorted({one.ports for one in items})
    ranges = [one for one in found if one.first != one.last]
    return tuple(
        one
        for one in found
        if not any(
            wide != one and wide.protocol == one.protocol and wide.first <= one.first and one.last <= wide.last
            for wide in ranges
        )
    )


def _title(group: Group, *keys: str) -> str:
    values = {APP: group.scope.app, ENV: group.scope.env, ROLE: group.role}
    return "-".join(values[key] for key in keys if values[key])


def _values(key: str, values: list[str]) -> str:
    return f"{key}={values[0]}" if len(values) == 1 else f"{key} in ({','.join(values)})"


def _free(stem: str, taken: Container[str]) -> str:
    number, name = 1, stem
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name


def _prefixes(addresses: Iterable[Address]) -> tuple[Network, ...]:
    """Write addresses as prefixes: each alone, or the /24 or /64 of a crowd."""
    near: defaultdict[Network, set[Address]] = defaultdict(set)
    for address in addresses:
        near[ip_network((address, 24 if address.version == 4 else 64), strict=False)].add(address)
    found: list[Network] = []
    for prefix, members in near.items():
        found += [prefix] if len(members) >= CROWD else [ip_network(member) for member in members]
    four = collapse_addresses(one for one in found if one.version == 4)  # pyright: ignore[reportArgumentType]
    six = collapse_addresses(one for one in found if one.version == 6)  # pyright: ignore[reportArgumentType]
    return (*four, *six)
