"""Selectors are Kubernetes' label selectors, and questions about them agree with trying everything."""

from __future__ import annotations

from itertools import product

import pytest

from cellwall.labels import LabelError, Labels, Operator, Requirement, Selector, implies, overlaps, parse_selector


def of(*requirements: tuple[str, Operator, tuple[str, ...]]) -> Selector:
    return Selector(tuple(sorted(Requirement(*one) for one in requirements)))


IN, NOT_IN, EXISTS, ABSENT = Operator.IN, Operator.NOT_IN, Operator.EXISTS, Operator.ABSENT


# Each form of the grammar that apimachinery documents for `labels.Parse`, blanks and empty values among them.
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", of()),
        (" \t\r\n", of()),
        ("\rx", of(("x", EXISTS, ()))),
        ("a ", of(("a", EXISTS, ()))),
        ("!a", of(("a", ABSENT, ()))),
        ("! a", of(("a", ABSENT, ()))),
        ("dns.example.com/key-with-dash", of(("dns.example.com/key-with-dash", EXISTS, ()))),
        ("0.1.2.domain/99 notin (10.10.1.1, tick.tock)", of(("0.1.2.domain/99", NOT_IN, ("10.10.1.1", "tick.tock")))),
        ("foo  in\t (abc)", of(("foo", IN, ("abc",)))),
        ("x notin\n (abc)", of(("x", NOT_IN, ("abc",)))),
        ("x in (def,abc,def)", of(("x", IN, ("abc", "def")))),
        ("x in (abc,)", of(("x", IN, ("", "abc")))),
        ("x in ()", of(("x", IN, ("",)))),
        ("x notin ( )", of(("x", NOT_IN, ("",)))),
        ("x notin (, a)", of(("x", NOT_IN, ("", "a")))),
        (
            "x notin (abc,,def),bar,z in (),w",
            of(("bar", EXISTS, ()), ("w", EXISTS, ()), ("x", NOT_IN, ("", "abc", "def")), ("z", IN, ("",))),
        ),
        ("x,y in (a)", of(("x", EXISTS, ()), ("y", IN, ("a",)))),
        ("x=a", of(("x", IN, ("a",)))),
        ("x==a", of(("x", IN, ("a",)))),
        ("x = a , y != b", of(("x", IN, ("a",)), ("y", NOT_IN, ("b",)))),
        ("x=,z= ", of(("x", IN, ("",)), ("z", IN, ("",)))),
        ("x!=", of(("x", NOT_IN, ("",)))),
        ("a in (x,y,notin, z,in)", of(("a", IN, ("in", "notin", "x", "y", "z")))),
        ("in in (in)", of(("in", IN, ("in",)))),
        ("notin=in", of(("notin", IN, ("in",)))),
        ("a,a", of(("a", EXISTS, ()))),
    ],
)
def test_what_kubernetes_reads_is_read_alike(text: str, wanted: Selector) -> None:
    assert parse_selector(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "x=a||y=b",
        "x,,y",
        ",x,y",
        "x,",
        "x nott in (y)",
        "a in (xyz),",
        "a in (xyz)b notin ()",
        "a in (xyz abc)",
        "a notin(",
        "a in (x",
        "a in",
        "a in x",
        "a (",
        "(",
        "!",
        "!!a",
        "!a=b",
        "a !b",
        "a===b",
        "a=b=c",
        "a=(b)",
        "x in (a,!b)",
        "a\u00a0=b",
        "a=\u00e9",
        "=a",
    ],
)
def test_what_kubernetes_refuses_is_refused(text: str) -> None:
    with pytest.raises(LabelError):
        parse_selector(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=b c", "`a=b c`: wanted `,` before `c`"),
        ("a,", "`a,`: wanted a label key, the selector ends"),
        ("a,=", "`a,=`: wanted a label key, found `=`"),
        ("!", "`!`: wanted a label key after `!`, the selector ends"),
        ("a=(", "`a=(`: wanted a value, found `(`"),
        ("a in b", "`a in b`: wanted `(` before the values"),
        ("a in (b c)", "`a in (b c)`: wanted `,` or `)` in the list of values"),
        ("a is b", "`a is b`: wanted `=`, `!=`, `in` or `notin` after `a`, found `is`"),
        ("x>1", "`x>1`: wanted `=`, `!=`, `in` or `notin` after `x`, found `>`"),
        ("a b=c", "`a b=c`: wanted `=`, `!=`, `in` or `notin` after `a`, found `b`"),
        ("-a", "`-a` is not a label key: letters, digits, `-`, `_`, `.`, at most 63"),
    ],
)
def test_a_selector_that_cannot_be_read_says_what_was_wanted(text: str, message: str) -> None:
    with pytest.raises(LabelError) as caught:
        parse_selector(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("a=1", {"a": "1"}, True),
        ("a=1", {"a": "2"}, False),
        ("a=1", {}, False),
        ("a!=1", {"a": "2"}, True),
        ("a!=1", {}, True),
        ("a!=1", {"a": "1"}, False),
        ("a in (1,2)", {"a": "2"}, True),
        ("a notin (1,2)", {"a": "2"}, False),
        ("a notin (1,2)", {}, True),
        ("a", {"a": ""}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("!a", {"a": ""}, False),
        ("a=", {"a": ""}, True),
        ("a=", {}, False),
        ("a=1,b=2", {"a": "1", "b": "2"}, True),
        ("a=1,b=2", {"a": "1"}, False),
        ("", {}, True),
    ],
)
def test_a_selector_matches_as_kubernetes_says(text: str, labels: dict[str, str], matches: bool) -> None:
    assert parse_selector(text).matches(Labels(labels)) is matches


@pytest.mark.parametrize(
    "text", ["a=1", "a!=1", "a in (1,2)", "a notin (1,2)", "a", "!a", "a=1,b,!c", "", "a=", "a in (,1)"]
)
def test_a_selector_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_selector(text)) == text


def test_a_selector_knows_its_keys_and_how_specific_it_is() -> None:
    selector = parse_selector("a=1,b,!c,a!=2")
    assert selector.keys == {"a", "b", "c"}
    assert selector.specificity == 4


WORLD = [
    Labels({key: value for key, value in (("a", a), ("b", b)) if value is not None})
    for a, b in product([None, "", "1", "2", "other"], [None, "1", "other"])
]
ONES = ["", "a", "!a", "a=1", "a!=1", "a in (1,2)", "a notin (1,2)", "a=", "a!=2,a"]
SELECTORS = [parse_selector(",".join(filter(None, pair))) for pair in product(ONES, ["", "b", "!b", "b=1", "b!=1"])]


def test_overlap_is_what_trying_all_labels_says() -> None:
    for one, other in product(SELECTORS, SELECTORS):
        assert overlaps(one, other) is any(one.matches(labels) and other.matches(labels) for labels in WORLD)


def test_implication_is_what_trying_all_labels_says() -> None:
    for one, other in product(SELECTORS, SELECTORS):
        assert implies(one, other) is all(other.matches(labels) for labels in WORLD if one.matches(labels))


def test_a_selector_that_matches_nothing_implies_all() -> None:
    assert implies(parse_selector("a=1,a=2"), parse_selector("b=1"))
    assert not overlaps(parse_selector("a,!a"), parse_selector(""))
