from ipaddress import ip_address, ip_network

import pytest

from cellwall.analysis.table.words import Ends, Phrase, Words, bits_of, places_of
from cellwall.labels import Requirement, parse_labels, parse_selector
from cellwall.policy import AddressBook, Endpoint, Who

ROWS = [
    ("a", "role=web,env=prod"),
    ("b", "role=web,env=dev"),
    ("c", "role=api,env=prod"),
    ("d", "role=db,env=prod"),
    ("e", "env=prod"),
    ("office", None),
    ("elsewhere", None),
]
OFFICE = AddressBook("office", (ip_network("10.0.0.5/32"),))
ENDS = Ends(
    [
        Endpoint(ip_address(f"10.0.0.{at}"), name if labels is not None else None, parse_labels(labels or ""))
        for at, (name, labels) in enumerate(ROWS)
    ]
)
NAMES = [name for name, _ in ROWS]


def phrase(wanted: str, free: str = "", whos: tuple[Who, ...] = ()) -> Phrase:
    words = Words(ENDS, NAMES, (Who(parse_selector("role=web")), Who(network=OFFICE), Who()))
    return words.of(bits_of(map(NAMES.index, wanted.split())), bits_of(map(NAMES.index, free.split())), whos)


@pytest.mark.parametrize("places", [[], [0], [7, 8], [3, 900, 17], range(40)])
def test_bits_and_places_are_two_ways_to_write_a_set(places: list[int]) -> None:
    assert list(places_of(bits_of(places))) == sorted(places)


def test_a_selector_is_answered_in_bits() -> None:
    for text in ("role=web", "role in (web,db),env=prod", "role!=web", "!role", "role,env!=dev", "no=such", "!no"):
        selector = parse_selector(text)
        expected = bits_of(
            at for at, (_, labels) in enumerate(ROWS) if labels and selector.matches(parse_labels(labels))
        )
        assert ENDS.matching(selector) == expected == ENDS.met(Who(selector))
        assert ENDS.passing(Requirement("role", selector.requirements[0].operator, ("web",))) is not None
    assert ENDS.met_by_any((Who(network=OFFICE), Who(parse_selector("role=db")))) == 0b101000
    assert ENDS.met(Who()) == ENDS.all


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("a b c d e office elsewhere", "any"),
        ("a b", "role=web"),
        ("office", "network:office"),
        ("elsewhere", "elsewhere"),
        ("c d", "role in (api,db)"),
        ("e", "!role"),
        ("a b c d", "role"),
        ("a", "env=prod,role=web"),
        ("a b c d e", "every workload"),
        ("a c d e", "env=prod"),
        ("d office elsewhere", "role=db or network:office or elsewhere"),
        ("", "nobody"),
    ],
)
def test_the_smallest_words_are_found(wanted: str, told: str) -> None:
    assert str(phrase(wanted)) == told
    assert phrase(wanted).titles == tuple(sorted(wanted.split()))


def test_what_no_one_selector_means_is_some_of_them() -> None:
    told = phrase("b d")
    assert sorted(str(who) for who in told.whos) == ["env=dev", "role=db"] and told.count == 2


def test_what_does_not_matter_makes_words_shorter() -> None:
    assert str(phrase("a", free="b")) == "role=web"
    assert str(phrase("a b c d e", free="office elsewhere")) == "any"


def test_words_that_are_given_are_kept_where_they_mean_the_same() -> None:
    given = (Who(parse_selector("role in (web,none)")),)
    assert str(phrase("a b", whos=given)) == "role in (none,web)"
    assert str(phrase("a", whos=given)) == "env=prod,role=web"


def test_ends_with_the_same_labels_are_told_apart_by_name_alone() -> None:
    ends = Ends([Endpoint(ip_address(f"10.0.0.{at}"), f"w{at}", parse_labels("role=web")) for at in range(8)])
    words = Words(ends, [f"w{at}" for at in range(8)], ())
    assert str(words.of(0b11)) == "w0 or w1"
    assert str(words.of(0b111111)) == "w0 or w1 or w2 or w3 or 2 more"
    assert words.known("w1") and not words.known("w9")


def test_a_selector_of_many_keys_is_found_too() -> None:
    rows = [f"a={x & 1},b={x >> 1 & 1},c={x >> 2 & 1},d={x >> 3 & 1}" for x in range(16)]
    ends = Ends([Endpoint(ip_address(f"10.0.0.{at}"), f"w{at}", parse_labels(one)) for at, one in enumerate(rows)])
    words = Words(ends, [f"w{at}" for at in range(16)], ())
    assert str(words.of(1 << 15)) == "a=1,b=1,c=1,d=1"
    for wanted in (0b1001, 0b1000000000000001, 0b0110100110010110):
        told = words.of(wanted)
        assert ends.met_by_any(told.whos) | bits_of(int(name[1:]) for name in told.names) == wanted
