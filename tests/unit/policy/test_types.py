"""What a policy is made of reads well and answers small questions."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from tests.property.example import EXAMPLE

from cellwall.labels import parse_selector
from cellwall.policy import AddressBook, Identity, Who, parse_policy


def test_an_identity_covers_what_has_all_that_it_asks_for() -> None:
    process = Identity(user="www-data", unit="nginx.service", exe="/usr/sbin/nginx")
    for asked in (Identity(), Identity(user="www-data"), Identity(unit="nginx.service"), process):
        assert asked.covers(process)
    for asked in (Identity(user="root"), Identity(unit="x"), Identity(exe="x"), Identity(user="www-data", unit="x")):
        assert not asked.covers(process)
    assert not Identity(user="www-data").covers(Identity())


def test_an_identity_that_asks_for_nothing_is_none() -> None:
    assert not Identity()
    assert Identity(exe="/bin/sh")
    assert str(Identity(user="a", exe="/bin/sh")) == "user=a,exe=/bin/sh"


def test_a_network_holds_the_addresses_of_its_prefixes() -> None:
    book = AddressBook("office", (ip_network("10.20.0.0/16"), ip_network("2001:db8::/48")))
    assert ip_address("10.20.1.1") in book
    assert ip_address("2001:db8::1") in book
    assert ip_address("10.21.0.0") not in book


@pytest.mark.parametrize(
    ("who", "text"),
    [
        (Who(), "any"),
        (Who(parse_selector("app=a")), "app=a"),
        (Who(network=AddressBook("office")), "network:office"),
        (Who(parse_selector("app=a"), identity=Identity(user="x")), "app=a as user=x"),
    ],
)
def test_an_end_is_written_as_in_a_policy(who: Who, text: str) -> None:
    assert str(who) == text


def test_a_policy_knows_its_rules_selectors_and_networks() -> None:
    policy = parse_policy([("example.yaml", EXAMPLE)])
    assert sorted(policy.by_id) == ["app-to-db", "no-dev-in-prod", "smb-wall", "ssh-from-office", "web-as-www-data"]
    used = {"role=api", "role=db", "env=dev", "env=prod", "role=web", "role=proxy"}
    assert policy.selectors == {parse_selector(text) for text in used}
    assert [book.name for book in policy.used_networks] == ["office"]
