"""Read a scenario: text in, a checked `Scenario` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from cellwall.lab.nodes import Entry, compose, unknown
from cellwall.lab.scenario import (
    LAB_NAME,
    RESERVED,
    UNIT_NAME,
    WORKLOAD_NAME,
    Call,
    Family,
    Kind,
    Lifetime,
    Scenario,
    ScenarioError,
    Service,
    Unit,
    Workload,
)
from cellwall.labels import Labels
from cellwall.traffic import TCP, UDP, Address, CellwallError, Span, parse_address, parse_network, parse_ports

_DEFAULT_NETWORKS = (IPv4Network("10.77.0.0/16"), IPv6Network("fd77::/64"))
_FIRST_HOST = 11
_KEYS = ("lab", "networks", "everywhere", "workloads")
_WORKLOAD_KEYS = ("addresses", "agent", "declared", "everywhere", "labels", "truth", "units")
_UNIT_KEYS = ("user", "process", "services", "calls")
_SERVICE_KEYS = ("ports", "kind", "dynamic")
_CALL_KEYS = ("to", "service", "every_ms", "lifetime", "family")


def load_scenario(path: str | Path) -> Scenario:
    """Read the scenario file at `path`. Raises `ScenarioError`."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = str(error.strerror).lower() if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ScenarioError(f"cannot read scenario `{path}`: {reason}") from None
    return parse_scenario(text, str(path))


def parse_scenario(text: str, file: str = "scenario") -> Scenario:
    """Read a scenario; `file` is the name that errors begin with. Raises `ScenarioError`."""
    top = compose(text, file)
    fields = top.fields(_KEYS, needed=("lab", "workloads"))
    lab = fields["lab"].text()
    if not LAB_NAME.fullmatch(lab):
        raise fields["lab"].wrong(f"`{lab}` is not a lab name; wanted a letter, then up to 11 letters or digits")
    networks = _networks(fields["networks"]) if "networks" in fields else _DEFAULT_NETWORKS
    shared = _units(fields["everywhere"]) if "everywhere" in fields else ()
    found = fields["workloads"].mapping()
    if not found:
        raise fields["workloads"].wrong("wanted at least one workload")
    drafts = [_workload(key, value, shared) for key, value in found.values()]
    return Scenario(lab, networks, _addressed(_with_calls(drafts), networks), text)


@dataclass(frozen=True, slots=True)
class _CallDraft:
    """A call as written, before its targets are looked up."""

    entry: Entry
    to: tuple[Entry, ...]
    service: Entry
    every_ms: int
    lifetime: Lifetime
    family: Family


@dataclass(frozen=True, slots=True)
class _UnitDraft:
    entry: Entry
    unit: Unit
    calls: tuple[_CallDraft, ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    entry: Entry
    workload: Workload
    addresses: tuple[tuple[Entry, Address], ...]
    units: tuple[_UnitDraft, ...]


def _networks(entry: Entry) -> tuple[IPv4Network, IPv6Network]:
    four: list[IPv4Network] = []
    six: list[IPv6Network] = []
    for item in entry.items():
        network = item.read(parse_network)
        if network.num_addresses < 256:
            raise item.wrong(f"`{network}` is too small for a lab; wanted at least 256 addresses")
        four.append(network) if isinstance(network, IPv4Network) else six.append(network)
    if len(four) != 1 or len(six) != 1:
        raise entry.wrong("wanted one IPv4 and one IPv6 network")
    return four[0], six[0]


def _workload(key: Entry, value: Entry, shared: Sequence[_UnitDraft]) -> _Draft:
    name = key.text()
    if not WORKLOAD_NAME.fullmatch(name):
        raise key.wrong(f"`{name}` is not a workload name; wanted a letter, then letters, digits and `-`, at most 30")
    if name in RESERVED:
        raise key.wrong(f"`{name}` is a name that every lab uses for itself; choose another")
    fields = value.fields(_WORKLOAD_KEYS)
    agent = fields["agent"].truth() if "agent" in fields else True
    declared = fields["declared"].truth() if "declared" in fields else not agent
    if agent and declared:
        raise fields["declared"].wrong("a workload with an agent declares itself; drop one of `agent` and `declared`")
    joins = fields["everywhere"].truth() if "everywhere" in fields else agent
    own = _units(fields["units"]) if "units" in fields else ()
    units = (*own, *(shared if joins else ()))
    twice = {unit.unit.name for unit in own} & {unit.unit.name for unit in shared if joins}
    if twice:
        raise key.wrong(f"unit `{min(twice)}` is also under `everywhere`; set `everywhere: false` or rename it")
    _check_ports(key, units)
    labels, truth = (_labels(fields[name]) if name in fields else Labels() for name in ("labels", "truth"))
    addresses = (
        tuple((item, item.read(parse_address)) for item in fields["addresses"].items())
        if ("addresses" in fields)
        else ()
    )
    return _Draft(key, Workload(name, (), agent, declared, labels, truth, ()), addresses, units)


def _check_ports(where: Entry, units: Sequence[_UnitDraft]) -> None:
    names: set[str] = set()
    taken: list[tuple[Span, str]] = []
    for service in (service for unit in units for service in unit.unit.services):
        if service.name in names:
            raise where.wrong(f"service `{service.name}` is offered twice")
        names.add(service.name)
        for span in (service.ports, *((service.dynamic,) if service.dynamic else ())):
            for other, owner in taken:
                if span.first <= other.last and other.first <= span.last:
                    raise where.wrong(f"services `{owner}` and `{service.name}` want the same port")
            taken.append((span, service.name))


def _labels(entry: Entry) -> Labels:
    pairs = {name: value.text() for name, (_, value) in entry.mapping().items()}
    try:
        return Labels(pairs)
    except CellwallError as error:
        raise entry.wrong(str(error)) from None


def _units(entry: Entry) -> tuple[_UnitDraft, ...]:
    return tuple(_unit(key, value) for key, value in entry.mapping().values())


def _unit(key: Entry, value: Entry) -> _UnitDraft:
    name = key.text()
    if not UNIT_NAME.fullmatch(name):
        raise key.wrong(f"`{name}` is not a unit name; wanted one such as `nginx.service`")
    fields = value.fields(_UNIT_KEYS)
    user = fields["user"].text() if "user" in fields else "root"
    process = fields["process"].text() if "process" in fields else name.rpartition(".")[0][:15]
    if not 1 <= len(process.encode()) <= 15:
        raise fields["process"].wrong(f"`{process}` is not a process name; the kernel keeps 15 bytes (proc(5), comm)")
    services = fields["services"].mapping() if "services" in fields else {}
    calls = fields["calls"].items() if "calls" in fields else []
    unit = Unit(name, user, process, tuple(_service(name, *where) for name, where in services.items()))
    return _UnitDraft(key, unit, tuple(_call(entry) for entry in calls))


def _service(name: str, key: Entry, value: Entry) -> Service:
    if not WORKLOAD_NAME.fullmatch(name):
        raise key.wrong(f"`{name}` is not a service name; wanted a letter, then letters, digits and `-`")
    fields = value.fields(_SERVICE_KEYS, needed=("ports", "kind"))
    kind = Kind(fields["kind"].one_of([kind.value for kind in Kind], "kind"))
    ports = _span(fields["ports"], kind)
    if ports.first != ports.last:
        raise fields["ports"].wrong("wanted one port; a range belongs under `dynamic` of a service of kind `rpc`")
    if (kind is Kind.RPC) != ("dynamic" in fields):
        raise value.wrong("`dynamic` goes with kind `rpc`, and with no other")
    return Service(name, kind, ports, _span(fields["dynamic"], kind) if "dynamic" in fields else None)


def _span(entry: Entry, kind: Kind) -> Span:
    ports = entry.read(parse_ports)
    protocol = UDP if kind.datagrams else TCP
    if any(span.first >> 16 != protocol or not span.first & 0xFFFF for span in ports.spans):
        wanted = "udp/53" if kind.datagrams else "tcp/8080"
        raise entry.wrong(f"`{entry.text()}` does not suit kind `{kind}`; wanted a port such as `{wanted}`")
    return ports.spans[0]


def _call(entry: Entry) -> _CallDraft:
    fields = entry.fields(_CALL_KEYS, needed=("to", "service", "every_ms"))
    lifetime = (
        fields["lifetime"].one_of([choice.value for choice in Lifetime], "lifetime")
        if "lifetime" in fields
        else "short"
    )
    family = fields["family"].one_of([choice.value for choice in Family], "family") if "family" in fields else "both"
    return _CallDraft(
        entry,
        tuple(fields["to"].items()),
        fields["service"],
        fields["every_ms"].integer(10, 3_600_000),
        Lifetime(lifetime),
        Family(family),
    )


def _with_calls(drafts: Sequence[_Draft]) -> list[_Draft]:
    """Look up the targets of all calls, `*` being every other workload that offers the service."""
    offers = {
        draft.workload.name: {service.name: service for unit in draft.units for service in unit.unit.services}
        for draft in drafts
    }
    finished: list[_Draft] = []
    for draft in drafts:
        units: list[Unit] = []
        for unit in draft.units:
            calls: list[Call] = []
            for written in unit.calls:
                for call in _targets(draft.workload.name, written, offers):
                    if any((c.to, c.service, c.lifetime) == (call.to, call.service, call.lifetime) for c in calls):
                        raise written.entry.wrong(f"service `{call.service}` of `{call.to}` is called twice")
                    calls.append(call)
            units.append(replace(unit.unit, calls=tuple(calls)))
        finished.append(replace(draft, workload=replace(draft.workload, units=tuple(units))))
    return finished


def _targets(caller: str, call: _CallDraft, offers: dict[str, dict[str, Service]]) -> list[Call]:
    wanted = call.service.text()
    found: list[Call] = []
    for place in call.to:
        name = place.text()
        if name == "*":
            names = [other for other, services in offers.items() if wanted in services and other != caller]
            if not names:
                raise call.service.wrong(f"no other workload offers service `{wanted}`")
        else:
            if name not in offers:
                raise place.wrong(unknown("workload", name, offers))
            if wanted not in offers[name]:
                raise call.service.wrong(f"`{name}` offers no service `{wanted}`: {_known(offers[name])}")
            # A unit under `everywhere` calls what its own workload may be.
            names = [name] if name != caller else []
        for target in names:
            udp = offers[target][wanted].kind.datagrams
            if udp != (call.lifetime is Lifetime.UDP):
                right = "`udp`" if udp else "`short`, `keepalive` or `long-lived`"
                raise call.entry.wrong(f"service `{wanted}` of `{target}` wants lifetime {right}")
            found.append(Call(target, wanted, call.every_ms, call.lifetime, call.family))
    return found


def _known(offers: dict[str, Service]) -> str:
    return "it offers `" + "`, `".join(sorted(offers)) + "`" if offers else "it offers none"


def _addressed(drafts: Sequence[_Draft], networks: tuple[IPv4Network, IPv6Network]) -> tuple[Workload, ...]:
    """Give every workload one address of each family, by its place in the file where none is written."""
    taken: dict[Address, str] = {}
    for network in networks:
        taken |= {network[1]: "fabric", network[2]: "controller"}
    result: list[Workload] = []
    for place, draft in enumerate(drafts):
        own = {address.version: address for _, address in draft.addresses}
        if len(own) != len(draft.addresses):
            raise draft.addresses[0][0].wrong("wanted at most one address of each family")
        for version, network in zip((4, 6), networks, strict=True):
            number = _FIRST_HOST + place
            if version not in own and number >= network.num_addresses - 1:
                raise draft.entry.wrong(f"`{network}` has no address left")
            own.setdefault(version, network[number])
        for address in own.values():
            if address in taken:
                raise draft.entry.wrong(f"address `{address}` is already that of `{taken[address]}`")
            taken[address] = draft.workload.name
        result.append(replace(draft.workload, addresses=(own[4], own[6])))
    return tuple(result)
