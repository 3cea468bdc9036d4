"""Labels are an immutable mapping with Kubernetes' keys and values."""

from __future__ import annotations

import pytest

from cellwall.labels import LabelError, Labels, check_key, check_value, parse_labels


@pytest.mark.parametrize("key", ["app", "A", "a.b_c-d", "example.com/app", "0.1.2.domain/99", "x" * 63])
def test_a_kubernetes_label_key_is_a_key(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "-a", "a-", "a b", "x" * 64, "a\n", "é", "example.com/"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(LabelError, match=r"is not a label key: letters, digits, `-`, `_`, `\.`, at most 63$"):
        check_key(key)


@pytest.mark.parametrize("key", ["/a", "Example.com/a", "a/b/c", "a..b/c", "a.-b/c", "-/a", "x" * 254 + "/a"])
def test_a_prefix_that_is_no_dns_name_is_refused(key: str) -> None:
    with pytest.raises(LabelError, match=r"is not a label key: its prefix is not a DNS name$"):
        check_key(key)


@pytest.mark.parametrize("value", ["", "prod", "1.2", "x" * 63])
def test_a_kubernetes_label_value_is_a_value(value: str) -> None:
    assert check_value(value) == value


@pytest.mark.parametrize("value", ["-", "a b", "x" * 64, "a/b", "prod\n"])
def test_what_is_no_value_is_refused(value: str) -> None:
    with pytest.raises(LabelError, match=r"is not a label value: letters, digits, `-`, `_`, `\.`, at most 63$"):
        check_value(value)


def test_labels_are_equal_by_content_whatever_the_order() -> None:
    one, other = Labels({"b": "2", "a": "1"}), Labels([("a", "1"), ("b", "2")])
    assert one == other
    assert hash(one) == hash(other)
    assert one.pairs == (("a", "1"), ("b", "2"))
    assert str(one) == "a=1,b=2"
    assert repr(one) == "Labels('a=1,b=2')"
    assert one != Labels({"a": "1"})
    assert one != {"a": "1", "b": "2"}


def test_labels_are_a_mapping() -> None:
    labels = Labels({"app": "shop", "env": "prod"})
    assert labels["app"] == "shop"
    assert labels.get("role") is None
    assert sorted(labels) == ["app", "env"]
    assert len(labels) == 2


def test_changed_labels_are_new_ones() -> None:
    labels = Labels({"app": "shop", "env": "prod"})
    assert labels.but(env="dev", role="web") == Labels({"app": "shop", "env": "dev", "role": "web"})
    assert labels.updated({"env": None, "gone": None}) == Labels({"app": "shop"})
    assert labels.only(["env", "role"]) == Labels({"env": "prod"})
    assert labels == Labels({"app": "shop", "env": "prod"})


def test_labels_with_a_bad_key_or_value_cannot_be_made() -> None:
    with pytest.raises(LabelError):
        Labels({"a b": "1"})
    with pytest.raises(LabelError):
        Labels({"a": "1 2"})


def test_labels_are_read_from_a_line() -> None:
    assert parse_labels("app=shop, env=prod,,x=") == Labels({"app": "shop", "env": "prod", "x": ""})
    assert parse_labels("") == Labels()


@pytest.mark.parametrize(
    ("text", "message"),
    [("app", "`app` is not a label; wanted `key=value`"), ("a=1,a=2", "`a` is given twice")],
)
def test_a_line_that_is_no_labels_is_refused(text: str, message: str) -> None:
    with pytest.raises(LabelError) as caught:
        parse_labels(text)
    assert str(caught.value) == message
