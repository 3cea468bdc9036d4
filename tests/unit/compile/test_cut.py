"""Classes are the sets of addresses that no rule tells apart; their numbers come from their content alone."""

from __future__ import annotations

from ipaddress import ip_address

from tests.unit.compile.worlds import DB, DEV, ELSEWHERE, FLEET, NOW, OFFICE, PLC, WEB, WEB6, policy

from cellwall.compile import EVERYONE, Class, Cut, RuleBook, class_of, rules_in_force
from cellwall.compile.rulebook import stable_number
from cellwall.inventory import Fleet, Workload
from cellwall.labels import Labels, Match, parse_selector
from cellwall.policy import AddressBook, Who
from cellwall.traffic import Address


def cut(text: str, fleet: Fleet = FLEET) -> Cut:
    book = RuleBook.of(rules_in_force(policy(text), NOW))
    return book.cut({address.packed: workload for address, workload in fleet.by_address.items()})


def number(found: Cut, address: Address) -> int:
    return found.places[address.packed].number


def of(found: Cut, address: Address) -> Class:
    return found.places[address.packed]


def test_labels_that_no_rule_asks_for_make_no_classes() -> None:
    assert list(cut("rules: [{id: r, allow: any, from: any, to: any}]").classes) == []


def test_who_matches_the_same_selectors_is_in_one_class() -> None:
    found = cut("rules: [{id: r, allow: any, from: role=web, to: role=db}]")
    assert number(found, WEB) == number(found, WEB6) == number(found, DEV)
    assert number(found, DB) not in {number(found, WEB), EVERYONE}
    assert number(found, PLC) == EVERYONE
    assert list(of(found, DB).members) == [DB.packed]
    assert of(found, WEB).title == "role=web"


def test_a_rule_that_is_not_in_force_tells_nobody_apart() -> None:
    assert list(cut("rules: [{id: r, allow: any, from: role=web, to: role=db, staged: true}]").classes) == []


def test_a_shared_key_tells_its_values_apart() -> None:
    found = cut("rules: [{id: r, allow: any, from: any, to: any, same: env}]")
    assert number(found, WEB) == number(found, DB) != number(found, DEV)
    assert number(found, PLC) == EVERYONE
    assert (of(found, DEV).matches, of(found, DEV).shared) == ((), (("env", "dev"),))


def test_a_network_holds_addresses_with_and_without_a_workload() -> None:
    found = cut("""
        networks: {near: [10.0.0.0/30, 10.0.0.2/31], one: 10.0.0.1, v6: "fd00::/64"}
        rules: [{id: r, allow: any, from: ["network:near", "network:one", "network:v6"], to: any}]
        """)
    assert of(found, WEB).networks == {"near", "one"}
    assert of(found, DB).networks == {"near"}
    assert of(found, WEB6).networks == {"v6"}
    assert number(found, PLC) == EVERYONE
    base = int(ip_address("10.0.0.0"))
    assert [(span.version, span.first - base, span.last - base) for span in found.spans if span.version == 4] == [
        (4, 0, 0),
        (4, 1, 1),
        (4, 2, 3),
    ]
    assert class_of(found.spans, {}, ip_address("10.0.0.3")) == number(found, DB)
    assert class_of(found.spans, {DB.packed: 7}, DB) == 7
    for outside in (ip_address("9.255.255.255"), ip_address("10.0.0.4"), ip_address("fd00:0:0:1::")):
        assert class_of(found.spans, {}, outside) == EVERYONE
    assert of(found, DB).title == "network:near"


def test_networks_may_hold_the_whole_of_a_family() -> None:
    found = cut("rules: [{id: r, allow: any, from: ['network:all', 'network:office'], to: any}]")
    assert [(span.version, span.first, span.last) for span in found.spans] == [
        (4, 0, int(ip_address("10.19.255.255"))),
        (4, int(ip_address("10.20.0.0")), int(ip_address("10.20.255.255"))),
        (4, int(ip_address("10.21.0.0")), 2**32 - 1),
        (6, 0, 2**128 - 1),
    ]
    assert class_of(found.spans, {}, OFFICE) != class_of(found.spans, {}, ELSEWHERE) != EVERYONE
    assert class_of(found.spans, {}, ip_address("ffff::")) == number(found, WEB6)


def test_a_class_that_rules_tell_by_absence_is_named_by_its_signature() -> None:
    found = cut("rules: [{id: r, allow: any, from: '!app', to: any}]")
    assert of(found, PLC).title == "!app"


def test_a_class_meets_whom_it_is_among() -> None:
    web, office = parse_selector("role=web"), AddressBook("office")
    one = Class((Match(frozenset({web})),), (), frozenset({"office"}))
    assert one.meets(Who()) and one.meets(Who(web)) and one.meets(Who(network=office))
    nothing = Class((), (), frozenset())
    assert not nothing.meets(Who(web)) and not nothing.meets(Who(network=office))


def test_the_number_of_a_class_does_not_change_when_a_rule_for_others_comes() -> None:
    before = cut("rules: [{id: r, allow: any, from: role=web, to: any}]")
    after = cut("rules: [{id: r, allow: any, from: role=web, to: any}, {id: s, deny: any, from: role=plc, to: any}]")
    assert number(before, WEB) == number(after, WEB)
    assert number(before, PLC) == EVERYONE != number(after, PLC)


def test_an_address_belongs_to_the_class_of_its_owner() -> None:
    late = Workload("late", Labels({"role": "plc"}), (WEB,), epoch=5.0)
    found = cut("rules: [{id: r, allow: any, from: role=web, to: role=plc}]", Fleet((*FLEET.workloads, late)))
    assert number(found, WEB) == number(found, PLC) != number(found, WEB6)


def test_a_number_is_made_from_text_and_steps_past_those_taken() -> None:
    made = stable_number("a", 32, ())
    assert made == stable_number("a", 32, {1, 2}) != stable_number("b", 32, ())
    assert stable_number("a", 32, {made}) == made + 1
    assert {stable_number("a", 2, taken) for taken in ((), (1,), (1, 2), (2, 3))} <= {1, 2, 3}
    assert stable_number("x", 1, ()) == 1
