"""The exact scripts for nft(8), of a first change and of the next; `make golden` rewrites them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.golden.scenarios import FOLDER, NAMES, load

REWRITE = os.environ.get("CELLWALL_GOLDEN") == "rewrite"


def compare(path: Path, text: str) -> None:
    """Hold `text` against a golden file; an empty text has none."""
    if REWRITE:
        if text:
            path.write_text(text, "utf-8")
        else:
            path.unlink(missing_ok=True)
    held = path.read_text("utf-8") if path.exists() else ""
    assert text == held, f"{path.name} differs; `make golden`, and review the difference"


@pytest.mark.parametrize("name", NAMES)
def test_the_script_is_the_golden_one(name: str) -> None:
    compare(FOLDER / f"{name}.nft", load(name).first())


@pytest.mark.parametrize("name", NAMES)
def test_the_script_of_the_next_change_is_the_golden_one(name: str) -> None:
    compare(FOLDER / f"{name}.change.nft", load(name).change())


def test_the_script_of_a_change_on_trial_is_the_golden_one() -> None:
    compare(FOLDER / "enforce.trial.nft", load("enforce").trial())


def test_no_golden_file_is_left_over() -> None:
    scripts = {path.name.split(".")[0] for path in FOLDER.glob("*.nft")}
    assert scripts == set(NAMES)
