"""From a scenario to names, `ip` commands and programs: everything that `up` needs, worked out beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from cellwall.lab.apps.spec import AppSpec, CallSpec, ProbeSpec, ServeSpec
from cellwall.lab.scenario import Call, Family, Kind, Scenario, Service, Unit, Workload
from cellwall.traffic import Address

FABRIC, CONTROLLER = "fabric", "controller"
AGENT_UNIT, CONTROLLER_UNIT = "cellwall-agent.service", "cellwall-controller.service"
LATERAL_TCP = (21, 22, 23, 80, 111, 135, 139, 443, 445, 1433, 3306, 3389, 5432, 5985, 6379, 8080, 9200, 27017)
"""Where attackers knock first: remote access, file sharing, management and data stores."""
LATERAL_UDP = (53, 123, 161)
SYSCTLS = (
    "net.ipv4.ip_unprivileged_port_start=0",  # a web server run as www-data may take port 80
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.dad_transmits=0",
    "net.ipv6.conf.all.accept_ra=0",
    "net.ipv6.conf.default.accept_ra=0",
)
FORWARDING = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


@dataclass(frozen=True, slots=True)
class Site:
    """One namespace of a lab, on the fabric's cable number `place`."""

    name: str
    namespace: str
    place: int
    addresses: tuple[Address, ...]

    @property
    def link(self) -> str:
        """The name of the cable's end at the fabric."""
        return f"v{self.place}"

    @property
    def mac(self) -> str:
        """The hardware address, the same when the namespace is made anew: neighbours need not learn another."""
        return f"02:ce:11:00:{self.place >> 8:02x}:{self.place & 0xFF:02x}"


@dataclass(frozen=True, slots=True)
class Program:
    """One process of a workload; `key` names it within its lab as `workload/unit`."""

    key: str
    workload: Workload
    unit: Unit


@dataclass(frozen=True, slots=True)
class Door:
    """Something that an attacker may try: a known service (`service` is its name), or just a port."""

    target: str
    service: str
    protocol: str
    probe: ProbeSpec


def prefix(lab: str) -> str:
    """Give what the names of all namespaces of a lab begin with."""
    return f"cw-{lab}-"


def sites(scenario: Scenario) -> tuple[Site, ...]:
    """Give the namespaces that hang on the fabric: the controller's, then the workloads'."""
    start = prefix(scenario.lab)
    named = [(CONTROLLER, scenario.controllers), *((w.name, w.addresses) for w in scenario.workloads)]
    return tuple(Site(name, start + name, place, tuple(addresses)) for place, (name, addresses) in enumerate(named))


def fabric_lines(scenario: Scenario) -> list[str]:
    """Write the `ip` commands, for inside the fabric, that make its bridge and gateway addresses."""
    four, six = scenario.networks
    at_four, at_six = scenario.gateways
    return [
        "link set lo up",
        "link add br0 type bridge",
        "link set br0 up",
        f"addr add {at_four}/{four.prefixlen} dev br0",
        f"addr add {at_six}/{six.prefixlen} dev br0 nodad",
    ]


def cable_lines(scenario: Scenario, wanted: Iterable[Site]) -> list[str]:
    """Write the `ip` commands that lay a cable from each namespace to the fabric."""
    fabric = prefix(scenario.lab) + FABRIC
    return [
        f"link add eth0 address {site.mac} netns {site.namespace} type veth peer name {site.link} netns {fabric}"
        for site in wanted
    ]


def plug_lines(scenario: Scenario, wanted: Iterable[Site]) -> list[str]:
    """Write the `ip` commands, for inside the fabric, that plug the cables in and route to addresses from outside."""
    lines: list[str] = []
    for site in wanted:
        lines += [f"link set {site.link} master br0", f"link set {site.link} up"]
        for address in site.addresses:
            if not any(address in network for network in scenario.networks):
                lines.append(f"route replace {address}/{address.max_prefixlen} dev br0")
    return lines


def site_lines(scenario: Scenario, site: Site) -> list[str]:
    """Write the `ip` commands, for inside a namespace, that give it addresses and routes."""
    lines = ["link set lo up", "link set eth0 up"]
    for address, gateway in zip(site.addresses, scenario.gateways, strict=True):
        home = next((network for network in scenario.networks if address in network), None)
        length = home.prefixlen if home else address.max_prefixlen
        lines.append(f"addr add {address}/{length} dev eth0" + ("" if address.version == 4 else " nodad"))
        lines.append(f"route replace default via {gateway} dev eth0 onlink")
    return lines


def programs(scenario: Scenario) -> tuple[Program, ...]:
    """Give every unit of every workload as a process to run."""
    return tuple(
        Program(f"{workload.name}/{unit.name}", workload, unit)
        for workload in scenario.workloads
        for unit in workload.units
    )


def serve_specs(scenario: Scenario, unit: Unit) -> list[ServeSpec]:
    """Say what a unit's process offers."""
    return [
        ServeSpec(
            kind=service.kind.value,
            port=service.port,
            dynamic=[service.dynamic.first & 0xFFFF, service.dynamic.last & 0xFFFF] if service.dynamic else [],
            zone=zone(scenario) if service.kind is Kind.DNS else {},
        )
        for service in unit.services
    ]


def zone(scenario: Scenario) -> dict[str, list[str]]:
    """Give the names that the lab's DNS knows, such as `web-1.shop.internal`, with their addresses."""
    return {f"{w.name}.{scenario.lab}.internal": [str(address) for address in w.addresses] for w in scenario.workloads}


def call_specs(scenario: Scenario, program: Program) -> list[CallSpec]:
    """Say what a unit's process calls; a call over both families is two calls at half the pace."""
    return [spec for call in program.unit.calls for spec in _call_specs(scenario, program, call)]


def _call_specs(scenario: Scenario, program: Program, call: Call) -> Iterable[CallSpec]:
    target = scenario.workload(call.to)
    service = target.service(call.service) if target else None
    assert target and service, "the parser has looked them up"
    versions = (4, 6) if call.family is Family.BOTH else (int(call.family),)
    every_s = call.every_ms / 1000 * len(versions)
    for address in target.addresses:
        if address.version not in versions:
            continue
        name = f"{program.key}>{call.to}/{service.name}/{address.version}/{call.lifetime}"
        yield CallSpec(
            id=name,
            kind=service.kind.value,
            lifetime=call.lifetime.value,
            host=str(address),
            port=service.port,
            every_s=every_s,
            # Spread by name: the same from run to run, and no two workloads in step.
            start_s=round(crc32(name.encode()) % 1000 / 1000 * min(every_s, 5.0), 3),
            names=_names(scenario, address.version) if service.kind is Kind.DNS else [],
        )


def _names(scenario: Scenario, version: int) -> list[list[str]]:
    four = version == 4
    return [
        [name, address]
        for name, addresses in zone(scenario).items()
        for address in addresses
        if (":" not in address) == four
    ]


def app_spec(scenario: Scenario, program: Program, *, uid: int, gid: int, cgroup: str, report: str, go: str) -> AppSpec:
    """Write the whole instruction of a unit's process. `cgroup` may be empty: there is none to join."""
    return AppSpec(
        process=program.unit.process,
        uid=uid,
        gid=gid,
        cgroup=cgroup,
        report=report,
        go=go,
        serve=serve_specs(scenario, program.unit),
        call=call_specs(scenario, program),
    )


def doors(scenario: Scenario, foothold: str) -> list[Door]:
    """Give everything that an attacker on `foothold` tries: known services and lateral ports, in both families."""
    found: list[Door] = []
    for workload in scenario.workloads:
        if workload.name == foothold:
            continue
        services: dict[tuple[str, int], Service] = {(s.protocol, s.port): s for s in workload.services()}
        ports = {*services, *(("tcp", port) for port in LATERAL_TCP), *(("udp", port) for port in LATERAL_UDP)}
        for address in workload.addresses:
            for protocol, port in sorted(ports):
                service = services.get((protocol, port))
                kind = service.kind.value if service else protocol
                probe = ProbeSpec(kind=kind, host=str(address), port=port)
                found.append(Door(workload.name, service.name if service else "", protocol, probe))
    return found
