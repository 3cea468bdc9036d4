"""Edits of documents as text: what is not edited keeps its words, its order and its comments."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from typing import TYPE_CHECKING

from cellwall.analysis.linting.findings import Edit, EditKind

if TYPE_CHECKING:
    import yaml

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def apply_edits(documents: Mapping[str, str], edits: Iterable[Edit]) -> dict[str, str]:
    """Make `edits` in `documents` (file name to YAML text, valid), and give all documents.

    What is inside of something that is taken away is not edited; of two edits of one thing the first is made. An edit
    whose place is not there is left out."""
    by_file: defaultdict[str, list[Edit]] = defaultdict(list)
    for edit in edits:
        by_file[edit.place.file].append(edit)
    changed = {file: _Text(documents[file]).edited(wanted) for file, wanted in by_file.items() if file in documents}
    return {**documents, **changed}


def difference_of(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Write what differs between two sets of documents as one unified diff, to be read and to be given to `patch`."""
    told: list[str] = []
    for file in sorted({*before, *after}):
        one, other = before.get(file, ""), after.get(file, "")
        lines = unified_diff(one.splitlines(True), other.splitlines(True), f"a/{file}", f"b/{file}")
        told += (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return "".join(told)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A stretch of text, and what comes in its place."""

    first: int
    after: int
    text: str


class _Text:
    """One document, with the spans of its nodes."""

    def __init__(self, text: str) -> None:
        import yaml

        self._text = text
        self._starts = [0, *(found.end() for found in _BREAK.finditer(text))]
        # By place: items of lists, keys and values of mappings. A mapping and its first key share theirs.
        self._items: dict[tuple[int, int], tuple[yaml.Node, yaml.CollectionNode]] = {}
        self._keys: dict[tuple[int, int], tuple[yaml.Node, yaml.CollectionNode]] = {}
        self._values: dict[tuple[int, int], tuple[yaml.Node, yaml.CollectionNode]] = {}
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if root is not None:
            self._walk(root)

    def _walk(self, node: yaml.Node) -> None:
        import yaml

        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._items[_place(item)] = item, node
                self._walk(item)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self._keys[_place(key)] = key, node
                self._values[_place(value)] = value, node
                self._walk(value)

    def edited(self, edits: Iterable[Edit]) -> str:
        cuts: list[_Cut] = []
        seen: set[tuple[tuple[int, int], str]] = set()
        removed: dict[int, tuple[yaml.CollectionNode, set[tuple[int, int]]]] = {}
        for edit in edits:
            at = edit.place.line - 1, edit.place.column - 1
            if (at, edit.field) in seen:
                continue
            seen.add((at, edit.field))
            if edit.kind is EditKind.REPLACE and at in self._values:
                node, _ = self._values[at]
                cuts.append(_Cut(self._first(node), self._after(node), edit.text))
            elif edit.kind is EditKind.SET and at in self._items:
                cuts += self._set(self._items[at][0], edit.field, edit.text)
            elif edit.kind is EditKind.REMOVE and (found := self._items.get(at) or self._keys.get(at)):
                removed.setdefault(id(found[1]), (found[1], set()))[1].add(at)
        for parent, gone in removed.values():
            cuts += self._removed(parent, gone)
        return self._cut(cuts)

    def _cut(self, cuts: list[_Cut]) -> str:
        made: list[str] = []
        at = 0
        # The longest first of those that start together: it takes away what is in it.
        for cut in sorted(cuts, key=lambda one: (one.first, -one.after)):
            if cut.first < at:
                continue
            made += [self._text[at : cut.first], cut.text]
            at = cut.after
        return "".join([*made, self._text[at:]])

    def _set(self, node: yaml.Node, field: str, text: str) -> Iterator[_Cut]:
        import yaml

        if not isinstance(node, yaml.MappingNode):
            return
        entries = {key.value: (key, value) for key, value in node.value}
        if field in entries:
            key, value = entries[field]
            if not text:
                yield from self._removed(node, {_place(key)})
                return
            first, after = self._first(value), self._after(value)
            between = self._text[self._after(key) : first]
            if first == after or ("\n" in between and "#" not in between):
                # Nothing, or a list in lines below its key, becomes text beside it.
                yield _Cut(self._after(key), after, f": {text}")
            else:
                yield _Cut(first, after, text)
        elif text and node.value:
            after = self._after(node.value[-1][1])
            if node.flow_style:
                yield _Cut(after, after, f", {field}: {text}")
            else:
                indent = " " * node.value[0][0].start_mark.column
                end = self._line_end(after)
                yield _Cut(end, end, f"\n{indent}{field}: {text}")

    def _removed(self, parent: yaml.CollectionNode, gone: set[tuple[int, int]]) -> Iterator[_Cut]:
        """Take children away: items of a list, or entries of a mapping by their keys."""
        import yaml

        pairs = isinstance(parent, yaml.MappingNode)
        children: list[tuple[yaml.Node, yaml.Node]] = parent.value if pairs else [(one, one) for one in parent.value]
        stays = [_place(one) not in gone for one, _ in children]
        if parent.flow_style and not any(stays):
            yield _Cut(self._first(parent), self._after(parent), "{}" if pairs else "[]")
            return
        for at, (one, last) in enumerate(children):
            if stays[at]:
                continue
            if not parent.flow_style:
                yield _Cut(self._head(one, pairs), self._line_end(self._after(last), whole=True), "")
            elif any(stays[:at]):
                # With the comma before it.
                yield _Cut(self._after(children[at - 1][1]), self._after(last), "")
            else:
                yield _Cut(self._first(one), self._first(children[at + 1][0]), "")

    def _head(self, node: yaml.Node, pair: bool) -> int:
        """Give where a child begins, with the dash before it and the comments right above it."""
        line = node.start_mark.line
        while not pair and not self._line(line).lstrip().startswith("-"):
            line -= 1
        column = len(self._line(line)) - len(self._line(line).lstrip())
        while line > 0:
            above = self._line(line - 1)
            if not above.lstrip().startswith("#") or len(above) - len(above.lstrip()) != column:
                break
            line -= 1
        return self._starts[line]

    def _line(self, line: int) -> str:
        after = self._starts[line + 1] if line + 1 < len(self._starts) else len(self._text)
        return self._text[self._starts[line] : after]

    def _line_end(self, at: int, *, whole: bool = False) -> int:
        """Give the end of the line of a place; `whole`: with its break."""
        found = _BREAK.search(self._text, at)
        if found is None:
            return len(self._text)
        return found.end() if whole else found.start()

    def _first(self, node: yaml.Node) -> int:
        return self._starts[node.start_mark.line] + node.start_mark.column

    def _after(self, node: yaml.Node) -> int:
        """Give where a node ends. A block's own mark is where the next token starts; its last leaf knows better."""
        import yaml

        if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
            return self._after(node.value[-1])
        if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
            return self._after(node.value[-1][1])
        after = self._starts[node.end_mark.line] + node.end_mark.column
        if isinstance(node, yaml.ScalarNode) and (node.style in ("|", ">") or node.value == ""):
            while after > self._first(node) and self._text[after - 1].isspace():
                after -= 1
        return after


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line, node.start_mark.column
