"""What the people's API works with, and how a request's words become values."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from cellwall.analysis import Impact, sifted_impact
from cellwall.controller.access.oidc import OidcOptions, read_oidc
from cellwall.controller.access.people import People
from cellwall.controller.access.person import Person
from cellwall.controller.access.provider import Provider
from cellwall.controller.access.rights import Right
from cellwall.controller.access.throttle import Buckets
from cellwall.controller.api.channel import Channel
from cellwall.controller.api.drafts import Drafts
from cellwall.controller.control import Control
from cellwall.controller.errors import ControllerError, Denied, NotReady, NotSignedIn
from cellwall.controller.ground import Ground, read_policy
from cellwall.controller.metrics import Metrics
from cellwall.controller.plan import Plan, make_plan
from cellwall.controller.store.flows import FlowStore
from cellwall.controller.store.heads import HeadStore
from cellwall.controller.store.people import PeopleStore
from cellwall.inventory import Fleet
from cellwall.labels import LabelError, parse_selector
from cellwall.policy import Policy
from cellwall.traffic import (
    EVERYTHING,
    NOTHING,
    Address,
    AddressError,
    Network,
    PortSet,
    ServiceError,
    parse_address,
    parse_network,
    parse_ports,
)

T = TypeVar("T")
MOST_ITEMS = 10_000
MOST_DRAFT, PATIENCE_S = 256 << 10, 20.0
"""How long documents may be of whoever sees a part of the fleet only, and how long their check waits for its turn."""
_AGO = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass
class Desk:
    """All that a request may need. Requests run in the loop's own thread; what takes long goes to another."""

    control: Control
    flows: FlowStore
    channel: Channel
    clock: Callable[[], float]
    changed: Callable[[], None]
    metrics: Metrics = field(default_factory=Metrics)
    log_lines: Callable[[], Iterable[str]] = tuple[str]
    """Gives the last lines of the log."""
    drafts: Drafts = field(default_factory=Drafts)
    people: People = field(init=False)
    heads: HeadStore = field(init=False)
    provider: Provider | None = field(init=False)
    hashing: asyncio.Semaphore = field(init=False, default_factory=partial(asyncio.Semaphore, 2))
    asking: asyncio.Semaphore = field(init=False, default_factory=partial(asyncio.Semaphore, 1))
    """So much at once: the hash of a password takes 32 MiB, and an identity provider is not to be flooded."""
    beginning: Buckets = field(init=False, default_factory=partial(Buckets, 20, 0.1))
    """Sign-ins with an identity provider that are begun from one address."""
    working: asyncio.Semaphore = field(init=False, default_factory=partial(asyncio.Semaphore, 3))
    working_apart: asyncio.Semaphore = field(init=False, default_factory=partial(asyncio.Semaphore, 1))
    """Checks of documents at once: compiling, and writing flows down, need a thread and a processor too."""

    def __post_init__(self) -> None:
        store, file = self.control.store, self.control.options.oidc
        oidc: OidcOptions | None = read_oidc(file) if file is not None else None
        self.provider = Provider(oidc) if oidc is not None else None
        self.people = People(PeopleStore(store.database), store, self.clock, oidc.bindings_of if oidc else None)
        self.heads = HeadStore(store.database)

    async def read(self, who: Person, documents: Mapping[str, str]) -> None:
        """Read documents in another thread, so that nobody waits who reads them then. Raises `PolicyError`.

        Of whoever sees a part of the fleet only, they are no longer than somebody's own policy is."""
        if not (who.may(Right.READ) or who.may_somewhere(Right.AUTHOR)):
            size = sum(len(one) for one in documents.values())
            if size > MOST_DRAFT:
                raise Denied(f"the documents have {size} characters; `{who.name}` may give {MOST_DRAFT} at most")
        await asyncio.to_thread(read_policy, documents)

    @asynccontextmanager
    async def turn(self, who: Person) -> AsyncGenerator[None]:
        """Work for whoever asks, a few at once; for all who see a part of the fleet only, one. Raises `NotReady`."""
        among = self.working if who.may(Right.READ) else self.working_apart
        try:
            async with asyncio.timeout(PATIENCE_S):
                await among.acquire()
        except TimeoutError:
            raise NotReady("other documents are being checked; try again in a moment") from None
        try:
            yield
        finally:
            among.release()

    async def plan(self, ground: Ground) -> Plan:
        """Compare what `ground` wants with what is wanted at this moment."""
        after = await asyncio.to_thread(self.drafts.of, ground, self.clock())
        return await asyncio.to_thread(
            make_plan, self.control.wanted, after, self.control.rooms.of(self.control.standings)
        )

    async def impact(self, after: Ground, since: float) -> Impact:
        """Say what changes for the flows that were seen, and for all that can be. Raises `FlowStoreError`."""
        before, now = self.control.ground(), self.clock()
        keys = await asyncio.to_thread(self.flows.keys, since)
        # Documents may declare workloads of their own: both policies are looked at with those of the new ones.
        alike = before.fleet.by_address.keys() == after.fleet.by_address.keys()
        fleet = before.fleet if alike else after.fleet
        records = partial(self.flows.tuples_of, since)
        work = partial(sifted_impact, before.policy, after.policy, fleet, keys, records, now, new_fleet=after.fleet)
        return await asyncio.to_thread(work)


def the_desk(request: Request) -> Desk:
    """Give the desk of the application that serves `request`."""
    return cast("Desk", request.app.state.desk)


def the_person(request: Request) -> Person:
    """Say who asks, as the door found out. Raises `NotSignedIn` where it is nobody."""
    person = cast("Person | None", getattr(request.state, "person", None))
    if person is None:
        raise NotSignedIn("nobody knows who asks; sign in with `cellwall login`, or give a token")
    return person


def the_author(request: Request) -> str:
    """Say who asks, by name."""
    return the_person(request).name


TheDesk = Annotated[Desk, Depends(the_desk)]
Who = Annotated[Person, Depends(the_person)]
Author = Annotated[str, Depends(the_author)]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""The number of a revision, as every database can hold it."""
Page = tuple[list[T], str | None]


class Body(BaseModel):
    """A request's body: a closed set of fields."""

    model_config = ConfigDict(extra="forbid")


# --- lists ---


def page(items: Sequence[T], key: Callable[[T], str], limit: int, cursor: str | None) -> Page[T]:
    """Give the items after `cursor`, `limit` at most, and the next cursor. `items` are in order of `key`."""
    rest = [item for item in items if cursor is None or key(item) > cursor]
    return rest[:limit], key(rest[limit - 1]) if len(rest) > limit else None


def listed(items: Sequence[object], following: str | None = None) -> dict[str, Any]:
    """Give the answer that holds a list."""
    return {"items": list(items), "next": following}


def to_cursor(*parts: object) -> str:
    """Write a place in a list as one word."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def from_cursor(text: str, count: int) -> list[Any]:
    """Read what `to_cursor` wrote. Raises `ControllerError`."""
    try:
        parts = json.loads(base64.urlsafe_b64decode(text.encode()))
        if isinstance(parts, list) and len(cast("list[Any]", parts)) == count:
            return cast("list[Any]", parts)
    except ValueError:
        pass
    raise ControllerError(f"`{text}` is no cursor; give back what `next` said")


# --- words ---


def moment(text: str | None, now: float, otherwise: float) -> float:
    """Read a moment: `15m` ago (s, m, h, d, w), seconds since the epoch, or RFC 3339. Raises `ControllerError`."""
    if not text:
        return otherwise
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - float(ago[1]) * _SECONDS[ago[2]]
    try:
        at = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else _rfc3339(text)
    except (ValueError, OverflowError):
        at = math.nan
    if not math.isfinite(at):
        raise ControllerError(f"`{text}` is no moment; wanted `15m`, `2026-12-01T00:00:00Z` or seconds since 1970")
    return at


def _rfc3339(text: str) -> float:
    found = datetime.fromisoformat(text.replace(" ", "+"))
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def ports(text: str | None, policy: Policy) -> PortSet:
    """Read ports as a policy would: `tcp/80`, a service of the policy, a bare number; several with commas."""
    if not text:
        return EVERYTHING
    services = {service.name: service.ports for service in policy.services}
    found = NOTHING
    for word in text.split(","):
        if word in services:
            found |= services[word]
        else:
            # A bare number is that port of TCP and of UDP.
            meant = (f"tcp/{word}", f"udp/{word}") if word.isdigit() else (word,)
            try:
                for one in meant:
                    found |= parse_ports(one)
            except ServiceError as error:
                known = _well_known(word)
                if not known:
                    raise ControllerError(str(error)) from None
                found |= known
    return found


def _well_known(word: str) -> PortSet:
    """Give the ports of a service that this machine knows by name, such as `ssh` (services(5)); none of another."""
    found = NOTHING
    for protocol in ("tcp", "udp"):
        with suppress(OSError, ValueError):
            found |= parse_ports(f"{protocol}/{socket.getservbyname(word, protocol)}")
    return found


def networks(text: str | None, policy: Policy, fleet: Fleet) -> tuple[Network, ...] | None:
    """Read one end of flows: a workload, an address or prefix, `network:NAME`, or a selector; None is nobody.

    The empty tuple is anybody. Raises `ControllerError`.
    """
    if not text or text == "any":
        return ()
    if text.startswith("network:"):
        books = {book.name: book.prefixes for book in policy.networks}
        if text.removeprefix("network:") not in books:
            raise ControllerError(f"unknown network `{text.removeprefix('network:')}`")
        return books[text.removeprefix("network:")] or None
    if text in fleet.by_name:
        return _exactly(fleet.by_name[text].addresses) or None
    try:
        return (parse_network(text),)
    except AddressError as error:
        if re.fullmatch(r"[0-9.]+(/\d+)?|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(/\d+)?", text):
            raise ControllerError(str(error)) from None
    try:
        selector = parse_selector(text)
    except LabelError as error:
        raise ControllerError(f"`{text}` is no workload, network or selector: {error}") from None
    found = [one.addresses for one in fleet.workloads if selector.matches(one.labels)]
    return _exactly(address for addresses in found for address in addresses) or None


def _exactly(addresses: Any) -> tuple[Network, ...]:
    return tuple(parse_network(str(address)) for address in addresses)


def addresses(text: str, fleet: Fleet) -> tuple[Address, ...]:
    """Read a workload or an address as all its addresses, of which there is one at least. Raises `ControllerError`."""
    workload = fleet.by_name.get(text)
    if workload is None:
        try:
            return (parse_address(text),)
        except AddressError:
            raise ControllerError(f"`{text}` is neither a workload nor an address") from None
    if not workload.addresses:
        raise ControllerError(f"workload `{text}` has no address")
    return workload.addresses


def jsonable(mapping: Mapping[str, object]) -> dict[str, Any]:
    """Give a mapping as JSON would hold it."""
    return json.loads(json.dumps(mapping, default=str))
