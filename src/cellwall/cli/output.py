"""What commands print: a table for people, or the whole answer as JSON or YAML for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import IO, Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from cellwall.cli.fitting import broken, fit
from cellwall.cli.visible import visible, visible_json

_WIDTH_OF_A_PIPE = 160
GAP = 2
"""Between two columns of a table."""
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
    return _Console(stderr=stderr, highlight=False, width=width, emoji=False)


class _Console(Console):
    """A console that shows what others wrote, and never obeys it."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Give the pieces of text that are to be written."""
        for one in super().render(renderable, options):
            yield one if one.control else Segment(visible(one.text), one.style)

    def on_broken_pipe(self) -> None:
        """Go on without output where its reader has gone: `| head` changes neither files nor the exit code."""
        _nobody_reads(self.file)


def _nobody_reads(stream: IO[str]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _write(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        _nobody_reads(sys.stdout)


_MISSING: dict[str, str] = {}


def missing(name: str, why: str) -> None:
    """Say on standard error, once, that what a controller has seen is not in an answer; `show` says it to programs."""
    if name not in _MISSING:
        _MISSING[name] = why
        console(stderr=True).print(
            Text(f"! without the flows of controller {name}: {why}", style="yellow"), soft_wrap=True
        )


def show(answer: Any, form: Format, draw: Callable[[], RenderableType]) -> None:
    """Print `answer` in the wanted form; `draw` makes what people see."""
    if _MISSING and isinstance(answer, dict):
        who = [{"name": name, "why": why} for name, why in _MISSING.items()]
        answer = {**answer, "missing_controllers": who}  # pyright: ignore[reportUnknownVariableType]
    if form is Format.JSON:
        _write(visible_json(json.dumps(answer, indent=2, ensure_ascii=False)) + "\n")
    elif form is Format.YAML:
        import yaml

        text = yaml.safe_dump(answer, sort_keys=False, allow_unicode=True)
        _write(text if visible(text) == text else yaml.safe_dump(answer, sort_keys=False))
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
    cells = [[cell(one) for one in row] for row in rows]
    if not cells:
        return Text(empty)
    names = [header.removesuffix("#").upper() for header in headers]
    columns = [[names[at], *(row[at].plain for row in cells)] for at in range(len(names))]
    widths = fit(columns, console().width - GAP * (len(names) - 1))
    # The last column takes what is left: were it told its width, rich would put a gap behind it.
    told: list[int | None] = [*widths[:-1], None] if widths else [None] * len(names)
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0), show_edge=False)
    for at, header in enumerate(headers):
        justify = "right" if header.endswith("#") else "left"
        made.add_column(names[at], justify=justify, overflow="fold", width=told[at])
    for row in cells:
        made.add_row(*(_fitted(one, width) for one, width in zip(row, widths or told, strict=True)))
    return made


def _fitted(text: Text, width: int | None) -> Text:
    # What has styles within is left as it is.
    return text if width is None or text.spans else Text(broken(text.plain, width), style=text.style)


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


def counted(count: int, what: str, many: str = "") -> str:
    """Write a number of things: `1 rule`, `2 rules`."""
    return f"{count} {what if count == 1 else many or f'{what}s'}"


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
