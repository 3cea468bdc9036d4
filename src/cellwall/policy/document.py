"""YAML text as nodes that know where they stand; every fault is a `PolicyError` with file, line and column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar

from cellwall.policy.errors import Place, PolicyError
from cellwall.traffic import CellwallError

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")
MOST_CHARACTERS = 16 * 1024 * 1024
MOST_DEPTH, MOST_DEPTH_OF_A_STREAM = 32, 100
MOST_WORD, MOST_SLIP, MOST_COMPARED = 253, 8, 2000


@dataclass(frozen=True, slots=True)
class Node:
    """A value in a document and its place."""

    place: Place
    value: str | tuple[Node, ...] | tuple[tuple[Node, Node], ...]
    kind: str  # "text", "list" or "mapping"
    quoted: bool = False

    def fail(self, message: str) -> PolicyError:
        """Make the error that `message` is wrong here."""
        return PolicyError(self.place, message)

    def entries(self) -> dict[str, tuple[Node, Node]]:
        """Read a mapping: key text to key and value; a key given twice is refused."""
        if self.kind == "text" and self.value == "" and not self.quoted:
            return {}
        if self.kind != "mapping":
            raise self.fail(f"wanted a mapping, found a {self.kind}")
        found: dict[str, tuple[Node, Node]] = {}
        for key, value in self.value:  # type: ignore[misc]
            assert isinstance(key, Node) and isinstance(value, Node)
            name = key.text()
            if name in found:
                raise key.fail(f"`{name}` is given twice, first on line {found[name][0].place.line}")
            found[name] = (key, value)
        return found

    def fields(self, known: tuple[str, ...]) -> dict[str, Node]:
        """Read a mapping with a closed set of keys; an unknown one is refused with a suggestion."""
        entries = self.entries()
        for name, (key, _) in entries.items():
            if name not in known:
                raise key.fail(f"unknown key `{name}`{suggestion(name, known)}")
        return {name: value for name, (_, value) in entries.items()}

    def items(self) -> tuple[Node, ...]:
        """Read a list."""
        if self.kind == "text" and self.value == "" and not self.quoted:
            return ()
        if self.kind != "list":
            raise self.fail(f"wanted a list, found a {self.kind}")
        return self.value  # type: ignore[return-value]

    def one_or_more(self) -> tuple[Node, ...]:
        """Read a single value or a list of at least one."""
        if self.kind != "list":
            return (self,)
        if not self.value:
            raise self.fail("the list is empty; wanted at least one")
        return self.value  # type: ignore[return-value]

    def text(self) -> str:
        """Read a text."""
        if self.kind != "text":
            raise self.fail(f"wanted a text, found a {self.kind}")
        assert isinstance(self.value, str)
        return self.value

    def filled(self) -> str:
        """Read a text that is not empty."""
        text = self.text()
        if not text:
            raise self.fail("nothing is written here; wanted a text")
        return text

    def flag(self) -> bool:
        """Read `true` or `false`."""
        text = self.text()
        if text not in {"true", "false"}:
            raise self.fail(f"`{text}` is not `true` or `false`")
        return text == "true"

    def choice(self, known: tuple[str, ...]) -> str:
        """Read one of `known`."""
        text = self.text()
        if text not in known:
            raise self.fail(f"`{text}` is not one of `{'`, `'.join(known)}`{suggestion(text, known)}")
        return text

    def parse(self, read: Callable[[str], T]) -> T:
        """Read a text with `read`, giving its error this place."""
        text = self.text()
        try:
            return read(text)
        except PolicyError:
            raise
        except CellwallError as error:
            raise self.fail(str(error)) from None


def suggestion(word: str, known: tuple[str, ...]) -> str:
    """Give `; did you mean …?`, or what there is, or nothing."""
    # What is long or much is not a slip of the pen, and would take long to compare.
    near = [name for name in known if abs(len(name) - len(word)) <= MOST_SLIP][:MOST_COMPARED]
    close = get_close_matches(word, near, n=1, cutoff=0.6) if len(word) <= MOST_WORD else []
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known are `{'`, `'.join(known)}`" if 0 < len(known) <= 12 else ""


def read_document(file: str, text: str | bytes) -> Node | None:
    """Read one YAML document; None where there is nothing in it.

    Anchors, aliases, merge keys, tags and several documents in one file are refused: each would let one place
    mean several things. Raises `PolicyError`.
    """
    found = _read(file, text, MOST_DEPTH, several=False)
    return found[0] if found else None


def read_stream(file: str, text: str | bytes) -> tuple[Node, ...]:
    """Read YAML documents that stand in one file, as Kubernetes manifests do; as strict as `read_document` otherwise.

    Raises `PolicyError`."""
    return _read(file, text, MOST_DEPTH_OF_A_STREAM, several=True)


def _read(file: str, text: str | bytes, depth: int, *, several: bool) -> tuple[Node, ...]:
    # Here and not above: agents import this room and have no YAML parser.
    import yaml

    if not file.isprintable():
        raise PolicyError(Place(ascii(file)), "the name of the file has characters that cannot be shown")
    whole = Place(file, 1, 1)
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise PolicyError(whole, f"byte {error.start} is not UTF-8") from None
    if len(text) > MOST_CHARACTERS:
        raise PolicyError(whole, f"over {MOST_CHARACTERS} characters; split the document")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _refuse_depth(yaml.parse(text, Loader=loader), file, depth, several=several)
        roots = tuple(yaml.compose_all(text, Loader=loader))
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise PolicyError(Place(file, line, 1), "half a character (a surrogate alone) is not text") from None
    except yaml.reader.ReaderError as error:
        # The position is in bytes.
        line = text.encode()[: error.position].count(b"\n") + 1
        raise PolicyError(Place(file, line, 1), f"not YAML: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark: yaml.Mark | None = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark is not None else whole
        line = text.split("\n")[mark.line] if mark is not None and mark.line < text.count("\n") + 1 else ""
        if "\t" in line[: len(line) - len(line.lstrip())]:
            raise PolicyError(place, "not YAML: a tab indents this line; indent with spaces") from None
        raise PolicyError(place, f"not YAML: {error.problem or error.context}") from None
    return tuple(_node(root, file) for root in roots)


def _refuse_depth(events: Iterator[yaml.Event], file: str, most: int, *, several: bool) -> None:
    import yaml

    depth = documents = 0
    for event in events:
        mark = event.start_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark is not None else Place(file, 1, 1)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise PolicyError(place, "anchors and aliases are not read; write the value out")
        if getattr(event, "tag", None) is not None:
            raise PolicyError(place, "tags such as `!!str` are not read; write the value alone")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > most:
                raise PolicyError(place, f"nested more than {most} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1 and not several:
                raise PolicyError(place, "a second document begins here; write it to a file of its own")


def _node(root: yaml.Node, file: str) -> Node:
    import yaml

    place = Place(file, root.start_mark.line + 1, root.start_mark.column + 1)
    if isinstance(root, yaml.MappingNode):
        pairs = tuple((_node(key, file), _node(value, file)) for key, value in root.value)
        return Node(place, pairs, "mapping")
    if isinstance(root, yaml.SequenceNode):
        return Node(place, tuple(_node(item, file) for item in root.value), "list")
    assert isinstance(root, yaml.ScalarNode)
    plain = not root.style
    return Node(place, "" if plain and root.value in {"~", "null"} else root.value, "text", quoted=not plain)
