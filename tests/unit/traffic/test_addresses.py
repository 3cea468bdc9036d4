"""Addresses and networks have one spelling each, and what is neither is refused in the user's words."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from cellwall.traffic import AddressError, canonical, family_of, one_line, parse_address, parse_network


def test_an_address_is_read_in_either_family() -> None:
    assert parse_address("10.0.0.1") == IPv4Address("10.0.0.1")
    assert parse_address("2001:DB8::1") == IPv6Address("2001:db8::1")


def test_a_mapped_address_becomes_ipv4() -> None:
    assert parse_address("::ffff:10.0.0.1") == IPv4Address("10.0.0.1")
    assert canonical(ip_address("::ffff:1.2.3.4")) == IPv4Address("1.2.3.4")
    assert canonical(ip_address("::1")) == IPv6Address("::1")


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.256", "010.0.0.1", "x", "10.0.0.1/32", "10.0.0.1\n", "١.٢.٣.٤"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value) == f"`{one_line(text)}` is not an IPv4 or IPv6 address"


def test_an_address_with_a_scope_is_refused() -> None:
    with pytest.raises(AddressError, match=r"^`fe80::1%eth0` has an interface scope; write the address alone$"):
        parse_address("fe80::1%eth0")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10.20.0.0/16", "10.20.0.0/16"),
        ("10.20.0.1", "10.20.0.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_is_read_in_one_spelling(text: str, wanted: str) -> None:
    assert parse_network(text) == ip_network(wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.20.1.0/16", "`10.20.1.0/16` is not a network; did you mean `10.20.0.0/16`?"),
        ("10.0.0.0/255.0.0.0", "`10.0.0.0/255.0.0.0` is not a network; did you mean `10.0.0.0/8`?"),
        ("10.0.0.0/0.255.255.255", "`10.0.0.0/0.255.255.255` is not a network; did you mean `10.0.0.0/8`?"),
        ("fe80::1%eth0", "`fe80::1%eth0` is not a network; did you mean `fe80::1/128`?"),
        ("office", "`office` is not a network; wanted an address or a prefix such as `10.20.0.0/16`"),
        ("10.0.0.0/33", "`10.0.0.0/33` is not a network; wanted an address or a prefix such as `10.20.0.0/16`"),
        ("", "`` is not a network; wanted an address or a prefix such as `10.20.0.0/16`"),
    ],
)
def test_what_is_no_network_is_refused_with_what_was_wanted(text: str, message: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_network(text)
    assert str(caught.value) == message


def test_an_address_and_a_network_have_a_family() -> None:
    assert family_of(ip_address("10.0.0.1")) == 4
    assert family_of(ip_network("::/0")) == 6
