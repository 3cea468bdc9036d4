"""A proposed policy: its rules with their evidence, and how it is written down as documents."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cellwall.analysis.seen.dynamic import PortRange
from cellwall.analysis.seen.replay import Seen
from cellwall.traffic import ICMPS, PORTED, PROTOCOL_NAMES, Network, point, port_name


class Level(StrEnum):
    """How tight the rules within an application are: its roles and their ports, its roles, or the whole of it."""

    EXACT = "exact"
    TIER = "tier"
    RINGFENCE = "ringfence"


class Stage(StrEnum):
    """What a rule is for, in the order in which a policy is best built up."""

    INFRASTRUCTURE = "infrastructure"
    BETWEEN = "between"
    WITHIN = "within"
    OUTSIDE = "outside"


TITLES = {
    Stage.INFRASTRUCTURE: "Infrastructure: services that many applications use, and what looks after all of them.",
    Stage.BETWEEN: "Between applications and environments.",
    Stage.WITHIN: "Within applications.",
    Stage.OUTSIDE: "To and from addresses that are no labelled workload.",
}


@dataclass(frozen=True, slots=True)
class SuggestedRule:
    """One proposed allow rule and what speaks for it.

    `source` and `destination` are alternatives as a document has them: selectors, `network:NAME`, or `any`. An empty
    `ports` is every port. `flows` are those that justify it. `allows` counts the combinations of source, destination
    and service that it lets through, `beyond` those of them that were not seen, with some as examples; a range is one
    service, and every port is as many as the destination was seen to offer anyone. `flags` say in words what deserves
    a second look.
    """

    id: str
    stage: Stage
    ports: tuple[PortRange, ...]
    source: tuple[str, ...]
    destination: tuple[str, ...]
    same: tuple[str, ...]
    flows: tuple[Seen, ...]
    allows: int = 0
    beyond: int = 0
    examples: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def connections(self) -> int:
        """How many connections of the flows were seen."""
        return sum(seen.connections for seen in self.flows)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what was seen passes: flows and connections under full enforcement of old and proposed rules.

    `already` flows needed no new rule. `left_out` passed or not, but no rule is proposed for them, for the reason that
    stands beside the flow."""

    flows: int
    covered: int
    connections: int
    covered_connections: int
    already: int
    left_out: tuple[tuple[Seen, str], ...] = ()

    @property
    def share(self) -> float:
        """The share of flows that pass, 0 to 1; 1 where there were none."""
        return self.covered / self.flows if self.flows else 1.0

    @property
    def share_of_connections(self) -> float:
        """The share of connections that pass, 0 to 1."""
        return self.covered_connections / self.connections if self.connections else 1.0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Proposed rules, and as `documents` (file name → YAML) to be read beside those that are there."""

    level: Level
    rules: tuple[SuggestedRule, ...]
    coverage: Coverage
    documents: Mapping[str, str]

    @property
    def over_permission(self) -> float:
        """Combinations that the rules let through for each that was seen; 1 is least privilege."""
        allows, beyond = (sum(getattr(rule, name) for rule in self.rules) for name in ("allows", "beyond"))
        return allows / (allows - beyond) if allows > beyond else 1.0


KNOWN_SERVICES: dict[str, str] = {
    "dns": "udp/53",
    "dns-tcp": "tcp/53",
    "ssh": "tcp/22",
    "smtp": "tcp/25",
    "http": "tcp/80",
    "https": "tcp/443",
    "ldap": "tcp/389",
    "ldaps": "tcp/636",
    "mysql": "tcp/3306",
    "nfs": "tcp/2049",
    "ntp": "udp/123",
    "postgres": "tcp/5432",
    "redis": "tcp/6379",
    "syslog-udp": "udp/514",
    "amqp": "tcp/5672",
    "kafka": "tcp/9092",
    "node-metrics": "tcp/9100",
    "prometheus": "tcp/9090",
    "modbus": "tcp/502",
    "ping": "icmp/8/0",
    "ping6": "icmpv6/128/0",
}
"""Names for ports in proposals (IANA service names, where there is one)."""


class Names:
    """Names of services: those that are declared, and well-known ones as long as their name is free."""

    def __init__(self, declared: Mapping[str, str]) -> None:
        """Take the services that documents declare already: name → ports, as written by `PortSet`."""
        self._declared = dict(declared)
        self._by_ports = {ports: name for name, ports in sorted(declared.items(), reverse=True)}
        self._by_ports |= {
            ports: name
            for name, ports in KNOWN_SERVICES.items()
            if name not in declared and ports not in self._by_ports
        }
        self.used: dict[str, str] = {}

    def of(self, ports: PortRange) -> str:
        """Give the name of a range, or its ports as a document has them."""
        text = written(ports)
        name = self._by_ports.get(text)
        if name is None:
            return text
        if name not in self._declared:
            self.used[name] = text
        return name


def written(ports: PortRange) -> str:
    """Write ports as a document has them."""
    name = PROTOCOL_NAMES.get(ports.protocol, str(ports.protocol))
    if ports.protocol in PORTED and ports.first != ports.last:
        return f"{name}/{ports.first}-{ports.last}"
    if ports.protocol in PORTED or ports.protocol in ICMPS:
        return port_name(point(ports.protocol, ports.first))
    return name


def write_documents(
    rules: Iterable[SuggestedRule], networks: Mapping[str, tuple[Network, ...]], names: Names, titles: Mapping[str, str]
) -> dict[str, str]:
    """Write rules as YAML documents, one for each stage, and one with the names that they use.

    `titles` give the names of addresses for evidence. The text depends on nothing but the arguments.
    """
    documents: dict[str, str] = {}
    ordered = sorted(rules, key=lambda rule: (list(Stage).index(rule.stage), rule.id))
    for stage in Stage:
        lines = [f"# {TITLES[stage]}", "rules:"]
        mine = [rule for rule in ordered if rule.stage is stage]
        for rule in mine:
            lines += _rule(rule, names, titles)
        if mine:
            documents[f"suggested-{stage}.yaml"] = "\n".join(lines) + "\n"
    lines = ["# Names that the suggested rules use."]
    if names.used:
        lines += ["services:", *(f"  {name}: {ports}" for name, ports in sorted(names.used.items()))]
    if networks:
        lines.append("networks:")
        for name, prefixes in sorted(networks.items()):
            lines.append(f"  {name}:")
            lines += [f"    - {_quoted(str(prefix))}" for prefix in prefixes]
    if len(lines) > 1:
        documents["suggested-names.yaml"] = "\n".join(lines) + "\n"
    return documents


def _rule(rule: SuggestedRule, names: Names, titles: Mapping[str, str]) -> list[str]:
    services = list(dict.fromkeys(names.of(ports) for ports in rule.ports)) or ["any"]
    count = len(rule.flows)
    lines = ["", f"  # {count} flow{'s' * (count != 1)}, {rule.connections} connection{'s' * (rule.connections != 1)}"]
    seen: Counter[str] = Counter()
    for flow in rule.flows:
        source, target = (titles.get(str(end), str(end)) for end in (flow.key.source, flow.key.destination))
        seen[f"{source} → {target} {port_name(point(flow.key.protocol, flow.key.port))}"] += flow.connections
    for text, connections in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:3]:
        lines.append(f"  #   {text}, {connections}")
    if rule.beyond:
        lines.append(f"  # beyond what was seen: {rule.beyond} of {rule.allows}, such as {', '.join(rule.examples)}")
    lines += [f"  # look twice: {flag}" for flag in rule.flags]
    lines.append(f"  - id: {rule.id}")
    lines.append(f"    allow: {_list(services)}")
    lines.append(f"    from: {_list(rule.source)}")
    lines.append(f"    to: {_list(rule.destination)}")
    if rule.same:
        lines.append(f"    same: {_list(rule.same)}")
    return lines


def _list(values: Iterable[str]) -> str:
    texts = [_quoted(value) for value in values]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.=/-]*(:[A-Za-z0-9_.-]+)?")


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text not in {"true", "false", "null"} else json.dumps(text)
