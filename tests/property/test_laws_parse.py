"""Whatever text comes, the readers answer with a value or with their own error, soon, in one line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from ipaddress import ip_address, ip_network
from typing import Any, cast

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cellwall.labels import LabelError, Labels, parse_labels, parse_selector
from cellwall.policy import Policy, PolicyError, parse_policy
from cellwall.policy.document import MOST_DEPTH
from cellwall.traffic import AddressError, PortSet, ServiceError, parse_address, parse_network, parse_ports
from tests.property.example import EXAMPLE
from tests.property.worlds import documents, selectors

TEXTS = st.text(st.characters(exclude_categories=()), max_size=60)  # lone surrogates and NUL too
LIKELY = st.text("abtcpudicmpv6in!=(),<>/:-.*&{}[]#'\"|% \t\r\n0123456789\0é\ud800", max_size=40)


def read(text: str | bytes, file: str = "fuzz.yaml") -> Policy | None:
    """Read `text`; None where it is refused, as it must be: with the file, in one line, before long."""
    started = time.process_time()
    try:
        found = parse_policy([(file, text)])
    except PolicyError as refusal:
        found, error = None, refusal
    else:
        error = None
    assert time.process_time() - started < 30
    if error is not None:
        assert str(error).isprintable() and len(str(error)) < 2000
        assert error.place.file
    return found


# --- anything at all ---


@given(st.binary(max_size=200))
def test_any_bytes_are_a_policy_or_refused(text: bytes) -> None:
    read(text)


@given(TEXTS | LIKELY)
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    read(text)
    read(f"rules: [{{id: r, allow: {text}, from: any, to: any}}]")
    read(json.dumps({"rules": [{"id": "r", "allow": "any", "from": text, "to": text}]}))


@given(TEXTS | LIKELY)
def test_any_name_of_a_file_is_shown_or_refused(name: str) -> None:
    read("rule: 1", file=f"{name}.yaml")


READERS: list[tuple[Callable[[str], object], type[Exception]]] = [
    (parse_selector, LabelError),
    (parse_labels, LabelError),
    (parse_ports, ServiceError),
    (parse_address, AddressError),
    (parse_network, AddressError),
]


@settings(max_examples=settings().max_examples * 3)
@given(TEXTS | LIKELY | st.from_regex(r"[a-z0-9]{1,6}/[0-9\-/]{1,12}") | st.from_regex(r"[0-9a-f:.%]{1,20}(/[0-9.]+)?"))
@example("tcp/" + "9" * 5000)
@example("²/80")
@example("icmp/8/٣")
@example("1.2.3.4/" + "9" * 5000)
@example("fe80::1%" + "x" * 5000)
@example("x in (" + "a," * 20_000 + ")")
@example("," * 100_000)
@example("!" * 100_000)
@example(" " * 100_000)
def test_any_text_is_a_value_or_refused_by_each_reader(text: str) -> None:
    for reader, refusal in READERS:
        with suppress(refusal):
            reader(text)


@given(selectors() | LIKELY)
def test_a_selector_read_from_its_own_words_is_the_same(text: str) -> None:
    try:
        selector = parse_selector(text)
    except LabelError:
        return
    assert parse_selector(str(selector)) == selector


@given(st.dictionaries(st.sampled_from(["app", "a.b/c", "X"]), st.sampled_from(["", "1", "a_b"])))
def test_labels_read_from_their_own_words_are_the_same(labels: dict[str, str]) -> None:
    assert parse_labels(str(Labels(labels))) == Labels(labels)


@given(st.ip_addresses())
def test_an_address_read_from_its_own_words_is_the_same(address: Any) -> None:
    once = parse_address(str(address))
    assert parse_address(str(once)) == once
    assert once == ip_address(str(once))
    assert parse_network(str(once)) == ip_network(once)


@given(
    st.lists(st.sampled_from(["tcp", "udp/53", "tcp/80-90", "icmp/8", "icmp/3/1-4", "icmpv6/1/0", "gre", "any", "0"]))
)
def test_ports_read_from_their_own_words_are_the_same(texts: list[str]) -> None:
    ports = PortSet.of(span for text in texts for span in parse_ports(text).spans)
    again = PortSet.of(span for text in str(ports).split(", ") if ports for span in parse_ports(text).spans)
    assert again == ports


# --- a document with something wrong in it ---

SPOILT = [
    "",
    "\0",
    "\t",
    "\n",
    "{",
    "}",
    "[",
    "]",
    ":",
    "- ",
    "&a ",
    "*a",
    "!!int ",
    "'",
    '"',
    "#",
    "|",
    "---\n",
    "\ud800",
]


@settings(max_examples=settings().max_examples * 3)
@given(
    st.lists(
        st.tuples(st.integers(0, len(EXAMPLE)), st.integers(0, 12), st.sampled_from(SPOILT) | TEXTS),
        min_size=1,
        max_size=3,
    )
)
def test_a_spoilt_document_is_a_policy_or_refused(changes: list[tuple[int, int, str]]) -> None:
    text = EXAMPLE
    for at, gone, come in changes:
        text = text[:at] + come + text[at + gone :]
    read(text)


WORDS = ["", "any", "app=shop", "tcp/80", "network:office", "null", "true", "2026-01-01T00:00:00Z", "no-such", "0" * 50]
SCRAPS: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "from", "to", "allow", "as", "workloads", "user", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


Path = list[str | int]


def places(tree: object) -> list[Path]:
    """Every path to a node of `tree`."""
    found: list[Path] = [[]]
    if isinstance(tree, dict):
        for key, value in cast("dict[str, object]", tree).items():
            found += [[key, *path] for path in places(value)]
    elif isinstance(tree, list):
        for index, value in enumerate(cast("list[object]", tree)):
            found += [[index, *path] for path in places(value)]
    return found


def changed(tree: Any, path: Path, scrap: object, how: str) -> object:
    """`tree` with the node at `path` replaced, removed, doubled, or under another name."""
    if not path:
        return scrap
    copy: Any = deepcopy(tree)
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    last = path[-1]
    if how == "remove":
        del holder[last]
    elif how == "double" and isinstance(last, int):
        holder.append(holder[last])
    elif how == "rename" and isinstance(last, str):
        holder[f"{last}x"] = holder.pop(last)
    else:
        holder[last] = scrap
    return copy


TREE: Any = yaml.load(EXAMPLE, Loader=yaml.BaseLoader)
PLACES = places(TREE)


@settings(max_examples=settings().max_examples * 3)
@given(st.sampled_from(PLACES), SCRAPS, st.sampled_from(["replace", "remove", "double", "rename"]))
def test_a_document_with_a_wrong_node_is_a_policy_or_refused(path: Path, scrap: object, how: str) -> None:
    read(json.dumps(changed(TREE, path, scrap, how)))


@given(documents(), st.data())
def test_a_random_document_cut_short_is_a_policy_or_refused(text: str, data: st.DataObject) -> None:
    assert read(text) is not None
    at = data.draw(st.integers(0, len(text)))
    read(text[:at])


# --- bombs ---

MANY = 10_000


def listed(section: str, one: Callable[[int], str]) -> str:
    return f"{section}:\n" + "".join(f"  - {one(number)}\n" for number in range(MANY))


def mapped(section: str, one: Callable[[int], str]) -> str:
    return f"{section}:\n" + "".join(f"  {one(number)}\n" for number in range(MANY))


BOMBS = {
    "nested lists": "[" * 100_000,
    "nested mappings": "{a: " * 50_000,
    "nested keys": "? " * 50_000,
    "nested sequences": "- " * 50_000,
    "nested blocks": "".join(f"{' ' * depth}a:\n" for depth in range(MOST_DEPTH * 4)),
    "nested ends": "rules: [{id: r, allow: any, to: any, from: " + "{workloads: " * 5_000,
    "aliases": "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(1000)),
    "one long line": "rules: " + "x" * 1_000_000,
    "a long key": "x" * 100_000 + ": y",
    "a long id": "rules: [{id: " + "x" * 1_000_000 + ", allow: any, from: any, to: any}]",
    "a long unknown word": "services: {" + "w" * 63 + ": tcp/1}\nrules: [{id: r, from: any, to: any, allow: "
    + "w" * 100_000 + "}]",
    "blanks": " " * 1_000_000,
    "line breaks": "\n" * 1_000_000,
    "many documents": "---\n" * 10_000,
    "a long number": "rules: [{id: r, from: any, to: any, allow: tcp/" + "9" * 100_000 + "}]",
    "a long moment": "rules: [{id: r, from: any, to: any, allow: any, expires: " + "9" * 100_000 + "}]",
    "a long selector": "rules: [{id: r, to: any, allow: any, from: 'a in (" + "b," * 100_000 + "c)'}]",
    "many requirements": "rules: [{id: r, to: any, allow: any, from: '"
    + ",".join(f"k{n}=v" for n in range(MANY)) + "'}]",
    "a name like many": mapped("services", lambda n: f"{'s' * 50}{n}: tcp/1")
    + "rules: [{id: r, from: any, to: any, allow: " + "s" * 50 + "x}]",
}  # fmt: skip
PLENTY = {
    "rules": listed("rules", lambda n: f"{{id: r{n}, allow: tcp/{n}, from: app=a{n}, to: any}}"),
    "ports": "rules: [{id: r, from: any, to: any, allow: [" + ", ".join(f"tcp/{2 * n}" for n in range(MANY)) + "]}]",
    "ends": "rules: [{id: r, to: any, allow: any, from: [" + ", ".join(f"app=a{n}" for n in range(MANY)) + "]}]",
    "services": mapped("services", lambda n: f"s{n}: tcp/{n}"),
    "ports of a service": "services: {s: [" + ", ".join(f"tcp/{2 * n}" for n in range(MANY)) + "]}",
    "networks": mapped("networks", lambda n: f"n{n}: 10.{n // 256}.{n % 256}.0/24"),
    "addresses": "networks: {n: [" + ", ".join(f"10.{n // 256}.{n % 256}.0/24" for n in range(MANY)) + "]}",
    "labels": mapped("labels", lambda n: f"k{n}: {{}}"),
    "values": "labels: {k: {values: [" + ", ".join(f"v{n}" for n in range(MANY)) + "]}}",
    "workloads": mapped("workloads", lambda n: f"w{n}: {{addresses: 10.0.{n // 256}.{n % 256}}}"),
    "modes": listed("modes", lambda n: f"{{where: app=a{n}, mode: {'guard' if n % 2 else 'enforce'}}}"),
    "tests": listed("tests", lambda n: f"{{id: t{n}, from: app=a{n}, can: tcp/{n}, to: any}}"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_or_defused_before_long(name: str) -> None:
    read(BOMBS[name])


@pytest.mark.parametrize("name", PLENTY)
def test_ten_thousand_of_anything_are_read_before_long(name: str) -> None:
    assert read(PLENTY[name]) is not None


def test_a_thousand_files_are_one_policy() -> None:
    files = [(f"{n}.yaml", f"rules: [{{id: r{n}, allow: tcp/{n}, from: any, to: any}}]") for n in range(1000)]
    assert len(parse_policy(files).rules) == 1000
