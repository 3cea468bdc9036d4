"""The words of a request become values, or one clear complaint."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from cellwall.controller.api.desk import addresses, from_cursor, moment, networks, page, ports, to_cursor
from cellwall.controller.errors import ControllerError
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels
from cellwall.policy import parse_policy
from cellwall.traffic import EVERYTHING, parse_ports

POLICY = parse_policy(
    [("p.yaml", "services: {db: tcp/5432}\nnetworks: {office: [10.20.0.0/16], cloud: {names: [a.example]}}\n")]
)
WEB = Workload("web-1", Labels({"role": "web"}), (ip_address("10.0.0.1"), ip_address("2001:db8::1")))
FLEET = Fleet((WEB, Workload("bare-1", Labels({"role": "bare"}))))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (None, 7.0),
        ("15m", 100_000.0 - 900),
        ("1.5h", 100_000.0 - 5400),
        ("12.5", 12.5),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00", 60.0),
        # A `+` that was not escaped arrives as a space.
        ("1970-01-01T01:01:00 01:00", 60.0),
    ],
)
def test_a_moment_is_read(text: str | None, at: float) -> None:
    assert moment(text, 100_000.0, 7.0) == at


@pytest.mark.parametrize("text", ["yesterday", "15 min", "nan", "-5", "1" * 400])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ControllerError, match="is no moment"):
        moment(text, 0.0, 0.0)


def test_ports_are_read_as_a_policy_would() -> None:
    assert ports(None, POLICY) == EVERYTHING
    assert ports("db", POLICY) == parse_ports("tcp/5432")
    assert ports("22,udp/53", POLICY) == parse_ports("tcp/22") | parse_ports("udp/22") | parse_ports("udp/53")
    with pytest.raises(ControllerError, match=r"is not a protocol"):
        ports("htps", POLICY)


def test_an_end_of_flows_is_read() -> None:
    both = (ip_network("10.0.0.1/32"), ip_network("2001:db8::1/128"))
    assert networks(None, POLICY, FLEET) == networks("any", POLICY, FLEET) == ()
    assert networks("web-1", POLICY, FLEET) == networks("role=web", POLICY, FLEET) == both
    assert networks("10.20.0.0/16", POLICY, FLEET) == networks("network:office", POLICY, FLEET)
    for nobody in ("bare-1", "role=none", "network:cloud"):
        assert networks(nobody, POLICY, FLEET) is None
    for wrong in ("network:nowhere", "10.0.0.300", "role in (", "2001:::1"):
        with pytest.raises(ControllerError):
            networks(wrong, POLICY, FLEET)


def test_one_end_of_a_flow_is_read() -> None:
    assert addresses("web-1", FLEET) == (ip_address("10.0.0.1"), ip_address("2001:db8::1"))
    assert addresses("192.0.2.1", FLEET) == (ip_address("192.0.2.1"),)
    with pytest.raises(ControllerError, match="has no address"):
        addresses("bare-1", FLEET)
    with pytest.raises(ControllerError, match="neither a workload nor an address"):
        addresses("nobody", FLEET)


def test_pages_follow_each_other() -> None:
    names = ["a", "b", "c"]
    assert page(names, str, 2, None) == (["a", "b"], "b")
    assert page(names, str, 2, "b") == (["c"], None)
    assert page(names, str, 3, None) == (names, None)


def test_a_cursor_comes_back() -> None:
    assert from_cursor(to_cursor(1.5, "a"), 2) == [1.5, "a"]
    for wrong in ("", "???", to_cursor(1)):
        with pytest.raises(ControllerError, match="is no cursor"):
            from_cursor(wrong, 2)
