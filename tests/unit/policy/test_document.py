"""A document is read strictly: what could mean two things is refused, with its place."""

from __future__ import annotations

import pytest

from cellwall.policy import PolicyError
from cellwall.policy.document import MOST_CHARACTERS, Node, read_document, read_stream, suggestion
from cellwall.policy.errors import MOST_MESSAGE, Place


def read(text: str | bytes) -> Node:
    node = read_document("web.yaml", text)
    assert node is not None
    return node


def test_a_node_knows_its_place() -> None:
    key, value = read("a:\n  - b\n  - 'c'\n").entries()["a"]
    assert str(key.place) == "web.yaml:1:1"
    assert [(item.text(), str(item.place), item.quoted) for item in value.items()] == [
        ("b", "web.yaml:2:5", False),
        ("c", "web.yaml:3:5", True),
    ]


def test_a_stream_is_several_documents_read_as_strictly() -> None:
    text = "a: 1\n---\n---\n- b\n"
    assert [(node.kind, str(node.place)) for node in read_stream("k.yaml", text)] == [
        ("mapping", "k.yaml:1:1"),
        ("text", "k.yaml:3:1"),
        ("list", "k.yaml:4:1"),
    ]
    for refused in ("a: 1\n---\nb: &x 1", "a: 1\n---\nb: [", "[" * 101):
        with pytest.raises(PolicyError):
            read_stream("k.yaml", refused)
    assert len(read_stream("k.yaml", "[" * 100 + "]" * 100)) == 1


@pytest.mark.parametrize("text", ["", "# nothing\n", b"", b"\xef\xbb\xbf", "---\n...\n"])
def test_a_document_without_content_is_nothing(text: str | bytes) -> None:
    node = read_document("web.yaml", text)
    assert node is None or node.entries() == {}


def test_bytes_are_utf_8_with_or_without_a_mark() -> None:
    assert read("ä: ö".encode()).entries()["ä"][1].text() == "ö"
    assert read(b"\xef\xbb\xbfa: b").entries()["a"][1].text() == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: \xff", "web.yaml:1:1: byte 3 is not UTF-8"),
        ("a: \ud800", "web.yaml:1:1: half a character (a surrogate alone) is not text"),
        ("a: b\n\nc: \udfff", "web.yaml:3:1: half a character (a surrogate alone) is not text"),
        ("ä: ö\nb: \0\n\n\n", "web.yaml:2:1: not YAML: control characters are not allowed"),
        ("a: [b", "web.yaml:2:1: not YAML: did not find expected ',' or ']'"),
        ("a: 'b", "web.yaml:1:6: not YAML: found unexpected end of stream"),
        ("a:\n\t- b", "web.yaml:2:1: not YAML: a tab indents this line; indent with spaces"),
        ("a: &x b", "web.yaml:1:4: anchors and aliases are not read; write the value out"),
        ("- &x [b]", "web.yaml:1:3: anchors and aliases are not read; write the value out"),
        ("a: *x", "web.yaml:1:4: anchors and aliases are not read; write the value out"),
        ("a: !!int 1", "web.yaml:1:4: tags such as `!!str` are not read; write the value alone"),
        ("a: 1\n---\nb: 2", "web.yaml:2:1: a second document begins here; write it to a file of its own"),
        ("[" * 33, "web.yaml:1:33: nested more than 32 deep"),
        ("x" * (MOST_CHARACTERS + 1), "web.yaml:1:1: over 16777216 characters; split the document"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_place(text: str | bytes, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_document("web.yaml", text)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["a\nb.yaml", "\udcff.yaml", "a\x00.yaml"])
def test_a_file_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(PolicyError, match=r"the name of the file has characters that cannot be shown") as caught:
        read_document(name, "")
    assert str(caught.value).isprintable()


def test_nothing_after_a_key_is_an_empty_mapping_list_and_text() -> None:
    for text in ("a:", "a: ~", "a: null"):
        value = read(text).entries()["a"][1]
        assert (value.entries(), value.items(), value.text(), value.quoted) == ({}, (), "", False)


def test_quoted_nothing_is_a_text() -> None:
    value = read("a: ''").entries()["a"][1]
    assert value.quoted
    for ask, kind in ((value.entries, "mapping"), (value.items, "list")):
        with pytest.raises(PolicyError, match=rf"^web\.yaml:1:4: wanted a {kind}, found a text$"):
            ask()
    assert read("a: 'null'").entries()["a"][1].text() == "null"


def test_a_value_of_another_kind_is_refused() -> None:
    one = read("a: {b: c}").entries()["a"][1]
    for ask, kind in ((one.items, "list"), (one.text, "text")):
        with pytest.raises(PolicyError, match=rf"^web\.yaml:1:4: wanted a {kind}, found a mapping$"):
            ask()
    with pytest.raises(PolicyError, match=r"^web\.yaml:1:1: wanted a mapping, found a list$"):
        read("[a]").entries()
    with pytest.raises(PolicyError, match=r"^web\.yaml:1:3: wanted a text, found a list$"):
        read("? [a]\n: b").entries()


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(PolicyError) as caught:
        read("a: 1\nb: 2\na: 3").entries()
    assert str(caught.value) == "web.yaml:3:1: `a` is given twice, first on line 1"


def test_an_unknown_key_is_refused_with_a_suggestion() -> None:
    with pytest.raises(PolicyError) as caught:
        read("a: 1\nalow: 2").fields(("a", "allow"))
    assert str(caught.value) == "web.yaml:2:1: unknown key `alow`; did you mean `allow`?"
    assert read("a: 1").fields(("a", "allow"))["a"].text() == "1"


def test_one_is_a_list_of_one_and_an_empty_list_is_refused() -> None:
    assert [item.text() for item in read("a").one_or_more()] == ["a"]
    assert [item.text() for item in read("[a, b]").one_or_more()] == ["a", "b"]
    with pytest.raises(PolicyError, match=r"^web\.yaml:1:1: the list is empty; wanted at least one$"):
        read("[]").one_or_more()


def test_a_text_that_must_be_filled_is() -> None:
    assert read("a").filled() == "a"
    with pytest.raises(PolicyError, match=r"^web\.yaml:1:1: nothing is written here; wanted a text$"):
        read("''").filled()


def test_a_flag_is_true_or_false_and_nothing_else() -> None:
    assert read("true").flag() is True
    assert read("false").flag() is False
    with pytest.raises(PolicyError, match=r"^web\.yaml:1:1: `yes` is not `true` or `false`$"):
        read("yes").flag()


def test_a_choice_is_one_of_the_known() -> None:
    assert read("enforce").choice(("observe", "enforce")) == "enforce"
    with pytest.raises(PolicyError) as caught:
        read("enforced").choice(("observe", "enforce"))
    assert str(caught.value) == ("web.yaml:1:1: `enforced` is not one of `observe`, `enforce`; did you mean `enforce`?")


def test_an_error_that_has_a_place_keeps_it() -> None:
    def complain(text: str) -> str:
        raise PolicyError(Place("other.yaml", 7, 7), f"`{text}` is odd")

    with pytest.raises(PolicyError, match=r"^other\.yaml:7:7: `a` is odd$"):
        read("a").parse(complain)


@pytest.mark.parametrize(
    ("word", "known", "told"),
    [
        ("htps", ("http", "https", "ssh"), "; did you mean `https`?"),
        ("x", ("http", "ssh"), "; known are `http`, `ssh`"),
        ("x", (), ""),
        ("x", tuple(f"service-{number}" for number in range(13)), ""),
        ("h" * 10_000, ("h" * 9_999,), f"; known are `{'h' * 9_999}`"),
    ],
)
def test_a_slip_is_told_from_what_is_merely_unknown(word: str, known: tuple[str, ...], told: str) -> None:
    assert suggestion(word, known) == told


def test_a_message_is_one_line_whatever_the_user_wrote() -> None:
    error = PolicyError(Place("a.yaml", 1, 2), "`a\nb\x1b[31m\ud800` is wrong")
    assert str(error) == "a.yaml:1:2: `a\\nb\\x1b[31m\\ud800` is wrong"
    assert error.message == "`a\\nb\\x1b[31m\\ud800` is wrong"
    long = PolicyError(Place("a.yaml", 1, 2), "`" + "x" * 1_000_000 + "` is wrong")
    assert len(long.message) < MOST_MESSAGE
    assert long.message.endswith("` is wrong")


def test_a_place_without_a_line_is_its_file() -> None:
    assert str(Place("built in")) == "built in"
    assert str(Place()) == ""
    assert Place("a.yaml", 2, 1) < Place("a.yaml", 10, 1) < Place("b.yaml", 1, 1)
