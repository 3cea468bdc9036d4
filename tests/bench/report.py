"""What was found, written for people: between markers in docs/benchmarks.md, and on the terminal."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.measure import Section, Table, Target

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "pictures"
_WORDS = {True: "met", False: "**missed**", None: "not to be told"}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and when it was measured; `load` is that of the minute before, in processes that want to run."""

    at: datetime
    kernel: str
    nft: str
    python: str
    processor: str
    cores: int
    load: float

    def text(self) -> str:
        """Write it in one line."""
        return (
            f"{self.at:%Y-%m-%d %H:%M} UTC, kernel {self.kernel}, {self.nft}, Python {self.python}, "
            f"{self.cores} cores of {self.processor}, load {self.load:.1f} before"
        )


def this_machine() -> Machine:
    """Look."""
    told = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=False).stdout
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return Machine(
        datetime.now(UTC),
        platform.release(),
        re.sub(r" \(.*", "", told.strip()) or "no nft",
        platform.python_version(),
        model[1] if model else platform.machine(),
        len(os.sched_getaffinity(0)),
        os.getloadavg()[0],
    )


def markdown(section: Section, machine: Machine, command: str, seconds: float, *, quick: bool) -> str:
    """Write a section, without its markers."""
    out = [f"## {section.title}", ""]
    if quick:
        out += [
            "**A quick run, perhaps beside other work: it shows that the bench works, and no figure to quote.**",
            "",
        ]
    out += [f"{machine.text()}. Took {seconds:.0f} s. Again: `{command}`.", ""]
    if section.targets:
        out += [*_table(("target", "wanted", "got", ""), map(_target, section.targets)), ""]
    out += [line for name in section.pictures for line in (f"![{section.title}](pictures/{name})", "")]
    for table in section.tables:
        out += [f"### {table.title}", "", *([table.note, ""] if table.note else [])]
        out += [*_table(table.columns, table.rows), ""]
    return "\n".join(out)


def plain(section: Section) -> str:
    """Write a section for a terminal."""
    out = [f"\n{section.title}\n{'=' * len(section.title)}"]
    targets = Table("Targets", ("target", "wanted", "got", ""), tuple(map(_target, section.targets)))
    for table in (targets, *section.tables):
        if not table.rows:
            continue
        widths = [max(len(row[at]) for row in (table.columns, *table.rows)) for at in range(len(table.columns))]
        out += ["", table.title]
        for row in (table.columns, *table.rows):
            out.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(out)


def write(section: Section, text: str) -> None:
    """Put `text` between the markers of the section, and its pictures beside the page."""
    begin, end = f"<!-- bench:{section.name} -->", f"<!-- /bench:{section.name} -->"
    page = PAGE.read_text()
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"`{PAGE}` has no place for it; wanted `{begin}` and `{end}`")
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}")
    for name, picture in section.pictures.items():
        PICTURES.mkdir(exist_ok=True)
        (PICTURES / name).write_text(picture)


def _target(one: Target) -> tuple[str, ...]:
    return one.what, one.wanted, one.got, _WORDS[one.met]


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
