"""Classes are the sets of addresses that no rule tells apart; their numbers come from their content alone."""

from __future__ import annotations

from ipaddress import ip_address

from tests.unit.compile.worlds import DB, DEV, ELSEWHERE, FLEET, NOW, OFFICE, PLC, WEB, WEB6, policy

from cellwall.compile import EVERYONE, Atlas, Class, build_atlas, class_of, rules_in_force
from cellwall.compile.classes import stable_number
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels, parse_selector
from cellwall.policy import AddressBook, Who


def atlas(text: str, fleet: Fleet = FLEET) -> Atlas:
    meant = policy(text)
    return build_atlas(meant, rules_in_force(meant, NOW), fleet)


def test_labels_that_no_rule_asks_for_make_no_classes() -> None:
    assert atlas("rules: [{id: r, allow: any, from: any, to: any}]").classes == {}


def test_who_matches_the_same_selectors_is_in_one_class() -> None:
    found = atlas("rules: [{id: r, allow: any, from: role=web, to: role=db}]")
    assert found.addresses[WEB] == found.addresses[WEB6] == found.addresses[DEV]
    assert found.addresses[DB] not in {found.addresses[WEB], EVERYONE}
    assert found.addresses[PLC] == EVERYONE
    assert found.members[found.addresses[DB]] == (DB.packed,)
    assert found.card(found.addresses[WEB]).title == "role=web"


def test_a_rule_that_is_not_in_force_tells_nobody_apart() -> None:
    assert atlas("rules: [{id: r, allow: any, from: role=web, to: role=db, staged: true}]").classes == {}


def test_a_shared_key_tells_its_values_apart() -> None:
    found = atlas("rules: [{id: r, allow: any, from: any, to: any, same: env}]")
    assert found.addresses[WEB] == found.addresses[DB] != found.addresses[DEV]
    assert found.addresses[PLC] == EVERYONE
    assert found.classes[found.addresses[DEV]] == Class(shared=(("env", "dev"),))


def test_a_network_holds_addresses_with_and_without_a_workload() -> None:
    found = atlas("""
        networks: {near: [10.0.0.0/30, 10.0.0.2/31], one: 10.0.0.1, v6: "fd00::/64"}
        rules: [{id: r, allow: any, from: ["network:near", "network:one", "network:v6"], to: any}]
        """)
    assert found.classes[found.addresses[WEB]].networks == {"near", "one"}
    assert found.classes[found.addresses[DB]].networks == {"near"}
    assert found.classes[found.addresses[WEB6]].networks == {"v6"}
    assert found.addresses[PLC] == EVERYONE
    base = int(ip_address("10.0.0.0"))
    assert [(span.version, span.first - base, span.last - base) for span in found.networks if span.version == 4] == [
        (4, 0, 0),
        (4, 1, 1),
        (4, 2, 3),
    ]
    assert class_of(found.networks, {}, ip_address("10.0.0.3")) == found.addresses[DB]
    assert class_of(found.networks, {DB.packed: 7}, DB) == 7
    for outside in (ip_address("9.255.255.255"), ip_address("10.0.0.4"), ip_address("fd00:0:0:1::")):
        assert class_of(found.networks, {}, outside) == EVERYONE
    assert found.card(found.addresses[DB]).title == "network:near"


def test_networks_may_hold_the_whole_of_a_family() -> None:
    found = atlas("rules: [{id: r, allow: any, from: ['network:all', 'network:office'], to: any}]")
    assert [(span.version, span.first, span.last) for span in found.networks] == [
        (4, 0, int(ip_address("10.19.255.255"))),
        (4, int(ip_address("10.20.0.0")), int(ip_address("10.20.255.255"))),
        (4, int(ip_address("10.21.0.0")), 2**32 - 1),
        (6, 0, 2**128 - 1),
    ]
    assert class_of(found.networks, {}, OFFICE) != class_of(found.networks, {}, ELSEWHERE) != EVERYONE
    assert class_of(found.networks, {}, ip_address("ffff::")) == found.addresses[WEB6]


def test_a_class_that_rules_tell_by_absence_is_named_by_its_signature() -> None:
    found = atlas("rules: [{id: r, allow: any, from: '!app', to: any}]")
    assert found.card(found.addresses[PLC]).title == "!app"


def test_a_class_meets_whom_it_is_among() -> None:
    web, office = parse_selector("role=web"), AddressBook("office")
    one = Class(frozenset({web}), networks=frozenset({"office"}))
    assert one.matches(Who()) and one.matches(Who(web)) and one.matches(Who(network=office))
    assert not Class().matches(Who(web)) and not Class().matches(Who(network=office))


def test_the_number_of_a_class_does_not_change_when_a_rule_for_others_comes() -> None:
    before = atlas("rules: [{id: r, allow: any, from: role=web, to: any}]")
    after = atlas("rules: [{id: r, allow: any, from: role=web, to: any}, {id: s, deny: any, from: role=plc, to: any}]")
    assert before.addresses[WEB] == after.addresses[WEB]
    assert before.addresses[PLC] == EVERYONE != after.addresses[PLC]


def test_an_address_belongs_to_the_class_of_its_owner() -> None:
    late = Workload("late", Labels({"role": "plc"}), (WEB,), epoch=5.0)
    found = atlas("rules: [{id: r, allow: any, from: role=web, to: role=plc}]", Fleet((*FLEET.workloads, late)))
    assert found.addresses[WEB] == found.addresses[PLC] != found.addresses[WEB6]


def test_a_number_is_made_from_text_and_steps_past_those_taken() -> None:
    number = stable_number("a", 32, ())
    assert number == stable_number("a", 32, {1, 2}) != stable_number("b", 32, ())
    assert stable_number("a", 32, {number}) == number + 1
    assert {stable_number("a", 2, taken) for taken in ((), (1,), (1, 2), (2, 3))} <= {1, 2, 3}
    assert stable_number("x", 1, ()) == 1
