"""Runs the stories beside this file: commands as a person types them, and what they must print.

    # a comment, after an empty line
    needs: controller          what to prepare: `controller` (a running one, empty), or `root`
    -- policy/shop.yaml --     a file, up to the next line like this; `--` alone ends the files
    $ cellwall policy lint policy
    what it prints, standard output first, then standard error
    [3]                        its exit code, when it is not 0

`…` stands for any text within a line, and alone on a line for any number of lines.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PATIENCE_S = 120.0


@dataclass
class Step:
    """One command, where it stands, and what it must print."""

    line: int
    command: str
    expected: list[str] = field(default_factory=list[str])
    code: int = 0

    @property
    def done(self) -> bool:
        """Whether its output has ended, with an empty line."""
        return bool(self.expected) and not self.expected[-1]


@dataclass
class Story:
    """A file of steps."""

    needs: set[str] = field(default_factory=set[str])
    files: dict[str, str] = field(default_factory=dict[str, str])
    steps: list[Step] = field(default_factory=list[Step])


def read_story(text: str) -> Story:
    story = Story()
    name: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if heading := re.fullmatch(r"-- (\S+) --", line):
            name = str(heading[1])
            story.files[name] = ""
        elif line == "--":
            name = None
        elif name is not None:
            story.files[name] += f"{line}\n"
        elif line.startswith("$ "):
            story.steps.append(Step(number, line[2:]))
        elif code := re.fullmatch(r"\[(\d+)\]", line):
            story.steps[-1].code = int(code[1])
        elif line.startswith("#") and (not story.steps or story.steps[-1].done):
            continue
        elif line.startswith("needs: ") and not story.steps:
            story.needs = set(line.removeprefix("needs: ").split())
        elif story.steps:
            story.steps[-1].expected.append(line.rstrip())
    for step in story.steps:
        step.expected = as_printed("\n".join(step.expected))
    return story


def as_printed(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def matches(expected: list[str], printed: list[str]) -> bool:
    if not expected:
        return not printed
    if expected[0] == "…":
        return any(matches(expected[1:], printed[skip:]) for skip in range(len(printed) + 1))
    pattern = ".*".join(re.escape(part) for part in expected[0].split("…"))
    return bool(printed) and re.fullmatch(pattern, printed[0]) is not None and matches(expected[1:], printed[1:])


@contextmanager
def controller(folder: Path, env: dict[str, str]) -> Generator[None]:
    """Run an empty controller on a port that the kernel chooses."""
    socket = folder / "controller.sock"
    argv = ["controller", "run", "--data", "data", "--listen", "127.0.0.1:0", "--advertise", "https://127.0.0.1:7443"]
    command = [sys.executable, "-m", "cellwall", *argv, "--socket", str(socket)]
    log = folder / "controller.log"
    with log.open("wb") as output:
        program = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not socket.exists():
            assert program.poll() is None and time.monotonic() < deadline, f"no controller: {log.read_text('utf-8')}"
            time.sleep(0.05)
        env["CELLWALL_SOCKET"] = str(socket)
        yield
    finally:
        program.terminate()
        try:
            program.wait(10)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("*.txt")))
def test_a_story_goes_as_it_is_told(name: str, tmp_path: Path) -> None:
    story = read_story((HERE / f"{name}.txt").read_text("utf-8"))
    assert story.steps, "a story without a command tells nothing"
    if "root" in story.needs and os.geteuid() != 0:
        pytest.skip("needs root")
    for file, content in story.files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content, "utf-8")
    env = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1", "CELLWALL_LAB_DIR": str(tmp_path / "labs")}
    env.pop("CELLWALL_SOCKET", None)
    if "controller" in story.needs:
        with controller(tmp_path, env):
            run(story, name, tmp_path, env)
    else:
        run(story, name, tmp_path, env)


def run(story: Story, name: str, folder: Path, env: dict[str, str]) -> None:
    for step in story.steps:
        words = shlex.split(step.command)
        if words[0] == "cellwall":
            words = [sys.executable, "-m", "cellwall", *words[1:]]
        ran = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
        printed = as_printed(ran.stdout) + as_printed(ran.stderr)
        told = "\n".join(printed) + (f"\n[{ran.returncode}]" if ran.returncode else "")
        good = matches(step.expected, printed) and ran.returncode == step.code
        assert good, f"{name}.txt:{step.line}: $ {step.command}\n{told}"


def test_the_reader_of_stories_understands_their_parts() -> None:
    story = read_story("# why\nneeds: root\n-- a.yaml --\nx: 1\n--\n$ cellwall x\nout … end\n…\n[3]\n\n$ ls\n")
    assert story.needs == {"root"} and story.files == {"a.yaml": "x: 1\n"}
    assert [(step.command, step.expected, step.code) for step in story.steps] == [
        ("cellwall x", ["out … end", "…"], 3),
        ("ls", [], 0),
    ]


@pytest.mark.parametrize(
    ("printed", "good"), [(["a 1 b"], True), (["a b"], False), (["a 1 b", "more"], False), ([], False)]
)
def test_dots_stand_for_text_within_a_line(printed: list[str], good: bool) -> None:
    assert matches(["a … b"], printed) is good
