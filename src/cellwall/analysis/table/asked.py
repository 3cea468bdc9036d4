"""The ends that a question is about, in the words of the one who asks: workloads, selectors, networks, addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network

from cellwall.inventory import Fleet
from cellwall.labels import LabelError, Selector, parse_selector
from cellwall.policy import BUILT_IN, AddressBook, Endpoint, Policy, Who, suggestion
from cellwall.traffic import (
    EVERYTHING,
    AddressError,
    CellwallError,
    PortSet,
    ServiceError,
    parse_network,
    parse_ports,
)

ADDRESS, WORKLOAD = "address ", "workload "
"""How the books of what is asked about begin: no network of a document can be called so."""
_OR = re.compile(r"(?:^|\s+)or(?:\s+|$)")


SERVICES = EVERYTHING - PortSet.of(span for rule in BUILT_IN for span in rule.ports.spans)
"""All that can be a service: everything but what the built-in lifelines let pass, and that carries none, such as ICMP
errors."""


class QuestionError(CellwallError):
    """A question that cannot be read, or that names what is not there; the asker's move."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Some ends of flows: those that one of `whos` names. A workload by name is the network of its own addresses."""

    text: str
    whos: tuple[Who, ...]

    def __contains__(self, end: Endpoint) -> bool:
        for who in self.whos:
            if who.selector is not None:
                if end.workload is not None and who.selector.matches(end.labels):
                    return True
            elif who.network is None or end.address in who.network:
                return True
        return False

    @property
    def books(self) -> tuple[AddressBook, ...]:
        """The networks that it takes to tell these ends from others."""
        return tuple(who.network for who in self.whos if who.network is not None)

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """The selectors that it takes to tell these ends from others."""
        return tuple(who.selector for who in self.whos if who.selector is not None)


def read_ends(text: str, policy: Policy, fleet: Fleet) -> Asked:
    """Read `db-1`, `role=db,env=prod`, `network:office`, `198.51.100.20`, `10.0.0.0/8`, `any`, or some with ` or `.

    Raises `QuestionError`."""
    parts = [part.strip() for part in _OR.split(text.strip())]
    if not all(parts):
        raise QuestionError("wanted a workload, a selector, `network:…`, an address or `any`")
    return Asked(" or ".join(parts), tuple(_who(part, policy, fleet) for part in parts))


def _who(text: str, policy: Policy, fleet: Fleet) -> Who:
    if text == "any":
        return Who()
    if text.startswith("network:"):
        return Who(network=_network(text.removeprefix("network:"), policy))
    workload = fleet.by_name.get(text)
    if workload is not None:
        own = [address for address in workload.addresses if fleet.by_address[address] is workload]
        if not own:
            raise QuestionError(f"workload `{text}` has no address, so nothing reaches it and it reaches nothing")
        return Who(network=AddressBook(WORKLOAD + text, tuple(ip_network(address) for address in own)))
    try:
        return Who(network=AddressBook(ADDRESS + text, (parse_network(text),)))
    except AddressError:
        if re.fullmatch(r"[0-9.]+(/[0-9]+)?|.*:.*:.*", text):
            raise QuestionError(f"`{text}` is no address and no network; wanted such as `10.20.0.0/16`") from None
    return Who(selector=_selector(text, policy, fleet))


def _network(name: str, policy: Policy) -> AddressBook:
    known = {book.name: book for book in policy.networks}
    book = known.get(name)
    if book is None:
        raise QuestionError(f"unknown network `{name}`{suggestion(name, tuple(known))}")
    if book.names:
        raise QuestionError(f"`network:{name}` has DNS names: which addresses they stand for cannot be known")
    return book


def _selector(text: str, policy: Policy, fleet: Fleet) -> Selector:
    try:
        selector = parse_selector(text)
    except LabelError as error:
        raise QuestionError(str(error)) from None
    declared = {label.key: label.values for label in policy.labels}
    keys = declared.keys() | {key for workload in fleet.workloads for key in workload.labels}
    for requirement in selector.requirements:
        if requirement.key not in keys:
            if text == requirement.key:
                near = suggestion(text, (*fleet.by_name, *sorted(keys)))
                raise QuestionError(f"there is no workload and no label `{text}`{near}")
            raise QuestionError(f"unknown label `{requirement.key}`{suggestion(requirement.key, tuple(sorted(keys)))}")
        for value in requirement.values:
            values = declared.get(requirement.key, ())
            if values and value not in values:
                raise QuestionError(f"`{value}` is not a value of `{requirement.key}`{suggestion(value, values)}")
    return selector


def services_in_words(ports: PortSet, policy: Policy | None = None) -> str:
    """Write ports as a question would: by the name of a service of the policy where there is one that is these."""
    if ports == SERVICES:
        return "all services"
    named = (service.name for service in policy.services if service.ports == ports) if policy else iter(())
    return next(named, None) or str(ports)


def read_services(texts: Iterable[str], policy: Policy) -> PortSet:
    """Read services of the policy and ports such as `tcp/22` or `5432` (TCP).

    `any` is every packet that there is; `all`, which is also meant by none, all that can be a service. Raises
    `QuestionError`."""
    found: list[PortSet] = []
    services = {service.name: service for service in policy.services}
    for text in texts:
        if text in services:
            found.append(services[text].ports)
            continue
        if text == "all":
            found.append(SERVICES)
            continue
        try:
            found.append(parse_ports(f"tcp/{text}" if text.isdecimal() else text))
        except ServiceError as error:
            near = suggestion(text, tuple(services)) if "/" not in text else ""
            raise QuestionError(f"unknown service `{text}`{near}" if near else str(error)) from None
    return PortSet.of(span for ports in found for span in ports.spans) if found else SERVICES
