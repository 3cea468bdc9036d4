"""Policy documents, read strictly into one `Policy`."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from cellwall.flows import Side
from cellwall.inventory import check_name
from cellwall.labels import Labels, Selector, check_key, check_value, parse_selector
from cellwall.policy.document import Node, read_document, suggestion
from cellwall.policy.errors import Place, PolicyError
from cellwall.policy.lifelines import BUILT_IN
from cellwall.policy.modes import Mode, ModeIndex, ModeRule
from cellwall.policy.rollout import APPROVAL_FIELDS, Approval, Rollout, read_approval, read_rollout
from cellwall.policy.types import (
    BOTH_SIDES,
    Action,
    AddressBook,
    Application,
    Claim,
    DeclaredWorkload,
    Identity,
    LabelKey,
    Policy,
    Rule,
    Service,
    Test,
    Who,
)
from cellwall.traffic import (
    EVERYTHING,
    PROTOCOLS,
    PortSet,
    Span,
    parse_address,
    parse_network,
    parse_ports,
)

SECTIONS = (
    "labels",
    "services",
    "networks",
    "workloads",
    "rules",
    "lifelines",
    "modes",
    "tests",
    "rollout",
    "approvals",
)
RULE_FIELDS = (
    "id",
    "allow",
    "deny",
    "wall",
    "from",
    "to",
    "same",
    "side",
    "owner",
    "reason",
    "ticket",
    "starts",
    "expires",
    "log",
    "staged",
)
LIFELINE_FIELDS = ("id", "allow", "from", "to", "owner", "reason", "ticket")
MODE_FIELDS = ("where", "mode")
LABEL_FIELDS = ("values",)
NETWORK_FIELDS = ("addresses", "names")
WORKLOAD_FIELDS = ("addresses", "labels")
WHO_FIELDS = ("workloads", "as")
IDENTITY_FIELDS = ("user", "unit", "exe")
MOST_HOPS = 99
MOST_FAULTS = 50
TEST_FIELDS = ("id", "from", "can", "cannot", "to", "only", "may-reach", "service", "hops", "canary")
APPLICATIONS = {"http": ("methods", "paths", "hosts"), "tls": ("names",), "modbus": ("functions", "units")}
SERVICE_FIELDS = ("ports", *APPLICATIONS)
WORD = "[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
RESERVED = frozenset({"loopback", "controller-channel", "default", *(rule.id for rule in BUILT_IN)})

T = TypeVar("T")
Named = TypeVar("Named", Service, AddressBook)


def parse_policy(documents: Iterable[tuple[str, str | bytes]]) -> Policy:
    """Read `documents`, pairs of file name and YAML text, in any order and split, into one policy.

    Raises `PolicyError` with file, line and column, and nothing else, for whatever is wrong with the texts.
    """
    return _Reader().read(documents)


class _Reader:
    def __init__(self) -> None:
        self._labels: dict[str, LabelKey] = {}
        self._services: dict[str, Service] = {}
        self._networks: dict[str, AddressBook] = {}
        self._workloads: dict[str, DeclaredWorkload] = {}
        self._ids: dict[str, Place] = {}
        self._faults: list[PolicyError] = []

    def read(self, documents: Iterable[tuple[str, str | bytes]]) -> Policy:
        sections: dict[str, list[Node]] = {name: [] for name in SECTIONS}
        for file, text in sorted(documents, key=lambda document: document[0]):
            with self._noted():
                root = read_document(file, text)
                for name, node in root.fields(SECTIONS).items() if root is not None else ():
                    sections[name].append(node)
        self._stop_at_faults()
        for name, read in (
            ("labels", self._read_labels),
            ("services", self._read_services),
            ("networks", self._read_networks),
            ("workloads", self._read_workloads),
        ):
            for node in sections[name]:
                with self._noted():
                    read(node)
            # A name that cannot be read is unknown wherever it is used: that would be said of each use.
            self._stop_at_faults()
        rules = self._each(sections["rules"], self._rule)
        lifelines = self._each(sections["lifelines"], self._lifeline)
        modes = self._each(sections["modes"], self._mode)
        tests = self._each(sections["tests"], self._test)
        approvals = self._each(sections["approvals"], self._approval)
        self._stop_at_faults()
        if len(sections["rollout"]) > 1:
            first, second = sections["rollout"][:2]
            raise second.fail(f"how to roll out is said twice, first at {first.place}")
        _refuse_ties(modes)
        return Policy(
            labels=tuple(self._labels[key] for key in sorted(self._labels)),
            services=tuple(self._services[name] for name in sorted(self._services)),
            networks=tuple(self._networks[name] for name in sorted(self._networks)),
            workloads=tuple(self._workloads[name] for name in sorted(self._workloads)),
            rules=tuple(sorted(rules, key=lambda rule: rule.id)),
            lifelines=tuple(sorted(lifelines, key=lambda rule: rule.id)),
            modes=tuple(sorted(modes, key=lambda mode: (mode.where, mode.mode))),
            tests=tuple(sorted(tests, key=lambda test: test.id)),
            rollout=read_rollout(sections["rollout"][0]) if sections["rollout"] else Rollout(),
            approvals=tuple(sorted(approvals, key=lambda one: (one.where, one.reviewers))),
        )

    def _each(self, sections: list[Node], read: Callable[[Node], T]) -> list[T]:
        """Read all items of some sections, also after one that is wrong."""
        found: list[T] = []
        for section in sections:
            with self._noted():
                for item in section.items():
                    with self._noted():
                        found.append(read(item))
        return found

    @contextmanager
    def _noted(self) -> Generator[None]:
        try:
            yield
        except PolicyError as fault:
            if len(self._faults) < MOST_FAULTS:
                self._faults.append(fault)

    def _stop_at_faults(self) -> None:
        if self._faults:
            first, *others = self._faults
            first.others = tuple(others)
            raise first

    # --- vocabulary, services, networks, declared workloads ---

    def _read_labels(self, node: Node) -> None:
        for key, (at, value) in node.entries().items():
            at.parse(check_key)
            _refuse_twice(at, key, self._labels.get(key))
            fields = value.fields(LABEL_FIELDS)
            values = tuple(item.parse(check_value) for item in fields["values"].items()) if "values" in fields else ()
            if "values" in fields and not values:
                raise fields["values"].fail("no value is listed; leave `values` out to take any")
            self._labels[key] = LabelKey(key, values, at.place)

    def _read_services(self, node: Node) -> None:
        for name, (at, value) in node.entries().items():
            _refuse_twice(at, name, self._services.get(name))
            if "/" in name or name == "any" or name in PROTOCOLS or name.isdigit():
                raise at.fail(f"`{name}` cannot name a service: it reads as ports or as a protocol")
            _check_word(at, name, "a service")
            self._services[name] = replace(self._service(name, value), place=at.place)

    def _service(self, name: str, value: Node) -> Service:
        if value.kind != "mapping":
            return Service(name, _ports(value))
        fields = value.fields(SERVICE_FIELDS)
        if "ports" not in fields:
            raise value.fail("`ports` is missing")
        kinds = [kind for kind in APPLICATIONS if kind in fields]
        if len(kinds) > 1:
            raise fields[kinds[1]].fail(f"`{kinds[1]}` and `{kinds[0]}` cannot both narrow one service")
        application = None
        if kinds:
            terms = fields[kinds[0]].fields(APPLICATIONS[kinds[0]])
            read = ((term, tuple(one.filled() for one in node.one_or_more())) for term, node in terms.items())
            application = Application(kinds[0], tuple(sorted(read)))
        return Service(name, _ports(fields["ports"]), application)

    def _read_networks(self, node: Node) -> None:
        for name, (at, value) in node.entries().items():
            _refuse_twice(at, name, self._networks.get(name))
            _check_word(at, name, "a network")
            names: tuple[str, ...] = ()
            listed = value.one_or_more() if value.kind != "mapping" else ()
            if value.kind == "mapping":
                fields = value.fields(NETWORK_FIELDS)
                listed = fields["addresses"].one_or_more() if "addresses" in fields else ()
                names = tuple(one.filled() for one in fields["names"].one_or_more()) if "names" in fields else ()
                if not fields:
                    raise value.fail("wanted `addresses` or `names`")
            prefixes = {item.parse(parse_network) for item in listed}
            ordered = sorted(prefixes, key=lambda p: (p.version, int(p.network_address), p.prefixlen))
            self._networks[name] = AddressBook(name, tuple(ordered), tuple(sorted(set(names))), at.place)

    def _read_workloads(self, node: Node) -> None:
        for name, (at, value) in node.entries().items():
            _refuse_twice(at, name, self._workloads.get(name))
            at.parse(check_name)
            fields = value.fields(WORKLOAD_FIELDS)
            if "addresses" not in fields:
                raise value.fail(f"`addresses` of `{name}` is missing")
            addresses = tuple(one.parse(parse_address) for one in fields["addresses"].one_or_more())
            labels = self._label_values(fields["labels"]) if "labels" in fields else Labels()
            self._workloads[name] = DeclaredWorkload(name, addresses, labels, at.place)

    def _label_values(self, node: Node) -> Labels:
        pairs: dict[str, str] = {}
        for key, (at, value) in node.entries().items():
            at.parse(check_key)
            pairs[key] = value.parse(check_value)
            self._check_value(at, value, key, pairs[key])
        return Labels(pairs)

    def _check_value(self, at: Node, value: Node, key: str, text: str) -> None:
        if not self._labels:
            return
        declared = self._labels.get(key)
        if declared is None:
            raise at.fail(f"unknown label `{key}`{suggestion(key, tuple(self._labels))}")
        if declared.values and text not in declared.values:
            raise value.fail(f"`{text}` is not a value of `{key}`{suggestion(text, declared.values)}")

    # --- rules ---

    def _rule(self, node: Node) -> Rule:
        fields = node.fields(RULE_FIELDS)
        actions = [action for action in (Action.ALLOW, Action.DENY, Action.WALL) if action in fields]
        if len(actions) != 1:
            found = f"found `{actions[0]}` and `{actions[1]}`" if actions else "found none"
            raise node.fail(f"a rule has one of `allow`, `deny`, `wall`; {found}")
        rule = self._sentence(node, fields, actions[0])
        same = tuple(sorted({self._key(item) for item in fields["same"].one_or_more()})) if "same" in fields else ()
        starts = _moment(fields["starts"]) if "starts" in fields else None
        expires = _moment(fields["expires"]) if "expires" in fields else None
        if starts is not None and expires is not None and expires <= starts:
            raise fields["expires"].fail("the rule expires before it starts")
        return replace(
            rule,
            same=same,
            starts=starts,
            expires=expires,
            log=fields["log"].flag() if "log" in fields else False,
            staged=fields["staged"].flag() if "staged" in fields else False,
            sides=_sides(fields["side"], rule) if "side" in fields else BOTH_SIDES,
        )

    def _lifeline(self, node: Node) -> Rule:
        fields = node.fields(LIFELINE_FIELDS)
        if "allow" not in fields:
            raise node.fail("`allow` is missing")
        rule = self._sentence(node, fields, Action.ALLOW)
        scoped = any(all(who.network for who in end) for end in (rule.source, rule.destination))
        if not scoped:
            raise node.fail("a lifeline is scoped by address; write `network:…` in `from` or in `to`")
        if any(who.identity for who in (*rule.source, *rule.destination)):
            raise node.fail("a lifeline cannot ask for a local identity")
        return replace(rule, action=Action.LIFELINE)

    def _sentence(self, node: Node, fields: dict[str, Node], action: Action) -> Rule:
        for name in ("id", "from", "to"):
            if name not in fields:
                raise node.fail(f"`{name}` is missing")
        ports, services, application = self._services_of(fields[action])
        source, destination = self._ends(fields["from"]), self._ends(fields["to"])
        return Rule(
            id=self._id(fields["id"]),
            action=action,
            ports=ports,
            source=source,
            destination=destination,
            services=services,
            owner=fields["owner"].text() if "owner" in fields else "",
            reason=fields["reason"].text() if "reason" in fields else "",
            ticket=fields["ticket"].text() if "ticket" in fields else "",
            refused=_why_refused(application, (*source, *destination)),
            place=node.place,
        )

    def _id(self, node: Node) -> str:
        rule_id = node.text()
        _check_word(node, rule_id, "a rule or a test")
        if rule_id in RESERVED:
            raise node.fail(f"`{rule_id}` is the id of something built in")
        if rule_id in self._ids:
            raise node.fail(f"the id `{rule_id}` is given twice, first at {self._ids[rule_id]}")
        self._ids[rule_id] = node.place
        return rule_id

    def _key(self, node: Node) -> str:
        key = node.parse(check_key)
        if self._labels and key not in self._labels:
            raise node.fail(f"unknown label `{key}`{suggestion(key, tuple(self._labels))}")
        return key

    def _services_of(self, node: Node) -> tuple[PortSet, tuple[str, ...], Application | None]:
        spans, names, application = list[Span](), list[str](), None
        for item in node.one_or_more():
            name = item.filled()
            service = self._services.get(name)
            if service is not None:
                spans.extend(service.ports.spans)
                application = application or service.application
            elif "/" in name or name == "any" or name in PROTOCOLS or name.isdigit():
                spans.extend(item.parse(parse_ports).spans)
            else:
                raise item.fail(f"unknown service `{name}`{suggestion(name, tuple(self._services))}")
            names.append(name)
        return PortSet.of(spans), tuple(names), application

    def _ends(self, node: Node) -> tuple[Who, ...]:
        return tuple(self._who(item) for item in node.one_or_more())

    def _who(self, node: Node) -> Who:
        if node.kind != "mapping":
            return self._where(node)
        fields = node.fields(WHO_FIELDS)
        if "workloads" not in fields:
            raise node.fail("`workloads` is missing")
        who = self._where(fields["workloads"])
        if "as" not in fields:
            return who
        named = fields["as"].fields(IDENTITY_FIELDS)
        if not named:
            raise fields["as"].fail("wanted `user`, `unit` or `exe`")
        return replace(who, identity=Identity(**{key: value.filled() for key, value in named.items()}))

    def _where(self, node: Node) -> Who:
        text = node.text()
        if text == "any":
            return Who()
        if text.startswith("network:"):
            name = text.removeprefix("network:")
            if name not in self._networks:
                raise node.fail(f"unknown network `{name}`{suggestion(name, tuple(self._networks))}")
            return Who(network=self._networks[name])
        return Who(selector=self._selector(node))

    def _selector(self, node: Node) -> Selector:
        selector = node.parse(parse_selector)
        if not selector.requirements:
            raise node.fail("an empty selector would match everything; write `any` if that is meant")
        for requirement in selector.requirements:
            if self._labels and requirement.key not in self._labels:
                raise node.fail(f"unknown label `{requirement.key}`{suggestion(requirement.key, tuple(self._labels))}")
            declared = self._labels[requirement.key].values if self._labels else ()
            for value in requirement.values:
                if declared and value not in declared:
                    raise node.fail(f"`{value}` is not a value of `{requirement.key}`{suggestion(value, declared)}")
        return selector

    # --- modes, tests ---

    def _mode(self, node: Node) -> ModeRule:
        fields = node.fields(MODE_FIELDS)
        for name in MODE_FIELDS:
            if name not in fields:
                raise node.fail(f"`{name}` is missing")
        where = fields["where"]
        return ModeRule(self._everywhere_or(where), Mode(fields["mode"].choice(tuple(Mode))), where.place)

    def _everywhere_or(self, where: Node) -> Selector:
        everywhere = where.text() == "any" or (where.text() == "" and where.quoted)
        return Selector() if everywhere else self._selector(where)

    def _approval(self, node: Node) -> Approval:
        fields = node.fields(APPROVAL_FIELDS)
        if "where" not in fields:
            raise node.fail("`where` is missing")
        return read_approval(node, self._everywhere_or(fields["where"]))

    def _test(self, node: Node) -> Test:
        fields = node.fields(TEST_FIELDS)
        if "id" not in fields:
            raise node.fail("`id` is missing")
        claims = [claim for claim in Claim if claim in fields]
        if len(claims) != 1:
            raise node.fail("a test has one of `can`, `cannot`, `only`")
        claim = claims[0]
        wanted = ("only", "may-reach") if claim is Claim.ONLY else ("from", claim.value, "to")
        for name in wanted:
            if name not in fields:
                raise node.fail(f"`{name}` is missing")
        more = {Claim.CAN: set[str](), Claim.CANNOT: {"hops"}, Claim.ONLY: {"service", "hops"}}[claim]
        extra = sorted(set(fields) - {"id", "canary", *wanted} - more)
        if extra:
            raise fields[extra[0]].fail(f"`{extra[0]}` has no meaning beside `{claim}`")
        canary = fields["canary"].flag() if "canary" in fields else False
        if canary and claim is not Claim.CAN:
            raise fields["canary"].fail("only a test with `can` can be a canary")
        source = self._ends(fields["only"] if claim is Claim.ONLY else fields["from"])
        destination = self._ends(fields["may-reach"] if claim is Claim.ONLY else fields["to"])
        ports, services = EVERYTHING, ("any",)
        service = fields.get("service") if claim is Claim.ONLY else fields[claim]
        if service is not None:
            ports, services, _ = self._services_of(service)
        hops = _hops(fields["hops"], (*source, *destination)) if "hops" in fields else 1
        return Test(self._id(fields["id"]), claim, source, destination, ports, services, canary, hops, node.place)


def _hops(node: Node, whos: tuple[Who, ...]) -> int | None:
    text = node.text()
    if text != "all" and not (text.isdecimal() and 1 <= int(text[:9]) <= MOST_HOPS):
        raise node.fail(f"`{text}` is no number of hops; wanted 1 to {MOST_HOPS}, or `all`")
    hops = None if text == "all" else int(text)
    if hops != 1 and any(who.identity for who in whos):
        raise node.fail("a test about local identities is about one hop")
    return hops


def _refuse_twice(at: Node, name: str, earlier: object) -> None:
    if earlier is not None:
        place: Place = earlier.place  # type: ignore[attr-defined]
        raise at.fail(f"`{name}` is declared twice, first at {place}")


def _check_word(at: Node, name: str, what: str) -> None:
    if not re.fullmatch(WORD, name):
        raise at.fail(f"`{name}` cannot name {what}: letters, digits, `-`, `_`, `.`, at most 63")


def _ports(node: Node) -> PortSet:
    return PortSet.of(span for item in node.one_or_more() for span in item.parse(parse_ports).spans)


def _sides(node: Node, rule: Rule) -> frozenset[Side]:
    side = Side(node.choice(tuple(Side)))
    far, word = (rule.destination, "to") if side is Side.EGRESS else (rule.source, "from")
    if any(who.identity for who in far):
        # Only the point at an identity's own end can tell it.
        raise node.fail(f"with `side: {side}` nobody would check the identity under `{word}`")
    return frozenset({side})


def _moment(node: Node) -> float:
    text = node.text()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise node.fail(f"`{text}` is not a time; wanted RFC 3339, such as `2026-12-01T00:00:00Z`") from None
    if moment.tzinfo is None:
        raise node.fail(f"`{text}` has no time zone; did you mean `{moment.isoformat()}Z`?")
    return moment.timestamp()


def _why_refused(application: Application | None, ends: tuple[Who, ...]) -> str:
    if application is not None:
        return f"no point can look into {application.kind} yet"
    for who in ends:
        if who.network is not None and who.network.names:
            return f"no point can follow the DNS names of `network:{who.network.name}` yet"
    return ""


def _refuse_ties(modes: list[ModeRule]) -> None:
    """Two modes that could win for the same workload, neither more specific, and no third above both: refused."""
    index = ModeIndex(modes)
    ordered = sorted(modes, key=lambda mode: (mode.place.file, mode.place.line, mode.place.column))
    for mode in reversed(ordered):
        other = index.tie(mode)
        if other is not None:
            one, two = (str(rule.where) or "any" for rule in (mode, other))
            both = Selector(tuple(sorted({*mode.where.requirements, *other.where.requirements})))
            advice = "" if both == mode.where else f"; add a mode for `{both}`"
            raise PolicyError(
                mode.place,
                f"`{one}` ({mode.mode}) and `{two}` ({other.mode}, {other.place}) can match the same workload and "
                f"neither is more specific{advice}",
            )
