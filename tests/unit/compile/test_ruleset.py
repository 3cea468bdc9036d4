"""A ruleset is a value: equal content is equal, and answers come from it alone."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from tests.unit.compile.worlds import compiled

from cellwall.compile import NetworkSpan, Ruleset, class_of, pack, unpack
from cellwall.enforce import digest_of
from cellwall.policy import Mode


@pytest.mark.parametrize("text", ["10.0.0.1", "2001:db8::1", "::", "255.255.255.255"])
def test_an_address_is_packed_and_unpacked(text: str) -> None:
    assert unpack(pack(ip_address(text))) == ip_address(text)


def test_a_member_is_told_before_a_network_and_a_network_before_everyone() -> None:
    spans = (NetworkSpan(4, 10, 20, 7), NetworkSpan(4, 30, 30, 8), NetworkSpan(6, 10, 20, 9))
    members = {ip_address("0.0.0.15").packed: 1}
    wanted = {"0.0.0.15": 1, "0.0.0.9": 0, "0.0.0.10": 7, "0.0.0.20": 7, "0.0.0.21": 0, "0.0.0.30": 8}
    wanted |= {"::f": 9, "::9": 0}
    assert {text: class_of(spans, members, ip_address(text)) for text in wanted} == wanted
    assert class_of((), {}, ip_address("10.0.0.1")) == 0


def test_equal_rulesets_have_one_digest_and_others_another() -> None:
    text = "rules: [{id: r, allow: tcp/80, from: role=web, to: role=db, same: app}]"
    one, again = (compiled(text).points["db"].ruleset for _ in range(2))
    assert one == again
    assert digest_of(one) == digest_of(again)
    assert len(digest_of(one)) == 16
    assert digest_of(Ruleset("a", 1, Mode.GUARD)) != digest_of(Ruleset("a", 1, Mode.ENFORCE))


def test_a_rule_is_found_by_its_number() -> None:
    ruleset = compiled("rules: [{id: r, allow: tcp/80, from: role=web, to: role=db}]").points["db"].ruleset
    (card,) = ruleset.rules
    assert ruleset.rule_by_number == {card.number: card}
    assert 1 <= card.number < 2**28
