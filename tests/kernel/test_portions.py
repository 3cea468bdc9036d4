"""Many members are put in a portion at a time, and what stands in the way of one keeps nothing out."""

from __future__ import annotations

from dataclasses import replace

from tests.kernel.namespaces import needs_namespaces, pair
from tests.kernel.test_weight import entry, members_of, ruleset

from cellwall.enforce import NftPoint
from cellwall.enforce.nft.elements import dump
from cellwall.enforce.nft.portions import MOST_AT_ONCE

pytestmark = needs_namespaces

_HTTP, _HTTPS = 6 << 16 | 80, 6 << 16 | 443
IN_THE_WAY = "11.9.9.9"


def test_members_of_many_portions_are_all_there_and_go_on_counting_as_one_change() -> None:
    with pair() as (host, _), host.inside():
        point, members = NftPoint(), members_of(3 * MOST_AT_ONCE + 7)
        point.apply(ruleset((entry(0, _HTTP),)), {})
        before = point.transactions
        point.apply(ruleset((entry(0, _HTTPS),)), members)
        # Build, four portions of members, switch, sweep; exact ports are in the first portion.
        assert point.transactions - before == 3 + 4 + 1
        assert {(one.key, one.data) for one in dump("cellwall", "peer4")} == set(members.items())
        assert not point.verify()
        point.close()


def test_an_element_of_somebody_else_amid_many_members_does_not_keep_a_change_out() -> None:
    with pair() as (host, _):
        with host.inside():
            point = NftPoint()
            few = members_of(3)
            point.apply(ruleset((entry(0, _HTTP),)), few)
        # The kernel refuses the same address with another mark, in the last portion.
        host.nft(f"add element inet cellwall peer4 {{ {IN_THE_WAY} : 0x63 }}")
        with host.inside():
            many = {**members_of(2 * MOST_AT_ONCE), bytes(map(int, IN_THE_WAY.split("."))): 1}
            wanted = replace(ruleset((entry(0, _HTTPS),)), revision=2)
            point.apply(wanted, many)
            assert not point.verify()
            held = point.read_back()
            assert held is not None and held.revision == 2
            point.close()
