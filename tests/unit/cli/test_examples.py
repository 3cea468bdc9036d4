"""What stands in the help as an example can be typed as it stands."""

from __future__ import annotations

import re
import shlex

import pytest

from cellwall.cli.app import build
from cellwall.cli.host import concerns, parser
from cellwall.cli.reference import commands

COMMANDS = dict(commands(build(), "cellwall"))
EXAMPLES = sorted(
    {
        re.split(r" [|<>](?: |$)", part.strip())[0]
        for command in COMMANDS.values()
        for line in (command.epilog or "").replace("\\[", "[").replace("\\\n", " ").splitlines()
        for part in re.split(r"(?<=[|]) ", line)
        if part.strip().startswith("cellwall ") and not part.rstrip().endswith("\\")
    }
)


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_is_understood(line: str) -> None:
    words = shlex.split(line)
    if concerns(words[1:]):
        assert parser().parse_args(words[1:])
        return
    depth = max(at for at in range(1, len(words) + 1) if " ".join(words[:at]) in COMMANDS)
    command = COMMANDS[" ".join(words[:depth])]
    command.make_context(words[depth - 1], words[depth:])


def test_there_are_examples_of_most_commands() -> None:
    assert len(EXAMPLES) > len(COMMANDS)
