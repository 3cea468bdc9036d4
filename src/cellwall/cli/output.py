"""What commands print: a table for people, or the whole answer as JSON or YAML for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

_WIDTH_OF_A_PIPE = 160
_STYLES = {
    "allowed": "green", "enforced": "green", "ok": "green", "yes": "green", "pass": "green",
    "would be denied": "yellow", "warn": "yellow", "relaxed": "yellow", "pending": "yellow", "silent": "yellow",
    "denied": "red", "refused": "red", "failed": "red", "fail": "red", "drifted": "red", "reverted": "red",
}  # fmt: skip
_GLYPHS = {"green": "✔", "yellow": "◌", "red": "✘"}


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[
    Format, typer.Option("--output", "-o", help="a table for people, or everything as JSON or YAML", metavar="FORMAT")
]


def console(stderr: bool = False) -> Console:
    """Give a console as wide as the terminal; into a pipe, wide enough that nothing is broken over lines."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _WIDTH_OF_A_PIPE
    return Console(stderr=stderr, highlight=False, width=width, emoji=False)


def show(answer: Any, form: Format, draw: Callable[[], RenderableType]) -> None:
    """Print `answer` in the wanted form; `draw` makes what people see."""
    if form is Format.JSON:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    elif form is Format.YAML:
        import yaml

        print(yaml.safe_dump(answer, sort_keys=False, allow_unicode=True), end="")
    else:
        say(draw())


def say(*what: RenderableType) -> None:
    """Print for people, without reading `[…]` as markup. Sentences are never broken over lines, tables fold."""
    out = console()
    for one in what:
        if isinstance(one, Group):
            say(*one.renderables)
        elif isinstance(one, (str, Text)):
            out.print(Text(one) if isinstance(one, str) else one, soft_wrap=True)
        else:
            out.print(one)


def hint(text: str) -> None:
    """Say on standard error what could be done next; answers stay clean for programs."""
    console(stderr=True).print(Text(text, style="dim"), soft_wrap=True)


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "none") -> RenderableType:
    """Make a plain table: a heading, then one line a row. Words that are verdicts get a sign and a colour."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), show_edge=False)
    for header in headers:
        numeric = header.endswith("#")
        made.add_column(header.removesuffix("#").upper(), justify="right" if numeric else "left", overflow="fold")
    count = 0
    for row in rows:
        made.add_row(*(cell(one) for one in row))
        count += 1
    return made if count else Text(empty)


def cell(value: Any) -> Text:
    """Write one value of a table."""
    if value is None or value in ("", [], {}):
        return Text("-", style="dim")
    if isinstance(value, Text):
        return value
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}".replace(",", " "))
    if isinstance(value, dict):
        return Text(",".join(f"{key}={one}" for key, one in value.items()))  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple)):
        return Text(", ".join(str(one) for one in value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return verdict(value) if isinstance(value, str) and value in _STYLES else Text(str(value))


def verdict(word: str) -> Text:
    """Write a verdict or a state with its sign, its word and its colour."""
    style = _STYLES.get(word, "")
    return Text(f"{_GLYPHS.get(style, '·')} {word}", style=style)


@contextmanager
def working(what: str) -> Generator[None]:
    """Show on a terminal that something is being worked on."""
    shown = console(stderr=True)
    if not shown.is_terminal:
        yield
        return
    with shown.status(what):
        yield


@contextmanager
def live() -> Generator[Callable[[RenderableType], None]]:
    """Keep one picture up to date on a terminal; elsewhere only the last one is printed."""
    from rich.live import Live

    shown = console()
    last: list[RenderableType] = []
    if shown.is_terminal:
        with Live(console=shown, auto_refresh=False) as picture:
            yield lambda drawn: picture.update(drawn, refresh=True)
        return
    try:
        yield lambda drawn: last.__setitem__(slice(None), [drawn])
    finally:
        say(*last)


class Steps:
    """Shows the progress of work in stages: a live line on a terminal, else a line at the end of each stage."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._stage = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take progress: what is being done, how much of it is done and how much there is."""
        if self._console.is_terminal:
            end = "\n" if done >= total else ""
            self._console.print(Text(f"\r{what} {done}/{total}"), end=end)
        elif done >= total and what != self._stage:
            self._console.print(Text(f"{what} {done}/{total}"))
        self._stage = what if done >= total else ""
