"""How points with a new revision fare: what it denies that nobody foresaw, and applications' own checks."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import urlsplit

from cellwall.controller.ground import Ground
from cellwall.controller.store.state import Revision
from cellwall.controller.testing import Report
from cellwall.flows import Flow, FlowRecord, Outcome
from cellwall.policy import Check, Identity, decide, endpoint
from cellwall.policy import Flow as Asked
from cellwall.traffic import canonical, point, port_name

CHECK_S = 3.0
METADATA = frozenset({ip_address("fd00:ec2::254"), ip_address("100.100.100.200")})
"""Where clouds tell a machine its secrets, besides 169.254.169.254."""
MOST_MISSES = 3
"""A check that fails so many times in a row fails the wave."""


def unexpected(
    flows: Iterable[Flow], plan: Mapping[str, object], ground: Ground, base: Ground, now: float
) -> tuple[tuple[str, str], ...]:
    """Name the flows that the revision of `ground` denied, that `base` lets pass, and that its `plan` did not foresee,
    each with the point that says so.

    Foreseen is what the plan's replay lists as cut; of more than it lists, as many are taken to be among the rest."""
    replay = _mapping(plan.get("replay"))
    listed = [_mapping(one) for one in cast("list[Any]", replay.get("cut") or [])]
    foreseen = {(one.get("source"), one.get("destination"), one.get("protocol"), one.get("port")) for one in listed}
    spare = max(0, int(cast("int", replay.get("cut_count", 0))) - len(listed))
    found: list[tuple[str, str]] = []
    for flow in flows:
        ends = [end for end in (flow.egress, flow.ingress) if end is not None and end.outcome is Outcome.DENIED]
        by = [end.reporter for end in ends if end.revision == ground.revision]
        if not by:
            continue
        key = flow.key
        if (str(key.source), str(key.destination), key.protocol, key.port) in foreseen:
            continue
        asked = Asked(
            endpoint(base.fleet, key.source, _identity(flow.egress)),
            endpoint(base.fleet, key.destination, _identity(flow.ingress)),
            key.protocol,
            key.port,
        )
        if decide(base.policy, base.fleet, asked, now, base.orders).outcome is Outcome.ALLOWED:
            names = asked.source.workload or str(key.source), asked.destination.workload or str(key.destination)
            told = f"`{names[0]}` to `{names[1]}` on {port_name(point(key.protocol, key.port))}"
            found.append((told, by[0]))
    return tuple(found[spare:])


def broken(report: Report | None, revision: Revision) -> list[str]:
    """Name the tests that a revision's policy failed when they were last checked, but for those that its plan shows to
    fail and its author accepted."""
    if report is None or report.ground.revision != revision.number:
        return []
    shown = [_mapping(one) for one in cast("list[Any]", revision.plan.get("tests") or [])]
    accepted = {one.get("id") for one in shown if not one.get("passed")}
    return [
        f"`{one.test.id}` is a test that fails"
        for one in report.results
        if not one.passed and one.test.id not in accepted
    ]


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _identity(record: FlowRecord | None) -> Identity:
    if record is None:
        return Identity()
    process = record.process
    return Identity(process.user or None, process.unit or None, process.exe or None)


def _connect(place: tuple[str, int], timeout_s: float, *_: object) -> socket.socket:
    """Connect as `socket.create_connection` does, but to no link-local address: clouds give keys away there.

    What a name leads to is looked at once, and that is connected to. Raises `OSError`."""
    why = OSError("it leads to no address")
    for answer in socket.getaddrinfo(*place, type=socket.SOCK_STREAM):
        found = answer[4]
        address = canonical(ip_address(str(found[0]).partition("%")[0]))
        if address.is_link_local or address.is_multicast or address in METADATA:
            why = OSError(f"{address} is no place of an application")
            continue
        try:
            return socket.create_connection((str(found[0]), int(found[1])), timeout_s)
        except OSError as error:
            why = error
    raise why


def try_check(check: Check) -> str:
    """Make an application's check; empty where it passes, else why not. Takes `CHECK_S` seconds for each step at most.

    No redirection and no proxy is followed: a check is about the place that it names."""
    try:
        if check.tcp is not None:
            _connect(check.tcp, CHECK_S).close()
            return ""
        url = urlsplit(check.http)
        assert url.hostname is not None
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        # Without a port it would look for one in an IPv6 address.
        connection = kind(url.hostname, url.port or kind.default_port, timeout=CHECK_S)
        # It calls what it is given with the place, the patience and where from.
        connection._create_connection = _connect  # pyright: ignore[reportAttributeAccessIssue]
        try:
            connection.request("GET", (url.path or "/") + (f"?{url.query}" if url.query else ""))
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError) as error:
        return f"`{check.id}` fails: {error or 'no answer'}"
    return "" if status == check.status else f"`{check.id}` answers {status}, not {check.status}"
