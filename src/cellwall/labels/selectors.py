"""Kubernetes label selectors, exactly (Kubernetes, "Labels and selectors"; apimachinery `labels.Parse`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import assert_never

from cellwall.labels.values import LabelError, check_key, check_value


class Operator(StrEnum):
    """How a requirement tests one key."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "!"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One test of one key. `values` is sorted, and empty for `EXISTS` and `ABSENT`."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether `labels` pass; an absent key passes `!=` and `notin`."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.ABSENT:
                return value is None
            case _:
                assert_never(self.operator)

    def __str__(self) -> str:
        match self.operator:
            case Operator.IN:
                return f"{self.key}={self.values[0]}" if len(self.values) == 1 else self._listed("in")
            case Operator.NOT_IN:
                return f"{self.key}!={self.values[0]}" if len(self.values) == 1 else self._listed("notin")
            case Operator.EXISTS:
                return self.key
            case Operator.ABSENT:
                return f"!{self.key}"
            case _:
                assert_never(self.operator)

    def _listed(self, word: str) -> str:
        return f"{self.key} {word} ({','.join(self.values)})"


@dataclass(frozen=True, slots=True, order=True)
class Selector:
    """A conjunction of requirements, sorted; the empty one matches everything."""

    requirements: tuple[Requirement, ...] = ()
    # Selectors are keys of most tables, and are asked for their hash all the time.
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.requirements))

    def __hash__(self) -> int:
        return self._hash

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether all requirements hold."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def keys(self) -> frozenset[str]:
        """The label keys that it looks at."""
        return frozenset(requirement.key for requirement in self.requirements)

    @property
    def specificity(self) -> int:
        """How many requirements it has."""
        return len(self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


_TOKEN = re.compile(r"==|!=|[=!(),<>]|[^ \t\r\n=!(),<>]+")
_MARKS = frozenset({"==", "!=", "=", "!", "(", ")", ",", "<", ">"})


@lru_cache(maxsize=65536)
def parse_selector(text: str) -> Selector:
    """Read `role=web,env in (prod,staging),!legacy`; the empty text matches everything.

    Raises `LabelError` with the place in words.
    """
    return Selector(tuple(sorted(set(_Reader(text).requirements()))))


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = _TOKEN.findall(text)
        self._at = 0

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def requirements(self) -> Iterable[Requirement]:
        if not self._tokens:
            return
        while True:
            yield self._requirement()
            comma = self._next()
            if not comma:
                return
            if comma != ",":
                raise LabelError(f"`{self._text}`: wanted `,` before `{comma}`")

    def _word(self, wanted: str) -> str:
        word = self._next()
        if not word or word in _MARKS:
            found = f"found `{word}`" if word else "the selector ends"
            raise LabelError(f"`{self._text}`: wanted {wanted}, {found}")
        return word

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            return Requirement(check_key(self._word("a label key after `!`")), Operator.ABSENT)
        key = check_key(self._word("a label key"))
        operator = self._peek()
        if operator in {"", ","}:
            return Requirement(key, Operator.EXISTS)
        self._next()
        if operator in {"=", "==", "!="}:
            value = "" if self._peek() in {"", ","} else self._word("a value")
            kind = Operator.NOT_IN if operator == "!=" else Operator.IN
            return Requirement(key, kind, (check_value(value),))
        if operator in {"in", "notin"}:
            return Requirement(key, Operator(operator), self._values())
        raise LabelError(f"`{self._text}`: wanted `=`, `!=`, `in` or `notin` after `{key}`, found `{operator}`")

    def _values(self) -> tuple[str, ...]:
        if self._next() != "(":
            raise LabelError(f"`{self._text}`: wanted `(` before the values")
        values: set[str] = set()
        while True:
            values.add(check_value("" if self._peek() in {",", ")"} else self._word("a value")))
            mark = self._next()
            if mark == ")":
                return tuple(sorted(values))
            if mark != ",":
                raise LabelError(f"`{self._text}`: wanted `,` or `)` in the list of values")


def overlaps(one: Selector, other: Selector) -> bool:
    """Say whether some labels exist that match both: decided key by key, as keys are independent."""
    return all(_satisfiable(tests) for tests in _by_key(one.requirements + other.requirements).values())


def implies(one: Selector, other: Selector) -> bool:
    """Say whether every labels that match `one` match `other` (one that matches nothing implies all)."""
    if not overlaps(one, one):
        return True
    mine = _by_key(one.requirements)
    return all(
        not _satisfiable([*mine.get(requirement.key, ()), _negated(requirement)]) for requirement in other.requirements
    )


def _by_key(requirements: Iterable[Requirement]) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for requirement in requirements:
        found.setdefault(requirement.key, []).append(requirement)
    return found


def _negated(requirement: Requirement) -> Requirement:
    opposite = {
        Operator.IN: Operator.NOT_IN,
        Operator.NOT_IN: Operator.IN,
        Operator.EXISTS: Operator.ABSENT,
        Operator.ABSENT: Operator.EXISTS,
    }
    return Requirement(requirement.key, opposite[requirement.operator], requirement.values)


def _satisfiable(requirements: Iterable[Requirement]) -> bool:
    """Say whether one key can meet all `requirements`, which are about it: absent, or with some value."""
    asked = {requirement.operator for requirement in requirements}
    if Operator.IN not in asked and Operator.EXISTS not in asked:
        return True  # absent
    if Operator.ABSENT in asked:
        return False
    named = [requirement.values for requirement in requirements if requirement.operator is Operator.IN]
    refused = [requirement.values for requirement in requirements if requirement.operator is Operator.NOT_IN]
    return not named or bool(set(named[0]).intersection(*named).difference(*refused))
