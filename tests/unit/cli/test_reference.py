from pathlib import Path

from cellwall.cli.app import FILES, build
from cellwall.cli.reference import commands, reference

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md"


def test_the_reference_page_is_not_stale() -> None:
    assert PAGE.read_text("utf-8") == reference(), (
        "write it anew: python -m cellwall.cli.reference > docs/reference/cli.md"
    )


def test_every_command_has_examples_and_an_explanation() -> None:
    found = dict(commands(build(), "cellwall"))
    assert len(found) > 30
    for path, command in found.items():
        assert command.help, path
        assert (command.epilog or "").startswith("Examples:\n  cellwall") or "\n  ssh" in command.epilog, path


def test_every_answer_can_be_had_as_json() -> None:
    silent = {"run", "boot", "remove", "suspend", "resume", "enroll", "down", "add", "demo", "support-bundle"}
    for path, command in commands(build(), "cellwall"):
        # A host's commands have the agent's packages alone, and say little.
        if path.split()[-1] not in silent and not path.startswith("cellwall agent "):
            assert any("--output" in one.opts for one in command.params), path


def test_a_single_command_is_built_like_all_of_them() -> None:
    whole = {path: command.help for path, command in commands(build(), "cellwall")}
    for name in FILES:
        alone = {path: command.help for path, command in commands(build(name), "cellwall")}
        assert alone.items() <= whole.items() and any(path.split()[1] == name for path in alone)
