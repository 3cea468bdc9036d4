"""What a lab is made of: workloads, their units, the services they offer and the calls they make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from cellwall.labels import Labels
from cellwall.traffic import Address, CellwallError, Span

LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
"""No hyphen: `cw-shop-` must not also be the prefix of another lab's namespaces."""
WORKLOAD_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
UNIT_NAME = re.compile(r"[a-z][a-z0-9@_-]{0,39}\.(service|scope)")
RESERVED = frozenset({"fabric", "controller"})
"""Names of the namespaces that a lab adds to those of its workloads."""


class ScenarioError(CellwallError):
    """A scenario that cannot be read; the message begins with file, line and column."""


class Kind(StrEnum):
    """What a service speaks."""

    HTTP = "http"
    METRICS = "metrics"
    LINE = "line"
    POSTGRES = "postgres"
    REDIS = "redis"
    SSH = "ssh"
    RPC = "rpc"
    DNS = "dns"
    ECHO = "udp-echo"
    SYSLOG = "syslog"

    @property
    def datagrams(self) -> bool:
        """Whether it is spoken over UDP."""
        return self in (Kind.DNS, Kind.ECHO, Kind.SYSLOG)


class Lifetime(StrEnum):
    """How long a caller keeps its connection: one request, some, or for ever; `udp` has none."""

    SHORT = "short"
    KEEPALIVE = "keepalive"
    LONG = "long-lived"
    UDP = "udp"


class Family(StrEnum):
    """Which IP versions a caller uses."""

    FOUR = "4"
    SIX = "6"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Service:
    """Something that listens on one port, and for `rpc` hands out ports of `dynamic`."""

    name: str
    kind: Kind
    ports: Span
    dynamic: Span | None = None

    @property
    def port(self) -> int:
        """The port number, 0 to 65535."""
        return self.ports.first & 0xFFFF

    @property
    def protocol(self) -> str:
        """`tcp` or `udp`."""
        return "udp" if self.kind.datagrams else "tcp"


@dataclass(frozen=True, slots=True)
class Call:
    """One workload's steady use of another's service, once every `every_ms` milliseconds."""

    to: str
    service: str
    every_ms: int
    lifetime: Lifetime
    family: Family


@dataclass(frozen=True, slots=True)
class Unit:
    """One process of a workload, run as `user` in a cgroup named like a systemd unit."""

    name: str
    user: str
    process: str
    services: tuple[Service, ...] = ()
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """One namespace of a lab.

    `labels` are given at birth; `truth` is what a classification ought to find, for scoring only. Without an
    agent a workload is `declared` to the controller, or left unknown to it (an address of the outside world).
    """

    name: str
    addresses: tuple[Address, ...]
    agent: bool
    declared: bool
    labels: Labels
    truth: Labels
    units: tuple[Unit, ...]

    def service(self, name: str) -> Service | None:
        """Give the service called `name`, if this workload offers one."""
        return next((service for service in self.services() if service.name == name), None)

    def services(self) -> Iterator[Service]:
        """Give the services of all units."""
        for unit in self.units:
            yield from unit.services


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole lab: `lab` is its name, `networks` the prefixes that its fabric routes, `source` its text."""

    lab: str
    networks: tuple[IPv4Network, IPv6Network]
    workloads: tuple[Workload, ...]
    source: str = field(default="", compare=False, repr=False)

    def workload(self, name: str) -> Workload | None:
        """Give the workload called `name`, if there is one."""
        return next((workload for workload in self.workloads if workload.name == name), None)

    @property
    def gateways(self) -> tuple[Address, Address]:
        """The fabric's own addresses: the first of each network."""
        four, six = self.networks
        return four[1], six[1]

    @property
    def controllers(self) -> tuple[Address, Address]:
        """The controller's addresses: the second of each network."""
        four, six = self.networks
        return four[2], six[2]
