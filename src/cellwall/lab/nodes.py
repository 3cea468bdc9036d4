"""Read YAML strictly, knowing where everything stood: the ground under the scenario parser."""

from __future__ import annotations

from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import TypeVar

import yaml

from cellwall.lab.scenario import ScenarioError
from cellwall.traffic import CellwallError

T = TypeVar("T")


class Entry:
    """One YAML node and the file it stands in."""

    __slots__ = ("file", "node")

    def __init__(self, node: yaml.Node, file: str) -> None:
        self.node = node
        self.file = file

    def wrong(self, message: str) -> ScenarioError:
        """Make the error that says `message` at this place."""
        mark = self.node.start_mark
        return ScenarioError(f"{self.file}:{mark.line + 1}:{mark.column + 1}: {message}")

    def text(self) -> str:
        """Give a scalar as it is written."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.wrong("wanted a single value")
        return str(self.node.value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]

    def integer(self, low: int, high: int) -> int:
        """Give a whole number from `low` to `high`."""
        text = self.text()
        if not (text.isascii() and text.isdecimal()) or not low <= int(text) <= high:
            raise self.wrong(f"`{text}` is not a whole number from {low} to {high}")
        return int(text)

    def truth(self) -> bool:
        """Give `true` or `false`."""
        text = self.text()
        if text not in ("true", "false"):
            raise self.wrong(f"`{text}` is neither `true` nor `false`")
        return text == "true"

    def one_of(self, choices: Collection[str], what: str) -> str:
        """Give a value that is among `choices`, or say which was probably meant."""
        text = self.text()
        if text not in choices:
            raise self.wrong(unknown(what, text, choices))
        return text

    def read(self, parse: Callable[[str], T]) -> T:
        """Give what `parse` makes of the value, and put this place before its complaint."""
        try:
            return parse(self.text())
        except ScenarioError:
            raise
        except CellwallError as error:
            raise self.wrong(str(error)) from None

    def items(self) -> list[Entry]:
        """Give the members of a list; a single value counts as a list of one."""
        if isinstance(self.node, yaml.SequenceNode):
            return [Entry(node, self.file) for node in self.node.value]
        if isinstance(self.node, yaml.ScalarNode):
            return [self]
        raise self.wrong("wanted a list")

    def mapping(self, known: Collection[str] | None = None) -> dict[str, tuple[Entry, Entry]]:
        """Give the members of a mapping by key, each with the places of key and value.

        Raises `ScenarioError` for a key given twice, and for one outside `known` where that is given."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong("wanted a mapping of keys to values")
        found: dict[str, tuple[Entry, Entry]] = {}
        for key_node, value_node in self.node.value:
            key = Entry(key_node, self.file)
            name = key.text()
            if known is not None and name not in known:
                raise key.wrong(unknown("key", name, known))
            if name in found:
                raise key.wrong(f"`{name}` is given twice")
            found[name] = (key, Entry(value_node, self.file))
        return found

    def fields(self, known: Collection[str], needed: Collection[str] = ()) -> dict[str, Entry]:
        """Give the values of a mapping whose keys are all `known`, with none of `needed` missing."""
        found = {name: value for name, (_, value) in self.mapping(known).items()}
        for name in needed:
            if name not in found:
                raise self.wrong(f"`{name}` is missing")
        return found


def unknown(what: str, text: str, choices: Collection[str]) -> str:
    """Say that `text` is not a known `what`, and what was probably meant."""
    near = get_close_matches(text, choices, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "known are `" + "`, `".join(sorted(choices)) + "`"
    return f"unknown {what} `{text}`; {hint}"


def compose(text: str, file: str) -> Entry:
    """Read one YAML document. Raises `ScenarioError` for broken YAML or an empty document."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise ScenarioError(f"{file}:{where}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ScenarioError(f"{file}:1:1: not YAML: {' '.join(str(error).split())}") from None
    if node is None:
        raise ScenarioError(f"{file}:1:1: the scenario is empty; wanted `lab` and `workloads`")
    return Entry(node, file)
