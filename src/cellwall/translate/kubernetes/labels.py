"""Pod and namespace labels as the labels of one workload, and back; and which labels a set of selectors leaves out.

    the name of the namespace                   namespace=shop
    a label of the namespace                    namespace/team=web, namespace.example.com/team=web
    a label of the pod                          as it is
    a port that the pod names, where that       port/tcp.http=8080
    tells pods apart

A pod label that would read as one of the others moves to `pod/` or `pod.….`; there is no label that cannot be said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum

from cellwall.labels import Operator, Requirement, Selector
from cellwall.traffic import PROTOCOL_NAMES, CellwallError

NAMESPACE = "namespace"
NAME_LABEL = "kubernetes.io/metadata.name"
"""The label that the API server gives every namespace: its name."""
MOST_ALTERNATIVES = 1000


class Whose(StrEnum):
    """What a label of a workload tells of: the pod itself, its namespace, or a port that it names."""

    POD = "pod"
    NAMESPACE = "namespace"
    PORT = "port"


class TooManyError(CellwallError):
    """What selectors leave out cannot be said in a reasonable number of selectors."""


def pod_key(key: str) -> str:
    """Give the label key of a workload for the label `key` of its pod."""
    prefix, _, name = key.rpartition("/")
    taken = key == NAMESPACE or prefix.partition(".")[0] in set(Whose)
    return (f"{Whose.POD}.{prefix}/{name}" if prefix else f"{Whose.POD}/{name}") if taken else key


def namespace_key(key: str) -> str:
    """Give the label key of a workload for the label `key` of its namespace."""
    if key == NAME_LABEL:
        return NAMESPACE
    prefix, _, name = key.rpartition("/")
    return f"{Whose.NAMESPACE}.{prefix}/{name}" if prefix else f"{Whose.NAMESPACE}/{name}"


def port_key(protocol: int, name: str) -> str:
    """Give the label key of a workload for the number of the port that its pod calls `name`."""
    return f"{Whose.PORT}/{PROTOCOL_NAMES[protocol]}.{name}"


def meaning(key: str) -> tuple[Whose, str]:
    """Say what a workload's label key tells of, and give the key there: the inverse of the functions above."""
    if key == NAMESPACE:
        return Whose.NAMESPACE, NAME_LABEL
    prefix, _, name = key.rpartition("/")
    word, dot, rest = prefix.partition(".")
    if word not in set(Whose):
        return Whose.POD, key
    return Whose(word), f"{rest}/{name}" if dot else name


def renamed(selector: Selector, key: Callable[[str], str]) -> Selector:
    """Give `selector` with every label key put through `key`."""
    return Selector(tuple(sorted(Requirement(key(one.key), one.operator, one.values) for one in selector.requirements)))


def renamed_labels(labels: Mapping[str, str], key: Callable[[str], str]) -> dict[str, str]:
    """Give `labels` with every key put through `key`."""
    return {key(name): value for name, value in labels.items()}


def complement(selectors: Iterable[Selector]) -> tuple[Selector, ...]:
    """Give selectors that together match exactly the labels that none of `selectors` matches, and never two at once.

    Cut by the key that most of them ask about, value by value; values that leave the same to be asked stay together.
    So the answer is about as long as the question where selectors ask about the same keys, as those of one namespace
    do. Raises `TooManyError` where it gets out of hand."""
    left = frozenset(selectors)
    if any(not one.requirements for one in left):
        return ()
    if not left:
        return (Selector(),)
    counts = Counter(key for one in left for key in one.keys)
    key = min(counts, key=lambda each: (-counts[each], each))
    values = sorted({value for one in left for test in one.requirements if test.key == key for value in test.values})
    other = next(word for number in range(len(values) + 1) if (word := f"x{number}") not in values)
    cases: dict[frozenset[Selector], list[str | None]] = {}
    for value in (*values, other, None):
        cases.setdefault(_asked_still(left, key, value), []).append(value)
    found: list[Selector] = []
    for rest, group in cases.items():
        uncaught = complement(rest)
        for tests in _described(key, group, values, other):
            found.extend(Selector(tuple(sorted((*tests, *one.requirements)))) for one in uncaught)
        if len(found) > MOST_ALTERNATIVES:
            raise TooManyError(f"it would take more than {MOST_ALTERNATIVES} selectors")
    return tuple(found)


def _asked_still(selectors: Iterable[Selector], key: str, value: str | None) -> frozenset[Selector]:
    """Give what is left to ask of labels where `key` has `value` (None: is absent) for each of `selectors` to match."""
    labels = {} if value is None else {key: value}
    return frozenset(
        Selector(tuple(test for test in one.requirements if test.key != key))
        for one in selectors
        if all(test.matches(labels) for test in one.requirements if test.key == key)
    )


def _described(
    key: str, group: Collection[str | None], values: Collection[str], other: str
) -> Iterable[tuple[Requirement, ...]]:
    """Say in requirements, one alternative after another, that `key` has one of `group`."""
    named = tuple(value for value in values if value in group)
    others = tuple(value for value in values if value not in group)
    without = (Requirement(key, Operator.NOT_IN, others),) if others else ()
    if other in group and None in group:
        yield without
    elif other in group:
        yield (Requirement(key, Operator.EXISTS), *without)
    else:
        if named:
            yield (Requirement(key, Operator.IN, named),)
        if None in group:
            yield (Requirement(key, Operator.ABSENT),)
