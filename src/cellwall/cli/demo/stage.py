"""The stage of the demonstration: what it tells, the promises it keeps or breaks, and the last page."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cellwall.cli.exits import Exit, Stop
from cellwall.cli.files import rewrite
from cellwall.traffic import CellwallError

LAST_PAGE, TITLE = "summary.md", "# Cellwall demonstration"


class Broken(CellwallError):
    """A promise of the demonstration that was not kept."""


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that was to be true, and what was seen."""

    words: str
    seen: str
    kept: bool
    at_s: float


@dataclass
class Stage:
    """Tells what happens, in steps, with the time since the beginning, and keeps what goes on the last page."""

    folder: Path
    console: Console
    began: float = field(default_factory=time.monotonic)
    steps: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    promises: list[Promise] = field(default_factory=list[Promise])
    numbers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def step(self, title: str) -> None:
        """Begin a step."""
        self.steps.append((title, self.elapsed_s))
        self.console.print()
        self.console.print(Text.assemble((f"{len(self.steps):>2}  {title}", "bold"), (f"   {self.clock()}", "dim")))

    def say(self, text: str) -> None:
        """Tell something, indented under its step."""
        for line in text.splitlines():
            self.console.print(Text(f"    {line}"), soft_wrap=True)

    def number(self, what: str, value: object) -> None:
        """Note a figure for the last page."""
        self.numbers.append((what, str(value)))

    def promise(self, words: str, kept: bool, seen: str) -> None:
        """Check a promise: say so where it is kept, raise `Broken` where it is not."""
        self.promises.append(Promise(words, seen, kept, self.elapsed_s))
        style, sign = ("green", "✔") if kept else ("red", "✘")
        self.console.print(
            Text.assemble(("    " + sign + " ", style), (words, style), (f": {seen}", "")), soft_wrap=True
        )
        if not kept:
            raise Broken(f"broken promise: {words}: {seen}")

    def clock(self) -> str:
        """Write the time since the beginning."""
        minutes, seconds = divmod(int(self.elapsed_s), 60)
        return f"{minutes}:{seconds:02}"

    def write(self, name: str, text: str) -> Path:
        """Write a file of the demonstration's output."""
        path = self.folder / name
        rewrite(path, text)
        return path


def keep_out(folder: Path) -> None:
    """Stop where a folder holds what no demonstration left there: it would be replaced. Raises `Stop`."""
    page = folder / LAST_PAGE
    ours = page.is_file() and page.read_bytes().startswith(TITLE.encode())
    if not ours and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Stop(Exit.USAGE, f"`{folder}` holds something else; wanted a new folder, or repeat with --yes")


def last_page(stage: Stage, ended: str) -> str:
    """Write the summary: one page of Markdown. `ended` is empty, or says what went wrong."""
    lines = [TITLE, ""]
    lines += [f"**It failed.** {ended}" if ended else "Every promise was kept.", ""]
    lines += [f"Took {stage.clock()} minutes.", "", "| promise | kept | seen |", "| --- | --- | --- |"]
    lines += [f"| {one.words} | {'yes' if one.kept else '**no**'} | {one.seen} |" for one in stage.promises]
    if stage.numbers:
        lines += ["", "| figure | value |", "| --- | --- |"]
        lines += [f"| {what} | {value} |" for what, value in stage.numbers]
    lines += ["", "Files beside this one: " + ", ".join(sorted(f"`{p.name}`" for p in stage.folder.iterdir()))]
    return "\n".join(lines) + "\n"
